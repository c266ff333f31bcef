#!/usr/bin/python3
"""Ways out of a machine, each packet of which can be recognised on the wire.

    probes.py CONFIG        CONFIG: JSON, see Prober; commands on standard input

Theory of operation

One process per sender (a user, root, a container...) lives as long as its test,
because some probes need a past: a connection made before TorVM started. It reads
one command per line and answers each with one line, both JSON:

    {"do": "prepare", "cells": [...]}   make the past of those that need one
    {"do": "fire", "cells": [...]}      {"results": {n: {"error", "ms"}}}
    {"do": "strike", "link": L, "cells": [...]}     fire by another link
    {"do": "loop", "cells": [...]}      fire over and over, in a thread
    {"do": "hold"}                      keep sending on sockets made now
    {"do": "quiet"}                     end loop and hold: {"rounds": N}

A cell is [n, probe, family]. n is unique in a test run: the source port of a TCP
probe, and part of the payload ("tv" and four hexadecimal digits) of the others,
so that one capture serves hundreds of cells. "error" is the name of an errno, ""
when the kernel let it go; for TCP, "EINPROGRESS" is a connect still unanswered.
"""

import errno
import json
import os
import select
import socket
import struct
import sys
import threading
import time

INET = {4: socket.AF_INET, 6: socket.AF_INET6}
LEVEL = {4: socket.IPPROTO_IP, 6: socket.IPPROTO_IPV6}
# Not in Python's socket module.
SO_MARK, SO_BINDTODEVICE = 36, 25
IP_PKTINFO, IPV6_PKTINFO = 8, 50
UNICAST_IF = {4: 50, 6: 76}
SOL_PACKET, PACKET_QDISC_BYPASS = 263, 20
SCTP, UDPLITE = 132, 136
MDNS = {4: "224.0.0.251", 6: "ff02::fb"}
LLMNR = {4: "224.0.0.252", 6: "ff02::1:3"}
SSDP = {4: "239.255.255.250", 6: "ff02::c"}
ROUTED_GROUP = {4: "239.9.9.9", 6: "ff0e::9:9"}
# How long news of a sent probe are waited for; an "answer" is a DNS server's.
PATIENCE_S = {"tcp": 0.4, "udp": 0.4, "answer": 0.4}
THROUGH_TOR = ("tcp", "dns-gateway")
HURRY_S = {"tcp": 0.05, "udp": 0.05, "answer": 0.05}


def marker(n):
    return b"tv%04x" % n


def payload(n):
    return marker(n) + b" torvm leak probe"


def where(address, port):
    """A link-local address comes with its link: fe80::1%eth0."""
    host, _, link = address.partition("%")
    return (host, port, 0, socket.if_nametoindex(link)) if link else (host, port)


def mac_bytes(text):
    return bytes.fromhex(text.replace(":", ""))


def checksum(data):
    """RFC 1071"""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    total = (total >> 16) + (total & 0xFFFF)
    total += total >> 16
    return struct.pack("!H", ~total & 0xFFFF)


def dns_query(n, name=None):
    """A query for tvXXXX.lab.test, or another name, type A."""
    query = struct.pack(">HHHHHH", n, 0x100, 1, 0, 0, 0)
    for label in (name or b"tv%04x.lab.test" % n).split(b"."):
        query += bytes([len(label)]) + label
    return query + b"\0" + struct.pack(">HH", 1, 1)


class Prober:
    """config: link; source, target, gateway, dns, lan, near (link-local, with its
    scope): {"4": address, "6": address}; gateway_mac; other: another link, with
    its gateway's mac; broadcast: the subnet's; raw_proto: of the raw IP probes
    (a NAT cannot tell apart two senders of a protocol without ports); dns_name:
    asked for instead of a name that tells the cell."""

    def __init__(self, config):
        self.link = config["link"]
        self.address = {
            name: {int(family): a for family, a in config.get(name, {}).items()}
            for name in ("source", "target", "gateway", "dns", "lan", "near")
        }
        self.other = config.get("other")
        self.broadcast = config["broadcast"]
        self.raw_proto = config["raw_proto"]
        self.dns_name = config.get("dns_name")
        self.gateway_mac = mac_bytes(config["gateway_mac"])
        self.old = {}
        self.kept = []
        self._quiet = threading.Event()
        self._threads = []
        self.rounds = 0
        self.looping = None

    def query(self, n):
        return dns_query(n, self.dns_name)

    # --- sockets ---------------------------------------------------------------

    def index(self):
        return socket.if_nametoindex(self.link)

    def to_link(self, s):
        s.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, self.link.encode())

    def to_other_link(self, s):
        s.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, self.other["link"].encode())

    def tcp(self, n, family, to, port=80, setup=None, source=""):
        s = socket.socket(INET[family], socket.SOCK_STREAM)
        self.kept.append(s)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.setblocking(False)
        if setup:
            setup(s)
        s.bind((source, n))
        s.connect(where(self.address[to][family], port))

    def udp(self, n, family, address, port, setup=None, data=None, proto=0):
        s = socket.socket(INET[family], socket.SOCK_DGRAM, proto)
        self.kept.append(s)
        s.setblocking(False)
        if setup:
            setup(s)
        s.connect(where(address, port))
        s.send(data or payload(n))

    def group(self, n, family, address, port):
        """To a multicast group, out of the link."""
        index = self.index()

        def setup(s):
            if family == 4:
                request = struct.pack("=4s4si", b"\0" * 4, b"\0" * 4, index)
                s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, request)
            else:
                s.setsockopt(
                    socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, struct.pack("=i", index)
                )

        s = socket.socket(INET[family], socket.SOCK_DGRAM)
        self.kept.append(s)
        setup(s)
        where = (address, port) if family == 4 else (address, port, 0, index)
        s.sendto(payload(n), where)

    def raw(self, family, proto, data, address, setup=None):
        with socket.socket(INET[family], socket.SOCK_RAW, proto) as s:
            s.setblocking(False)
            if setup:
                setup(s)
            s.sendto(data, (address, 0))

    def ip(self, family, body, proto=17, target="target", ttl=64, part=0):
        """An IP packet; part: the offset of a fragment, in units of 8 bytes."""
        addresses = b"".join(
            socket.inet_pton(INET[family], self.address[name][family])
            for name in ("source", target)
        )
        if family == 4:
            head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 7, part, ttl,
                               proto, 0) + addresses
            return head[:10] + checksum(head) + head[12:] + body
        if part:
            body = struct.pack("!BBHI", proto, 0, part << 3, 7) + body
            proto = 44
        return struct.pack("!IHBB", 0x60000000, len(body), proto, ttl) + addresses + body

    def ip_udp(self, n, family, target="target", ttl=64):
        """A whole IP packet with a UDP datagram to nobody."""
        data = payload(n)
        udp = struct.pack("!HHHH", 4000, 9, 8 + len(data), 0) + data
        if family == 6:
            addresses = b"".join(
                socket.inet_pton(socket.AF_INET6, self.address[name][6])
                for name in ("source", target)
            )
            total = checksum(addresses + struct.pack("!II", len(udp), 17) + udp)
            udp = udp[:6] + total + udp[8:]
        return self.ip(family, udp, target=target, ttl=ttl)

    def frame(self, family, body, vlan=False, kind=None, other=None):
        link = other["link"] if other else self.link
        with open("/sys/class/net/%s/address" % link, encoding="ascii") as f:
            mac = mac_bytes(f.read().strip())
        kind = kind or (b"\x08\x00" if family == 4 else b"\x86\xdd")
        if vlan:
            kind = b"\x81\x00\x00\x05" + kind
        gateway = mac_bytes(other["mac"]) if other else self.gateway_mac
        return gateway + mac + kind + body

    def packet(self, frame, bypass=False, cooked=None, link=None):
        kind = socket.SOCK_RAW if cooked is None else socket.SOCK_DGRAM
        with socket.socket(socket.AF_PACKET, kind) as s:
            if bypass:
                s.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
            if cooked is None:
                s.bind((link or self.link, 0))
                s.send(frame)
            else:
                s.sendto(frame, (self.link, cooked, 0, 0, self.gateway_mac))

    # --- the past --------------------------------------------------------------

    def prepare(self, n, probe, family):
        if probe == "udp-old":
            s = socket.socket(INET[family], socket.SOCK_DGRAM)
            s.connect((self.address["target"][family], 7))
        elif probe.startswith("tcp-old"):
            s = socket.socket(INET[family], socket.SOCK_STREAM)
            s.settimeout(5)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(("", n))
            s.connect((self.address["target"][family], 7))
        else:
            return
        s.setblocking(False)
        self.old[n] = s

    # --- the probes ------------------------------------------------------------

    def send(self, n, probe, f):
        """One probe; OSError when it was refused."""
        address = {name: of.get(f) for name, of in self.address.items()}
        target, source = address["target"], address["source"]

        def mark(s):
            s.setsockopt(socket.SOL_SOCKET, SO_MARK, 1)

        def direct(s):
            s.setsockopt(socket.SOL_SOCKET, socket.SO_DONTROUTE, 1)

        def unicast_if(s):
            s.setsockopt(LEVEL[f], UNICAST_IF[f], struct.pack("!I", self.index()))

        def wide(s):
            s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)

        def wide_to_link(s):
            wide(s)
            self.to_link(s)

        def from_source(s):
            s.bind((source, 0))

        def router_alert(s):
            s.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, b"\x94\x04\0\0")

        def echo(setup=None):
            proto = socket.IPPROTO_ICMP if f == 4 else socket.IPPROTO_ICMPV6
            data = struct.pack("!BBHHH", 8 if f == 4 else 128, 0, 0, n, 1)
            data += payload(n)
            try:
                self.udp(n, f, target, 0, setup, data, proto)
            except PermissionError as e:
                if e.errno != errno.EACCES or os.geteuid() != 0:
                    raise
                # net.ipv4.ping_group_range leaves root out.
                if f == 4:
                    data = data[:2] + checksum(data) + data[4:]
                self.raw(f, proto, data, target, setup)

        if probe == "tcp":
            self.tcp(n, f, "target")
        elif probe == "tcp-device":
            self.tcp(n, f, "target", setup=self.to_link)
        elif probe == "tcp-source":
            self.tcp(n, f, "target", source=source)
        elif probe == "tcp-mark":
            self.tcp(n, f, "target", setup=mark)
        elif probe == "tcp-lan":
            self.tcp(n, f, "lan")
        elif probe == "tcp-dontroute":
            self.tcp(n, f, "gateway", setup=direct)
        elif probe == "tcp-other-link":
            self.tcp(n, f, "target", setup=self.to_other_link)
        elif probe == "tcp-link-local":
            self.tcp(n, f, "near")
        elif probe == "dot-lan":
            self.tcp(n, f, "lan", 853)
        elif probe == "dns-tcp-lan":
            self.tcp(n, f, "lan", 53)
        elif probe == "dns-tcp-public":
            self.tcp(n, f, "dns", 53)
        elif probe == "dns-tcp-gateway":
            self.tcp(n, f, "gateway", 53)
        elif probe == "tcp-old-data":
            self.old[n].send(payload(n))
        elif probe == "tcp-old-fin":
            self.old.pop(n).close()
        elif probe == "tcp-old-rst":
            s = self.old.pop(n)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            s.close()
        elif probe == "udp-old":
            self.old[n].send(payload(n))
        elif probe == "udp":
            self.udp(n, f, target, 7)
        elif probe == "quic":
            self.udp(n, f, target, 443)
        elif probe == "udplite":
            self.udp(n, f, target, 7, proto=UDPLITE)
        elif probe == "udp-device":
            self.udp(n, f, target, 7, self.to_link)
        elif probe == "udp-source":
            self.udp(n, f, target, 7, from_source)
        elif probe == "udp-mark":
            self.udp(n, f, target, 7, mark)
        elif probe == "udp-unicast-if":
            self.udp(n, f, target, 7, unicast_if)
        elif probe == "udp-dontroute":
            self.udp(n, f, address["gateway"], 7, direct)
        elif probe == "udp-lan":
            self.udp(n, f, address["lan"], 7)
        elif probe == "udp-lan-device":
            self.udp(n, f, address["lan"], 7, self.to_link)
        elif probe == "udp-other-link":
            self.udp(n, f, target, 7, self.to_other_link)
        elif probe == "udp-link-local":
            self.udp(n, f, address["near"], 7)
        elif probe == "udp-large":
            self.udp(n, f, target, 7, data=payload(n).ljust(4000))
        elif probe == "udp-options":
            self.udp(n, f, target, 7, router_alert)
        elif probe == "nbns-lan":
            self.udp(n, f, address["lan"], 137)
        elif probe == "mdns-lan":
            self.udp(n, f, address["lan"], 5353)
        elif probe == "llmnr-lan":
            self.udp(n, f, address["lan"], 5355)
        elif probe == "udp-pktinfo":
            self.pktinfo(n, f, target)
        elif probe == "dns-public":
            self.udp(n, f, address["dns"], 53, data=self.query(n))
        elif probe == "dns-gateway":
            self.udp(n, f, address["gateway"], 53, data=self.query(n))
        elif probe == "dns-gateway-device":
            self.udp(n, f, address["gateway"], 53, self.to_link, self.query(n))
        elif probe == "dns-lan":
            self.udp(n, f, address["lan"], 53, data=self.query(n))
        elif probe == "dns-stub":
            self.udp(n, f, "127.0.0.53", 53, data=self.query(n))
        elif probe == "mdns":
            self.group(n, f, MDNS[f], 5353)
        elif probe == "llmnr":
            self.group(n, f, LLMNR[f], 5355)
        elif probe == "ssdp":
            self.group(n, f, SSDP[f], 1900)
        elif probe == "multicast":
            self.group(n, f, ROUTED_GROUP[f], 9)
        elif probe == "broadcast":
            self.udp(n, f, "255.255.255.255", 9, wide_to_link)
        elif probe == "subnet-broadcast":
            self.udp(n, f, self.broadcast, 9, wide_to_link)
        elif probe == "ping":
            echo()
        elif probe == "ping-device":
            echo(self.to_link)
        elif probe == "igmp":
            group = "239.%d.%d.7" % (16 + (n >> 8), n & 0xFF)
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.kept.append(s)
            request = socket.inet_aton(group)
            request += struct.pack("=4si", b"\0" * 4, self.index())
            s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
        elif probe == "raw":
            self.raw(f, self.raw_proto, payload(n), target)
        elif probe == "raw-device":
            self.raw(f, self.raw_proto, payload(n), target, self.to_link)
        elif probe == "raw-lan":
            self.raw(f, self.raw_proto, payload(n), address["lan"])
        elif probe == "sctp":
            self.raw(f, SCTP, payload(n), target)
        elif probe == "sctp-device":
            self.raw(f, SCTP, payload(n), target, self.to_link)
        elif probe == "raw-header":
            self.raw(f, socket.IPPROTO_RAW, self.ip_udp(n, f), target, self.to_link)
        elif probe == "packet":
            self.packet(self.frame(f, self.ip_udp(n, f)))
        elif probe == "packet-bypass":
            self.packet(self.frame(f, self.ip_udp(n, f)), bypass=True)
        elif probe == "packet-cooked":
            kind = 0x0800 if f == 4 else 0x86DD
            self.packet(self.ip_udp(n, f), cooked=kind)
        elif probe == "packet-vlan":
            self.packet(self.frame(f, self.ip_udp(n, f), vlan=True))
        elif probe == "packet-fragment":
            self.packet(self.frame(f, self.ip(f, payload(n), part=100)))
        elif probe == "packet-other":
            # For experiments (IEEE 802), as 0x88b5, which the captures use.
            self.packet(self.frame(f, payload(n).ljust(46), kind=b"\x88\xb6"))
        elif probe == "packet-other-link":
            frame = self.frame(f, self.ip_udp(n, f), other=self.other)
            self.packet(frame, link=self.other["link"])
        elif probe == "answer-ping":
            self.send(n, "ping", f)
        elif probe == "answer-tcp":
            self.tcp(n, f, "target", 4)
        elif probe == "answer-udp":
            self.udp(n, f, target, 4)
        elif probe == "answer-ttl":
            # For the host to pass on, if it had not lived long enough.
            self.packet(self.frame(f, self.ip_udp(n, f, target="dns", ttl=1)))
        else:
            raise KeyError(probe)

    def pktinfo(self, n, family, target):
        if family == 4:
            info = struct.pack("@I4s4s", self.index(), b"\0" * 4, b"\0" * 4)
            kind = IP_PKTINFO
        else:
            info = struct.pack("@16sI", b"\0" * 16, self.index())
            kind = IPV6_PKTINFO
        with socket.socket(INET[family], socket.SOCK_DGRAM) as s:
            s.sendmsg([payload(n)], [(LEVEL[family], kind, info)], 0, (target, 9))

    def fire(self, cells, patience_s=PATIENCE_S, answers=None):
        """All cells; what came of each. answers: n: the DNS query to send once
        connected (TCP) or b"" (UDP), for those that are to be answered."""
        answers = answers or {}
        results, waiting = {}, {}
        for n, probe, family in cells:
            begin, error = time.monotonic(), ""
            count = len(self.kept)
            try:
                self.send(n, probe, family)
            except KeyError as e:
                error = "no past: %s" % e
            except OSError as e:
                error = errno.errorcode.get(e.errno, str(e))
            results[n] = {"error": error, "ms": _ms_since(begin)}
            if len(self.kept) > count and error in ("", "EINPROGRESS"):
                s = self.kept[-1]
                waiting[s.fileno()] = (n, s, begin)
        self._collect(waiting, results, patience_s, answers)
        for s in self.kept:
            if s.type == socket.SOCK_STREAM:
                # No TIME_WAIT: a loop uses the same ports again.
                s.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
            s.close()
        self.kept = []
        return results

    @staticmethod
    def _collect(waiting, results, patience_s, answers):
        """Later news: how a connect ended, an ICMP error for a datagram, an
        answer."""
        poll = select.poll()
        for fd, (n, s, _) in waiting.items():
            if s.type == socket.SOCK_STREAM:
                poll.register(fd, select.POLLOUT)
            else:
                poll.register(fd, select.POLLIN if n in answers else 0)

        def expiry(n, s, begin):
            kind = "tcp" if s.type == socket.SOCK_STREAM else "udp"
            return begin + patience_s["answer" if n in answers else kind]

        while waiting:
            end = min(expiry(*w) for w in waiting.values())
            for fd, events in poll.poll(max(0, (end - time.monotonic()) * 1000)):
                n, s, begin = waiting[fd]
                code = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if not code and events & select.POLLOUT and answers.get(n):
                    s.send(struct.pack(">H", len(answers[n])) + answers[n])
                    poll.modify(fd, select.POLLIN)
                    continue
                del waiting[fd]
                poll.unregister(fd)
                if not code and n in answers and not s.recv(2048):
                    code = errno.ECONNRESET
                error = errno.errorcode.get(code, str(code)) if code else ""
                results[n] = {"error": error, "ms": _ms_since(begin)}
            now = time.monotonic()
            for fd, (n, s, begin) in list(waiting.items()):
                if now >= expiry(n, s, begin):
                    del waiting[fd]
                    poll.unregister(fd)
                    if n in answers:
                        results[n] = {"error": "ETIMEDOUT", "ms": _ms_since(begin)}

    # --- in a thread -------------------------------------------------------------

    def loop(self, cells):
        self.looping = cells
        # What may go through Tor loads it, and a VM under emulation is slow.
        quick = [c for c in cells if c[1] not in THROUGH_TOR]

        def body():
            while not self._quiet.is_set():
                self.fire(quick if self.rounds % 10 else cells, HURRY_S)
                self.rounds += 1
                self._quiet.wait(0.2)

        self._start(body)

    def hold(self):
        """TCP and UDP by the way that is open now; data on them until quiet."""
        target, dns = self.address["target"][4], self.address["dns"][4]
        held = []
        for kind, peer in ((socket.SOCK_STREAM, (target, 7)),
                           (socket.SOCK_STREAM, (target, 7)),
                           (socket.SOCK_DGRAM, (dns, 53))):
            s = socket.socket(socket.AF_INET, kind)
            s.settimeout(60)
            s.connect(peer)
            s.setblocking(False)
            held.append(s)

        def body(s):
            # The echoes are not read: soon the queue is full, and stays so.
            data = b"held by torvm's leak test" * (
                400 if s.type & socket.SOCK_STREAM else 1)
            while not self._quiet.is_set():
                try:
                    s.send(data)
                except OSError:
                    pass
                else:
                    self.rounds += 1
                self._quiet.wait(0.02)
            s.close()

        for s in held:
            self._start(lambda s=s: body(s))
        return sorted({s.getsockname()[0] for s in held})

    def _start(self, body):
        thread = threading.Thread(target=body, daemon=True)
        self._threads.append(thread)
        thread.start()

    def quiet(self):
        self._quiet.set()
        for thread in self._threads:
            thread.join()
        self._threads = []
        self._quiet.clear()
        rounds, self.rounds = self.rounds, 0
        return rounds


def _ms_since(begin):
    return round((time.monotonic() - begin) * 1000, 1)


def main():
    prober = Prober(json.loads(sys.argv[1]))
    for line in sys.stdin:
        command = json.loads(line)
        answer = {}
        try:
            if command["do"] == "prepare":
                for cell in command["cells"]:
                    prober.prepare(*cell)
            elif command["do"] == "fire":
                answer["results"] = prober.fire(command["cells"])
            elif command["do"] == "strike":
                # In a loop's way: it has the same ports.
                rounds = prober.quiet()
                link, prober.link = prober.link, command["link"]
                answer["results"] = prober.fire(command["cells"])
                prober.link = link
                if prober.looping:
                    prober.loop(prober.looping)
                    prober.rounds = rounds
            elif command["do"] == "loop":
                prober.loop(command["cells"])
            elif command["do"] == "hold":
                answer["source"] = prober.hold()
            elif command["do"] == "quiet":
                prober.looping = None
                answer["rounds"] = prober.quiet()
        except OSError as e:
            answer["error"] = "%s: %s" % (command["do"], e)
        print(json.dumps(answer), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
