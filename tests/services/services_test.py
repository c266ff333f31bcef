#!/usr/bin/python3
"""TorVM beside the real services of a Debian machine.

    services_test.py [--list] [WORD...]   cases whose name contains a WORD

systemd-resolved, NetworkManager, systemd-networkd, firewalld, dhclient, openresolv
and dnsmasq run as they are in the lab's host (host.py), with TorVM and without. The
judge is a capture on the router's side of the uplink; each kind of packet that must
not appear in it is first seen there with TorVM down.

Cases of one shape of host follow each other and share a TorVM that is up.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from host import Host  # noqa: E402
from cases import Cases  # noqa: E402
from product import Lab, Product, expect, leak_filter, same_network, wait_for  # noqa: E402

cases = Cases()
NAME = "www4.lab.test"
NAMED = "203.0.113.11"
REPAIR_S = 20


class Stage(Product):
    """A TorVM, and the host's services."""

    def __init__(self, lab, directory):
        super().__init__(lab, directory)
        self.host = Host(lab)
        self.host.prepare()

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
        with self.lab.capture(name) as capture, Pester(self):
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

    def resolve(self, name=NAME, wanted=NAMED, timeout_s=20):
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
        done = self.fetch("http://%s/address" % onion, timeout_s=60)
        expect(done.code == 0 and done.out.strip(), "onion: %s" % done)

    def works(self):
        self.resolve()
        self.page_through_tor()


class Pester:
    """Looks names up and sends past the TAP over and over, until the end of a
    with: what a service's restart lets through has to be tried to be seen."""

    def __init__(self, t):
        self.t = t
        self.rounds = 0
        self.error = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop)

    def _loop(self):
        try:
            while not self._stop.is_set():
                self.t.probe("udp4-device", "tcp4-device", "udp4", "icmp4", "tcp6")
                name = "pester%d.bench.lab.test" % self.rounds
                self.t.host.output("timeout", "1", "getent", "hosts", name, check=False)
                self.rounds += 1
                self._stop.wait(0.3)
        except Exception as e:  # told to the test when it ends
            self.error = e

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        # At least one round, however short what was tried.
        wait_for("a probe", lambda: self.rounds or self.error, 60)
        self._stop.set()
        self._thread.join()
        if self.error:
            raise self.error


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
        t.host.output("firewall-cmd", "--panic-off")
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


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--list", action="store_true", help="name the cases")
    parser.add_argument("--keep", action="store_true", help="leave the lab up")
    parser.add_argument("word", nargs="*")
    args = parser.parse_args()
    if args.list:
        print("\n".join(cases.names()))
        return 0
    lab = Lab(name="services-%d" % os.getpid(), bus=True)
    directory = tempfile.mkdtemp(prefix="torvm-services-")
    os.chmod(directory, 0o755)
    start = time.monotonic()
    try:
        lab.up()
        print("# lab up in %.1f s" % (time.monotonic() - start))
        stage = Stage(lab, directory)
        return cases.run(stage, args.word, Stage.ensure_down)
    finally:
        if not args.keep:
            lab.down()
            shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
