/*
 * Theory of operation
 * ===================
 * The VM looks names up by this computer's own resolvers; the block lets its
 * user out to them, on port 53, from the start on. What was found is told on
 * the agent's port, checked here, and goes to the broker as addresses and ports
 * that the uplink may reach from now on (SET_UPLINK); then the guest is told
 * `admitted`, and connects. So the block admits what the VM says a name means.
 * A VM that was taken over can use that for addresses of its choice, but on the
 * configured ports only, and for private ones only in the place of a proxy.
 *
 * A failure may mean that this computer has moved to another network: its
 * resolvers are looked for again then.
 */
#include "daemon/names.h"

#include <errno.h>
#include <string.h>

#include "base/ip.h"
#include "base/log.h"
#include "daemon/engine.h"

#define DNS_PORT 53

void names_init(struct names *names, struct engine *e)
{
	*names = (struct names){ .engine = e };
}

static struct name *find(struct names *names, const char *host)
{
	for (size_t i = 0; i < names->n; i++)
		if (!strcasecmp(names->v[i].host, host))
			return &names->v[i];
	return NULL;
}

static int collect(struct names *names, struct error *e)
{
	size_t lines = 0;

	names->n = 0;
	for (size_t i = 0; i < names->plan.n; i++) {
		const struct uplink_target *t = &names->plan.targets[i];
		struct name *name;

		if (!t->known && lines++ == NAMES_MAX)
			return error_set(e, -E2BIG,
					 "the bridge lines name over %d hosts; "
					 "use fewer of them",
					 NAMES_MAX);
		if (t->known || find(names, t->host))
			continue;
		name = &names->v[names->n++];
		*name = (struct name){ .proxy = t->proxy };
		str_copy(name->host, sizeof(name->host), t->host);
	}
	return 0;
}

int names_prepare(struct names *names, struct error *e)
{
	const struct config *cfg = names->engine->cfg;
	struct error why = ERROR_NULL(why);
	int r = uplink_plan(cfg, &names->plan, e);

	if (r == 0)
		r = collect(names, e);
	names->n_resolvers = 0;
	if (r < 0 || names->n == 0)
		return r;
	r = resolvers_find(cfg->network.vm_ip, names->plan.ipv6,
			   names->resolvers, &why);
	if (r < 0)
		return error_set(e, r,
				 "%s has to be looked up, but %s. Give its "
				 "address: \"bridge\": {\"addresses\": "
				 "[\"%s=ADDRESS\"]}",
				 names->v[0].host, why.text, names->v[0].host);
	names->n_resolvers = (size_t)r;
	names->told = true;
	return 0;
}

/* Whether a name may mean this; what the VM says is not to be trusted. */
static bool is_acceptable(const struct names *names, const struct name *name,
			  const struct in6_addr *address)
{
	const struct config *cfg = names->engine->cfg;
	const struct in6_addr host = ip_from_v4(cfg->network.host_ip);
	const struct in6_addr vm = ip_from_v4(cfg->network.vm_ip);

	return ip_is_unicast(address) &&
	       (ip_is_v4(address) || names->plan.ipv6) &&
	       !ip_equal(address, &host) && !ip_equal(address, &vm) &&
	       (name->proxy || !ip_is_private(address));
}

static void admit(struct names *names, const struct broker_peer *peer)
{
	/* The same form in both: IPv4 is mapped. */
	struct endpoint e = endpoint_from_ip6(&peer->address, peer->port);

	if (peer->protocol != IPPROTO_TCP || names_admit(names, &e))
		return;
	/* The oldest goes: its connections are the least likely to last. */
	if (names->n_admitted == ARRAY_SIZE(names->admitted))
		memmove(names->admitted, names->admitted + 1,
			--names->n_admitted * sizeof(e));
	names->admitted[names->n_admitted++] = e;
}

static void add_peer(struct names *names, struct broker_uplink *to,
		     const struct in6_addr *address, uint8_t protocol,
		     uint16_t port)
{
	if (to->n_peers == BROKER_PEERS_MAX)
		return;
	to->peers[to->n_peers] = (struct broker_peer){
		.address = *address,
		.port = port,
		.protocol = protocol,
	};
	admit(names, &to->peers[to->n_peers++]);
}

void names_uplink(struct names *names, struct broker_uplink *ret)
{
	const struct uplink *plan = &names->plan;

	*ret = (struct broker_uplink){
		.any = (plan->any_tcp ? BROKER_UPLINK_ANY_TCP : 0) |
		       (plan->any_udp ? BROKER_UPLINK_ANY_UDP : 0) |
		       (plan->any_tcp6 ? BROKER_UPLINK_ANY_TCP6 : 0) |
		       (plan->any_udp6 ? BROKER_UPLINK_ANY_UDP6 : 0),
	};
	for (size_t i = 0; i < names->n_resolvers; i++) {
		add_peer(names, ret, &names->resolvers[i], IPPROTO_UDP,
			 DNS_PORT);
		add_peer(names, ret, &names->resolvers[i], IPPROTO_TCP,
			 DNS_PORT);
	}
	for (size_t i = 0; i < plan->n; i++) {
		const struct uplink_target *t = &plan->targets[i];
		const struct name *name =
			t->known ? NULL : find(names, t->host);

		if (t->known)
			add_peer(names, ret, &t->address, t->protocol, t->port);
		for (size_t k = 0; name && k < name->n; k++)
			add_peer(names, ret, &name->addresses[k], t->protocol,
				 t->port);
	}
}

bool names_admit(const struct names *names, const struct endpoint *e)
{
	for (size_t i = 0; i < names->n_admitted; i++)
		if (endpoint_equal(&names->admitted[i], e))
			return true;
	return false;
}

/* ---------------------------------------------------- what the guest says */

static void on_resolved(struct names *names, const struct agent_message *m)
{
	struct name *name = find(names, m->name);

	if (!name)
		return;
	name->n = 0;
	name->reason[0] = '\0';
	for (size_t i = 0; i < m->n_addresses; i++)
		if (is_acceptable(names, name, &m->addresses[i]))
			name->addresses[name->n++] = m->addresses[i];
	if (name->n == 0)
		str_copy(name->reason, sizeof(name->reason),
			 "the resolver answered with a private address: is it "
			 "honest?");
}

static void on_unresolved(struct names *names, const struct agent_message *m)
{
	struct name *name = find(names, m->name);

	if (name)
		str_copy(name->reason, sizeof(name->reason), m->text);
}

bool names_fail(const struct names *names)
{
	for (size_t i = 0; i < names->n; i++)
		if (names->v[i].reason[0] && names->v[i].n == 0)
			return true;
	return false;
}

bool names_any(const struct names *names)
{
	for (size_t i = 0; i < names->plan.n; i++)
		if (names->plan.targets[i].known)
			return true;
	for (size_t i = 0; i < names->n; i++)
		if (names->v[i].n > 0)
			return true;
	return false;
}

static void list_resolvers(const struct names *names, char *ret, size_t size)
{
	size_t used = 0;

	ret[0] = '\0';
	for (size_t i = 0; i < names->n_resolvers && used < size; i++) {
		char ip[IP_TEXT_MAX];

		used += (size_t)snprintf(ret + used, size - used, "%s%s",
					 used ? ", " : "",
					 ip_format(&names->resolvers[i], ip));
	}
}

static void report_failures(struct names *names)
{
	char resolvers[RESOLVERS_MAX * IP_TEXT_MAX] =
		"which has none in /etc/resolv.conf";

	if (names->n_resolvers > 0)
		list_resolvers(names, resolvers, sizeof(resolvers));
	for (size_t i = 0; i < names->n; i++) {
		const struct name *name = &names->v[i];

		if (!name->reason[0])
			continue;
		if (name->n > 0)
			log_warning("%s could not be looked up again by this "
				    "computer's resolver (%s): %s. The address "
				    "found earlier is used.",
				    name->host, resolvers, name->reason);
		else
			engine_failure(
				names->engine,
				"%s could not be looked up by this computer's "
				"resolver (%s): %s. Nothing leaves this "
				"machine; it is tried again. If you know its "
				"address, pin it in bridge.addresses.",
				name->host, resolvers, name->reason);
	}
}

/* Return: whether this computer has other resolvers now. */
static bool resolvers_changed(struct names *names)
{
	struct in6_addr now[RESOLVERS_MAX];
	int n = resolvers_find(names->engine->cfg->network.vm_ip,
			       names->plan.ipv6, now, NULL);

	if (n <= 0 ||
	    ((size_t)n == names->n_resolvers &&
	     !memcmp(now, names->resolvers, (size_t)n * sizeof(*now))))
		return false;
	memcpy(names->resolvers, now, (size_t)n * sizeof(*now));
	names->n_resolvers = (size_t)n;
	return true;
}

static void on_admitted(struct engine *e, const struct broker_message *reply,
			int *fds, size_t n_fds, void *userdata)
{
	struct names *names = &e->names;

	if (reply->status < 0) {
		log_error(
			"The block could not be opened for what the VM looked "
			"up: %s",
			reply->text);
		return;
	}
	if (names->told)
		agent_link_admitted(&e->agent);
	else
		agent_link_resolvers(&e->agent, names->resolvers,
				     names->n_resolvers);
	names->told = true;
}

static void tell_broker(struct names *names)
{
	struct broker_message m = { .type = BROKER_REQUEST_SET_UPLINK };

	names_uplink(names, &m.u.uplink);
	broker_link_request(&names->engine->broker, &m, NULL, 0, on_admitted,
			    NULL);
}

static void on_looked_up(struct names *names, bool ok)
{
	if (names->n == 0)
		return;
	if (!ok) {
		report_failures(names);
		if (moat_names_failed(&names->engine->moat))
			return;
		if (resolvers_changed(names)) {
			log_notice("This computer has other resolvers now; the "
				   "VM asks them.");
			names->told = false;
		}
	}
	tell_broker(names);
	engine_changed(names->engine);
}

void names_hear(struct names *names, const struct agent_message *m)
{
	if (m->kind == AGENT_KIND_RESOLVED)
		on_resolved(names, m);
	else if (m->kind == AGENT_KIND_UNRESOLVED)
		on_unresolved(names, m);
	else if (m->kind == AGENT_KIND_LOOKED_UP)
		on_looked_up(names, m->ok);
}

void names_adopt(struct names *names)
{
	struct error e = ERROR_NULL(e);

	if (names_prepare(names, &e) < 0) {
		log_warning("%s", e.text);
		return;
	}
	/* What was admitted stays so until the guest has told again. */
	names->again = names->n > 0;
}

void names_hello(struct names *names)
{
	if (names->again)
		agent_link_resolvers(&names->engine->agent, names->resolvers,
				     names->n_resolvers);
	names->again = false;
}

static json_t *addresses_json(const struct in6_addr *v, size_t n)
{
	json_t *array = json_array();

	for (size_t i = 0; i < n; i++) {
		char ip[IP_TEXT_MAX];

		json_array_append_new(array, json_string(ip_format(&v[i], ip)));
	}
	return array;
}

json_t *names_resolvers_json(const struct names *names)
{
	return addresses_json(names->resolvers, names->n_resolvers);
}

json_t *names_json(const struct names *names)
{
	json_t *array = json_array();

	for (size_t i = 0; i < names->n; i++) {
		const struct name *n = &names->v[i];
		json_t *object =
			json_pack("{s:s, s:o}", "name", n->host, "addresses",
				  addresses_json(n->addresses, n->n));

		if (n->reason[0])
			json_object_set_new(object, "error",
					    json_string(n->reason));
		json_array_append_new(array, object);
	}
	return array;
}
