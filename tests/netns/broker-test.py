#!/usr/bin/env python3
"""The real broker, spawner, kernel and QEMU, with a stand-in for the engine.

Runs as root in network namespaces of its own, which go with their processes.
A third party beyond the uplink counts every probe that gets out.

Usage: broker-test.py BROKER STUB [NAME...]
"""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

CLONE_NEWNET, CLONE_NEWNS = 0x40000000, 0x00020000
LIMIT_S = 30
ENGINE_UID, VM_UID, NOBODY = 61100, 61101, 65534
PROBE = ("198.51.100.9", 4242)

QEMU = "/usr/bin/qemu-system-x86_64"
SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
QEMU_ARGV = [
    QEMU, "-nodefaults", "-no-user-config", "-sandbox", SANDBOX,
    "-machine", "q35", "-accel", "tcg,tb-size=16", "-m", "32", "-display", "none", "-S",
    "-chardev", "socket,id=qmp,fd=3,server=on,wait=off", "-mon", "chardev=qmp,mode=control",
    "-netdev", "tap,id=tap,fd=7", "-device", "virtio-net-pci,netdev=tap,romfile=",
]


def unshare_net():
    """A network of our own, and mounts that nobody else sees."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET | CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    run("mount", "--make-rprivate", "/")


def run(*argv):
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout


def wait_for(what, condition, limit_s=LIMIT_S):
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {limit_s} s: {what}")


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
            return f.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def status_of(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as f:
        return dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)


def children_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as f:
        return [int(child) for child in f.read().split()]


class Outside:
    """The other end of the uplink, in a namespace of its own: counts probes."""

    def __init__(self):
        self.ready, child_ready = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            self.ready.close()
            self.serve(child_ready)
        child_ready.close()
        assert self.ready.recv(1) == b"n"
        with open("/proc/sys/net/ipv6/conf/default/accept_dad", "w", encoding="ascii") as f:
            f.write("0")
        run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "peer0", "netns", str(self.pid))
        run("ip", "link", "set", "lo", "up")
        run("ip", "addr", "add", "192.0.2.2/24", "dev", "up0")
        run("ip", "link", "set", "up0", "up")
        run("ip", "route", "add", "default", "via", "192.0.2.1")
        self.ready.send(b"u")
        assert self.ready.recv(1) == b"r"
        wait_for("the uplink", self.settled)
        # Nothing shall be held back by address resolution.
        run("ip", "neigh", "replace", "192.0.2.1", "lladdr", "02:00:00:00:00:01",
            "nud", "permanent", "dev", "up0")

    @staticmethod
    def settled():
        """Carrier seen, addresses no longer tentative: the state to come back to."""
        link = json.loads(run("ip", "-j", "addr", "show", "up0"))[0]
        return link["operstate"] == "UP" and len(link["addr_info"]) == 2 and \
            not any(address.get("tentative") for address in link["addr_info"])

    @staticmethod
    def serve(ready):
        unshare_net()
        ready.send(b"n")
        ready.recv(1)
        subprocess.run(["ip", "link", "set", "peer0", "up"], check=True)
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        tap.bind(("peer0", 0))
        tap.setblocking(False)
        ready.send(b"r")
        seen = 0
        while True:
            order = ready.recv(1)
            if not order:
                os._exit(0)
            with contextlib.suppress(BlockingIOError):
                while True:
                    packet = tap.recv(2048)
                    # IPv4, UDP, to the probe's port.
                    if packet[12:14] == b"\x08\x00" and packet[23] == 17 and \
                            packet[36:38] == struct.pack("!H", PROBE[1]):
                        seen += 1
            ready.send(struct.pack("!I", seen))

    def seen(self):
        self.ready.send(b"?")
        return struct.unpack("!I", self.ready.recv(4))[0]

    def close(self):
        self.ready.close()
        os.waitpid(self.pid, 0)


def probe(n=1, device=None):
    """Sends datagrams to the outside; refusals are what is wanted."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        if device:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        for _ in range(n):
            with contextlib.suppress(OSError):
                s.sendto(b"probe", PROBE)


class Prober(threading.Thread):
    """Probes without a pause, both ways, until stopped."""

    def __init__(self):
        super().__init__(daemon=True)
        self.halt = threading.Event()
        self.count = 0

    def run(self):
        while not self.halt.is_set():
            probe()
            probe(device="up0")
            self.count += 1

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *args):
        self.halt.set()
        self.join()
        assert self.count > 0


VOLATILE = {"handle", "valid_life_time", "preferred_life_time", "expires", "packets", "bytes"}


def normal(value):
    if isinstance(value, dict):
        return {k: normal(v) for k, v in value.items() if k not in VOLATILE}
    if isinstance(value, list):
        return [normal(v) for v in value]
    return value


def snapshot():
    commands = [
        ["ip", "-j", "addr"], ["ip", "-j", "rule"], ["ip", "-6", "-j", "rule"],
        ["ip", "-j", "route", "show", "table", "all"],
        ["ip", "-6", "-j", "route", "show", "table", "all"],
        ["nft", "-j", "list", "ruleset"],
    ]
    state = {" ".join(c): normal(json.loads(run(*c) or "[]")) for c in commands}
    with open("/proc/sys/net/ipv4/conf/up0/rp_filter", encoding="ascii") as f:
        state["rp_filter"] = f.read()
    return state


class Controller:
    """A broker with its own directories and programs."""

    def __init__(self, test):
        self.test = test
        self.top = tempfile.mkdtemp(prefix="torvm-broker-")
        self.runtime = os.path.join(self.top, "run")
        self.state = os.path.join(self.top, "state")
        self.process = None
        self.client = None
        self.events = []
        self.environment = {}
        os.mkdir(os.path.join(self.top, "bin"))
        for source, name in ((test.broker, "torvm-broker"), (test.stub, "torvmd")):
            shutil.copy(source, os.path.join(self.top, "bin", name))
        os.mkdir(self.state)

    def start(self, *options):
        self.process = subprocess.Popen(
            [os.path.join(self.top, "bin", "torvm-broker"), "--runtime-dir", self.runtime,
             "--state-dir", self.state, *options], stdin=subprocess.DEVNULL,
            env={**os.environ, **self.environment})
        self.connect()

    def connect(self):
        if self.client:
            self.client.close()
        path = os.path.join(self.runtime, "control.sock")

        def attempt():
            assert self.process.poll() is None, f"the broker ended: {self.process.returncode}"
            s = socket.socket(socket.AF_UNIX)
            try:
                s.connect(path)
            except OSError:
                s.close()
                return None
            return s
        s = wait_for("the control socket", attempt)
        s.settimeout(LIMIT_S)
        self.client = s.makefile("rw", encoding="utf-8", newline="\n")
        s.close()

    def line(self):
        line = self.client.readline()
        assert line, "the engine is gone"
        if line.startswith("event "):
            self.events.append(line.split()[1])
            return None
        return line.rstrip("\n")

    def ask(self, command):
        self.client.write(command + "\n")
        self.client.flush()
        while True:
            line = self.line()
            if line is not None:
                return line.split(" ", 2)

    def must(self, command):
        answer = self.ask(command)
        assert answer[0] == "ok", f"{command}: {answer}"
        return [int(word) for word in answer[1:]]

    def refused(self, command):
        answer = self.ask(command)
        assert answer[0] == "error", f"{command} was not refused: {answer}"
        return answer[2]

    def await_event(self, name):
        while name not in self.events:
            assert self.line() is None, "an answer instead of an event"
        self.events.remove(name)

    def write_argv(self, argv):
        path = os.path.join(self.state, "argv")
        with open(path, "wb") as f:
            f.write(b"".join(a.encode() + b"\0" for a in argv))
        os.chmod(path, 0o644)

    def protect(self):
        self.write_argv(QEMU_ARGV)
        for request in ("PRECHECK", "BLOCK", "CREATE_TAP"):
            self.must(request)
        pid = self.must("START_VM")[0]
        self.must("CONFIGURE_TAP")
        self.must("SET_DNS")
        return pid

    def spawner(self):
        return children_of(self.process.pid)[0]

    def wait(self, code):
        got = self.process.wait(LIMIT_S)
        assert got == code, f"the broker ended with {got} instead of {code}"

    def stop(self):
        self.must("UNBLOCK")
        self.client.write("exit 0\n")
        self.client.flush()
        self.wait(0)
        assert not os.path.exists(self.runtime), os.listdir(self.runtime)

    def recover(self, code=0):
        done = subprocess.run([os.path.join(self.top, "bin", "torvmd"), "recover", self.runtime],
                              stdout=subprocess.PIPE, text=True, check=False)
        assert done.returncode == code, (done.returncode, done.stdout)
        return done.stdout

    def close(self):
        if self.client:
            self.client.close()
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.top)


class Test:
    def __init__(self, broker, stub):
        self.broker, self.stub = broker, stub
        self.outside = Outside()
        with open("/proc/sys/net/ipv4/conf/up0/rp_filter", "w", encoding="ascii") as f:
            f.write("1")
        self.before = snapshot()
        self.open_network()
        self.c = Controller(self)

    def open_network(self):
        """The positive control: a probe is seen when nothing blocks."""
        seen = self.outside.seen()
        probe()
        wait_for("a probe in the open network", lambda: self.outside.seen() == seen + 1)

    @contextlib.contextmanager
    def no_leak(self):
        seen = self.outside.seen()
        with Prober():
            yield
        assert self.outside.seen() == seen, f"{self.outside.seen() - seen} probes got out"

    def restored(self):
        after = snapshot()
        for key, value in self.before.items():
            assert after[key] == value, f"{key}:\n{value}\n{after[key]}"
        self.open_network()

    def close(self):
        self.c.close()
        self.outside.close()

    # --- the cases ---

    def test_life(self):
        """From start to stop; who has which rights."""
        c = self.c
        c.start("--verbose")
        engine = c.must("pid")[0]
        assert c.must("resumed") == [0]
        assert c.refused("CREATE_TAP")
        self.open_network()  # nothing is changed yet
        vm = c.protect()
        with self.no_leak():
            broker, spawner = status_of(c.process.pid), status_of(c.spawner())
            # NET_ADMIN 12, KILL 5; SETGID 6, SETUID 7.
            for field in ("CapPrm", "CapEff"):
                assert int(broker[field], 16) == 1 << 12 | 1 << 5, broker[field]
                assert int(spawner[field], 16) == 1 << 5 | 1 << 6 | 1 << 7
            assert int(broker["CapBnd"], 16) == 0 and int(spawner["CapBnd"], 16) == 0
            assert broker["Seccomp"] == "2" and broker["NoNewPrivs"] == "1"
            for pid, uid in ((engine, ENGINE_UID), (vm, VM_UID)):
                s = status_of(pid)
                assert s["Uid"].split() == [str(uid)] * 4, s["Uid"]
                assert s["Gid"].split() == [str(uid)] * 4, s["Gid"]
                assert s["NoNewPrivs"] == "1"
                for field in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
                    assert int(s[field], 16) == 0, field
            assert len(status_of(engine)["Groups"].split()) == 0
            wait_for("QEMU's own sandbox", lambda: status_of(vm)["Seccomp"] == "2")
            fds = sorted(int(fd) for fd in os.listdir(f"/proc/{engine}/fd"))
            assert fds[:9] == list(range(9)), fds
            with open(f"/proc/{vm}/environ", "rb") as f:
                assert b"HOME=" not in f.read()
            # QEMU speaks on the socket that it was given.
            with socket.socket(socket.AF_UNIX) as s:
                s.settimeout(LIMIT_S)
                s.connect(os.path.join(c.runtime, "vm", "qmp.sock"))
                assert b"QMP" in s.recv(4096)
            assert c.must("STATUS") == [0x2f, vm]  # all but DNS: no resolved
        c.stop()
        assert not alive(vm)
        self.restored()

    def test_service_manager(self):
        """READY=1 once, a status each time, STOPPING=1."""
        c = self.c
        path = os.path.join(c.top, "notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            s.settimeout(LIMIT_S)
            s.bind(path)
            c.environment["NOTIFY_SOCKET"] = path
            c.start()
            for expected in (b"READY=1\nSTATUS=", b"STATUS="):
                c.must("NOTIFY")
                assert s.recv(4096) == expected
            c.process.terminate()
            assert s.recv(4096) == b"STOPPING=1"
            c.client.write("exit 0\n")
            c.client.flush()
        c.wait(0)

    def resolved(self):
        """A bus with a stand-in for systemd-resolved, of another user."""
        config = os.path.join(self.c.top, "bus.conf")
        address = f"unix:path={self.c.top}/bus"
        with open(config, "w", encoding="utf-8") as f:
            f.write('<busconfig><type>system</type><auth>EXTERNAL</auth>'
                    f"<listen>{address}</listen>"
                    '<policy context="default"><allow user="*"/><allow own="*"/>'
                    '<allow send_destination="*"/><allow receive_sender="*"/>'
                    "</policy></busconfig>")
        os.chmod(self.c.top, 0o755)
        self.c.environment["DBUS_SYSTEM_BUS_ADDRESS"] = address
        yield subprocess.Popen(["dbus-daemon", f"--config-file={config}", "--nofork",
                                "--nopidfile"])
        wait_for("the bus", lambda: os.path.exists(f"{self.c.top}/bus"))
        yield subprocess.Popen([self.stub, "resolved"], stdout=subprocess.PIPE, text=True,
                               env={"DBUS_SYSTEM_BUS_ADDRESS": address}, user=NOBODY, group=NOBODY)

    def test_resolved(self):
        """The bus is spoken to from inside the sandbox, and only about torvm0."""
        bus, service = self.resolved()
        try:
            ready = service.stdout.readline()
            assert ready == "ready\n", ready
            c = self.c
            c.start()
            vm = c.protect()
            assert c.must("STATUS") == [0x3f, vm]
            index = socket.if_nametoindex("torvm0")
            c.must("RESTORE_DNS")
            assert c.must("STATUS") == [0x2f, vm]
            c.must("SET_DNS")
            c.stop()
            self.restored()
        finally:
            service.kill()
            calls = [line.split() for line in service.stdout]
            service.wait()
            bus.kill()
            bus.wait()
        members = [call[0] for call in calls]
        for member in ("SetLinkDNS", "SetLinkDomains", "SetLinkDefaultRoute", "RevertLink"):
            assert member in members, calls
        assert members[-1] == "FlushCaches", calls
        assert all(call[1] == str(index) for call in calls if call[0] != "FlushCaches"), calls

    def test_qemu_killed(self):
        c = self.c
        c.start()
        vm = c.protect()
        with self.no_leak():
            for request in (None, "KILL_VM"):
                if request:
                    c.must(request)
                else:
                    os.kill(vm, signal.SIGKILL)
                c.await_event("VM_EXITED")
                assert c.must("STATUS")[1] == 0
                vm = c.must("START_VM")[0]
                c.must("CONFIGURE_TAP")
        c.stop()
        self.restored()

    def test_configuration_spoilt(self):
        """Every engine gets the configuration that the first one accepted."""
        c = self.c
        path = os.path.join(c.top, "torvm.json")
        with open(path, "w", encoding="ascii") as f:
            f.write("good")
        os.chmod(path, 0o640)
        c.start("--config", path)
        assert c.ask("config")[1:] == ["0/100640", "good"]
        c.protect()
        engine = c.must("pid")[0]
        with open(path, "w", encoding="ascii") as f:
            f.write("spoilt")
        os.kill(engine, signal.SIGKILL)
        wait_for("the engine's end", lambda: not alive(engine))
        c.connect()
        assert c.must("resumed") == [1]
        assert c.ask("config")[1:] == ["0/100640", "good"]
        c.stop()
        self.restored()

    def test_engine_killed(self):
        c = self.c
        c.start()
        vm = c.protect()
        engine = c.must("pid")[0]
        with self.no_leak():
            os.kill(engine, signal.SIGKILL)
            wait_for("the engine's end", lambda: not alive(engine))
            c.connect()
            assert c.must("resumed") == [1]
            assert c.must("pid")[0] != engine
            assert c.must("STATUS") == [0x2f, vm]
            assert alive(vm)
            c.must("BLOCK")
        c.stop()
        self.restored()

    def test_engine_that_hangs(self):
        """It is replaced after some ticks; the block and the VM stay."""
        c = self.c
        c.start()
        vm = c.protect()
        engine = c.must("pid")[0]
        with self.no_leak():
            os.kill(engine, signal.SIGSTOP)
            wait_for("the engine's end", lambda: not alive(engine), 120)
            c.connect()
            assert c.must("resumed") == [1]
            assert c.must("STATUS") == [0x2f, vm]
        c.stop()
        self.restored()

    def broker_dies(self, kill):
        c = self.c
        c.start()
        vm = c.protect()
        engine, spawner = c.must("pid")[0], c.spawner()
        kill(spawner)
        c.process.wait(LIMIT_S)
        for pid in (vm, engine, spawner):
            wait_for(f"the end of {pid}", lambda pid=pid: not alive(pid))
        return vm

    def test_broker_killed(self):
        """Nothing of it lives, nothing leaves; recovery opens the network."""
        with contextlib.ExitStack() as stack:
            def kill(spawner):
                stack.enter_context(self.no_leak())
                self.c.process.kill()
            self.broker_dies(kill)
        said = self.c.recover()
        for part in ("torvm0", "rules", "firewall", "rp_filter"):
            assert part in said, said
        assert "Nothing to recover" in self.c.recover()
        assert not os.listdir(self.c.runtime)
        self.restored()

    def test_spawner_killed(self):
        self.broker_dies(lambda spawner: os.kill(spawner, signal.SIGKILL))
        assert self.c.process.returncode == 1
        with self.no_leak():
            pass
        self.c.recover()
        self.restored()

    def test_recover_without_journal(self):
        self.broker_dies(lambda spawner: self.c.process.kill())
        with open("/proc/sys/net/ipv4/conf/up0/rp_filter", "w", encoding="ascii") as f:
            f.write("1")  # only the journal knows that one
        shutil.rmtree(self.c.runtime)
        # As if the configuration had called it so; recovery does not read it.
        run("ip", "link", "set", "torvm0", "down", "name", "own9")
        assert "own9" in self.c.recover()
        self.restored()

    def journal(self, change=None):
        """The text of the journal of a dead broker, changed."""
        path = os.path.join(self.c.runtime, "journal")
        with open(path, encoding="ascii") as f:
            text = f.read()
        if change:
            with open(path, "w", encoding="ascii") as f:
                f.write(change(text))
        return text

    @contextlib.contextmanager
    def another_boot(self):
        """For whoever asks in here, the machine was started anew. No namespace
        can be: the file with the boot's id is another one, the rest stays."""
        path = os.path.join(self.c.top, "boot_id")
        with open(path, "w", encoding="ascii") as f:
            f.write("01234567-89ab-cdef-0123-456789abcdef\n")
        run("mount", "--bind", path, "/proc/sys/kernel/random/boot_id")
        try:
            yield
        finally:
            run("umount", "/proc/sys/kernel/random/boot_id")

    def strict_again(self):
        """Only the journal knows the kernel setting that was changed."""
        with open("/proc/sys/net/ipv4/conf/up0/rp_filter", "w", encoding="ascii") as f:
            f.write("1")

    def test_journals_that_do_not_count(self):
        """Torn, of another boot or network: recovery goes by TorVM's own names,
        and so does the next start."""
        changes = {
            "empty": lambda text: "",
            "torn": lambda text: text[:len(text) // 2],
            "without its end": lambda text: text[:-4],
            "foreign": lambda text: text.replace("netns ", "netns 9"),
        }
        for name, change in changes.items():
            for by_start in (False, True):
                self.broker_dies(lambda spawner: self.c.process.kill())
                self.journal(change)
                # A crash in the midst of writing the next one.
                with open(os.path.join(self.c.runtime, "journal.new"), "w",
                          encoding="ascii") as f:
                    f.write("torvm-jour")
                if by_start:
                    self.c.start()
                    self.c.protect()
                    self.c.stop()
                else:
                    said = self.c.recover()
                    for word in ("journal", "the network is open"):
                        assert word in said, (name, said)
                    assert not os.listdir(self.c.runtime), name
                self.strict_again()
                self.restored()

    def test_machine_reset(self):
        """A journal of another boot is void: what is in the kernel counts."""
        with contextlib.ExitStack() as stack:
            def kill(spawner):
                stack.enter_context(self.no_leak())
                self.c.process.kill()
            self.broker_dies(kill)
        with self.another_boot():
            said = self.c.recover()
            assert "another boot" in said and "the network is open" in said, said
            self.strict_again()
            self.restored()
            assert "Nothing to recover" in self.c.recover()
        # Nothing of it is there: the journal alone came through the reset.
        self.broker_dies(lambda spawner: self.c.process.kill())
        text = self.journal()
        self.c.recover()
        with open(os.path.join(self.c.runtime, "journal"), "w", encoding="ascii") as f:
            f.write(text)
        self.restored()
        with self.another_boot():
            said = self.c.recover()
            assert "another boot" in said, said
            self.restored()
            os.rmdir(self.c.runtime)
            self.c.start()
            self.c.protect()
            self.c.stop()
        self.restored()

    @contextlib.contextmanager
    def full(self, directory):
        """No byte can be written there."""
        filler = os.path.join(directory, "filler")
        with open(filler, "wb", buffering=0) as f, contextlib.suppress(OSError):
            while True:
                f.write(bytes(4096))
        try:
            yield
        finally:
            os.unlink(filler)

    def test_runtime_directory_full(self):
        """Nothing is changed that could not be noted; the block stays, and what
        is there can be taken back."""
        c = self.c
        os.mkdir(c.runtime)
        run("mount", "-t", "tmpfs", "-o", "nr_inodes=1,mode=755", "none", c.runtime)
        done = subprocess.run([os.path.join(c.top, "bin", "torvm-broker"),
                               "--runtime-dir", c.runtime, "--state-dir", c.state],
                              stderr=subprocess.PIPE, text=True, check=False)
        assert done.returncode == 5, done
        assert "No space left" in done.stderr and c.runtime in done.stderr, done
        self.restored()
        run("mount", "-o", "remount,size=256k,nr_inodes=100", c.runtime)
        c.start()
        c.write_argv(QEMU_ARGV)
        with self.full(c.runtime):
            said = c.refused("BLOCK")
            assert "No space left" in said and "journal" in said, said
            self.open_network()
        c.must("BLOCK")
        with self.no_leak():
            with self.full(c.runtime):
                said = c.refused("CREATE_TAP")
                assert "No space left" in said, said
                assert "torvm0" not in run("ip", "link")
            c.must("CREATE_TAP")
            with self.full(c.runtime):
                said = c.refused("START_VM")
                assert "No space left" in said, said
                assert c.must("STATUS")[1] == 0
            c.must("START_VM")
            c.must("CONFIGURE_TAP")
        with self.full(c.runtime):
            for request in ("DELETE_TAP", "RESTORE_DNS", "UNBLOCK"):
                c.must(request)
        c.client.write("exit 0\n")
        c.client.flush()
        c.wait(0)
        assert os.listdir(c.runtime) == [], os.listdir(c.runtime)
        run("umount", c.runtime)
        os.rmdir(c.runtime)
        self.restored()

    def test_next_start_adopts(self):
        """There is no open moment between two controllers."""
        c = self.c
        with contextlib.ExitStack() as stack:
            def kill(spawner):
                stack.enter_context(self.no_leak())
                c.process.kill()
            self.broker_dies(kill)
            c.start()
            c.protect()
        c.stop()
        self.restored()

    def test_adopted_and_stopped(self):
        """A stop opens what an earlier controller left, too."""
        c = self.c
        self.broker_dies(lambda spawner: c.process.kill())
        c.start()
        c.must("pid")  # the stand-in has taken the connection
        c.process.terminate()
        c.await_event("STOP")
        c.client.write("exit 0\n")
        c.client.flush()
        c.wait(0)
        self.restored()

    def test_adopted_and_refused(self):
        """A configuration that is refused does not open it."""
        c = self.c
        self.broker_dies(lambda spawner: c.process.kill())
        c.start()
        c.client.write("exit 4\n")
        c.client.flush()
        c.wait(4)
        with self.no_leak():
            pass
        c.recover()
        self.restored()

    def test_early_exit(self):
        """What the engine found before BLOCK is the broker's exit code."""
        c = self.c
        c.start()
        c.must("PRECHECK")
        c.client.write("exit 5\n")
        c.client.flush()
        c.wait(5)
        assert not os.path.exists(c.runtime)
        self.restored()

    def test_stop(self):
        c = self.c
        c.start()
        c.protect()
        c.process.send_signal(signal.SIGHUP)
        c.process.terminate()
        c.await_event("STOP")
        c.process.send_signal(signal.SIGINT)
        c.stop()
        self.restored()

    def test_stop_without_engine(self):
        """An engine that dies while stopping leaves the rest to the broker."""
        c = self.c
        c.start()
        vm = c.protect()
        engine = c.must("pid")[0]
        os.kill(engine, signal.SIGSTOP)
        c.process.terminate()
        os.kill(engine, signal.SIGKILL)
        c.wait(0)
        assert not alive(vm)
        self.restored()

    def test_repair(self):
        c = self.c
        c.start()
        c.protect()
        with self.no_leak():
            # Rules first: with them gone, the tables alone hold.
            run("ip", "rule", "flush")
            c.await_event("REPAIRED")
            # A flush is not one step: it goes on while the first is repaired.
            wait_for("the rules", lambda: {100, 110, 120} <= {
                rule["priority"] for rule in json.loads(run("ip", "-j", "rule"))})
        run("ip", "rule", "add", "from", "all", "lookup", "main", "pref", "32766")
        run("ip", "rule", "add", "from", "all", "lookup", "default", "pref", "32767")
        subprocess.run(["nft", "delete", "table", "inet", "torvm"], check=False,
                       stderr=subprocess.DEVNULL)
        # Where the table is owned, the kernel refuses that.
        if not self.kernel_owns():
            c.await_event("REPAIRED")
        with self.no_leak():
            run("ip", "link", "del", "torvm0")
            c.await_event("TAP_LOST")
            c.must("KILL_VM")
            c.must("CREATE_TAP")
            c.must("START_VM")
            c.must("CONFIGURE_TAP")
        c.stop()
        self.restored()

    def test_repair_of_the_address(self):
        """As NetworkManager takes it when it is switched off, if it may. The route
        goes with it."""
        def state():
            return (run("ip", "-j", "addr", "show", "torvm0"),
                    run("ip", "route", "show", "table", "9095"),
                    run("ip", "neigh", "show", "dev", "torvm0"))

        c = self.c
        c.start()
        c.protect()
        whole = state()
        assert "10.10.10.2" in whole[0] and "default" in whole[1] and whole[2], whole
        with self.no_leak():
            # Among others, and as the last one, which takes more with it.
            run("ip", "addr", "add", "192.0.2.77/32", "dev", "torvm0")
            run("ip", "addr", "del", "10.10.10.2/30", "dev", "torvm0")
            wait_for("the address", lambda: "10.10.10.2" in state()[0])
            run("ip", "addr", "del", "192.0.2.77/32", "dev", "torvm0")
            run("ip", "addr", "flush", "dev", "torvm0")
            wait_for("the link as it was", lambda: state() == whole)
        c.stop()
        self.restored()

    def test_vpn_rules_ahead(self):
        """wg-quick's rules land ahead of ours; the broker moves ours."""
        theirs = (["not", "fwmark", "51820", "table", "51820"],
                  ["table", "main", "suppress_prefixlength", "0"])

        def first():
            rules = json.loads(run("ip", "-j", "rule"))
            return [r["priority"] for r in rules if r.get("table") == "9095"][0] < min(
                r["priority"] for r in rules
                if r["priority"] and str(r.get("protocol")) != "116")

        c = self.c
        c.start()
        c.protect()
        assert first()
        with self.no_leak():
            for rule in theirs:
                run("ip", "rule", "add", *rule)
            c.await_event("REPAIRED")
            wait_for("TorVM's rules to come first", first)
            for rule in theirs:
                run("ip", "rule", "del", *rule)
            wait_for("their own places", lambda: {100, 110, 120} <= {
                rule["priority"] for rule in json.loads(run("ip", "-j", "rule"))})
        c.stop()
        self.restored()

    @staticmethod
    def kernel_owns():
        major, minor = os.uname().release.split(".")[:2]
        return (int(major), int(minor)) >= (6, 9)

    def test_one_controller(self):
        c = self.c
        c.start()
        other = Controller(self)
        try:
            done = subprocess.run([os.path.join(c.top, "bin", "torvm-broker"), "--runtime-dir",
                                   other.runtime, "--state-dir", other.state],
                                  stderr=subprocess.PIPE, text=True, check=False)
            assert done.returncode == 7, done
            assert f"pid {c.process.pid}" in done.stderr, done.stderr
            assert not os.path.exists(other.runtime)
            assert "torvm down" in c.recover(code=7)
        finally:
            other.close()
        c.must("BLOCK")
        # Its folder is deleted: no command finds it, but the way out is named.
        shutil.rmtree(c.runtime)
        assert f"kill {c.process.pid}" in c.recover(code=7)
        c.stop()
        self.restored()

    def test_squatter(self):
        """Anybody can take an abstract name; the message tells who did."""
        c = self.c
        squatter = subprocess.Popen(
            ["/usr/bin/env", "python3", "-c", "import socket, sys\n"
             "s = socket.socket(socket.AF_UNIX)\ns.bind('\\0torvm-broker')\ns.listen()\n"
             "print('ready', flush=True)\nsys.stdin.read()"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, user=NOBODY, group=NOBODY,
            cwd="/", env={"PATH": "/usr/bin:/bin"})
        with squatter:
            assert squatter.stdout.readline() == "ready\n"
            done = subprocess.run([os.path.join(c.top, "bin", "torvm-broker"), "--runtime-dir",
                                   c.runtime, "--state-dir", c.state],
                                  stderr=subprocess.PIPE, text=True, check=False)
            assert done.returncode == 7, done
            assert f"kill {squatter.pid}" in done.stderr, done.stderr
            squatter.stdin.close()
        self.restored()

    def test_directories(self):
        """Wrong directories end in a sentence, and nothing is changed."""
        c = self.c
        program = os.path.join(c.top, "bin", "torvm-broker")

        def refused(code, word, **kw):
            done = subprocess.run([program, "--runtime-dir", kw.get("runtime", c.runtime),
                                   "--state-dir", kw.get("state", c.state), *kw.get("more", [])],
                                  stderr=subprocess.PIPE, text=True, check=False)
            assert done.returncode == code, done
            assert word in done.stderr, done.stderr
        link = os.path.join(c.top, "link")
        os.symlink(c.state, link)
        foreign = os.path.join(c.top, "foreign")
        os.mkdir(foreign)
        os.chown(foreign, 12345, 12345)
        shared = os.path.join(c.top, "shared")
        os.mkdir(shared)
        os.chmod(shared, 0o777)
        refused(5, "not a directory", state=link)
        refused(5, "not a directory", runtime=link)
        refused(5, "belongs to user 12345", state=foreign)
        refused(5, "belongs to user 12345", runtime=foreign)
        refused(5, "written to by others", runtime=shared)
        refused(5, "parent", state=os.path.join(c.top, "no", "such"))
        read_only = os.path.join(c.top, "read-only")
        os.mkdir(read_only)
        run("mount", "-t", "tmpfs", "-o", "ro", "none", read_only)
        refused(5, "Read-only", state=read_only)
        refused(5, "Read-only", runtime=os.path.join(read_only, "run"))
        run("umount", read_only)
        refused(5, "image folder", more=["--image-dir", "/nowhere"])
        refused(4, "cannot be opened", more=["--config", "/nowhere.json"])
        refused(2, "--accel", more=["--accel", "xen"])
        refused(2, "--confirm", more=["--confirm", "0"])
        refused(5, "image folder", more=["--image-dir", "/nowhere"],
                state=os.path.join(c.top, "new"))
        left = set(os.listdir(c.top))
        assert left == {"bin", "state", "link", "foreign", "shared", "read-only"}, left
        self.restored()

    def test_wrong_programs(self):
        """Only a confined QEMU that belongs to root is started."""
        c = self.c
        c.start()
        for request in ("BLOCK", "CREATE_TAP"):
            c.must(request)
        copy = os.path.join(c.top, "qemu-system-x86_64")
        shutil.copy(QEMU, copy)
        os.chmod(c.top, 0o777)
        for argv, word in ((["/bin/sh", *QEMU_ARGV[1:]], "qemu-system"),
                           ([QEMU, "-nodefaults"], "-no-user-config"),
                           ([copy, *QEMU_ARGV[1:]], "belongs to root"),
                           (["/usr/bin/qemu-system-none", *QEMU_ARGV[1:]], "No such file")):
            c.write_argv(argv)
            said = c.refused("START_VM")
            assert word in said, said
        os.chmod(c.top, 0o700)
        c.write_argv(QEMU_ARGV)
        c.must("START_VM")
        c.stop()
        self.restored()


def run_one(kind, broker, stub, name):
    unshare_net()
    test = kind(broker, stub)
    try:
        getattr(test, name)()
    finally:
        test.close()


def main(kind, broker, stub, *names):
    """Runs the cases of a class, each in a process and a network of its own."""
    if os.geteuid() != 0:
        print("needs root", file=sys.stderr)
        return 77
    names = names or [n for n in sorted(vars(kind)) if n.startswith("test_")]
    failed = []
    for name in names:
        started = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                run_one(kind, broker, stub, name)
                code = 0
            except BaseException:  # pylint: disable=broad-except
                import traceback
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        ok = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        print(f"{'ok' if ok else 'FAILED'} {name} ({time.monotonic() - started:.1f} s)")
        if not ok:
            failed.append(name)
    print(f"{len(names) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(Test, *sys.argv[1:]))
