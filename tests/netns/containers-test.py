#!/usr/bin/env python3
"""Containers and guests: through Tor, or refused; never around.

                    docker0 172.17.0.1 --- box   172.17.0.2   Docker's rules
                    net1    172.18.0.1 --- box2  172.18.0.2   made while Running
    host eth0 ----  virbr0  192.168.122.1 - guest .10         libvirt's rules, dnsmasq
                    plain0  172.30.0.1 --- plain 172.30.0.2   a bridge without NAT
                    ptp0    172.31.0.1 --- ptp   172.31.0.2   no bridge, with NAT
                    eth0 ................. mac   192.0.2.51   macvlan

In the VM's place is a namespace (fakevm.py). The judge is a capture on the
router's side of eth0.
"""

import contextlib
import errno
import os
import socket
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from netlab import (  # noqa: E402
    HOST4, ROUTER4, USER_UID, VM_UID, WEB4, WEB6, Driver, Lab, connect, main, ns_socket,
    private, run, wait_until)
from fakevm import FakeVM  # noqa: E402

DRIVER = private()
lab = Lab()
driver = Driver(DRIVER)
vm = None

REFUSED = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.EACCES, errno.EPERM,
           errno.ENETUNREACH)
AT_ONCE = 0.5  # seconds; a SYN that is lost comes again after 1
LINKS = 8
ESTABLISHED, CLOSED = 1, 7  # states of a TCP socket

# As dockerd 28 writes them (iptables-save), of two networks and a published port.
DOCKER = """
*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A POSTROUTING -s 172.18.0.0/16 ! -o net1 -j MASQUERADE
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
COMMIT
*filter
:FORWARD DROP [0:0]
:DOCKER-FORWARD - [0:0]
-A FORWARD -j DOCKER-FORWARD
-A DOCKER-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-FORWARD -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp --dport 80 -j ACCEPT
-A DOCKER-FORWARD -i docker0 -j ACCEPT
-A DOCKER-FORWARD -i net1 -j ACCEPT
-A DOCKER-FORWARD -i virbr0 -j ACCEPT
-A DOCKER-FORWARD -i plain0 -j ACCEPT
-A DOCKER-FORWARD -i ptp0 -j ACCEPT
-A DOCKER-FORWARD -i eth0 -o eth0 -j ACCEPT
COMMIT
"""

# As libvirt's nftables backend writes them, the NAT of the others beside it.
NAT = """
table ip libvirt_network {
	chain guest_nat {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr 192.168.122.0/24 ip daddr 224.0.0.0/24 return
		ip saddr 192.168.122.0/24 ip daddr != 192.168.122.0/24 masquerade
	}
}
table ip others {
	chain nat {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr 172.31.0.0/16 oifname != "ptp0" masquerade
		iifname "eth0" ip saddr 192.0.2.0/24 oifname "torvm0" masquerade
	}
}
"""


def bridge(dev, address, ns, inside_address):
    run("ip", "netns", "add", ns)
    lab.ip("host", "link", "add", dev, "type", "bridge", "forward_delay", "0")
    lab.ip("host", "addr", "add", address + "/24", "dev", dev)
    lab.ip("host", "link", "set", dev, "up")
    port = "p-" + ns
    run("ip", "link", "add", port, "netns", "host", "type", "veth",
        "peer", "name", "c0", "netns", ns)
    lab.ip("host", "link", "set", port, "master", dev, "up")
    inhabit(ns, inside_address, address)


def inhabit(ns, address, gateway):
    lab.ip(ns, "link", "set", "lo", "up")
    lab.ip(ns, "addr", "add", address + "/24", "dev", "c0")
    lab.ip(ns, "link", "set", "c0", "up")
    lab.ip(ns, "route", "add", "default", "via", gateway)


def build():
    bridge("docker0", "172.17.0.1", "box", "172.17.0.2")
    bridge("virbr0", "192.168.122.1", "guest", "192.168.122.10")
    bridge("plain0", "172.30.0.1", "plain", "172.30.0.2")
    for dev, net, ns in (("docker0", "fd17::", "box"), ("virbr0", "fd18::", "guest")):
        lab.ip("host", "addr", "add", net + "1/64", "dev", dev, "nodad")
        lab.ip(ns, "addr", "add", net + "2/64", "dev", "c0", "nodad")
        lab.ip(ns, "-6", "route", "add", "default", "via", net + "1")
    run("ip", "netns", "add", "ptp")
    run("ip", "link", "add", "ptp0", "netns", "host", "type", "veth",
        "peer", "name", "c0", "netns", "ptp")
    lab.ip("host", "addr", "add", "172.31.0.1/24", "dev", "ptp0")
    lab.ip("host", "link", "set", "ptp0", "up")
    inhabit("ptp", "172.31.0.2", "172.31.0.1")
    run("ip", "netns", "add", "mac")
    lab.ip("host", "link", "add", "link", "eth0", "name", "c0", "netns", "mac",
           "type", "macvlan", "mode", "bridge")
    inhabit("mac", "192.0.2.51", ROUTER4)
    lab.sysctl("host", "net.ipv4.ip_forward", 1)
    lab.sysctl("host", "net.ipv6.conf.all.forwarding", 1)
    # Answers to fd17:: and to untranslated senders find their way back.
    lab.ip("router", "-6", "route", "add", "fd00::/8", "via", "2001:db8:1::10")
    lab.ip("router", "route", "add", "172.16.0.0/12", "via", HOST4)
    lab.exec("host", "iptables-nft-restore", input=DOCKER)
    lab.exec("host", "nft", "-f", "-", input=NAT)
    lab.settle("host")


build()
listener = lab.listen()
listener.settimeout(0.3)
BEHIND_NAT = ("box", "guest")
EVERYBODY = ("box", "guest", "plain", "ptp", "mac")


def said(s):
    """What the other side says first."""
    s.settimeout(3)
    return s.recv(64)


def to_web(ns, port=443, address=WEB4, seconds=3.0):
    """(errno, seconds taken, greeting)"""
    err, took, s = connect(ns, 0, (address, port), seconds=seconds)
    with s:
        return err, took, said(s) if err == 0 else b""


def refused(ns, address=WEB4, port=443, within=AT_ONCE):
    err, took, s = connect(ns, 0, (address, port), seconds=5)
    s.close()
    assert err in REFUSED, (ns, errno.errorcode.get(err, err))
    assert took < within, (ns, took)


def not_connected(ns, address=WEB4, port=443):
    """No refusal either, where nothing leaves by the link at all."""
    err, _, s = connect(ns, 0, (address, port), seconds=0.5)
    s.close()
    assert err != 0, ns


def datagram(ns, marker, address, answered=False):
    """Sends; the error that comes back (0: none), or the answer."""
    with ns_socket(ns, 0, socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.connect(address)
        s.settimeout(3 if answered else 0.5)
        try:
            s.send(marker)
            return s.recv(512)
        except socket.timeout:
            return 0
        except OSError as e:
            return e.errno


QUERY = b"\x12\x34\1\0\0\1\0\0\0\0\0\0\3www\4test\0\0\1\0\1"


def resolves(ns, server):
    answer = datagram(ns, QUERY, (server, 53), answered=True)
    return isinstance(answer, bytes) and answer.endswith(bytes((198, 18, 0, 80)))


@contextlib.contextmanager
def service(ns, address, port, greeting):
    """A TCP server that greets; serve() takes one client."""
    s = ns_socket(ns, 0, socket.AF_INET, socket.SOCK_STREAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((address, port))
    s.listen(8)
    try:
        yield s
    finally:
        s.close()


def reaches(ns, address, server, uid=0):
    err, took, s = connect(ns, uid, address)
    assert err == 0 and took < AT_ONCE, (ns, address, errno.errorcode.get(err), took)
    peer, source = server.accept()
    peer.sendall(b"here")
    assert said(s) == b"here"
    peer.close()
    s.close()
    return source[0]


def no_leaks():
    frames = lab.capture.leaks()
    assert not frames, frames


def arrived():
    """Whether the web server has got a connection; it is closed."""
    try:
        s, peer = listener.accept()
    except socket.timeout:
        return None
    s.close()
    return peer[0]


# --- the tests -----------------------------------------------------------------


old = []
before = {}


def directly():
    """Positive control: without the block everybody gets out directly"""
    for ns in ("box", "guest", "ptp", "mac", "plain"):
        err, _, s = connect(ns, 0, (WEB4, 443))
        assert err == 0, (ns, errno.errorcode[err])
        source = arrived()
        assert source == {"mac": "192.0.2.51", "plain": "172.30.0.2"}.get(ns, HOST4)
        old.append(s)
        if ns in BEHIND_NAT:
            datagram(ns, b"udp-of-" + ns.encode(), (WEB4, 5000))
            lab.exec(ns, "ping", "-c1", "-W3", WEB4)
        err, _, s = connect(ns, 0, (WEB4, 443))
        assert err == 0
        old.append(s)
        listener.accept()[0].close()
    frames = lab.capture.take()
    for ns in BEHIND_NAT:
        assert any(b"udp-of-" + ns.encode() in f.raw for f in frames)
    with service("box", "172.17.0.2", 80, b"") as web:
        reaches("router", (HOST4, 8080), web)
    for ns, address in (("box", "fd17::2"), ("guest", "fd18::2")):
        lab.exec("host", "ping", "-6", "-c1", "-W3", address)
    before.update(lab.snapshot())


def each_step_of_a_start():
    """Refused at once in every step of a start, nothing leaves"""
    def step():
        for ns in ("box", "guest", "plain"):
            refused(ns)
        for ns in ("ptp", "mac"):
            not_connected(ns)
        no_leaks()

    lab.capture.take()
    driver("firewall", "blocked")
    step()
    driver("rules-add")
    step()
    driver("sysctls")
    driver("tap-create")
    step()
    driver("firewall", "uplink")
    driver("tap-configure")
    step()


def old_connections():
    """What a container had open before is reset, and says nothing more"""
    global vm
    driver("firewall", "open")
    vm = FakeVM(lab, driver)
    lab.capture.take()
    with ns_socket("box", 0, socket.AF_INET, socket.SOCK_STREAM) as s:
        s.connect((WEB4, 443))
        assert said(s).startswith(b"tor")
    for s in old[:4]:
        s.settimeout(8)
        try:
            s.sendall(b"past-of-a-container")
            data = s.recv(16)
            assert data == b"", data
        except ConnectionError:
            pass
    for s in old:
        s.close()
    del old[:]
    no_leaks()


def through_tor():
    """Docker's and libvirt's networks: TCP and DNS go through Tor"""
    lab.capture.take()
    for ns in BEHIND_NAT:
        for address in (WEB4, ROUTER4, "198.51.100.7"):
            err, took, greeting = to_web(ns, address=address)
            assert err == 0 and took < AT_ONCE, (ns, errno.errorcode.get(err), took)
            assert greeting == b"tor 10.10.10.2\n", greeting
        for server in ("8.8.8.8", ROUTER4):
            assert resolves(ns, server), (ns, server)
        # More than fits into one packet, both ways.
        with ns_socket(ns, 0, socket.AF_INET, socket.SOCK_STREAM) as s:
            s.connect((WEB4, 80))
            greeting, data = said(s), os.urandom(1 << 20)
            assert greeting == b"tor 10.10.10.2\n"
            s.settimeout(20)
            got = b""
            for at in range(0, len(data), 1 << 16):
                s.sendall(data[at:at + (1 << 16)])
                while len(got) < at + (1 << 16):
                    got += s.recv(1 << 16)
            assert got == data
    no_leaks()
    assert arrived() is None


def rest_refused():
    """Their UDP, ping and IPv6 are refused at once"""
    lab.capture.take()
    for ns in BEHIND_NAT:
        for port in (443, 5000, 123):
            err = datagram(ns, b"udp", (WEB4, port))
            assert err in REFUSED, (ns, port, err)
        # Answered at once, by ICMP; but that a socket takes for final only when
        # its SYN comes again, if sender and host share a processor.
        refused(ns, WEB6, within=3)
        begin = time.monotonic()
        done = subprocess.run(
            ["ip", "netns", "exec", ns, "ping", "-c1", "-W3", WEB4],
            stdout=subprocess.PIPE, universal_newlines=True)
        assert done.returncode != 0 and "filtered" in done.stdout, done.stdout
        assert time.monotonic() - begin < 2
    no_leaks()


def never_around():
    """macvlan, a lone veth and the LAN's own forwarding get nowhere"""
    lab.capture.take()
    for ns in ("mac", "ptp"):
        not_connected(ns)
        assert datagram(ns, b"dns-query", ("8.8.8.8", 53)) in (0,) + REFUSED
    # A neighbour that takes this host for its gateway, with our own NAT's help.
    lab.ip("router", "route", "add", "198.51.100.0/24", "via", HOST4)
    not_connected("router", "198.51.100.7")
    lab.ip("router", "route", "del", "198.51.100.0/24")
    no_leaks()
    assert arrived() is None


def without_nat():
    """A bridge without NAT is refused: at once from its second packet on"""
    lab.capture.take()
    refused("plain", within=4)
    refused("plain")
    err = datagram("plain", QUERY, ("8.8.8.8", 53))
    assert err in REFUSED, err
    # The others are not meant.
    assert to_web("box")[2] == b"tor 10.10.10.2\n"
    # Nor does it help to get another address, even a real one of this host.
    lab.exec("host", "nft", "add", "rule", "ip", "others", "nat", "ip", "saddr",
             "172.30.0.0/16", "snat", "to", HOST4)
    lab.ip("plain", "addr", "add", "172.30.0.3/24", "dev", "c0")
    err, took, s = connect("plain", 0, (WEB4, 443), seconds=5,
                           prepare=lambda x: x.bind(("172.30.0.3", 0)))
    s.close()
    assert err in REFUSED and took < 4, (err, took)
    no_leaks()


def their_own():
    """Host, containers and guests reach each other, and published ports"""
    lab.capture.take()
    with service("box", "172.17.0.2", 80, b"") as web:
        reaches("host", ("172.17.0.2", 80), web, uid=USER_UID)
        reaches("host", (HOST4, 8080), web, uid=USER_UID)
        # Not the VM's user, whose QEMU a guest can make connect anywhere.
        err, took, s = connect("host", VM_UID, ("172.17.0.2", 80), seconds=1)
        s.close()
        assert err == errno.ECONNREFUSED and took < AT_ONCE, (err, took)
        reaches("guest", ("172.17.0.2", 80), web)
        # From the LAN it is not answered.
        not_connected("router", HOST4, 8080)
    with service("host", "0.0.0.0", 81, b"") as own:
        for ns, gateway in (("box", "172.17.0.1"), ("guest", "192.168.122.1")):
            reaches(ns, (gateway, 81), own)
            reaches(ns, (HOST4, 81), own)
    for ns, address in (("box", "fd17::2"), ("guest", "fd18::2")):
        lab.exec("host", "ping", "-6", "-c1", "-W3", address)
        lab.exec(ns, "ping", "-6", "-c1", "-W3", address[:-1] + "1")
    for ns in BEHIND_NAT:
        # The TAP's network is the host's alone.
        not_connected(ns, "10.10.10.1", 9050)
        not_connected(ns, "10.10.10.2", 81)
    no_leaks()


def resolver_on_the_bridge():
    """A dnsmasq for the guests, as libvirt's, resolves through Tor"""
    server = subprocess.Popen(
        ["ip", "netns", "exec", "host", "dnsmasq", "--no-daemon", "--conf-file=/dev/null",
         "--no-resolv", "--no-hosts", "--user=root", "--pid-file=", "--bind-interfaces",
         "--interface=virbr0", "--except-interface=lo", "--server=8.8.8.8",
         "--dhcp-range=192.168.122.10,192.168.122.20", "--dhcp-leasefile=/run/leases"],
        stderr=subprocess.DEVNULL)
    lab.capture.take()
    try:
        wait_until("dnsmasq", lambda: resolves("guest", "192.168.122.1"), 20)
    finally:
        server.kill()
        server.wait()
    no_leaks()


def made_while_running():
    """A network that is made while Running works once the watch has seen it"""
    while int(driver("watch", 200)):
        pass  # of what the test itself did so far
    bridge("net1", "172.18.0.1", "box2", "172.18.0.2")
    wait_until("the watch", lambda: int(driver("watch", 1000)) & LINKS)
    driver("firewall", "open")
    wait_until("the new bridge's route", lambda: "net1" in lab.ip(
        "host", "route", "show", "table", "9095") or driver("watch", 500) and None)
    lab.capture.take()
    assert to_web("box2")[2] == b"tor 10.10.10.2\n"
    assert resolves("box2", "8.8.8.8")
    with service("box2", "172.18.0.2", 80, b"") as web:
        reaches("host", ("172.18.0.2", 80), web)
        reaches("box", ("172.18.0.2", 80), web)
    no_leaks()
    lab.ip("host", "link", "del", "net1")
    lab.ip("host", "link", "del", "p-box2")
    driver("firewall", "open")


def spoofing():
    """A guest cannot send with the TAP's address, nor the VM open connections"""
    lab.capture.take()
    dropped = int(driver("refused"))
    data = struct.pack("!HHHH", 4000, 53, 8 + 5, 0) + b"spoof"
    with ns_socket("box", 0, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as s:
        head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(data), 1, 0, 64, 17, 0,
                           socket.inet_aton("10.10.10.2"), socket.inet_aton("8.8.8.8"))
        s.sendto(head + data, ("8.8.8.8", 0))
    wait_until("the drop", lambda: int(driver("refused")) > dropped)
    with service("box", "172.17.0.2", 80, b"") as web:
        web.settimeout(0.3)
        not_connected("vm", "172.17.0.2", 80)
        # Nor by the published port.
        not_connected("vm", "10.10.10.2", 8080)
    no_leaks()


def tcp_state(s):
    return s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)[0]


def end_of_the_vm():
    """In a stop Tor's last word ends the connections of containers, idle ones, too"""
    lab.capture.take()
    idle = ns_socket("box", 0, socket.AF_INET, socket.SOCK_STREAM)
    idle.connect((WEB4, 443))
    assert said(idle) == b"tor 10.10.10.2\n"
    driver("firewall", "uplink")
    vm.close_connections()

    wait_until("the end of an idle connection", lambda: tcp_state(idle) == CLOSED, 20)
    idle.close()
    driver("firewall", "open")
    no_leaks()


def end_of_a_hung_vm():
    """A VM that hangs says nothing; idle connections are ended all the same"""
    lab.capture.take()
    idle = [ns_socket(ns, 0, socket.AF_INET, socket.SOCK_STREAM) for ns in BEHIND_NAT * 3]
    for s in idle:
        s.connect((WEB4, 443))
        assert said(s) == b"tor 10.10.10.2\n"
    # Of the TAP's end, and of the other, nobody has said anything yet.
    with service("guest", "192.168.122.10", 80, b"") as web:
        _, _, theirs = connect("box", 0, ("192.168.122.10", 80))
        peer, _ = web.accept()
        vm.hang(driver)
        driver("firewall", "blocked")
        assert {tcp_state(s) for s in idle} == {ESTABLISHED}
        begin = time.monotonic()
        driver("forwarded-end")
        took = time.monotonic() - begin
        assert {tcp_state(s) for s in idle} == {CLOSED}, [tcp_state(s) for s in idle]
        for s in idle:
            assert s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET
        # They were told at once, and nobody else was.
        assert took < 0.2, took
        peer.sendall(b"still here")
        assert said(theirs) == b"still here"
        theirs.close()
        peer.close()
    for s in idle:
        s.close()
    begin = time.monotonic()
    driver("forwarded-end")
    assert time.monotonic() - begin < 0.2, "waited for nobody"
    vm.attach(driver)
    driver("firewall", "open")
    assert to_web("box")[2] == b"tor 10.10.10.2\n"
    no_leaks()


def vm_dead():
    """With the VM dead they are refused at once, and work again with the next"""
    lab.capture.take()
    with ns_socket("box", 0, socket.AF_INET, socket.SOCK_STREAM) as s:
        s.connect((WEB4, 443))
        assert said(s).startswith(b"tor")
        driver("firewall", "blocked")
        for ns in BEHIND_NAT + ("plain",):
            refused(ns)
            assert datagram(ns, QUERY, ("8.8.8.8", 53)) in REFUSED
        s.settimeout(8)
        try:
            s.sendall(b"data in Blocked")
            assert s.recv(16) == b""
        except ConnectionError:
            pass
    no_leaks()
    # The TAP goes and comes back.
    driver("tap-delete")
    for ns in BEHIND_NAT:
        refused(ns)
    driver("tap-create")
    driver("tap-configure")
    vm.attach(driver)
    driver("firewall", "open")
    for ns in BEHIND_NAT:
        assert to_web(ns)[2] == b"tor 10.10.10.2\n"
    no_leaks()


def each_step_of_a_stop():
    """Refused in every step of a stop; then direct again, and all as found"""
    lab.capture.take()
    driver("sockets-destroy")
    driver("tap-delete")
    for ns in ("box", "guest", "plain"):
        refused(ns)
    driver("rules-remove")
    for ns in ("box", "guest", "plain"):
        refused(ns)
    for ns in ("ptp", "mac"):
        not_connected(ns)
    no_leaks()
    driver("firewall-remove")
    for ns in EVERYBODY:
        err, _, s = connect(ns, 0, (WEB4, 443))
        s.close()
        assert err == 0 and arrived(), ns


main([directly, each_step_of_a_start, old_connections, through_tor, rest_refused,
      never_around, without_nat, their_own, resolver_on_the_bridge,
      made_while_running, spoofing, end_of_the_vm, end_of_a_hung_vm, vm_dead, each_step_of_a_stop])
