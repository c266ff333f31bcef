/*
 * What a well-formed request looks like.
 *
 * Theory of operation: everything here is pure, so that it can be fuzzed and
 * so that broker and spawner share one opinion. Whether a request is allowed
 * at the moment is the broker's state machine (broker.c).
 */
#include "broker/channel.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "base/ip.h"
#include "vm/fds.h"

static const char *const request_names[] = {
	[BROKER_REQUEST_NONE] = "?",
	[BROKER_REQUEST_PRECHECK] = "PRECHECK",
	[BROKER_REQUEST_BLOCK] = "BLOCK",
	[BROKER_REQUEST_CREATE_TAP] = "CREATE_TAP",
	[BROKER_REQUEST_START_VM] = "START_VM",
	[BROKER_REQUEST_CONFIGURE_TAP] = "CONFIGURE_TAP",
	[BROKER_REQUEST_REFUSE_TAP] = "REFUSE_TAP",
	[BROKER_REQUEST_SET_DNS] = "SET_DNS",
	[BROKER_REQUEST_RESTORE_DNS] = "RESTORE_DNS",
	[BROKER_REQUEST_KILL_VM] = "KILL_VM",
	[BROKER_REQUEST_DELETE_TAP] = "DELETE_TAP",
	[BROKER_REQUEST_UNBLOCK] = "UNBLOCK",
	[BROKER_REQUEST_STATUS] = "STATUS",
	[BROKER_REQUEST_NOTIFY] = "NOTIFY",
	[BROKER_REQUEST_RENEW_UPLINK] = "RENEW_UPLINK",
	[BROKER_REQUEST_SET_UPLINK] = "SET_UPLINK",
};
static_assert(ARRAY_SIZE(request_names) == BROKER_REQUEST_COUNT,
	      "a request has no name");

static const char *const event_names[] = {
	[BROKER_EVENT_VM_EXITED - BROKER_EVENT_FIRST] = "VM_EXITED",
	[BROKER_EVENT_STOP - BROKER_EVENT_FIRST] = "STOP",
	[BROKER_EVENT_TAP_LOST - BROKER_EVENT_FIRST] = "TAP_LOST",
	[BROKER_EVENT_REPAIRED - BROKER_EVENT_FIRST] = "REPAIRED",
};
static_assert(ARRAY_SIZE(event_names) == BROKER_EVENT_LAST - BROKER_EVENT_FIRST,
	      "an event has no name");

const char *broker_type_name(unsigned int type)
{
	if (type < BROKER_REQUEST_COUNT)
		return request_names[type];
	if (type == BROKER_REPLY)
		return "REPLY";
	if (type >= BROKER_EVENT_FIRST && type < BROKER_EVENT_LAST)
		return event_names[type - BROKER_EVENT_FIRST];
	return "?";
}

/* What the kernel (dev_valid_name()) allows, in printable ASCII, and of that
 * nothing that nft, sysfs or an alias would read as something else. */
static bool tap_name_ok(const char name[16])
{
	size_t i, len = strnlen(name, 16);

	if (len == 0 || len > 15 || strcmp(name, ".") == 0 ||
	    strcmp(name, "..") == 0 || strcmp(name, "lo") == 0)
		return false;
	for (i = 0; i < len; i++) {
		if (name[i] <= ' ' || name[i] > '~' ||
		    strchr("/:%*\"\\", name[i]))
			return false;
	}
	return true;
}

int broker_net_check(const struct broker_net *net, struct error *e)
{
	uint32_t host = ntohl(net->host_ip.s_addr);
	uint32_t vm = ntohl(net->vm_ip.s_addr);
	uint32_t high = host >> 24;

	if (!tap_name_ok(net->tap_name))
		return error_set(e, -EINVAL, "the TAP's name is not usable");
	if (host >> 2 != vm >> 2 || host == vm)
		return error_set(e, -EINVAL,
				 "the TAP's addresses are not in one /30");
	if ((host & 3) == 0 || (host & 3) == 3 || (vm & 3) == 0 ||
	    (vm & 3) == 3)
		return error_set(e, -EINVAL,
				 "an address of the TAP is the /30's network "
				 "or broadcast address");
	if (high == 0 || high == 127 || high >= 224)
		return error_set(e, -EINVAL,
				 "the TAP's addresses are not unicast");
	if (net->lan_access > 1)
		return error_set(e, -EINVAL,
				 "LAN access is neither on nor off");
	return 0;
}

static int check_peers(const struct broker_uplink *uplink, struct error *e)
{
	const uint32_t known = BROKER_UPLINK_ANY_TCP | BROKER_UPLINK_ANY_UDP |
			       BROKER_UPLINK_ANY_TCP6 | BROKER_UPLINK_ANY_UDP6;

	if (uplink->any & ~known || uplink->n_peers > BROKER_PEERS_MAX)
		return error_set(e, -EBADMSG,
				 "the uplink's peers are not what they should "
				 "be");
	for (size_t i = 0; i < uplink->n_peers; i++) {
		const struct broker_peer *peer = &uplink->peers[i];

		if ((peer->protocol != IPPROTO_TCP &&
		     peer->protocol != IPPROTO_UDP) ||
		    peer->port == 0)
			return error_set(
				e, -EBADMSG,
				"peer %zu of the uplink has no port or "
				"no protocol",
				i);
		if (peer->zero != 0 || !ip_is_unicast(&peer->address))
			return error_set(e, -EBADMSG,
					 "peer %zu of the uplink is no "
					 "unicast address",
					 i);
	}
	return 0;
}

static int check_uplink(const struct broker_message *m, struct error *e)
{
	if (m->type == BROKER_REQUEST_START_VM)
		return check_peers(&m->u.start_vm.uplink, e);
	if (m->type == BROKER_REQUEST_SET_UPLINK)
		return check_peers(&m->u.uplink, e);
	return 0;
}

static int check_fds(const struct broker_message *m, size_t n_fds,
		     struct error *e)
{
	const uint32_t known = (1u << (VM_FD_COUNT - VM_FD_FROM_ENGINE)) - 1;
	const uint32_t needed = 1u << (VM_FD_OUTPUT - VM_FD_FROM_ENGINE);
	size_t expected = 0;

	if (m->type == BROKER_REQUEST_START_VM) {
		if (m->u.start_vm.present & ~known ||
		    (m->u.start_vm.present & needed) != needed)
			return error_set(e, -EBADMSG,
					 "START_VM names descriptors that do "
					 "not exist, or no output");
		expected =
			1 + (size_t)__builtin_popcount(m->u.start_vm.present);
	}
	if (n_fds != expected)
		return error_set(e, -EBADMSG,
				 "%s came with %zu descriptors instead of %zu",
				 broker_type_name(m->type), n_fds, expected);
	return 0;
}

int broker_message_check(const struct broker_message *m, size_t n_fds,
			 struct error *e)
{
	const char *p;

	if (m->magic != BROKER_MESSAGE_MAGIC)
		return error_set(e, -EBADMSG, "a packet without our mark");
	if (m->type == BROKER_REQUEST_NONE || m->type >= BROKER_REQUEST_COUNT)
		return error_set(e, -EBADMSG, "request %u does not exist",
				 m->type);
	if (!memchr(m->text, '\0', sizeof(m->text)))
		return error_set(e, -EBADMSG, "a text without an end");
	/* The text goes into a datagram for the service manager, where a
	 * newline would start another assignment (MAINPID=). */
	for (p = m->text; *p; p++) {
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			return error_set(e, -EBADMSG,
					 "a text with control characters");
	}
	if (m->type == BROKER_REQUEST_PRECHECK ||
	    m->type == BROKER_REQUEST_BLOCK) {
		if (broker_net_check(&m->u.net, e) < 0) {
			error_prefix(e, "%s", broker_type_name(m->type));
			return -EBADMSG;
		}
	}
	if (check_uplink(m, e) < 0) {
		error_prefix(e, "%s", broker_type_name(m->type));
		return -EBADMSG;
	}
	return check_fds(m, n_fds, e);
}

int broker_argv_split(char *text, size_t len, char **ret_argv, size_t max)
{
	size_t i, n = 0;

	if (len == 0 || text[len - 1] != '\0')
		return -EBADMSG;
	for (i = 0; i < len; i += strlen(text + i) + 1) {
		if (n + 1 >= max)
			return -EBADMSG;
		ret_argv[n++] = text + i;
	}
	ret_argv[n] = NULL;
	return (int)n;
}

static bool has_arg(char *const *argv, const char *arg)
{
	for (; *argv; argv++) {
		if (strcmp(*argv, arg) == 0)
			return true;
	}
	return false;
}

/* Whether each -sandbox of @argv (at least one) switches everything off. */
static bool sandboxed(char *const *argv)
{
	static const char *const parts[] = { "on", "elevateprivileges=deny",
					     "spawn=deny",
					     "resourcecontrol=deny" };
	bool found = false;

	for (; *argv; argv++) {
		char copy[128], *save = NULL, *word;
		unsigned int seen = 0;
		size_t i;

		if (strcmp(*argv, "-sandbox") != 0 &&
		    strcmp(*argv, "--sandbox") != 0)
			continue;
		if (!argv[1] || str_copy(copy, sizeof(copy), argv[1]) < 0)
			return false;
		for (word = strtok_r(copy, ",", &save); word;
		     word = strtok_r(NULL, ",", &save)) {
			/* A later word would win over an earlier one. */
			if (strstr(word, "allow") || strstr(word, "off") ||
			    strstr(word, "children"))
				return false;
			for (i = 0; i < ARRAY_SIZE(parts); i++) {
				if (strcmp(word, parts[i]) == 0)
					seen |= 1u << i;
			}
		}
		if (seen != (1u << ARRAY_SIZE(parts)) - 1)
			return false;
		found = true;
	}
	return found;
}

int broker_argv_check(char *const *argv, struct error *e)
{
	const char *base;

	if (!argv[0] || argv[0][0] != '/')
		return error_set(e, -EINVAL, "QEMU's path is not absolute");
	/* Sentences with it go to the log and to terminals. */
	for (base = argv[0]; *base; base++) {
		if (*base < ' ' || *base > '~')
			return error_set(e, -EINVAL,
					 "QEMU's path is not printable ASCII");
	}
	base = strrchr(argv[0], '/') + 1;
	if (strncmp(base, "qemu-system-", strlen("qemu-system-")) != 0)
		return error_set(e, -EINVAL,
				 "%s is not a qemu-system-* program", argv[0]);
	if (!has_arg(argv, "-nodefaults") || !has_arg(argv, "-no-user-config"))
		return error_set(e, -EINVAL,
				 "QEMU's arguments lack -nodefaults or "
				 "-no-user-config");
	if (!sandboxed(argv))
		return error_set(e, -EINVAL,
				 "QEMU's arguments do not confine it "
				 "(-sandbox on,elevateprivileges=deny,"
				 "spawn=deny,resourcecontrol=deny)");
	return 0;
}
