/*
 * The messages between broker and engine, and between broker and spawner.
 *
 * Theory of operation: one SOCK_SEQPACKET socketpair per peer; each packet is
 * exactly one `struct broker_message`, with file descriptors by SCM_RIGHTS. A
 * packet of another size, an unknown type, a string that is not terminated, a
 * wrong number of fds: the broker drops the message and answers -EBADMSG (it
 * never trusts the engine). One request is answered by one reply with the same
 * `serial`; requests are handled one at a time, in order. Events (type >=
 * BROKER_EVENT_FIRST) come from the broker unasked, serial 0.
 */
#pragma once

#include <netinet/in.h>
#include <stdint.h>

#define BROKER_MESSAGE_MAGIC 0x74766d31u /* "tvm1" */
#define BROKER_MESSAGE_FDS_MAX 12
#define BROKER_TEXT_MAX 480
#define BROKER_REFUSED_MAX 16 /* users in a status */
/* The engine says something (STATUS, if nothing else) at least so often, in ms;
 * one that does not is replaced, see supervise.h. */
#define BROKER_PING_MS 10000

/* Largest QEMU argument vector (NUL-separated strings), in bytes. */
#define BROKER_ARGV_MAX 16384

enum broker_type {
	BROKER_REQUEST_NONE, /* never sent; zero is invalid */

	/* Checks that change nothing: privileges, kernel features (nftables
	 * with every expression used, netdev egress, TUN, policy rules), TAP
	 * name free, no other instance or VPN rule in the way, addresses and
	 * the routing table unused. Payload: net. */
	BROKER_REQUEST_PRECHECK,

	/* Opens the journal and puts the block up: tables `inet torvm` and
	 * `netdev torvm` in one batch, then the policy rules. From here on
	 * nothing but the hold-the-link traffic leaves. Payload: net. */
	BROKER_REQUEST_BLOCK,

	/* Makes the persistent TAP (owner root), down. */
	BROKER_REQUEST_CREATE_TAP,

	/* Starts QEMU as the VM's user, with `u.start_vm.uplink` as whom its
	 * uplink may reach. fds: enum vm_fd from
	 * VM_FD_FROM_ENGINE on, in that order, preceded by a memfd with the
	 * NUL-separated argument vector (argv[0] is the absolute path of the
	 * binary). `u.start_vm.present` says which optional ones follow. The
	 * broker adds the TAP and the channels' listening sockets, drains the
	 * TAP first, and opens the uplink's exemption. Reply: pid in
	 * `u.vm.pid`, one fd: a pidfd. -EBUSY: a VM is running. */
	BROKER_REQUEST_START_VM,

	/* Address, permanent neighbour, MTU, link up, default route in our
	 * table; traffic into the TAP is allowed from here on. */
	BROKER_REQUEST_CONFIGURE_TAP,

	/* Traffic into the TAP is refused again; the uplink's exemption is
	 * closed unless a VM is alive. What Blocked means. */
	BROKER_REQUEST_REFUSE_TAP,

	/* DNS settings for the TAP (systemd-resolved, when it is the bus's
	 * in our network namespace), caches flushed; and the way back. */
	BROKER_REQUEST_SET_DNS,
	BROKER_REQUEST_RESTORE_DNS,

	/* SIGKILL for QEMU through its pidfd; the reply comes once it is
	 * reaped. No VM: success. */
	BROKER_REQUEST_KILL_VM,

	/* Sockets bound to the TAP's address are destroyed, then the TAP. */
	BROKER_REQUEST_DELETE_TAP,

	/* Sysctls, policy rules, firewall last; journal closed. The network
	 * is as it was found. */
	BROKER_REQUEST_UNBLOCK,

	/* What is up: u.status. */
	BROKER_REQUEST_STATUS,

	/* Tells the service manager READY=1 (once) with `text` as STATUS=. */
	BROKER_REQUEST_NOTIFY,

	/* Ends the VM's TCP connections: the machine slept, and whoever is at
	 * their other end has forgotten them. */
	BROKER_REQUEST_RENEW_UPLINK,

	/* From now on the VM's uplink may reach u.uplink instead: names have
	 * been looked up. A VM has to run. */
	BROKER_REQUEST_SET_UPLINK,

	BROKER_REQUEST_COUNT,

	BROKER_REPLY = 64, /* to any request */

	BROKER_EVENT_FIRST = 96,
	/* QEMU has been reaped: u.exit. */
	BROKER_EVENT_VM_EXITED = BROKER_EVENT_FIRST,
	/* The user asked to stop (SIGTERM, SIGINT at the broker). */
	BROKER_EVENT_STOP,
	/* The TAP was deleted, or our rules or tables were touched by another
	 * program: `text` says which, and that they are back or why not. */
	BROKER_EVENT_TAP_LOST,
	BROKER_EVENT_REPAIRED,
	BROKER_EVENT_LAST,
};

/* Bits of broker_status.up */
enum {
	BROKER_UP_FIREWALL = 1 << 0,
	BROKER_UP_RULES = 1 << 1,
	BROKER_UP_TAP = 1 << 2,
	BROKER_UP_TAP_CONFIGURED = 1 << 3,
	BROKER_UP_DNS = 1 << 4,
	BROKER_UP_VM = 1 << 5,
	/* Not in the kernel: the user wants the block to stay after us. */
	BROKER_UP_LOCKDOWN = 1 << 6,
};

struct broker_net {
	char tap_name[16];
	struct in_addr host_ip;
	struct in_addr vm_ip; /* in the same /30 */
	uint32_t lan_access;  /* 0 or 1 */
};

/* Whom the VM's uplink may open a flow to. All zero: nobody. */
#define BROKER_PEERS_MAX 104

enum {
	BROKER_UPLINK_ANY_TCP = 1 << 0, /* any public IPv4 address */
	BROKER_UPLINK_ANY_UDP = 1 << 1,
	BROKER_UPLINK_ANY_TCP6 = 1 << 2, /* any public IPv6 address */
	BROKER_UPLINK_ANY_UDP6 = 1 << 3,
};

struct broker_peer {
	struct in6_addr address; /* base/ip.h; unicast; may be private */
	uint16_t port;           /* host order */
	uint8_t protocol;        /* IPPROTO_TCP or IPPROTO_UDP */
	uint8_t zero;
};

struct broker_uplink {
	uint32_t any; /* BROKER_UPLINK_ANY_* */
	uint32_t n_peers;
	struct broker_peer peers[BROKER_PEERS_MAX];
};

struct broker_message {
	uint32_t magic;
	uint32_t type; /* enum broker_type */
	uint32_t serial;
	int32_t status; /* replies: 0 or negative errno */
	union {
		struct broker_net net;
		struct {
			uint32_t present; /* bit n: VM_FD_FROM_ENGINE + n */
			struct broker_uplink uplink;
		} start_vm;
		struct broker_uplink uplink;
		struct {
			int32_t pid;
			uint64_t start_time; /* clock ticks since boot, proc(5)
					      */
		} vm;
		struct {
			int32_t wait_status; /* as of waitpid(2) */
		} exit;
		struct {
			uint32_t up;
			int32_t vm_pid;
			uint64_t refused_packets; /* counter of the block */
			uint32_t vm_uid; /* whose connections the block lets
					    out; 0: not told */
			/* Of whose sockets how many; most first. */
			uint32_t n_refused_by;
			struct broker_refused {
				uint32_t uid;
				uint64_t packets;
			} refused_by[BROKER_REFUSED_MAX];
		} status;
	} u;
	/* Replies: the sentence of struct error. Terminated. */
	char text[BROKER_TEXT_MAX];
};
