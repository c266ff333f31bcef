/*
 * Theory of operation
 *
 * "torvm doctor --connection": what keeps Tor from connecting. Two witnesses,
 * and neither sends anything: the kernel (links, addresses, routes), and the
 * running Tor, which has tried and says at what it failed; the controller puts
 * that into words (tor/obstacle.h). A probe of our own would leave in the clear
 * or through the very Tor that does not work.
 */
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <net/route.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "cli/cli.h"

/* How far behind its own programs a clock may be, in seconds. */
#define CLOCK_SLACK 86400

struct finding {
	const char *check;
	const char *result; /* "ok", "note" or "bad" */
	char text[400];
	char next[256]; /* "": nothing to do */
};

#define FINDINGS_MAX 6

struct findings {
	struct finding list[FINDINGS_MAX];
	size_t n;
	bool bad;
};

static void add(struct findings *f, const char *check, const char *result,
		const char *next, const char *fmt, ...) _printf_(5, 6);

static void add(struct findings *f, const char *check, const char *result,
		const char *next, const char *fmt, ...)
{
	struct finding *one = &f->list[f->n++];
	va_list ap;

	one->check = check;
	one->result = result;
	str_copy(one->next, sizeof(one->next), next);
	va_start(ap, fmt);
	vsnprintf(one->text, sizeof(one->text), fmt, ap);
	va_end(ap);
	f->bad = f->bad || !strcmp(result, "bad");
}

/* ------------------------------------------------------------------------- */
/* The kernel */

/* Whether others can answer it: neither loopback's nor IPv6's link-local. */
static bool is_address(const struct sockaddr *sa)
{
	const struct sockaddr_in6 *sa6 = (const void *)sa;

	return sa && (sa->sa_family == AF_INET ||
		      (sa->sa_family == AF_INET6 &&
		       !IN6_IS_ADDR_LINKLOCAL(&sa6->sin6_addr)));
}

/* The first interface besides @own that carries something, and whether it has
 * an address. */
static bool find_link(const char *own, char *ret, size_t size, bool *ret_ip)
{
	struct ifaddrs *list, *a;
	bool found = false;

	*ret_ip = false;
	if (getifaddrs(&list) < 0)
		return false;
	for (a = list; a; a = a->ifa_next) {
		const unsigned int up = IFF_UP | IFF_RUNNING;
		bool ip = is_address(a->ifa_addr);

		if ((a->ifa_flags & up) != up || a->ifa_flags & IFF_LOOPBACK ||
		    !strcmp(a->ifa_name, own))
			continue;
		/* One with an address is the better witness. */
		if (!found || (ip && !*ret_ip))
			str_copy(ret, size, a->ifa_name);
		found = true;
		*ret_ip = *ret_ip || ip;
	}
	freeifaddrs(list);
	return found;
}

/* Whether the main table has an IPv4 default route that is not @own's. */
static bool find_default_route(const char *own)
{
	FILE *in = fopen("/proc/net/route", "re");
	char line[256], name[IF_NAMESIZE], to[16], flags[16], mask[16];
	bool found = false;

	if (!in)
		return false;
	while (!found && fgets(line, sizeof(line), in))
		found = sscanf(line, "%15s %15s %*s %15s %*s %*s %*s %15s",
			       name, to, flags, mask) == 4 &&
			!strcmp(to, "00000000") && !strcmp(mask, "00000000") &&
			strtoul(flags, NULL, 16) & RTF_UP &&
			strcmp(name, own) != 0;
	fclose(in);
	return found;
}

/* The same of IPv6, in any table: T has none. */
static bool find_default_route6(const char *own)
{
	FILE *in = fopen("/proc/net/ipv6_route", "re");
	char line[256], name[IF_NAMESIZE], to[33], len[3], flags[16];
	bool found = false;

	if (!in)
		return false;
	while (!found && fgets(line, sizeof(line), in)) {
		unsigned long bits;

		if (sscanf(line, "%32s %2s %*s %*s %*s %*s %*s %*s %15s %15s",
			   to, len, flags, name) != 4)
			continue;
		bits = strtoul(flags, NULL, 16);
		found = strspn(to, "0") == 32 && !strcmp(len, "00") &&
			bits & RTF_UP && !(bits & RTF_REJECT) &&
			strcmp(name, own) != 0 && strcmp(name, "lo") != 0;
	}
	fclose(in);
	return found;
}

static void ask_kernel(struct findings *f)
{
	static const char own[] = "torvm0";
	char name[IF_NAMESIZE] = "";
	bool ip;

	if (!find_link(own, name, sizeof(name), &ip)) {
		add(f, "link", "bad",
		    "plug in the cable, or connect to a wireless network",
		    "no network link is up");
		return;
	}
	if (!ip) {
		add(f, "link", "bad",
		    "see what the network manager says: the link works, but "
		    "nobody gives it an address (DHCP)",
		    "%s is up, but has no address", name);
		return;
	}
	add(f, "link", "ok", "", "%s is up and has an address", name);
	if (find_default_route(own))
		add(f, "route", "ok", "", "there is a default route");
	else if (find_default_route6(own))
		add(f, "route", "note",
		    "in the configuration tor.client_use_ipv6 true and "
		    "tor.client_use_ipv4 false, unless a bridge or proxy has "
		    "an IPv6 address",
		    "this network has IPv6 only");
	else
		add(f, "route", "bad",
		    "see what the network manager says: no router was named",
		    "there is no default route: nothing outside of the local "
		    "network can be reached");
}

/* A clock that is behind the programs' own date is wrong for certain. */
static void check_clock(struct findings *f)
{
	time_t now = time(NULL);
	struct stat st;

	if (stat("/proc/self/exe", &st) == 0 && now < st.st_mtime - CLOCK_SLACK)
		add(f, "clock", "bad",
		    "sudo timedatectl set-time 'YYYY-MM-DD HH:MM'",
		    "this computer's clock is wrong: it is behind the date of "
		    "this program");
	else
		add(f, "clock", "ok", "", "the clock is plausible");
}

/* ------------------------------------------------------------------------- */
/* Tor */

static void judge_status(struct findings *f, const struct client_status *s)
{
	char words[600];

	if (!strcmp(s->state, "Running")) {
		add(f, "tor", "ok", "", "Tor is connected");
	} else if (s->obstacle.kind[0]) {
		add(f, "tor", "bad", s->obstacle.next,
		    "Tor is stuck at %d %% (%s): %s", s->bootstrap_percent,
		    s->bootstrap_summary, s->obstacle.text);
	} else if (s->last_error[0]) {
		add(f, "tor", "bad", "torvm log", "%s", s->last_error);
	} else {
		cli_describe(s, words, sizeof(words));
		add(f, "tor", "note", "torvm status --watch",
		    "not connected yet, and nothing has gone wrong so far: %s",
		    words);
	}
}

static int ask_tor(struct findings *f, const struct cli_args *args)
{
	_cleanup_(client_freep) struct client *client = NULL;
	struct client_status status = { 0 };
	struct error e = ERROR_NULL(e);
	int r;

	r = client_connect(cli_runtime_dir(args), &client, &e);
	if (r == 0)
		r = client_get_status(client, &status, &e);
	if (r == -ESRCH) {
		add(f, "tor", "note", "torvm up --wait, then this again",
		    "TorVM does not run, so nobody has tried to connect");
		return 0;
	}
	if (r < 0)
		return cli_fail(cli_client_code(r), "%s", e.text);
	judge_status(f, &status);
	return 0;
}

/* ------------------------------------------------------------------------- */

static void print_text(const struct findings *f)
{
	for (size_t i = 0; i < f->n; i++) {
		const struct finding *one = &f->list[i];
		enum cli_colour colour = !strcmp(one->result, "ok") ? CLI_GREEN
					 : !strcmp(one->result, "bad")
						 ? CLI_RED
						 : CLI_YELLOW;

		printf("%s%-5s%s  %-6s %s\n", cli_colour(stdout, colour),
		       one->result, cli_colour(stdout, CLI_PLAIN), one->check,
		       one->text);
		if (one->next[0])
			printf("       next:  %s\n", one->next);
	}
}

static void print_json(const struct findings *f)
{
	json_t *list = json_array();

	for (size_t i = 0; i < f->n; i++) {
		const struct finding *one = &f->list[i];

		json_array_append_new(
			list, json_pack("{s:s, s:s, s:s, s:s}", "check",
					one->check, "result", one->result,
					"text", one->text, "next", one->next));
	}
	json_dumpf(list, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(list);
}

int cli_connection(const struct cli_args *args)
{
	struct findings f = { 0 };
	int r;

	ask_kernel(&f);
	check_clock(&f);
	r = ask_tor(&f, args);
	if (r != 0)
		return r;
	if (args->given & CLI_BIT(JSON))
		print_json(&f);
	else
		print_text(&f);
	return f.bad ? EXIT_CODE_FAILED : EXIT_CODE_OK;
}
