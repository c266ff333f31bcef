"""The lab's machines, addresses and links.

    net ----- router ---+--- host     TorVM runs here
    (Internet) (ISP)    +--- native   a Tor client without TorVM
                        +--- lan      a neighbour

All of "Internet" is one network namespace with every address on lo, each tor
bound to its own: packets between relays cost no routing, and the web servers
still see which exit a request came from. Between it and the host stands a real
router: on a directly connected link, ARP would hide routing faults.
"""

import re

from errors import LabError

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

# Peers of the "Internet" (peers.py), one address each: a capture tells them apart.
# In 203.0.113.0/24, as no relay is.
BRIDGE_ADDRESSES = {
    "plain": "203.0.113.40",
    "obfs4": "203.0.113.41",
    "obfs4proxy": "203.0.113.42",
    "webtunnel": "203.0.113.43",
    "meek": "203.0.113.44",
    "snowflake": "203.0.113.45",
    "plain6": "203.0.113.48",
    "obfs4v6": "203.0.113.47",
}
MOAT_ADDRESS = "203.0.113.46"
# Where clients reach these: by IPv6 alone, webtunnel by another name.
BRIDGE6_ADDRESSES = {
    "plain6": "2001:db8:113::46",
    "obfs4v6": "2001:db8:113::47",
    "webtunnel": "2001:db8:113::43",
}
PROXY6_ADDRESS = "2001:db8:113::50"
PROXY_ADDRESS = "203.0.113.50"
STUN_ADDRESS = "203.0.113.51"
# Where a lying resolver leads to; nobody listens there.
FALSE_ADDRESS = "203.0.113.66"
# FRONTED, where meek's requests go in the end, are known to the fronts alone, and
# so is SERVICE.
FRONTED = ["meek.lab.test", "moat.lab.test"]
SERVICE = "bridges.lab.test"
PEER_NAMES = {
    "tunnel.lab.test": BRIDGE_ADDRESSES["webtunnel"],
    "tunnel6.lab.test": BRIDGE6_ADDRESSES["webtunnel"],
    "front.lab.test": BRIDGE_ADDRESSES["meek"],
    "broker.lab.test": BRIDGE_ADDRESSES["snowflake"],
    "moat-front.lab.test": MOAT_ADDRESS,
    "stun.lab.test": STUN_ADDRESS,
    "proxy.lab.test": PROXY_ADDRESS,
}

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

# A censor: one table, replaced as a whole, beside the faults.
CENSOR_OFF = "table inet censor\ndelete table inet censor\n"
CENSOR_DNS_PORT = 5353

_CENSOR_FORWARD = """
table inet censor {
	chain forward {
		type filter hook forward priority filter - 5
		%s
	}
}
"""

# A TLS record's first byte of a handshake (0x16) after a TCP header without and
# with time stamps. The connection stands by then; the client's end is cut.
_RESET_TOR = """
		ip daddr %s tcp doff 5 @th,160,8 0x16 counter reject with tcp reset
		ip daddr %s tcp doff 8 @th,256,8 0x16 counter reject with tcp reset
"""

_FALSE_DNS = (
    """
table inet censor {
	chain nat {
		type nat hook prerouting priority dstnat
		iifname "lan0" udp dport 53 redirect to :%d
		iifname "lan0" tcp dport 53 redirect to :%d
	}
}
"""
    % (CENSOR_DNS_PORT, CENSOR_DNS_PORT)
)


def censor(what, endpoints):
    """nft's text of a censor, see Lab.censor(); LabError for a wrong one."""
    takes = {"drop-all-but": 1, "drop": 1, "reset-tor": 0, "false-dns": 0, "off": 0}
    if what not in takes:
        raise LabError("no censor %r; there are: %s" % (what, ", ".join(takes)))
    if bool(endpoints) != bool(takes[what]):
        raise LabError(
            "censor %s: %s"
            % (what, "say which address" if takes[what] else "takes no address")
        )
    if what == "off":
        return CENSOR_OFF
    if what == "false-dns":
        return CENSOR_OFF + _FALSE_DNS
    if what == "reset-tor":
        relays = "{ %s }" % ", ".join([*RELAYS.values(), BRIDGE_ADDRESSES["plain"]])
        return CENSOR_OFF + _CENSOR_FORWARD % (_RESET_TOR % (relays, relays))
    rules = []
    for endpoint in endpoints:
        if not re.fullmatch(r"[0-9.]+(:[0-9]+)?", endpoint):
            raise LabError("censor: %r: IPv4 ADDRESS or ADDRESS:PORT" % endpoint)
        address, _, port = endpoint.partition(":")
        there = "ip daddr %s" % address + (" tcp dport %s" % port if port else "")
        back = "ip saddr %s" % address + (" tcp sport %s" % port if port else "")
        verdict = "drop" if what == "drop" else "accept"
        rules += ["%s counter %s" % (match, verdict) for match in (there, back)]
    if what == "drop-all-but":
        rules.append("counter drop")
    return CENSOR_OFF + _CENSOR_FORWARD % "\n\t\t".join(rules)


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

    public = list(RELAYS.values()) + [relay6(a) for a in RELAYS.values()] + [DNS4]
    public += [a for addresses in SERVERS.values() for a in addresses]
    public += [*BRIDGE_ADDRESSES.values(), MOAT_ADDRESS, PROXY_ADDRESS, STUN_ADDRESS]
    public += [FALSE_ADDRESS]
    public += [*BRIDGE6_ADDRESSES.values(), PROXY6_ADDRESS]
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


def relay6(addr4):
    """IPv6 address that a relay has beside its IPv4 address."""
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
    for name, address in PEER_NAMES.items():
        lines.append("host-record=%s,%s" % (name, address))
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


def dnsmasq_censor():
    """Configuration of a resolver that lies."""
    return (
        "\n".join(
            [
                "no-daemon",
                "no-resolv",
                "no-hosts",
                "user=root",
                "pid-file=",
                "port=%d" % CENSOR_DNS_PORT,
                "bind-interfaces",
                "interface=lan0",
                "log-queries",
                "log-facility=-",
                "address=/#/" + FALSE_ADDRESS,
            ]
        )
        + "\n"
    )
