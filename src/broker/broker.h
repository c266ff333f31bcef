/*
 * The broker's state and what it does when something happens. The loop that
 * notices is loop.c.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "broker/journal.h"
#include "broker/message.h"
#include "broker/spawner.h"
#include "platform/platform.h"

struct broker {
	struct net *net;
	struct spawner *spawner;
	int runtime_fd; /* RUNTIME_DIR, where the journal is */
	int vm_dir_fd;  /* RUNTIME_DIR/vm, where the channels' sockets are */
	uid_t vm_uid;

	/* Events go out by this: type, text, wait status. */
	void (*send_event)(void *userdata, enum broker_type type,
			   const char *text, int wait_status);
	/* NOTIFY goes out by this. */
	void (*notify)(void *userdata, const char *text);
	void *userdata;

	uint32_t up; /* BROKER_UP_*: what is known to be there */
	enum net_firewall mode;
	struct journal journal; /* what is there or about to be */

	pid_t vm_pid;
	int vm_pidfd; /* -1: no VM */

	/* What has to be repaired and could not be yet: NET_CHANGED_*. */
	unsigned int to_repair;
	unsigned int failed_repairs; /* those that were complained about */
	bool dns_pending;            /* the resolver has to be told (again) */

	bool adopted;        /* the block of a dead controller is up */
	bool under_lockdown; /* lockdown's was when we began */
	bool blocked;        /* an engine has asked for BLOCK */
	bool unblocked;      /* the network is as it was found */
	bool blemished;      /* but something could not be put back */
	bool stopping;       /* the user has asked to stop */
};

#define BROKER_NULL \
	((struct broker){ .runtime_fd = -1, .vm_dir_fd = -1, .vm_pidfd = -1 })

/**
 * broker_adopt() - Take over what a dead controller left
 *
 * Called once, before the engine starts. If a journal of this boot and
 * network namespace or a firewall table of ours is there: our own block
 * replaces the old one, the old VM is killed, TAP, DNS, sysctls and rules are
 * put back; the block stays, under a fresh journal. There is no open moment.
 * The block of lockdown stays as it is until BLOCK replaces it.
 *
 * Return: 0, also if nothing was left; or a negative errno with a sentence:
 * what was there is still there.
 */
int broker_adopt(struct broker *b, struct error *e);

/**
 * broker_handle() - Do what a request asks
 * @m:		Any packet
 * @fds:	@n_fds descriptors that came with it; they stay the caller's
 * @reply:	Filled in completely
 * @ret_fd:	A descriptor for the reply, owned by the caller, or -1
 *
 * Blocks for kernel calls, fsync and at most SPAWNER_TIMEOUT_MS.
 */
void broker_handle(struct broker *b, const struct broker_message *m,
		   const int *fds, size_t n_fds, struct broker_message *reply,
		   int *ret_fd);

/* The VM's pidfd polls readable: the uplink is closed and the TAP refused,
 * without waiting for anybody. */
void broker_vm_died(struct broker *b);

/* The spawner has reaped the VM: as broker_vm_died(), and the event. */
void broker_vm_reaped(struct broker *b, int wait_status);

/* The user asks to stop: the event. */
void broker_stop(struct broker *b);

/* Reads the network's watch and repairs. Cheap when nothing has happened: to be
 * called after everything, and each second while to_repair is not 0. */
void broker_network_changed(struct broker *b);

/**
 * broker_dns_changed() - Look whether names still go to the VM
 *
 * To be called when systemd-resolved may have started or its settings have been
 * changed, and from time to time while dns_pending. Puts ours back. Blocks
 * while systemd-resolved does not answer, NET_DNS_TIMEOUT_MS for each call.
 */
void broker_dns_changed(struct broker *b);

/**
 * broker_restore() - Do what the engine should have done at a stop
 *
 * Kills the VM, then restore_network(). Return: as restore_network().
 */
int broker_restore(struct broker *b, struct error *e);

void broker_deinit(struct broker *b);
