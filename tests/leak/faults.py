"""What can go wrong: each fault with how it is made and how it is undone.

A fault is a class with
    ends        after it the controller is gone: the block has to stay, and status
                has to name the command that leads out
    restarts    the VM has to be another one afterwards
    stopping    can be made while TorVM stops, too
    inject(w)   make it; may return after having waited
    heal(w)     take its cause away (nothing, for most)
w is the Walk: w.t (the Product), w.stage, w.rng. A fault that opens a window which
docs/SECURITY.md does not promise to close measures it, and calls w.window(since):
what got out so far is counted apart and no failure.
"""

import json
import os
import signal
import socket
import struct
import time

from stage import PORT3, expect, wait_for

import topology as topo

FAULTS = {}


def fault(c):
    FAULTS[c.name] = c
    return c


class Fault:
    ends = False
    restarts = False
    stopping = False

    def inject(self, w):
        raise NotImplementedError

    def heal(self, w):
        pass


# --- processes ------------------------------------------------------------------


@fault
class KillQemu(Fault):
    name = "kill -9 QEMU"
    restarts = True

    def inject(self, w):
        w.t.kill(w.qemu())


@fault
class StopQemu(Fault):
    name = "SIGSTOP QEMU"
    restarts = True

    def inject(self, w):
        w.t.kill(w.qemu(), signal.SIGSTOP)


@fault
class KillEngine(Fault):
    name = "kill -9 engine"
    stopping = True

    def inject(self, w):
        if w.moment == "stopping":
            for pid in w.t.pids("torvmd"):
                w.t.kill(pid)
            return
        engine = w.t.pid("torvmd")
        w.t.kill(engine)
        wait_for("another engine", lambda: w.t.pids("torvmd") not in ([], [engine]), 30)


@fault
class KillBroker(Fault):
    name = "kill -9 broker"
    ends = True
    stopping = True

    def inject(self, w):
        # The spawner has the same name, and came later.
        for pid in sorted(w.t.pids("torvm-broker"))[:1]:
            w.t.kill(pid)
        for name in ("torvm-broker", "torvmd"):
            wait_for("the end of " + name, lambda name=name: not w.t.pids(name), 30)


@fault
class KillAll(Fault):
    name = "kill -9 all"
    ends = True

    def inject(self, w):
        w.qemu()
        w.t.kill_everything()


# --- network ----------------------------------------------------------------------


@fault
class DeleteTap(Fault):
    name = "TAP deleted"
    stopping = True

    def inject(self, w):
        w.stage.host("ip", "link", "del", "torvm0", check=w.moment != "stopping")


@fault
class FlushNft(Fault):
    name = "nft flush ruleset"
    stopping = True

    def inject(self, w):
        begin = time.monotonic()
        left = w.stage.host(
            "sh", "-c", "nft flush ruleset; nft list tables", check=False
        )
        if "inet torvm" in left or w.moment == "stopping":
            return
        # No table owners in this kernel (before 6.9): a watch puts them back.
        wait_for("the block", lambda: "inet torvm" in w.stage.host(
            "nft", "list", "tables"), 5, 0.01)
        w.window(begin)

    def heal(self, w):
        # The flush took the containers' table, too.
        w.stage.host_rules()


@fault
class FlushRules(Fault):
    name = "ip rule flush"
    stopping = True

    def inject(self, w):
        for family in ("-4", "-6"):
            w.ip(family + " rule flush")

    def heal(self, w):
        for rule in (
            "-4 rule add pref 32766 lookup main",
            "-4 rule add pref 32767 lookup default",
            "-6 rule add pref 32766 lookup main",
        ):
            w.ip(rule)


@fault
class HostileRoutes(Fault):
    """As DHCP option 121 (TunnelVision) and a hostile RA bring them."""

    name = "hostile routes"
    stopping = True
    routes = ["-4 route %%s %s via %s" % (to, topo.ROUTER4) for to in
              ("0.0.0.0/1", "128.0.0.0/1", topo.WWW4 + "/32", topo.DNS4 + "/32")]
    routes += ["-6 route %%s %s via %s proto ra" % (to, topo.ROUTER6) for to in
               ("::/1", "8000::/1", topo.WWW6 + "/128")]

    def inject(self, w):
        for route in self.routes:
            w.ip(route % "add")

    def heal(self, w):
        for route in self.routes:
            w.ip(route % "del")


@fault
class RoutesReplaced(Fault):
    """Another default gateway, and then none for a moment."""

    name = "default route replaced"
    stopping = True

    def inject(self, w):
        w.ip("-4 route replace default via %s" % topo.NEIGHBOUR4)
        time.sleep(1)
        w.ip("-4 route del default via %s" % topo.NEIGHBOUR4)

    def heal(self, w):
        w.ip("-4 route add default via %s" % topo.ROUTER4)


@fault
class NewAddress(Fault):
    """As after a DHCP renewal with another address."""

    name = "address replaced"

    def inject(self, w):
        # In this order: with the first address the kernel deletes the second.
        w.ip("addr del %s/24 dev eth0" % topo.HOST4)
        w.ip("addr add %s.22/24 dev eth0" % topo.LAN4)
        w.ip("-4 route replace default via %s" % topo.ROUTER4)

    def heal(self, w):
        w.ip("addr del %s.22/24 dev eth0" % topo.LAN4)
        w.ip("addr add %s/24 dev eth0" % topo.HOST4)
        w.ip("-4 route replace default via %s" % topo.ROUTER4)


@fault
class LinkDown(Fault):
    name = "uplink down and up"
    stopping = True

    def inject(self, w):
        w.ip("link set eth0 down")
        time.sleep(w.rng.uniform(0.2, 3))

    def heal(self, w):
        w.ip("link set eth0 up")
        w.default_routes()


@fault
class LinkRenamed(Fault):
    name = "uplink renamed"

    def inject(self, w):
        w.ip("link set eth0 down")
        w.ip("link set eth0 name wan9")
        w.ip("link set wan9 up")
        w.default_routes()
        # Long enough for the loops to try it under its new name.
        answer = w.stage.strike("root", "wan9")
        expect(answer, "no probe was made by wan9")

    def heal(self, w):
        w.ip("link set wan9 down")
        w.ip("link set wan9 name eth0")
        w.ip("link set eth0 up")
        w.default_routes()


@fault
class SecondNic(Fault):
    """A link appears while TorVM is up; the block has to cover it in 2 s."""

    name = "second NIC"

    def inject(self, w):
        w.stage.lab.machine("router").check("ip", "link", "set", PORT3, "up")
        w.ip("-n vguest link set hot0 netns 1")
        w.ip("addr add 192.168.79.2/24 dev hot0")
        w.ip("link set hot0 up")
        begin = time.monotonic()
        wait_for("the block on the new link",
                 lambda: "hot0" in w.stage.host("nft", "list", "ruleset"), 2, 0.01)
        w.window(begin)
        w.ip("route add default via 192.168.79.1 dev hot0 metric 5")
        answer = w.stage.strike("root", "hot0")
        expect(answer, "no probe was made by hot0")

    def heal(self, w):
        w.ip("route del default via 192.168.79.1 dev hot0 metric 5")
        w.ip("link set hot0 netns vguest")


@fault
class Redirect(Fault):
    """ICMP redirects: all of the web by the neighbour."""

    name = "ICMP redirects"

    def inject(self, w):
        from probes import checksum

        host, www = socket.inet_aton(topo.HOST4), socket.inet_aton(topo.WWW4)
        inner = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 1, 0, 64, 17, 0, host, www)
        inner = inner[:10] + checksum(inner) + inner[12:]
        inner += struct.pack("!HHHH", 4000, 7, 8, 0)
        body = struct.pack("!BBH4s", 5, 1, 0, socket.inet_aton(topo.NEIGHBOUR4)) + inner
        body = body[:2] + checksum(body) + body[4:]

        def send():
            with socket.socket(socket.AF_INET, socket.SOCK_RAW, 1) as s:
                for _ in range(5):
                    s.sendto(body, (topo.HOST4, 0))

        w.stage.lab.machine("router").call_net(send)


@fault
class Cut(Fault):
    name = "Internet gone"

    def inject(self, w):
        w.stage.lab.net_cut()
        time.sleep(w.rng.uniform(1, 4))

    def heal(self, w):
        w.stage.lab.net_restore()


# --- files and the control socket ---------------------------------------------------


class StateDisk(Fault):
    restarts = True

    def inject(self, w):
        self.spoil(os.path.join(w.t.state, "state.img"))
        w.t.kill(w.qemu())


@fault
class DiskCorrupt(StateDisk):
    name = "state disk corrupt"

    @staticmethod
    def spoil(path):
        with open(path, "r+b") as f:
            f.write(b"no file system " * 65536)


@fault
class DiskTruncated(StateDisk):
    name = "state disk truncated"

    @staticmethod
    def spoil(path):
        os.truncate(path, 70000)


@fault
class DiskMissing(StateDisk):
    name = "state disk missing"

    @staticmethod
    def spoil(path):
        os.unlink(path)


@fault
class ConfigCorrupt(Fault):
    """Unreadable while running, and the engine has to start again."""

    name = "configuration corrupt"

    def inject(self, w):
        with open(w.t.config_path, encoding="utf-8") as f:
            self.text = f.read()
        with open(w.t.config_path, "w", encoding="utf-8") as f:
            f.write(self.text[: len(self.text) // 2])
        w.t.kill(w.t.pid("torvmd"))
        time.sleep(2)

    def heal(self, w):
        with open(w.t.config_path, "w", encoding="utf-8") as f:
            f.write(self.text)


@fault
class Flood(Fault):
    """Clients that connect and speak nonsense, or nothing."""

    name = "control socket flooded"

    def inject(self, w):
        path = os.path.join(w.t.runtime, "control.sock")
        held = []
        noise = json.dumps({"method": "x" * 4000}).encode() + b"\0"
        end = time.monotonic() + 2
        while time.monotonic() < end:
            s = socket.socket(socket.AF_UNIX)
            s.settimeout(0.2)
            try:
                s.connect(path)
                s.sendall(w.rng.choice([noise, b"{" * 5000, b"\0" * 3000, b"\xff\0"]))
            except OSError:
                pass
            held.append(s)
            if len(held) > 300:
                held.pop(0).close()
        for s in held:
            s.close()

