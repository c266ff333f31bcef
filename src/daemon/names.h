/* The names that the VM looks up, and whom its uplink may reach for them. */
#pragma once

#include <jansson.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "broker/message.h"
#include "config/uplink.h"
#include "daemon/resolvers.h"
#include "proto/agent.h"
#include "proto/endpoint.h"

#define NAMES_MAX 32 /* of different hosts; the guest takes no more */

struct engine;

struct name {
	char host[UPLINK_HOST_MAX + 1];
	bool proxy; /* may have a private address */
	struct in6_addr addresses[AGENT_ADDRESSES_MAX];
	size_t n;
	char reason[100]; /* why the last look-up failed; "": it did not */
};

struct names {
	struct engine *engine;
	struct uplink plan;
	struct name v[NAMES_MAX];
	size_t n;
	struct in6_addr resolvers[RESOLVERS_MAX];
	size_t n_resolvers;
	bool told;  /* the guest uses these resolvers */
	bool again; /* it has to be asked to look up once more */
	/* Whom the uplink was ever allowed to reach, for the auditor. */
	struct endpoint admitted[256];
	size_t n_admitted;
};

void names_init(struct names *names, struct engine *e);

/**
 * names_prepare() - What a start needs: the plan, and resolvers if names are in
 *		it
 *
 * Reads resolv.conf. Idempotent. Return: 0, or a negative errno with a sentence
 * that says what to do.
 */
int names_prepare(struct names *names, struct error *e);

/* Whom the broker has to let out, with what is known by now. */
void names_uplink(struct names *names, struct broker_uplink *ret);

/* What the guest says: RESOLVED, UNRESOLVED, LOOKED_UP. */
void names_hear(struct names *names, const struct agent_message *m);

/* A guest that an earlier engine has started: it will have to tell again. */
void names_adopt(struct names *names);

/* Whether a name that is needed has no address, as its last look-up failed. */
bool names_fail(const struct names *names);

/* Whether anybody's address is known, given, pinned or found. */
bool names_any(const struct names *names);

/* The guest's agent listens. */
void names_hello(struct names *names);

/* For the status. */
json_t *names_json(const struct names *names);
json_t *names_resolvers_json(const struct names *names);

/* Whether the uplink may be connected with @e by the plan and its names. */
bool names_admit(const struct names *names, const struct endpoint *e);
