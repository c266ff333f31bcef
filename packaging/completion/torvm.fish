# fish completion for torvm(1)

set -l commands up down status log circuits newnym bridges confirm lockdown recover doctor selftest config version help
set -l first "not __fish_seen_subcommand_from $commands"
set -l start "$first; or __fish_seen_subcommand_from up"

complete -c torvm -f
complete -c torvm -n "$first" -a up -d 'Protect this computer'
complete -c torvm -n "$first" -a down -d 'End the protection and restore the network'
complete -c torvm -n "$first" -a status -d 'Show what is going on'
complete -c torvm -n "$first" -a log -d 'Show the controller\'s log'
complete -c torvm -n "$first" -a circuits -d 'Show Tor\'s circuits and who uses them'
complete -c torvm -n "$first" -a newnym -d 'Use new circuits from now on'
complete -c torvm -n "$first" -a bridges -d 'Enter Tor by bridges, where it is blocked'
complete -c torvm -n "$first" -a confirm -d 'Keep a protection started with --confirm'
complete -c torvm -n "$first" -a lockdown -d 'Block everything while TorVM is down'
complete -c torvm -n "$first" -a recover -d 'Restore the network after a crash'
complete -c torvm -n "$first" -a doctor -d 'Find what is missing on this computer'
complete -c torvm -n "$first" -a selftest -d 'Try to get past the block'
complete -c torvm -n "$first" -a config -d 'Check or print a configuration'
complete -c torvm -n "$first" -a version -d 'Print the version'
complete -c torvm -n "$first" -a help -d 'Explain a command'

complete -c torvm -s h -l help -d 'Explain this command'
complete -c torvm -n "$first" -s V -l version -d 'Print the version'
complete -c torvm -n "$first" -l headless -d 'Run the controller in the foreground'

complete -c torvm -n "$start; or __fish_seen_subcommand_from doctor bridges" -s c -l config -r -F -d Configuration
complete -c torvm -n "$start" -l accel -x -a 'auto kvm tcg' -d 'How the virtual machine is run'
complete -c torvm -n "$start" -s v -l verbose -d 'Log what helps to find a fault'
complete -c torvm -n "not __fish_seen_subcommand_from config version help" -l runtime-dir -x -a '(__fish_complete_directories)' -d 'Sockets and journal'
complete -c torvm -n "$start" -l state-dir -x -a '(__fish_complete_directories)' -d 'Tor\'s state'
complete -c torvm -n "$start; or __fish_seen_subcommand_from doctor" -l image-dir -x -a '(__fish_complete_directories)' -d 'The virtual machine\'s image'
complete -c torvm -n "$start; or __fish_seen_subcommand_from lockdown" -s y -l yes -d 'Start although this is a remote session'
complete -c torvm -n "$start" -l confirm -x -a '60 120 300' -d 'End it unless "torvm confirm" follows'

complete -c torvm -n '__fish_seen_subcommand_from up' -s w -l wait -d 'Return when Tor is connected'
complete -c torvm -n '__fish_seen_subcommand_from up' -s t -l timeout -x -a '60 120 300' -d 'How long --wait waits'
complete -c torvm -n '__fish_seen_subcommand_from status lockdown doctor selftest bridges circuits' -s j -l json -d 'Print JSON'
complete -c torvm -n '__fish_seen_subcommand_from status' -s w -l watch -d 'Print each change'
complete -c torvm -n '__fish_seen_subcommand_from log' -s f -l follow -d 'Print each new line'
complete -c torvm -n '__fish_seen_subcommand_from doctor' -l connection -d 'Find what keeps Tor from connecting'
complete -c torvm -n '__fish_seen_subcommand_from bridges' -l show-secrets -d 'Do not hide what is secret'
complete -c torvm -n '__fish_seen_subcommand_from bridges' -l qr -x -d 'Draw bridge N as a QR code'
complete -c torvm -n '__fish_seen_subcommand_from bridges; and not __fish_seen_subcommand_from list add remove use test request' -a 'list add remove use test request'
complete -c torvm -n '__fish_seen_subcommand_from bridges' -l transport -x -a 'obfs4 meek snowflake webtunnel plain' -d 'Ask for bridges of one kind'
complete -c torvm -n '__fish_seen_subcommand_from bridges' -l country -x -d 'Ask for what works there'
complete -c torvm -n '__fish_seen_subcommand_from bridges' -l direct -d 'Ask in the clear if Tor is not connected'
complete -c torvm -n '__fish_seen_subcommand_from bridges' -l url -x -d 'Ask another bridge service'
complete -c torvm -n '__fish_seen_subcommand_from bridges' -l add -d 'Put what comes into the configuration'
complete -c torvm -n '__fish_seen_subcommand_from bridges; and __fish_seen_subcommand_from request' -a 'settings defaults builtin map countries'
complete -c torvm -n '__fish_seen_subcommand_from bridges; and __fish_seen_subcommand_from use' -a 'none plain obfs4 meek snowflake webtunnel'
complete -c torvm -n '__fish_seen_subcommand_from lockdown; and not __fish_seen_subcommand_from on off' -a 'on off status'
complete -c torvm -n '__fish_seen_subcommand_from config; and not __fish_seen_subcommand_from check default schema' -a 'check default schema'
complete -c torvm -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from check' -F
complete -c torvm -n '__fish_seen_subcommand_from help' -a "$commands"
