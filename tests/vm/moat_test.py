#!/usr/bin/python3
"""The bridge service, asked through meek while a censor keeps Tor from connecting.

    moat_test.py [--list] [--keep] [WORD...]     cases whose name has a WORD

The service stands behind a front in the lab (peer moat). Every case holds the capture
on the router's side of the host's uplink to the front, or the proxy, alone.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from cases import Cases  # noqa: E402
from product import expect, leak_filter, run_in_lab, wait_for  # noqa: E402
from transports_test import RELAYS, RUNNING_S, Stage, by_tls, certified  # noqa: E402

cases = Cases()
PORT = ("10.10.10.1", 9097)
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
BUILT_IN = "snowflake 192.0.2.3:80"
# One connection and what it says; prints what is answered, or the error.
SAY = """
import socket, sys
try:
    s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
    s.settimeout(20)
    s.sendall(bytes.fromhex(sys.argv[3]))
    print(s.recv(4096))
except OSError as e:
    print(type(e).__name__)
"""


class Asking(Stage):
    """TorVM whose Tor is kept from connecting, and the bridge service."""

    front = None

    def block(self, proxy_peer=None, sections=None, **bridge):
        self.lab.peers_up("obfs4", "moat")
        self.front = self.lab.peer("moat")
        bridge = certified(self, moat=self.front["arguments"], **bridge)
        self.use(proxy_peer=proxy_peer, **bridge, **(sections or {}))
        self.lab.censor("reset-tor")
        if not proxy_peer:
            self.address, self.port = self.front["address"].split(":")

    def trust(self):
        """The host's own authorities are the lab's, until it is down."""
        ca = os.path.join(self.directory, "bundle.pem")
        shutil.copyfile(self.lab.ca_path(), ca)
        os.chmod(ca, 0o644)
        done = self.run("mount", "-n", "--bind", ca, BUNDLE)
        expect(done.code == 0, str(done))

    def distrust(self):
        self.run("umount", "-n", BUNDLE)

    def request(self, *args):
        return self.torvm(
            *("bridges", "request", "--config", self.config_path),
            *("--url", self.front["url"], *args),
            timeout=400,
        )

    def stuck(self):
        """Up, and Tor has met the censor."""
        self.up_until_blocked()
        wait_for("an obstacle", lambda: self.status()["obstacle"], RUNNING_S, 0.5)

    def say(self, data, port=PORT):
        """What a user's program gets that says this to a port."""
        done = self.run(
            *("setpriv", "--reuid", "1000", "--clear-groups"),
            *("/usr/bin/python3", "-c", SAY, port[0], str(port[1]), data.hex()),
        )
        return done.out.strip()

    def names_asked(self, since):
        lines = self.lab.dns_queries()[since:]
        return {line.split(" query[")[1].split()[1] for line in lines}

    @contextlib.contextmanager
    def channel(self):
        """OpenMoat, as torvm calls it; held until the end of the block."""
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(os.path.join(self.runtime, "control.sock"))
            s.settimeout(RUNNING_S)
            call = {"method": "org.torvm.Controller.OpenMoat", "more": True}
            s.sendall(json.dumps(call).encode() + b"\0")
            data = b""
            while b"address" not in data:
                data += s.recv(4096)
                expect(b"error" not in data, "OpenMoat: %s" % data)
            expect("%s:%d" % PORT in data.decode(), str(data))
            yield s


@cases.case
def bridges_come_through_the_front(t):
    t.block()
    resolver = "port 53 and dst host " + t.lab.addresses["router"]["ipv4"]
    before = len(t.lab.dns_queries())
    with t.lab.capture("moat") as capture:
        t.stuck()
        t.distrust()
        done = t.request("--country", "xx")
        # Whose certificate it is, is looked at here, not at the front.
        expect("certificate" in done.err and done.code == 0, str(done))
        expect(BUILT_IN in done.out, str(done))
        t.trust()
        try:
            done = t.request("--country", "xx", "--add")
        finally:
            t.distrust()
        expect(done.code == 0 and "through meek" in done.err, str(done))
        capture.sync()
        expect(capture.show(t.contact()), "the front was never contacted")
        expect(capture.show(RELAYS), "Tor never tried: no censor was met")
        allowed = [t.contact(), resolver, RELAYS]
        leaked = capture.show(leak_filter(t.lab, uplink=allowed))
        expect(not leaked, "beside the front:\n%s" % "\n".join(leaked[:20]))
    expect(t.names_asked(before) == {"moat-front.lab.test"}, "other names")
    expect(t.say(b"x").startswith("Connection"), "the port is still there")
    with open(t.config_path, encoding="utf-8") as f:
        lines = json.load(f)["bridge"]["bridges"]
    expect(lines == [t.lab.peer("obfs4")["line"]], str(lines))


@cases.case
def tor_is_entered_by_what_came(t):
    """Goes on with the case before."""
    done = t.run(t.program, "bridges", "use", "obfs4", "--config", t.config_path)
    expect(done.code == 0, str(done))
    t.down()
    t.address, t.port = t.lab.peer("obfs4")["address"].split(":")
    with t.judged():
        t.works()
        # And the next question goes through Tor.
        done = t.request("--country", "xx")
        expect("through Tor" in done.err, str(done))
    t.down()


@cases.case
def the_way_leads_to_the_service_alone(t):
    t.block(addresses=["moat-front.lab.test=203.0.113.46"])
    t.stuck()
    before = len(t.lab.dns_queries())
    web = len(t.lab.requests())
    target = t.lab.addresses["servers"]["www.lab.test"]["ipv4"]
    with t.channel(), t.lab.capture("moat") as capture:
        status = t.status()
        expect(status["entry"] == "moat" and status["blocked"], str(status))
        # A proxy would take these; a TLS server says what it thinks of them.
        ip = socket.inet_aton(target)
        for words in (
            b"GET http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n" % target.encode(),
            b"CONNECT %s:80 HTTP/1.1\r\n\r\n" % target.encode(),
            b"\5\1\0" + b"\5\1\0\1" + ip + b"\0\x50",
            b"\4\1\0\x50" + ip + b"\0",
        ):
            answer = t.say(words)
            expect("plain HTTP" in answer or "400 Bad" in answer, answer)
        # The rest of the machine is as blocked as before.
        expect(t.say(b"x", (target, 80)) == "ConnectionRefusedError", "TCP")
        expect(t.fetch("http://www.lab.test/", timeout_s=5).code != 0, "a page")
        done = t.request("--country", "xx")
        expect("another" in done.err and BUILT_IN in done.out, str(done))
        capture.sync()
        expect(capture.show(t.contact()), "the front was never contacted")
        leaked = capture.show(leak_filter(t.lab, uplink=[t.contact()]))
        expect(not leaked, "beside the front:\n%s" % "\n".join(leaked[:20]))
    expect(len(t.lab.requests()) == web, "somebody got to the web server")
    expect(len(t.lab.dns_queries()) == before, "a name was asked for")
    # The client has hung up: Tor is back, and the way is closed.
    wait_for("Tor", lambda: t.status()["tor"].get("version"), RUNNING_S, 0.5)
    expect(t.status()["entry"] == "direct", str(t.status()))
    expect(t.say(b"x").startswith("Connection"), "the port is still there")


@cases.case
def another_engine_starts_tor_again(t):
    """Goes on with the case before."""
    with t.channel():
        old = t.pid("torvmd")
        vm = t.qemu_pids()
        t.kill(old, signal.SIGKILL)
        wait_for("another VM", lambda: t.qemu_pids() not in ([], vm), RUNNING_S)
        wait_for("Tor", lambda: t.status()["tor"].get("version"), RUNNING_S, 0.5)
        status = t.status()
        expect(status["entry"] == "direct" and status["blocked"], str(status))
    t.down()


@cases.case
def a_front_that_nobody_knows_is_named(t):
    t.block()
    t.configure(**certified(t, moat="url=https://moat.lab.test/ front=nobody.lab.test"))
    t.up_until_blocked()
    before = len(t.lab.dns_queries())
    done = t.request("--country", "xx")
    expect("nobody.lab.test" in done.err and BUILT_IN in done.out, str(done))
    expect(t.names_asked(before) == {"nobody.lab.test"}, "other names")
    wait_for("Tor", lambda: t.status()["tor"].get("version"), RUNNING_S, 0.5)
    t.down()


def by_a_proxy(t, peer, **sections):
    t.block(peer, sections)
    t.lab.censor("drop-all-but", "%s:%s" % (t.address, t.port))
    before = len(t.lab.dns_queries())
    t.up_until_blocked()
    t.trust()
    try:
        with t.lab.capture("moat") as capture:
            done = t.request("--country", "xx")
            expect(t.lab.peer("obfs4")["line"] in done.out, str(done))
            capture.sync()
            expect(capture.show(t.contact()), "the proxy was never contacted")
            leaked = capture.show(leak_filter(t.lab, uplink=[t.contact()]))
            expect(not leaked, "beside the proxy:\n%s" % "\n".join(leaked[:20]))
    finally:
        t.distrust()
    expect(not t.names_asked(before), "a name was asked for")
    t.down()


@cases.case
def by_a_proxy_only_the_proxy_is_contacted(t):
    by_a_proxy(t, "tinyproxy")


@cases.case
def by_a_proxy_in_tls_as_well(t):
    by_a_proxy(t, "squid-tls", **by_tls(t))


def main():
    return run_in_lab(cases, Asking, "moat", __doc__)


if __name__ == "__main__":
    sys.exit(main())
