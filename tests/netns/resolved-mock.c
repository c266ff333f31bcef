/*
 * Stands in for systemd-resolved on a private bus: owns its name, writes each
 * call as a line to stdout, and tells for which link it was set. With an
 * argument it never answers SetLinkDNS, to try the caller's timeout.
 */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include <systemd/sd-bus.h>

#include "base/util.h"

static bool silent;

static int32_t set_link; /* 0: none, or reverted */

/* Manager's DNS and Domains, with what net_dns_set() sets. */
static int tell(sd_bus_message *m)
{
	_cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
	const char *property;
	const int n = set_link ? 1 : 0;
	int r;

	r = sd_bus_message_read(m, "ss", NULL, &property);
	if (r >= 0)
		r = sd_bus_message_new_method_return(m, &reply);
	if (r >= 0 && strcmp(property, "DNS") == 0)
		r = n ? sd_bus_message_append(reply, "v", "a(iiay)", 1,
					      set_link, AF_INET, 4, 10, 10, 10,
					      1)
		      : sd_bus_message_append(reply, "v", "a(iiay)", 0);
	else if (r >= 0)
		r = n ? sd_bus_message_append(reply, "v", "a(isb)", 1, set_link,
					      ".", 1)
		      : sd_bus_message_append(reply, "v", "a(isb)", 0);
	return r < 0 ? r : sd_bus_send(NULL, reply, NULL);
}

static int on_call(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	const char *member = sd_bus_message_get_member(m);
	const char *types = sd_bus_message_get_signature(m, 1);
	const char *text;
	int32_t index, family;
	int flag;

	if (!sd_bus_message_is_method_call(m, NULL, NULL) ||
	    !sd_bus_message_get_path(m) ||
	    strcmp(sd_bus_message_get_path(m), "/org/freedesktop/resolve1") !=
		    0)
		return 0;
	if (strcmp(member, "Get") == 0)
		return tell(m);
	printf("%s", member);
	if (*types && sd_bus_message_read(m, "i", &index) >= 0)
		printf(" %d", index);
	if (strcmp(member, "SetLinkDNS") == 0)
		set_link = index;
	if (strcmp(member, "RevertLink") == 0)
		set_link = 0;
	if (strcmp(types, "is") == 0 && sd_bus_message_read(m, "s", &text) >= 0)
		printf(" %s", text);
	if (strcmp(types, "ib") == 0 && sd_bus_message_read(m, "b", &flag) >= 0)
		printf(" %d", flag);
	if (strcmp(types, "ia(sb)") == 0 &&
	    sd_bus_message_enter_container(m, 'a', "(sb)") >= 0)
		while (sd_bus_message_read(m, "(sb)", &text, &flag) > 0)
			printf(" %s:%d", text, flag);
	if (strcmp(types, "ia(iay)") == 0 &&
	    sd_bus_message_enter_container(m, 'a', "(iay)") >= 0)
		while (sd_bus_message_enter_container(m, 'r', "iay") > 0) {
			const unsigned char *bytes;
			size_t n;

			if (sd_bus_message_read(m, "i", &family) < 0 ||
			    sd_bus_message_read_array(
				    m, 'y', (const void **)&bytes, &n) < 0)
				break;
			printf(" %d:", family);
			for (size_t i = 0; i < n; i++)
				printf("%s%u", i ? "." : "", bytes[i]);
			sd_bus_message_exit_container(m);
		}
	putchar('\n');
	fflush(stdout);
	if (silent && strcmp(member, "SetLinkDNS") == 0)
		return 1;
	sd_bus_reply_method_return(m, NULL);
	return 1;
}

int main(int argc, char **argv)
{
	_cleanup_(sd_bus_flush_close_unrefp) sd_bus *bus = NULL;
	int r;

	silent = argc > 1;
	r = sd_bus_open_system(&bus);
	if (r >= 0)
		r = sd_bus_add_filter(bus, NULL, on_call, NULL);
	if (r >= 0)
		r = sd_bus_request_name(bus, "org.freedesktop.resolve1", 0);
	if (r >= 0) {
		puts("ready");
		fflush(stdout);
	}
	while (r >= 0) {
		r = sd_bus_process(bus, NULL);
		if (r == 0)
			r = sd_bus_wait(bus, UINT64_MAX);
	}
	fprintf(stderr, "resolved-mock: %s\n", strerror(-r));
	return 1;
}
