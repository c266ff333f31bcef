#!/usr/bin/env python3
"""Every way out of the machine, in every mode of the block.

The probes run first with no block at all (positive control: the capture must see
each of them), then in each mode, when it must see none.
"""

import errno
import os
import socket
import struct
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from netlab import (  # noqa: E402
    HOST4, HOST6, MARK, ROUTER4, ROUTER6, USER_UID, WEB4, WEB6, Capture, Driver, Lab,
    connect, main, ns_socket, private, run, wait_until)

DRIVER = private()
lab = Lab()

REFUSED = (errno.ECONNREFUSED, errno.EACCES, errno.EPERM, errno.EHOSTUNREACH,
           errno.ENETUNREACH, errno.EHOSTDOWN, errno.ECONNRESET)
AT_ONCE = 0.1  # seconds

SO_BINDTODEVICE, SO_MARK = 25, 36
IP_PKTINFO, IP_UNICAST_IF = 8, 50
IPPROTO_SCTP = 132
PACKET_QDISC_BYPASS, SOL_PACKET = 20, 263

probes = []


def probe(uid):
    def add(function):
        for u in uid if isinstance(uid, tuple) else (uid,):
            name = "%s as %s" % (function.__name__, u or "root")
            probes.append((name, function, u))
        return function
    return add


def eth0_index():
    return lab.link("host", "eth0")["ifindex"]


def payload(frame, marker):
    return marker in frame.raw


def datagram(uid, marker, address, family=socket.AF_INET, prepare=None,
             kind=socket.SOCK_DGRAM, proto=0, send=None):
    """Sends one datagram, refused or not. True: the send itself failed."""
    with ns_socket("host", uid, family, kind, proto) as s:
        try:
            if prepare:
                prepare(s)
            if send:
                send(s, marker)
            else:
                s.sendto(marker, address)
        except OSError as e:
            assert e.errno in REFUSED + (errno.ENOBUFS, errno.EINVAL), e
            return True
    return False


BOTH = (0, USER_UID)
next_port = [20000]


def tcp(uid, address, prepare=None):
    next_port[0] += 1
    port = next_port[0]
    err, took, s = connect("host", uid, (address, port), seconds=0.3,
                           prepare=prepare)
    s.close()
    return lambda f: f.proto == 6 and f.dport == port, err, took


def bind_to_device(s):
    s.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, b"eth0\0")


@probe(BOTH)
def tcp4(uid, marker):
    return tcp(uid, WEB4)


@probe(BOTH)
def tcp6(uid, marker):
    return tcp(uid, WEB6)


@probe(BOTH)
def tcp4_bound_to_device(uid, marker):
    return tcp(uid, WEB4, bind_to_device)


@probe(BOTH)
def tcp6_bound_to_device(uid, marker):
    return tcp(uid, WEB6, bind_to_device)


@probe(BOTH)
def tcp4_bound_to_source(uid, marker):
    return tcp(uid, WEB4, lambda s: s.bind((HOST4, 0)))


@probe(BOTH)
def tcp4_lan(uid, marker):
    return tcp(uid, ROUTER4)


@probe(BOTH)
def udp4(uid, marker):
    datagram(uid, marker, (WEB4, 5000))


@probe(BOTH)
def udp6(uid, marker):
    datagram(uid, marker, (WEB6, 5000), socket.AF_INET6)


@probe(BOTH)
def quic(uid, marker):
    datagram(uid, marker, (WEB4, 443))


@probe(BOTH)
def dns_to_gateway_bound(uid, marker):
    datagram(uid, marker, (ROUTER4, 53), prepare=bind_to_device)


@probe(BOTH)
def udp4_bound_to_device(uid, marker):
    datagram(uid, marker, (WEB4, 5000), prepare=bind_to_device)


@probe(BOTH)
def udp6_bound_to_device(uid, marker):
    datagram(uid, marker, (WEB6, 5000), socket.AF_INET6, prepare=bind_to_device)


@probe(BOTH)
def udp4_bound_to_source(uid, marker):
    datagram(uid, marker, (WEB4, 5000), prepare=lambda s: s.bind((HOST4, 0)))


@probe(BOTH)
def udp6_bound_to_source(uid, marker):
    datagram(uid, marker, (WEB6, 5000), socket.AF_INET6,
             prepare=lambda s: s.bind((HOST6, 0)))


@probe(BOTH)
def unicast_if(uid, marker):
    index = struct.pack("!I", eth0_index())
    datagram(uid, marker, (WEB4, 5000),
             prepare=lambda s: s.setsockopt(socket.IPPROTO_IP, IP_UNICAST_IF, index))


def dont_route(s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_DONTROUTE, 1)


@probe(BOTH)
def udp4_dont_route(uid, marker):
    datagram(uid, marker, (ROUTER4, 5000), prepare=dont_route)


@probe(BOTH)
def tcp4_dont_route(uid, marker):
    return tcp(uid, ROUTER4, dont_route)


@probe(BOTH)
def pktinfo(uid, marker):
    info = struct.pack("=I4s4s", eth0_index(), b"\0" * 4, b"\0" * 4)
    datagram(uid, marker, None, send=lambda s, data: s.sendmsg(
        [data], [(socket.IPPROTO_IP, IP_PKTINFO, info)], 0, (WEB4, 5000)))


@probe(BOTH)
def multicast4(uid, marker):
    request = struct.pack("=4s4si", b"\0" * 4, b"\0" * 4, eth0_index())
    datagram(uid, marker, ("224.0.0.251", 5353), prepare=lambda s: s.setsockopt(
        socket.IPPROTO_IP, socket.IP_MULTICAST_IF, request))


@probe(BOTH)
def multicast6(uid, marker):
    datagram(uid, marker, ("ff02::fb", 5353, 0, eth0_index()), socket.AF_INET6)


@probe(BOTH)
def ssdp(uid, marker):
    datagram(uid, marker, ("239.255.255.250", 1900), prepare=bind_to_device)


def broadcasting(s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)


@probe(BOTH)
def subnet_broadcast(uid, marker):
    datagram(uid, marker, ("192.0.2.255", 5000), prepare=broadcasting)


@probe(BOTH)
def limited_broadcast(uid, marker):
    def prepare(s):
        broadcasting(s)
        bind_to_device(s)
    datagram(uid, marker, ("255.255.255.255", 5000), prepare=prepare)


@probe(BOTH)
def igmp_join(uid, marker):
    next_port[0] += 1
    group = "239.1.2.%d" % (next_port[0] % 250)
    with ns_socket("host", uid, socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP,
                     struct.pack("=4s4si", socket.inet_aton(group), b"\0" * 4,
                                 eth0_index()))
    return lambda f: f.proto == 2, None, None


@probe(0)
def forged_mark(uid, marker):
    def prepare(s):
        s.setsockopt(socket.SOL_SOCKET, SO_MARK, MARK)
        bind_to_device(s)
    datagram(uid, marker, (WEB4, 5000), prepare=prepare)


@probe(0)
def forged_mark_tcp6(uid, marker):
    def prepare(s):
        s.setsockopt(socket.SOL_SOCKET, SO_MARK, MARK)
        bind_to_device(s)
    return tcp(uid, WEB6, prepare)


def echo(kind):
    return struct.pack("!BBHHH", kind, 0, 0, 77, 1)


def checksum(data):
    """RFC 1071"""
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    total = (total >> 16) + (total & 0xFFFF)
    total += total >> 16
    return struct.pack("!H", ~total & 0xFFFF)


@probe(0)
def ping4(uid, marker):
    body = echo(8) + marker
    body += b"." * (len(body) % 2)
    body = body[:2] + checksum(body) + body[4:]
    datagram(uid, body, (WEB4, 0), kind=socket.SOCK_RAW, proto=socket.IPPROTO_ICMP,
             prepare=bind_to_device)


@probe(0)
def ping6(uid, marker):
    datagram(uid, echo(128) + marker, (WEB6, 0), socket.AF_INET6,
             kind=socket.SOCK_RAW, proto=socket.IPPROTO_ICMPV6,
             prepare=bind_to_device)


@probe(0)
def sctp4(uid, marker):
    datagram(uid, marker.ljust(32, b"."), (WEB4, 0), kind=socket.SOCK_RAW,
             proto=IPPROTO_SCTP, prepare=bind_to_device)


@probe(0)
def sctp6(uid, marker):
    datagram(uid, marker.ljust(32, b"."), (WEB6, 0), socket.AF_INET6,
             kind=socket.SOCK_RAW, proto=IPPROTO_SCTP, prepare=bind_to_device)


def ip_udp(marker, source=HOST4):
    data = struct.pack("!HHHH", 4000, 5000, 8 + len(marker), 0) + marker
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(data), 1, 0, 64, 17, 0,
                       socket.inet_aton(source), socket.inet_aton(WEB4))
    # A bridge with br_netfilter drops what has no right one.
    return head[:10] + checksum(head) + head[12:] + data


@probe(0)
def raw_ip_header(uid, marker):
    with ns_socket("host", uid, socket.AF_INET, socket.SOCK_RAW, 255) as s:
        bind_to_device(s)
        try:
            s.sendto(ip_udp(marker), (WEB4, 0))
        except OSError as e:
            assert e.errno in REFUSED, e


def ethernet(marker, ethertype=0x0800, body=None):
    def mac(text):
        return bytes(int(x, 16) for x in text.split(":"))
    return (mac(lab.router_mac) + mac(lab.host_mac)
            + struct.pack("!H", ethertype) + (body or ip_udp(marker)))


def packet_socket(uid, frame, kind=socket.SOCK_RAW, bypass=False, dev="eth0",
                  ns="host"):
    with ns_socket(ns, uid, socket.AF_PACKET, kind) as s:
        if bypass:
            s.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
        try:
            if kind == socket.SOCK_RAW:
                s.bind((dev, 0))
                s.send(frame)
            else:
                mac = bytes(int(x, 16) for x in lab.router_mac.split(":"))
                s.sendto(frame, (dev, 0x0800, 0, 0, mac))
        except OSError as e:
            assert e.errno in REFUSED + (errno.ENOBUFS,), e


@probe(0)
def packet_raw(uid, marker):
    packet_socket(uid, ethernet(marker))


@probe(0)
def packet_datagram(uid, marker):
    packet_socket(uid, ip_udp(marker), socket.SOCK_DGRAM)


@probe(0)
def packet_bypassing_qdisc(uid, marker):
    packet_socket(uid, ethernet(marker), bypass=True)


@probe(0)
def packet_vlan(uid, marker):
    packet_socket(uid, ethernet(marker, 0x8100, b"\0\x05\x08\0" + ip_udp(marker)))


@probe(0)
def packet_unknown_ethertype(uid, marker):
    packet_socket(uid, ethernet(marker, 0x88B5, marker.ljust(46, b".")))


@probe(0)
def routed_namespace(uid, marker):
    with ns_socket("child", 0, socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.sendto(marker, (WEB4, 5000))


@probe(0)
def routed_namespace_tcp6(uid, marker):
    next_port[0] += 1
    port = next_port[0]
    err, took, s = connect("child", 0, (WEB6, port), seconds=0.5)
    s.close()
    # Not at once: nothing leaves by that link, a refusal no more than the rest.
    return lambda f: f.proto == 6 and f.dport == port, None, took


@probe(0)
def bridged_guest(uid, marker):
    packet_socket(uid, ethernet(marker), dev="g1", ns="guest")


@probe(0)
def macvlan_namespace(uid, marker):
    if lab.macvlan:
        packet_socket(uid, ethernet(marker), dev="mv0", ns="vguest")


def build():
    """A routed child namespace, and a guest bridged to a second uplink."""
    run("ip", "netns", "add", "child")
    lab.wire("host", "c0", "198.18.0.1", "2001:db8:3::1",
             "child", "c1", "198.18.0.2", "2001:db8:3::2")
    lab.ip("child", "route", "add", "default", "via", "198.18.0.1")
    lab.ip("child", "-6", "route", "add", "default", "via", "2001:db8:3::1")
    lab.sysctl("host", "net.ipv4.ip_forward", 1)
    lab.sysctl("host", "net.ipv6.conf.all.forwarding", 1)
    # A second uplink in a bridge with a guest, leading to the same router.
    run("ip", "netns", "add", "guest")
    run("ip", "link", "add", "g0", "netns", "host", "type", "veth",
        "peer", "name", "g1", "netns", "guest")
    run("ip", "link", "add", "u0", "netns", "host", "type", "veth",
        "peer", "name", "u1", "netns", "router")
    lab.ip("host", "link", "add", "br0", "type", "bridge")
    for dev in ("g0", "u0"):
        lab.ip("host", "link", "set", dev, "master", "br0", "up")
    lab.ip("host", "link", "set", "br0", "up")
    lab.ip("host", "addr", "add", "198.51.100.1/24", "dev", "br0")
    # What makes br0 a way out is a next hop behind it.
    lab.ip("host", "route", "add", "198.51.101.0/24", "via", "198.51.100.254")
    lab.ip("guest", "link", "set", "g1", "up")
    lab.ip("router", "link", "set", "u1", "up")
    run("ip", "netns", "add", "vguest")
    try:
        lab.ip("host", "link", "add", "link", "eth0", "name", "mv0", "netns",
               "vguest", "type", "macvlan", "mode", "bridge")
        lab.ip("vguest", "link", "set", "mv0", "up")
        lab.macvlan = True
    except subprocess.CalledProcessError:
        lab.macvlan = False
        print("# this kernel has no macvlan")


build()
bridge_capture = Capture("router", "u1", lab.capture)
lab.capture.take()
def fire(name, function, uid):
    """Runs one probe; returns (predicate, errno, seconds)."""
    marker = ("<" + name.replace(" ", "-") + ">").encode()
    result = function(uid, marker)
    if result:
        return result
    return (lambda f: payload(f, marker)), None, None


def fire_all():
    """[(name, function, predicate, errno, seconds)]"""
    return [(name, function) + fire(name, function, uid)
            for name, function, uid in probes]


def seen_without_block():
    """Positive control: without the block the capture sees every probe"""
    lab.capture.take()
    fired = fire_all()
    frames = lab.capture.take()
    missing = [name for name, function, predicate, _, _ in fired
               if not any(predicate(f) for f in frames)
               and (function is not macvlan_namespace or lab.macvlan)]
    assert not missing, missing


def nothing_in_mode(mode):
    lab.capture.take()
    fired = fire_all()
    frames = lab.capture.leaks()
    names = [name for name, _, predicate, _, _ in fired
             if any(predicate(f) for f in frames)]
    assert not frames, (mode, names, frames)
    into_tap = (tcp4, tcp4_lan) if mode == "open" else ()
    timed = [(name, errno.errorcode.get(err, err), took)
             for name, function, _, err, took in fired
             if err is not None and function not in into_tap
             and (err not in REFUSED or took > AT_ONCE)]
    assert not timed, (mode, timed)


driver = Driver(DRIVER)


def lockdown():
    """Lockdown: as Blocked, with nothing but the firewall"""
    driver("precheck")
    driver("firewall", "lockdown")
    nothing_in_mode("lockdown")


def blocked():
    """Blocked: nothing leaves, TCP is refused at once"""
    driver("precheck")
    driver("firewall", "blocked")
    nothing_in_mode("firewall only")
    driver("rules-add")
    nothing_in_mode("blocked")
    driver("tap-create")
    driver("tap-configure")
    nothing_in_mode("blocked with TAP")


def uplink():
    """Uplink: nothing leaves but the uplink's own"""
    driver("firewall", "uplink")
    nothing_in_mode("uplink")


def opened():
    """Open: nothing leaves by the link; TCP and DNS go into the TAP"""
    driver("firewall", "open")
    driver("tap-read")
    nothing_in_mode("open")
    assert int(driver("tap-read")) > 0
    # Unbound UDP is refused on the host: it never reaches the guest.
    with ns_socket("host", USER_UID, socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.connect((WEB4, 443))
        try:
            s.send(b"quic")
            s.send(b"quic")
            raise AssertionError("UDP was not refused")
        except OSError as e:
            assert e.errno in REFUSED, e
        assert driver("tap-read") == "0"
    with ns_socket("host", USER_UID, socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.sendto(b"dns query", ("8.8.8.8", 53))
        wait_until("the DNS query in the TAP", lambda: int(driver("tap-read")))


def tap_source():
    """Open: only the TAP's own address goes into the TAP"""
    driver("tap-read")
    for source in (HOST4, "127.0.0.1"):
        err, took, s = connect("host", 0, (WEB4, 80), seconds=0.3, prepare=lambda
                               x, source=source: x.bind((source, 0)))
        s.close()
        assert err in REFUSED + (errno.EINVAL,), (source, err)
    assert driver("tap-read") == "0"


def pushed_routes():
    """Routes that a DHCP server pushes, however specific, lead nowhere"""
    routes = ("0.0.0.0/1", "128.0.0.0/1", WEB4 + "/32", "8.8.8.8/32")
    for route in routes:
        lab.ip("host", "route", "add", route, "via", ROUTER4)
    lab.ip("host", "-6", "route", "add", WEB6 + "/128", "via", ROUTER6)
    lab.capture.take()
    driver("tap-read")
    for uid in BOTH:
        connect("host", uid, (WEB4, 80), seconds=0.1)[2].close()
        err, took, s = connect("host", uid, (WEB6, 80))
        s.close()
        assert err == errno.EACCES and took < AT_ONCE, (err, took)
        with ns_socket("host", uid, socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.sendto(b"dns-query", ("8.8.8.8", 53))
    assert int(driver("tap-read", "dns-query")) == 2
    assert not lab.capture.leaks()
    nothing_in_mode("open")
    for route in routes:
        lab.ip("host", "route", "del", route)
    lab.ip("host", "-6", "route", "del", WEB6 + "/128")


def redirects():
    """ICMP redirects are dropped on arrival"""
    before = int(driver("refused"))
    inner = ip_udp(b"12345678")
    body = struct.pack("!BBH4s", 5, 1, 0, socket.inet_aton("192.0.2.66")) + inner
    body += b"." * (len(body) % 2)
    body = body[:2] + checksum(body) + body[4:]
    with ns_socket("router", 0, socket.AF_INET, socket.SOCK_RAW,
                   socket.IPPROTO_ICMP) as s:
        s.sendto(body, (HOST4, 0))
    wait_until("the drop", lambda: int(driver("refused")) > before)


def ipv6_at_once():
    """IPv6 without a bound device fails in the connect call itself"""
    for uid in BOTH:
        err, took, s = connect("host", uid, (WEB6, 80))
        s.close()
        assert err == errno.EACCES and took < AT_ONCE, (err, took)


def counted():
    """Refused packets are counted, and the count survives a mode change"""
    before = int(driver("refused"))
    assert before > 100, before
    driver("firewall", "blocked")
    after = int(driver("refused"))
    assert after >= before, (before, after)
    connect("host", 0, (WEB4, 80), prepare=bind_to_device)[2].close()
    assert int(driver("refused")) > after


def removed():
    """Without the block every probe is seen again"""
    driver.down()
    seen_without_block()


main([seen_without_block, lockdown, blocked, uplink, opened, tap_source, pushed_routes, redirects,
      ipv6_at_once, counted, removed])
