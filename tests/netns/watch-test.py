#!/usr/bin/env python3
"""What others do to the block is noticed, and mended by the same calls."""

import os
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from netlab import (  # noqa: E402
    HOST4, HOST6, ROUTER4, ROUTER6, USER_UID, VM_UID, WEB4, WEB6, Capture, Driver, Lab,
    connect, main, ns_socket, private, run)

DRIVER = private()
UNOWNED = os.path.abspath(sys.argv[2])
TAP, FIREWALL, RULES, LINKS, UPLINK = 1, 2, 4, 8, 16
lab = Lab()
driver = Driver(DRIVER)


def changed(timeout_ms=3000):
    return int(driver("watch", timeout_ms))


def own_doing():
    """Our own changes are not reported"""
    driver.up()
    driver("firewall", "uplink")
    driver("firewall", "open")
    driver("rules-add")
    bits = changed(200)
    assert bits == 0, bits
    # Nor are others' own affairs.
    lab.exec("host", "nft", "add", "table", "inet", "other")
    lab.ip("host", "rule", "add", "pref", "5000", "lookup", "77")
    lab.ip("host", "rule", "del", "pref", "5000")
    assert changed(200) == 0


def rules_gone():
    """A flushed or deleted rule is reported and comes back"""
    shot = lab.ip("host", "rule"), lab.ip("host", "-6", "rule")
    for family, command in (("-4", ["flush"]), ("-6", ["del", "pref", "120"]),
                            ("-4", ["del", "pref", "140"])):
        lab.ip("host", family, "rule", *command)
        if command == ["flush"]:
            lab.ip("host", "rule", "add", "pref", "32766", "lookup", "main")
            lab.ip("host", "rule", "add", "pref", "32767", "lookup", "default")
        assert changed() & RULES
        driver("rules-add")
        assert changed(100) == 0
    now = lab.ip("host", "rule"), lab.ip("host", "-6", "rule")
    assert now == shot, (now, shot)


def route_gone():
    """The default route of T likewise"""
    shot = lab.ip("host", "route", "show", "table", "9095")
    assert "default via 10.10.10.1" in shot
    lab.ip("host", "route", "flush", "table", "9095")
    assert changed() & RULES
    driver("rules-add")
    assert lab.ip("host", "route", "show", "table", "9095") == shot


def foreign_route():
    """What others put into T is reported and goes: it would come first"""
    def own():
        shown = (lab.ip("host", "route", "show", "table", "all")
                 + lab.ip("host", "-6", "route", "show", "table", "all"))
        return sorted(line for line in shown.splitlines() if " table 909" in line)

    shot = own()
    for family, words in (("-4", ["default", "via", ROUTER4, "metric", "0"]),
                          ("-4", ["203.0.113.0/24", "dev", "eth0"]),
                          ("-6", ["default", "via", ROUTER6, "dev", "eth0", "onlink"])):
        lab.ip("host", family, "route", "prepend", *words, "table", "9095")
        assert own() != shot, words
        assert changed() & LINKS, words
        driver("firewall", "open")
        assert own() == shot, (words, own(), shot)
        assert changed(100) & LINKS == 0


def address_gone():
    """The TAP's address likewise, and what the kernel takes away with the last one"""
    def state():
        return (lab.ip("host", "addr", "show", "torvm0"),
                lab.ip("host", "route", "show", "table", "9095"))

    shot = state()
    lab.ip("host", "addr", "add", "192.0.2.77/32", "dev", "torvm0")
    assert changed(200) == 0
    lab.ip("host", "addr", "del", "10.10.10.2/30", "dev", "torvm0")
    assert changed() & RULES
    driver("tap-configure")
    lab.ip("host", "addr", "del", "192.0.2.77/32", "dev", "torvm0")
    lab.ip("host", "addr", "flush", "dev", "torvm0")
    assert changed() & RULES
    driver("tap-configure")
    assert state() == shot, (state(), shot)
    assert changed(200) == 0


def tap_gone():
    """A TAP that is set down or deleted is reported"""
    lab.ip("host", "link", "set", "torvm0", "down")
    assert changed() & TAP
    driver("tap-configure")
    assert changed(200) == 0
    lab.ip("host", "link", "del", "torvm0")
    assert changed() & TAP
    driver("tap-create")
    assert changed(200) == 0, "a new one is not expected to be up"
    driver("tap-configure")
    assert changed(200) == 0


def leaks_by(dev, router_dev):
    """AF_PACKET over @dev: seen beyond it?"""
    capture = Capture("router", router_dev)
    with ns_socket("host", 0, socket.AF_PACKET, socket.SOCK_RAW) as s:
        s.bind((dev, 0))
        frame = b"\xff" * 6 + b"\x02" + b"\0" * 5 + b"\x88\xb5" + b"hot-plug".ljust(46)
        try:
            s.send(frame)
        except OSError:
            pass
    time.sleep(0.1)
    capture._read(0.1)
    return any(b"hot-plug" in f.raw for f in capture.frames)


def new_link():
    """A new link is reported, and guarded after the next set"""
    run("ip", "link", "add", "usb0", "netns", "host", "type", "veth",
        "peer", "name", "usb1", "netns", "router")
    lab.ip("router", "link", "set", "usb1", "up")
    lab.ip("host", "link", "set", "usb0", "up")
    assert changed() & LINKS
    assert leaks_by("usb0", "usb1"), "positive control"
    driver("firewall", "open")
    assert not leaks_by("usb0", "usb1")
    # How long a link that is plugged in stays without its guard.
    begin = time.monotonic()
    lab.ip("host", "link", "add", "usb8", "type", "bridge")
    lab.ip("host", "link", "set", "usb0", "master", "usb8")
    assert changed() & LINKS
    driver("firewall", "open")
    print("# new links guarded after %.0f ms, two runs of ip(8) included"
          % ((time.monotonic() - begin) * 1000))
    lab.ip("host", "link", "del", "usb8")
    assert changed() & LINKS
    driver("firewall", "open")
    # Since Linux 6.16 a hook goes by name: a new name is a new link.
    lab.ip("host", "link", "set", "usb0", "down")
    lab.ip("host", "link", "set", "usb0", "name", "lan7")
    lab.ip("host", "link", "set", "lan7", "up")
    assert changed() & LINKS
    driver("firewall", "open")
    assert not leaks_by("lan7", "usb1")
    # One that goes is nothing to mend.
    lab.ip("host", "link", "del", "lan7")
    assert changed(200) == 0
    assert not leaks_by("eth0", "r0")


def uplink_into_a_bridge():
    """A veth that leads out does so as a bridge's port, too, also without its route"""
    lab.ip("host", "link", "add", "br9", "type", "bridge", "forward_delay", "0")
    lab.ip("host", "link", "set", "br9", "up")
    for step in (["link", "set", "eth0", "master", "br9"],
                 ["addr", "flush", "dev", "eth0"],
                 ["addr", "add", HOST4 + "/24", "dev", "br9"]):
        lab.ip("host", *step)
        changed(500)
        driver("firewall", "open")
        for dev in ("br9", "eth0"):
            assert not leaks_by(dev, "r0"), (step, dev)
    capture = Capture("router", "r0")
    with ns_socket("host", USER_UID, socket.AF_INET, socket.SOCK_DGRAM) as s:
        bound_to("br9")(s)
        try:
            s.sendto(b"by-the-bridge", (ROUTER4, 4444))
        except OSError:
            pass
    time.sleep(0.1)
    capture._read(0.1)
    assert not any(b"by-the-bridge" in f.raw for f in capture.frames)
    lab.ip("host", "link", "del", "br9")
    lab.ip("host", "link", "set", "eth0", "down")
    plug_in()
    changed(200)
    driver("firewall", "open")


def back_at_once():
    """A link that went and is back as it was, before anybody looked, is reported"""
    number = lab.link("host", "eth0")["ifindex"]
    run("ip", "netns", "add", "shelf")
    lab.ip("host", "link", "set", "eth0", "netns", "shelf")
    lab.ip("shelf", "link", "set", "eth0", "netns", "host")
    plug_in()
    assert number == lab.link("host", "eth0")["ifindex"], "not as it was"
    assert changed() & LINKS
    driver("firewall", "open")
    assert changed(100) & LINKS == 0


def plug_in():
    """What the uplink loses with its network namespace."""
    for address in (HOST4 + "/24", HOST6 + "/64"):
        lab.ip("host", "addr", "add", address, "dev", "eth0")
    lab.ip("host", "link", "set", "eth0", "up")
    lab.ip("host", "route", "add", "default", "via", ROUTER4)
    lab.ip("host", "-6", "route", "add", "default", "via", ROUTER6)


def bound_to(dev):
    return lambda s: s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, dev.encode())


def another_uplink():
    """The uplink is unplugged, another link takes its place"""
    # As many distributions have it; the uplink's answers would be dropped.
    lab.sysctl("host", "net.ipv4.conf.default.rp_filter", 1)
    lab.wire("host", "usb0", "192.0.3.10", "2001:db8:3::10",
             "router", "usb1", "192.0.3.1", "2001:db8:3::1")
    capture = Capture("router", "usb1")
    server = lab.listen()
    lab.ip("host", "link", "set", "eth0", "netns", "shelf")
    lab.ip("host", "route", "add", "default", "via", "192.0.3.1")

    def leaks():
        time.sleep(0.1)
        capture._read(0.1)
        frames, capture.frames = capture.frames, []
        return [f for f in frames if not f.holds_the_link() and not f.sport == f.dport == 443]

    def tries():
        for prepare in (None, bound_to("usb0")):
            for address in ((WEB4, 80), (WEB6, 80)):
                assert connect("host", USER_UID, address, seconds=0.2, prepare=prepare)[0]

    # Before anybody has looked the guarantee holds for every link that there is.
    tries()
    assert not leaks()
    bits = changed()
    assert bits & LINKS and bits & UPLINK, bits
    driver("firewall", "open")
    assert "usb0/rp_filter=1>2" in driver("sysctls")
    tries()
    assert not leaks()
    assert not leaks_by("usb0", "usb1")
    error, _, s = connect("host", VM_UID, (WEB4, 443))
    assert error == 0, error
    peer, address = server.accept()
    assert address[0] == "192.0.3.10", address
    for end in (peer, s, server):
        end.close()
    # And the first one again.
    lab.ip("host", "link", "del", "usb0")
    lab.ip("shelf", "link", "set", "eth0", "netns", "host")
    plug_in()
    bits = changed()
    assert bits & LINKS and bits & UPLINK, bits
    driver("firewall", "open")
    assert not leaks_by("eth0", "r0")


def overrun():
    """Notifications lost for want of room do not hide a loss"""
    lab.exec("host", "sh", "-c", "for i in $(seq 3); do ip link set eth0 alias $i;"
             "done; ip rule del pref 110")
    batch = "rule add pref 6000 lookup 77\nrule del pref 6000\n" * 20000
    lab.exec("host", "ip", "-batch", "-", input=batch)
    bits = changed()
    # A link that has come and gone may be among what was lost.
    assert bits & RULES and bits & LINKS, bits
    driver("rules-add")
    driver.down()
    driver.close()


def foreign_flush_without_owner():
    """Without owners a flush is reported at once; how long the block is away"""
    global driver
    driver = Driver(UNOWNED)
    driver("firewall", "blocked")
    assert changed(100) == 0
    times = []
    for command in (["flush", "ruleset"], ["delete", "table", "netdev", "torvm"],
                    ["flush", "chain", "inet", "torvm", "postrouting"]):
        subprocess.run(["ip", "netns", "exec", "host", "nft"] + command, check=True)
        begin = time.monotonic()
        assert changed() & FIREWALL, command
        driver("firewall", "blocked")
        times.append((time.monotonic() - begin) * 1000)
        assert driver("present") == "1"
        with ns_socket("host", USER_UID, socket.AF_INET, socket.SOCK_DGRAM) as s:
            try:
                s.sendto(b"x", (WEB4, 9))
                raise AssertionError("not refused")
            except PermissionError:
                pass
    print("# block back after %s ms (not counting nft's exit)"
          % ", ".join("%.0f" % t for t in times))
    driver("firewall-remove")


main([own_doing, rules_gone, route_gone, foreign_route, address_gone, tap_gone, new_link,
      uplink_into_a_bridge, back_at_once, another_uplink, overrun, foreign_flush_without_owner])
