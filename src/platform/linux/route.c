/*
 * Theory of operation
 *
 * Table T holds the default route into the TAP and a copy of the connected
 * routes of bridges that lead nowhere but to this machine's own containers and
 * guests; those would otherwise be out of the host's reach, because T is read
 * before the host's own tables. With LAN access a table that is read before T
 * holds the connected routes of the LAN (lan.c), and the TAP's own network,
 * which a LAN may contain. Another table holds the route that prohibits
 * everything when T has no answer; it names no link, so none can take it along.
 * Everything in these with our protocol number is ours; what is not wanted
 * any more goes, and so does what others put there.
 */
#include "platform/linux/linux.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct route {
	uint8_t family, dst_len, type, protocol, scope;
	uint32_t table, oif, metric;
	/* Of IPv4 the first four bytes. */
	uint8_t dst[16], gateway[16], prefsrc[16];
};

static const int route_families[] = { AF_INET, AF_INET6 };

struct routes {
	struct route *v;
	size_t n;
};

static int append(struct routes *routes, const struct route *route)
{
	struct route *grown =
		array_grow(routes->v, routes->n, sizeof(*routes->v));

	if (!grown)
		return -ENOMEM;
	routes->v = grown;
	routes->v[routes->n++] = *route;
	return 0;
}

static size_t address_len(int family)
{
	return family == AF_INET ? 4 : 16;
}

static bool is_set(const uint8_t address[16])
{
	static const uint8_t zero[16];

	return memcmp(address, zero, sizeof(zero)) != 0;
}

static void get_address(const struct nlattr *attr, int family, uint8_t ret[16])
{
	if (mnl_attr_get_payload_len(attr) == address_len(family))
		memcpy(ret, mnl_attr_get_payload(attr), address_len(family));
}

static int on_route(const struct nlmsghdr *nlh, void *data)
{
	const struct rtmsg *rtm = mnl_nlmsg_get_payload(nlh);
	const struct nlattr *attr;
	struct route route = {
		.family = rtm->rtm_family,
		.table = rtm->rtm_table,
		.dst_len = rtm->rtm_dst_len,
		.type = rtm->rtm_type,
		.protocol = rtm->rtm_protocol,
		.scope = rtm->rtm_scope,
	};

	if (nlh->nlmsg_type != RTM_NEWROUTE ||
	    (rtm->rtm_family != AF_INET && rtm->rtm_family != AF_INET6) ||
	    (rtm->rtm_flags & RTM_F_CLONED))
		return MNL_CB_OK;
	mnl_attr_for_each(attr, nlh, sizeof(*rtm))
	{
		switch (mnl_attr_get_type(attr)) {
		case RTA_TABLE: route.table = mnl_attr_get_u32(attr); break;
		case RTA_OIF: route.oif = mnl_attr_get_u32(attr); break;
		case RTA_PRIORITY: route.metric = mnl_attr_get_u32(attr); break;
		case RTA_DST: get_address(attr, route.family, route.dst); break;
		case RTA_GATEWAY:
			get_address(attr, route.family, route.gateway);
			break;
		case RTA_PREFSRC:
			get_address(attr, route.family, route.prefsrc);
			break;
		}
	}
	if (append(data, &route) < 0) {
		errno = ENOMEM;
		return MNL_CB_ERROR;
	}
	return MNL_CB_OK;
}

static int routes_read(struct net *net, struct routes *ret)
{
	int r = 0;

	*ret = (struct routes){ 0 };
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(route_families); i++) {
		struct rtmsg rtm = {
			.rtm_family = (uint8_t)route_families[i],
		};
		struct routes part = { 0 };
		struct nlmsghdr *nlh;

		nlh = netlink_message(net, RTM_GETROUTE, 0, &rtm, sizeof(rtm));
		r = netlink_dump(net, net->route, nlh, on_route, &part,
				 &part.n);
		/* A kernel without IPv6 has no IPv6 routes. */
		if (rtm.rtm_family == AF_INET6 &&
		    (r == -EAFNOSUPPORT || r == -EOPNOTSUPP))
			r = 0;
		for (size_t k = 0; r == 0 && k < part.n; k++)
			r = append(ret, &part.v[k]);
		free(part.v);
	}
	return r;
}

static bool is_our_table(uint32_t table)
{
	return table == NET_ROUTE_TABLE || table == NET_LAN_TABLE ||
	       table == NET_PROHIBIT_TABLE;
}

static bool is_ours(const struct route *route)
{
	return is_our_table(route->table) &&
	       route->protocol == NET_ROUTE_PROTOCOL;
}

static bool same(const struct route *a, const struct route *b)
{
	return a->family == b->family && a->table == b->table &&
	       a->type == b->type && a->dst_len == b->dst_len &&
	       a->oif == b->oif && a->metric == b->metric &&
	       memcmp(a->dst, b->dst, sizeof(a->dst)) == 0 &&
	       memcmp(a->gateway, b->gateway, sizeof(a->gateway)) == 0;
}

static bool contains(const struct routes *routes, const struct route *route)
{
	for (size_t i = 0; i < routes->n; i++)
		if (is_ours(&routes->v[i]) && same(&routes->v[i], route))
			return true;
	return false;
}

/* To a network that is on the link itself. IPv6 knows no scopes of routes. */
static bool is_connected(const struct route *route)
{
	return route->table == RT_TABLE_MAIN && route->type == RTN_UNICAST &&
	       route->oif && route->dst_len && !is_set(route->gateway) &&
	       (route->scope == RT_SCOPE_LINK || route->family == AF_INET6);
}

static void set_ip4(uint8_t dst[16], struct in_addr address)
{
	memcpy(dst, &address, sizeof(address));
}

static const struct net_link *link_by_index(const struct net_links *links,
					    uint32_t index)
{
	for (size_t i = 0; i < links->n; i++)
		if ((uint32_t)links->v[i].index == index)
			return &links->v[i];
	return NULL;
}

/* Into the TAP: everything by T, the VM itself ahead of the LAN's routes. */
static int wanted_into_tap(const struct net_plan *plan, uint32_t oif,
			   struct routes *ret)
{
	struct route route = {
		.family = AF_INET,
		.table = NET_ROUTE_TABLE,
		.type = RTN_UNICAST,
		.oif = oif,
	};
	int r;

	set_ip4(route.gateway, plan->vm_ip);
	set_ip4(route.prefsrc, plan->host_ip);
	r = append(ret, &route);
	if (r < 0 || !plan->lan_access)
		return r;
	route.table = NET_LAN_TABLE;
	route.dst_len = 32;
	memset(route.gateway, 0, sizeof(route.gateway));
	set_ip4(route.dst, plan->vm_ip);
	return append(ret, &route);
}

/* The copy of a connected route that one of our tables shall have. */
static int wanted_copy(const struct net_plan *plan,
		       const struct net_links *links, const struct lan *lan,
		       const struct route *route, struct routes *ret)
{
	const struct net_link *link = link_by_index(links, route->oif);
	struct route copy = *route;

	if (!link || !is_connected(route))
		return 0;
	if (!link->master &&
	    link_reach(links, link, plan->tap_name) == LINK_REACH_INNER)
		copy.table = NET_ROUTE_TABLE;
	else if (lan_covers(lan, link->index, route->family, route->dst,
			    route->dst_len))
		copy.table = NET_LAN_TABLE;
	else
		return 0;
	return append(ret, &copy);
}

/* What our tables shall hold, given all that is there. */
static int wanted_routes(struct net *net, const struct net_plan *plan,
			 const struct routes *all, struct routes *ret)
{
	const struct net_link *tap;
	struct net_links links;
	struct lan lan;
	int r;

	*ret = (struct routes){ 0 };
	r = links_read(net, &links, NULL);
	if (r < 0)
		return r;
	r = lan_read(net, plan, &links, &lan);
	tap = links_by_name(&links, plan->tap_name);
	if (r == 0 && net->tap == NET_TAP_CONFIGURED && tap &&
	    (tap->flags & IFF_UP))
		r = wanted_into_tap(plan, (uint32_t)tap->index, ret);
	for (size_t i = 0; r == 0 && i < all->n; i++)
		r = wanted_copy(plan, &links, &lan, &all->v[i], ret);
	if (r == 0 && net->rules)
		r = append(ret, &(struct route){
					.family = AF_INET,
					.table = NET_PROHIBIT_TABLE,
					.type = RTN_PROHIBIT,
				});
	for (size_t i = 0; i < ret->n; i++)
		ret->v[i].protocol = NET_ROUTE_PROTOCOL;
	links_free(&links);
	return r;
}

static int route_change(struct net *net, uint16_t type, uint16_t flags,
			const struct rtmsg *rtm, const struct route *route)
{
	const size_t len = address_len(route->family);
	struct nlmsghdr *nlh;

	nlh = netlink_message(net, type, flags, rtm, sizeof(*rtm));
	mnl_attr_put_u32(nlh, RTA_TABLE, route->table);
	if (route->oif)
		mnl_attr_put_u32(nlh, RTA_OIF, route->oif);
	if (route->metric)
		mnl_attr_put_u32(nlh, RTA_PRIORITY, route->metric);
	if (route->dst_len)
		mnl_attr_put(nlh, RTA_DST, len, route->dst);
	if (is_set(route->gateway))
		mnl_attr_put(nlh, RTA_GATEWAY, len, route->gateway);
	if (is_set(route->prefsrc))
		mnl_attr_put(nlh, RTA_PREFSRC, len, route->prefsrc);
	return netlink_do(net, net->route, nlh);
}

static int route_add(struct net *net, const struct route *route)
{
	const struct rtmsg rtm = {
		.rtm_family = route->family,
		.rtm_dst_len = route->dst_len,
		.rtm_protocol = NET_ROUTE_PROTOCOL,
		.rtm_scope = route->dst_len ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE,
		.rtm_type = route->type,
		/* The TAP's address makes no connected route. */
		.rtm_flags = is_set(route->gateway) ? RTNH_F_ONLINK : 0,
	};

	int r;

	/* Beside those of other links to the same network: fe80::/64. */
	r = route_change(net, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_APPEND, &rtm,
			 route);
	return r == -EEXIST ? 0 : r;
}

static int route_delete(struct net *net, const struct route *route)
{
	const struct rtmsg rtm = {
		.rtm_family = route->family,
		.rtm_dst_len = route->dst_len,
		.rtm_protocol = route->protocol,
		.rtm_scope = RT_SCOPE_NOWHERE,
	};
	int r;

	r = route_change(net, RTM_DELROUTE, 0, &rtm, route);
	/* It went with its link meanwhile. */
	return r == -ESRCH ? 0 : r;
}

int routes_sync(struct net *net, const struct net_plan *plan, struct error *e)
{
	struct routes all = { 0 }, wanted = { 0 };
	int r;

	r = routes_read(net, &all);
	if (r == 0)
		r = wanted_routes(net, plan, &all, &wanted);
	for (size_t i = 0; r == 0 && i < all.n; i++) {
		bool keep = !is_our_table(all.v[i].table);

		/* What others put there would come before ours. */
		for (size_t k = 0; !keep && k < wanted.n; k++)
			keep = is_ours(&all.v[i]) &&
			       same(&all.v[i], &wanted.v[k]);
		if (!keep)
			r = route_delete(net, &all.v[i]);
	}
	for (size_t i = 0; r == 0 && i < wanted.n; i++)
		if (!contains(&all, &wanted.v[i]))
			r = route_add(net, &wanted.v[i]);
	free(wanted.v);
	free(all.v);
	if (r < 0)
		return error_set(e, r, "cannot fill the routing table %d: %s",
				 NET_ROUTE_TABLE, strerror(-r));
	return 0;
}

int routes_remove(struct net *net, struct error *e)
{
	struct routes all;
	int r;

	r = routes_read(net, &all);
	for (size_t i = 0; r == 0 && i < all.n; i++)
		if (is_ours(&all.v[i]))
			r = route_delete(net, &all.v[i]);
	free(all.v);
	if (r < 0)
		return error_set(e, r, "cannot empty the routing table %d: %s",
				 NET_ROUTE_TABLE, strerror(-r));
	return 0;
}

enum routes_state routes_check(struct net *net, const struct net_plan *plan)
{
	struct routes all = { 0 }, wanted = { 0 };
	enum routes_state state = ROUTES_COMPLETE;
	size_t held = 0;
	bool complete;

	complete = routes_read(net, &all) == 0 &&
		   wanted_routes(net, plan, &all, &wanted) == 0;
	if (!complete)
		state = ROUTES_NO_DEFAULT;
	for (size_t i = 0; complete && i < all.n; i++)
		held += is_our_table(all.v[i].table);
	if (held != wanted.n)
		state = ROUTES_OTHER_INNER;
	for (size_t i = 0; complete && i < wanted.n; i++) {
		if (contains(&all, &wanted.v[i]))
			continue;
		state = ROUTES_OTHER_INNER;
		if (!wanted.v[i].dst_len) {
			state = ROUTES_NO_DEFAULT;
			break;
		}
	}
	free(wanted.v);
	free(all.v);
	return state;
}

int routes_precheck(struct net *net, const struct net_plan *plan,
		    struct error *e)
{
	const uint32_t mask = htonl(0xfffffffc);
	struct routes all;
	int r;

	r = routes_read(net, &all);
	if (r < 0)
		error_set(e, r, "cannot list the routes: %s", strerror(-r));
	for (size_t i = 0; i < all.n && r == 0; i++) {
		const struct route *route = &all.v[i];
		char name[IF_NAMESIZE] = "";
		struct in_addr dst;

		if (route->protocol == NET_ROUTE_PROTOCOL)
			continue;
		if_indextoname(route->oif, name);
		memcpy(&dst, route->dst, sizeof(dst));
		if (is_our_table(route->table))
			r = error_set(e, -EBUSY,
				      "routing table %u is in use by another "
				      "program: empty it (ip route flush table "
				      "%u) and start again",
				      route->table, route->table);
		else if (route->family == AF_INET && route->dst_len >= 30 &&
			 (dst.s_addr & mask) == (plan->vm_ip.s_addr & mask) &&
			 strcmp(name, plan->tap_name) != 0)
			r = error_set(
				e, -EADDRINUSE,
				"the network of the TAP is in use on %s: "
				"set network.host_ip and network.vm_ip to "
				"another /30 in the configuration",
				name[0] ? name : "another link");
	}
	free(all.v);
	return r;
}
