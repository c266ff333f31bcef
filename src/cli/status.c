#include "cli/cli.h"

#include <errno.h>
#include <pwd.h>
#include <string.h>
#include <time.h>

static void print_json(const struct client_status *status, bool pretty)
{
	json_t *json = client_status_to_json(status);

	json_dumpf(json, stdout,
		   pretty ? JSON_INDENT(2) : JSON_COMPACT | JSON_ENSURE_ASCII);
	putchar('\n');
	fflush(stdout);
	json_decref(json);
}

static bool is_state(const struct client_status *status, const char *state)
{
	return !strcmp(status->state, state);
}

/* Seconds since an RFC 3339 time of ours, or -1. */
static int64_t age_of(const char *since)
{
	struct tm tm = { 0 };
	const char *rest = strptime(since, "%Y-%m-%dT%H:%M:%S", &tm);
	int64_t age;

	if (!rest)
		return -1;
	age = (int64_t)time(NULL) - (int64_t)timegm(&tm);
	return age < 0 ? -1 : age;
}

static const char *traffic(const struct client_status *status)
{
	if (is_state(status, "Running"))
		return "goes through Tor; everything else is refused";
	if (is_state(status, CLIENT_STATE_STOPPED) && status->lockdown)
		return "is blocked (lockdown)";
	if (is_state(status, CLIENT_STATE_STOPPED) && status->blocked)
		return "may still be blocked";
	if (status->blocked)
		return "is blocked";
	if (status->lockdown)
		return "is blocked by lockdown until TorVM's block is up";
	return "is not protected";
}

/* "12.3 kB/s down, 1.0 kB/s up" */
static void describe_rate(const struct client_status *s, char *buf, size_t size)
{
	char down[24], up[24];

	snprintf(buf, size, "%s/s down, %s/s up",
		 cli_bytes(s->traffic.read_rate, down, sizeof(down)),
		 cli_bytes(s->traffic.written_rate, up, sizeof(up)));
}

static void print_traffic(const struct client_status *s)
{
	char rate[64], down[24], up[24];

	describe_rate(s, rate, sizeof(rate));
	printf("Bandwidth  %s; %s down, %s up since Tor was started\n", rate,
	       cli_bytes(s->traffic.read, down, sizeof(down)),
	       cli_bytes(s->traffic.written, up, sizeof(up)));
}

static void print_name(const struct client_name *n)
{
	printf("Name       %s:", n->name);
	for (size_t i = 0; i < n->n_addresses; i++)
		printf(" %s", n->addresses[i]);
	if (n->error[0])
		printf(" (%s)", n->error);
	else if (n->n_addresses == 0)
		printf(" not looked up yet");
	putchar('\n');
}

static void print_uplink(const struct client_status *s)
{
	const bool bridges = s->uplink.transport[0];
	const bool plain = !strcmp(s->uplink.transport, "none");

	printf("Way out    %s%s%s%s%s\n",
	       bridges && !plain ? s->uplink.transport : "",
	       bridges && !plain ? " " : "", bridges ? "bridges" : "",
	       bridges && s->uplink.proxy[0] ? ", " : "",
	       s->uplink.proxy[0] ? "a proxy" : "");
	for (size_t i = 0; i < s->uplink.n_names; i++)
		print_name(&s->uplink.names[i]);
	for (size_t i = 0; i < s->uplink.n_resolvers; i++)
		printf("Asked      %s, this computer's own resolver, for %s\n",
		       s->uplink.resolvers[i],
		       s->uplink.n_names == 1 ? "that name" : "those names");
}

/* "Refused    12 packets: alice 8, root 3": the rest had no socket here. */
static void print_refused(const struct client_status *s)
{
	printf("Refused    %lld packets", (long long)s->refused);
	for (size_t i = 0; i < s->n_refused_by; i++) {
		const struct passwd *pw = getpwuid((uid_t)s->refused_by[i].uid);

		printf("%s", i ? ", " : ": ");
		if (pw)
			printf("%s", pw->pw_name);
		else
			printf("uid %lld", (long long)s->refused_by[i].uid);
		printf(" %lld", (long long)s->refused_by[i].packets);
	}
	putchar('\n');
}

static void print_text(const struct client_status *s)
{
	enum cli_colour colour = is_state(s, "Running") ? CLI_GREEN
				 : s->blocked           ? CLI_YELLOW
							: CLI_RED;
	int64_t age = age_of(s->since);
	char words[600], duration[32];

	cli_describe(s, words, sizeof(words));
	printf("State      %s%s%s", cli_colour(stdout, colour), s->state,
	       cli_colour(stdout, CLI_PLAIN));
	if (age >= 0)
		printf(" for %s",
		       cli_duration(age, duration, sizeof(duration)));
	if (!is_state(s, "Running") && !is_state(s, CLIENT_STATE_STOPPED))
		printf(" (%s)", words);
	printf("\nTraffic    %s\n", traffic(s));
	if (s->lockdown)
		printf("Lockdown   on: traffic stays blocked while TorVM does "
		       "not run\n");
	if (s->lan_access)
		printf("LAN        open: private addresses on directly "
		       "connected links are reached beside Tor\n");
	if (!is_state(s, CLIENT_STATE_STOPPED)) {
		printf("Tor        %s, %d %%%s%s%s\n",
		       s->tor_version[0] ? s->tor_version : "not started",
		       s->bootstrap_percent,
		       s->bootstrap_summary[0] ? ", " : "",
		       s->bootstrap_summary,
		       s->circuit_established ? ", circuit established" : "");
		if (strcmp(s->entry, "direct") != 0 || s->n_tried > 0)
			printf("Entry      %s\n", s->entry);
		for (size_t i = 0; i < s->n_tried; i++)
			printf("Tried      %s\n", s->tried[i]);
		if (s->uplink.known)
			print_uplink(s);
		if (s->vm_pid > 0)
			printf("Machine    process %lld%s%s%s%s\n",
			       (long long)s->vm_pid, s->accel[0] ? ", " : "",
			       s->accel, s->vm_uptime >= 0 ? ", up " : "",
			       s->vm_uptime >= 0
				       ? cli_duration(s->vm_uptime, duration,
						      sizeof(duration))
				       : "");
		if (s->traffic.known)
			print_traffic(s);
		print_refused(s);
	}
	if (s->confirm_left >= 0)
		printf("Confirm    the network opens again in %lld s unless "
		       "you run: torvm confirm\n",
		       (long long)s->confirm_left);
	for (size_t i = 0; i < s->n_alarms; i++)
		printf("%sAlarm%s      %s\n", cli_colour(stdout, CLI_RED),
		       cli_colour(stdout, CLI_PLAIN), s->alarms[i]);
	if (s->last_error[0])
		printf("Last error %s\n", s->last_error);
	if (s->obstacle.next[0])
		printf("Next step  %s\n", s->obstacle.next);
}

struct watch {
	bool json;
	char said[700]; /* the line printed last, without its time */
	struct client_status last;
};

static int on_change(void *userdata, const struct client_status *status)
{
	struct watch *w = userdata;
	char words[600], when[16], line[sizeof(w->said)];
	time_t now = time(NULL);
	struct tm tm;

	w->last = *status;
	if (w->json) {
		print_json(status, false);
	} else {
		cli_describe(status, words, sizeof(words));
		if (is_state(status, "Running") && status->traffic.known) {
			size_t n = strlen(words);

			str_copy(words + n, sizeof(words) - n, "; ");
			n = strlen(words);
			describe_rate(status, words + n, sizeof(words) - n);
		}
		snprintf(line, sizeof(line), "%-15s %s", status->state, words);
		if (!strcmp(line, w->said))
			return 0;
		str_copy(w->said, sizeof(w->said), line);
		strftime(when, sizeof(when), "%H:%M:%S",
			 localtime_r(&now, &tm));
		printf("%s  %s\n", when, line);
		fflush(stdout);
	}
	/* The reader has gone: there is nobody to go on for. */
	return ferror(stdout) ? -EPIPE : 0;
}

static int stopped(const struct cli_args *args, bool one_line)
{
	struct watch w = { .json = args->given & CLI_BIT(JSON) };

	client_status_stopped(cli_runtime_dir(args), &w.last);
	if (cli_lockdown(cli_runtime_dir(args)))
		w.last.lockdown = w.last.blocked = true;
	if (!w.last.blocked && cli_leftovers(cli_runtime_dir(args))) {
		w.last.blocked = true;
		str_copy(w.last.last_error, sizeof(w.last.last_error),
			 "TorVM's firewall is in place, but no controller "
			 "answers here; if it was started with another "
			 "--runtime-dir, name that; else \"torvm up\" or "
			 "\"torvm recover\"");
	}
	if (one_line)
		on_change(&w, &w.last);
	else if (w.json)
		print_json(&w.last, true);
	else
		print_text(&w.last);
	return EXIT_CODE_NOT_RUNNING;
}

int cli_status(const struct cli_args *args)
{
	_cleanup_(client_freep) struct client *client = NULL;
	struct watch w = { .json = args->given & CLI_BIT(JSON) };
	bool watch = args->given & CLI_BIT(WATCH);
	struct error e = ERROR_NULL(e);
	int r;

	r = client_connect(cli_runtime_dir(args), &client, &e);
	if (r == 0 && watch) {
		r = client_watch_status(client, on_change, &w, &e);
		if (r == 0)
			r = -ESRCH;
		if (r == -EPIPE)
			return EXIT_CODE_FAILED;
	} else if (r == 0) {
		r = client_get_status(client, &w.last, &e);
	}
	if (r == -ESRCH)
		return stopped(args, watch);
	if (r < 0)
		return cli_fail(cli_client_code(r), "%s", e.text);
	if (w.json)
		print_json(&w.last, true);
	else
		print_text(&w.last);
	return is_state(&w.last, "Running") ? EXIT_CODE_OK
					    : EXIT_CODE_NOT_RUNNING;
}
