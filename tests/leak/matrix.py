"""What is tried, by whom, and what may be seen of it: the one table.

A cell is state x sender x probe x family. Its verdict is a packet capture on the
router's side of the host's links. What a state allows is docs/SECURITY.md's table;
the judge (judge.py) knows it as rules on packets, the same for every cell.
"""

import collections

# state: (verdict, what it is). "open": each probe must be seen (the positive
# control of its cells in all other states); "closed": none may be.
STATES = collections.OrderedDict(
    [
        ("down", ("open", "never started: the positive control")),
        ("starting: engine stopped", ("closed", "SIGSTOP as soon as the block is up")),
        ("starting: WaitTAP", ("closed", "QEMU stopped before the guest is up")),
        ("starting: WaitBootstrap", ("closed", "the Internet is cut off")),
        ("Running", ("closed", "")),
        ("LAN access", ("closed", "Running, with network.lan_access: but for the LAN")),
        ("IPv6 uplink", ("closed", "Running, with tor.client_use_ipv6")),
        ("Blocked", ("closed", "QEMU killed, the restart is awaited")),
        ("stopping", ("closed", "Shutdown, with a VM that does not end")),
        ("killed", ("closed", "kill -9 of broker, engine and QEMU")),
        ("lockdown", ("closed", "down by the user, lockdown on")),
        ("down again", ("open", "after a stop: all is as it was")),
    ]
)

SENDERS = collections.OrderedDict(
    [
        ("user", "a host process, as an ordinary user"),
        ("root", "a host process, as root"),
        ("vm", "a host process, as QEMU's user, whose TCP may leave"),
        ("child", "a namespace routed through the host, with NAT (Docker)"),
        ("bridge", "a guest on a bridge with a second uplink (libvirt)"),
        ("macvlan", "a namespace with a macvlan of the uplink"),
        ("kernel", "the host's kernel, answering a neighbour"),
    ]
)

HOSTS = ("user", "root")
# On a link of their own, or one of the host's.
LINKED = ("user", "root", "bridge", "macvlan")
ALL = ("user", "root", "child", "bridge", "macvlan")
ROOTS = ("root", "child", "bridge", "macvlan")
KERNEL = ("kernel",)

# probe: (families, senders)
PROBES = collections.OrderedDict(
    [
        ("tcp", ((4, 6), ALL)),
        ("tcp-old-data", ((4, 6), ALL)),
        ("tcp-old-fin", ((4, 6), ALL)),
        ("tcp-old-rst", ((4, 6), ALL)),
        ("tcp-device", ((4, 6), ALL)),
        ("tcp-source", ((4, 6), ALL)),
        ("tcp-mark", ((4, 6), ("root",))),
        ("tcp-lan", ((4, 6), ALL)),
        ("tcp-dontroute", ((4, 6), HOSTS)),
        ("tcp-other-link", ((4, 6), HOSTS)),
        ("tcp-link-local", ((6,), LINKED)),
        ("udp", ((4, 6), ALL)),
        ("udp-old", ((4, 6), ALL)),
        ("quic", ((4, 6), ALL)),
        ("udplite", ((4, 6), ALL)),
        ("udp-device", ((4, 6), ALL)),
        ("udp-source", ((4, 6), ALL)),
        ("udp-mark", ((4, 6), ("root",))),
        ("udp-unicast-if", ((4, 6), HOSTS)),
        ("udp-pktinfo", ((4, 6), HOSTS)),
        ("udp-dontroute", ((4, 6), HOSTS)),
        ("udp-lan", ((4, 6), ALL)),
        ("udp-other-link", ((4, 6), HOSTS)),
        ("udp-link-local", ((6,), LINKED)),
        ("udp-large", ((4, 6), ALL)),
        ("udp-options", ((4,), ALL)),
        ("dns-public", ((4, 6), ALL)),
        ("dns-gateway", ((4, 6), ALL)),
        ("dns-gateway-device", ((4, 6), ALL)),
        ("dns-lan", ((4, 6), ALL)),
        ("dns-stub", ((4,), HOSTS)),
        ("dns-tcp-public", ((4, 6), ALL)),
        ("dns-tcp-gateway", ((4, 6), ALL)),
        ("dns-tcp-lan", ((4, 6), ALL)),
        ("dot-lan", ((4, 6), ALL)),
        ("nbns-lan", ((4,), ALL)),
        ("mdns-lan", ((4, 6), ALL)),
        ("llmnr-lan", ((4, 6), ALL)),
        ("ping", ((4, 6), ALL)),
        ("ping-device", ((4, 6), HOSTS)),
        ("mdns", ((4, 6), LINKED)),
        ("llmnr", ((4, 6), LINKED)),
        ("ssdp", ((4, 6), LINKED)),
        ("multicast", ((4, 6), LINKED)),
        ("broadcast", ((4,), LINKED)),
        ("subnet-broadcast", ((4,), LINKED)),
        ("igmp", ((4,), LINKED)),
        ("raw", ((4, 6), ROOTS)),
        ("raw-device", ((4, 6), ROOTS)),
        ("raw-lan", ((4, 6), ROOTS)),
        ("sctp", ((4, 6), ROOTS)),
        ("sctp-device", ((4, 6), ROOTS)),
        ("raw-header", ((4, 6), ROOTS)),
        ("packet", ((4, 6), ("root", "bridge", "macvlan"))),
        ("packet-bypass", ((4, 6), ("root", "bridge", "macvlan"))),
        ("packet-cooked", ((4, 6), ("root", "bridge", "macvlan"))),
        ("packet-vlan", ((4, 6), ("root", "bridge", "macvlan"))),
        ("packet-fragment", ((4, 6), ("root", "macvlan"))),
        ("packet-other", ((4,), ("root", "bridge", "macvlan"))),
        ("packet-other-link", ((4, 6), ("root",))),
        ("answer-ping", ((4, 6), KERNEL)),
        ("answer-tcp", ((4, 6), KERNEL)),
        ("answer-udp", ((4, 6), KERNEL)),
        ("answer-ttl", ((4, 6), KERNEL)),
    ]
)

# QEMU's user may open TCP to any public address, and the LAN's IPv6 is one here;
# nothing else. probe: families
OF_VM = collections.OrderedDict(
    [(probe, (4, 6)) for probe in ("tcp-old-data", "tcp-old-fin", "tcp-old-rst")]
    + [(probe, (4,)) for probe in ("tcp-lan", "tcp-dontroute")]
    + [("tcp-link-local", (6,))]
    + [(probe, PROBES[probe][0]) for probe in PROBES if probe.startswith("udp")
       and probe not in ("udp-mark", "udp-other-link")]
    + [(probe, (4, 6)) for probe in ("quic", "dns-public", "dns-gateway",
                                     "dns-gateway-device", "dns-lan")]
    + [(probe, (4,)) for probe in ("dns-stub", "dns-tcp-gateway", "dns-tcp-lan")]
    + [(probe, PROBES[probe][0]) for probe in (
        "ping", "mdns", "llmnr", "ssdp", "multicast", "broadcast",
        "subnet-broadcast", "igmp")]
)

# To these LAN access opens nothing.
WITHOUT_LAN = ("vm", "bridge", "macvlan")

# A way out that a shell script of a user's would use; for random walks.
WALK_PROBES = ("tcp", "tcp-device", "udp", "udp-device", "ping", "dns-gateway")
WALK_PROBES += ("udp-pktinfo", "mdns", "packet")
# By a link that has just come or changed its name.
STRIKE = ("tcp-device", "udp-device", "udp-pktinfo", "mdns", "broadcast", "packet")

# The first n. Below the kernel's own ephemeral ports, with room for each state.
FIRST_N = 10000

Cell = collections.namedtuple("Cell", "n state sender probe family")


def probes_of(sender):
    if sender == "vm":
        return list(OF_VM.items())
    return [(probe, families) for probe, (families, senders) in PROBES.items()
            if sender in senders]


def cells():
    """Every cell, in the table's order."""
    table = []
    for state in STATES:
        for sender in SENDERS:
            for probe, families in probes_of(sender):
                for family in families:
                    n = FIRST_N + len(table)
                    table.append(Cell(n, state, sender, probe, family))
    assert FIRST_N + len(table) < 32768, "ports would meet the ephemeral ones"
    return table


def needs_past(probe):
    return "-old" in probe
