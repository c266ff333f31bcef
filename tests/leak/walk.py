"""A seeded random walk over faults, under a capture and with probes all the time.

Each step takes a fault and a moment: while Running, or somewhere in a start. Then:
no packet leaked; the state shown is true; TorVM works again by itself once the
cause is gone, or, where its controller was killed, the block stays and the status
names the command that mends it. After the walk and `torvm down` the network is as
it was. The same seed makes the same walk; what the machine does meanwhile is its
own affair, so a failure may need several tries.
"""

import random
import re
import time

import matrix
from faults import FAULTS
from stage import Captures, expect, wait_for

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
        self.window_ms = None
        names = self.rng.sample(sorted(FAULTS), min(steps, len(FAULTS)))
        moments = [self.rng.choice(["Running", "starting"]) for _ in names]
        self.plan = list(zip(names, moments))
        self.result = {"steps": [], "packets": 0, "leaked": 0, "rounds": 0}

    # --- for faults -------------------------------------------------------------

    def ip(self, text):
        return self.stage.host("ip", *text.split())

    def default_routes(self):
        """What a link's down took away (addresses stay: keep_addr_on_down)."""
        for family, router in (("-4", topo.ROUTER4), ("-6", topo.ROUTER6)):
            self.ip("%s route replace default via %s" % (family, router))

    def qemu(self):
        return wait_for("QEMU", lambda: self.t.status()["vm"]["pid"], 60)

    # --- the walk ---------------------------------------------------------------

    def walk(self):
        t = self.t
        t.configure(failsafe=FAILSAFE)
        t.ensure_down()
        self.stage.start_senders()
        before = t.snapshot()
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
        from stage import same_network

        same_network(before, t.snapshot())

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

    def _step(self, number, fault, moment):
        t, begin = self.t, time.monotonic()
        if moment == "starting":
            t.down()
            t.up_until_blocked()
        self.window_ms = None
        name = "walk-%d-%d" % (self.seed, number)
        with Captures(self.stage, name) as captures:
            if moment == "starting":
                time.sleep(self.rng.uniform(0, 8))
            old = t.status()["vm"]["pid"]
            try:
                fault.inject(self)
            finally:
                fault.heal(self)
            if fault.ends:
                self._dead()
                t.up()
            elif fault.restarts and old:
                wait_for(
                    "another VM", lambda: t.status()["vm"]["pid"] not in (None, old), 90
                )
            status = t.wait_state("Running", timeout_s=WORKS_AGAIN_S)
            expect(status["blocked"], "Running and not blocked")
            self._works()
            captures.sync()
        frames = captures.frames()
        leaks, counts = self.stage.judge.judge(frames)
        step = {
            "fault": fault.name,
            "moment": moment,
            "seconds": round(time.monotonic() - begin, 1),
            "packets": len(frames),
            "counts": dict(counts),
            "window_ms": self.window_ms,
        }
        self.result["steps"].append(step)
        self.result["packets"] += len(frames)
        self.result["leaked"] += len(leaks)
        print("# walk %d: %s" % (self.seed, step), flush=True)
        known = {c.n: c for c in matrix.cells()}
        texts = ["%s %s" % (known.get(judging.cell_of(p, known)), judging.text(p))
                 for p in leaks]
        expect(not leaks, "%s (%s): %d packets leaked: %s"
               % (fault.name, moment, len(leaks), texts[:10]))

    def _dead(self):
        """The controller is gone, the block is not, and the way out is named."""
        status = self.t.status()
        expect(status["blocked"] is True, "open after a kill: %s" % status)
        expect(re.search("torvm (recover|up)", status["last_error"] or ""),
               "no command is named: %s" % status)

    def _works(self):
        """A page through Tor; the first try may meet a circuit that just died."""
        exits = set()
        for addresses in self.stage.lab.addresses["exits"].values():
            exits.update(addresses.values())

        def page():
            done = self.t.fetch("http://www.lab.test/address", timeout_s=20)
            return done.code == 0 and done.out.strip() in exits

        wait_for("a page through Tor", page, 60, 0.5)
