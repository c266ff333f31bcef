"""The lab's machines, addresses and links.

    net ----- router ---+--- host     TorVM runs here
    (Internet) (ISP)    +--- native   a Tor client without TorVM
                        +--- lan      a neighbour

All of "Internet" is one network namespace with every address on lo, each tor
bound to its own: packets between relays cost no routing, and the web servers
still see which exit a request came from. Between it and the host stands a real
router: on a directly connected link, ARP would hide routing faults.
"""

LAN4 = "192.168.77"
LAN6 = "2001:db8:77:"
HOST4, HOST6 = LAN4 + ".2", LAN6 + ":2"
NATIVE4, NATIVE6 = LAN4 + ".3", LAN6 + ":3"
NEIGHBOUR4, NEIGHBOUR6 = LAN4 + ".9", LAN6 + ":9"
ROUTER4, ROUTER6 = LAN4 + ".1", LAN6 + ":1"
# What the Internet sees of the whole LAN (IPv4 is masqueraded).
WAN4, WAN6 = "192.0.2.77", "2001:db8:ff::77"
ISP4, ISP6 = "192.0.2.1", "2001:db8:ff::1"

AUTHORITIES = {"auth%d" % i: "198.51.100.%d" % i for i in (1, 2, 3)}
# 198.51.100.8/29 gets the Guard flag, 198.51.100.16/28 the Exit flag.
GUARDS = {"guard%d" % i: "198.51.100.%d" % (10 + i) for i in (1, 2, 3)}
EXITS = {"exit%d" % i: "198.51.100.%d" % (20 + i) for i in (1, 2, 3)}
GUARD_RANGE, EXIT_RANGE = "198.51.100.8/29", "198.51.100.16/28"
RELAYS = {**AUTHORITIES, **GUARDS, **EXITS}

DNS4 = "203.0.113.53"
# Name -> addresses. Also *.bench.lab.test, for names not asked before.
SERVERS = {
    "www.lab.test": ("203.0.113.10", "2001:db8:113::10"),
    "www4.lab.test": ("203.0.113.11",),
}
WWW4, WWW6 = SERVERS["www.lab.test"]

# The router's port of the host's uplink: the leak tests' capture point.
CAPTURE_PORT = "to-host"
PORTAL_PORT = 8080

LEAVES = {
    "host": (HOST4, HOST6),
    "native": (NATIVE4, NATIVE6),
    "lan": (NEIGHBOUR4, NEIGHBOUR6),
}

# Machine -> its resolv.conf; the order is that of creation.
MACHINES = {
    "net": "nameserver %s\n" % DNS4,
    "router": "nameserver %s\n" % DNS4,
    "lan": "nameserver %s\n" % ROUTER4,
    "native": "nameserver %s\n" % ROUTER4,
    "host": "nameserver %s\n" % ROUTER4,
}

ROUTER_RULES = """
table inet lab
delete table inet lab
table inet lab {
	chain nat {
		type nat hook postrouting priority srcnat
		meta nfproto ipv4 oifname "wan0" masquerade
	}
}
"""

# Faults: one table, replaced as a whole.
FAULT_OFF = "table inet fault\ndelete table inet fault\n"
FAULT_CUT = (
    FAULT_OFF
    + """
table inet fault {
	chain forward {
		type filter hook forward priority filter
		policy drop
	}
}
"""
)
FAULT_CAPTIVE = (
    FAULT_CUT
    + """
table inet fault {
	chain nat {
		type nat hook prerouting priority dstnat
		iifname "lan0" tcp dport 80 redirect to :%d
	}
}
"""
    % PORTAL_PORT
)


def connect(machines, dhcp):
    """Make links, addresses and routes.

    machines: name -> Namespace.
    dhcp: leave the host's eth0 to its DHCP client and router advertisements.
    """

    def ip(name, text):
        machines[name].check("ip", "-batch", "-", text=text)

    def sysctl(name, **values):
        for key, value in values.items():
            path = "/proc/sys/net/" + key.replace("__", "/")
            machines[name].check("sh", "-c", "echo %s >%s" % (value, path))

    for name in machines:
        # Addresses are usable at once, and no link speaks by itself.
        sysctl(name, ipv6__conf__default__accept_dad=0, ipv6__conf__all__accept_dad=0)

    link("isp0", machines["net"], "wan0", machines["router"])
    for name in LEAVES:
        link("to-" + name, machines["router"], "eth0", machines[name])

    public = list(RELAYS.values()) + [exit6(a) for a in EXITS.values()] + [DNS4]
    public += [a for addresses in SERVERS.values() for a in addresses]
    ip(
        "net",
        "link set lo up\n"
        + "".join("addr add %s dev lo\n" % a for a in public)
        + "addr add %s/24 dev isp0\n" % ISP4
        + "addr add %s/64 dev isp0\n" % ISP6
        + "link set isp0 up\n"
        # IPv4 of the LAN is masqueraded and has no route: an address that
        # escapes the masquerade gets no answer.
        + "route add %s:/64 via %s\n" % (LAN6, WAN6),
    )

    sysctl("router", ipv4__ip_forward=1, ipv6__conf__all__forwarding=1)
    ip(
        "router",
        "link set lo up\n"
        "link add lan0 type bridge forward_delay 0 mcast_snooping 0\n"
        + "".join("link set to-%s master lan0 up\n" % n for n in LEAVES)
        + "addr add %s/24 dev lan0\n" % ROUTER4
        + "addr add %s/64 dev lan0\n" % ROUTER6
        + "link set lan0 up\n"
        + "addr add %s/24 dev wan0\n" % WAN4
        + "addr add %s/64 dev wan0\n" % WAN6
        + "link set wan0 up\n"
        + "route add default via %s\n" % ISP4
        + "route add default via %s\n" % ISP6,
    )
    machines["router"].check("nft", "-f", "-", text=ROUTER_RULES)

    for name, (addr4, addr6) in LEAVES.items():
        if name == "host" and dhcp:
            ip(name, "link set lo up\nlink set eth0 up\n")
            continue
        # Static means static: the router's advertisements change nothing.
        sysctl(name, ipv6__conf__eth0__accept_ra=0)
        ip(
            name,
            "link set lo up\n"
            + "addr add %s/24 dev eth0\n" % addr4
            + "addr add %s/64 dev eth0\n" % addr6
            + "link set eth0 up\n"
            + "route add default via %s\n" % ROUTER4
            + "route add default via %s\n" % ROUTER6,
        )


def link(name, machine, peer, peer_machine):
    """Make a veth pair between two machines, in neither of the caller's."""
    machine.check(
        *("ip", "link", "add", name, "type", "veth", "peer", "name", peer),
        *("netns", peer_machine.proc + "/ns/net"),
    )


def exit6(addr4):
    """IPv6 address that an exit uses beside its IPv4 address."""
    return "2001:db8:100::" + addr4.rpartition(".")[2]


def dnsmasq_internet():
    """Configuration of the server that knows lab.test, and nothing else."""
    lines = [
        "no-daemon",
        "no-resolv",
        "no-hosts",
        "user=root",
        "pid-file=",
        "bind-interfaces",
        "listen-address=" + DNS4,
        "except-interface=nonexistent",
        "cache-size=0",
        "local-ttl=60",
        "dns-forward-max=1000",
        "address=/bench.lab.test/" + WWW4,
        # Every other name does not exist.
        "address=/#/",
    ]
    for name, addresses in SERVERS.items():
        lines.append("host-record=%s,%s" % (name, ",".join(addresses)))
    return "\n".join(lines) + "\n"


def dnsmasq_router(query_log):
    """DNS, DHCP and router advertisements for the LAN; queries are logged."""
    return (
        "\n".join(
            [
                "no-daemon",
                "no-resolv",
                "no-hosts",
                "user=root",
                "pid-file=",
                "bind-interfaces",
                "interface=lan0",
                "server=" + DNS4,
                "log-queries",
                "log-facility=" + query_log,
                "dhcp-range=%s.100,%s.199,255.255.255.0,10m" % (LAN4, LAN4),
                "dhcp-option=option:router," + ROUTER4,
                "dhcp-option=option:dns-server," + ROUTER4,
                "dhcp-leasefile=/run/dnsmasq.leases",
                "dhcp-authoritative",
                "enable-ra",
                "dhcp-range=%s:,ra-only" % LAN6,
            ]
        )
        + "\n"
    )
