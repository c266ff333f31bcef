#!/usr/bin/python3
"""Bridges and upstream proxies, against real peers and a censor in the lab.

    transports_test.py [--list] [--keep] [WORD...]     cases whose name has a WORD

Every case holds the capture on the router's side of the host's uplink to the bridge
or proxy of its configuration: who else is contacted is a leak.
"""

import base64
import contextlib
import json
import os
import shutil
import stat
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(TOP, "guest", "image"))

import cpio  # noqa: E402
import manifest  # noqa: E402
from cases import Cases  # noqa: E402
from product import (  # noqa: E402
    Product,
    exits,
    expect,
    leak_filter,
    run_in_lab,
    same_network,
    wait_for,
)

cases = Cases()
# A start with a transport, on a machine that is busy with other tests.
RUNNING_S = 180
WWW4 = "203.0.113.10"
SNOWFLAKE = "2B280B23E1107BB62ABFC40DDCC8824814F80A72"
RELAYS = "tcp and dst net 198.51.100.0/24"


class Stage(Product):
    """TorVM in the lab, with one bridge and one proxy at most."""

    bridge = proxy = address = port = None

    def use(self, bridge_peer=None, proxy_peer=None, **sections):
        """Start peers and write the configuration that goes through them."""
        self.ensure_down()
        self.lab.censor("off")
        self.bridge, self.proxy = bridge_peer, proxy_peer
        self.lab.peers_up(*(name for name in (self.bridge, self.proxy) if name))
        self.configure(use_bridge=self.bridge, use_proxy=self.proxy, **sections)
        if self.proxy or self.bridge:
            facts = self.lab.peer(self.proxy or self.bridge)
            address, _, self.port = facts["address"].rpartition(":")
            self.address = address.strip("[]")

    def contact(self):
        """tcpdump expression: to the one that is to be contacted."""
        return "tcp and dst host %s and tcp dst port %s" % (self.address, self.port)

    @contextlib.contextmanager
    def judged(self, *more):
        """From the block on, the host sends to its peer alone, and it does.

        more: tcpdump expressions of what else may be sent.
        """
        self.up_until_blocked()
        with self.lab.capture("transports") as capture:
            yield capture
            self.judge(capture, *more)

    def judge(self, capture, *more):
        self.judge_contact(capture, "the peer", self.contact(), *more)

    def judge_contact(self, capture, who, contact, *more):
        """By tcpdump expressions: who has to be contacted, who else may be."""
        capture.sync()
        expect(capture.show(contact), "%s: never contacted" % who)
        leaked = capture.show(leak_filter(self.lab, uplink=[contact, *more]))
        expect(not leaked, "beside %s:\n%s" % (who, "\n".join(leaked[:20])))

    def works(self):
        self.wait_state("Running", timeout_s=RUNNING_S)
        self.page_through_tor(timeout_s=60)

    def loses_its_peer(self, capture):
        """The peer dies while Running: it is tried again, and nothing else is."""
        refusals = "tcp[tcpflags] & tcp-rst != 0 and src host " + self.address
        self.lab.peers_down(self.proxy or self.bridge)
        done = self.fetch("http://www.lab.test/address", timeout_s=20)
        expect(done.code != 0, "a page without a peer: %s" % done)
        seen = []

        def tried_again():
            capture.sync()
            # A connection that was open is reset, too; then come new ones.
            seen.append(len(capture.show(refusals)))
            return seen[-1] > seen[0] + 1

        wait_for("further attempts", tried_again, 180, 1)
        expect(self.status()["blocked"], "not blocked")
        capture.sync()
        leaked = capture.show(leak_filter(self.lab, uplink=[self.contact()]))
        expect(not leaked, "past the dead peer:\n%s" % "\n".join(leaked[:20]))

    def secrets(self):
        """Words of the configuration that nobody else may read."""
        words = []
        if self.bridge:
            line = self.lab.peer(self.bridge)["line"].split()
            words += [word for word in line if len(word) == 40]
            words += [w.split("=", 1)[1] for w in line if w.startswith(("cert=", "url="))]
        if self.proxy:
            with open(self.config_path, encoding="utf-8") as f:
                proxy = json.load(f)["proxy"]
            login = "%(username)s:%(password)s" % proxy
            words += [proxy["password"], base64.b64encode(login.encode()).decode()]
        return words

    def secrets_are_kept(self):
        words = self.secrets()
        expect(words, "nothing to look for")
        # The positive control: it can be found where it has to be.
        with open(self.config_path, encoding="utf-8") as f:
            expect(words[0] in f.read(), "%s is not in the configuration" % words[0])
        argv = self.run("sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").out
        expect("qemu-system" in argv, "no argument vectors: %s" % argv)
        shown = {
            "an argument vector": argv,
            "the log": self.torvm("log", timeout=20).out,
            "the status": self.torvm("status").out + self.torvm("status", "--json").out,
            "the circuits": self.torvm("circuits").out,
            "doctor": self.torvm("doctor").out + self.torvm("doctor", "--connection").out,
            **readable_files(self.directory),
        }
        for where, text in shown.items():
            for word in words:
                expect(word.lower() not in text.lower(), "%s in %s" % (word, where))


def readable_files(top):
    """{path: text} of the files below a folder that any user may read."""
    found = {}
    for folder, folders, files in os.walk(top):
        for name in list(folders):
            mode = os.stat(os.path.join(folder, name)).st_mode
            if not mode & stat.S_IXOTH:
                folders.remove(name)
        for name in files:
            path = os.path.join(folder, name)
            mode = os.lstat(path).st_mode
            if stat.S_ISREG(mode) and mode & stat.S_IROTH:
                with open(path, encoding="utf-8", errors="replace") as f:
                    found[path] = f.read()
    return found


# --- the positive control -------------------------------------------------------


@cases.case
def without_bridges_relays_are_contacted(t):
    t.use()
    t.up_until_blocked()
    with t.lab.capture("transports") as capture:
        t.works()
        capture.sync()
        expect(capture.show(RELAYS), "no relay was contacted")
        expect(not t.leaks(capture), "a leak without bridges")
    # The other cases' judge would not have let this pass.
    other = leak_filter(t.lab, uplink=["tcp and dst host 203.0.113.41"])
    expect(capture.show(other), "the judge sees nothing")


# --- bridges ----------------------------------------------------------------------


@cases.case
def obfs4_while_tor_is_reset(t):
    t.use("obfs4")
    t.lab.censor("reset-tor")
    with t.judged():
        t.works()
        t.secrets_are_kept()


@cases.case
def a_bridge_that_dies_is_not_replaced(t):
    """Goes on with the case before: Running, by obfs4, knowing every relay."""
    expect(t.bridge == "obfs4" and t.status()["state"] == "Running", "no obfs4")
    with t.lab.capture("transports") as capture:
        t.loses_its_peer(capture)
    t.down()


@cases.case
def obfs4_by_socks5_while_all_else_is_dropped(t):
    t.use("obfs4proxy", "dante")
    t.lab.censor("drop-all-but", "%s:%s" % (t.address, t.port))
    with t.judged():
        t.works()
        t.secrets_are_kept()


@cases.case
def bridges_test_tells_which_one_is_reached(t):
    """Of two, of which one has died."""
    t.use("obfs4")
    t.lab.peers_up("obfs4proxy")
    lines = [t.lab.peer(name)["line"] for name in ("obfs4", "obfs4proxy")]
    dead = "tcp and dst host " + t.lab.peer("obfs4proxy")["address"].split(":")[0]
    t.lab.peers_down("obfs4proxy")
    t.configure(
        bridge={"use_bridges": True, "transport": "obfs4", "bridges": lines}
    )
    test = ["bridges", "test", "--json", "--config", t.config_path]
    wanted = ["connected", "down"]
    with t.judged(dead):
        t.works()
        wait_for(
            "a verdict on either",
            lambda: [b["state"] for b in json.loads(t.torvm(*test).out)] == wanted,
            60,
            0.5,
        )
        t.secrets_are_kept()
    t.down()


@contextlib.contextmanager
def mortal_transport(t):
    """An image with transport-dies.c in it."""
    plain = t.image
    t.image = os.path.join(t.directory, "image")
    shutil.copytree(plain, t.image)
    transports = os.path.join(t.image, "transports.zst")
    archive = cpio.Archive(0)
    archive.add_file("/etc/ld.so.preload", b"/usr/lib/transport-dies.so\n")
    with open(os.path.join(TOP, "build/tests/vm/libtransport-dies.so"), "rb") as f:
        archive.add_file("/usr/lib/transport-dies.so", f.read(), 0o755)
    before = os.path.getsize(os.path.join(t.image, "initramfs.zst"))
    with open(transports, "ab") as f:
        # An archive that is not compressed begins at a multiple of 4 bytes.
        f.write(bytes(-(before + f.tell()) % 4))
        archive.write(f)
    content = manifest.load(t.image)
    content["outputs"]["transports"] = manifest.describe_output(transports)
    with open(os.path.join(t.image, manifest.NAME), "w", encoding="utf-8") as f:
        json.dump(content, f)
    try:
        yield
    finally:
        shutil.rmtree(t.image)
        t.image = plain


@cases.case
def a_transport_that_is_killed_works_again(t):
    t.use("obfs4")
    with mortal_transport(t), t.judged():
        wait_for(
            "the transport's end",
            lambda: "The transport obfs4 ended in the VM (signal 9)" in t.log(),
            60,
            0.5,
        )
        expect(t.status()["blocked"], "not blocked")
        t.works()
        t.down()


# What a bridge line's names mean, if they are not to be looked up.
TUNNEL = "tunnel.lab.test=203.0.113.43"
FRONT = "front.lab.test=203.0.113.44"
BROKER = "broker.lab.test=203.0.113.45"
STUN = "stun.lab.test=203.0.113.51"


def authorities(t):
    """File of the lab's authority."""
    ca = os.path.join(t.directory, "ca.pem")
    shutil.copyfile(t.lab.ca_path(), ca)
    os.chmod(ca, 0o644)
    return ca


def certified(t, **more):
    """Section "bridge": the lab's authority is trusted."""
    return {"bridge": {"ca_file": authorities(t), **more}}


@cases.case
def a_bad_file_of_authorities_is_named(t):
    t.use("meek", bridge={"ca_file": "/nonexistent/ca.pem", "addresses": [FRONT]})
    before = t.snapshot()
    process = t.headless()
    output, _ = process.communicate(timeout=60)
    expect(process.returncode == 5, "exit %d: %s" % (process.returncode, output))
    expect("bridge.ca_file" in output and "/nonexistent" in output, output)
    same_network(before, t.snapshot())


@cases.case
def meek_by_its_front_while_names_are_lies(t):
    t.use("meek", **certified(t, addresses=[FRONT]))
    t.lab.censor("false-dns")
    with t.judged():
        t.works()
        t.secrets_are_kept()


@cases.case
def webtunnel_looks_up_its_name_alone(t):
    t.use("webtunnel", **certified(t))
    resolver = t.lab.addresses["router"]["ipv4"]
    before = len(t.lab.dns_queries())
    with t.judged("port 53 and dst host " + resolver):
        t.works()
        t.secrets_are_kept()
    asked = asked_names(t, before)
    expect(asked == {"tunnel.lab.test"}, "asked for: %s" % asked)
    expect("tunnel.lab.test" in t.torvm("status").out, "the status hides the name")


@cases.case
def a_false_answer_is_suspected(t):
    t.use("webtunnel", failsafe={"bootstrap_stall_s": 10}, **certified(t))
    t.lab.censor("false-dns")
    resolver = "port 53 and dst host " + t.lab.addresses["router"]["ipv4"]
    t.up_until_blocked()
    with t.lab.capture("transports") as capture:
        status = stuck(t)
        expect(status["obstacle"]["kind"] == "false-names", str(status))
        expect("bridge.addresses" in status["obstacle"]["next"], str(status))
        expect("203.0.113.66" in t.torvm("status").out, "the status hides the lie")
        false = "tcp and dst host 203.0.113.66"
        t.judge_contact(capture, "the false address", false, resolver)
    t.down()


@cases.case
def webtunnel_by_a_proxy(t):
    """The proxy is told the name: nobody looks it up here."""
    t.use("webtunnel", "tinyproxy", **certified(t))
    with t.judged():
        t.works()
        t.secrets_are_kept()


@cases.case
def snowflake_goes_as_far_as_its_peer(t):
    t.use("snowflake", **certified(t, addresses=[BROKER, STUN]))
    with t.judged("udp and dst host 203.0.113.51"):
        wanted = {"stun", "offer", "proxy"}
        wait_for(
            "rendezvous and STUN",
            lambda: wanted <= {event["what"] for event in t.lab.snowflake_events()},
            RUNNING_S,
            0.5,
        )
        offer = next(e for e in t.lab.snowflake_events() if e["what"] == "offer")
        expect(offer["host"] == "broker.lab.test", "broker: %s" % offer)
        t.secrets_are_kept()
    t.down()


@cases.case
def automatic_mode_leaves_names_that_nobody_knows(t):
    nobody = "nobody.lab.test"
    bridge = {
        "automatic": True,
        "use_bridges": True,
        "transport": "snowflake",
        "bridges": [
            "snowflake 192.0.2.3:80 %s fingerprint=%s url=https://%s/ ice=stun:%s:3478"
            % (SNOWFLAKE, SNOWFLAKE, nobody, nobody)
        ],
    }
    t.use(bridge=bridge, failsafe={"boot_timeout_s": 15})
    resolver = "port 53 and dst host " + t.lab.addresses["router"]["ipv4"]
    t.up_until_blocked()
    with t.lab.capture("transports") as capture:
        status = wait_for(
            "the next way in",
            lambda: (s := t.status()) and s["entry"] == "meek" and s,
            RUNNING_S,
            0.5,
        )
        expect(status["tried"] == ["snowflake: names"], str(status))
        expect(status["blocked"], "not blocked")
        t.judge_contact(capture, "the resolver", resolver)
    t.down()


@cases.case
def automatic_mode_gets_through_by_its_second_way(t):
    """Its own bridge's line is kept for the day it is wanted, which comes."""
    t.use("obfs4")
    t.lab.censor("reset-tor")
    t.configure(
        bridge={"automatic": True, "bridges": [t.lab.peer("obfs4")["line"]]},
        failsafe={"bootstrap_stall_s": 10},
    )
    with t.judged(RELAYS):
        t.works()
        status = t.status()
        expect(status["entry"] == "obfs4", str(status))
        expect([x.split(":")[0] for x in status["tried"]] == ["direct"], str(status))
        expect("torvm bridges use obfs4" in t.log(), "the log hides the way")
    t.down()


# --- by IPv6 ----------------------------------------------------------------------

RELAYS6 = "tcp and dst net 2001:db8:100::/64 and tcp dst port 9001"


@contextlib.contextmanager
def no_ipv4(t):
    """A network with IPv6 only: the host has no IPv4 address and no route."""
    old = t.lab.addresses["host"]["ipv4"]
    t.lab.output("host", ["ip", "-4", "addr", "flush", "dev", "eth0"])
    expect(not t.lab.output("host", ["ip", "-4", "route"]).strip(), "an IPv4 route")
    try:
        yield
    finally:
        t.ensure_down()
        router = t.lab.addresses["router"]["ipv4"]
        t.lab.output("host", ["ip", "addr", "add", old + "/24", "dev", "eth0"])
        t.lab.output("host", ["ip", "route", "add", "default", "via", router])


@cases.case
def obfs4_by_ipv6(t):
    t.use("obfs4v6")
    with t.judged():
        t.works()
        t.secrets_are_kept()
    expect(not t.status()["alarms"], "alarms: %s" % t.status()["alarms"])
    t.down()


@cases.case
def a_plain_bridge_by_ipv6_alone(t):
    t.use("plain6")
    with no_ipv4(t), t.judged():
        t.works()


@cases.case
def a_proxy_by_ipv6_alone(t):
    t.use(proxy_peer="tinyproxy6")
    with no_ipv4(t), t.judged():
        t.works()
        t.secrets_are_kept()


@cases.case
def a_tls_proxy_by_ipv6_alone(t):
    t.use(proxy_peer="squid-tls6", **by_tls(t))
    with no_ipv4(t), t.judged() as capture:
        t.works()
        seen = in_the_clear(t, capture)
        expect(not seen, "the wire shows: %s" % seen)


@cases.case
def relays_by_ipv6_alone(t):
    """And the auditor knows their IPv6 addresses."""
    t.use(tor={"client_use_ipv6": True, "client_use_ipv4": False})
    with no_ipv4(t):
        t.up_until_blocked()
        with t.lab.capture("transports") as capture:
            t.works()
            # Running since some time: it has looked, and found them.
            wait_for("circuits", lambda: "guard" in t.torvm("circuits").out, 30, 0.5)
            t.run("sleep", "14")
            alarms = t.status()["alarms"]
            expect(not alarms, "alarms: %s" % alarms)
            t.judge_contact(capture, "the relays", RELAYS6)


@cases.case
def relays_by_either(t):
    """With both families Tor has the choice, and nobody else is contacted."""
    t.use(tor={"client_use_ipv6": True, "options": t.lab.client_torrc()
               + ["ClientPreferIPv6ORPort 1"]})
    t.up_until_blocked()
    with t.lab.capture("transports") as capture:
        t.works()
        t.judge_contact(capture, "the relays by IPv6", RELAYS6, RELAYS)
    t.down()


@cases.case
def a_name_is_looked_up_by_ipv6_alone(t):
    """Its AAAA record, by the resolver's IPv6 address."""
    resolver = t.lab.addresses["router"]["ipv6"]
    t.use("webtunnel", **certified(t), tor={"client_use_ipv6": True})
    facts = t.lab.peer("webtunnel")
    t.configure(**certified(
        t, use_bridges=True, transport="webtunnel", bridges=[facts["line6"]]
    ), tor={"client_use_ipv6": True})
    address, _, t.port = facts["address6"].rpartition(":")
    t.address = address.strip("[]")
    with resolv_conf(t, "nameserver %s\n" % resolver), no_ipv4(t):
        with t.judged("port 53 and dst host " + resolver):
            t.wait_state("Running", timeout_s=RUNNING_S)
            done = t.fetch("http://%s/address" % WWW4, timeout_s=60)
            expect(done.out.strip() in exits(t.lab), "the server saw: %s" % done)
            status = t.torvm("status").out
            expect("tunnel6.lab.test" in status and resolver in status, status)


@contextlib.contextmanager
def resolv_conf(t, text):
    old = t.lab.output("host", ["cat", "/etc/resolv.conf"])
    write = ["sh", "-c", "cat >/etc/resolv.conf"]
    t.lab.run("host", write, input=text, universal_newlines=True, check=True)
    try:
        yield
    finally:
        t.lab.run("host", write, input=old, universal_newlines=True, check=True)


# --- proxies ----------------------------------------------------------------------


@cases.case
def tor_by_a_proxy_on_the_lan(t):
    t.use(proxy_peer="squid")
    with t.judged() as capture:
        t.works()
        # The positive control of in_the_clear().
        expect(len(in_the_clear(t, capture)) == 2, "the judge of words is blind")
        t.secrets_are_kept()
        t.loses_its_peer(capture)


def by_tls(t, **more):
    """Section "proxy": the lab's authority may vouch for it."""
    return {"proxy": {"ca_file": authorities(t), **more}}


def in_the_clear(t, capture):
    """What the wire shows of what is said to the proxy."""
    login = t.secrets()[-1]
    capture.sync()
    with open(capture.pcap, "rb") as f:
        raw = f.read()
    return [word for word in ("CONNECT ", login) if word.encode() in raw]


def asked_names(t, before):
    """What the LAN's resolver was asked since."""
    return {line.split(" query[")[1].split()[1] for line in t.lab.dns_queries()[before:]}


@cases.case
def tor_by_socks5_to_a_proxy_of_a_name(t):
    t.use(proxy_peer="dante", proxy={"address": "proxy.lab.test:1081"})
    before = len(t.lab.dns_queries())
    with t.judged("port 53 and dst host " + t.lab.addresses["router"]["ipv4"]):
        t.works()
        t.secrets_are_kept()
    asked = asked_names(t, before)
    expect(asked == {"proxy.lab.test"}, "asked for: %s" % asked)


@cases.case
def tor_by_tls_to_a_proxy_of_a_pinned_name(t):
    t.use(
        proxy_peer="squid-tls",
        bridge={"addresses": ["proxy.lab.test=203.0.113.50"]},
        **by_tls(t, address="proxy.lab.test:3129"),
    )
    t.lab.censor("false-dns")
    with t.judged() as capture:
        t.works()
        t.secrets_are_kept()
        seen = in_the_clear(t, capture)
        expect(not seen, "the wire shows: %s" % seen)
        t.loses_its_peer(capture)
    t.down()


@cases.case
def obfs4_by_tls_to_a_proxy(t):
    t.use("obfs4", "squid-tls", **by_tls(t))
    with t.judged() as capture:
        t.works()
        t.secrets_are_kept()
        seen = in_the_clear(t, capture)
        expect(not seen, "the wire shows: %s" % seen)


def stuck(t):
    """The status, once it says what Tor is stuck at."""
    return wait_for(
        "a reason",
        lambda: (s := t.status()) and s.get("obstacle") and s,
        RUNNING_S,
        0.5,
    )


def refused_proxy(t, kind, key, port=None, **sections):
    """A proxy that is not believed is told nothing, and the user is told why."""
    t.use(proxy_peer="squid-tls", **sections)
    t.port = port or t.port
    with t.judged() as capture:
        status = stuck(t)
        expect(status["obstacle"]["kind"] == kind, str(status))
        expect(key in status["obstacle"]["next"], str(status))
        expect(status["state"] == "WaitBootstrap" and status["blocked"], str(status))
        told = t.torvm("doctor", "--connection").out
        expect(status["obstacle"]["text"] in told, told)
        t.secrets_are_kept()
        seen = in_the_clear(t, capture)
        expect(not seen, "the wire shows: %s" % seen)
    t.down()


@cases.case
def a_proxy_that_nobody_vouches_for_is_refused(t):
    refused_proxy(t, "proxy-certificate", "proxy.ca_file")


EXPIRED = """
[ca]
default_ca = lab
[lab]
database = %(dir)s/index
new_certs_dir = %(dir)s
rand_serial = yes
default_md = sha256
policy = any
certificate = %(pki)s/ca.pem
private_key = %(pki)s/ca.key
default_startdate = 20250101000000Z
default_enddate = 20250201000000Z
x509_extensions = own
[any]
commonName = optional
[own]
subjectAltName = IP:203.0.113.50
"""


@contextlib.contextmanager
def expired_server(t, port):
    """By TLS, with the lab's authority's certificate of another year."""
    folder = os.path.join(t.directory, "expired")
    os.mkdir(folder, 0o700)
    conf, request, certificate = (
        os.path.join(folder, name) for name in ("conf", "request", "certificate")
    )
    pki = os.path.dirname(t.lab.ca_path())
    key = os.path.join(pki, "server.key")
    with open(conf, "w", encoding="ascii") as f:
        f.write(EXPIRED % {"dir": folder, "pki": pki})
    with open(os.path.join(folder, "index"), "w", encoding="ascii"):
        pass
    own = ["openssl", "req", "-config", os.path.join(pki, "conf"), "-new", "-key", key]
    t.lab.output("net", [*own, "-subj", "/CN=expired", "-out", request])
    t.lab.output(
        "net",
        ["openssl", "ca", "-config", conf, "-batch", "-notext", "-in", request]
        + ["-out", certificate],
        stderr=subprocess.DEVNULL,
    )
    server = t.lab.popen(
        "net",
        ["openssl", "s_server", "-quiet", "-accept", "203.0.113.50:" + port]
        + ["-cert", certificate, "-key", key],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(folder)


@cases.case
def a_proxy_that_has_expired_is_refused(t):
    port = "3130"
    with expired_server(t, port):
        refused_proxy(
            t,
            "proxy-expired",
            "timedatectl",
            port,
            **by_tls(t, address="203.0.113.50:" + port),
        )


@cases.case
def a_proxy_of_another_name_is_refused(t):
    refused_proxy(
        t,
        "proxy-name",
        "proxy.address",
        bridge={"addresses": ["other.lab.test=203.0.113.50"]},
        **by_tls(t, address="other.lab.test:3129"),
    )


def wrong_password(t, proxy, bridge=None, **more):
    t.use(
        bridge,
        proxy,
        proxy={"password": "Falsch.7", **more},
    )
    with t.judged():
        status = wait_for(
            "a reason that names the password",
            lambda: (s := t.status()) and "password" in (s["last_error"] or "") and s,
            RUNNING_S,
            0.5,
        )
        expect(status["state"] == "WaitBootstrap" and status["blocked"], str(status))
        expect("proxy.password" in status["obstacle"]["next"], str(status))
        t.secrets_are_kept()
    t.down()


@cases.case
def wrong_password_is_named_after_407(t):
    wrong_password(t, "squid")


@cases.case
def wrong_password_is_named_after_401(t):
    wrong_password(t, "tinyproxy")


@cases.case
def wrong_password_is_named_by_socks5(t):
    wrong_password(t, "microsocks", "obfs4")


@cases.case
def wrong_password_is_named_inside_tls(t):
    wrong_password(t, "squid-tls", ca_file=authorities(t))


def main():
    return run_in_lab(cases, Stage, "transports", __doc__)


if __name__ == "__main__":
    sys.exit(main())
