/* Opening, closing, and the checks that change nothing. */
#include "platform/linux/linux.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int net_open(struct net **ret, struct error *e)
{
	_cleanup_(net_closep) struct net *net = calloc(1, sizeof(*net));
	int r;

	if (!net)
		return error_set(e, -ENOMEM, "out of memory");
	net->watch_fd = -1;
	r = netlink_open(NETLINK_ROUTE, &net->route, e);
	if (r == 0)
		r = netlink_open(NETLINK_NETFILTER, &net->nft, e);
	if (r == 0)
		r = watch_open(net, e);
	if (r < 0)
		return r;
	*ret = steal_ptr(&net);
	return 0;
}

void net_close(struct net *net)
{
	if (!net)
		return;
	if (net->watch_fd >= 0)
		close(net->watch_fd);
	if (net->watch_nft)
		mnl_socket_close(net->watch_nft);
	if (net->watch_route)
		mnl_socket_close(net->watch_route);
	if (net->nft)
		mnl_socket_close(net->nft);
	if (net->route)
		mnl_socket_close(net->route);
	links_free(&net->covered);
	free(net);
}

void net_closep(struct net **net)
{
	net_close(*net);
}

int net_precheck(struct net *net, const struct net_plan *plan, struct error *e)
{
	int r;

	if (plan->mark == 0)
		return error_set(e, -EINVAL, "the uplink's mark is 0");
	r = firewall_probe(net, plan, e);
	if (r == 0)
		r = rules_precheck(net, plan, e);
	if (r == 0)
		r = routes_precheck(net, plan, e);
	if (r == 0)
		r = tap_precheck(net, plan, e);
	if (r == 0 && e)
		*e = ERROR_NULL(*e);
	return r;
}
