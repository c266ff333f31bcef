#!/usr/bin/python3
"""Proves what the other tests rest on: that the lab is a real network, that its
judge sees a leak, and that it touches and leaves nothing.

Runs in a mount and network namespace of its own, which plays the machine: so
nobody else's changes are mistaken for the lab's, and mounts there are shared, so
that a mount which escapes from the lab would be seen.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, HERE)

import labapi  # noqa: E402
import peers  # noqa: E402
import topology as topo  # noqa: E402
import tornet  # noqa: E402
from labapi import Lab  # noqa: E402

LAB = os.path.join(HERE, "lab")
RECORDER = os.path.join(HERE, "resolved_recorder.py")
MACHINE = "TORVM_LAB_TEST_MACHINE"
RESOLVE = (
    "busctl --system --timeout=3 call org.freedesktop.resolve1 "
    "/org/freedesktop/resolve1 org.freedesktop.resolve1.Manager FlushCaches"
).split()

DIRECTORY = None


def become_machine():
    """Re-execute in namespaces with a network worth comparing."""
    os.environ[MACHINE] = "1"
    script = (
        # Private first: nobody else's new mounts are to arrive here.
        "mount --make-rshared / && mount -t tmpfs tmpfs /run && "
        "mkdir /run/dbus /run/lock && "
        "ip link set lo up && ip link add machine0 type veth peer name machine1 && "
        "ip link set machine0 addrgenmode none && "
        "ip link set machine1 addrgenmode none && "
        "ip addr add 192.0.2.2/24 dev machine0 && ip link set machine0 up && "
        "ip link set machine1 up && ip route add default via 192.0.2.1 && "
        "ip rule add fwmark 7 lookup 100 && nft add table inet machine && "
        'exec "$@"'
    )
    command = ["unshare", "--net", "--mount", "--propagation", "private"]
    command += ["sh", "-c", script, "sh", "/usr/bin/python3", __file__]
    os.execvp(command[0], command)


def cli(*args, **kwargs):
    return subprocess.run(
        [LAB, "--dir", DIRECTORY, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
        **kwargs,
    )


def curl(lab, machine, url, *options):
    done = lab.run(
        machine,
        ["curl", "-sS", "-m", "20", *options, url],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
    )
    return done.returncode, done.stdout.strip()


def snapshot():
    """Everything of the machine that a lab could touch."""

    def run(*argv):
        return subprocess.run(argv, stdout=subprocess.PIPE, check=True).stdout

    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        mounts = sorted(line.split()[4] for line in f)
    with open("/etc/resolv.conf", encoding="utf-8") as f:
        resolv_conf = f.read()
    links = json.loads(run("ip", "-j", "-d", "link"))
    return {
        "links": links,
        "addr": json.loads(run("ip", "-j", "addr")),
        "route": run("ip", "-j", "route", "show", "table", "all"),
        "rule": run("ip", "-j", "rule"),
        "route6": run("ip", "-j", "-6", "route", "show", "table", "all"),
        "nft": run("nft", "-j", "list", "ruleset"),
        "netns": run("ip", "netns"),
        "run": sorted(os.listdir("/run")),
        "etc": sorted(os.listdir("/etc")),
        "forward": open("/proc/sys/net/ipv4/ip_forward", encoding="ascii").read(),
        "mounts": mounts,
        "resolv.conf": resolv_conf,
    }


def compare(before):
    after = snapshot()
    for key, value in before.items():
        equal(after[key], value, key)


def equal(got, wanted, what):
    assert got == wanted, "%s: %r, wanted %r" % (what, got, wanted)


def descendants(init):
    """(PID, start) of every living process in an init's PID namespace or below."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open("/proc/%s/status" % entry, encoding="utf-8") as f:
                    ppid = next(int(x.split()[1]) for x in f if x.startswith("PPid:"))
            except (FileNotFoundError, ProcessLookupError):
                continue
            found[int(entry)] = ppid
    inside = {init}
    grew = True
    while grew:
        more = {p for p, parent in found.items() if parent in inside} - inside
        inside |= more
        grew = bool(more)
    return {(p, labapi.namespaces.start_time(p)) for p in inside}


def assert_gone(processes):
    left = [p for p, s in processes if labapi.namespaces.start_time(p) == s]
    equal(left, [], "processes left")


# --- the tests, in order; "lab" is up in those that take it ------------------


def test_host_is_isolated(lab):
    out = lab.output(
        "host",
        ["sh", "-c", "hostname; ls /run; echo --; ls /sys/class/net; echo --; ps -e"],
    )
    name, rest = out.split("\n", 1)
    run, links, processes = (part.split("\n") for part in rest.split("--\n"))
    equal(name, "torvm-%s-host" % lab.name, "hostname")
    assert "systemd" not in run and "dbus" not in run, run
    assert "machine0" not in links and "eth0" in links, links
    assert len(processes) < 8, processes
    equal(
        lab.output("host", ["cat", "/etc/resolv.conf"]),
        "nameserver 192.168.77.1\n",
        "resolv.conf",
    )
    for name in ("/dev/net/tun", HERE + "/lab_test.py"):
        equal(lab.run("host", ["test", "-e", name]).returncode, 0, name)


def test_exec_is_transparent(lab):
    def run(*argv, **kwargs):
        return cli("--name", lab.name, "exec", *argv, **kwargs)

    equal(run("host", "sh", "-c", "exit 7").returncode, 7, "exit status")
    equal(run("host", "sh", "-c", "kill -9 $$").returncode, 137, "by signal")
    equal(run("host", "no-such-command").returncode, 127, "not found")
    equal(run("host", "cat", input="through\n").stdout, "through\n", "stdin")
    equal(run("host", "pwd", cwd=HERE).stdout.strip(), HERE, "cwd")
    done = run("host", "sh", "-c", "echo $WORD", env={**os.environ, "WORD": "kept"})
    equal(done.stdout, "kept\n", "environment")
    equal(run("mars", "true").returncode, 1, "unknown namespace")


def test_exec_hands_signals_on(lab):
    script = "trap 'echo term; exit 5' TERM; echo ready; while :; do sleep 0.05; done"
    for signum, status in ((signal.SIGTERM, 5), (signal.SIGKILL, -9)):
        p = lab.popen("host", ["sh", "-c", script], stdout=subprocess.PIPE)
        equal(p.stdout.readline(), b"ready\n", "start")
        p.send_signal(signum)
        # End of file: the command is gone too, not just its waiter.
        p.stdout.read()
        equal(p.wait(10), status, "status after signal %d" % signum)


def test_direct_traffic_is_seen_by_server_and_capture(lab):
    with lab.capture("control") as capture:
        equal(curl(lab, "host", "http://www4.lab.test/address"), (0, topo.WAN4), "IPv4")
        code = "http://[%s]/address" % topo.WWW6
        equal(curl(lab, "host", code), (0, topo.HOST6), "IPv6")
        udp = (
            "import socket; s = socket.socket(2, 2); s.settimeout(5);"
            "s.sendto(b'hello', (%r, 7)); print(s.recv(9))" % topo.WWW4
        )
        equal(lab.output("host", ["/usr/bin/python3", "-c", udp]), "b'hello'\n", "UDP")
        # A neighbour's traffic is not the host's.
        equal(curl(lab, "lan", "http://www4.lab.test/address"), (0, topo.WAN4), "lan")
    assert capture.show("tcp port 80 and src host " + topo.HOST4)
    assert capture.show("ip6 and tcp port 80 and src host " + topo.HOST6)
    assert capture.show("udp port 7 and src host " + topo.HOST4)
    assert capture.show("udp port 53 and src host " + topo.HOST4)
    equal(capture.show("host " + topo.NEIGHBOUR4), [], "neighbour's packets")
    assert any("www4.lab.test" in line for line in lab.dns_queries())
    assert lab.requests()[-1]["source"] == topo.WAN4


def test_capture_holds_the_last_packet(lab):
    send = (
        "import socket; s = socket.socket(2, 2)\n"
        "for i in range(2000): s.sendto(b'%%d' %% i, (%r, 9))" % topo.WWW4
    )
    for i in range(5):
        capture = lab.capture("burst%d" % i).start()
        lab.output("host", ["/usr/bin/python3", "-c", send])
        capture.stop()
        equal(len(capture.show("udp port 9")), 2000, "packets of a burst")


def test_neighbour_answers(lab):
    for address in (topo.NEIGHBOUR4, "[%s]" % topo.NEIGHBOUR6):
        status, out = curl(lab, "host", "http://%s/address" % address)
        equal(status, 0, out)
        assert out in (topo.HOST4, topo.HOST6), out
    assert lab.requests("lan")


def test_names(lab):
    def dig(*args):
        return lab.output("host", ["dig", "+time=3", "+tries=1", *args])

    equal(dig("+short", "www.lab.test").strip(), topo.WWW4, "A")
    equal(dig("+short", "www.lab.test", "AAAA").strip(), topo.WWW6, "AAAA")
    equal(dig("+short", "x1.bench.lab.test").strip(), topo.WWW4, "wildcard")
    assert "NXDOMAIN" in dig("example.org"), "an unknown name exists"


def test_native_client_goes_through_an_exit(lab):
    exits = {a for e in lab.addresses["exits"].values() for a in e.values()}
    seconds = lab.native_tor_up()
    print("     native client bootstrapped in %.1f s" % seconds)
    assert seconds < 20, seconds
    for options in ((), ("--socks5-hostname", "127.0.0.1:9050")):
        status, out = curl(lab, "native", "http://www.lab.test/address", *options)
        equal(status, 0, out)
        assert out in exits, "%s is no exit" % out
        equal(lab.requests()[-1]["source"], out, "as the server saw it")
    dig = ["dig", "+short", "@127.0.0.1", "-p", "9093", "www.lab.test"]
    out = lab.output("native", dig)
    equal(out.strip(), topo.WWW4, "DNSPort")
    status, out = curl(
        *(lab, "native", "http://www4.lab.test/data/8", "-o", "/dev/null"),
        *("-w", "%{size_download}"),
    )
    equal((status, out), (0, str(8 << 20)), "download")
    url = "http://%s/" % lab.onion()
    status, out = curl(lab, "native", url, "--socks5-hostname", "127.0.0.1:9050")
    equal(status, 0, out)
    assert "Your address" in out, out
    lab.native_tor_down()
    equal(curl(lab, "native", "http://www4.lab.test/address"), (0, topo.WAN4), "after")


def test_upload_counts(lab):
    with tempfile.NamedTemporaryFile(dir=DIRECTORY) as f:
        f.truncate(20 << 20)
        status, out = curl(lab, "host", "http://www4.lab.test/upload", "-T", f.name)
    equal(status, 0, out)
    equal(json.loads(out)["bytes"], 20 << 20, "bytes")


def test_faults(lab):
    url = "http://www4.lab.test/address"
    lab.net_cut()
    equal(curl(lab, "host", url, "-m", "2")[0], 28, "cut")
    lab.net_restore()
    equal(curl(lab, "host", url), (0, topo.WAN4), "restored")
    lab.captive(True)
    out = curl(lab, "host", url, "-o", "/dev/null", "-w", "%{http_code}")
    equal(out, (0, "302"), "login page")
    equal(curl(lab, "host", "http://%s:7/" % topo.WWW4, "-m", "2")[0], 28, "port 7")
    lab.captive(False)
    equal(curl(lab, "host", url), (0, topo.WAN4), "portal off")


def test_torvm_config(lab):
    config = json.loads(cli("--name", lab.name, "torvm-config").stdout)
    options = config["tor"]["options"]
    equal(len([x for x in options if x.startswith("DirAuthority ")]), 3, "authorities")
    assert "TestingTorNetwork 1" in options


def test_resolver_of_the_machine_is_out_of_reach(lab):
    control = subprocess.run([RECORDER, *RESOLVE], stderr=subprocess.PIPE)
    equal(control.returncode, 99, "positive control: " + control.stderr.decode())
    inside = [LAB, "--dir", DIRECTORY, "--name", lab.name, "exec", "host"]
    script = '! "$@" 2>/dev/null && ! getent ahosts no.such.name.test'
    done = subprocess.run(
        [RECORDER, *inside, "sh", "-c", script, "sh", *RESOLVE],
        stderr=subprocess.PIPE,
    )
    equal(done.returncode, 0, done.stderr.decode())


def test_clients_reach_the_network_through_peers(lab):
    exits = {a for e in lab.addresses["exits"].values() for a in e.values()}
    # Each transport and each proxy once. microsocks and danted carry no UDP here.
    pairs = (("plain", None), ("obfs4", "squid"), ("obfs4proxy", "dante"))
    pairs += (("webtunnel", "tinyproxy"), ("meek", "microsocks"))
    for bridge, proxy in pairs:
        names = [n for n in (bridge, proxy) if n]
        start = time.monotonic()
        lab.peers_up(*names)
        started = time.monotonic() - start
        with lab.capture("peers", "to-native") as capture:
            seconds = lab.native_tor_up(use_bridge=bridge, use_proxy=proxy)
            status, out = curl(lab, "native", "http://www.lab.test/address")
            equal(status, 0, out)
            assert out in exits, "%s is no exit" % out
            lab.native_tor_down()
        address, _, port = lab.peer(names[-1])["address"].rpartition(":")
        there = "dst host %s and tcp dst port %s" % (address, port)
        assert capture.show(there), names
        sent = "src host %s and ip and not (port 53) and not (%s)" % (
            *(topo.NATIVE4, there),
        )
        equal(capture.show(sent), [], "past " + names[-1])
        print(
            "     %s: up in %.1f s, client in %.1f s"
            % (" by ".join(names), started, seconds)
        )
    equal(sorted(lab.peers_running()), sorted(n for p in pairs for n in p if n), "run")


def test_proxies_want_the_password(lab):
    lab.peers_up(*peers.of_kind("proxy"))
    refused = {"squid": "407", "squid-tls": "407", "squid-tls6": "407"}
    refused.update(tinyproxy="401", tinyproxy6="401")
    for name in peers.of_kind("proxy"):
        facts = lab.peer(name)
        kind = "socks5h" if facts["type"] == "socks5" else facts["type"]
        options = ["--proxy", "%s://%s" % (kind, facts["address"])]
        if name == "squid-tls6":
            # curl 7.88 looks for a proxy's IPv6 address among a certificate's names.
            address, _, port = facts["address"].rpartition(":")
            options = ["--proxy", "https://proxy.lab.test:" + port]
            options += ["--resolve", "proxy.lab.test:%s:%s" % (port, address)]
        options += ["--proxy-cacert", lab.ca_path(), "--proxytunnel"]
        url = "http://www4.lab.test/address"
        right = "%(username)s:%(password)s" % facts
        status, out = curl(lab, "lan", url, *options, "--proxy-user", right)
        equal(status, 0, "%s: %s" % (name, out))
        status, out = curl(lab, "lan", url, *options, "--proxy-user", "lab:wrong")
        assert status != 0, name
        assert refused.get(name, "") in out, "%s: %s" % (name, out)


def test_snowflake_goes_as_far_as_its_peer(lab):
    lab.peers_up("snowflake")
    try:
        # There is no peer: it never gets there.
        lab.native_tor_up(timeout_s=0, use_bridge="snowflake")
    except labapi.LabError:
        pass
    else:
        raise AssertionError("bootstrapped through nothing")
    wanted = {"stun", "offer", "proxy"}
    deadline = time.monotonic() + 60
    while not wanted <= {e["what"] for e in lab.snowflake_events()}:
        assert time.monotonic() < deadline, lab.snowflake_events()
        time.sleep(0.1)
    lab.native_tor_down()
    offer = next(e for e in lab.snowflake_events() if e["what"] == "offer")
    equal(offer["host"], "broker.lab.test", "broker")
    assert any(topo.WAN4 in c for c in offer["candidates"]), offer


def test_censor(lab):
    lab.peers_up("meek", "plain")
    try:
        censored(lab)
    finally:
        lab.censor("off")


def censored(lab):
    front = lab.peer("meek")["address"]
    url = "http://www4.lab.test/address"

    def reset(endpoint):
        # A relay leaves a web client waiting.
        status, out = curl(lab, "native", "https://%s/" % endpoint, "-k", "-m", "5")
        return status != 0 and "reset by peer" in out

    curl_timeout = 28
    relay = "%s:%d" % (topo.RELAYS["guard1"], tornet.ORPORT)
    plain = lab.peer("plain")["address"]
    assert not reset(relay) and not reset(plain), "uncensored"
    lab.censor("reset-tor")
    assert reset(relay), "a relay"
    assert reset(plain), "a known bridge"
    equal(curl(lab, "native", "https://%s/" % front, "-k")[0], 0, "a web site")
    equal(curl(lab, "native", url), (0, topo.WAN4), "the web")
    lab.censor("drop-all-but", front)
    equal(curl(lab, "native", "https://%s/" % front, "-k")[0], 0, "the bridge")
    equal(curl(lab, "native", url, "-m", "2")[0], curl_timeout, "all else")
    lab.censor("drop", topo.SERVERS["www4.lab.test"][0])
    equal(curl(lab, "native", url, "-m", "2")[0], curl_timeout, "the address")
    equal(curl(lab, "native", "http://%s/address" % topo.WWW4)[0], 0, "another")
    dig = ["dig", "+short", "+time=3", "www.lab.test"]
    for server in (topo.ROUTER4, topo.DNS4):
        lab.censor("false-dns")
        out = lab.output("native", [*dig, "@" + server])
        equal(out.strip(), topo.FALSE_ADDRESS, "a name asked of " + server)
        lab.censor("off")
        out = lab.output("native", [*dig, "@" + server])
        equal(out.strip(), topo.WWW4, "uncensored again")
    equal(curl(lab, "native", url), (0, topo.WAN4), "off")


def test_peers_end(lab):
    assert lab.peers_running()
    lab.peers_down("obfs4")
    assert "obfs4" not in lab.peers_running()
    lab.peers_down()
    equal(lab.peers_running(), [], "after down")
    done = cli("--name", lab.name, "peers", "up", "nobody")
    equal(done.returncode, 1, "unknown peer")
    assert "webtunnel" in done.stderr, done.stderr


def test_second_up_is_refused(lab):
    done = cli("--name", lab.name, "up")
    equal(done.returncode, 1, "exit status")
    assert "already up" in done.stderr, done.stderr


def test_two_labs_at_once(lab):
    url = "http://www4.lab.test/address"
    second = Lab(lab.name + "-b", DIRECTORY, dhcp=True, bus=True)
    with second:
        status = second.status()
        equal(status["consensus"]["relays"], len(topo.RELAYS), "relays of the second")
        out = second.output("host", ["ip", "-4", "-o", "addr", "show", "eth0"])
        assert "192.168.77.1" in out and topo.HOST4 + "/" not in out, out
        equal(curl(second, "host", url), (0, topo.WAN4), "DHCP")
        names = second.output("host", ["busctl", "--system", "list"])
        assert "org.freedesktop.DBus" in names
        before = len(lab.requests())
        curl(second, "host", "http://www4.lab.test/")
        equal(len(lab.requests()), before, "requests of the first lab")
        processes = descendants(status["init_pid"])
    assert_gone(processes)
    equal(curl(lab, "host", url), (0, topo.WAN4), "the first")


def test_all_daemons_live(lab):
    status = lab.status()
    dead = [n for n, d in status["daemons"].items() if not d["alive"]]
    equal(dead, [], "dead daemons")
    equal(status["consensus"]["exits"], len(topo.EXITS), "exits")


def test_down_after_kill(lab):
    init = lab.status()["init_pid"]
    processes = descendants(init)
    assert len(processes) > 15, processes
    os.kill(init, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while labapi.namespaces.start_time(init) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert_gone(processes)
    assert not lab.running()
    equal(cli("--name", lab.name, "status").returncode, 3, "status")
    for _ in range(2):
        equal(cli("--name", lab.name, "down").returncode, 0, "down")
    assert not os.path.exists(lab.dir)


def killed_halfway(name):
    """A lab whose `up` was killed once its init ran, and its processes."""
    lab = Lab(name, DIRECTORY)
    p = subprocess.Popen(
        [LAB, "--dir", DIRECTORY, "--name", name, "up"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not lab.running():
        assert p.poll() is None, "up ended"
        time.sleep(0.02)
    p.kill()
    p.wait()
    return lab, descendants(lab.status()["init_pid"])


def test_up_that_is_killed_halfway():
    lab, processes = killed_halfway("halfway")
    lab.down()
    assert_gone(processes)
    assert not os.path.exists(lab.dir)


def test_down_without_files():
    """make clean may delete a running lab's folder."""
    lab, processes = killed_halfway("nofiles")
    shutil.rmtree(lab.dir)
    lab.down()
    assert_gone(processes)


def test_errors_name_the_cure():
    done = subprocess.run(
        ["setpriv", "--reuid", "65534", "--clear-groups", LAB, "up"],
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )
    equal(done.returncode, 1, "not root")
    assert "needs root" in done.stderr, done.stderr
    # -n: mount(8) would make /run/mount.
    script = 'mount -n --bind /dev/null "$(command -v dnsmasq)" && exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", LAB, "--dir", DIRECTORY, "up"],
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )
    equal(done.returncode, 1, "no dnsmasq")
    assert "apt-get install dnsmasq-base" in done.stderr, done.stderr
    equal(cli("exec", "host", "true").returncode, 1, "exec in no lab")
    equal(cli("--name", "../x", "up").returncode, 1, "a name that is a path")


def main():
    global DIRECTORY
    if os.geteuid() != 0:
        print("lab_test: needs root", file=sys.stderr)
        return 1
    if MACHINE not in os.environ:
        # The test's machine has no network to download programs from.
        with tornet.Cache(labapi.CACHE) as cache:
            cache.tor()
            cache.peers()
        become_machine()
    real = tempfile.mkdtemp(prefix="torvm-lab-test-")
    # By a symbolic link, as a checkout may be reached.
    DIRECTORY = os.path.join(real, "link")
    os.mkdir(os.path.join(real, "labs"))
    os.symlink("labs", DIRECTORY)
    counts = {"passed": 0, "failed": 0}

    def run(name, test, *args):
        start = time.monotonic()
        try:
            test(*args)
        except Exception:  # a failing test is reported, the rest still runs
            counts["failed"] += 1
            print("FAIL %s" % name)
            traceback.print_exc()
        else:
            counts["passed"] += 1
            print("ok   %s (%.1f s)" % (name, time.monotonic() - start))
        sys.stdout.flush()

    tests = [(n[5:], f) for n, f in globals().items() if n.startswith("test_")]
    before = snapshot()
    lab = Lab("first", DIRECTORY)
    try:
        run("up", lab.up)
        for name, test in tests:
            run(name, test, *([lab] if test.__code__.co_argcount else []))
    finally:
        lab.down()
        run("machine_is_as_before", compare, before)
        shutil.rmtree(real, ignore_errors=True)
    print("%(passed)d passed, %(failed)d failed, 0 skipped" % counts)
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
