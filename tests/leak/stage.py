"""The lab, set for the leak tests: senders in their places, captures, the judge.

                        +-- eth0 ----------------- router        first uplink
    child -- c1/c0 -- host
                        +-- br0 (u0, g0) --------- router        second uplink
                                     +-- guest
    macvlan of eth0: mv0, in a namespace of its own

The host forwards and masquerades for `child` as Docker does for its containers.
Both links are captured; a probe is seen when either capture has it.
"""

import json
import os
import socket
import subprocess
import sys

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "vm"))

from product import (  # noqa: E402
    TORVM,
    Failure,
    Lab,
    Product,
    clean_environment,
    expect,
    same_network,
    wait_for,
)

import judge as judging  # noqa: E402
import matrix  # noqa: E402
import topology as topo  # noqa: E402
import tornet  # noqa: E402
from errors import LabError  # noqa: E402

PROBES = os.path.join(HERE, "probes.py")
USER, VM_UID = 61234, 61101
PORT2, PORT3 = "to-host2", "to-host3"
NET2, NET2_6 = "192.168.78", "2001:db8:78:"
SPARE4, SPARE_ROUTER4 = "192.168.79.2", "192.168.79.1"
CHILD, CHILD6 = "198.18.0", "2001:db8:3:"

HOST_RULES = """
table inet containers
delete table inet containers
table inet containers {
	chain nat {
		type nat hook postrouting priority srcnat
		ip saddr %s.0/24 oifname != "c0" masquerade
		ip6 saddr %s:/64 oifname != "c0" masquerade
	}
}
""" % (CHILD, CHILD6)

STUB = """
no-daemon
no-resolv
no-hosts
user=root
pid-file=
bind-interfaces
listen-address=127.0.0.53
except-interface=nonexistent
cache-size=0
server=%s
""" % topo.ROUTER4


class Sender:
    """A probes.py in one place."""

    def __init__(self, name, popen, config):
        self.name = name
        self._process = popen(["/usr/bin/python3", PROBES, json.dumps(config)])

    def write(self, **command):
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()

    def read(self):
        line = self._process.stdout.readline()
        if not line:
            raise Failure("sender %s ended" % self.name)
        answer = json.loads(line)
        if "error" in answer:
            raise Failure("sender %s: %s" % (self.name, answer["error"]))
        return answer

    def ask(self, **command):
        self.write(**command)
        return self.read()

    def close(self):
        self._process.stdin.close()
        self._process.wait(timeout=20)


class Captures:
    """All links' captures as one."""

    def __init__(self, stage, name):
        self.stage = stage
        self._all = [
            stage.lab.capture(name),
            stage.lab.capture(name + "-2", port=PORT2),
            stage.lab.capture(name + "-3", port=PORT3),
        ]

    def __enter__(self):
        for capture in self._all:
            capture.start()
        return self

    def __exit__(self, *_):
        for capture in self._all:
            capture.__exit__()

    def sync(self):
        for capture in self._all:
            capture.sync()

    def frames(self):
        found = []
        for capture in self._all:
            found += judging.read_pcap(capture.pcap)
        return found


class Stage:
    """A lab that is up, with all senders."""

    def __init__(self, lab: Lab):
        self.lab = lab
        self.skipped = {}  # sender: why
        self.senders = {}
        self._build()
        self.judge = judging.Judge(
            self._outside(),
            [socket.inet_aton(a) for a in topo.RELAYS.values()]
            + [socket.inet_pton(socket.AF_INET6, topo.relay6(a)) for a in topo.RELAYS.values()],
            (tornet.ORPORT, tornet.DIRPORT),
            # Its links': Tor takes the second one when the first is gone.
            [
                socket.inet_aton(a)
                for a in (topo.HOST4, topo.LAN4 + ".22", NET2 + ".2", SPARE4)
            ]
            + [socket.inet_pton(socket.AF_INET6, topo.HOST6)],
            [socket.inet_aton(net + ".0")[:3] for net in (topo.LAN4, NET2)],
        )

    # --- the scene -----------------------------------------------------------

    def host(self, *argv, check=True):
        done = self.lab.run(
            "host",
            list(argv),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            universal_newlines=True,
        )
        if check and done.returncode != 0:
            raise LabError("host: %s: %s" % (" ".join(argv), done.stdout.strip()))
        return done.stdout

    def _ip(self, text):
        for line in text.strip().splitlines():
            self.host("ip", *line.split())

    def _build(self):
        lab = self.lab
        router, host = lab.machine("router"), lab.machine("host")
        topo.link(PORT2, router, "u0", host)
        for line in (
            "addr add %s.1/24 dev %s" % (NET2, PORT2),
            "addr add %s:1/64 dev %s nodad" % (NET2_6, PORT2),
            "link set %s up" % PORT2,
        ):
            router.check("ip", *line.split())
        net = lab.machine("net")
        net.check(*("ip route add %s:/64 via %s" % (NET2_6, topo.WAN6)).split())
        # The shelf is where an unplugged link lies: alone, so it keeps its number.
        for name in ("child", "guest", "vguest", "shelf"):
            self.host("ip", "netns", "add", name)
        self.host("sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
        # For IPv6, too; static addresses stay as they are.
        self.host("sysctl", "-q", "-w", "net.ipv6.conf.all.forwarding=1")
        self._ip(
            """
link add c0 type veth peer name c1 netns child
addr add {c}.1/24 dev c0
addr add {c6}:1/64 dev c0 nodad
link set c0 up
-n child link set lo up
-n child addr add {c}.2/24 dev c1
-n child addr add {c6}:2/64 dev c1 nodad
-n child link set c1 up
-n child route add default via {c}.1
-n child -6 route add default via {c6}:1
link add br0 type bridge forward_delay 0 mcast_snooping 0
link add g0 type veth peer name g1 netns guest
link set g0 master br0 up
link set u0 master br0 up
addr add {n}.2/24 dev br0
addr add {n6}:2/64 dev br0 nodad
link set br0 up
route add default via {n}.1 metric 500
-6 route add default via {n6}:1 metric 5000
-n guest link set lo up
-n guest addr add {n}.50/24 dev g1
-n guest addr add {n6}:50/64 dev g1 nodad
-n guest link set g1 up
-n guest route add default via {n}.1
-n guest -6 route add default via {n6}:1
""".format(c=CHILD, c6=CHILD6, n=NET2, n6=NET2_6)
        )
        self.macvlan()
        self._spare_link(router)
        self.host_rules()
        # Static IPv6 addresses stay when a link goes down, as IPv4's do.
        self.host("sysctl", "-q", "-w", "net.ipv6.conf.all.keep_addr_on_down=1")
        for name in (None, "child", "guest", "vguest"):
            where = ["ip", "netns", "exec", name] if name else []
            # Ordinary users may ping.
            everybody = "net.ipv4.ping_group_range=0 2147483647"
            self.host(*where, "sysctl", "-q", "-w", everybody)
        lab.machine("lan").check(
            "sysctl", "-q", "-w", "net.ipv4.ping_group_range=0 2147483647"
        )
        with open(host.path("/run/stub.conf"), "w", encoding="ascii") as f:
            f.write(STUB)
        host.spawn(["dnsmasq", "-C", "/run/stub.conf"], lab.log_path("stub"))

    def host_rules(self):
        self.lab.machine("host").check("nft", "-f", "-", text=HOST_RULES)

    def _spare_link(self, router):
        """A third link, which is plugged into the host later: hot0."""
        topo.link(PORT3, router, "hot0", self.lab.machine("host"))
        router.check("ip", "addr", "add", SPARE_ROUTER4 + "/24", "dev", PORT3)
        router.check("ip", "link", "set", PORT3, "up")
        self._ip("link set hot0 netns vguest")

    def macvlan(self):
        """It goes with its link, eth0."""
        try:
            self._ip("link add link eth0 name mv0 netns vguest type macvlan mode bridge")
        except LabError as e:
            self.skipped["macvlan"] = str(e)
            return
        self._ip(
            """
-n vguest link set lo up
-n vguest addr add {n}.51/24 dev mv0
-n vguest addr add {n6}:51/64 dev mv0 nodad
-n vguest link set mv0 up
-n vguest route add default via {n}.1
-n vguest -6 route add default via {n6}:1
""".format(n=topo.LAN4, n6=topo.LAN6)
        )

    def _outside(self):
        macs = [b"\x02" + bytes(5)]
        for name in ("router", "lan", "native", "net"):
            text = self.lab.machine(name).check("ip", "-j", "link")
            macs += [
                bytes.fromhex(link["address"].replace(":", ""))
                for link in json.loads(text)
                if link.get("address") and link["link_type"] == "ether"
            ]
        return macs

    def _mac(self, machine, link):
        text = self.lab.machine(machine).check("ip", "-j", "link", "show", link)
        return json.loads(text)[0]["address"]

    def _link_local(self, machine, link):
        text = self.lab.machine(machine).check("ip", "-6", "-j", "addr", "show", link)
        (found,) = [x for x in json.loads(text) if x.get("ifname") == link]
        return next(a["local"] for a in found["addr_info"] if a["scope"] == "link")

    def _vm_uid(self):
        """As src/broker finds it."""
        return self.host("sh", "-c", "id -u torvm-vm 2>&- || echo %d" % VM_UID).strip()

    # --- the senders -----------------------------------------------------------

    def start_senders(self):
        """New ones, without a past."""
        self.close_senders()
        router = self._mac("router", "lan0")
        neighbour = self._link_local("lan", "eth0")
        second = self._mac("router", PORT2)
        own = ("eth0", topo.HOST4, topo.HOST6, topo.LAN4, router)
        places = {
            "user": own,
            "root": own,
            "vm": own,
            "child": ("c1", CHILD + ".2", CHILD6 + ":2", CHILD, router),
            "bridge": ("g1", NET2 + ".50", NET2_6 + ":50", NET2, second),
            "macvlan": ("mv0", topo.LAN4 + ".51", topo.LAN6 + ":51", topo.LAN4, router),
            "kernel": (
                *("eth0", topo.NEIGHBOUR4, topo.NEIGHBOUR6, topo.LAN4),
                self._mac("host", "eth0"),
            ),
        }
        near = {"bridge": self._link_local("router", PORT2)}
        before = {
            "user": ["setpriv", "--reuid", str(USER), "--clear-groups"],
            "vm": ["setpriv", "--reuid", self._vm_uid(), "--clear-groups"],
            "child": ["ip", "netns", "exec", "child"],
            "bridge": ["ip", "netns", "exec", "guest"],
            "macvlan": ["ip", "netns", "exec", "vguest"],
        }
        for name in matrix.SENDERS:
            if name in self.skipped:
                continue
            link, source4, source6, net, mac = places[name]
            server = {4: topo.WWW4, 6: topo.WWW6}
            if name == "kernel":
                server = {4: topo.HOST4, 6: topo.HOST6}
            config = {
                "link": link,
                "source": {4: source4, 6: source6},
                "target": server,
                "gateway": {4: topo.ROUTER4, 6: topo.ROUTER6},
                "dns": {4: topo.DNS4, 6: topo.WWW6},
                "lan": {4: topo.NEIGHBOUR4, 6: topo.NEIGHBOUR6},
                "near": {6: "%s%%%s" % (near.get(name, neighbour), link)},
                "other": {"link": "br0", "mac": second},
                "broadcast": net + ".255",
                "gateway_mac": mac,
                "raw_proto": 254 if name == "child" else 253,
            }
            machine = "lan" if name == "kernel" else "host"

            def popen(argv, name=name, machine=machine):
                return self.lab.popen(
                    machine,
                    before.get(name, []) + argv,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    universal_newlines=True,
                    env=clean_environment(),
                )

            self.senders[name] = Sender(name, popen, config)

    def close_senders(self):
        for sender in self.senders.values():
            sender.close()
        self.senders = {}

    def strike(self, name, link):
        """Probes of a sender by another link; how many were made."""
        cells = [c for c in self.cells("Running") if c.sender == name]
        cells = [[c.n, c.probe, c.family] for c in cells if c.probe in matrix.STRIKE]
        return len(self.senders[name].ask(do="strike", link=link, cells=cells)["results"])

    def cells(self, state):
        return [
            c for c in matrix.cells() if c.state == state and c.sender in self.senders
        ]

    def _each(self, cells, do):
        """A command to every sender at once; answers by sender."""
        by_sender = {name: [] for name in self.senders}
        for c in cells:
            by_sender[c.sender].append([c.n, c.probe, c.family])
        for name, own in by_sender.items():
            self.senders[name].write(do=do, cells=own)
        return {name: self.senders[name].read() for name in by_sender}

    def prepare(self, *states):
        """Give the senders the past that some probes of these states need."""
        for state in states:
            past = [c for c in self.cells(state) if matrix.needs_past(c.probe)]
            self._each(past, "prepare")

    def fire(self, state):
        """All probes of a state under one capture: what came of each."""
        cells = self.cells(state)
        name = state.replace(": ", "-").replace(" ", "-")
        with Captures(self, name) as captures:
            answers = self._each(cells, "fire")
        return self.verdicts(state, cells, answers, captures.frames())

    def verdicts(self, state, cells, answers, frames):
        results = {}
        for answer in answers.values():
            results.update(answer.get("results", {}))
        known = {c.n: c for c in matrix.cells()}
        open_ = matrix.STATES[state][0] == "open"
        lan_access = state == "LAN access"
        closed = {n for n, c in known.items() if c.sender in matrix.WITHOUT_LAN}
        leaks, counts = self.judge.judge(
            frames, lan_access, closed, ipv6=state == "IPv6 uplink"
        )
        seen, strangers = {}, []
        for p in leaks:
            numbers = judging.cells_of(p, known)
            own = [n for n in numbers if known[n].state == state]
            for n in own:
                seen.setdefault(n, []).append(judging.text(p))
            if not own:
                strangers.append(judging.text(p))
        return {
            "verdict": "open" if open_ else "closed",
            "packets": len(frames),
            "counts": dict(counts),
            "cells": {
                c.n: {
                    "sender": c.sender,
                    "probe": c.probe,
                    "family": c.family,
                    "packets": len(seen.get(c.n, [])),
                    "seen": seen.get(c.n, [])[:3],
                    **results[str(c.n)],
                }
                for c in cells
            },
            # When nothing is refused, others may speak as they like.
            "strangers": [] if open_ else strangers[:50],
        }


__all__ = ["TORVM", "Captures", "Failure", "Lab", "Product", "Stage", "expect"]
__all__ += ["same_network", "wait_for"]
