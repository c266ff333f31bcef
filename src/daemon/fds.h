/*
 * What the engine (torvmd) starts with. Its argument vector is the broker's
 * own options, checked there:
 *
 *   torvmd --release VERSION [--config NAME] [--accel auto|kvm|tcg] [--verbose]
 *          [--confirm SECONDS] [--resume] --runtime-dir DIR --state-dir DIR
 *          --image-dir DIR
 *
 * --config names fd ENGINE_FD_CONFIG for messages; without it there is none.
 * --release is the broker's: of two versions mixed by a half-done installation,
 * the engine is the one that refuses.
 * --resume: an engine died; the broker still holds the block.
 *
 * The directories come as open fds too, because the engine's user may not be
 * able to walk to them (a checkout below /root): files are opened with
 * openat(2), sockets reached as /proc/self/fd/N/NAME. The paths are for
 * messages. vm.image_dir and vm.state_disk of the configuration, if set, win
 * over the fds unless --image-dir was given by the user (then the broker adds
 * --image-dir-fixed).
 *
 * Its exit codes (base/exit_code.h) are forwarded by the broker as its own.
 */
#pragma once

#include "base/exit_code.h"

enum engine_fd {
	ENGINE_FD_BROKER = 3,    /* SOCK_SEQPACKET, broker/message.h */
	ENGINE_FD_CONTROL = 4,   /* listening RUNTIME_DIR/control.sock */
	ENGINE_FD_CONFIG = 5,    /* the configuration file, or /dev/null */
	ENGINE_FD_IMAGE_DIR = 6, /* O_PATH or O_DIRECTORY, or /dev/null */
	ENGINE_FD_STATE_DIR = 7,
	ENGINE_FD_VM_DIR = 8, /* RUNTIME_DIR/vm: the channels' sockets */
	ENGINE_FD_COUNT,
};
