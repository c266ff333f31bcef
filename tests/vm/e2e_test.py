#!/usr/bin/python3
"""The whole product in the lab: real QEMU, real Tor, real nftables, real packets.

    e2e_test.py [--list] [WORD...]     cases whose name contains a WORD

The judge of leaks is a capture on the router's side of the host's uplink.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from cases import Cases  # noqa: E402
from product import (  # noqa: E402
    TORVM,
    Pester,
    Product,
    exits,
    expect,
    leak_filter,
    run_in_lab,
    same_network,
    wait_for,
)

cases = Cases()
WWW = "http://203.0.113.10"
# Probes that have to be refused at once while TorVM is up.
REFUSED = [
    *("tcp6", "udp4", "udp6", "quic4", "dns6"),
    *("tcp4-device", "tcp4-source", "udp4-device", "udp4-unicast-if"),
    *("udp4-lan-device", "udp4-source", "udp6-device", "pktinfo4"),
    *("multicast4", "broadcast4", "icmp4", "icmp6", "raw4", "sctp4"),
]
# Sent without an error, and stopped below the sockets: only the capture tells.
SILENT = ["packet", "packet-bypass"]
AT_ONCE_MS = 500


def no_leaks(t, capture):
    capture.sync()
    leaked = t.leaks(capture)
    expect(not leaked, "%d packets leaked:\n%s" % (len(leaked), "\n".join(leaked[:20])))


def tries_all_ways_out(t):
    """All of them over and over, until the end of a with."""
    names = ["tcp4-device", "udp4-device", "udp4", "icmp4", "tcp6", "packet"]
    # The VM needs the processor, too.
    return Pester(lambda: t.probe(*names), pause_s=0.2)


# --- without TorVM: the positive controls -------------------------------------


@cases.case
def every_probe_is_seen_without_torvm(t):
    with t.lab.capture("control") as capture:
        for name in REFUSED + SILENT:
            capture.sync()
            before = len(capture.show("ether src %s" % mac(t)))
            t.probe(name)
            capture.sync()
            after = len(capture.show("ether src %s" % mac(t)))
            expect(after > before, "probe %s sends nothing by itself" % name)
        expect(t.leaks(capture), "the leak filter sees nothing")
    done = t.fetch(WWW + "/address")
    expect(done.out.strip() not in exits(t.lab), "direct: %s" % done)


def mac(t):
    from product import host_mac

    return host_mac(t.lab)


# --- clear errors, nothing changed ----------------------------------------------


def refused_start(t, code, words, *more, options=None, env=None):
    """A start that must fail with this code and these words and change nothing."""
    before = t.snapshot()
    process = t.headless(*more, options=options, env=env)
    try:
        output, _ = process.communicate(timeout=60)
    except Exception:
        process.terminate()
        raise
    expect(process.returncode == code, "exit %d: %s" % (process.returncode, output))
    for word in words:
        expect(re.search(word, output), "no %r in: %s" % (word, output))
    same_network(before, t.snapshot())
    return output


def changed_options(t, **changes):
    options = t.options()
    for name, value in changes.items():
        options[options.index("--" + name.replace("_", "-")) + 1] = value
    return options


@cases.case
def missing_image_is_named(t):
    empty = os.path.join(t.directory, "empty")
    os.makedirs(empty, exist_ok=True)
    refused_start(
        t, 5, ["make vm", "empty"], options=changed_options(t, image_dir=empty)
    )


@cases.case
def changed_image_is_refused(t):
    bad = os.path.join(t.directory, "bad-image")
    shutil.copytree(t.image, bad)
    with open(os.path.join(bad, "vmlinuz"), "r+b") as f:
        f.seek(4096)
        f.write(b"tampered")
    try:
        refused_start(
            t, 5, ["vmlinuz", "SHA-256"], options=changed_options(t, image_dir=bad)
        )
    finally:
        shutil.rmtree(bad)


@cases.case
def bad_configuration_is_refused(t):
    try:
        t.configure(network={"tap_nam": "x"})
        refused_start(t, 4, ["torvm.json", "tap_nam", "tap_name"])
        t.configure(vm={"memory_mb": 7})
        refused_start(t, 4, ["torvm.json", "vm.memory_mb", "allowed"])
        t.configure()
        os.chmod(t.config_path, 0o666)
        refused_start(t, 4, ["torvm.json", "write"])
    finally:
        t.configure()


@cases.case
def missing_qemu_is_named(t):
    try:
        t.configure(vm={"qemu_path": "/usr/bin/qemu-system-nowhere"})
        refused_start(t, 4, ["vm.qemu_path", "qemu-system-nowhere"])
    finally:
        t.configure()


@cases.case
def busy_tap_name_is_refused(t):
    t.run("ip", "link", "add", "torvm0", "type", "bridge")
    try:
        refused_start(t, 5, ["torvm0"])
    finally:
        t.run("ip", "link", "del", "torvm0")


@cases.case
def taken_address_is_refused(t):
    t.run("ip", "addr", "add", "10.10.10.2/24", "dev", "eth0")
    try:
        refused_start(t, 5, ["eth0", "network.host_ip"])
    finally:
        t.run("ip", "addr", "del", "10.10.10.2/24", "dev", "eth0")


@cases.case
def unwritable_state_directory_is_refused(t):
    path = os.path.join(t.directory, "a-file")
    with open(path, "w", encoding="ascii") as f:
        f.write("not a directory")
    refused_start(t, 5, ["a-file"], options=changed_options(t, state_dir=path))


@cases.case
def ordinary_users_are_told(t):
    done = t.run("setpriv", "--reuid", "61234", "--clear-groups", TORVM, "--headless")
    expect(done.code == 6 and "root" in done.err, str(done))


@cases.case
def ssh_needs_a_yes(t):
    ssh = {"SSH_CONNECTION": "192.0.2.1 5000 192.0.2.2 22"}
    refused_start(t, 2, ["--yes", "--confirm"], env=ssh)


@cases.case
def a_dead_bridge_never_goes_direct(t):
    """Tor knows relays that it could reach; only the bridge is tried."""
    bridge = "203.0.113.10"  # refuses connections to this port
    t.configure(
        bridge={
            "use_bridges": True,
            "transport": "none",
            "bridges": ["%s:9001 %s" % (bridge, "A" * 40)],
        }
    )

    def tried():
        capture.sync()
        return capture.show("tcp and dst host %s and dst port 9001" % bridge)

    try:
        with t.lab.capture("dead-bridge") as capture:
            t.up_until_blocked()
            wait_for("Tor's attempt to reach its bridge", tried, 120, 0.5)
            expect(t.status()["state"] != "Running", "Running without a bridge")
            t.down()
            capture.sync()
            leaked = capture.show(leak_filter(t.lab, bridge))
            expect(not leaked, "beside the bridge:\n%s" % "\n".join(leaked[:20]))
    finally:
        t.ensure_down()
        t.configure()


# --- the main path ----------------------------------------------------------------


@cases.case
def first_up_reaches_running(t):
    t.ensure_down()
    shutil.rmtree(t.state, ignore_errors=True)
    t.up_until_blocked()
    with t.lab.capture("start") as capture:
        with tries_all_ways_out(t):
            status = t.wait_state("Running")
            t.page_through_tor()
        no_leaks(t, capture)
        expect(
            capture.show("tcp and dst net 198.51.100.0/24"), "Tor was never contacted"
        )
    expect(status["blocked"] is True, "blocked")
    expect(status["bootstrap"]["percent"] == 100, "bootstrap: %s" % status)
    expect(status["bootstrap"]["tag"] == "done", "tag: %s" % status)
    expect(status["accel"] == "tcg", "accel: %s" % status)
    expect(status["vm"]["pid"] > 0 and status["vm"]["uptime"] >= 0, "vm: %s" % status)
    expect(status["tor"]["circuit_established"] is True, "circuit: %s" % status)
    expect(re.match(r"0\.\d+\.\d+", status["tor"]["version"]), "version: %s" % status)
    expect(status["last_error"] is None, "last_error: %s" % status)
    expect(os.path.getsize(os.path.join(t.state, "state.img")) == 64 << 20, "state disk")


@cases.case
def pages_and_names_go_through_tor(t):
    t.ensure_running()
    with t.lab.capture("main") as capture:
        queries = len(t.lab.dns_queries())
        t.page_through_tor()
        # A server that nobody runs: Tor in the guest answers for it.
        for probe in ("dns4", "dns4-gateway"):
            answer = t.probe(probe)[probe]
            expect(answer["error"] == "", "%s: %s" % (probe, answer))
        expect(len(t.lab.dns_queries()) == queries, "the LAN's resolver was asked")
        expect(not capture.show("port 53"), "DNS on the wire")
        no_leaks(t, capture)


DOCKER_LIKE = """
table ip docker_like {
	chain nat {
		type nat hook postrouting priority srcnat
		ip saddr 172.17.0.0/16 oifname != "docker0" masquerade
	}
}
"""


@contextlib.contextmanager
def container(t):
    """A network namespace on a bridge, as Docker makes it; yields its exec words."""
    commands = """
        ip netns add box
        ip link add docker0 type bridge forward_delay 0
        ip addr add 172.17.0.1/16 dev docker0
        ip link set docker0 up
        ip link add p-box type veth peer name c0 netns box
        ip link set p-box master docker0 up
        ip -n box link set lo up
        ip -n box addr add 172.17.0.2/16 dev c0
        ip -n box link set c0 up
        ip -n box route add default via 172.17.0.1
        sysctl -qw net.ipv4.ip_forward=1
    """
    try:
        for line in commands.strip().splitlines():
            done = t.run(*line.split())
            expect(done.code == 0, "%s: %s" % (line, done))
        t.lab.machine("host").check("nft", "-f", "-", text=DOCKER_LIKE)
        yield ("ip", "netns", "exec", "box")
    finally:
        t.run("sysctl", "-qw", "net.ipv4.ip_forward=0")
        t.run("nft", "delete", "table", "ip", "docker_like")
        t.run("ip", "link", "del", "docker0")
        t.run("ip", "netns", "del", "box")


@cases.case
def a_container_gets_its_pages_through_tor(t):
    t.ensure_running()
    with t.lab.capture("container") as capture, container(t) as box:
        url = "http://www.lab.test/address"
        fetch = (*box, "curl", "-4", "-sS", "--max-time", "20", url)

        def page():
            done = t.run(*fetch, timeout=40)
            return done.code == 0 and done.out.strip() in exits(t.lab)

        # The bridge is known once the broker has seen it.
        wait_for("a page in the container", page, 60, 0.5)
        no_leaks(t, capture)


# A connection that is idle until a line comes; then says what became of it.
IDLE = """
import socket, sys
s = socket.create_connection(("%s", 7), 60)
s.sendall(b"hello")
assert s.recv(5) == b"hello"
print("idle", flush=True)
sys.stdin.readline()
s.settimeout(3)
try:
    s.sendall(b"late")
    print("answer", s.recv(4))
except OSError as e:
    print("error", e.errno)
"""


@cases.case
def a_stop_ends_the_connections_of_containers(t):
    server = t.lab.addresses["servers"]["www4.lab.test"]["ipv4"]
    to_server = "tcp and dst host %s and dst port 7" % server
    t.ensure_down()
    t.configure(failsafe={"heartbeat_timeout_s": 600, "shutdown_timeout_s": 3})

    def hangs():
        t.kill(t.status()["vm"]["pid"], signal.SIGSTOP)
        t.down()

    def is_killed():
        t.kill_everything()
        done = t.torvm("recover")
        expect(done.code == 0, "recover: %s" % done)

    def idle():
        argv = ["/usr/bin/python3", "-c", IDLE % server]
        process = t.lab.popen("host", [*box, *argv], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, universal_newlines=True)
        expect(process.stdout.readline() == "idle\n", "no connection from the container")
        return process

    try:
        with container(t) as box:
            for stop in (t.down, hangs, is_killed):
                t.up()
                with t.lab.capture("container-" + stop.__name__) as capture:
                    process = idle()
                    stop()
                    said, _ = process.communicate("\n", timeout=30)
                    capture.sync()
                    sent = capture.show(to_server)
                    expect(not sent, "%s: past Tor: %s" % (stop.__name__, sent))
                    expect("late" not in said, "%s: %s" % (stop.__name__, said))
                    # As it is seen if it goes directly.
                    idle().communicate("\n", timeout=30)
                    capture.sync()
                    expect(capture.show(to_server), "a direct connection was not seen")
    finally:
        t.configure()
        t.ensure_down()


@cases.case
def everything_else_is_refused_at_once(t):
    t.ensure_running()
    with t.lab.capture("refused") as capture:
        for name, result in t.probe(*REFUSED, "dns4-tcp").items():
            expect(result["error"], "%s was not refused" % name)
            expect(result["ms"] < AT_ONCE_MS, "%s: %s" % (name, result))
        t.probe(*SILENT)
        for name, result in t.probe("tcp6", "udp4", "udp4-device", user=61234).items():
            expect(result["error"], "%s as a user was not refused" % name)
            expect(result["ms"] < AT_ONCE_MS, "%s: %s" % (name, result))
        no_leaks(t, capture)


@cases.case
def the_guest_protects_itself_and_the_host(t):
    t.ensure_running()
    for port in (9051, 9095, 9093, 22):
        done = t.fetch("http://10.10.10.1:%d/" % port, timeout_s=20)
        expect(done.code != 0, "port %d of the guest answers: %s" % (port, done))
    done = t.fetch(
        "http://www.lab.test/address", "--socks5-hostname", "10.10.10.1:9050"
    )
    expect(done.out.strip() in exits(t.lab), "SocksPort: %s" % done)


HOLD = (
    "import socket, sys\n"
    "s = socket.create_connection(('203.0.113.10', 80), 60)\n"
    "print('connected', flush=True)\n"
    "sys.stdin.read()\n"
)


class Held:
    """A connection through Tor that stays until the end of a with."""

    def __init__(self, t):
        self.process = t.lab.popen(
            "host",
            [sys.executable, "-c", HOLD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            universal_newlines=True,
        )

    def __enter__(self):
        expect(self.process.stdout.readline(), "no connection through Tor")
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(timeout=30)
        self.process.stdout.close()


def circuits(t):
    done = t.torvm("circuits", "--json")
    expect(done.code == 0, "circuits: %s" % done)
    return json.loads(done.out)


def held_circuits(t, count):
    """The circuits of the held connections, in the order in which they began."""

    def carried():
        streams = [
            s
            for s in circuits(t)["streams"]
            if s["target"] == "203.0.113.10:80" and s["status"] == "SUCCEEDED"
        ]
        streams.sort(key=lambda s: int(s["id"]))
        return [s["circuit"] for s in streams] if len(streams) == count else None

    return wait_for("%d held streams" % count, carried, 30, 0.2)


@cases.case
def circuits_bandwidth_and_newnym(t):
    t.ensure_running()
    with Held(t):
        before = t.status()["traffic"]["read"]
        t.page_through_tor()
        wait_for(
            "bandwidth", lambda: t.status()["traffic"]["read"] > before + 500, 30, 0.2
        )
        (first,) = held_circuits(t, 1)
        circuit = [c for c in circuits(t)["circuits"] if c["id"] == first]
        expect(circuit and circuit[0]["status"] == "BUILT", "circuit: %s" % circuit)
        relays = circuit[0]["relays"]
        expect(len(relays) == 3, "hops: %s" % relays)
        expect(all(len(r["fingerprint"]) == 40 for r in relays), "hops: %s" % relays)
        done = t.torvm("circuits")
        expect("203.0.113.10:80" in done.out, "circuits: %s" % done)
        start = time.monotonic()
        for _ in range(2):
            done = t.torvm("newnym")
            expect(done.code == 0, "newnym: %s" % done)
        if time.monotonic() - start < 8:
            told = re.match(r"In (\d|10) s: ", done.out)
            expect(told, "the second newnym: %s" % done)
        with Held(t):
            before, after = held_circuits(t, 2)
            expect(before == first != after, "the old circuit is used: %s" % after)


@cases.case
def bridges_of_the_configuration_are_edited(t):
    def bridges(*args, **kwargs):
        done = t.run(TORVM, "bridges", *args, "--config", t.config_path, **kwargs)
        expect(done.code == 0, "bridges %s: %s" % (args, done))
        return done.out

    t.configure()
    try:
        with open(t.config_path, encoding="utf-8") as f:
            before = json.load(f)
        with tempfile.TemporaryFile("w+") as pasted:
            pasted.write("# two\nBridge 192.0.2.1:443 %s\n192.0.2.2:9\n" % ("A" * 40))
            pasted.seek(0)
            bridges("add", stdin=pasted)
        expect("192.0.2.1:443" in bridges("list"), "not in the list")
        bridges("use", "plain")
        done = t.run(TORVM, "config", "check", t.config_path)
        expect(done.code == 0, "config check: %s" % done)
        bridges("use", "none")
        bridges("remove", "2")
        bridges("remove", "1")
        with open(t.config_path, encoding="utf-8") as f:
            after = json.load(f)
        bridge = after.pop("bridge")
        expect(not bridge["use_bridges"] and not bridge["bridges"], "%s" % bridge)
        before.pop("bridge", None)
        expect(after == before, "something else changed")
    finally:
        t.configure()


@cases.case
def processes_have_no_more_rights_than_needed(t):
    t.ensure_running()
    status = t.status()

    def rights(pid):
        text = t.run("cat", "/proc/%d/status" % pid).out
        return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)

    for name, pid, uid in (
        ("engine", t.pid("torvmd"), "61100"),
        ("qemu", status["vm"]["pid"], "61101"),
    ):
        have = rights(pid)
        expect(int(have["CapEff"], 16) == 0, "%s has capabilities: %s" % (name, have))
        expect(int(have["CapBnd"], 16) == 0, "%s's bounding set: %s" % (name, have))
        expect(have["NoNewPrivs"] == "1", "%s may gain privileges" % name)
        uids = have["Uid"].split()
        if t.run("getent", "passwd", "torvm").code != 0:
            expect(set(uids) == {uid}, "%s runs as %s" % (name, uids))
        expect("0" not in uids, "%s runs as root" % name)
    expect(rights(status["vm"]["pid"])["Seccomp"] == "2", "QEMU without seccomp")
    expect(rights(t.pid("torvmd"))["Seccomp"] == "2", "the engine without seccomp")
    for name, seccomp, capabilities in (
        ("torvm-broker", "2", 1 << 12 | 1 << 5),  # NET_ADMIN, KILL
        ("torvm-spawner", "0", 1 << 7 | 1 << 6 | 1 << 5),  # SETUID, SETGID, KILL
    ):
        have = rights(t.pid(name))
        expect(have["Seccomp"] == seccomp, "%s's filter: %s" % (name, have))
        expect(int(have["CapPrm"], 16) == capabilities, "%s may: %s" % (name, have))
        expect(int(have["CapBnd"], 16) == 0, "%s's bounding set: %s" % (name, have))
    others = t.run("sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").out
    expect("DirAuthority" not in others, "configuration in an argument vector")


def guest_memory(t, pid):
    """(size, resident) in MiB of the guest's RAM, QEMU's largest mapping."""
    largest, size = (0, 0), 0
    for line in t.run("cat", "/proc/%d/smaps" % pid).out.splitlines():
        field, _, value = line.partition(":")
        if field == "Size":
            size = int(value.split()[0])
        elif field == "Rss":
            largest = max(largest, (size, int(value.split()[0])))
    return largest[0] // 1024, largest[1] // 1024


@cases.case
def free_memory_goes_back_to_the_host(t):
    t.ensure_running()
    pid = t.status()["vm"]["pid"]
    size, _ = guest_memory(t, pid)
    expect(size >= 160, "the guest has 160 MiB, the largest mapping %d" % size)
    # Booting touches 130 and more of them.
    wait_for(
        "a quarter of the guest's RAM to be given back",
        lambda: guest_memory(t, pid)[1] < size * 3 // 4,
        60,
    )


@cases.case
def only_what_is_documented_is_exposed(t):
    """docs/ATTACK-SURFACE.md: listeners, files, QEMU's descriptors."""
    t.ensure_running()
    qemu = t.status()["vm"]["pid"]
    ours = t.pids("torvm-broker") + t.pids("torvm-spawner") + t.pids("torvmd") + [qemu]
    sockets = {}
    for pid in ours:
        links = t.run("sh", "-c", "ls -l /proc/%d/fd" % pid).out
        sockets[pid] = set(re.findall(r"socket:\[(\d+)\]", links))
        if pid == qemu:
            opened = set(re.findall(r" -> (/\S+)", links))
    for kind in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6", "packet"):
        table = t.run("cat", "/proc/net/" + kind).out.splitlines()[1:]
        for line in table:
            fields = line.split()
            if kind.startswith("tcp") and fields[3] != "0A":
                continue  # not listening
            inode = fields[8] if kind == "packet" else fields[9]
            for pid in ours:
                if pid == qemu and kind.startswith("udp"):
                    continue  # a transport's; the block judges it
                expect(inode not in sockets[pid], "%s %s: %s" % (pid, kind, line))
    allowed = ("/dev/null", "/dev/net/tun", "/dev/kvm", "/memfd:")
    files = (os.path.realpath(t.image), os.path.realpath(t.state))
    strange = [p for p in opened if not p.startswith(allowed + files)]
    expect(not strange, "QEMU has open: %s" % strange)
    for path, mode in (
        (t.runtime, 0o755),
        (os.path.join(t.runtime, "vm"), 0o770),
        (t.state, 0o700),
    ):
        have = os.stat(path).st_mode & 0o7777
        expect(have == mode, "%s: mode %o" % (path, have))
    control = os.stat(os.path.join(t.runtime, "control.sock"))
    expect(control.st_uid == 0 and not control.st_mode & 0o7, "control.sock: %s" % (control,))


@cases.case
def refused_packets_are_shown_by_user(t):
    t.ensure_running()

    def of(uid):
        return {r["uid"]: r["packets"] for r in t.status()["refused_by"]}.get(uid, 0)

    before = of(0)
    expect(t.probe("udp4")["udp4"]["error"], "a probe was not refused")
    wait_for("the count of root's packets", lambda: of(0) > before, 20)
    shown = re.search(r"^Refused +\d+ packets: (.*)$", t.torvm("status").out, re.M)
    expect(shown and "root" in shown.group(1), t.torvm("status").out)


@cases.case
def another_instance_is_refused(t):
    t.ensure_running()
    other = changed_options(
        t,
        runtime_dir=os.path.join(t.directory, "run2"),
        state_dir=os.path.join(t.directory, "state2"),
    )
    process = t.headless(options=other)
    output, _ = process.communicate(timeout=60)
    expect(process.returncode == 7, "exit %d: %s" % (process.returncode, output))
    expect(t.status()["state"] == "Running", "the first one suffered")


@cases.case
def a_foreign_varlink_client_is_served(t):
    t.ensure_running()
    path = os.path.join(t.runtime, "control.sock")

    def call(method, **parameters):
        # The socket is a file: reachable from outside the namespace, with root's
        # credentials as everywhere.
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(10)
            s.connect(path)
            text = json.dumps({"method": method, "parameters": parameters})
            s.sendall(text.encode() + b"\0")
            answer = b""
            while not answer.endswith(b"\0"):
                part = s.recv(65536)
                expect(part, "closed: %r" % answer)
                answer += part
        return json.loads(answer[:-1])

    info = call("org.varlink.service.GetInfo")
    expect("org.torvm.Controller" in info["parameters"]["interfaces"], str(info))
    text = call(
        "org.varlink.service.GetInterfaceDescription", interface="org.torvm.Controller"
    )["parameters"]["description"]
    expect("method GetStatus()" in text, text)
    status = call("org.torvm.Controller.GetStatus")["parameters"]["status"]
    expect(status["state"] == "Running", str(status))
    wrong = call("org.torvm.Controller.Nothing")
    expect(wrong["error"] == "org.varlink.service.MethodNotFound", str(wrong))


# --- faults ------------------------------------------------------------------------


@cases.case
def killed_qemu_comes_back_and_nothing_leaks(t):
    t.ensure_running()
    old = t.status()["vm"]["pid"]
    with t.lab.capture("kill-qemu") as capture:
        with tries_all_ways_out(t):
            t.kill(old)
            wait_for(
                "another VM",
                lambda: t.status()["vm"]["pid"] not in (None, old),
                60,
            )
            status = t.wait_state("Running")
            expect(status["vm"]["pid"] != old, "the killed VM is still named")
        no_leaks(t, capture)
    t.page_through_tor()


@cases.case
def stopped_qemu_is_noticed(t):
    t.ensure_down()
    t.configure(failsafe={"heartbeat_timeout_s": 9})
    try:
        t.up()
        old = t.status()["vm"]["pid"]
        with t.lab.capture("stop-qemu") as capture:
            with tries_all_ways_out(t):
                t.kill(old, signal.SIGSTOP)
                wait_for(
                    "another VM",
                    lambda: t.status()["vm"]["pid"] not in (None, old),
                    60,
                )
                t.wait_state("Running")
            no_leaks(t, capture)
        t.down()
    finally:
        t.configure()


@cases.case
def connection_past_tor_raises_an_alarm(t):
    t.ensure_running()
    t.page_through_tor()
    # Two rounds of the auditor, with Tor's own connections alone.
    time.sleep(15)
    expect(t.status()["alarms"] == [], "a false alarm: %s" % t.status())
    # As the VM's user, to a public address that is no relay: the block lets it.
    process = t.lab.popen(
        "host",
        ["setpriv", "--reuid", "61101", "--clear-groups", "/usr/bin/python3", "-c",
         "import socket, sys; s = socket.create_connection(('203.0.113.10', 80), 5); "
         "sys.stdin.read()"],
        stdin=subprocess.PIPE,
    )
    try:
        alarms = wait_for("an alarm", lambda: t.status()["alarms"], 20)
        expect(len(alarms) == 1 and "203.0.113.10:80" in alarms[0], str(alarms))
        expect("ALARM" in t.status()["last_error"], str(t.status()))
        expect("203.0.113.10:80" in t.torvm("status").out, "not shown")
    finally:
        process.communicate(timeout=20)
    t.page_through_tor()
    t.down()


@cases.case
def killed_engine_adopts_the_vm(t):
    t.ensure_running()
    old, engine = t.status()["vm"]["pid"], t.pid("torvmd")
    with t.lab.capture("kill-engine") as capture:
        with tries_all_ways_out(t):
            t.kill(engine)
            wait_for("another engine", lambda: t.pids("torvmd") not in ([], [engine]), 30)
            status = t.wait_state("Running")
        no_leaks(t, capture)
    expect(status["vm"]["pid"] == old, "the VM was not adopted: %s" % status)
    t.page_through_tor()


@cases.case
def killed_broker_leaves_the_block(t):
    t.ensure_down()
    before = t.snapshot()
    t.up()
    broker = min(t.pids("torvm-broker"))
    with t.lab.capture("kill-broker") as capture:
        with tries_all_ways_out(t):
            t.kill(broker)
            wait_for("the end of the engine", lambda: not t.pids("torvmd"), 20)
            wait_for("the end of the broker", lambda: not t.pids("torvm-broker"), 20)
        for name, result in t.probe("tcp4", *REFUSED).items():
            expect(result["error"], "%s is not blocked" % name)
        no_leaks(t, capture)
    status = t.status()
    expect(status["blocked"] is True, "status says open: %s" % status)
    expect("recover" in (status["last_error"] or ""), "no way out named: %s" % status)
    done = t.torvm("recover")
    expect(done.code == 0, "recover: %s" % done)
    same_network(before, t.snapshot())
    expect(t.fetch(WWW + "/address").code == 0, "no network after recover")


@cases.case
def killed_controller_is_recovered(t):
    t.ensure_down()
    before = t.snapshot()
    t.up()
    with t.lab.capture("kill-all") as capture:
        with tries_all_ways_out(t):
            t.kill_everything()
        no_leaks(t, capture)
    done = t.torvm("recover")
    expect(done.code == 0, "recover: %s" % done)
    same_network(before, t.snapshot())


@cases.case
def killed_controller_is_replaced_by_the_next_start(t):
    t.ensure_down()
    before = t.snapshot()
    t.up()
    t.kill_everything()
    # The dead controller's block holds until the next one's replaces it.
    with t.lab.capture("next-start") as capture:
        with tries_all_ways_out(t):
            t.up()
            t.page_through_tor()
        no_leaks(t, capture)
    t.down()
    same_network(before, t.snapshot())


@cases.case
def deleted_tap_comes_back(t):
    t.ensure_running()
    with t.lab.capture("tap") as capture:
        with tries_all_ways_out(t):
            t.run("ip", "link", "del", "torvm0")
            wait_for(
                "a new TAP", lambda: t.run("ip", "link", "show", "torvm0").code == 0, 60
            )
            t.wait_state("Running")
        no_leaks(t, capture)
    t.page_through_tor()


@cases.case
def flushed_firewall_and_rules_come_back(t):
    t.ensure_running()
    with t.lab.capture("flush") as capture:
        t.run("nft", "flush", "ruleset")
        t.run("ip", "rule", "flush", "protocol", "116")
        t.run("ip", "-6", "rule", "flush", "protocol", "116")

        def repaired():
            done = t.run("nft", "list", "tables")
            rules = t.run("ip", "rule").out + t.run("ip", "-6", "rule").out
            # uplink, DHCP, everybody, prohibition, and where goto leads
            return "inet torvm" in done.out and rules.count("proto 116") >= 10

        wait_for("the block", repaired, 20)
        expect(t.probe("udp4-device")["udp4-device"]["error"], "not refused")
        capture.sync()
    t.page_through_tor()


@cases.case
def corrupt_state_disk_is_replaced(t):
    t.ensure_down()
    disk = os.path.join(t.state, "state.img")
    os.makedirs(t.state, exist_ok=True)
    with open(disk, "wb") as f:
        f.write(b"no file system " * 4096)
        f.truncate(64 << 20)
    t.up(timeout=180)
    expect(os.path.exists(disk + ".bad"), "the old disk was not kept")
    expect(".bad" in t.log(), "the log does not say so")
    t.page_through_tor()


@cases.case
def the_lan_is_open_if_wanted(t):
    t.ensure_down()
    neighbour, own = (t.lab.addresses[name]["ipv4"] for name in ("lan", "host"))
    server = "import socket; s = socket.create_server(('', 2222))\n"
    server += "while True: s.accept()[0].sendall(b'here')"
    client = "import socket; s = socket.create_connection(('%s', 2222), 5)\n" % own
    client += "s.settimeout(5); assert s.recv(4) == b'here'"
    service = None
    try:
        t.configure(network={"lan_access": True})
        t.up()
        expect(t.status()["lan_access"] is True, "status does not tell")
        with t.lab.capture("lan") as capture:
            t.page_through_tor()
            done = t.fetch("http://%s/address" % neighbour)
            expect(done.out.strip() == own, "to the LAN: %s" % done)
            service = t.lab.popen("host", ["/usr/bin/python3", "-c", server])
            wait_for(
                "an answer to the LAN",
                lambda: t.lab.run(
                    "lan",
                    ["/usr/bin/python3", "-c", client],
                    stderr=subprocess.DEVNULL,
                    timeout=30,
                ).returncode == 0,
                60,
                0.5,
            )
            # To the gateway's resolver, by whatever socket: only by way of Tor.
            t.probe("udp4-lan-device", "dns4-gateway")
            capture.sync()
            sent = "(%s) and not dst host %s" % (leak_filter(t.lab), neighbour)
            escaped = capture.show(sent)
            expect(not escaped, "past Tor: %s" % escaped)
            expect(not capture.show("port 53"), "DNS on the wire")
    finally:
        if service:
            service.kill()
            service.wait()
        t.configure()
        t.ensure_down()


@cases.case
def full_disk_is_named_and_survived(t):
    t.ensure_down()
    shutil.rmtree(t.state, ignore_errors=True)
    os.makedirs(t.state)
    engine = t.run("id", "-u", "torvm").out.strip() or "61100"
    options = "size=32m,mode=700,uid=%s" % engine
    mounted = t.run("mount", "-t", "tmpfs", "-o", options, "none", t.state)
    expect(mounted.code == 0, str(mounted))
    try:
        refused_start(t, 5, ["state.img", "No space left", "64 MiB"])
        t.run("mount", "-o", "remount,size=80m", t.state)
        before = t.snapshot()
        t.up()
        # Not a byte more; what the VM writes has its place.
        t.run("dd", "if=/dev/zero", "of=%s/filler" % t.state, "bs=4096")
        full = t.run("dd", "if=/dev/zero", "of=%s/more" % t.state, "bs=4096", "count=1")
        expect("No space" in full.err, str(full))
        t.page_through_tor()
        old = t.status()["vm"]["pid"]
        t.kill(old)
        wait_for("another VM", lambda: t.status()["vm"]["pid"] not in (None, old), 60)
        t.wait_state("Running")
        t.page_through_tor()
        t.down()
        same_network(before, t.snapshot())
        t.run("mount", "-o", "remount,ro", t.state)
        refused_start(t, 5, ["state", "Read-only"])
    finally:
        t.ensure_down()
        t.run("umount", t.state)
        shutil.rmtree(t.state, ignore_errors=True)


@cases.case
def unreachable_network_is_named_and_survived(t):
    t.ensure_down()
    shutil.rmtree(t.state, ignore_errors=True)
    t.configure(failsafe={"bootstrap_stall_s": 10})
    t.lab.net_cut()
    try:
        process = t.headless()
        wait_for("the block", lambda: t.status()["blocked"], 20)
        with t.lab.capture("cut") as capture:
            with tries_all_ways_out(t):
                status = wait_for(
                    "a reason",
                    lambda: (s := t.status())["last_error"] and s,
                    90,
                )
            no_leaks(t, capture)
        expect(status["state"] == "WaitBootstrap", "state: %s" % status)
        expect(status["blocked"], "not blocked: %s" % status)
        expect("%" in status["last_error"], "no stage: %s" % status["last_error"])
        t.lab.net_restore()
        t.wait_state("Running", timeout_s=180)
        t.page_through_tor()
    finally:
        t.lab.net_restore()
        t.configure()
        t.torvm("down")
        process.communicate(timeout=60)


@cases.case
def captive_portal_stays_blocked(t):
    t.ensure_down()
    shutil.rmtree(t.state, ignore_errors=True)
    t.configure(failsafe={"bootstrap_stall_s": 10})
    t.lab.captive(True)
    try:
        process = t.headless()
        wait_for("the block", lambda: t.status()["blocked"], 20)
        with t.lab.capture("captive") as capture:
            status = wait_for(
                "a reason", lambda: (s := t.status())["last_error"] and s, 90
            )
            expect(status["blocked"] and status["state"] == "WaitBootstrap", str(status))
            no_leaks(t, capture)
        done = t.torvm("down")
        expect(done.code == 0, str(done))
        output, _ = process.communicate(timeout=60)
        expect(process.returncode == 0, output)
    finally:
        t.lab.captive(False)
        t.configure()


# --- stop ----------------------------------------------------------------------------


@cases.case
def every_stop_restores_the_network(t):
    t.ensure_down()
    before = t.snapshot()
    for how in ("down", "SIGTERM", "SIGINT"):
        with t.lab.capture("stop") as capture:
            process = t.headless()
            t.wait_state("Running")
            if how == "down":
                t.down()
            else:
                process.send_signal(getattr(signal, how))
            output, _ = process.communicate(timeout=60)
            expect(process.returncode == 0, "%s: %s" % (how, output))
            no_leaks(t, capture)
        same_network(before, t.snapshot())
        expect(t.status()["state"] == "Stopped", "status after %s" % how)
        expect(not t.status()["blocked"], "blocked after %s" % how)


@cases.case
def stop_while_starting_restores_the_network(t):
    t.ensure_down()
    before = t.snapshot()
    for state in ("LaunchVM", "WaitTAP", "WaitBootstrap"):
        process = t.headless()
        order = ["LaunchVM", "WaitTAP", "ConfigureTAP", "FlushDNS", "WaitBootstrap"]
        t.wait_state(*order[order.index(state) :], "Running")
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
        expect(process.returncode == 0, "%s: %s" % (state, output))
        same_network(before, t.snapshot())


@cases.case
def lockdown_holds_before_and_after(t):
    t.ensure_down()
    before = t.snapshot()
    with t.lab.capture("lockdown") as capture:
        done = t.torvm("lockdown", "on", "--yes")
        expect(done.code == 0, str(done))
        with tries_all_ways_out(t):
            t.up()
            t.page_through_tor()
            expect(t.status()["lockdown"] is True, "not told while running")
            report = json.loads(t.torvm("selftest", "--json").out)
            expect(report["verdict"] == "blocked", "selftest: %s" % report)
            inside = {p["probe"] for p in report["probes"] if p["result"] == "into TorVM"}
            expect(inside == {"TCP, IPv4"}, "into the VM went %s" % inside)
            done = t.down()
        expect("Lockdown is on" in done.out, str(done))
        for name, result in t.probe("tcp4", *REFUSED).items():
            expect(result["error"], "%s is not blocked" % name)
        no_leaks(t, capture)
    status = t.status()
    expect((status["state"], status["blocked"], status["lockdown"]) ==
           ("Stopped", True, True), str(status))
    done = t.torvm("lockdown", "off")
    expect(done.code == 0, str(done))
    same_network(before, t.snapshot())
    expect(t.fetch(WWW + "/address").code == 0, "no network after lockdown")


@cases.case
def unconfirmed_start_ends_by_itself(t):
    t.ensure_down()
    before = t.snapshot()
    process = t.headless("--confirm", "3")
    output, _ = process.communicate(timeout=60)
    expect(process.returncode == 9, "exit %d: %s" % (process.returncode, output))
    same_network(before, t.snapshot())


@cases.case
def confirmed_start_stays(t):
    t.ensure_down()
    t.headless("--confirm", "60")
    t.wait_state("Running")
    expect(t.status().get("confirm_left") is not None, "no confirmation awaited")
    done = t.torvm("confirm")
    expect(done.code == 0, str(done))
    expect(t.status().get("confirm_left") is None, "still awaited")
    t.down()


def main():
    return run_in_lab(cases, Product, "e2e", __doc__)


if __name__ == "__main__":
    sys.exit(main())
