"""How TorVM is brought into each state of the matrix, and held there.

An act is one life of TorVM that passes several states; each boot of the VM costs
seconds, so as many states as possible share one.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time

from stage import (
    TORVM,
    Captures,
    Failure,
    Product,
    expect,
    same_network,
    wait_for,
)

import judge as judging
import topology as topo

# Long enough that every probe is sent while TorVM waits.
FAILSAFE = {
    "restart_min_delay_s": 40,
    "boot_timeout_s": 300,
    "heartbeat_timeout_s": 600,
    "shutdown_timeout_s": 15,
}


# In clear, from an address like the TAP's (which is the loopback's here).
STRAY = """
import socket
for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
    s = socket.socket(socket.AF_INET, kind)
    s.bind(("10.10.10.2", 0))
    s.setblocking(False)
    s.connect_ex(("%s", 9))
    if kind == socket.SOCK_DGRAM:
        s.send(b"stray")
""" % topo.WWW4


class Acts:
    def __init__(self, stage, directory, record):
        """record(state, verdicts) is called for each state that was probed."""
        self.stage = stage
        self.record = record
        self.torvm = Product(stage.lab, directory, engine="torvmd-test")
        self.torvm.configure(failsafe=FAILSAFE)

    def has_lockdown(self):
        return self.torvm.run(TORVM, "lockdown", "--help").code == 0

    def begin(self, *states):
        """New senders, with a past for each of the states."""
        self.torvm.ensure_down()
        self.stage.start_senders()
        self.stage.prepare(*states)
        return self.torvm.snapshot()

    def fire(self, state):
        self.record(state, self.stage.fire(state))

    def block_is_up(self):
        # A stopped engine answers nothing: the kernel is asked.
        return "inet torvm" in self.stage.host("nft", "list", "tables")

    # --- the acts -----------------------------------------------------------

    def down(self):
        """Positive control."""
        self.begin("down")
        self.fire("down")
        self._tap_control()

    def _tap_control(self):
        """What sockets with the TAP's address send is seen, if they can."""
        self.stage.host("ip", "addr", "add", "10.10.10.2/32", "dev", "lo")
        try:
            with Captures(self.stage, "tap-control") as captures:
                done = self.torvm.run("/usr/bin/python3", "-c", STRAY)
                expect(done.code == 0, str(done))
                captures.sync()
        finally:
            self.stage.host("ip", "addr", "del", "10.10.10.2/32", "dev", "lo")
        sent = self.stage.judge.sent_by_host(captures.frames())
        kinds = {p.proto for p in judging.from_tap(sent)}
        expect(kinds == {6, 17}, "of the TAP's address were seen: %s" % kinds)

    def engine_stopped(self):
        """The controller hangs with nothing but the block in place."""
        state = "starting: engine stopped"
        before = self.begin(state)

        def up():
            with contextlib.suppress(Failure, subprocess.TimeoutExpired):
                self.torvm.run(TORVM, "up", *self.torvm.options(), timeout=60)

        thread = threading.Thread(target=up)
        thread.start()
        try:
            wait_for("the block", self.block_is_up, 30, 0.02)
            engine = self.torvm.pid("torvmd")
            self.torvm.kill(engine, signal.SIGSTOP)
            self.fire(state)
            self.torvm.kill(engine, signal.SIGCONT)
        finally:
            thread.join()
        self.torvm.down()
        same_network(before, self.torvm.snapshot())

    def life(self):
        """A start, held at each point where it waits; Running; a stop."""
        names = ("starting: WaitTAP", "starting: WaitBootstrap", "Running", "stopping")
        before = self.begin(*names)
        t = self.torvm
        shutil.rmtree(t.state, ignore_errors=True)
        self.stage.lab.net_cut()
        try:
            t.up_until_blocked()
            qemu = wait_for("QEMU", lambda: t.status()["vm"]["pid"], 30, 0.02)
            t.kill(qemu, signal.SIGSTOP)
            state = t.status()["state"]
            expect(state in ("LaunchVM", "WaitTAP"), "too late: %s" % state)
            self.fire("starting: WaitTAP")
            t.kill(qemu, signal.SIGCONT)
            t.wait_state("WaitBootstrap")
            self.fire("starting: WaitBootstrap")
        finally:
            self.stage.lab.net_restore()
        t.wait_state("Running", timeout_s=180)
        self.fire("Running")
        self._stop(before)

    @contextlib.contextmanager
    def _live_sockets(self, how):
        """TCP and connected UDP of the TAP's address, with data queued and being
        written all the time, over a stop: none of it gets out."""
        user = self.stage.senders["user"]
        source = user.ask(do="hold")["source"]
        expect(source == ["10.10.10.2"], "held connections come from %s" % source)
        with Captures(self.stage, "stop") as captures:
            yield
            # What waits in a queue is sent again soon, if at all.
            time.sleep(1)
            captures.sync()
            rounds = user.ask(do="quiet")["rounds"]
        expect(rounds > 0, "nothing was sent on the held sockets")
        frames = captures.frames()
        escaped = judging.from_tap(self.stage.judge.sent_by_host(frames))
        self.record(
            how + " with live sockets",
            {
                "verdict": "closed",
                "packets": len(frames),
                "counts": {},
                "cells": {},
                "strangers": [judging.text(p) for p in escaped],
            },
        )

    def _stop(self, before):
        """By `torvm down`; held while the VM does not end."""
        t = self.torvm
        with self._live_sockets("stop"):
            t.kill(t.status()["vm"]["pid"], signal.SIGSTOP)
            down = threading.Thread(target=lambda: t.torvm("down", timeout=60))
            down.start()
            t.wait_state("Shutdown", timeout_s=10)
            self.fire("stopping")
            expect(t.status()["state"] == "Shutdown", "the stop was too quick")
            down.join()
        expect(t.status()["state"] == "Stopped", "still %s" % t.status()["state"])
        same_network(before, t.snapshot())

    def failures(self):
        """All of TorVM killed, and recovered; QEMU killed; SIGTERM."""
        before = self.begin("killed", "Blocked", "down again")
        t = self.torvm
        t.up()
        with self._live_sockets("recovery"):
            t.kill_everything()
            self.fire("killed")
            done = t.torvm("recover")
            expect(done.code == 0, "recover: %s" % done)
        same_network(before, t.snapshot())
        t.up()
        with self._live_sockets("SIGTERM"):
            t.kill(t.status()["vm"]["pid"])
            t.wait_state("Blocked", timeout_s=20)
            self.fire("Blocked")
            expect(t.status()["state"] == "Blocked", "restarted too early")
            t.kill(min(t.pids("torvm-broker")), signal.SIGTERM)
            wait_for("the broker's end", lambda: not t.alive("torvm-broker"), 60)
        expect(t.status()["state"] == "Stopped", "still %s" % t.status()["state"])
        same_network(before, t.snapshot())
        # What was kept from before the start is spent: a new past.
        self.begin("down again")
        self.fire("down again")

    def lan(self):
        """Running, with access to the LAN and to nothing else."""
        self._running_with("LAN access", "LAN", "the LAN was not reached",
                           network={"lan_access": True})

    def ipv6(self):
        """Running, with Tor's own connections by IPv6 and by nobody else's."""
        lines = self.stage.lab.client_torrc() + ["ClientPreferIPv6ORPort 1"]
        self._running_with("IPv6 uplink", "uplink by IPv6", "Tor used no IPv6",
                           tor={"client_use_ipv6": True, "options": lines})

    def _running_with(self, state, rule, complaint, **sections):
        """By another configuration, whose rule has to let something out."""
        before = self.begin(state)
        t = self.torvm
        t.configure(failsafe=FAILSAFE, **sections)
        try:
            t.up()
            verdicts = self.stage.fire(state)
            self.record(state, verdicts)
            expect(verdicts["counts"].get(rule), complaint)
            t.down()
        finally:
            t.configure(failsafe=FAILSAFE)
        same_network(before, t.snapshot())

    def lockdown(self):
        """Down by the user's wish, with lockdown on."""
        before = self.begin("lockdown")
        t = self.torvm
        done = t.torvm("lockdown", "on")
        expect(done.code == 0, "lockdown on: %s" % done)
        try:
            self.fire("lockdown")
        finally:
            done = t.torvm("lockdown", "off")
        expect(done.code == 0, "lockdown off: %s" % done)
        same_network(before, t.snapshot())


# Act: the states that it covers. "down" is every run's control and comes first.
ACTS = {
    "engine_stopped": ["starting: engine stopped"],
    "life": [
        "starting: WaitTAP",
        "starting: WaitBootstrap",
        "Running",
        "stopping",
    ],
    "failures": ["killed", "Blocked", "down again"],
    "lockdown": ["lockdown"],
    "lan": ["LAN access"],
    "ipv6": ["IPv6 uplink"],
}
CHOSEN = ["life", "failures", "lockdown", "lan"]


class Foreign:
    """Another system, known by three commands (and one that makes it fail)."""

    def __init__(self, stage, directory, record, commands):
        self.stage = stage
        self.record = record
        self.commands = commands
        self.directory = directory
        torrc = os.path.join(directory, "torrc")
        with open(torrc, "w", encoding="ascii") as f:
            f.write("\n".join(stage.lab.client_torrc()) + "\nClientUseIPv6 0\n")
        cache = os.path.join(stage.lab.base, "cache", "tor", "usr", "bin")
        self.environment = {
            **os.environ,
            "LAB_TORRC": torrc,
            "LAB_TOR": os.path.join(cache, "tor"),
            "LAB_STATE": directory,
        }

    def command(self, name, timeout_s=120):
        return self.stage.lab.run(
            "host",
            ["sh", "-c", self.commands[name]],
            stdin=subprocess.DEVNULL,
            env=self.environment,
            timeout=timeout_s,
        ).returncode

    def play(self):
        stage = self.stage
        stage.start_senders()
        stage.prepare("down", "Running", "killed")
        self.record("down", stage.fire("down"))
        expect(self.command("up") == 0, "--up failed")
        try:
            wait_for("--status 0", lambda: self.command("status") == 0, 120, 1)
            self.record("Running", stage.fire("Running"))
            if self.commands.get("kill"):
                expect(self.command("kill") == 0, "--kill failed")
                self.record("killed", stage.fire("killed"))
        finally:
            expect(self.command("down") == 0, "--down failed")
