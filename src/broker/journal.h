/*
 * The journal: what the broker has put, or is about to put, into the kernel.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "broker/message.h"
#include "platform/platform.h"

#define JOURNAL_NAME "journal"
#define JOURNAL_SIZE_MAX (64 * 1024) /* bytes */
#define JOURNAL_SYSCTLS_MAX 128

struct journal_sysctl {
	char name[128]; /* below /proc/sys */
	char old_value[32];
	char new_value[32];
};

struct journal {
	char boot_id[37]; /* /proc/sys/kernel/random/boot_id */
	uint64_t netns;   /* inode of /proc/self/ns/net */
	struct net_plan plan;
	uint32_t up;         /* BROKER_UP_FIREWALL, _RULES, _TAP, _DNS */
	int32_t vm_pid;      /* 0: no VM was started */
	uint64_t vm_started; /* its start time, proc_pid_stat(5) */
	size_t n_sysctls;
	struct journal_sysctl sysctls[JOURNAL_SYSCTLS_MAX];
};

/**
 * journal_init() - An empty journal of this boot and network namespace
 *
 * Return: 0 or a negative errno with a sentence (no /proc).
 */
int journal_init(struct journal *j, const struct net_plan *plan,
		 struct error *e);

/* Whether @j was written in this boot and this network namespace. */
bool journal_is_current(const struct journal *j);

/**
 * journal_parse() - Read a journal's text
 *
 * Pure and strict: what journal_format() would not write is refused.
 * Return: 0 or -EBADMSG with a sentence.
 */
int journal_parse(const char *text, size_t len, struct journal *ret,
		  struct error *e);

/**
 * journal_format() - Write a journal as text
 *
 * Return: its length, or -ENOSPC if @size bytes do not suffice.
 */
int journal_format(const struct journal *j, char *buf, size_t size);

/**
 * journal_read() - Read DIR/journal
 * @dir_fd:	The runtime directory
 *
 * Return: 0; -ENOENT: there is none; -EBADMSG: not one of ours; another
 * negative errno. With a sentence.
 */
int journal_read(int dir_fd, struct journal *ret, struct error *e);

/**
 * journal_write() - Replace DIR/journal, atomically and durably
 *
 * Once it has returned 0, the journal is on disk whatever happens next.
 * Blocks for an fsync. Return: 0 or a negative errno with a sentence.
 */
int journal_write(int dir_fd, const struct journal *j, struct error *e);

/* Removes DIR/journal if it exists. Return: 0 or a negative errno. */
int journal_remove(int dir_fd);

/**
 * journal_add_sysctl() - Note a value that is about to be replaced
 *
 * A change that is already noted is not noted twice. The caller writes.
 * Return: 0; -EINVAL: not a name or value that can be noted; -ENOSPC.
 */
int journal_add_sysctl(struct journal *j, const char *name,
		       const char *old_value, const char *new_value);
