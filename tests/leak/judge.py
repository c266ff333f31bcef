"""Which packets of a capture are leaks, and whose.

Theory of operation

The judge reads raw frames from the router's side of the host's links. A frame is
the host's unless its source is one of the machines outside; what the host (or a
guest behind it) sent has to be one of the kinds that docs/SECURITY.md allows.
It does not look at who sent a packet when it decides, so a leak of something that
was no probe is found, too; the probe's number only tells which cell it belongs to.
"""

import collections
import re
import struct

MARKER_ETHERTYPE = 0x88B5
MARK = re.compile(rb"tv([0-9a-f]{4})", re.I)
TAP_NET = bytes((10, 10, 10, 0))
LINK_LOCAL = bytes((0xFE, 0x80))
NAME_PORTS = (53, 137, 853, 5353, 5355)

Packet = collections.namedtuple(
    "Packet", "raw source ethertype family proto src dst sport dport kind"
)


def read_pcap(path):
    """Raw frames with their times; a torn last packet ends the file."""
    with open(path, "rb") as f:
        data = f.read()
    if len(data) < 24:
        return []
    order = "<" if data[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1") else ">"
    frames, at = [], 24
    while at + 16 <= len(data):
        seconds, fraction, size, _ = struct.unpack(order + "IIII", data[at : at + 16])
        at += 16
        if at + size > len(data):
            break
        frames.append(data[at : at + size])
        at += size
    return frames


def parse(raw):
    source = raw[6:12]
    (ethertype,) = struct.unpack("!H", raw[12:14])
    family = proto = sport = dport = kind = None
    src = dst = b""
    body = b""
    if ethertype == 0x0800 and len(raw) >= 34:
        family, proto = 4, raw[23]
        src, dst = raw[26:30], raw[30:34]
        body = raw[14 + (raw[14] & 15) * 4 :]
        if struct.unpack("!H", raw[20:22])[0] & 0x1FFF:
            body = b""  # a later fragment
    elif ethertype == 0x86DD and len(raw) >= 54:
        family, proto = 6, raw[20]
        src, dst = raw[22:38], raw[38:54]
        body = raw[54:]
        if proto == 0 and len(body) >= 8:  # hop-by-hop, before MLD
            proto, body = body[0], body[(body[1] + 1) * 8 :]
    if proto in (6, 17) and len(body) >= 4:
        sport, dport = struct.unpack("!HH", body[:4])
    if proto in (1, 58) and body:
        kind = body[0]
    return Packet(raw, source, ethertype, family, proto, src, dst, sport, dport, kind)


class Judge:
    """outside: MAC addresses (bytes) that are not the host's; relays: addresses of
    the Tor network, of both families; relay_ports; host: addresses of the host's links;
    lan: the first three bytes of the private networks on its links."""

    def __init__(self, outside, relays, relay_ports, host, lan):
        self.lan = set(lan)
        self.outside = set(outside)
        self.relays = set(relays)
        self.relay_ports = set(relay_ports)
        self.host = set(host)

    def sent_by_host(self, frames):
        packets = [parse(raw) for raw in frames if len(raw) >= 14]
        return [
            p
            for p in packets
            if p.source not in self.outside and p.ethertype != MARKER_ETHERTYPE
        ]

    def allowed(self, p, ipv6=False):
        """The name of the rule that allows a packet, or None. ipv6: whether Tor is
        to use IPv6, too."""
        if p.ethertype == 0x0806:
            return "ARP"
        if p.ethertype == 0x888E:
            return "EAPOL"
        if p.proto == 17 and (p.family, p.sport, p.dport) in (
            (4, 68, 67),
            (6, 546, 547),
        ):
            return "DHCP"
        if p.family == 6 and p.proto == 58:
            if p.kind in (133, 135, 136):
                return "NDP"
            if p.kind in (131, 132, 143):
                return "MLD"
        if p.proto == 6 and p.src in self.host and (p.family == 4 or ipv6):
            if p.dst in self.relays and p.dport in self.relay_ports:
                return "uplink" if p.family == 4 else "uplink by IPv6"
        return None

    def to_lan(self, p):
        """What LAN access allows besides."""
        if p.proto not in (1, 6, 17, 58) or p.dport in NAME_PORTS:
            return False
        if p.family == 4:
            return p.dst[:3] in self.lan and p.src[:3] == p.dst[:3]
        return p.family == 6 and p.dst[:2] == p.src[:2] == LINK_LOCAL

    def judge(self, frames, lan_access=False, without_lan=(), ipv6=False):
        """(leaks, counts): packets that no rule allows, and how many of each.
        without_lan: the cells to which LAN access opens nothing."""
        leaks, counts = [], collections.Counter()
        for p in self.sent_by_host(frames):
            rule = self.allowed(p, ipv6)
            if rule is None and lan_access and self.to_lan(p):
                rule = None if cells_of(p, without_lan) else "LAN"
            counts[rule or "leak"] += 1
            if rule is None:
                leaks.append(p)
        return leaks, counts


def from_tap(packets):
    """Packets with an address of the TAP's: never allowed, in no state."""
    return [p for p in packets if p.family == 4 and p.src[:3] == TAP_NET[:3]]


def cells_of(p, known):
    """Numbers of the cells that a packet belongs to: one or none, but several
    groups may share an IGMP report."""
    found = MARK.search(p.raw)
    if found and int(found.group(1), 16) in known:
        return [int(found.group(1), 16)]
    if p.proto == 6:
        return [port for port in (p.sport, p.dport) if port in known][:1]
    if p.family == 4 and p.proto == 2:
        groups = re.findall(rb"(?=\xef(.)(.)\x07)", p.raw, re.S)
        numbers = [(a[0] - 16 << 8) + b[0] for a, b in groups]
        return [n for n in numbers if n in known]
    return []


def text(p):
    """A packet in words, for a report."""

    def address(a):
        if len(a) == 4:
            return ".".join(map(str, a))
        return ":".join("%x" % x for x in struct.unpack("!8H", a))

    if p.family is None:
        return "ethertype %#06x from %s" % (p.ethertype, p.source.hex(":"))
    words = "IPv%d protocol %d %s" % (p.family, p.proto, address(p.src))
    if p.sport is not None:
        return words + ":%d > %s:%d" % (p.sport, address(p.dst), p.dport)
    if p.kind is not None:
        return words + " > %s type %d" % (address(p.dst), p.kind)
    return words + " > " + address(p.dst)
