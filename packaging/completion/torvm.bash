# bash completion for torvm(1)                             -*- shell-script -*-

_torvm_options() {
	local start='--config --accel --verbose --runtime-dir --state-dir
		--image-dir --yes --confirm'
	case $1 in
	'') echo "--headless --help --version $start" ;;
	up) echo "--wait --timeout --help $start" ;;
	down | log | confirm | recover | status | newnym)
		echo '--runtime-dir --help'
		[ "$1" != log ] || echo '--follow'
		[ "$1" != status ] || echo '--json --watch'
		;;
	circuits) echo '--runtime-dir --json --help' ;;
	bridges) echo '--runtime-dir --config --json --show-secrets --qr
		--transport --country --direct --url --add --help' ;;
	selftest) echo '--runtime-dir --json --help' ;;
	lockdown) echo '--runtime-dir --yes --json --help' ;;
	doctor) echo '--config --runtime-dir --image-dir --json --connection
		--help' ;;
	*) echo '--help' ;;
	esac
}

_torvm() {
	local commands='up down status log circuits newnym bridges confirm lockdown
		recover doctor selftest config version help'
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
	local command='' i words='' before=0

	# "--accel=k" arrives as three words.
	if [[ $cur == = ]]; then
		cur=''
	elif [[ $prev == = ]]; then
		prev=${COMP_WORDS[COMP_CWORD - 2]}
	fi
	COMPREPLY=()
	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		--config | -c | --accel | --runtime-dir | --state-dir | \
			--image-dir | --confirm | --timeout | -t | --qr | --transport | \
			--country | --url)
			((i++))
			[[ ${COMP_WORDS[i]-} != = ]] || ((i++))
			;;
		-*) ;;
		*)
			if [[ -z $command ]]; then
				command=${COMP_WORDS[i]}
			else
				((before++))
			fi
			;;
		esac
	done
	case $prev in
	--accel)
		mapfile -t COMPREPLY < <(compgen -W 'auto kvm tcg' -- "$cur")
		return
		;;
	--config | -c)
		compopt -o filenames 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return
		;;
	--runtime-dir | --state-dir | --image-dir)
		compopt -o filenames 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -d -- "$cur")
		return
		;;
	--transport) words='obfs4 meek snowflake webtunnel plain' ;;
	--confirm | --timeout) words='60 120 300' ;;
	-t) [[ $command != up ]] || words='60 120 300' ;;
	esac
	if [[ -z $words ]]; then
		if [[ $cur == -* ]]; then
			words=$(_torvm_options "$command")
		elif [[ -z $command ]]; then
			words=$commands
		elif [[ $command == config && $before == 0 ]]; then
			words='check default schema'
		elif [[ $command == bridges && $before == 0 ]]; then
			words='list add remove use test request'
		elif [[ $command == bridges && $prev == use ]]; then
			words='none plain obfs4 meek snowflake webtunnel'
		elif [[ $command == bridges && $prev == request ]]; then
			words='settings defaults builtin map countries'
		elif [[ $command == lockdown && $before == 0 ]]; then
			words='on off status'
		elif [[ $command == config && $prev == check ]]; then
			compopt -o filenames 2>/dev/null
			mapfile -t COMPREPLY < <(compgen -f -- "$cur")
			return
		elif [[ $command == help && $before == 0 ]]; then
			words=$commands
		fi
	fi
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}

complete -F _torvm torvm
