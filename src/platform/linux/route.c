/*
 * Theory of operation
 *
 * Table T holds the default route into the TAP and a copy of the connected
 * routes of bridges that lead nowhere but to this machine's own containers and
 * guests; those would otherwise be out of the host's reach, because T is read
 * before the host's own tables. A second table holds the route that prohibits
 * everything when T has no answer; it names no link, so none can take it along.
 * Everything in the two with our protocol number is ours; what is not wanted
 * any more goes.
 */
#include "platform/linux/linux.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct route {
	uint32_t dst, gateway, prefsrc; /* network byte order */
	uint32_t table, oif;
	uint8_t dst_len, type, protocol, scope;
};

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

static int on_route(const struct nlmsghdr *nlh, void *data)
{
	const struct rtmsg *rtm = mnl_nlmsg_get_payload(nlh);
	const struct nlattr *attr;
	struct route route = {
		.table = rtm->rtm_table,
		.dst_len = rtm->rtm_dst_len,
		.type = rtm->rtm_type,
		.protocol = rtm->rtm_protocol,
		.scope = rtm->rtm_scope,
	};

	if (nlh->nlmsg_type != RTM_NEWROUTE || rtm->rtm_family != AF_INET ||
	    (rtm->rtm_flags & RTM_F_CLONED))
		return MNL_CB_OK;
	mnl_attr_for_each(attr, nlh, sizeof(*rtm))
	{
		switch (mnl_attr_get_type(attr)) {
		case RTA_TABLE: route.table = mnl_attr_get_u32(attr); break;
		case RTA_OIF: route.oif = mnl_attr_get_u32(attr); break;
		case RTA_DST: route.dst = mnl_attr_get_u32(attr); break;
		case RTA_GATEWAY: route.gateway = mnl_attr_get_u32(attr); break;
		case RTA_PREFSRC: route.prefsrc = mnl_attr_get_u32(attr); break;
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
	struct rtmsg rtm = { .rtm_family = AF_INET };
	struct nlmsghdr *nlh;

	*ret = (struct routes){ 0 };
	nlh = netlink_message(net, RTM_GETROUTE, 0, &rtm, sizeof(rtm));
	return netlink_dump(net, net->route, nlh, on_route, ret, &ret->n);
}

static bool is_ours(const struct route *route)
{
	return (route->table == NET_ROUTE_TABLE ||
		route->table == NET_PROHIBIT_TABLE) &&
	       route->protocol == NET_ROUTE_PROTOCOL;
}

static bool same(const struct route *a, const struct route *b)
{
	return a->table == b->table && a->type == b->type && a->dst == b->dst &&
	       a->dst_len == b->dst_len && a->oif == b->oif &&
	       a->gateway == b->gateway;
}

static bool contains(const struct routes *routes, const struct route *route)
{
	for (size_t i = 0; i < routes->n; i++)
		if (is_ours(&routes->v[i]) && same(&routes->v[i], route))
			return true;
	return false;
}

/* What T shall hold, given all that is there. */
static int wanted_routes(struct net *net, const struct net_plan *plan,
			 const struct routes *all, struct routes *ret)
{
	const struct net_link *tap;
	struct net_links links;
	int r;

	*ret = (struct routes){ 0 };
	r = links_read(net, &links, NULL);
	if (r < 0)
		return r;
	tap = links_by_name(&links, plan->tap_name);
	if (net->tap == NET_TAP_CONFIGURED && tap && (tap->flags & IFF_UP))
		r = append(ret, &(struct route){
					.type = RTN_UNICAST,
					.gateway = plan->vm_ip.s_addr,
					.prefsrc = plan->host_ip.s_addr,
					.oif = (uint32_t)tap->index,
				});
	for (size_t i = 0; r == 0 && i < all->n; i++) {
		const struct route *route = &all->v[i];

		if (route->table != RT_TABLE_MAIN || route->gateway ||
		    route->scope != RT_SCOPE_LINK ||
		    route->type != RTN_UNICAST || !route->dst_len)
			continue;
		for (size_t k = 0; r == 0 && k < links.n; k++)
			if ((uint32_t)links.v[k].index == route->oif &&
			    !links.v[k].master &&
			    link_reach(&links, &links.v[k], plan->tap_name) ==
				    LINK_REACH_INNER)
				r = append(ret, route);
	}
	for (size_t i = 0; i < ret->n; i++)
		ret->v[i].table = NET_ROUTE_TABLE;
	if (r == 0 && net->rules)
		r = append(ret, &(struct route){
					.table = NET_PROHIBIT_TABLE,
					.type = RTN_PROHIBIT,
				});
	for (size_t i = 0; i < ret->n; i++)
		ret->v[i].protocol = NET_ROUTE_PROTOCOL;
	links_free(&links);
	return r;
}

static int route_add(struct net *net, const struct route *route)
{
	struct rtmsg rtm = {
		.rtm_family = AF_INET,
		.rtm_dst_len = route->dst_len,
		.rtm_protocol = NET_ROUTE_PROTOCOL,
		.rtm_scope = route->dst_len ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE,
		.rtm_type = route->type,
		/* The TAP's address makes no connected route. */
		.rtm_flags = route->gateway ? RTNH_F_ONLINK : 0,
	};
	struct nlmsghdr *nlh;

	nlh = netlink_message(net, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE,
			      &rtm, sizeof(rtm));
	mnl_attr_put_u32(nlh, RTA_TABLE, route->table);
	if (route->oif)
		mnl_attr_put_u32(nlh, RTA_OIF, route->oif);
	if (route->dst_len)
		mnl_attr_put_u32(nlh, RTA_DST, route->dst);
	if (route->gateway)
		mnl_attr_put_u32(nlh, RTA_GATEWAY, route->gateway);
	if (route->prefsrc)
		mnl_attr_put_u32(nlh, RTA_PREFSRC, route->prefsrc);
	return netlink_do(net, net->route, nlh);
}

static int route_delete(struct net *net, const struct route *route)
{
	struct rtmsg rtm = {
		.rtm_family = AF_INET,
		.rtm_dst_len = route->dst_len,
		.rtm_protocol = NET_ROUTE_PROTOCOL,
		.rtm_scope = RT_SCOPE_NOWHERE,
	};
	struct nlmsghdr *nlh;
	int r;

	nlh = netlink_message(net, RTM_DELROUTE, 0, &rtm, sizeof(rtm));
	mnl_attr_put_u32(nlh, RTA_TABLE, route->table);
	if (route->dst_len)
		mnl_attr_put_u32(nlh, RTA_DST, route->dst);
	if (route->oif)
		mnl_attr_put_u32(nlh, RTA_OIF, route->oif);
	r = netlink_do(net, net->route, nlh);
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
		bool keep = !is_ours(&all.v[i]);

		for (size_t k = 0; !keep && k < wanted.n; k++)
			keep = same(&all.v[i], &wanted.v[k]);
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
	size_t ours = 0;
	bool complete;

	complete = routes_read(net, &all) == 0 &&
		   wanted_routes(net, plan, &all, &wanted) == 0;
	if (!complete)
		state = ROUTES_NO_DEFAULT;
	for (size_t i = 0; complete && i < all.n; i++)
		ours += is_ours(&all.v[i]);
	if (ours != wanted.n)
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
		return error_set(e, r, "cannot list the routes: %s",
				 strerror(-r));
	for (size_t i = 0; i < all.n && r == 0; i++) {
		const struct route *route = &all.v[i];
		char name[IF_NAMESIZE] = "";

		if (route->protocol == NET_ROUTE_PROTOCOL)
			continue;
		if_indextoname(route->oif, name);
		if (route->table == NET_ROUTE_TABLE ||
		    route->table == NET_PROHIBIT_TABLE)
			r = error_set(e, -EBUSY,
				      "routing table %u is in use by another "
				      "program: empty it (ip route flush table "
				      "%u) and start again",
				      route->table, route->table);
		else if (route->dst_len >= 30 &&
			 (route->dst & mask) == (plan->vm_ip.s_addr & mask) &&
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
