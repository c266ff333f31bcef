/*
 * Theory of operation
 *
 * Ahead of the host's own policy, for IPv4 and IPv6:
 *
 *   100  from the VM's user         goto 140
 *   101  DHCP renewals              goto 140
 *   103  UDP to port 53             table T        (103-105: with LAN access)
 *   104  TCP to port 53             table T
 *   105  everybody                  the LAN's connected routes
 *   110  everybody                  table T (default: the TAP)
 *   120  everybody                  prohibit (IPv4: a table with that route)
 *   140  nop
 *
 * T leads nowhere but to inner bridges in IPv6, so that a connect(2) fails at
 * once with EACCES. When the TAP is gone T is empty and 120 answers; when 140
 * is gone, a goto leads nowhere and the rules below it are read: both fail
 * closed. No route of the host's tables is touched, and none of them, however
 * specific, comes first.
 *
 * The tables are route.c's. A rule that prohibits would also catch the kernel's
 * own question whether a gateway is on a link, which it asks by these rules for
 * each IPv4 route with a next hop: no DHCP client could set a default route any
 * more. That question is of scope link, so it passes by the prohibiting route
 * of scope universe and is answered by the main table. In IPv6 the kernel asks
 * the route's own table first.
 *
 * A rule that comes without a preference, as wg-quick's do, gets the one before
 * the first there is: ahead of ours. What it leads past T is refused by the
 * firewall, but nothing would go through Tor any more. So ours move ahead of
 * it, without a gap to each other, the new ones made before the old ones go;
 * and back to their places when it is gone. The other program's rules are not
 * touched: behind the nop the uplink meets them all, in their order. There is
 * no place ahead of preference 0.
 *
 * Ours are known by their protocol number; a rule of it that is not wanted (an
 * earlier run with another user) is deleted before the new ones are added.
 */
#include "platform/linux/linux.h"

#include <errno.h>
#include <linux/fib_rules.h>
#include <stdlib.h>
#include <string.h>

/* Compared with memcmp(): no padding, every field set. */
struct rule {
	uint32_t family;
	uint32_t pref;
	uint32_t action; /* FR_ACT_* */
	uint32_t table;
	uint32_t go_to;
	uint32_t has_uid, uid_from, uid_to;
	uint32_t l4proto;
	uint32_t sport, dport;
	uint32_t protocol; /* who made it */
};

struct rules {
	struct rule *v;
	size_t n;
};

static const uint32_t rule_families[] = { AF_INET, AF_INET6 };

enum place {
	PLACE_UPLINK,
	PLACE_DHCP,
	PLACE_DNS_UDP,
	PLACE_DNS_TCP,
	PLACE_LAN,
	PLACE_TORVM,
	PLACE_PROHIBIT,
	PLACE_NOP,
	PLACE_COUNT,
};

static const uint32_t default_prefs[] = {
	[PLACE_UPLINK] = NET_RULE_PREF_UPLINK,
	[PLACE_DHCP] = NET_RULE_PREF_DHCP,
	[PLACE_DNS_UDP] = NET_RULE_PREF_DNS_UDP,
	[PLACE_DNS_TCP] = NET_RULE_PREF_DNS_TCP,
	[PLACE_LAN] = NET_RULE_PREF_LAN,
	[PLACE_TORVM] = NET_RULE_PREF_TORVM,
	[PLACE_PROHIBIT] = NET_RULE_PREF_PROHIBIT,
	[PLACE_NOP] = NET_RULE_PREF_NOP,
};
_Static_assert(ARRAY_SIZE(default_prefs) == PLACE_COUNT,
	       "a place without a preference");

#define WANTED_MAX (PLACE_COUNT * ARRAY_SIZE(rule_families))

/* The local table's, where the kernel has put it. */
static bool is_local_rule(const struct rule *rule)
{
	return rule->pref == 0 && rule->action == FR_ACT_TO_TBL &&
	       rule->table == RT_TABLE_LOCAL;
}

/* The first rule of another program that stands in our places or before;
 * NULL: none. */
static const struct rule *first_foreign(const struct rules *rules,
					uint32_t family)
{
	const struct rule *first = NULL;

	for (size_t i = 0; i < rules->n; i++) {
		const struct rule *rule = &rules->v[i];

		if (rule->family == family &&
		    rule->protocol != NET_ROUTE_PROTOCOL &&
		    !is_local_rule(rule) && rule->pref <= NET_RULE_PREF_NOP &&
		    (!first || rule->pref < first->pref))
			first = rule;
	}
	return first;
}

/* Return: how many, or 0 with @ret_obstacle when there is no room. */
static size_t wanted_rules(const struct net_plan *plan,
			   const struct rules *present,
			   struct rule ret[WANTED_MAX],
			   const struct rule **ret_obstacle)
{
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(rule_families); i++) {
		const uint32_t family = rule_families[i];
		const bool v4 = family == AF_INET;
		const struct rule *foreign = first_foreign(present, family);
		uint32_t prefs[PLACE_COUNT];

		if (foreign && foreign->pref <= PLACE_COUNT) {
			*ret_obstacle = foreign;
			return 0;
		}
		for (uint32_t k = 0; k < PLACE_COUNT; k++)
			prefs[k] = foreign ? foreign->pref - PLACE_COUNT + k
					   : default_prefs[k];

		/* In the order in which they are added: ahead of another
		 * program's, the uplink must not meet T for a moment. */
		const struct rule rules[] = {
			{ .pref = prefs[PLACE_NOP], .action = FR_ACT_NOP },
			{ .pref = prefs[PLACE_UPLINK],
			  .action = FR_ACT_GOTO,
			  .go_to = prefs[PLACE_NOP],
			  .has_uid = 1,
			  .uid_from = plan->vm_uid,
			  .uid_to = plan->vm_uid },
			{ .pref = prefs[PLACE_DHCP],
			  .action = FR_ACT_GOTO,
			  .go_to = prefs[PLACE_NOP],
			  .l4proto = IPPROTO_UDP,
			  .sport = v4 ? 68 : 546,
			  .dport = v4 ? 67 : 547 },
			{ .pref = prefs[PLACE_TORVM],
			  .action = FR_ACT_TO_TBL,
			  .table = NET_ROUTE_TABLE },
			{ .pref = prefs[PLACE_PROHIBIT],
			  .action = v4 ? FR_ACT_TO_TBL : FR_ACT_PROHIBIT,
			  .table = v4 ? NET_PROHIBIT_TABLE : 0 },
			{ .pref = prefs[PLACE_DNS_UDP],
			  .action = FR_ACT_TO_TBL,
			  .table = NET_ROUTE_TABLE,
			  .l4proto = IPPROTO_UDP,
			  .dport = 53 },
			{ .pref = prefs[PLACE_DNS_TCP],
			  .action = FR_ACT_TO_TBL,
			  .table = NET_ROUTE_TABLE,
			  .l4proto = IPPROTO_TCP,
			  .dport = 53 },
			{ .pref = prefs[PLACE_LAN],
			  .action = FR_ACT_TO_TBL,
			  .table = NET_LAN_TABLE },
		};
		_Static_assert(ARRAY_SIZE(rules) == PLACE_COUNT, "one each");

		for (size_t k = 0; k < ARRAY_SIZE(rules); k++) {
			if (!plan->lan_access &&
			    (rules[k].dport == 53 ||
			     rules[k].table == NET_LAN_TABLE))
				continue;
			ret[n] = rules[k];
			ret[n].family = family;
			ret[n].protocol = NET_ROUTE_PROTOCOL;
			n++;
		}
	}
	return n;
}

static int no_room(const struct rule *rule, struct error *e)
{
	return error_set(e, -EBUSY,
			 "another program's policy rule leaves no room for "
			 "TorVM's before it (preference %u, see 'ip%s rule'): "
			 "stop that program, often a VPN",
			 rule->pref, rule->family == AF_INET6 ? " -6" : "");
}

static int on_rule(const struct nlmsghdr *nlh, void *data)
{
	const struct fib_rule_hdr *hdr = mnl_nlmsg_get_payload(nlh);
	struct rules *rules = data;
	const struct nlattr *attr;
	struct rule *grown, rule = {
		.family = hdr->family,
		.action = hdr->action,
		.table = hdr->table,
	};

	mnl_attr_for_each(attr, nlh, sizeof(*hdr))
	{
		switch (mnl_attr_get_type(attr)) {
		case FRA_PRIORITY: rule.pref = mnl_attr_get_u32(attr); break;
		case FRA_TABLE: rule.table = mnl_attr_get_u32(attr); break;
		case FRA_GOTO: rule.go_to = mnl_attr_get_u32(attr); break;
		case FRA_PROTOCOL: rule.protocol = mnl_attr_get_u8(attr); break;
		case FRA_IP_PROTO: rule.l4proto = mnl_attr_get_u8(attr); break;
		case FRA_UID_RANGE: {
			const struct fib_rule_uid_range *range =
				mnl_attr_get_payload(attr);

			rule.has_uid = 1;
			rule.uid_from = range->start;
			rule.uid_to = range->end;
			break;
		}
		case FRA_SPORT_RANGE:
		case FRA_DPORT_RANGE: {
			const struct fib_rule_port_range *range =
				mnl_attr_get_payload(attr);

			/* Ours are single ports; a range differs by its start
			 * or is not of our protocol. */
			if (mnl_attr_get_type(attr) == FRA_SPORT_RANGE)
				rule.sport = range->start;
			else
				rule.dport = range->start;
			break;
		}
		}
	}
	if (rule.action != FR_ACT_TO_TBL)
		rule.table = 0;
	grown = array_grow(rules->v, rules->n, sizeof(*rules->v));
	if (!grown) {
		errno = ENOMEM;
		return MNL_CB_ERROR;
	}
	rules->v = grown;
	rules->v[rules->n++] = rule;
	return MNL_CB_OK;
}

static int rules_read(struct net *net, struct rules *ret)
{
	struct fib_rule_hdr hdr = { .family = AF_UNSPEC };
	struct nlmsghdr *nlh;

	*ret = (struct rules){ 0 };
	nlh = netlink_message(net, RTM_GETRULE, 0, &hdr, sizeof(hdr));
	return netlink_dump(net, net->route, nlh, on_rule, ret, &ret->n);
}

static int rule_change(struct net *net, uint16_t type, uint16_t flags,
		       const struct rule *rule)
{
	struct fib_rule_hdr hdr = {
		.family = (uint8_t)rule->family,
		.action = (uint8_t)rule->action,
	};
	struct nlmsghdr *nlh;

	nlh = netlink_message(net, type, flags, &hdr, sizeof(hdr));
	mnl_attr_put_u32(nlh, FRA_PRIORITY, rule->pref);
	mnl_attr_put_u8(nlh, FRA_PROTOCOL, (uint8_t)rule->protocol);
	if (rule->table)
		mnl_attr_put_u32(nlh, FRA_TABLE, rule->table);
	if (rule->go_to)
		mnl_attr_put_u32(nlh, FRA_GOTO, rule->go_to);
	if (rule->has_uid) {
		struct fib_rule_uid_range range = { rule->uid_from,
						    rule->uid_to };

		mnl_attr_put(nlh, FRA_UID_RANGE, sizeof(range), &range);
	}
	if (rule->l4proto)
		mnl_attr_put_u8(nlh, FRA_IP_PROTO, (uint8_t)rule->l4proto);
	if (rule->sport) {
		struct fib_rule_port_range range = { (uint16_t)rule->sport,
						     (uint16_t)rule->sport };

		mnl_attr_put(nlh, FRA_SPORT_RANGE, sizeof(range), &range);
	}
	if (rule->dport) {
		struct fib_rule_port_range range = { (uint16_t)rule->dport,
						     (uint16_t)rule->dport };

		mnl_attr_put(nlh, FRA_DPORT_RANGE, sizeof(range), &range);
	}
	return netlink_do(net, net->route, nlh);
}

static bool contains(const struct rule *rules, size_t n,
		     const struct rule *rule)
{
	for (size_t i = 0; i < n; i++)
		if (memcmp(&rules[i], rule, sizeof(*rule)) == 0)
			return true;
	return false;
}

/* Deletes every rule of ours that is not in @keep. */
static int delete_others(struct net *net, const struct rules *rules,
			 const struct rule *keep, size_t n_keep,
			 struct error *e)
{
	for (size_t i = 0; i < rules->n; i++) {
		const struct rule *rule = &rules->v[i];
		int r;

		if (rule->protocol != NET_ROUTE_PROTOCOL ||
		    contains(keep, n_keep, rule))
			continue;
		r = rule_change(net, RTM_DELRULE, 0, rule);
		if (r < 0 && r != -ENOENT)
			return error_set(e, r,
					 "cannot delete the policy rule %u: %s",
					 rule->pref, strerror(-r));
	}
	return 0;
}

int net_rules_add(struct net *net, const struct net_plan *plan, struct error *e)
{
	struct rule wanted[WANTED_MAX];
	const struct rule *obstacle;
	struct rules rules;
	size_t n = 0;
	int r;

	r = rules_read(net, &rules);
	if (r < 0)
		error_set(e, r, "cannot list the policy rules: %s",
			  strerror(-r));
	else
		n = wanted_rules(plan, &rules, wanted, &obstacle);
	if (r == 0 && n == 0)
		r = no_room(obstacle, e);
	for (size_t i = 0; r == 0 && i < n; i++) {
		if (contains(rules.v, rules.n, &wanted[i]))
			continue;
		r = rule_change(net, RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL,
				&wanted[i]);
		/* A kernel without IPv6 has nothing to block there. */
		if (r == -EEXIST ||
		    (r == -EAFNOSUPPORT && wanted[i].family == AF_INET6) ||
		    (r == -EOPNOTSUPP && wanted[i].family == AF_INET6))
			r = 0;
		if (r < 0)
			error_set(e, r, "cannot add the policy rule %u: %s",
				  wanted[i].pref, strerror(-r));
	}
	if (r == 0)
		r = delete_others(net, &rules, wanted, n, e);
	free(rules.v);
	if (r < 0)
		return r;
	net->rules = true;
	return routes_sync(net, plan, e);
}

int net_rules_remove(struct net *net, struct error *e)
{
	struct rules rules;
	int r;

	net->rules = false;
	r = rules_read(net, &rules);
	if (r < 0)
		return error_set(e, r, "cannot list the policy rules: %s",
				 strerror(-r));
	r = delete_others(net, &rules, NULL, 0, e);
	free(rules.v);
	return r < 0 ? r : routes_remove(net, e);
}

bool rules_complete(struct net *net, const struct net_plan *plan)
{
	struct rule wanted[WANTED_MAX];
	const struct rule *obstacle;
	bool have[2] = { false, false }, complete;
	struct rules rules;
	size_t n = 0;
	int r;

	r = rules_read(net, &rules);
	if (r == 0)
		n = wanted_rules(plan, &rules, wanted, &obstacle);
	complete = n > 0;
	/* Without IPv6 in the kernel there is not one rule of that family. */
	for (size_t i = 0; i < rules.n; i++)
		have[rules.v[i].family == AF_INET6] = true;
	for (size_t i = 0; r == 0 && i < n; i++)
		if (have[wanted[i].family == AF_INET6] &&
		    !contains(rules.v, rules.n, &wanted[i]))
			complete = false;
	free(rules.v);
	return r == 0 && complete && have[0] &&
	       routes_check(net, plan) != ROUTES_NO_DEFAULT;
}

int rules_precheck(struct net *net, const struct net_plan *plan,
		   struct error *e)
{
	struct rule wanted[WANTED_MAX];
	const struct rule *obstacle;
	struct rules rules;
	int r;

	r = rules_read(net, &rules);
	if (r < 0)
		return error_set(e, r,
				 "this kernel has no policy routing (%s): it "
				 "needs CONFIG_IP_MULTIPLE_TABLES",
				 strerror(-r));
	if (wanted_rules(plan, &rules, wanted, &obstacle) == 0)
		r = no_room(obstacle, e);
	free(rules.v);
	return r;
}
