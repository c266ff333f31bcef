/* What the configuration's names mean: given, pinned, or looked up. */
#pragma once

#include "init/config.h"
#include "init/dns.h"

struct names {
	const struct guest_config *config;
	/* Of config->names, by the same index; none: not found so far. */
	struct dns_result found[GUEST_NAMES_MAX];
	uint32_t ttl_s; /* the shortest of the last look-up */
	bool failed;    /* not all were found by it */
};

void names_init(struct names *names, const struct guest_config *config);

/* Begins a look-up; what an earlier one found stays until it is replaced. */
void names_begin(struct names *names);

/**
 * names_hear() - Take a line of resolver_main()
 * @line:	Terminated; taken apart
 * @ret_name:	The configuration's name that it is about
 * @ret_text:	Of a name that was found its addresses, separated by a space,
 *		else the reason
 *
 * Pure. Return: 1: found; 0: not found; -EINVAL: no such line
 */
int names_hear(struct names *names, char *line, const char **ret_name,
	       const char **ret_text);

/* The first address of a host: itself, pinned or found. Return: 0 or -ENOENT */
int names_address(const struct names *names, const char *host,
		  struct in6_addr *ret);

/* Whether @address is one of the host's. */
bool names_has(const struct names *names, const char *host,
	       const struct in6_addr *address);

/* Whether there is anybody to talk to yet. */
bool names_usable(const struct names *names);

/* Writes all of them to GUEST_HOSTS. */
int names_write(const struct names *names, struct error *e);
