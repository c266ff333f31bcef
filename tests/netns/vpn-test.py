#!/usr/bin/env python3
"""A VPN's own policy rules: TorVM's come first, the uplink follows the VPN's.

    host eth0 ---- r0 router r1 ---- internet
         vpn0 ---- rv                          in a WireGuard link's place

The rules and tables are those of wg-quick(8) and tailscaled.
"""

import errno
import os
import socket
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from netlab import (  # noqa: E402
    HOST4, USER_UID, VM_UID, WEB4, WEB6, Capture, Driver, DriverError, Lab,
    connect, main, ns_socket, private, wait_until)

DRIVER = private()
lab = Lab()
driver = Driver(DRIVER)
driver("uplink", "any-tcp", "any-tcp6")
RULES, UPLINK = 4, 16
VPN4, VPN6 = "10.66.0.2", "fd66::2"
REFUSED = (errno.ECONNREFUSED, errno.EACCES, errno.EPERM, errno.EHOSTUNREACH)

lab.wire("host", "vpn0", VPN4, VPN6, "router", "rv", "10.66.0.1", "fd66::1")
lab.settle("host")
by_vpn = Capture("router", "rv")
listeners = {4: lab.listen(), 6: lab.listen(socket.AF_INET6)}
WEB = {4: WEB4, 6: WEB6}
VPN = {4: VPN4, 6: VPN6}


def rules(family):
    return [line for line in lab.ip("host", "-%d" % family, "rule").splitlines()
            if "proto 116" not in line]


def ours(family=4):
    return [int(line.split(":")[0])
            for line in lab.ip("host", "-%d" % family, "rule").splitlines()
            if "proto 116" in line]


def wg_quick(action, mark=51820):
    """What `wg-quick up` and `down` run, as they run it: without preferences."""
    for family, gateway in (("-4", "10.66.0.1"), ("-6", "fd66::1")):
        if action == "up":
            lab.ip("host", family, "route", "replace", "default", "via", gateway,
                   "dev", "vpn0", "onlink", "table", str(mark))
        lab.ip("host", family, "rule", {"up": "add", "down": "delete"}[action],
               "not", "fwmark", str(mark), "table", str(mark))
        lab.ip("host", family, "rule", {"up": "add", "down": "delete"}[action],
               "table", "main", "suppress_prefixlength", "0")


def tailscale(action):
    """tailscaled's, with an exit node."""
    word = {"up": "add", "down": "del"}[action]
    for family, gateway in (("-4", "10.66.0.1"), ("-6", "fd66::1")):
        if action == "up":
            lab.ip("host", family, "route", "replace", "default", "via", gateway,
                   "dev", "vpn0", "onlink", "table", "52")
        for pref, rule in (("5210", "fwmark 0x80000/0xff0000 lookup main"),
                           ("5230", "fwmark 0x80000/0xff0000 lookup default"),
                           ("5250", "fwmark 0x80000/0xff0000 unreachable"),
                           ("5270", "lookup 52")):
            lab.ip("host", family, "rule", word, "pref", pref, *rule.split())


def leaves_by(uid, family, source):
    err, _, s = connect("host", uid, (WEB[family], 443))
    assert err == 0, (family, errno.errorcode.get(err))
    # What an earlier test left in the queue is not this one.
    port = s.getsockname()[1]
    while True:
        peer, address = listeners[family].accept()
        peer.close()
        if address[1] == port:
            break
    assert address[0] == source, address
    s.close()


def leaves_by_vpn(uid, family):
    leaves_by(uid, family, VPN[family])


def uplink_by_vpn():
    for family in (4, 6):
        leaves_by_vpn(VM_UID, family)


def changed(timeout_ms):
    """What has to be mended; that the uplink has other routes is no matter here."""
    return int(driver("watch", timeout_ms)) & ~UPLINK


def mend():
    wait_until("the watch", lambda: changed(1000) & RULES)
    driver("rules-add")
    assert changed(100) == 0


def user_into_tap():
    driver("tap-read")
    with ns_socket("host", USER_UID, socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.sendto(b"dns-query", ("8.8.8.8", 53))
    wait_until("the query in the TAP", lambda: int(driver("tap-read", "dns-query")))
    err, took, s = connect("host", USER_UID, (WEB6, 443))
    s.close()
    assert err == errno.EACCES and took < 0.1, (err, took)


def user_leaves_nowhere():
    """Unbound, and bound to either link."""
    for device in (None, b"vpn0\0", b"eth0\0"):
        for family in (4, 6):
            err, took, s = connect(
                "host", USER_UID, (WEB[family], 443), seconds=0.3,
                prepare=lambda x, d=device: d and x.setsockopt(
                    socket.SOL_SOCKET, 25, d))
            s.close()
            assert err != 0, (device, family)


def nothing_seen():
    by_vpn._read(0.05)
    lan, vpn = lab.capture.leaks(), [f for f in by_vpn.frames
                                     if not f.holds_the_link()]
    del by_vpn.frames[:]
    assert not lan and not vpn, (lan, vpn)


def forget():
    by_vpn._read(0.05)
    lab.capture.take()
    del by_vpn.frames[:]


def without_torvm():
    """Positive control: both VPNs' rules lead everybody to their link"""
    for vpn in (wg_quick, tailscale):
        vpn("up")
        for uid in (USER_UID, VM_UID):
            for family in (4, 6):
                leaves_by_vpn(uid, family)
        vpn("down")
    by_vpn._read(0.05)
    assert any(f.daddr == WEB4 for f in by_vpn.frames)


def vpn_first():
    """A VPN that was there before: everybody into the TAP, the uplink by it"""
    for vpn in (wg_quick, tailscale):
        vpn("up")
        before = rules(4), rules(6)
        driver("precheck")
        driver.up()
        uplink_by_vpn()
        forget()
        user_into_tap()
        user_leaves_nowhere()
        nothing_seen()
        driver.down()
        assert (rules(4), rules(6)) == before
        vpn("down")


def vpn_while_running():
    """wg-quick's rules get ahead of ours: refused, then ours are first again"""
    driver.up()
    assert changed(100) == 0
    assert ours() == ours(6) == [100, 101, 110, 120, 140]
    wg_quick("up")
    theirs = rules(4), rules(6)
    forget()
    # Nothing leaves past Tor although routes lead to the VPN now.
    user_leaves_nowhere()
    nothing_seen()
    mend()
    assert (rules(4), rules(6)) == theirs
    assert max(ours()) < 98 and len(ours()) == 5, ours()
    forget()
    user_into_tap()
    user_leaves_nowhere()
    nothing_seen()
    uplink_by_vpn()
    # A second one, and one after the other without a pause.
    wg_quick("up", 51821)
    wg_quick("down", 51821)
    wg_quick("up", 51821)
    mend()
    forget()
    user_into_tap()
    nothing_seen()
    uplink_by_vpn()
    wg_quick("down", 51821)
    wg_quick("down")
    mend()
    assert ours() == ours(6) == [100, 101, 110, 120, 140]
    user_into_tap()


def tailscale_while_running():
    """Tailscale's come after ours: nothing to mend"""
    tailscale("up")
    assert changed(200) == 0
    forget()
    user_into_tap()
    nothing_seen()
    uplink_by_vpn()
    tailscale("down")


def no_room():
    """A rule of preference 0 is named; nothing leaves, and all works without it"""
    lab.ip("host", "rule", "add", "pref", "0", "lookup", "main")
    wait_until("the watch", lambda: changed(1000) & RULES)
    try:
        driver("rules-add")
        raise AssertionError("no error")
    except DriverError as e:
        assert e.name == "EBUSY" and "preference 0" in e.text, e
    forget()
    user_leaves_nowhere()
    nothing_seen()
    lab.ip("host", "rule", "del", "pref", "0", "lookup", "main")
    driver("rules-add")
    assert changed(100) == 0
    user_into_tap()


def down():
    """A stop leaves no rule"""
    driver.down()
    assert ours() == ours(6) == []
    leaves_by(USER_UID, 4, HOST4)


main([without_torvm, vpn_first, vpn_while_running, tailscale_while_running, no_room,
      down])
