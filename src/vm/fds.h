/*
 * The file descriptors QEMU starts with: numbers that its argument vector may
 * rely on. The spawner moves each into place and closes everything else.
 */
#pragma once

enum vm_fd {
	VM_FD_STDIN,  /* /dev/null */
	VM_FD_STDOUT, /* the engine's pipe */
	VM_FD_STDERR, /* the same pipe */

	/* Made by the broker: listening Unix stream sockets, then the TAP. */
	VM_FD_QMP = 3,
	VM_FD_TORCTL,
	VM_FD_AGENT,
	VM_FD_CONSOLE,
	VM_FD_TAP,

	/* Made by the engine. */
	VM_FD_FROM_ENGINE = 8,
	VM_FD_OUTPUT = VM_FD_FROM_ENGINE, /* write end of the output pipe */
	VM_FD_KERNEL,
	VM_FD_INITRD,
	VM_FD_STATE_DISK, /* read-write; optional */
	VM_FD_CONFIG,     /* sealed memfd: opt/torvm/config */
	VM_FD_TORRC,      /* sealed memfd: opt/torvm/torrc */
	VM_FD_COUNT,
};

/* Names of the channels' sockets under RUNTIME_DIR/vm/, engine-owned, 0600. */
#define VM_SOCKET_QMP "qmp.sock"
#define VM_SOCKET_TORCTL "torctl.sock"
#define VM_SOCKET_AGENT "agent.sock"
#define VM_SOCKET_CONSOLE "console.sock"
