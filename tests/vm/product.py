"""TorVM in a lab's host, driven by its documented commands alone."""

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tests", "lab"))

from errors import LabError  # noqa: E402, F401
from labapi import Lab  # noqa: E402

TORVM = os.path.join(TOP, "build", "torvm")
PROBE = os.path.join(TOP, "tests", "vm", "probe.py")
RUNNING_TIMEOUT_S = 90


class Failure(AssertionError):
    """What a test found wrong."""


def expect(condition, message):
    if not condition:
        raise Failure(message)


def wait_for(what, condition, timeout_s, interval_s=0.1):
    """Poll until condition() is true; returns its value."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failure("waited %g s in vain for: %s" % (timeout_s, what))
        time.sleep(interval_s)


class Result:
    """What a command did: exit code, both outputs, seconds."""

    def __init__(self, done, seconds):
        self.code = done.returncode
        self.out = done.stdout
        self.err = done.stderr
        self.seconds = seconds

    def __str__(self):
        return "exit %d\n%s%s" % (self.code, self.out, self.err)


class Pester:
    """Does something over and over, in a thread, until the end of a with."""

    def __init__(self, once, pause_s):
        self.rounds = 0
        self.error = None
        self._once = once
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop)

    def _loop(self):
        try:
            while not self._stop.is_set():
                self._once()
                self.rounds += 1
                self._stop.wait(self._pause_s)
        except Exception as e:  # told to the test when it ends
            self.error = e

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
        if self.error:
            raise self.error
        expect(self.rounds > 0, "no probe was made")


class Product:
    """One TorVM in `lab`'s host. Its files are in `directory`."""

    def __init__(self, lab: Lab, directory, config=None, image_dir=None, engine=None):
        """engine: another torvmd than the build folder's."""
        self.lab = lab
        self.program = TORVM
        if engine:
            self.program = self._programs(os.path.join(directory, "bin"), engine)
        self.directory = directory
        self.runtime = os.path.join(directory, "run")
        self.state = os.path.join(directory, "state")
        self.accel = "tcg"
        self.image = image_dir or os.path.join(TOP, "dist", "vm")
        self.config_path = os.path.join(directory, "torvm.json")
        os.makedirs(directory, exist_ok=True)
        self.configure(**(config or {}))

    @staticmethod
    def _programs(folder, engine):
        """Copies that find each other in `folder`; returns that of torvm."""
        os.makedirs(folder)
        build = os.path.dirname(TORVM)
        for name in ("torvm", "torvm-broker"):
            shutil.copy(os.path.join(build, name), folder)
        shutil.copy(os.path.join(build, engine), os.path.join(folder, "torvmd"))
        return os.path.join(folder, "torvm")

    def configure(self, **sections):
        """Write the configuration: the lab's, with sections over it."""
        config = self.lab.torvm_config(**sections)
        with open(self.config_path, "w", encoding="utf-8") as f:
            json.dump(config, f, indent=1)
        os.chmod(self.config_path, 0o600)
        return config

    # --- commands -----------------------------------------------------------

    def run(self, *args, timeout=120, env=None, **kwargs):
        """A command of torvm's, or of another program's, in the host."""
        start = time.monotonic()
        kwargs.setdefault("stdin", subprocess.DEVNULL)
        done = self.lab.run(
            "host",
            list(args),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            universal_newlines=True,
            timeout=timeout,
            env={**clean_environment(), **(env or {})},
            **kwargs,
        )
        return Result(done, time.monotonic() - start)

    def options(self):
        return [
            *("--config", self.config_path, "--accel", self.accel),
            *("--runtime-dir", self.runtime, "--state-dir", self.state),
            *("--image-dir", self.image),
        ]

    def torvm(self, *args, **kwargs):
        """A client command: torvm ARGS --runtime-dir DIR."""
        return self.run(self.program, *args, "--runtime-dir", self.runtime, **kwargs)

    def up(self, *more, timeout=RUNNING_TIMEOUT_S + 30, **kwargs):
        """torvm up --wait, which has to succeed."""
        done = self.run(
            *(self.program, "up", "--wait", *self.options(), *more),
            timeout=timeout,
            **kwargs,
        )
        expect(done.code == 0, "torvm up --wait: %s\n%s" % (done, self.log()))
        return done

    def up_until_blocked(self):
        """torvm up, which returns as soon as the block is in place."""
        done = self.run(self.program, "up", *self.options(), timeout=60)
        expect(done.code == 0, "torvm up: %s" % done)
        expect(self.status()["blocked"], "torvm up returned without a block")

    def headless(self, *more, options=None, env=None, **kwargs):
        """torvm --headless in the foreground: a Popen. SIGTERM reaches it."""
        kwargs.setdefault("stdin", subprocess.DEVNULL)
        kwargs.setdefault("stdout", subprocess.PIPE)
        kwargs.setdefault("stderr", subprocess.STDOUT)
        return self.lab.popen(
            "host",
            [self.program, "--headless", *(options or self.options()), *more],
            universal_newlines=True,
            env={**clean_environment(), **(env or {})},
            **kwargs,
        )

    def down(self, timeout=60):
        done = self.torvm("down", timeout=timeout)
        expect(done.code == 0, "torvm down: %s" % done)
        return done

    def status(self):
        done = self.torvm("status", "--json", timeout=20)
        try:
            status = json.loads(done.out)
        except ValueError:
            raise Failure("torvm status --json: %s" % done) from None
        want = 0 if status["state"] == "Running" else 3
        expect(done.code == want, "status exits %d in %s" % (done.code, status["state"]))
        return status

    def wait_state(self, *states, timeout_s=RUNNING_TIMEOUT_S):
        def reached():
            status = self.status()
            return status if status["state"] in states else None

        try:
            return wait_for("state " + " or ".join(states), reached, timeout_s, 0.2)
        except Failure as e:
            raise Failure("%s; now %s\n%s" % (e, self.status(), self.log())) from None

    def log(self):
        return self.torvm("log", timeout=20).out

    def ensure_running(self):
        if self.status()["state"] != "Running":
            self.ensure_down()
            self.up()

    def ensure_down(self):
        """Whatever state a failed test left: nothing of TorVM after this."""
        with contextlib.suppress(Failure, subprocess.TimeoutExpired):
            self.torvm("down", timeout=60)
        for name in ("torvm-broker", "torvmd"):
            for pid in self.pids(name):
                self.kill(pid, signal.SIGKILL)
        self.torvm("recover", timeout=60)

    # --- processes ----------------------------------------------------------

    def pids(self, name):
        """PIDs, in the host's namespace, of processes whose comm is `name`."""
        done = self.run("pgrep", "-x", name[:15], timeout=20)
        return [int(pid) for pid in done.out.split()]

    def qemu_pids(self):
        """The VMs, also while the engine answers nothing."""
        return [int(pid) for pid in self.run("pgrep", "qemu-system").out.split()]

    def alive(self, name):
        """As pids(), without those that only wait to be reaped."""
        return self.run("pgrep", "-r", "D,R,S,T", "-x", name[:15], timeout=20).out

    def order(self, name, text):
        """Tells the tests' engine something: src/daemon/test-engine.c."""
        path = self.lab.machine("host").path(os.path.join(self.state, name))
        with open(path + ".new", "w", encoding="ascii") as f:
            f.write(text + "\n")
        os.chmod(path + ".new", 0o644)
        os.rename(path + ".new", path)

    def pid(self, name):
        pids = self.pids(name)
        expect(pids, "no process named %s" % name)
        return pids[0]

    def kill(self, pid, signum=signal.SIGKILL):
        self.lab.machine("host").kill(pid, signum)

    def kill_everything(self):
        """kill -9 of the controller: broker, spawner, engine and QEMU."""
        broker, engine = self.pids("torvm-broker"), self.pids("torvmd")
        for pid in broker + engine + self.qemu_pids():
            self.kill(pid)
        wait_for(
            "the end of all processes",
            lambda: not self.pids("torvm-broker") and not self.pids("torvmd"),
            10,
        )

    # --- network ------------------------------------------------------------

    def snapshot(self):
        return snapshot(self.lab)

    def probe(self, *args, timeout=60, user=None):
        """Probes of probe.py: {name: {"error": errno name or "", ...}}."""
        argv = ["/usr/bin/python3", PROBE, *args]
        if user is not None:
            argv = ["setpriv", "--reuid", str(user), "--clear-groups"] + argv
        done = self.run(*argv, timeout=timeout)
        expect(done.code == 0, "probe: %s" % done)
        return json.loads(done.out)

    def fetch(self, url, *curl, timeout_s=30):
        return self.run(
            *("curl", "-sS", "--max-time", str(timeout_s), *curl, url),
            timeout=timeout_s + 10,
        )

    def page_through_tor(self, timeout_s=30):
        """Fetch a page by name; the server must have seen an exit. Returns which."""
        done = self.fetch("http://www.lab.test/address", timeout_s=timeout_s)
        expect(done.code == 0, "fetch through Tor: %s\n%s" % (done, self.log()))
        source = done.out.strip()
        expect(source in exits(self.lab), "the server saw %s, not an exit" % source)
        return source

    def leaks(self, capture):
        """Packets of a capture that docs/SECURITY.md does not allow."""
        return capture.show(leak_filter(self.lab))


def exits(lab):
    """Addresses that a server sees of what comes through Tor."""
    found = set()
    for addresses in lab.addresses["exits"].values():
        found.update(addresses.values())
    return found


def clean_environment():
    """The tester's own SSH session must not decide what torvm asks for."""
    return {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("SSH_") and key != "NOTIFY_SOCKET"
    }


def snapshot(lab):
    """The host's network as text: what has to be equal after a stop.

    Normalised: lifetimes and a bridge's timers, which time changes, are left out.
    """
    parts = {}
    for name, argv in {
        "links": ["ip", "-j", "-d", "link"],
        "addresses": ["ip", "-j", "addr"],
        "routes": ["ip", "-j", "route", "show", "table", "all"],
        "routes6": ["ip", "-j", "-6", "route", "show", "table", "all"],
        "rules": ["ip", "-j", "rule"],
        "rules6": ["ip", "-j", "-6", "rule"],
        "nft": ["nft", "-j", "list", "ruleset"],
        "resolv.conf": ["cat", "/etc/resolv.conf"],
        "sysctls": ["sysctl", "-a", "-r", r"^net\.ipv[46]\.(conf|ip_|icmp)"],
    }.items():
        text = lab.output("host", argv, stderr=subprocess.DEVNULL)
        text = re.sub(r'"(valid|preferred)_life_time":\d+', r'"\1_life_time":0', text)
        text = re.sub(r'"expires":\d+,?', "", text)
        text = re.sub(r'"(\w+_timer)":[\d.]+', r'"\1":0', text)
        parts[name] = text
    return parts


def same_network(before, after):
    for name, old in before.items():
        new = after[name]
        same = len(os.path.commonprefix([old, new]))
        part = slice(max(0, same - 200), same + 400)
        expect(
            old == new,
            "%s differ:\nbefore: %s\nafter:  %s" % (name, old[part], new[part]),
        )


def host_mac(lab):
    link = json.loads(lab.output("host", ["ip", "-j", "link", "show", "eth0"]))
    return link[0]["address"]


def leak_filter(lab, tor_net="198.51.100.0/24", uplink=None):
    """tcpdump expression: what the host sent and may not send while up.

    uplink: expressions for what the VM may send, if other than TCP to tor_net.
    """
    host = lab.addresses["host"]
    allowed = [
        "arp",
        "ether proto 0x888e",
        "udp and src port 68 and dst port 67",
        "ip6 and udp and src port 546 and dst port 547",
        # RS, NS, NA; MLD reports come behind a hop-by-hop header.
        "icmp6 and (ip6[40] = 133 or ip6[40] = 135 or ip6[40] = 136)",
        "ip6[6] = 0 and (ip6[48] = 131 or ip6[48] = 132 or ip6[48] = 143)",
    ]
    for one in uplink or ["tcp and dst net " + tor_net]:
        source = "src host %s or src host %s" % (host["ipv4"], host["ipv6"])
        allowed.append("(%s) and %s" % (source, one))
    return "ether src %s and not (%s)" % (
        host_mac(lab),
        " or ".join("(%s)" % a for a in allowed),
    )


def run_in_lab(cases, stage, name, doc, **lab_options):
    """The main() of tests that share one lab: a stage(lab, directory), which is
    a Product, and the Cases tried on it. Returns the exit code."""
    parser = argparse.ArgumentParser(description=doc.split("\n")[0])
    parser.add_argument("--list", action="store_true", help="name the cases")
    parser.add_argument("--keep", action="store_true", help="leave the lab up")
    parser.add_argument("word", nargs="*")
    args = parser.parse_args()
    if args.list:
        print("\n".join(cases.names()))
        return 0
    lab = Lab(name="%s-%d" % (name, os.getpid()), **lab_options)
    directory = tempfile.mkdtemp(prefix="torvm-%s-" % name)
    os.chmod(directory, 0o755)
    start = time.monotonic()
    try:
        lab.up()
        print("# lab up in %.1f s" % (time.monotonic() - start))
        product = stage(lab, directory)
        code = cases.run(product, args.word, stage.ensure_down)
        if not args.word:
            product.ensure_down()
        return code
    finally:
        if not args.keep:
            lab.down()
            shutil.rmtree(directory, ignore_errors=True)
