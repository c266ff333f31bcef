/*
 * Sending and receiving the packets of message.h (and of spawner.h) with
 * their file descriptors. Holds no privileges: the engine links it too.
 */
#pragma once

#include <stddef.h>

#include "base/error.h"
#include "broker/message.h"

/**
 * channel_pair() - Make a connected pair of SOCK_SEQPACKET sockets
 * @ret:	Two fds, close-on-exec, non-blocking; owned by the caller
 *
 * Return: 0 or a negative errno
 */
int channel_pair(int ret[2]);

/**
 * channel_send() - Send one packet
 * @fd:		Socket
 * @buf:	Packet of @len bytes
 * @fds:	@n_fds descriptors that travel along; they stay the caller's
 *
 * Never blocks. Return: 0; -EAGAIN: the peer does not read; -EPIPE: the peer
 * is gone; another negative errno.
 */
int channel_send(int fd, const void *buf, size_t len, const int *fds,
		 size_t n_fds);

/**
 * channel_recv() - Receive one packet of exactly @len bytes
 * @fd:		Socket
 * @buf:	Room for @len bytes
 * @ret_fds:	Room for BROKER_MESSAGE_FDS_MAX descriptors; those received
 *		are close-on-exec and owned by the caller
 * @ret_n_fds:	How many were received
 *
 * Never blocks. Return: 1: a packet; 0: the peer is gone; -EAGAIN: nothing
 * there; -EBADMSG: a packet of another size or with too many descriptors,
 * which is dropped and its descriptors closed; another negative errno.
 */
int channel_recv(int fd, void *buf, size_t len, int *ret_fds,
		 size_t *ret_n_fds);

/* Closes @n fds and leaves -1 in their places. */
void channel_close_fds(int *fds, size_t n);

/* "BLOCK", "VM_EXITED", ...; "?" for a number that is no type. */
const char *broker_type_name(unsigned int type);

/**
 * broker_net_check() - Whether a plan names a usable TAP and a usable /30
 *
 * Pure. Return: 0 or -EINVAL with a sentence.
 */
int broker_net_check(const struct broker_net *net, struct error *e);

/**
 * broker_message_check() - Whether a packet is a well-formed request
 * @m:		The packet, as hostile as it may be
 * @n_fds:	How many descriptors came with it
 *
 * Pure. Says nothing about whether the request is allowed now.
 * Return: 0 or -EBADMSG with a sentence.
 */
int broker_message_check(const struct broker_message *m, size_t n_fds,
			 struct error *e);

/**
 * broker_argv_split() - Split NUL-separated text into an argument vector
 * @text:	@len bytes, which @ret_argv will point into
 * @ret_argv:	Room for @max pointers, the last one NULL
 *
 * Return: the number of arguments, or -EBADMSG: empty, not terminated, too
 * many.
 */
int broker_argv_split(char *text, size_t len, char **ret_argv, size_t max);

/* Most arguments QEMU is started with, the terminating NULL included. */
#define BROKER_ARGV_COUNT_MAX 256

/**
 * broker_argv_check() - Whether an argument vector starts a confined QEMU
 * @argv:	NULL-terminated
 *
 * The binary is an absolute path to a qemu-system-*; the vector forbids
 * configuration files and default devices and switches QEMU's own sandbox on.
 * Pure. Return: 0 or -EINVAL with a sentence.
 */
int broker_argv_check(char *const *argv, struct error *e);
