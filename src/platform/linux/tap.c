/*
 * Theory of operation
 *
 * The TAP outlives the processes that use it, so that a dead QEMU does not take
 * the route with it. It is made in an order in which no other user can get at
 * it (a persistent TAP without an owner may be opened by anybody): name, owner,
 * group, then persistence. Everything that would make the kernel speak on it by
 * itself (IPv6 addresses, router solicitations, ARP) is off before it is up.
 */
#include "platform/linux/linux.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/neighbour.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>

/* A reader that never ends would keep the VM from starting: more than the
 * longest queue a TAP has (txqueuelen 1000 by default). */
#define DRAIN_MAX 65536 /* packets */

static const uint8_t tap_mac[6] = NET_TAP_MAC_BYTES;
static const uint8_t vm_mac[6] = NET_VM_MAC_BYTES;

static int foreign(const struct net_link *link, struct error *e)
{
	return error_set(e, -EEXIST,
			 "the link %s exists and is not TorVM's: remove it, or "
			 "set network.tap_name to another name in the "
			 "configuration",
			 link->name);
}

static int attach(const struct net_plan *plan, int *ret_fd, struct error *e)
{
	_cleanup_close_ int fd = -1;
	struct ifreq ifr = {
		.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR,
	};

	fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return error_set(e, -errno,
				 "cannot open /dev/net/tun: %s; load the "
				 "module with 'modprobe tun'",
				 strerror(errno));
	str_copy(ifr.ifr_name, sizeof(ifr.ifr_name), plan->tap_name);
	if (ioctl(fd, TUNSETIFF, &ifr) < 0) {
		if (errno == EBUSY)
			return error_set(e, -EBUSY,
					 "the TAP %s is held by a running VM",
					 plan->tap_name);
		return error_set(e, -errno, "cannot attach to the TAP %s: %s",
				 plan->tap_name, strerror(errno));
	}
	*ret_fd = steal_fd(&fd);
	return 0;
}

static void drain(int fd)
{
	/* One byte is enough: the kernel cuts and discards the rest. */
	char vnet_hdr_and_more[64];
	ssize_t n;

	for (int i = 0; i < DRAIN_MAX; i++) {
		n = read(fd, vnet_hdr_and_more, sizeof(vnet_hdr_and_more));
		if (n < 0 && errno != EINTR)
			break;
	}
}

/* MAC and no IPv6 of its own; the link is still down. */
static int quieten(struct net *net, const struct net_plan *plan,
		   const struct net_link *link, struct error *e)
{
	struct ifinfomsg info = { .ifi_index = link->index };
	struct nlattr *spec, *family;
	struct nlmsghdr *nlh;
	char path[80];
	_cleanup_close_ int fd = -1;
	int r;

	nlh = netlink_message(net, RTM_NEWLINK, 0, &info, sizeof(info));
	mnl_attr_put(nlh, IFLA_ADDRESS, sizeof(tap_mac), tap_mac);
	r = netlink_do(net, net->route, nlh);
	if (r < 0)
		return error_set(e, r, "cannot set the address of %s: %s",
				 plan->tap_name, strerror(-r));

	nlh = netlink_message(net, RTM_NEWLINK, 0, &info, sizeof(info));
	spec = mnl_attr_nest_start(nlh, IFLA_AF_SPEC);
	family = mnl_attr_nest_start(nlh, AF_INET6);
	mnl_attr_put_u8(nlh, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
	mnl_attr_nest_end(nlh, family);
	mnl_attr_nest_end(nlh, spec);
	r = netlink_do(net, net->route, nlh);
	/* A kernel without IPv6 has nothing to generate. */
	if (r < 0 && r != -EAFNOSUPPORT && r != -EOPNOTSUPP && r != -EINVAL)
		return error_set(e, r, "cannot keep IPv6 off %s: %s",
				 plan->tap_name, strerror(-r));

	snprintf(path, sizeof(path), "/proc/sys/net/ipv6/conf/%s/disable_ipv6",
		 plan->tap_name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return 0;
	if (fd < 0 || write(fd, "1", 1) != 1)
		return error_set(e, -errno, "cannot turn IPv6 off on %s: %s",
				 plan->tap_name, strerror(errno));
	return 0;
}

int net_tap_create(struct net *net, const struct net_plan *plan, int *ret_fd,
		   struct error *e)
{
	_cleanup_close_ int fd = -1;
	struct net_link link;
	bool existed;
	int r;

	r = link_read(net, plan->tap_name, &link);
	existed = r == 0;
	if (existed && !link_is_tap(&link))
		return foreign(&link, e);
	r = attach(plan, &fd, e);
	if (r < 0)
		return r;
	if (!existed) {
		r = link_read(net, plan->tap_name, &link);
		if (r == 0)
			r = quieten(net, plan, &link, e);
		if (r < 0)
			return r;
	}
	if (ioctl(fd, TUNSETOWNER, 0UL) < 0 ||
	    ioctl(fd, TUNSETGROUP, 0UL) < 0 ||
	    ioctl(fd, TUNSETPERSIST, 1UL) < 0)
		return error_set(e, -errno, "cannot make the TAP %s ours: %s",
				 plan->tap_name, strerror(errno));
	drain(fd);
	/* One that was there may be up already; a new one is not. */
	if (!existed || net->tap == NET_TAP_NONE)
		net->tap = NET_TAP_CREATED;
	*ret_fd = steal_fd(&fd);
	return 0;
}

int net_tap_open(struct net *net, const struct net_plan *plan, int *ret_fd,
		 struct error *e)
{
	struct net_link link;
	int r, fd;

	r = link_read(net, plan->tap_name, &link);
	if (r < 0)
		return error_set(e, r, "the TAP %s is not there: %s",
				 plan->tap_name, strerror(-r));
	if (!link_is_tap(&link))
		return foreign(&link, e);
	r = attach(plan, &fd, e);
	if (r < 0)
		return r;
	drain(fd);
	*ret_fd = fd;
	return 0;
}

static int set_neighbour(struct net *net, const struct net_plan *plan,
			 int ifindex)
{
	struct ndmsg ndm = {
		.ndm_family = AF_INET,
		.ndm_ifindex = ifindex,
		.ndm_state = NUD_PERMANENT,
	};
	struct nlmsghdr *nlh;

	nlh = netlink_message(net, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE,
			      &ndm, sizeof(ndm));
	mnl_attr_put_u32(nlh, NDA_DST, plan->vm_ip.s_addr);
	mnl_attr_put(nlh, NDA_LLADDR, sizeof(vm_mac), vm_mac);
	return netlink_do(net, net->route, nlh);
}

static int set_address(struct net *net, const struct net_plan *plan,
		       int ifindex)
{
	struct ifaddrmsg ifa = {
		.ifa_family = AF_INET,
		.ifa_prefixlen = 30,
		.ifa_scope = RT_SCOPE_UNIVERSE,
		.ifa_index = (unsigned int)ifindex,
	};
	struct nlmsghdr *nlh;

	nlh = netlink_message(net, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE,
			      &ifa, sizeof(ifa));
	mnl_attr_put_u32(nlh, IFA_LOCAL, plan->host_ip.s_addr);
	mnl_attr_put_u32(nlh, IFA_ADDRESS, plan->host_ip.s_addr);
	/* No connected route in the host's main table. */
	mnl_attr_put_u32(nlh, IFA_FLAGS, IFA_F_NOPREFIXROUTE);
	return netlink_do(net, net->route, nlh);
}

static int set_up(struct net *net, int ifindex)
{
	struct ifinfomsg info = {
		.ifi_index = ifindex,
		.ifi_flags = IFF_UP,
		.ifi_change = IFF_UP,
	};
	struct nlmsghdr *nlh;

	nlh = netlink_message(net, RTM_NEWLINK, 0, &info, sizeof(info));
	mnl_attr_put_u32(nlh, IFLA_MTU, NET_TAP_MTU);
	return netlink_do(net, net->route, nlh);
}

int net_tap_configure(struct net *net, const struct net_plan *plan,
		      struct error *e)
{
	struct net_link link;
	int r;

	r = link_read(net, plan->tap_name, &link);
	if (r == 0 && !link_is_tap(&link))
		return foreign(&link, e);
	if (r == 0)
		r = set_address(net, plan, link.index);
	if (r == 0)
		r = set_up(net, link.index);
	if (r == 0)
		r = set_neighbour(net, plan, link.index);
	if (r < 0)
		return error_set(e, r, "cannot configure the TAP %s: %s",
				 plan->tap_name, strerror(-r));
	net->tap = NET_TAP_CONFIGURED;
	return routes_sync(net, plan, e);
}

int net_tap_delete(struct net *net, const struct net_plan *plan,
		   struct error *e)
{
	struct ifinfomsg info = { .ifi_family = AF_UNSPEC };
	struct net_link link;
	int r;

	net->tap = NET_TAP_NONE;
	r = link_read(net, plan->tap_name, &link);
	/* Somebody else's link of that name is not ours to delete. */
	if (r == -ENODEV || (r == 0 && !link_is_tap(&link)))
		return 0;
	if (r == 0) {
		struct nlmsghdr *nlh;

		info.ifi_index = link.index;
		nlh = netlink_message(net, RTM_DELLINK, 0, &info, sizeof(info));
		r = netlink_do(net, net->route, nlh);
	}
	if (r < 0 && r != -ENODEV)
		return error_set(e, r, "cannot delete the TAP %s: %s",
				 plan->tap_name, strerror(-r));
	return 0;
}

struct address_check {
	const struct net_plan *plan;
	int tap_index;
	int conflict; /* ifindex; 0: none */
};

static int on_address(const struct nlmsghdr *nlh, void *data)
{
	const struct ifaddrmsg *ifa = mnl_nlmsg_get_payload(nlh);
	struct address_check *check = data;
	const uint32_t mask = htonl(0xfffffffc);
	const struct nlattr *attr;

	if (ifa->ifa_family != AF_INET ||
	    (int)ifa->ifa_index == check->tap_index)
		return MNL_CB_OK;
	mnl_attr_for_each(attr, nlh, sizeof(*ifa))
	{
		if (mnl_attr_get_type(attr) == IFA_LOCAL &&
		    (mnl_attr_get_u32(attr) & mask) ==
			    (check->plan->host_ip.s_addr & mask))
			check->conflict = (int)ifa->ifa_index;
	}
	return MNL_CB_OK;
}

struct own_address {
	struct in_addr wanted;
	int tap_index;
	bool there;
};

static int on_own_address(const struct nlmsghdr *nlh, void *data)
{
	const struct ifaddrmsg *ifa = mnl_nlmsg_get_payload(nlh);
	struct own_address *own = data;
	const struct nlattr *attr;

	if (ifa->ifa_family != AF_INET || (int)ifa->ifa_index != own->tap_index)
		return MNL_CB_OK;
	mnl_attr_for_each(attr, nlh, sizeof(*ifa))
	{
		if (mnl_attr_get_type(attr) == IFA_LOCAL &&
		    mnl_attr_get_u32(attr) == own->wanted.s_addr)
			own->there = true;
	}
	return MNL_CB_OK;
}

bool tap_has_address(struct net *net, const struct net_plan *plan)
{
	struct ifaddrmsg ifa = { .ifa_family = AF_INET };
	struct own_address own = { .wanted = plan->host_ip };
	struct net_link link;
	struct nlmsghdr *nlh;

	/* A link that is gone is another matter. */
	if (net->tap != NET_TAP_CONFIGURED ||
	    link_read(net, plan->tap_name, &link) < 0)
		return true;
	own.tap_index = link.index;
	nlh = netlink_message(net, RTM_GETADDR, 0, &ifa, sizeof(ifa));
	return netlink_dump(net, net->route, nlh, on_own_address, &own, NULL) ==
		       0 &&
	       own.there;
}

int tap_precheck(struct net *net, const struct net_plan *plan, struct error *e)
{
	struct ifaddrmsg ifa = { .ifa_family = AF_INET };
	struct address_check check = { .plan = plan };
	char name[IF_NAMESIZE] = "another link", text[INET_ADDRSTRLEN];
	unsigned int features = 0;
	_cleanup_close_ int fd = -1;
	struct net_link link;
	struct nlmsghdr *nlh;
	int r;

	fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return error_set(e, -errno,
				 "cannot open /dev/net/tun: %s; load the "
				 "module with 'modprobe tun'",
				 strerror(errno));
	if (ioctl(fd, TUNGETFEATURES, &features) < 0 ||
	    !(features & IFF_VNET_HDR))
		return error_set(e, -EOPNOTSUPP,
				 "the kernel's TUN driver cannot do vnet_hdr");
	r = link_read(net, plan->tap_name, &link);
	if (r == 0 && !link_is_tap(&link))
		return foreign(&link, e);
	if (r == 0)
		check.tap_index = link.index;
	else if (r != -ENODEV)
		return error_set(e, r, "cannot look for the link %s: %s",
				 plan->tap_name, strerror(-r));

	nlh = netlink_message(net, RTM_GETADDR, 0, &ifa, sizeof(ifa));
	r = netlink_dump(net, net->route, nlh, on_address, &check, NULL);
	if (r < 0)
		return error_set(e, r, "cannot list the addresses: %s",
				 strerror(-r));
	if (!check.conflict)
		return 0;
	if_indextoname((unsigned int)check.conflict, name);
	inet_ntop(AF_INET, &plan->host_ip, text, sizeof(text));
	return error_set(e, -EADDRINUSE,
			 "%s has an address of the TAP's network %s/30: set "
			 "network.host_ip and network.vm_ip to another /30 in "
			 "the configuration",
			 name, text);
}
