"""Every fault at every transition of the lifecycle: the second table.

A cell is fault x transition. The engine is the tests' own, which stops (SIGSTOP) as
it is about to enter a state, before any effect of that transition; there the fault
is made, its cause taken away, and the engine goes on. One life of TorVM, from its
start to its stop, passes all transitions with another fault at each, so that a cell
costs seconds and not a start. Life k of a run has the k-th fault of each
transition's (shuffled) list: as many lives as there are faults fill the table.

In every cell: no packet leaks, under a capture and with probes all the time, while
a block is promised; a controller that is gone has left either the block, with the
command that leads out in the status, or the network as it was. In every life: TorVM
comes to Running and a page comes through Tor; after the stop the network is as
before.
"""

import os
import random
import signal
import subprocess
import threading
import time

import judge as judging
from faults import FAULTS, TRANSITIONS
from stage import Captures, expect, same_network, wait_for
from walk import FAILSAFE, Walk

# A block is not promised there: it is not up yet, or the user has stopped TorVM.
# What is judged is that nothing speaks from the TAP's address.
OPEN = ("CheckPrivileges", "SaveNetwork", "Cleanup")
STOPS = ("Shutdown", "RestoreNetwork", "Cleanup")
LATE = ("Blocked",) + STOPS
ENGINE_UID = 61100
HELD_WITHIN_S = 180


def lists(seed):
    """Faults by transition, in this run's order."""
    rng = random.Random(seed)
    table = {}
    for transition in TRANSITIONS:
        names = sorted(n for n, f in FAULTS.items() if transition in f.needs)
        rng.shuffle(names)
        table[transition] = names
    return table


def number_of_lives():
    return max(len(names) for names in lists(0).values())


class Life(Walk):
    def __init__(self, acts, seed, k):
        super().__init__(acts, seed, 0)
        self.plan = []
        for transition, names in lists(seed).items():
            # Short lists are through before the others: nothing twice.
            if k < len(names):
                self.plan.append((names[k], transition))
        self.down = None
        self.engine = None  # the one that is held

    def set_plan(self, text):
        self.plan = [tuple(step.split("@")) for step in text.split(",")]
        for name, transition in self.plan:
            expect(name in FAULTS, "faults are: " + ", ".join(FAULTS))
            expect(transition in FAULTS[name].needs,
                   "%s: not at %s" % (name, transition))
        self.plan.sort(key=lambda step: TRANSITIONS.index(step[1]))

    # --- where the engine is ------------------------------------------------

    def _stopped(self):
        """PID of an engine that stands still, or None."""
        done = self.t.run("pgrep", "-r", "T", "-x", "torvmd")
        return int(done.out.split()[0]) if done.out else None

    def _controller(self):
        return self.t.alive("torvm-broker")

    def _up(self):
        self.t.order("test-hold", "-")
        self.t.up()

    def _reach(self, transition):
        """Holds the engine at a transition; starts, fails or stops TorVM for it."""
        t = self.t
        if not self._controller():
            if transition in LATE:
                self._up()
            t.order("test-hold", transition)
            if transition not in LATE:
                t.headless(stdout=subprocess.DEVNULL)
        # Else the cell before has said where to stand still next.
        if transition == "Blocked":
            # Unless the fault before has led there.
            wait_for("Running, to fail", lambda: self._stopped() or self._running(),
                     HELD_WITHIN_S, 0.2)
            for pid in [] if self._stopped() else t.qemu_pids():
                t.kill(pid)
        if transition in STOPS and not self.down:
            t.order("test-hold", transition)
            self.down = threading.Thread(target=lambda: t.torvm("down", timeout=300))
            self.down.start()
        self._held(transition)

    def _held(self, transition):
        def held():
            if self._stopped():
                return True
            expect(self._controller(), "ended before %s" % transition)
            return False

        wait_for("transition to " + transition, held, HELD_WITHIN_S, 0.1)
        self.held = True
        self.engine = self._stopped()

    def _go_on(self):
        """The engine that was held, if it is still there: another one may already
        stand still at the next transition."""
        self.held = False
        if self.engine and self._stopped() == self.engine:
            self.t.kill(self.engine, signal.SIGCONT)
        self.engine = None

    # --- the cells ------------------------------------------------------------

    def _cell(self, name, transition, following):
        fault, begin, judge = FAULTS[name](), time.monotonic(), self.stage.judge
        self._reach(transition)
        self.moment = transition
        # Before the fault: an engine that comes after a killed one is soon past it.
        self.t.order("test-hold", following or "-")
        self.window_ms, self.excused = None, 0
        capture = "life-%d" % len(self.result["cells"])
        with Captures(self.stage, capture) as captures:
            self.captures = captures
            try:
                fault.inject(self)
            finally:
                if not fault.lasts:
                    fault.heal(self)
            captures.sync()
            until_now = captures.frames()
            # Without its engine a stop that has begun is ended by the broker, or by
            # the next engine, if it is not to stand still once more.
            opened = transition in OPEN or (
                self._stopped() != self.engine
                and (transition == "RestoreNetwork"
                     or transition == "Shutdown" and not following))
            self._go_on()
            self._settle(transition, following)
            if fault.lasts:
                fault.heal(self)
            captures.sync()
            frames = captures.frames()
        # A stop opens the network, soon after it goes on.
        leaks = judge.judge(until_now if transition in STOPS else frames)[0]
        if opened:
            leaks, self.excused = [], 0
        from_tap = judging.from_tap(judge.sent_by_host(frames))
        leaks += [p for p in from_tap if p not in leaks]
        cell = {
            "fault": name,
            "transition": transition,
            "seconds": round(time.monotonic() - begin, 1),
            "packets": len(frames),
            "leaked": len(leaks) - self.excused,
            "window_ms": self.window_ms,
            "in_window": self.excused,
        }
        self.result["cells"].append(cell)
        self.result["packets"] += len(frames)
        self.result["leaked"] += cell["leaked"]
        print("# %s" % cell, flush=True)
        expect(cell["leaked"] <= 0, "%s at %s: %d packets leaked: %s"
               % (name, transition, cell["leaked"],
                  [judging.text(p) for p in leaks][-10:]))

    def _settle(self, transition, following):
        """A moment to show what comes of it; then what is there has to be true."""
        time.sleep(1)
        if transition in STOPS and not (following and self._controller()):
            self.down.join()
            self.down = None
            wait_for("the end of the broker", lambda: not self._controller(), 90)
        if self._controller():
            return
        if self.t.status()["blocked"]:
            self._dead()
            if transition not in STOPS:
                return
            done = self.t.torvm("recover")
            expect(done.code == 0, "recover: %s" % done)
            expect(not self.t.status()["blocked"], "blocked after recover")
        same_network(self.before, self._network())

    def walk(self):
        t = self.t
        t.configure(failsafe=FAILSAFE)
        t.ensure_down()
        self._mount_state()
        try:
            self._live()
        finally:
            t.ensure_down()
            t.run("umount", t.state)

    def _live(self):
        t = self.t
        self.stage.start_senders()
        self.before = self._network()
        print("# life %s: %s" % (self.seed, self.plan), flush=True)
        self._loops(True)
        try:
            steps = [transition for _, transition in self.plan] + [None]
            for number, (name, transition) in enumerate(self.plan):
                self._cell(name, transition, steps[number + 1])
                if steps[number + 1] in ("Shutdown", None):
                    self._comes_back()
        finally:
            t.order("test-hold", "-")
            self._go_on()
            self.result["rounds"] = self._loops(False)
        expect(self.result["rounds"] > 0, "no probe was made")
        t.ensure_down()
        same_network(self.before, self._network())

    def _mount_state(self):
        """The engine finds its orders there; the broker wants it to be its user's. Of
        its own, so that it can be full: room for a disk and one put aside."""
        t = self.t
        done = t.run("id", "-u", "torvm")
        uid = int(done.out) if done.code == 0 else ENGINE_UID
        options = "size=200m,mode=700,uid=%d" % uid
        os.makedirs(t.state, exist_ok=True)
        done = t.run("mount", "-t", "tmpfs", "-o", options, "none", t.state)
        expect(done.code == 0, "mount: %s" % done)

    def _comes_back(self):
        if not self._controller():
            self._up()
        status = wait_for("Running", self._running, HELD_WITHIN_S, 0.5)
        expect(status["blocked"], "Running and not blocked")
        self.works()
