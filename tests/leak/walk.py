"""A seeded random walk over faults, under a capture and with probes all the time.

Each step takes a fault and a moment: while Running, somewhere in a start, or in a
stop (then only packets of the TAP's address are leaks, and what is checked is that
the network comes back). Then: no packet leaked; the state shown is true; TorVM works again by itself once the
cause is gone, or, where its controller was killed, the block stays and the status
names the command that mends it. After the walk and `torvm down` the network is as
it was. The same seed makes the same walk; what the machine does meanwhile is its
own affair, so a failure may need several tries.
"""

import json
import random
import re
import threading
import time

import matrix
from faults import FAULTS
from stage import Captures, Failure, expect, same_network, wait_for

import judge as judging
import topology as topo

FAILSAFE = {"heartbeat_timeout_s": 9, "restart_max_delay_s": 4, "bootstrap_stall_s": 30}
LOOPING = ("user", "root", "child", "bridge")
WORKS_AGAIN_S = 150


class Walk:
    def __init__(self, acts, seed, steps):
        self.t = acts.torvm
        self.stage = acts.stage
        self.seed = seed
        self.rng = random.Random(seed)
        self.window_ms, self.excused = None, 0
        self.captures = self.before = None
        self.held = False
        self.failsafe = dict(FAILSAFE)
        names = sorted(name for name, f in FAULTS.items() if f.walks)
        names = self.rng.sample(names, min(steps, len(names)))
        self.plan = [(name, self.rng.choice(self._moments(name))) for name in names]
        self.moment = None
        self.result = {"steps": [], "cells": [], "packets": 0, "leaked": 0, "rounds": 0}

    @staticmethod
    def _moments(name):
        return ["Running", "starting"] + ["stopping"] * FAULTS[name].stopping

    def set_plan(self, text):
        """FAULT@MOMENT,... instead of what the seed says."""
        self.plan = [tuple(step.split("@")) for step in text.split(",")]
        for name, moment in self.plan:
            expect(name in FAULTS, "faults are: " + ", ".join(FAULTS))
            expect(moment in self._moments(name), "%s: no %s" % (name, moment))

    # --- for faults -------------------------------------------------------------

    def ip(self, text):
        return self.stage.host("ip", *text.split())

    def default_routes(self):
        """What a link's down took away (addresses stay: keep_addr_on_down)."""
        for family, router in (("-4", topo.ROUTER4), ("-6", topo.ROUTER6)):
            self.ip("%s route replace default via %s" % (family, router))

    def qemu(self):
        def pid():
            # An engine that stands still says nothing.
            pids = self.t.qemu_pids() if self.held else [self.t.status()["vm"]["pid"]]
            return pids[0] if pids else None

        return wait_for("QEMU", pid, 60)

    def window(self, since):
        """A window that is not promised to be closed ends here."""
        self.captures.sync()
        leaks, _ = self.stage.judge.judge(self.captures.frames())
        self.window_ms = round((time.monotonic() - since) * 1000)
        self.excused = len(leaks)

    # --- the walk ---------------------------------------------------------------

    def walk(self):
        t = self.t
        t.configure(failsafe=self.failsafe)
        t.ensure_down()
        self.stage.start_senders()
        self.before = self._network()
        print("# walk %d: %s" % (self.seed, self.plan), flush=True)
        t.up()
        self._loops(True)
        try:
            for number, (name, moment) in enumerate(self.plan):
                self._step(number, FAULTS[name](), moment)
        finally:
            self.result["rounds"] = self._loops(False)
        expect(self.result["rounds"] > 0, "no probe was made")
        t.down()
        same_network(self.before, self._network())

    def _network(self):
        """A snapshot in which routes are a set (a link that was down has got its own
        again behind those of other links), without nftables' serial numbers."""
        parts = self.t.snapshot()
        parts["nft"] = re.sub(r'"handle": \d+', '"handle": 0', parts["nft"])
        for name in ("routes", "routes6"):
            routes = json.loads(parts[name])
            parts[name] = "\n".join(sorted(json.dumps(route) for route in routes))
        return parts

    def _loops(self, on):
        if not on:
            return sum(self.stage.senders[s].ask(do="quiet")["rounds"] for s in LOOPING)
        for name in LOOPING:
            cells = [
                [c.n, c.probe, c.family]
                for c in self.stage.cells("Running")
                if c.sender == name and c.probe in matrix.WALK_PROBES
            ]
            self.stage.senders[name].ask(do="loop", cells=cells)
        return 0

    def _up_step(self, fault, moment):
        t = self.t
        if moment == "starting":
            time.sleep(self.rng.uniform(0, 8))
        old = t.status()["vm"]["pid"]
        try:
            fault.inject(self)
        finally:
            fault.heal(self)
        if moment == "Running" and fault.says:
            wait_for("%r in the log" % fault.says, lambda: fault.says in t.log(), 60)
        if moment == "Running" and fault.keeps:
            now = wait_for("Running", self._running, WORKS_AGAIN_S)["vm"]["pid"]
            expect(now == old, "the VM was not kept: %s, %s" % (old, now))
        if fault.ends:
            self._dead()
            t.up()
        elif fault.restarts and old:
            wait_for(
                "another VM", lambda: t.status()["vm"]["pid"] not in (None, old), 90
            )

    def _stop_step(self, fault):
        """A stop with a fault in its midst; then TorVM is up again."""
        t = self.t
        down = threading.Thread(target=lambda: t.torvm("down", timeout=60))
        down.start()
        time.sleep(self.rng.uniform(0, 1.5))
        try:
            fault.inject(self)
        finally:
            fault.heal(self)
        down.join()
        status = t.status()
        if status["blocked"]:
            self._dead()
        # Where nothing is left this changes nothing.
        done = t.torvm("recover")
        expect(done.code == 0, "recover: %s" % done)
        status = t.status()
        expect(not status["blocked"], "still blocked: %s" % status)
        same_network(self.before, self._network())
        t.up()

    def _step(self, number, fault, moment):
        t, begin = self.t, time.monotonic()
        self.moment = moment
        if moment == "starting":
            t.down()
            t.up_until_blocked()
        self.window_ms, self.excused, self.note = None, 0, None
        name = "walk-%d-%d" % (self.seed, number)
        with Captures(self.stage, name) as captures:
            self.captures = captures
            if moment == "stopping":
                self._stop_step(fault)
            else:
                self._up_step(fault, moment)
            status = wait_for("Running", self._running, WORKS_AGAIN_S, 0.5)
            expect(status["blocked"], "Running and not blocked")
            self.works()
            captures.sync()
        frames = captures.frames()
        leaks, counts = self.stage.judge.judge(frames)
        if moment == "stopping":
            # The network was open in between.
            leaks = judging.from_tap(leaks)
        step = {
            "fault": fault.name,
            "moment": moment,
            "seconds": round(time.monotonic() - begin, 1),
            "packets": len(frames),
            "counts": dict(counts),
            "window_ms": self.window_ms,
            "in_window": self.excused,
            "note": self.note,
        }
        self.result["steps"].append(step)
        self.result["packets"] += len(frames)
        leaked = len(leaks) - self.excused
        self.result["leaked"] += leaked
        print("# walk %d: %s" % (self.seed, step), flush=True)
        known = {c.n: c for c in matrix.cells()}
        texts = [
            "%s %s" % ([known[n] for n in judging.cells_of(p, known)], judging.text(p))
            for p in leaks
        ]
        expect(not leaked, "%s (%s): %d packets leaked: %s"
               % (fault.name, moment, leaked, texts[-10:]))

    def _running(self):
        """The status once it is Running; None while an engine is being started."""
        try:
            status = self.t.status()
        except Failure as e:
            if "did not answer in time" not in str(e):
                raise
            return None
        return status if status["state"] == "Running" else None

    def _dead(self):
        """The controller is gone, the block is not, and the way out is named."""
        status = self.t.status()
        expect(status["blocked"] is True, "open after a kill: %s" % status)
        expect(re.search("torvm (recover|up)", status["last_error"] or ""),
               "no command is named: %s" % status)

    def works(self):
        """A page through Tor; the first try may meet a circuit that just died."""
        exits = set()
        for addresses in self.stage.lab.addresses["exits"].values():
            exits.update(addresses.values())

        def page():
            done = self.t.fetch("http://www.lab.test/address", timeout_s=20)
            return done.code == 0 and done.out.strip() in exits

        wait_for("a page through Tor", page, 60, 0.5)
