#!/usr/bin/env python3
"""The uplink's flows, and those of everybody else that were there before."""

import errno
import os
import select
import signal
import socket
import struct
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from netlab import (  # noqa: E402
    HOST4, HOST6, ROUTER4, ROUTER6, USER_UID, VM_UID, WEB4, WEB6, Driver, Lab,
    connect, main, ns_socket, private)

DRIVER = private()
UPLINK = 16  # NET_CHANGED_UPLINK
lab = Lab()
# What a guest's relay must never reach although it can be routed.
lab.ip("host", "addr", "add", "10.20.30.40/24", "dev", "eth0")
lab.ip("router", "addr", "add", "10.20.30.1/24", "dev", "r0")
lab.ip("router", "addr", "add", "fd00::1/64", "dev", "r0", "nodad")
lab.ip("host", "addr", "add", "fd00::10/64", "dev", "eth0", "nodad")
driver = Driver(DRIVER)
listener4 = lab.listen()
listener6 = lab.listen(socket.AF_INET6)


def of_web(frame):
    return frame.proto == 6 and frame.daddr in (WEB4, WEB6) and frame.dport == 443


def exchange(ours, theirs):
    ours.sendall(b"there")
    theirs.settimeout(3)
    assert theirs.recv(16) == b"there"
    theirs.sendall(b"back")
    ours.settimeout(3)
    assert ours.recv(16) == b"back"


old = []


def before():
    """Connections made before the block work (positive control)"""
    for address, listener in ((WEB4, listener4), (WEB6, listener6)):
        err, _, s = connect("host", USER_UID, (address, 443))
        assert err == 0, err
        peer = listener.accept()[0]
        exchange(s, peer)
        old.append((s, peer))
        err, _, s = connect("host", USER_UID, (address, 443))
        assert err == 0, err
        old.append((s, listener.accept()[0]))


def old_connections_end():
    """They are reset at the first packet, and neither data, FIN nor RST leaves"""
    driver("firewall", "blocked")
    lab.capture.take()
    for s, _ in old[::2]:
        try:
            begin = time.monotonic()
            s.sendall(b"leak")
            s.settimeout(2)
            data = s.recv(16)
            raise AssertionError(data)
        except OSError as e:
            assert e.errno in (errno.ECONNRESET, errno.EHOSTUNREACH, errno.EPERM,
                               errno.EACCES, errno.ECONNREFUSED), e
            assert time.monotonic() - begin < 0.1
    for s, _ in old[1::2]:
        s.close()
    # What the peer sends now meets a closed socket: no answer to it either.
    for _, peer in old:
        try:
            peer.sendall(b"anybody?")
        except OSError:
            pass
    assert not lab.capture.leaks()
    time.sleep(0.5)  # the first retransmission of a FIN comes after 200 ms
    assert not lab.capture.leaks()
    assert int(driver("refused")) > 0


def listening_socket():
    """A connection from the LAN to a service of the host gets no answer"""
    service = ns_socket("host", 0, socket.AF_INET, socket.SOCK_STREAM)
    service.bind(("0.0.0.0", 22))
    service.listen(1)
    err, _, s = connect("router", 0, (HOST4, 22), seconds=0.5)
    s.close()
    service.close()
    assert err in (errno.ETIMEDOUT, errno.EAGAIN), errno.errorcode[err]
    assert not lab.capture.leaks()


def no_uplink_when_blocked():
    """Blocked: the uplink's user is refused like everybody"""
    driver("rules-add")
    driver("sysctls")
    for address in (WEB4, WEB6):
        err, took, s = connect("host", VM_UID, (address, 443))
        s.close()
        assert err == errno.ECONNREFUSED and took < 0.1, (address, err, took)
    assert not lab.capture.leaks()


flows = []


def no_ipv6_unless_asked():
    """Uplink: by IPv4 alone, where the configuration does not ask for IPv6"""
    driver("tap-create")
    driver("uplink", "any-tcp")
    driver("firewall", "uplink")
    driver("tap-configure")
    assert refused(WEB6, 443)
    assert datagram((WEB6, 443), socket.AF_INET6) in (errno.EPERM, errno.EACCES)
    assert not lab.capture.leaks()
    # Positive control: the same, and one rule more.
    driver("uplink", "any-tcp", "any-tcp6")
    driver("firewall", "uplink")
    err, _, s = connect("host", VM_UID, (WEB6, 443))
    assert err == 0, errno.errorcode[err]
    s.close()
    listener6.accept()[0].close()
    assert lab.capture.leaks()


def uplink_opens():
    """Uplink: a new flow of its user to a public address passes"""
    for address, listener in ((WEB4, listener4), (WEB6, listener6)):
        err, _, s = connect("host", VM_UID, (address, 443))
        assert err == 0, (address, errno.errorcode[err])
        peer = listener.accept()[0]
        exchange(s, peer)
        flows.append((s, peer))
    frames = lab.capture.leaks()
    assert frames and all(of_web(f) for f in frames), frames
    assert all(f.saddr in (HOST4, HOST6) for f in frames)
    # It is the user's alone, past the policy rules as well.
    for address in (WEB4, WEB6):
        for prepare in (None, bound_to_eth0):
            err, _, s = connect("host", USER_UID, (address, 443), seconds=1, prepare=prepare)
            s.close()
            assert err != 0, address
    assert not lab.capture.leaks()


def bound_to_eth0(s):
    s.setsockopt(socket.SOL_SOCKET, 25, b"eth0\0")


def survives_modes():
    """An established flow of the uplink survives changes of the mode"""
    for mode in ("open", "uplink", "open"):
        driver("firewall", mode)
        for s, peer in flows:
            exchange(s, peer)
    assert all(of_web(f) for f in lab.capture.leaks())


def uplink_limits():
    """The uplink reaches no LAN, no host, no TAP, and speaks no UDP"""
    service = ns_socket("host", 0, socket.AF_INET6, socket.SOCK_STREAM)
    service.bind(("::", 8080))
    service.listen(8)
    service.setblocking(False)
    # Positive control: this host's own services are there for its users.
    for address in ("127.0.0.1", "::1", HOST4, HOST6):
        err, _, s = connect("host", USER_UID, (address, 8080))
        assert err == 0, (address, errno.errorcode[err])
        s.close()
    lab.capture.take()
    for address in ("10.20.30.1", "fd00::1", "10.10.10.1", "10.0.0.1",
                    "224.0.0.1", "192.168.1.1", "100.64.0.1", "169.254.1.1",
                    "2001::1", "2001:10::1", "2002:102:304::1", "4000::1",
                    "64:ff9b::c000:201", "fec0::1",
                    "127.0.0.1", "127.1.2.3", "::1", HOST4, HOST6):
        err, took, s = connect("host", VM_UID, (address, 8080), seconds=1)
        s.close()
        assert err in (errno.ECONNREFUSED, errno.EACCES, errno.ENETUNREACH), (
            address, errno.errorcode.get(err))
        assert took < 0.1, (address, took)
    for target in ((WEB4, 53), (WEB4, 443), ("10.20.30.1", 53)):
        with ns_socket("host", VM_UID, socket.AF_INET, socket.SOCK_DGRAM) as s:
            try:
                s.sendto(b"udp", target)
                raise AssertionError(target)
            except OSError as e:
                assert e.errno in (errno.EPERM, errno.EACCES), e
    for target in ((WEB6, 53), (WEB6, 443), ("fd00::1", 53)):
        err = datagram(target, socket.AF_INET6)
        assert err in (errno.EPERM, errno.EACCES), target
    # Other than a SYN: a packet without a flow is not the first of one.
    assert not lab.capture.leaks()
    # Bound to the link, it is no more allowed.
    err, took, s = connect(
        "host", VM_UID, ("10.20.30.1", 8080),
        prepare=lambda x: x.setsockopt(socket.SOL_SOCKET, 25, b"eth0\0"))
    s.close()
    assert err == errno.ECONNREFUSED and took < 0.1, (err, took)
    assert not lab.capture.leaks()
    service.close()


def no_riding_along():
    """Nobody rides on a flow of the uplink: same ports, other socket"""
    s, peer = flows[0]
    sport = s.getsockname()[1]
    seq = b"stowaway"
    tcp = struct.pack("!HHIIBBHHH", sport, 443, 1, 1, 5 << 4, 0x18, 512, 0, 0) + seq
    lab.capture.take()
    with ns_socket("host", 0, socket.AF_INET, socket.SOCK_RAW,
                   socket.IPPROTO_TCP) as raw:
        raw.setsockopt(socket.SOL_SOCKET, 25, b"eth0\0")
        raw.bind((HOST4, 0))
        try:
            raw.sendto(tcp, (WEB4, 0))
        except OSError as e:
            assert e.errno == errno.EPERM, e
    frames = lab.capture.take()
    assert not any(seq in f.raw for f in frames), frames


def datagram(target, family=socket.AF_INET):
    """What sending one as the uplink's user ends in: an errno or 0."""
    with ns_socket("host", VM_UID, family, socket.SOCK_DGRAM) as s:
        try:
            s.sendto(b"udp", target)
            return 0
        except OSError as e:
            return e.errno


def check_ended(s):
    """The connection was ended on this side."""
    try:
        s.sendall(b"dead")
        raise AssertionError("the old connection lives")
    except OSError as e:
        assert e.errno in (errno.ECONNABORTED, errno.EPIPE), e


def refused(address, port):
    err, took, s = connect("host", VM_UID, (address, port), seconds=1)
    s.close()
    return err == errno.ECONNREFUSED and took < 0.1


def check_peers(family, private, other, public, foreign, listener, flow):
    """Exactly a private peer and a public one; @other is a private address that is
    no peer, @foreign a public one of the other family."""
    bracketed = "[%s]" if family == socket.AF_INET6 else "%s"
    driver("uplink", "tcp:%s:8443" % bracketed % private,
           "udp:%s:53" % bracketed % private, "tcp:%s:443" % bracketed % public)
    driver("firewall", "uplink")
    lab.capture.take()
    # Its flows of before live on; a new one is a peer's.
    exchange(*flow)
    err, _, s = connect("host", VM_UID, (public, 443))
    assert err == 0, errno.errorcode[err]
    s.close()
    listener.accept()[0].close()
    service = ns_socket("router", 0, family, socket.SOCK_STREAM)
    service.bind((private, 8443))
    service.listen(1)
    err, _, s = connect("host", VM_UID, (private, 8443))
    assert err == 0, errno.errorcode[err]
    exchange(s, service.accept()[0])
    s.close()
    service.close()
    assert datagram((private, 53), family) == 0
    allowed = {(6, private, 8443), (6, public, 443), (17, private, 53)}
    sent = {(f.proto, f.daddr, f.dport) for f in lab.capture.leaks()}
    assert sent == allowed, sent
    # Another port, another address, the other family and protocol; another user.
    assert refused(private, 8080) and refused(public, 80) and refused(foreign, 443)
    assert refused(other, 8443)
    for target in ((private, 54), (private, 8443), (public, 443), (public, 53)):
        err = datagram(target, family)
        assert err in (errno.EPERM, errno.EACCES), target
    err, _, s = connect("host", USER_UID, (private, 8443), seconds=1)
    s.close()
    assert err != 0
    sent = {(f.proto, f.daddr, f.dport) for f in lab.capture.leaks()}
    assert sent <= {(6, private, 8443), (6, public, 443)}, sent  # the ends of flows


def only_peers():
    """With peers: exactly their addresses and ports, private ones too"""
    check_peers(socket.AF_INET, "10.20.30.1", "10.20.30.2", WEB4, WEB6, listener4,
                flows[0])


def only_ipv6_peers():
    """The same with IPv6"""
    check_peers(socket.AF_INET6, "fd00::1", "fd00::2", WEB6, WEB4, listener6, flows[1])


def datagrams():
    """With any UDP: public addresses, but no resolver; and still no TCP"""
    driver("uplink", "any-udp")
    driver("firewall", "uplink")
    lab.capture.take()
    assert datagram((WEB4, 3478)) == 0
    assert datagram((WEB4, 53)) in (errno.EPERM, errno.EACCES)
    assert datagram(("10.20.30.1", 3478)) in (errno.EPERM, errno.EACCES)
    assert refused(WEB4, 443)
    sent = {(f.proto, f.daddr, f.dport) for f in lab.capture.leaks()
            if f.proto == 17}
    assert sent == {(17, WEB4, 3478)}, sent
    driver("uplink", "any-udp6")
    driver("firewall", "uplink")
    assert datagram((WEB6, 3478), socket.AF_INET6) == 0
    assert datagram((WEB6, 53), socket.AF_INET6) in (errno.EPERM, errno.EACCES)
    assert datagram((WEB4, 3478)) in (errno.EPERM, errno.EACCES)
    assert refused(WEB6, 443)
    driver("uplink", "any-tcp", "any-tcp6")
    driver("firewall", "uplink")
    lab.capture.take()


def renewed():
    """Connections of the uplink that lead nowhere any more are ended, no others"""
    driver("watch", 0)
    s, peer = flows[0]
    other = ns_socket("host", USER_UID, socket.AF_INET, socket.SOCK_STREAM)
    other.bind(("10.10.10.2", 0))
    other.setblocking(False)
    other.connect_ex((WEB4, 443))
    assert driver("uplink-renew", "changed") == "0"
    exchange(s, peer)
    # No way out for a moment: it may come back as it was.
    lab.ip("host", "route", "del", "default")
    assert int(driver("watch", 3000)) & UPLINK
    assert driver("uplink-renew", "changed") == "0"
    lab.ip("host", "route", "add", "default", "via", ROUTER4)
    assert int(driver("watch", 3000)) & UPLINK
    assert driver("uplink-renew", "changed") == "0"
    exchange(s, peer)
    # The same way, with another address: the old one's connection is dead.
    lab.ip("host", "addr", "add", "192.0.2.99/24", "dev", "eth0")
    lab.ip("host", "route", "replace", "default", "via", ROUTER4, "src", "192.0.2.99")
    assert int(driver("watch", 3000)) & UPLINK
    assert driver("uplink-renew", "changed") == "1"
    check_ended(s)
    err, _, s = connect("host", VM_UID, (WEB4, 443))
    assert err == 0, errno.errorcode[err]
    flows[0] = s, listener4.accept()[0]
    assert s.getsockname()[0] == "192.0.2.99"
    assert driver("uplink-renew", "changed") == "0"
    lab.ip("host", "route", "replace", "default", "via", ROUTER4)
    lab.ip("host", "addr", "del", "192.0.2.99/24", "dev", "eth0")
    # After a long sleep: all of them, both families'.
    assert driver("uplink-renew", "all") == "2"
    code = other.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    assert code in (0, errno.ECONNREFUSED), errno.errorcode[code]
    other.close()
    err, _, s = connect("host", VM_UID, (WEB4, 443))
    assert err == 0, errno.errorcode[err]
    flows[0] = s, listener4.accept()[0]
    assert s.getsockname()[0] == HOST4
    assert all(of_web(f) for f in lab.capture.leaks())


def renewed_ipv6():
    """By IPv6: another address of the same network is none, one of another is"""
    driver("watch", 0)
    err, _, s = connect("host", VM_UID, (WEB6, 443))
    assert err == 0, errno.errorcode[err]
    peer = listener6.accept()[0]
    lab.ip("host", "addr", "add", "2001:db8:1::99/64", "dev", "eth0", "nodad")
    lab.ip("host", "-6", "route", "replace", "default", "via", ROUTER6, "src", "2001:db8:1::99")
    assert int(driver("watch", 3000)) & UPLINK
    assert driver("uplink-renew", "changed") == "0"
    exchange(s, peer)
    lab.ip("host", "-6", "route", "replace", "default", "via", ROUTER6, "src", "fd00::10")
    assert int(driver("watch", 3000)) & UPLINK
    assert driver("uplink-renew", "changed") == "1"
    check_ended(s)
    lab.ip("host", "-6", "route", "replace", "default", "via", ROUTER6)
    lab.ip("host", "addr", "del", "2001:db8:1::99/64", "dev", "eth0")
    assert all(of_web(f) for f in lab.capture.leaks())


def killed():
    """kill -9: what the dead process still sends is its flows' and nothing else"""
    ready, done = os.pipe()
    child = os.fork()
    if child == 0:
        err, _, s = connect("host", VM_UID, (WEB4, 443))
        os.write(done, b"x" if err == 0 else b"-")
        s.setblocking(False)
        try:
            while True:
                s.send(b"y" * 65536)
        except BlockingIOError:
            pass
        os.write(done, b"x")
        signal.pause()
    peer = listener4.accept()[0]
    assert os.read(ready, 1) == b"x"
    assert os.read(ready, 1) == b"x"
    # The router goes silent: everything has to be sent again.
    lab.ip("router", "link", "set", "r1", "down")
    lab.capture.take()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    driver("firewall", "uplink")
    # Read on without a router: orphaned retransmissions for a second.
    deadline = time.monotonic() + 1.2
    orphans = []
    while time.monotonic() < deadline:
        orphans += lab.capture.leaks()
        select.select([], [], [], 0.1)
    assert orphans and all(of_web(f) for f in orphans), orphans
    driver("firewall", "blocked")
    lab.capture.take()
    deadline = time.monotonic() + 1.2
    late = []
    while time.monotonic() < deadline:
        late += lab.capture.leaks()
        select.select([], [], [], 0.1)
    assert not late, late
    peer.close()
    lab.ip("router", "link", "set", "r1", "up")
    lab.ip("router", "addr", "replace", "2001:db8:2::1/64", "dev", "r1", "nodad")


def hold_the_link():
    """DHCP, ARP and neighbour discovery pass in Blocked, even unbound DHCP"""
    hold_the_link_in("blocked")


def hold_the_link_in_lockdown():
    """The same under lockdown"""
    hold_the_link_in("lockdown")


def hold_the_link_in(mode):
    driver("firewall", mode)
    lab.ip("host", "neigh", "flush", "all")
    lab.capture.take()
    with ns_socket("host", 0, socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("0.0.0.0", 68))
        s.sendto(b"renew", (ROUTER4, 67))
    with ns_socket("host", 0, socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        s.setsockopt(socket.SOL_SOCKET, 25, b"eth0\0")
        s.bind(("0.0.0.0", 68))
        s.sendto(b"discover", ("255.255.255.255", 67))
    with ns_socket("host", 0, socket.AF_INET6, socket.SOCK_DGRAM) as s:
        index = lab.link("host", "eth0")["ifindex"]
        s.bind(("::", 546, 0, 0))
        s.sendto(b"solicit", ("ff02::1:2", 547, 0, index))
    with ns_socket("host", 0, socket.AF_PACKET, socket.SOCK_RAW) as s:
        s.bind(("eth0", 0))
        s.send(b"\x01\x80\xc2\0\0\x03\x02\0\0\0\0\x01\x88\x8e" + b"eapol".ljust(46))
    # A probe of the router makes the host answer NS, and ARP.
    lab.exec("router", "ping", "-c1", "-W1", HOST4, check=False)
    lab.exec("router", "ping", "-c1", "-W1", HOST6, check=False)
    lab.ip("router", "neigh", "flush", "dev", "r0")
    lab.exec("router", "ping", "-c1", "-W1", HOST6, check=False)
    frames = lab.capture.take()
    assert not [f for f in frames if not f.holds_the_link()], frames
    for what in (b"renew", b"discover", b"solicit", b"eapol"):
        assert any(what in f.raw for f in frames), what
    assert any(f.ethertype == 0x0806 for f in frames)
    assert any(f.proto == 58 and f.icmp == 136 for f in frames)


def probing_the_tap():
    """The LAN learns nothing of the TAP: no ARP, no answer (CVE-2019-14899)"""
    driver("firewall", "open")
    service = ns_socket("host", 0, socket.AF_INET, socket.SOCK_STREAM)
    service.bind(("10.10.10.2", 8081))
    service.listen(1)
    lab.ip("router", "route", "add", "10.10.10.2/32", "dev", "r0")
    lab.capture.take()
    err, _, s = connect("router", 0, ("10.10.10.2", 8081), seconds=0.5)
    s.close()
    assert err != 0
    assert not any(f.ethertype == 0x0806 and f.raw[28:32] == b"\x0a\x0a\x0a\x02"
                   for f in lab.capture.take())
    lab.ip("router", "neigh", "replace", "10.10.10.2", "lladdr", lab.host_mac, "dev", "r0")
    before = int(driver("refused"))
    err, _, s = connect("router", 0, ("10.10.10.2", 8081), seconds=0.5)
    s.close()
    assert err != 0 and not lab.capture.leaks()
    assert int(driver("refused")) > before
    # Positive control: from the host itself it is there.
    err, took, s = connect("host", USER_UID, ("10.10.10.2", 8081))
    assert err == 0 and took < 0.1
    s.close()
    service.close()


def users_are_counted():
    """Refused packets are counted by user, and go on over a change of mode"""
    other = USER_UID - 1

    def counted():
        pairs = (pair.split(":") for pair in driver("refused-by").split())
        return {int(uid): int(packets) for uid, packets in pairs}

    driver("firewall", "blocked")
    before = counted()
    assert other not in before, before
    for uid, times in ((USER_UID, 3), (other, 1)):
        for _ in range(times):
            err, _, s = connect("host", uid, (WEB4, 443))
            s.close()
            assert err != 0
    after = counted()
    assert after[USER_UID] == before.get(USER_UID, 0) + 3, (before, after)
    assert after[other] == 1, after
    driver("firewall", "uplink")
    assert counted()[USER_UID] == after[USER_UID]
    err, _, s = connect("host", other, (WEB4, 443))
    s.close()
    assert err != 0 and counted()[other] == 2, (err, counted())


main([before, old_connections_end, listening_socket, no_uplink_when_blocked,
      no_ipv6_unless_asked, uplink_opens, survives_modes, uplink_limits, no_riding_along,
      only_peers, only_ipv6_peers, datagrams, renewed, renewed_ipv6, killed,
      hold_the_link, hold_the_link_in_lockdown, probing_the_tap, users_are_counted])
