#!/usr/bin/python3
"""A real boot of systemd with the installed units, in a container.

    boot-test.py [BUILD]

The container (systemd-nspawn) has a copy-on-write view of this machine's root, its
own network, and TorVM installed as `make install` does it. A stand-in for a network
manager brings the uplink up as early as one may (after network-pre.target) and sends
at once. The judge is a capture at the other end of the uplink. Not part of `make
test`: it needs systemd-nspawn, cgroup v2 and a machine with systemd installed.
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
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CLONE_NEWNET, CLONE_NEWNS = 0x40000000, 0x00020000
PROBE = ("198.51.100.9", 4242)
LIMIT_S = 180

UNITS = {
    "boot-test.target": """
[Unit]
Wants=basic.target uplink.service
After=basic.target uplink.service
AllowIsolate=yes
""",
    # What every network manager's unit says, and the first thing it does.
    "uplink.service": """
[Unit]
DefaultDependencies=no
Wants=network-pre.target
After=network-pre.target
Before=network.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/bash /etc/uplink
""",
}
UPLINK = """
ip link set lo up
ip addr add 192.0.2.2/24 dev up0
ip link set up0 up
ip route add default via 192.0.2.1
ip neigh replace 192.0.2.1 lladdr 02:00:00:00:00:01 nud permanent dev up0
for i in 1 2 3; do echo probe >/dev/udp/%s/%d; done
true
""" % PROBE


def run(*argv, **kwargs):
    return subprocess.run(
        argv, check=True, stdout=subprocess.PIPE, universal_newlines=True, **kwargs
    ).stdout


def expect(condition, message):
    if not condition:
        raise AssertionError(message)


def wait_for(what, condition):
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.2)
    raise AssertionError("not within %d s: %s" % (LIMIT_S, what))


def prepare():
    """A network and mounts of our own, with the unified cgroups that a container of
    systemd wants; a read-only /sys tells it that no udev is in charge here."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET | CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    run("mount", "--make-rprivate", "/")
    run("mount", "-t", "sysfs", "-o", "ro", "none", "/sys")
    run("mount", "-t", "cgroup2", "none", "/sys/fs/cgroup")
    run("ip", "link", "set", "lo", "up")


class Capture:
    """The other end of the uplink."""

    def __init__(self):
        run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "peer0")
        run("ip", "link", "set", "peer0", "up")
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.socket.bind(("peer0", 0))
        self.socket.setblocking(False)

    def probes(self):
        """How many probes came since the last call."""
        seen = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                packet = self.socket.recv(2048)
                if (
                    packet[12:14] == b"\x08\x00"
                    and packet[23] == socket.IPPROTO_UDP
                    and packet[36:38] == struct.pack("!H", PROBE[1])
                ):
                    seen += 1
        return seen

    def close(self):
        self.socket.close()
        subprocess.run(["ip", "link", "del", "peer0"], check=False)


class Machine:
    """One boot."""

    def __init__(self, build, lockdown):
        self.top = tempfile.mkdtemp(prefix="torvm-boot-")
        self.capture = Capture()
        self.cgroup = "/sys/fs/cgroup/torvm-boot-%d" % os.getpid()
        self.process = None
        run("mount", "-t", "tmpfs", "none", self.top)
        for name in ("upper", "work", "root"):
            os.mkdir(os.path.join(self.top, name))
        self.root = os.path.join(self.top, "root")
        options = "lowerdir=/,upperdir=%s/upper,workdir=%s/work" % (self.top, self.top)
        run("mount", "-t", "overlay", "-o", options, "none", self.root)
        self.install(build, lockdown)
        self.boot()

    def install(self, build, lockdown):
        run(
            *("meson", "install", "-C", build, "--no-rebuild", "--quiet"),
            env={**os.environ, "DESTDIR": self.root},
        )
        images = os.path.join(self.root, "usr/lib/torvm/vm")
        shutil.copytree(os.path.join(TOP, "dist", "vm"), images)
        units = os.path.join(self.root, "etc/systemd/system")
        for name, text in UNITS.items():
            with open(os.path.join(units, name), "w", encoding="ascii") as f:
                f.write(text)
        with open(os.path.join(self.root, "etc/uplink"), "w", encoding="ascii") as f:
            f.write(UPLINK)
        if lockdown:
            # As "systemctl enable torvm-lockdown" does.
            wants = os.path.join(units, "sysinit.target.wants")
            os.makedirs(wants, exist_ok=True)
            os.symlink(
                "/usr/lib/systemd/system/torvm-lockdown.service",
                os.path.join(wants, "torvm-lockdown.service"),
            )

    def boot(self):
        os.mkdir(self.cgroup)

        def enter():
            with open(self.cgroup + "/cgroup.procs", "w", encoding="ascii") as f:
                f.write(str(os.getpid()))

        self.process = subprocess.Popen(
            [
                *("systemd-nspawn", "--quiet", "--directory", self.root, "--boot"),
                *("--register=no", "--keep-unit", "--link-journal=no"),
                *("--network-interface=up0", "--bind=/dev/net/tun"),
                *("--resolv-conf=off", "--timezone=off", "--console=pipe"),
                *("--machine=torvm-boot", "systemd.unit=boot-test.target"),
            ],
            stdin=subprocess.DEVNULL,
            env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            preexec_fn=enter,
        )
        wait_for("the boot", self.booted)

    def leader(self):
        expect(self.process.poll() is None, "the container ended")
        path = "/proc/%d/task/%d/children" % (self.process.pid, self.process.pid)
        with open(path, encoding="ascii") as f:
            children = f.read().split()
        return children[0] if children else None

    def ask(self, *argv):
        """A command in the container: exit code and output."""
        leader = self.leader()
        if not leader:
            return 1, ""
        done = subprocess.run(
            ["nsenter", "--target", leader, "--all", "--wd=/", *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            universal_newlines=True,
            timeout=LIMIT_S,
            check=False,
        )
        return done.returncode, done.stdout

    def booted(self):
        return self.ask("systemctl", "is-active", "boot-test.target")[1] == "active\n"

    def activated(self, unit):
        """Microseconds after the machine's start at which a unit was active."""
        _, out = self.ask(
            *("systemctl", "show", "--value"),
            *("-p", "ActiveEnterTimestampMonotonic", unit),
        )
        return int(out)

    def probe(self):
        self.ask("bash", "-c", "echo probe >/dev/udp/%s/%d" % PROBE)

    def status(self):
        _, out = self.ask("torvm", "status", "--json")
        with contextlib.suppress(ValueError):
            return json.loads(out)
        return {"state": out, "blocked": False, "vm": {"pid": None}}

    def close(self):
        if self.process:
            with contextlib.suppress(AssertionError):
                leader = self.leader()
                if leader:  # the end of a PID 1 is the end of all
                    os.kill(int(leader), signal.SIGKILL)
            self.process.wait()
        self.capture.close()
        for directory, _, _ in sorted(os.walk(self.cgroup), reverse=True):
            wait_for("the container's end", lambda d=directory: self.removed(d))
        run("umount", "-R", "-l", self.top)
        os.rmdir(self.top)

    @staticmethod
    def removed(directory):
        with contextlib.suppress(FileNotFoundError):
            try:
                os.rmdir(directory)
            except OSError:
                return False
        return True


def without_lockdown(build):
    """The positive control: what is sent at boot is seen."""
    machine = Machine(build, lockdown=False)
    try:
        expect(machine.capture.probes() >= 3, "the probes of the boot were not seen")
    finally:
        machine.close()


def with_lockdown(build):
    """Nothing leaves from the first moment on, and the service works under it."""
    machine = Machine(build, lockdown=True)
    try:
        code, out = machine.ask("systemctl", "is-active", "torvm-lockdown.service")
        expect(code == 0, "torvm-lockdown.service: %s" % out)
        expect(
            machine.activated("torvm-lockdown.service")
            <= machine.activated("network-pre.target")
            <= machine.activated("uplink.service"),
            "the block came after the network",
        )
        expect(machine.capture.probes() == 0, "probes of the boot were seen")

        code, out = machine.ask("systemctl", "start", "--no-block", "torvm.service")
        expect(code == 0, "systemctl start: %s" % out)
        try:
            wait_for("a VM", lambda: machine.status()["vm"]["pid"])
        except AssertionError:
            print(machine.ask("systemctl", "status", "--no-pager", "-l", "torvm")[1])
            raise
        # Tor comes up in it; there is no network for it to join.
        wait_for("Tor", lambda: machine.status()["state"] == "WaitBootstrap")
        expect(machine.status()["blocked"], "not blocked while it starts")
        machine.probe()
        expect(machine.capture.probes() == 0, "a probe got past the service's block")

        code, out = machine.ask("systemctl", "stop", "torvm.service")
        expect(code == 0, "systemctl stop: %s" % out)
        code, out = machine.ask("systemctl", "show", "--value", "-p", "Result", "torvm")
        expect(out == "success\n", "torvm.service ended with: %s" % out)
        machine.probe()
        expect(machine.capture.probes() == 0, "the stop opened the network")
        code, out = machine.ask("torvm", "lockdown", "off")
        expect(code == 0, "lockdown off: %s" % out)
        machine.probe()
        wait_for("the last probe", machine.capture.probes)
    finally:
        machine.close()


def main(build):
    if os.geteuid() != 0 or not shutil.which("systemd-nspawn"):
        print("needs root and systemd-nspawn (package systemd-container)", file=sys.stderr)
        return 77
    prepare()
    tests = (without_lockdown, with_lockdown)
    print("1..%d" % len(tests))
    failed = 0
    for number, test in enumerate(tests, 1):
        begin = time.monotonic()
        word = "ok"
        try:
            test(build)
        except (AssertionError, OSError, subprocess.SubprocessError) as e:
            print("# %s" % e)
            word, failed = "not ok", failed + 1
        print("%s %d - %s # %.1f s" % (word, number, test.__doc__, time.monotonic() - begin))
        sys.stdout.flush()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*(sys.argv[1:] or [os.path.join(TOP, "build")])))
