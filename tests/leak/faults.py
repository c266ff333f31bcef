"""What can go wrong: each fault with how it is made and how it is undone.

A fault is a class with
    ends        after it the controller is gone: the block has to stay, and status
                has to name the command that leads out
    restarts    the VM has to be another one afterwards
    keeps       the VM has to be the same one afterwards
    says        what the log has to say of it
    stopping    can be made while TorVM stops, too
    needs       transitions at which there is something to break (life.py)
    walks       False: too slow for a walk, or nothing that it has
    lasts       in a life its cause goes only when the transition is over
    inject(w)   make it; may return after having waited
    heal(w)     take its cause away (nothing, for most)
w is the Walk or the Life: w.t (the Product), w.stage, w.rng, w.moment, w.held (the
engine stands still at a transition and answers nothing). A fault that opens a
window which docs/SECURITY.md does not promise to close measures it, and calls
w.window(since): what got out so far is counted apart and no failure.
"""

import json
import os
import shutil
import signal
import socket
import struct
import time

from stage import PORT3, SPARE4, SPARE_ROUTER4, expect, wait_for

import topology as topo

FAULTS = {}

# Where the lifecycle can be held: as it enters the state, before any effect.
TRANSITIONS = [
    *("CheckPrivileges", "SaveNetwork", "CreateTAP", "LaunchVM", "WaitTAP"),
    *("ConfigureTAP", "FlushDNS", "WaitBootstrap", "Running", "Blocked"),
    *("Shutdown", "RestoreNetwork", "Cleanup"),
]
STARTED = TRANSITIONS[4:9] + ["Shutdown"]  # there is a VM
WITH_TAP = TRANSITIONS[3:12]


def fault(c):
    FAULTS[c.name] = c
    return c


class Fault:
    ends = False
    restarts = False
    keeps = False
    says = ""
    stopping = False
    needs = TRANSITIONS
    walks = True
    lasts = False

    def inject(self, w):
        raise NotImplementedError

    def heal(self, w):
        pass


# --- processes ------------------------------------------------------------------


@fault
class KillQemu(Fault):
    name = "kill -9 QEMU"
    restarts = True
    needs = STARTED

    def inject(self, w):
        w.t.kill(w.qemu())


@fault
class StopQemu(Fault):
    name = "SIGSTOP QEMU"
    restarts = True
    needs = STARTED

    def inject(self, w):
        w.t.kill(w.qemu(), signal.SIGSTOP)


@fault
class KillEngine(Fault):
    name = "kill -9 engine"
    keeps = True
    stopping = True

    def inject(self, w):
        if w.moment == "stopping":
            for pid in w.t.pids("torvmd"):
                w.t.kill(pid)
            return
        engine = w.t.pid("torvmd")
        w.t.kill(engine)
        if w.held:
            return
        wait_for("another engine", lambda: w.t.pids("torvmd") not in ([], [engine]), 30)


@fault
class EngineHangs(Fault):
    """Nobody continues it: the broker has to notice."""

    name = "engine hangs"
    keeps = True
    walks = False

    def inject(self, w):
        engine = w.t.pid("torvmd")
        w.t.kill(engine, signal.SIGSTOP)
        # Three silent periods of 10 s, and the one that is under way.
        wait_for("the end of the engine", lambda: engine not in w.t.pids("torvmd"), 90)


@fault
class KillTor(Fault):
    """Three times within a minute, by its own control port: no program of the
    host reaches it while the engine does, so the engine is killed first, with the
    broker standing still until we have its place. The new engine adopts the VM and
    hears of Tor's ends by the agent."""

    name = "guest's Tor ends thrice"
    restarts = True
    says = "Tor ended 3 times"
    needs = TRANSITIONS[7:9]

    def inject(self, w):
        broker = min(w.t.pids("torvm-broker"))
        old = w.t.qemu_pids()
        w.t.kill(broker, signal.SIGSTOP)
        try:
            for pid in w.t.pids("torvmd"):
                w.t.kill(pid)
            wait_for("the engine's end", lambda: not w.t.alive("torvmd"), 20)
            control = self.connect(w)
        finally:
            w.t.kill(broker, signal.SIGCONT)
        with control:
            end = time.monotonic() + 120
            while time.monotonic() < end and w.t.qemu_pids() == old:
                try:
                    control.sendall(b"AUTHENTICATE\r\nSIGNAL HALT\r\n")
                    while control.recv(4096):
                        pass
                    break
                except socket.timeout:
                    pass
                except OSError:
                    break
        wait_for("the VM's end", lambda: w.t.qemu_pids() != old, 60)

    @staticmethod
    def connect(w):
        def connected():
            control = socket.socket(socket.AF_UNIX)
            control.settimeout(1)
            try:
                control.connect(os.path.join(w.t.runtime, "vm", "torctl.sock"))
            except ConnectionRefusedError:  # QEMU has not seen the engine go
                control.close()
                return None
            return control

        return wait_for("QEMU's socket", connected, 20)


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
            wait_for("the end of " + name, lambda name=name: not w.t.alive(name), 30)


@fault
class KillAll(Fault):
    name = "kill -9 all"
    ends = True

    def inject(self, w):
        if not w.held:
            w.qemu()
        w.t.kill_everything()


@fault
class Upgrade(Fault):
    """Another version's files in the place of those that run."""

    name = "programs replaced"
    keeps = True

    def inject(self, w):
        folder = os.path.dirname(w.t.program)
        for name in ("torvm", "torvm-broker", "torvmd"):
            path = os.path.join(folder, name)
            shutil.copy(path, path + ".new")
            # As a package manager does it.
            os.rename(path + ".new", path)
        # Whoever starts an engine now must not mix versions.
        for pid in w.t.pids("torvmd"):
            w.t.kill(pid)


# --- network ----------------------------------------------------------------------


@fault
class DeleteTap(Fault):
    name = "TAP deleted"
    stopping = True
    needs = WITH_TAP

    def inject(self, w):
        w.stage.host("ip", "link", "del", "torvm0", check=w.moment != "stopping")


@fault
class FlushTap(Fault):
    """As a network manager does that takes the link for its own."""

    name = "TAP's addresses removed"
    keeps = True
    stopping = True
    needs = WITH_TAP

    def inject(self, w):
        w.stage.host("ip", "addr", "flush", "dev", "torvm0",
                     check=w.moment != "stopping")


@fault
class FlushNft(Fault):
    name = "nft flush ruleset"
    stopping = True

    def inject(self, w):
        begin = time.monotonic()
        before = w.stage.host("nft", "list", "tables")
        left = w.stage.host(
            "sh", "-c", "nft flush ruleset; nft list tables", check=False
        )
        if "inet torvm" in left or "inet torvm" not in before:
            return
        if w.moment == "stopping":
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
class HostileDns(Fault):
    """As a DHCP renewal brings it: a resolver on the LAN, then one far away."""

    name = "hostile DNS"
    keeps = True

    def inject(self, w):
        self.text = w.stage.host("cat", "/etc/resolv.conf")
        expect("nameserver" in self.text, "no resolver to replace: %r" % self.text)
        for server in (topo.NEIGHBOUR4, topo.FALSE_ADDRESS):
            self.write(w, "nameserver %s\n" % server)
            # Whoever is asked: not this one.
            w.stage.host("timeout", "1", "getent", "hosts", "www.lab.test", check=False)
        if w.moment == "Running" and not w.held:
            w.works()

    def heal(self, w):
        self.write(w, self.text)

    @staticmethod
    def write(w, text):
        path = w.stage.lab.machine("host").path("/etc/resolv.conf")
        expect(not os.path.samefile(path, "/etc/resolv.conf"), "not the lab's own")
        with open(path, "w", encoding="ascii") as f:
            f.write(text)


@fault
class RoutesReplaced(Fault):
    """Another default gateway, and then none for a moment."""

    name = "default route replaced"
    keeps = True
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
    keeps = True

    def inject(self, w):
        # In this order: with the first address the kernel deletes the second.
        w.ip("addr del %s/24 dev eth0" % topo.HOST4)
        w.ip("addr add %s.22/24 dev eth0" % topo.LAN4)
        w.ip("-4 route replace default via %s" % topo.ROUTER4)
        if w.moment == "Running" and not w.held:
            # Another network, for good: Tor has to come along.
            begin = time.monotonic()
            w.works()
            w.note = "traffic again after %.1f s" % (time.monotonic() - begin)

    def heal(self, w):
        w.ip("addr del %s.22/24 dev eth0" % topo.LAN4)
        w.ip("addr add %s/24 dev eth0" % topo.HOST4)
        w.ip("-4 route replace default via %s" % topo.ROUTER4)


@fault
class LinkDown(Fault):
    name = "uplink down and up"
    keeps = True
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

    def plug(self, w):
        w.stage.lab.machine("router").check("ip", "link", "set", PORT3, "up")
        w.ip("-n vguest link set hot0 netns 1")
        w.ip("addr add %s/24 dev hot0" % SPARE4)
        w.ip("link set hot0 up")
        begin = time.monotonic()
        if "netdev torvm" in w.stage.host("nft", "list", "tables"):
            wait_for("the block on the new link",
                     lambda: "hot0" in w.stage.host("nft", "list", "ruleset"), 5, 0.01)
            w.window(begin)

    def inject(self, w):
        self.plug(w)
        w.ip("route add default via %s dev hot0 metric 5" % SPARE_ROUTER4)
        answer = w.stage.strike("root", "hot0")
        expect(answer, "no probe was made by hot0")

    def heal(self, w):
        w.ip("route del default via %s dev hot0 metric 5" % SPARE_ROUTER4)
        w.ip("link set hot0 netns vguest")


@fault
class Unplugged(Fault):
    """The uplink is pulled out, and after a while put in again."""

    name = "uplink unplugged"
    keeps = True
    stopping = True

    @staticmethod
    def pull(w):
        w.stage.host("ip", "-n", "vguest", "link", "del", "mv0", check=False)
        w.ip("link set eth0 netns shelf")

    @staticmethod
    def put_back(w):
        w.ip("-n shelf link set eth0 netns 1")
        # As the lab has it.
        w.stage.host("sysctl", "-q", "-w", "net.ipv6.conf.eth0.accept_ra=0")
        w.ip("addr add %s/24 dev eth0" % topo.HOST4)
        w.ip("addr add %s/64 dev eth0" % topo.HOST6)
        w.ip("link set eth0 up")
        w.default_routes()
        w.stage.macvlan()

    def inject(self, w):
        self.pull(w)
        time.sleep(w.rng.uniform(0.2, 3))

    def heal(self, w):
        self.put_back(w)


@fault
class OtherUplink(SecondNic):
    """The uplink is pulled out, and the way is by a link that was not there."""

    name = "another NIC is the uplink"
    keeps = True

    def inject(self, w):
        self.plug(w)
        Unplugged.pull(w)
        w.ip("route add default via %s dev hot0 metric 5" % SPARE_ROUTER4)
        answer = w.stage.strike("root", "hot0")
        expect(answer, "no probe was made by hot0")
        if w.moment == "Running" and not w.held:
            begin = time.monotonic()
            w.works()
            w.note = "traffic again after %.1f s" % (time.monotonic() - begin)

    def heal(self, w):
        super().heal(w)
        Unplugged.put_back(w)


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
class RouterAdvertisement(Fault):
    """A real one, with a prefix and itself as the default router."""

    name = "IPv6 RA"
    prefix = "2001:db8:666:"

    def inject(self, w):
        # A router (the stage is one) takes none otherwise.
        w.stage.host("sysctl", "-q", "-w", "net.ipv6.conf.eth0.accept_ra=2")
        option = struct.pack("!BBBBIII16s", 3, 4, 64, 0xC0, 600, 600, 0,
                             socket.inet_pton(socket.AF_INET6, self.prefix + ":"))
        packet = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 600, 0, 0) + option

        def send():
            with socket.socket(socket.AF_INET6, socket.SOCK_RAW, 58) as s:
                s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
                s.sendto(packet, ("ff02::1", 0, 0, socket.if_nametoindex("lan0")))

        w.stage.lab.machine("router").call_net(send)
        wait_for("an address by it", lambda: self.prefix in w.stage.host(
            "ip", "-6", "addr", "show", "dev", "eth0"), 10)

    def heal(self, w):
        w.stage.host("sysctl", "-q", "-w", "net.ipv6.conf.eth0.accept_ra=0")
        for what in ("-6 addr flush dev eth0 dynamic", "-6 route flush dev eth0 proto ra",
                     "-6 route flush dev eth0 root %s:/64" % self.prefix):
            w.stage.host("ip", *what.split(), check=False)


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
    needs = STARTED

    def inject(self, w):
        host = w.stage.lab.machine("host")
        self.spoil(host.path(os.path.join(w.t.state, "state.img")))
        for pid in w.t.qemu_pids() if w.held else [w.qemu()]:
            w.t.kill(pid)


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
class DiskFull(Fault):
    """That of the state directory, which is small in a life."""

    name = "disk full"
    walks = False
    lasts = True

    def inject(self, w):
        filled = w.t.run("dd", "if=/dev/zero", "of=" + self.filler(w), "bs=4096")
        expect("No space left" in filled.err, "dd: %s" % filled)

    def heal(self, w):
        w.t.run("rm", "-f", self.filler(w))

    @staticmethod
    def filler(w):
        return os.path.join(w.t.state, "filler")


@fault
class ConfigCorrupt(Fault):
    """Unreadable while running, and the engine has to start again."""

    name = "configuration corrupt"

    def spoil(self):
        return self.text[: len(self.text) // 2]

    def inject(self, w):
        with open(w.t.config_path, encoding="utf-8") as f:
            self.text = f.read()
        with open(w.t.config_path, "w", encoding="utf-8") as f:
            f.write(self.spoil())
        for pid in w.t.pids("torvmd"):
            w.t.kill(pid)
        time.sleep(2)

    def heal(self, w):
        with open(w.t.config_path, "w", encoding="utf-8") as f:
            f.write(self.text)


@fault
class ConfigChanged(ConfigCorrupt):
    """A good one, but not the one that TorVM was started with."""

    name = "configuration changed"

    def spoil(self):
        config = json.loads(self.text)
        config.setdefault("network", {})["lan_access"] = True
        return json.dumps(config)

    def inject(self, w):
        super().inject(w)
        if w.moment == "Running" and not w.held:
            lan = wait_for("another engine", lambda: w.t.status()["state"] != "Stopped"
                           and w.t.status(), 30)["lan_access"]
            expect(lan is False, "a configuration that nobody asked for is in force")


class Clock(Fault):
    """For the engine alone, which is the tests' own (src/daemon/test-engine.c):
    nobody sets the machine's clock."""

    realtime = boottime = 0
    keeps = True

    def inject(self, w):
        w.t.order("test-clock", "%d %d" % (self.realtime, self.boottime))
        # The engine looks with each heartbeat; then Tor has to bear it.
        if w.moment == "Running" and not w.held:
            wait_for("the engine to notice", lambda: self.says in w.t.log(), 60)
        elif not w.held:
            time.sleep(8)

    def heal(self, w):
        w.t.order("test-clock", "0 0")


@fault
class ClockForward(Clock):
    name = "clock a day forward"
    says = "clock was set forward by 86400 s"
    realtime = 86400


@fault
class ClockBack(Clock):
    name = "clock a day back"
    says = "clock was set back by 86400 s"
    realtime = -86400


@fault
class Sleep(Clock):
    """Longer than connections live; the VM stood still, too."""

    name = "sleep"
    says = "slept for 90 s; the VM gets the time and connects anew"
    realtime = boottime = 90

    def inject(self, w):
        vms = w.t.qemu_pids()
        for pid in vms:
            w.t.kill(pid, signal.SIGSTOP)
        time.sleep(1)
        for pid in vms:
            w.t.kill(pid, signal.SIGCONT)
        super().inject(w)


@fault
class Flood(Fault):
    """Clients by the thousand: nonsense, halves of calls, calls whose answers
    nobody reads, or nothing. Whoever means well is answered all the same."""

    name = "control socket flooded"
    keeps = True
    junk = [
        json.dumps({"method": "x" * 4000}).encode() + b"\0",
        b"{" * 5000,
        b"\0" * 3000,
        b"\xff\0",
        b'{"method": "org.torvm.Controller.GetSta',
        b"",
        b'{"method": "org.torvm.Controller.GetLog"}\0' * 200,
        b'{"method": "org.torvm.Controller.WatchStatus", "more": true}\0',
    ]

    def inject(self, w):
        path = os.path.join(w.t.runtime, "control.sock")
        held, end, n = [], time.monotonic() + 3, 0
        while time.monotonic() < end and n < 3000:
            s = socket.socket(socket.AF_UNIX)
            s.settimeout(0.2)
            try:
                s.connect(path)
                s.sendall(w.rng.choice(self.junk))
                n += 1
            except OSError:
                pass
            held.append(s)
            if len(held) > 300:
                held.pop(0).close()
        try:
            if not w.held:
                w.t.status()
        finally:
            for s in held:
                s.close()
