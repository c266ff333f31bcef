#!/usr/bin/env python3
"""LAN access: private networks of the host's own links, and nothing more.

    host eth0  10.20.30.40, fd00::10, fe80::  ---- r0 router 10.20.30.1, fd00::1
               192.0.2.10, 2001:db8:1::10 (public: no LAN)
         docker0 172.17.0.1 --- box 172.17.0.2, with the host's NAT
"""

import errno
import json
import os
import socket
import struct
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from netlab import (  # noqa: E402
    HOST4, ROUTER4, ROUTER6, USER_UID, VM_UID, WEB4, Driver, Lab, connect, main,
    ns_socket, private, run, wait_until)

DRIVER = private()
lab = Lab()
driver = Driver(DRIVER)
LINKS = 8
LAN4, LAN6 = "10.20.30.1", "fd00::1"
OWN4, OWN6 = "10.20.30.40", "fd00::10"
NAMES = (53, 137, 853, 5353, 5355)
REFUSED = (errno.ECONNREFUSED, errno.EACCES, errno.EPERM, errno.EHOSTUNREACH,
           errno.ENETUNREACH)
SO_BINDTODEVICE = 25

for ns, dev, v4, v6 in (("host", "eth0", OWN4, OWN6), ("router", "r0", LAN4, LAN6)):
    lab.ip(ns, "addr", "add", v4 + "/24", "dev", dev)
    lab.ip(ns, "addr", "add", v6 + "/64", "dev", dev, "nodad")
run("ip", "netns", "add", "box")
run("ip", "link", "add", "v0", "netns", "host", "type", "veth",
    "peer", "name", "c0", "netns", "box")
for line in ("link add docker0 type bridge forward_delay 0",
             "addr add 172.17.0.1/24 dev docker0", "link set docker0 up",
             "link set v0 master docker0 up"):
    lab.ip("host", *line.split())
for line in ("link set lo up", "addr add 172.17.0.2/24 dev c0", "link set c0 up",
             "route add default via 172.17.0.1"):
    lab.ip("box", *line.split())
lab.sysctl("host", "net.ipv4.ip_forward", 1)
lab.exec("host", "nft", "-f", "-", input="""
table ip docker_like {
	chain post {
		type nat hook postrouting priority srcnat
		ip saddr 172.17.0.0/24 oifname != "docker0" masquerade
	}
	chain pre {
		type nat hook prerouting priority dstnat
		fib daddr type local tcp dport 8080 dnat to 172.17.0.2:80
	}
}
""")
lab.settle("host")
lab.settle("router")
link_local = next(
    a["local"] for link in json.loads(
        lab.ip("router", "-j", "addr", "show", "dev", "r0"))
    for a in link["addr_info"] if a["scope"] == "link")
index = lab.link("host", "eth0")["ifindex"]
LAN_PLACES = (LAN4, LAN6, link_local)

servers = {}
for family, any_address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
    for port in (80,) + NAMES:
        s = ns_socket("router", 0, family, socket.SOCK_STREAM)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        s.bind((any_address, port))
        s.listen(64)
        servers[family, port] = s
before = {}


def where(address, port):
    if address == link_local:
        return (address, port, 0, index)
    return (address, port)


def bind_to_device(s):
    s.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, b"eth0\0")


def tcp(address, port=80, uid=USER_UID, prepare=None, ns="host", seconds=1.0):
    err, took, s = connect(ns, uid, where(address, port), seconds=seconds,
                           prepare=prepare)
    s.close()
    return err, took


def reached(address, **kwargs):
    err, took = tcp(address, **kwargs)
    assert err == 0, (address, kwargs, errno.errorcode[err], took)


def refused(address, port=80, uid=USER_UID):
    """Unbound and bound to the link; unless it goes into the TAP."""
    for prepare in (None, bind_to_device):
        err, took = tcp(address, port, uid, prepare, seconds=0.3)
        assert err, (address, port)
        assert took < 0.2 or (err, prepare) == (errno.ETIMEDOUT, None), (
            address, port, errno.errorcode[err], took)


def send(address, port, marker, uid=USER_UID, prepare=None, ns="host"):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with ns_socket(ns, uid, family, socket.SOCK_DGRAM) as s:
        try:
            if prepare:
                prepare(s)
            s.sendto(marker, where(address, port))
        except OSError as e:
            assert e.errno in REFUSED, (address, port, e)


def of_lan(frame):
    """A packet that LAN access allows."""
    if frame.dport in NAMES or frame.daddr is None:
        return False
    address = socket.inet_pton(
        socket.AF_INET6 if ":" in frame.daddr else socket.AF_INET, frame.daddr)
    return address[:3] == bytes((10, 20, 30)) or address[:2] in (b"\xfe\x80", b"\xfd\0")


def only_lan():
    frames = lab.capture.take()
    bad = [f for f in frames if not f.holds_the_link() and not of_lan(f)]
    assert not bad, bad
    return frames


def names_and_strangers():
    """What stays closed, each seen with the block down."""
    for address in LAN_PLACES:
        for port in NAMES:
            send(address, port, b"name-query-%d" % port)
            send(address, port, b"name-query-%d" % port, prepare=bind_to_device)
            tcp(address, port, prepare=bind_to_device, seconds=0.3)
    send(ROUTER4, 5000, b"on-link-public", prepare=bind_to_device)
    send(ROUTER6, 5000, b"on-link-public", prepare=bind_to_device)
    send(WEB4, 5000, b"web", prepare=bind_to_device)

    def multicast(s):
        s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF,
                     struct.pack("=4s4si", b"\0" * 4, b"\0" * 4, index))
    send("224.0.0.251", 5353, b"mdns", prepare=multicast)
    send("239.255.255.250", 1900, b"ssdp", prepare=multicast)
    with ns_socket("host", 0, socket.AF_PACKET, socket.SOCK_DGRAM) as s:
        mac = bytes(int(x, 16) for x in lab.router_mac.split(":"))
        body = struct.pack("!HHHH", 4000, 80, 14, 0) + b"packet"
        head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 34, 1, 0, 64, 17, 0,
                           socket.inet_aton(OWN4), socket.inet_aton(LAN4))
        try:
            s.sendto(head + body, ("eth0", 0x0800, 0, 0, mac))
        except OSError:
            pass


CLOSED = [b"name-query-%d" % port for port in NAMES] + [
    b"on-link-public", b"web", b"mdns", b"ssdp", b"packet"]


def open_lan():
    for address in LAN_PLACES:
        for uid in (0, USER_UID):
            reached(address, uid=uid)
        reached(address, prepare=bind_to_device)
        send(address, 9100, b"print-this")
        # More than a frame holds: printers and network file systems.
        send(address, 2049, b"large" * 1000)
        lab.exec("host", "ping", "-c1", "-W2", address + (
            "%eth0" if address == link_local else ""))
    send("10.20.30.255", 9, b"wake-on-lan", prepare=lambda s: s.setsockopt(
        socket.SOL_SOCKET, socket.SO_BROADCAST, 1))


def without_torvm():
    """Positive control: without the block all of it is seen"""
    lab.capture.take()
    open_lan()
    names_and_strangers()
    frames = lab.capture.take()
    for marker in CLOSED + [b"print-this", b"wake-on-lan"]:
        assert any(marker in f.raw for f in frames), marker
    for family in (socket.AF_INET, socket.AF_INET6):
        for port in NAMES:
            assert any(f.proto == 6 and f.dport == port for f in frames), port
    reached("10.20.30.1", ns="box")
    before.update(lab.snapshot())


def off():
    """Off, as by default: the LAN is closed"""
    driver.up()
    lab.capture.take()
    for address in LAN_PLACES[:2]:
        refused(address)
        send(address, 9100, b"print-this", prepare=bind_to_device)
    assert not lab.capture.leaks()
    driver.down()


def on():
    """On: TCP, UDP and ping to private neighbours, in every mode"""
    service = ns_socket("host", 0, socket.AF_INET, socket.SOCK_STREAM)
    service.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    service.bind((OWN4, 2222))
    service.listen(1)
    ssh = connect("router", 0, (OWN4, 2222))[2]
    peer = service.accept()[0]
    driver("lan-access", "on")
    driver.up("uplink")
    # A session from the LAN, older than the block, goes on.
    for ours, theirs in ((ssh, peer), (peer, ssh)):
        ours.sendall(b"typed")
        theirs.settimeout(3)
        assert theirs.recv(16) == b"typed"
    for s in (ssh, peer, service):
        s.close()
    for mode in ("blocked", "uplink", "open"):
        driver("firewall", mode)
        lab.capture.take()
        open_lan()
        frames = only_lan()
        assert sum(b"print-this" in f.raw for f in frames) == len(LAN_PLACES), mode
        # The first fragments only: the rest has no marker of its own.
        assert sum(b"largelarge" in f.raw for f in frames) >= 2 * len(LAN_PLACES)
        assert any(b"wake-on-lan" in f.raw for f in frames)


def never():
    """Name servers, multicast, public neighbours, packet sockets: never"""
    for mode in ("blocked", "uplink", "open"):
        driver("firewall", mode)
        lab.capture.take()
        names_and_strangers()
        assert not lab.capture.leaks(), mode
    for address in LAN_PLACES:
        for port in NAMES[1:]:
            refused(address, port)
    refused(ROUTER4)
    refused(ROUTER6)
    assert not lab.capture.leaks()


def resolver_on_the_lan():
    """Names asked of a resolver on the LAN go into the TAP"""
    lab.capture.take()
    driver("tap-read")
    send(LAN4, 53, b"dns-query")
    wait_until("the query in the TAP", lambda: int(driver("tap-read", "dns-query")))
    # While it is closed they go nowhere.
    driver("firewall", "blocked")
    send(LAN4, 53, b"dns-query")
    driver("firewall", "open")
    # The VM's SocksPort is there even if the LAN's network contains it.
    lab.ip("host", "addr", "add", "10.0.0.7/8", "dev", "eth0")
    wait_until("the watch", lambda: int(driver("watch", 1000)) & LINKS)
    driver("firewall", "open")
    assert "10.0.0.0/8" in lab.ip("host", "route", "show", "table", "9097")
    driver("tap-read")
    err, _, s = connect("host", USER_UID, ("10.10.10.1", 9050), seconds=0.3)
    s.close()
    assert int(driver("tap-read")) > 0
    lab.ip("host", "addr", "del", "10.0.0.7/8", "dev", "eth0")
    wait_until("the watch", lambda: int(driver("watch", 1000)) & LINKS)
    driver("firewall", "open")
    assert not lab.capture.leaks()


def dressed_as_lan():
    """Public networks dressed as the LAN, and pushed routes, open nothing"""
    for what in (("addr", "203.0.113.99/24"), ("addr", "8.8.8.1/1"),
                 ("route", "10.99.0.0/16"), ("route", "10.20.0.0/16"),
                 ("route", "203.0.113.80/32")):
        lab.ip("host", what[0], "add", what[1], "dev", "eth0")
        driver("firewall", "open")
        for address in (WEB4, "8.8.8.8", "10.99.0.1", "10.20.31.1"):
            refused(address)
            send(address, 5000, b"dressed", prepare=bind_to_device)
            send(address, 5000, b"dressed")
        lab.ip("host", what[0], "del", what[1], "dev", "eth0")
    lab.ip("host", "route", "add", "10.99.0.0/16", "via", LAN4)
    refused("10.99.0.1")
    lab.ip("host", "route", "del", "10.99.0.0/16")
    driver("firewall", "open")
    frames = lab.capture.take()
    # A refusal may have a neighbour solicited, no more.
    assert not [f for f in frames if not f.holds_the_link()], frames


def follows_addresses():
    """Another private address: the watch sees it, its network opens and closes"""
    while int(driver("watch", 200)):
        pass
    lab.ip("router", "addr", "add", "172.20.0.1/24", "dev", "r0")
    refused("172.20.0.1")
    lab.ip("host", "addr", "add", "172.20.0.9/24", "dev", "eth0")
    wait_until("the watch", lambda: int(driver("watch", 1000)) & LINKS)
    driver("firewall", "open")
    reached("172.20.0.1")
    lab.ip("host", "addr", "del", "172.20.0.9/24", "dev", "eth0")
    wait_until("the watch", lambda: int(driver("watch", 1000)) & LINKS)
    driver("firewall", "open")
    assert int(driver("watch", 200)) == 0
    refused("172.20.0.1")
    lab.ip("router", "addr", "del", "172.20.0.1/24", "dev", "r0")
    lab.capture.take()


def incoming():
    """Connections from the LAN are answered; from elsewhere, and names, not"""
    service = ns_socket("host", 0, socket.AF_INET6, socket.SOCK_STREAM)
    service.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    service.bind(("::", 22))
    service.listen(8)
    lab.capture.take()
    for address in (OWN4, OWN6):
        err, _ = tcp(address, 22, uid=0, ns="router")
        assert err == 0, (address, errno.errorcode[err])
    err, _ = tcp(HOST4, 22, uid=0, ns="router", seconds=0.3)
    assert err == errno.ETIMEDOUT, err
    err, _ = tcp("10.10.10.2", 22, uid=0, ns="router", seconds=0.3)
    assert err != 0
    service.close()
    only_lan()


def uplink():
    """The VM's own user gets no farther than without"""
    lab.capture.take()
    for address in LAN_PLACES:
        err, took = tcp(address, uid=VM_UID)
        assert err in REFUSED and took < 0.2, (address, err)
        send(address, 9100, b"from-the-vm", uid=VM_UID)
    assert not lab.capture.leaks()


def containers():
    """A container reaches the LAN, the LAN its published port; names, never"""
    lab.capture.take()
    reached(LAN4, ns="box", uid=0)
    web = ns_socket("box", 0, socket.AF_INET, socket.SOCK_STREAM)
    web.bind(("172.17.0.2", 80))
    web.listen(4)
    err, _ = tcp(OWN4, 8080, uid=0, ns="router")
    assert err == 0, errno.errorcode[err]
    # By a public address of the host, the answer would leave to a public one.
    err, _ = tcp(HOST4, 8080, uid=0, ns="router", seconds=0.3)
    assert err == errno.ETIMEDOUT, err
    for port in NAMES[1:]:
        err, _ = tcp(LAN4, port, uid=0, ns="box")
        assert err in REFUSED, (port, err)
        send(LAN4, port, b"name-of-a-container", ns="box", uid=0)
    driver("tap-read")
    send(LAN4, 53, b"dns-of-a-container", ns="box", uid=0)
    wait_until("the query in the TAP", lambda: int(driver("tap-read", "dns-of-a")))
    web.close()
    frames = only_lan()
    assert not any(b"of-a-container" in f.raw for f in frames)


def lockdown_and_down():
    """Lockdown has no LAN; a stop leaves all as found"""
    driver.down()
    lab.same(before)
    driver("firewall", "lockdown")
    lab.capture.take()
    for address in LAN_PLACES:
        err, _ = tcp(address, seconds=0.3)
        assert err in REFUSED, err
        send(address, 9100, b"print-this")
    assert not lab.capture.leaks()
    driver("firewall-remove")
    lab.same(before)


main([without_torvm, off, on, never, resolver_on_the_lan, dressed_as_lan,
      follows_addresses, incoming, uplink, containers, lockdown_and_down])
