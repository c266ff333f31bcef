#!/usr/bin/python3
"""TorVM beside the real services of a Debian machine.

    services_test.py [--list] [WORD...]   cases whose name contains a WORD

systemd-resolved, NetworkManager, systemd-networkd, firewalld, dhclient, openresolv,
resolvconf and dnsmasq run as they are in the lab's host (host.py), with TorVM and
without. The judge is a capture on the router's side of the uplink; each kind of packet
that must not appear in it is first seen there with TorVM down. What the drop-ins keep
the network managers from is seen to happen without them.

Cases of one shape of host follow each other and share a TorVM that is up.
"""

import contextlib
import json
import os
import re
import signal
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from host import NETWORKD_DHCP, DhcpServer, Host  # noqa: E402
from cases import Cases  # noqa: E402
from product import (  # noqa: E402
    TOP,
    TORVM,
    Pester,
    Product,
    expect,
    leak_filter,
    run_in_lab,
    same_network,
    wait_for,
)

cases = Cases()
NAME = "www4.lab.test"
NAMED = "203.0.113.11"
REPAIR_S = 60


class Stage(Product):
    """A TorVM, and the host's services."""

    def __init__(self, lab, directory):
        super().__init__(lab, directory)
        self.host = Host(lab)
        self.host.prepare()
        self._dhcp = None

    @property
    def dhcp(self):
        """The test's own DHCP server, from the first use on."""
        if self._dhcp is None:
            self._dhcp = DhcpServer(self.lab, **ORDINARY)
        return self._dhcp

    # --- the judge ----------------------------------------------------------------

    def forbidden(self, capture):
        """Packets of the host that may not leave; addresses may have changed."""
        own = "src host %s" % self.lab.addresses["host"]["ipv4"]
        expression = leak_filter(self.lab)
        expect(own in expression, "the leak filter has changed")
        return capture.show(expression.replace(own, "src net 192.168.77.0/24"))

    @contextlib.contextmanager
    def nothing_leaks(self, name):
        """Everything inside happens under a capture, while programs try to get
        out, and no packet may show that docs/SECURITY.md does not allow."""
        with self.lab.capture(name) as capture, Asking(self):
            yield capture
        leaked = self.forbidden(capture)
        expect(not leaked, "%d leaked:\n%s" % (len(leaked), "\n".join(leaked[:20])))
        expect(not capture.show("port 53"), "DNS on the wire")

    def leak_is_seen(self, name, act):
        """The positive control: with TorVM down the same act shows."""
        with self.lab.capture(name) as capture:
            act()
        expect(self.forbidden(capture), "%s: the capture is blind" % name)
        return capture

    # --- names ----------------------------------------------------------------------

    def resolve(self, name=NAME, wanted=NAMED, timeout_s=60):
        """A name by the C library, as programs ask. Fresh each time: no program of
        the host caches but resolved."""

        def answered():
            answer = self.host.output("getent", "ahostsv4", name, check=False)
            return wanted is None and answer or wanted in answer.split()

        wait_for("the address of " + name, answered, timeout_s)

    def page_through_tor(self, name=NAME):
        done = self.fetch("http://%s/address" % name, "-4")
        exits = [a["ipv4"] for a in self.lab.addresses["exits"].values()]
        expect(done.out.strip() in exits, "%s: %s\n%s" % (name, done, self.log()[-2000:]))

    def onion_opens(self):
        """An .onion name resolves to an address of Tor's making, and opens."""
        onion = self.lab.onion()
        self.resolve(onion, None)
        address = self.host.output("getent", "ahostsv4", onion).split()[0]
        # By its address: newer curls refuse an .onion name (RFC 7686).
        done = self.fetch("http://%s/address" % address, "-H", "Host: " + onion, timeout_s=60)
        expect(done.code == 0 and done.out.strip(), "onion: %s" % done)

    def works(self):
        self.resolve()
        self.page_through_tor()

    def works_in(self, timeout_s):
        """Tor may need that long to notice that its connections are dead."""

        def fetched():
            return self.fetch("http://%s/" % NAMED, timeout_s=10).code == 0

        wait_for("a page after the link came back", fetched, timeout_s)
        self.works()

    def doctor(self):
        """The doctor's findings, by check."""
        done = self.run(TORVM, "doctor", "--json", "--runtime-dir", self.runtime)
        return {f["check"]: f for f in json.loads(done.out)}


class Asking(Pester):
    """Looks names up and sends past the TAP over and over, until the end of a
    with: what a service's restart lets through has to be tried to be seen."""

    def __init__(self, t):
        super().__init__(self._once, pause_s=0.3)
        self.t = t

    def _once(self):
        self.t.probe("udp4-device", "tcp4-device", "udp4", "icmp4", "tcp6")
        name = "pester%d.bench.lab.test" % self.rounds
        self.t.host.output("timeout", "1", "getent", "hosts", name, check=False)

    def __exit__(self, *what):
        # At least one round, however short what was tried.
        wait_for("a probe", lambda: self.rounds or self.error, 60)
        super().__exit__(*what)


# --- systemd-resolved and firewalld, addresses set by hand ---------------------------


def resolved_settings(t):
    """Of the uplink's link and of all: what a stop has to leave as it was. Without
    'current' servers, which resolved chooses."""
    manager = {}
    for key in ("DNS", "Domains", "LLMNR", "MulticastDNS", "DNSOverTLS", "DNSSEC"):
        answer = t.host.output(
            *("busctl", "-j", "get-property", "org.freedesktop.resolve1"),
            *("/org/freedesktop/resolve1", "org.freedesktop.resolve1.Manager", key),
        )
        manager[key] = json.loads(answer)["data"]
    return t.host.resolve_link("eth0"), manager


def names_go_to_the_vm(t):
    link = t.host.resolve_link("torvm0")
    return (
        link["DNS"] == [[2, [10, 10, 10, 1]]]
        and link["Domains"] == [[".", True]]
        and link["DefaultRoute"]
        and [link[k] for k in ("LLMNR", "MulticastDNS", "DNSOverTLS", "DNSSEC")]
        == ["no"] * 4
    )


@cases.case
def resolved_leaks_without_torvm(t):
    t.host.set_rp_filter(1)
    t.host.start_resolved()
    t.host.output("resolvectl", "dns", "eth0", "192.168.77.1")
    # A name that nobody has asked for, so that it is in no cache.
    control = t.leak_is_seen(
        "resolved-control", lambda: t.resolve("control.bench.lab.test", None)
    )
    expect(control.show("udp port 53"), "DNS was not seen")
    # In resolved's cache from here on; TorVM has to empty it.
    t.resolve()


@cases.case
def resolved_asks_tor(t):
    t.before = (resolved_settings(t), t.snapshot())
    queries = len(t.lab.dns_queries())
    t.up_until_blocked()
    with t.nothing_leaks("resolved"):
        t.wait_state("Running")
        expect(names_go_to_the_vm(t), str(t.host.resolve_link("torvm0")))
        cached = t.host.output("resolvectl", "query", NAME)
        expect("from: network" in cached, "an old answer outlived the start: " + cached)
        t.works()
        answer = t.host.output("resolvectl", "query", "--cache=no", NAME)
        expect(NAMED in answer and "torvm0" in answer, answer)
    expect(len(t.lab.dns_queries()) == queries, "the LAN's resolver was asked")
    expect(t.host.rp_filter() == "2", "rp_filter: " + t.host.rp_filter())


@cases.case
def onion_opens_by_resolved_and_by_nss(t):
    t.ensure_running()
    with t.nothing_leaks("resolved-onion"):
        t.onion_opens()
        plain = t.host.read("/etc/nsswitch.conf")
        lines = "hosts: resolve [!UNAVAIL=return] files dns\n"
        t.host.write("/etc/nsswitch.conf", re.sub("(?m)^hosts:.*\n", lines, plain))
        try:
            t.works()
            t.onion_opens()
        finally:
            t.host.write("/etc/nsswitch.conf", plain)


@cases.case
def restarted_resolved_still_asks_tor(t):
    t.ensure_running()
    with t.nothing_leaks("resolved-restart"):
        t.host.output("resolvectl", "revert", "torvm0")
        wait_for("the settings after a revert", lambda: names_go_to_the_vm(t), REPAIR_S)
        for signum in (signal.SIGTERM, signal.SIGKILL):
            t.host.stop("resolved", signum)
            # As where /run/systemd/resolve does not outlive the service.
            t.host.output("rm", "-rf", "/run/systemd/resolve/netif")
            t.host.start_resolved()
            t.host.output("resolvectl", "dns", "eth0", "192.168.77.1")
            wait_for("the settings again", lambda: names_go_to_the_vm(t), REPAIR_S)
            t.works()


@cases.case
def firewalld_leaves_the_block_alone(t):
    t.ensure_running()
    ours = block(t)
    with t.nothing_leaks("firewalld"):
        t.host.start_firewalld()
        for action in ("--reload", "--complete-reload"):
            t.host.output("firewall-cmd", action)
            wait_for("the block after " + action, lambda: block(t) == ours, REPAIR_S)
            t.works()
        for zone in ("drop", "block"):
            t.host.output("firewall-cmd", "--set-default-zone=" + zone)
            t.works()
        t.host.output("firewall-cmd", "--panic-on")
        expect(t.fetch("http://%s/" % NAMED, timeout_s=5).code, "panic mode lets out")
        mend = t.doctor()["firewalld"]["mend"]
        expect(mend == "firewall-cmd --panic-off", "doctor: " + mend)
        t.host.output(*mend.split())
        t.works()
        t.host.stop("firewalld")
        wait_for("the block after firewalld's end", lambda: block(t) == ours, REPAIR_S)
        t.works()
        expect(t.status()["state"] == "Running", str(t.status()))


def block(t):
    """Which tables and policy rules of TorVM's are there."""
    tables = t.host.output("nft", "list", "tables")
    rules = t.host.output("ip", "rule") + t.host.output("ip", "-6", "rule")
    return sorted(re.findall(r"table \w+ torvm", tables)), rules.count("proto 116")


@cases.case
def resolved_is_left_as_it_was(t):
    t.down()
    settings, network = t.before
    expect(resolved_settings(t) == settings, "resolved: %s" % (resolved_settings(t),))
    same_network(network, t.snapshot())
    expect(t.host.rp_filter() == "1", "rp_filter was not put back")
    t.resolve()
    control = t.leak_is_seen(
        "resolved-after", lambda: t.resolve("after.bench.lab.test", None)
    )
    expect(control.show("udp port 53"), "names do not go the old way")
    t.host.stop("resolved")
    t.host.resolv_conf()


# --- dhclient, plain files, a dnsmasq on loopback ---------------------------------

LEASED = "192.168.77.120"
ORDINARY = {
    "address": LEASED,
    "router": "192.168.77.1",
    "dns": ["192.168.77.1"],
    "lease_s": 120,
    "t1_s": 4,
    "t2_s": 90,
    "routes": [],
}
# The web servers' network by a neighbour, and a resolver of his: TunnelVision.
HOSTILE = {
    "dns": ["192.168.77.9", "203.0.113.53"],
    "routes": [
        ["203.0.113.0/24", "192.168.77.9"],
        ["0.0.0.0/1", "192.168.77.1"],
        ["128.0.0.0/1", "192.168.77.1"],
        ["0.0.0.0/0", "192.168.77.1"],
    ],
}


def renewed(t):
    """A renewal by unicast, after now, that the server acknowledged."""
    t.dhcp.wait_renewal(LEASED, len(t.dhcp.requests()))


def take_hostile_lease(t, address=LEASED):
    """A lease with routes and servers of an attacker, and his advertisement."""
    t.dhcp.offer(**HOSTILE, address=address)
    t.host.hostile_ra()
    t.host.wait(
        "the attacker's route",
        lambda: "203.0.113.0/24 via 192.168.77.9" in t.host.output("ip", "route"),
    )
    t.host.wait(
        "the attacker's prefix",
        lambda: "2001:db8:666:" in t.host.output("ip", "-6", "addr", "show", "eth0"),
    )


@cases.case
def dhclient_leaks_without_torvm(t):
    t.ensure_down()
    t.host.set_rp_filter(0)
    t.dhcp.offer(**ORDINARY)
    for name, value in (("accept_ra", 1), ("autoconf", 1), ("disable_ipv6", 0)):
        t.host.write_sysctl("net/ipv6/conf/eth0/" + name, value)
    t.host.output("sh", "-c", "echo 64 >%s || true" % RT_INFO)
    t.host.clear_eth0()
    t.host.start_dhclient()
    renewed(t)
    control = t.leak_is_seen(
        "dhclient-control", lambda: t.resolve("dhclient.bench.lab.test", None)
    )
    expect(control.show("udp port 53"), "DNS was not seen")


RT_INFO = "/proc/sys/net/ipv6/conf/eth0/accept_ra_rt_info_max_plen"


@cases.case
def dhclient_renews_and_a_hostile_lease_changes_nothing(t):
    t.up_until_blocked()
    with t.nothing_leaks("dhclient") as capture:
        t.wait_state("Running")
        renewed(t)
        t.works()
        # dhclient takes routes only with another address: the server refuses the
        # old one.
        take_hostile_lease(t, "192.168.77.121")
        expect("192.168.77.9" in t.host.read("/etc/resolv.conf"), "dhclient's own file")
        t.works_in(120)
    attacker = t.lab.output("lan", ["cat", "/sys/class/net/eth0/address"]).strip()
    sent = capture.show("ether dst %s and not arp" % attacker)
    expect(not sent, "sent to the attacker: %s" % sent)
    expect(t.host.rp_filter() == "0", "rp_filter 0 was changed for nothing")


PLAIN = {
    "several servers": "nameserver 203.0.113.77\nnameserver 192.168.77.1\n"
    "nameserver 203.0.113.53\n",
    "options": "# by hand\nsearch home.lab.test\noptions edns0 trust-ad timeout:5\n"
    "nameserver 192.168.77.1\n",
    "IPv6 first": "nameserver 2001:db8:77::1\nnameserver 192.168.77.1\n",
}
UNUSABLE = {
    "IPv6": "nameserver 2001:db8:77::1\n",
    "link-local": "nameserver fe80::1%eth0\n",
}


@cases.case
def plain_files_stay_and_lead_to_tor(t):
    t.host.stop("dhclient")
    t.ensure_running()
    with t.nothing_leaks("plain"):
        for name, text in PLAIN.items():
            t.host.resolv_conf(text)
            t.works()
            expect(t.doctor()["names"]["result"] == "ok", "%s: %s" % (name, t.doctor()))
            expect(t.host.read("/etc/resolv.conf") == text, name + " was rewritten")
        t.onion_opens()
        for name, text in UNUSABLE.items():
            t.host.resolv_conf(text)
            start = time.monotonic()
            answer = t.host.output("getent", "ahostsv4", NAME, check=False)
            expect(not answer and time.monotonic() - start < 9, "%s: %r" % (name, answer))
            found = t.doctor()
            expect(name in found["resolver"]["text"], "doctor: %s" % found["resolver"])
            expect(found["names"]["result"] == "note", "doctor: %s" % found["names"])
            # The command that the doctor names mends it.
            t.host.output("sh", "-c", found["resolver"]["mend"])
            t.works()
    t.host.resolv_conf()


@cases.case
def dnsmasq_on_loopback_asks_tor(t):
    t.ensure_running()
    t.host.resolv_conf("nameserver 127.0.0.1\n")
    with t.nothing_leaks("dnsmasq"):
        t.host.start_dnsmasq("192.168.77.1")
        t.works()
        t.onion_opens()
        t.host.stop("dnsmasq")
        # Bound to the link, as NetworkManager's dns=dnsmasq does it.
        t.host.start_dnsmasq("192.168.77.1@eth0")
        expect(not t.host.output("getent", "hosts", NAME, check=False), "bound, it asks")
        found = t.doctor()["names"]
        expect("binds" in found["text"] and found["mend"], "doctor: %s" % found)
        t.host.output("sh", "-c", found["mend"])
        t.works()
        t.host.stop("dnsmasq")
    t.host.resolv_conf()


@cases.case
def openresolv_keeps_its_file(t):
    t.ensure_running()
    t.host.add_package("openresolv")
    with t.nothing_leaks("openresolv"):
        for link, server in (("eth0", "192.168.77.1"), ("eth1", "203.0.113.53")):
            t.host.output(
                "sh", "-c", "echo nameserver %s | resolvconf -a %s" % (server, link)
            )
        expect("203.0.113.53" in t.host.read("/etc/resolv.conf"), "not openresolv's file")
        text = t.host.read("/etc/resolv.conf")
        t.works()
        t.host.output("resolvconf", "-d", "eth1")
        t.works()
    t.down()
    t.host.output("sh", "-c", "echo nameserver 203.0.113.53 | resolvconf -a eth1")
    expect(t.host.read("/etc/resolv.conf") == text, "openresolv's file changed")
    t.host.resolv_conf()


def resolvconf_file(t):
    """Where /etc/resolv.conf leads, and what it says."""
    return (
        t.host.output("readlink", "/etc/resolv.conf").strip(),
        t.host.output("cat", "/etc/resolv.conf"),
    )


@cases.case
def resolvconf_keeps_its_file(t):
    """Debian's own, fed by dhclient."""
    t.ensure_down()
    t.host.stop("dhclient")
    t.dhcp.offer(**ORDINARY)
    t.host.clear_eth0()
    t.host.add_package("resolvconf")
    t.host.start_resolvconf()
    t.host.start_dhclient()
    t.host.wait("its server", lambda: "192.168.77.1" in resolvconf_file(t)[1], "dhclient")
    link, text = resolvconf_file(t)
    expect(link == "/run/resolvconf/resolv.conf", link)
    control = t.leak_is_seen(
        "resolvconf-control", lambda: t.resolve("resolvconf.bench.lab.test", None)
    )
    expect(control.show("udp port 53"), "DNS was not seen")
    t.up_until_blocked()
    with t.nothing_leaks("resolvconf"):
        t.wait_state("Running")
        t.works()
        t.onion_opens()
        # A VPN's server comes first.
        t.host.output("sh", "-c", "echo nameserver 203.0.113.53 | resolvconf -a tun0.vpn")
        expect("nameserver 203.0.113.53\nnameserver 192" in resolvconf_file(t)[1], "no VPN")
        t.works()
        t.host.output("resolvconf", "-d", "tun0.vpn")
        expect(resolvconf_file(t) == (link, text), "changed: %s" % (resolvconf_file(t),))
        take_hostile_lease(t, "192.168.77.121")
        t.host.wait("his servers", lambda: "192.168.77.9" in resolvconf_file(t)[1])
        t.works_in(120)
        # Of the lease only an IPv6 server is left, as where DHCP has none.
        t.host.stop("dhclient")
        t.host.output("resolvconf", "-d", "eth0.dhclient")
        t.host.output("sh", "-c", "echo nameserver 2001:db8:77::1 | resolvconf -a eth0.ra")
        expect(not t.host.output("getent", "hosts", NAME, check=False), "IPv6 was asked")
        found = t.doctor()["resolver"]
        expect("IPv6" in found["text"], "doctor: %s" % found)
        t.host.output("sh", "-c", found["mend"])
        t.works()
    t.down()
    t.host.output("resolvconf", "-d", "eth0.ra")
    t.host.output("sh", "-c", "echo nameserver 192.168.77.1 | resolvconf -a eth0.dhclient")
    expect(resolvconf_file(t) == (link, text), "changed: %s" % (resolvconf_file(t),))
    t.resolve("resolvconf-after.bench.lab.test", None)
    t.host.resolv_conf()


# --- What network managers take away -------------------------------------------------


@contextlib.contextmanager
def taken(t):
    """A list of what is taken inside from TorVM's link, routes and rules, however
    soon it is put back, as far as the kernel tells. Complete at the end."""
    found = []

    def seen(address):
        marker = address + " dev lo table 9999"
        for action in ("add", "del"):
            t.host.output("ip", "route", action, *marker.split())
        return marker in t.host.log("monitor")

    t.host.start("monitor", ["ip", "-o", "monitor", "link", "address", "route", "rule"])
    try:
        wait_for("ip monitor", lambda: seen("198.51.100.77"), REPAIR_S)
        yield found
        wait_for("the last event", lambda: seen("198.51.100.78"), REPAIR_S)
        found += [
            line
            for line in t.host.log("monitor").splitlines()
            if line.startswith("Deleted") and re.search("torvm0|9095|proto 116", line)
        ]
    finally:
        t.host.stop("monitor")
        os.unlink(t.host.log_path("monitor"))


# --- NetworkManager ------------------------------------------------------------------


def packaged(name):
    with open(os.path.join(TOP, "packaging", "linux", name), encoding="utf-8") as f:
        return f.read()


def nm_device(t, name):
    """NetworkManager's word for a link's state."""
    lines = t.host.output("nmcli", "-t", "-f", "DEVICE,STATE", "device").splitlines()
    return dict(line.split(":", 1) for line in lines)[name]


def nm_off_and_on(t):
    """As by the switch of a desktop, and as around a sleep."""
    t.host.output("nmcli", "networking", "off")
    t.host.wait_nm("asleep")
    t.host.output("nmcli", "networking", "on")
    t.host.wait_nm("connected")


@cases.case
def networkmanager_keeps_the_link_and_its_hands_off(t):
    t.ensure_down()
    t.host.set_rp_filter(2)
    t.dhcp.offer(**ORDINARY)
    t.host.clear_eth0()
    t.host.resolv_conf()
    drop_in = packaged("NetworkManager/torvm.conf")
    t.host.start_networkmanager(drop_in=drop_in)
    t.host.wait_address(LEASED, "NetworkManager")
    t.resolve()
    t.up_until_blocked()
    with t.nothing_leaks("nm"):
        t.wait_state("Running")
        ours = block(t)
        expect(nm_device(t, "torvm0") == "unmanaged", "torvm0: " + nm_device(t, "torvm0"))
        renewed(t)
        t.works()
        t.host.output(
            *("nmcli", "connection", "modify", "wired", "ipv4.dns", "203.0.113.53")
        )
        t.host.output("nmcli", "device", "reapply", "eth0")
        t.host.wait(
            "NetworkManager's resolv.conf",
            lambda: "203.0.113.53" in t.host.read("/etc/resolv.conf"),
        )
        t.works()
        with taken(t) as lost:
            t.host.output("nmcli", "connection", "down", "wired")
            t.host.output("nmcli", "connection", "up", "wired")
            t.works_in(120)
            nm_off_and_on(t)
            t.works_in(120)
        expect(not lost, "NetworkManager took:\n" + "\n".join(lost))
        # Without the drop-in, with systemd-resolved, and both come late.
        t.host.stop("NetworkManager", signal.SIGKILL)
        t.host.output("rm", "/etc/NetworkManager/conf.d/torvm.conf")
        t.host.start_resolved()
        wait_for("the settings", lambda: names_go_to_the_vm(t), REPAIR_S)
        t.host.start_networkmanager("systemd-resolved")
        wait_for(
            "the uplink's resolver",
            lambda: [2, [192, 168, 77, 1]] in t.host.resolve_link("eth0")["DNS"],
            REPAIR_S,
        )
        wait_for("the settings again", lambda: names_go_to_the_vm(t), REPAIR_S)
        t.works_in(120)
        # The positive control for the drop-in: without it NetworkManager takes the
        # link's address as its own, and it is put back.
        with taken(t) as lost:
            nm_off_and_on(t)
            t.works_in(120)
        expect(any("inet 10.10.10.2" in line for line in lost), "taken: %s" % lost)
        wait_for("the block", lambda: block(t) == ours, REPAIR_S)
    expect(t.host.rp_filter() == "2", "rp_filter: " + t.host.rp_filter())
    t.down()
    t.resolve("nm-after.bench.lab.test", None)
    t.host.stop("NetworkManager")
    t.host.stop("resolved")
    t.host.resolv_conf()


# --- systemd-networkd ------------------------------------------------------------------

# A file as cloud images have it: it matches TorVM's link, too.
NETWORKD_ALL = "[Match]\nName=*\n\n[Network]\nDHCP=yes\n"


@cases.case
def networkd_keeps_the_link_and_its_hands_off(t):
    t.ensure_down()
    t.dhcp.offer(**ORDINARY)
    t.host.clear_eth0()
    network = packaged("networkd/10-torvm.network")
    files = {
        "/etc/systemd/network/10-torvm.network": network,
        "/etc/systemd/networkd.conf.d/torvm.conf": packaged("networkd/torvm.conf"),
        "/etc/systemd/network/50-eth0.network": NETWORKD_DHCP,
        "/etc/systemd/network/99-all.network": NETWORKD_ALL,
    }
    t.host.start_networkd(files)
    t.host.wait_address(LEASED, "networkd")
    t.host.start_resolved()
    t.resolve()
    t.up_until_blocked()
    with t.nothing_leaks("networkd"):
        t.wait_state("Running")
        ours = block(t)
        renewed(t)
        t.works()
        take_hostile_lease(t)
        t.works()
        t.dhcp.offer(**ORDINARY)
        with taken(t) as lost:
            for signum in (signal.SIGTERM, signal.SIGKILL):
                t.host.stop("networkd", signum)
                t.host.start_networkd(files)
                t.host.wait_address(LEASED, "networkd")
                wait_for("the settings", lambda: names_go_to_the_vm(t), REPAIR_S)
                wait_for("the block", lambda: block(t) == ours, REPAIR_S)
                t.works_in(120)
            t.host.output("networkctl", "reconfigure", "torvm0", "eth0")
            t.host.wait_address(LEASED, "networkd")
            t.works_in(120)
        expect(not lost, "networkd took:\n" + "\n".join(lost))
        # The positive control for the drop-ins: without them it takes the link, its
        # address, the resolver and rules, 252 when told to only. Nothing leaves for
        # that, and the doctor says how to mend it.
        for path in list(files)[:2]:
            t.host.output("rm", path)
        with taken(t):
            t.host.stop("networkd")
            t.host.start_networkd({})
            t.host.wait(
                "networkd to take torvm0",
                lambda: not t.host.resolve_link("torvm0")["Domains"],
                "networkd",
            )
            t.host.output("networkctl", "reconfigure", "torvm0", "eth0")
            for what in (r"\d+:\s.*proto 116", r"\d+: torvm0\s+inet 10\.10\.10\.2"):
                t.host.wait(
                    "networkd to take " + what,
                    lambda: re.search("Deleted " + what, t.host.log("monitor")),
                    "networkd",
                )
        found = t.doctor()["resolved"]
        expect("networkd" in found["text"] and found["mend"], "doctor: %s" % found)
        t.host.write("/usr/lib/systemd/network/10-torvm.network", network)
        t.host.output("sh", "-c", found["mend"])
        wait_for("the settings", lambda: names_go_to_the_vm(t), REPAIR_S)
        t.works_in(120)
    t.down()
    t.host.stop("networkd")
    t.host.stop("resolved")


def main():
    return run_in_lab(cases, Stage, "services", __doc__, bus=True)


if __name__ == "__main__":
    sys.exit(main())
