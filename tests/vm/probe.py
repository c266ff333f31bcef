#!/usr/bin/python3
"""Try ways out of this machine and say, as JSON, how each one ended.

    probe.py [--target4 A] [--target6 A] [--link eth0] [--seconds S] [PROBE...]

Each result: {"error": errno name or "" when the kernel let it go, "ms": how
long that took}. Without PROBE: all that this user may try.
"""

import argparse
import errno
import json
import os
import socket
import struct
import sys
import time

TIMEOUT_S = 3


def connect(family, address, port, setup=lambda s: None):
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.settimeout(TIMEOUT_S)
        setup(s)
        s.connect((address, port))


def datagram(family, address, port, setup=lambda s: None, payload=b"torvm probe"):
    """Sends twice: an ICMP refusal of the first is the second one's error."""
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        s.settimeout(1)
        setup(s)
        s.connect((address, port))
        s.send(payload)
        try:
            s.recv(2048)
        except socket.timeout:
            s.send(payload)


def dns(family, address, name="www.lab.test", tcp=False):
    query = struct.pack(">HHHHHH", 0x7476, 0x100, 1, 0, 0, 0)
    for label in name.split("."):
        query += bytes([len(label)]) + label.encode()
    query += b"\0" + struct.pack(">HH", 1, 1)
    kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
    with socket.socket(family, kind) as s:
        s.settimeout(10)
        s.connect((address, 53))
        s.send(struct.pack(">H", len(query)) + query if tcp else query)
        answer = s.recv(2048)
        if not answer:
            raise ConnectionResetError(errno.ECONNRESET, "closed")


def bind_device(link):
    return lambda s: s.setsockopt(
        socket.SOL_SOCKET, socket.SO_BINDTODEVICE, link.encode()
    )


def unicast_if(link):
    index = struct.pack("!I", socket.if_nametoindex(link))
    return lambda s: s.setsockopt(socket.IPPROTO_IP, 50, index)


def set_mark(mark):
    return lambda s: s.setsockopt(socket.SOL_SOCKET, 36, mark)


def icmp(family, address):
    v4 = family == socket.AF_INET
    proto = socket.IPPROTO_ICMP if v4 else socket.IPPROTO_ICMPV6
    body = b"torvm probe"
    packet = struct.pack("!BBHHH", 8 if v4 else 128, 0, 0, 1, 1) + body
    if v4:
        total = sum(struct.unpack("!%dH" % (len(packet + b"\0") // 2),
                                  (packet + b"\0")[: (len(packet) + 1) & ~1]))
        total = (total >> 16) + (total & 0xFFFF)
        total += total >> 16
        packet = packet[:2] + struct.pack("!H", ~total & 0xFFFF) + packet[4:]
    with socket.socket(family, socket.SOCK_RAW, proto) as s:
        s.settimeout(1)
        s.connect((address, 0))
        s.send(packet)
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            answer = s.recv(2048)
            kind = answer[(answer[0] & 15) * 4] if v4 else answer[0]
            if kind == (0 if v4 else 129):
                return


def raw_ip(address):
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, 253) as s:
        s.sendto(b"torvm probe", (address, 0))


def sctp(address):
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, 132) as s:
        s.sendto(b"torvm probe torvm probe", (address, 0))


def packet_socket(link, address, bypass=False):
    """A whole UDP datagram past the IP layer, to everybody on the link."""
    source = socket.inet_aton("192.168.77.2")
    body = b"torvm packet probe"
    udp = struct.pack("!HHHH", 40000, 9, 8 + len(body), 0) + body
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0)
    frame = b"\xff" * 6 + b"\x02\0\0\0\0\1" + b"\x08\x00"
    frame += header + source + socket.inet_aton(address) + udp
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as s:
        if bypass:
            s.setsockopt(263, 20, 1)  # SOL_PACKET, PACKET_QDISC_BYPASS
        s.bind((link, 0))
        with open("/sys/class/net/%s/address" % link, encoding="ascii") as f:
            mac = bytes.fromhex(f.read().strip().replace(":", ""))
        s.send(frame[:6] + mac + frame[12:])


def pktinfo(link, address):
    info = struct.pack("@I4s4s", socket.if_nametoindex(link), b"\0" * 4, b"\0" * 4)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.sendmsg([b"torvm probe"], [(socket.IPPROTO_IP, 8, info)], 0, (address, 9))


def multicast(link):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        bind_device(link)(s)
        s.sendto(b"torvm probe", ("224.0.0.251", 5353))


def broadcast(link):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        bind_device(link)(s)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        s.sendto(b"torvm probe", ("255.255.255.255", 9))


def probes(args):
    v4, v6, link = args.target4, args.target6, args.link
    inet, inet6 = socket.AF_INET, socket.AF_INET6
    table = {
        "tcp4": lambda: connect(inet, v4, 80),
        "tcp6": lambda: connect(inet6, v6, 80),
        "udp4": lambda: datagram(inet, v4, 7),
        "udp6": lambda: datagram(inet6, v6, 7),
        "quic4": lambda: datagram(inet, v4, 443),
        "dns4": lambda: dns(inet, args.dns4),
        "dns4-gateway": lambda: dns(inet, args.gateway4),
        "dns4-tcp": lambda: dns(inet, args.dns4, tcp=True),
        "dns6": lambda: datagram(inet6, v6, 53),
        "tcp4-device": lambda: connect(inet, v4, 80, bind_device(link)),
        "tcp4-source": lambda: connect(
            inet, v4, 80, lambda s: s.bind((args.source4, 0))
        ),
        "udp4-unicast-if": lambda: datagram(inet, v4, 7, unicast_if(link)),
        "tcp4-lan": lambda: connect(inet, args.lan4, 80),
        "udp4-device": lambda: datagram(inet, v4, 7, bind_device(link)),
        "udp4-lan-device": lambda: datagram(inet, args.lan4, 7, bind_device(link)),
        "udp4-source": lambda: datagram(
            inet, v4, 7, lambda s: s.bind((args.source4, 0))
        ),
        "udp6-device": lambda: datagram(inet6, v6, 7, bind_device(link)),
        "pktinfo4": lambda: pktinfo(link, v4),
        "multicast4": lambda: multicast(link),
        "broadcast4": lambda: broadcast(link),
    }
    if os.geteuid() == 0:
        table.update(
            {
                "icmp4": lambda: icmp(inet, v4),
                "icmp6": lambda: icmp(inet6, v6),
                "raw4": lambda: raw_ip(v4),
                "sctp4": lambda: sctp(v4),
                "mark4": lambda: connect(inet, v4, 80, set_mark(0x1)),
                "packet": lambda: packet_socket(link, v4),
                "packet-bypass": lambda: packet_socket(link, v4, True),
            }
        )
    return table


def attempt(function):
    start = time.monotonic()
    error = ""
    try:
        function()
    except socket.timeout:
        error = "ETIMEDOUT"
    except OSError as e:
        error = errno.errorcode.get(e.errno, str(e))
    return {"error": error, "ms": round((time.monotonic() - start) * 1000, 1)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--target4", default="203.0.113.10")
    parser.add_argument("--target6", default="2001:db8:113::10")
    parser.add_argument("--dns4", default="203.0.113.53")
    parser.add_argument("--gateway4", default="192.168.77.1")
    parser.add_argument("--lan4", default="192.168.77.9")
    parser.add_argument("--source4", default="192.168.77.2")
    parser.add_argument("--link", default="eth0")
    parser.add_argument("--seconds", type=float, default=0,
                        help="repeat all probes for this long, print the last")
    parser.add_argument("probe", nargs="*")
    args = parser.parse_args()
    table = probes(args)
    names = args.probe or list(table)
    for name in names:
        if name not in table:
            parser.error("no probe %s; there are: %s" % (name, ", ".join(table)))
    end = time.monotonic() + args.seconds
    while True:
        results = {name: attempt(table[name]) for name in names}
        if time.monotonic() >= end:
            break
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
