"""A lab as a Python object.

    with Lab(name="mine") as lab:
        lab.run("host", ["curl", "-s", "http://www.lab.test/address"])
        with lab.capture("leaks") as capture:
            ...
        assert capture.show("udp port 53") == []

Namespaces, addresses and servers: README.md.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
import time

import bus
import namespaces
import packages
import peers
import pki
import topology as topo
import tornet
from capture import Capture
from errors import LabError, need

HERE = os.path.dirname(os.path.realpath(__file__))
CHECKOUT = os.path.dirname(os.path.dirname(HERE))
DEFAULT_DIR = os.path.join(CHECKOUT, "build", "lab")
CACHE = os.path.join(DEFAULT_DIR, "cache")
NATIVE_UID = 61199

ADDRESSES = {
    "host": {"ipv4": topo.HOST4, "ipv6": topo.HOST6, "link": "eth0"},
    "native": {"ipv4": topo.NATIVE4, "ipv6": topo.NATIVE6, "link": "eth0"},
    "lan": {"ipv4": topo.NEIGHBOUR4, "ipv6": topo.NEIGHBOUR6, "link": "eth0"},
    "router": {
        "ipv4": topo.ROUTER4,
        "ipv6": topo.ROUTER6,
        "wan_ipv4": topo.WAN4,
        "wan_ipv6": topo.WAN6,
    },
    "servers": {
        name: dict(zip(("ipv4", "ipv6"), addresses))
        for name, addresses in topo.SERVERS.items()
    },
    "dns": topo.DNS4,
    "relays": topo.RELAYS,
    "exits": {
        nick: {"ipv4": a, "ipv6": topo.relay6(a)} for nick, a in topo.EXITS.items()
    },
}


class Lab:
    """One lab, by name; running or not."""

    addresses = ADDRESSES

    def __init__(self, name="default", directory=None, dhcp=False, bus=False):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{0,39}", name):
            raise LabError("--name: letters, digits and '-', at most 40")
        self.name = name
        # Real: the lab's init is found by its working folder as the kernel
        # names it.
        self.base = os.path.realpath(directory or DEFAULT_DIR)
        self.dir = os.path.join(self.base, name)
        self.log_dir = os.path.join(self.dir, "log")
        self._capture_dir = os.path.join(self.dir, "capture")
        self._state_path = os.path.join(self.dir, "state.json")
        self._options = {"dhcp": dhcp, "bus": bus}

    def __enter__(self):
        return self.up()

    def __exit__(self, *_):
        self.down()

    # --- up and down --------------------------------------------------------

    def up(self, progress=lambda text: None):
        """Bring the lab up; when it returns, a Tor client can bootstrap."""
        self._check_machine()
        lock = self._claim()
        try:
            self._build(progress)
        except BaseException:
            # Ctrl-C included: a half-built lab is of no use. The logs are.
            with contextlib.suppress(LabError):
                self.down(keep_logs=True)
            raise
        finally:
            os.close(lock)
        return self

    @staticmethod
    def _check_machine():
        if os.geteuid() != 0:
            raise LabError("the lab needs root: sudo tests/lab/lab ...")
        need("ip", "nft", "dnsmasq", "curl")
        real = os.path.realpath("/etc/resolv.conf")
        if not os.path.exists(real) and not real.startswith("/run/"):
            raise LabError(
                "%s does not exist, so a namespace cannot have its own. Nothing "
                "was changed. Make one: touch %s" % (real, real)
            )
        if not os.path.isdir("/proc/sys/net/ipv6"):
            raise LabError(
                "this kernel runs without IPv6 (ipv6.disable=1?), which the lab "
                "needs. Nothing was changed."
            )

    def _claim(self):
        if self.dir.startswith("/run/") or CHECKOUT.startswith("/run/"):
            raise LabError(
                "/run is private in the lab: use a checkout and --dir elsewhere"
            )
        os.makedirs(self.dir, exist_ok=True)
        # Held while starting; released by the kernel if we are killed.
        lock = os.open(self.dir, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise LabError("lab %s is just being started" % self.name) from None
        if self.running():
            os.close(lock)
            raise LabError(
                "lab %s is already up. Use it, or end it: lab --name %s down"
                % (self.name, self.name)
            )
        # Remains of a lab that was killed, or whose folder was deleted.
        namespaces.kill_inits(self.dir)
        for directory in (self.log_dir, self._capture_dir):
            shutil.rmtree(directory, ignore_errors=True)
            os.mkdir(directory)
        return lock

    def _build(self, progress):
        progress("tor and keys")
        with tornet.Cache(CACHE) as cache:
            binaries = cache.tor()
            authorities = cache.authorities(binaries)
        progress("namespaces")
        state = {
            "name": self.name,
            "boot_id": namespaces.boot_id(),
            "tor": binaries,
            "client_torrc": tornet.client_lines(authorities),
            "daemons": {},
            "peers": {},
            **self._options,
        }

        state["init"], state["machines"] = namespaces.start(
            self.dir, "torvm-" + self.name, topo.MACHINES
        )
        state["init_start"] = namespaces.start_time(state["init"])
        self._save(state)
        machines = {name: self.machine(name) for name in topo.MACHINES}
        topo.connect(machines, self._options["dhcp"])
        progress("servers")
        self._start_servers(machines)
        if self._options["dhcp"]:
            self._start_dhcp(machines["host"])
        if self._options["bus"]:
            self._start_bus(machines["host"])
        progress("tor network")
        pids = tornet.start(machines["net"], authorities, binaries, self.log_dir)
        for nick, pid in pids.items():
            self._remember("net", nick, pid)

    def down(self, keep_logs=False):
        """End the lab and remove its files. A lab that is not up, or only in
        part, or whose processes were killed, is no error."""
        if os.geteuid() != 0:
            raise LabError("the lab needs root: sudo tests/lab/lab ...")
        namespaces.kill_inits(self.dir)
        if not keep_logs:
            self._remove_files()

    def _remove_files(self):
        # Only what a lab made: --dir may hold other things.
        if os.path.isdir(self.log_dir) or os.path.exists(self._state_path):
            shutil.rmtree(self.dir)
        for directory in (self.dir, self.base):
            with contextlib.suppress(OSError):
                os.rmdir(directory)

    # --- state ---------------------------------------------------------------

    def _state(self):
        try:
            with open(self._state_path, encoding="utf-8") as f:
                return json.load(f)
        except FileNotFoundError:
            return None

    def _save(self, state):
        new = self._state_path + ".new"
        with open(new, "w", encoding="utf-8") as f:
            json.dump(state, f, indent=1)
        os.rename(new, self._state_path)

    def _remember(self, machine, name, pid):
        state = self._state()
        state["daemons"][name] = {"machine": machine, "pid": pid}
        self._save(state)

    def running(self):
        """Whether the lab's init lives (it may still be starting)."""
        state = self._state()
        return (
            state is not None
            and state["boot_id"] == namespaces.boot_id()
            and namespaces.start_time(state["init"]) == state["init_start"]
        )

    def _running_state(self):
        if not self.running():
            raise LabError(
                "lab %s is not up. Start it: lab --name %s up" % (self.name, self.name)
            )
        return self._state()

    def machine(self, name):
        """Namespace object of "host", "net", "router", "lan" or "native"."""
        if name not in topo.MACHINES:
            raise LabError(
                "no namespace %r; there are: %s" % (name, ", ".join(topo.MACHINES))
            )
        state = self._running_state()
        return namespaces.Namespace(name, state["init"], state["machines"][name])

    def status(self):
        """Everything worth knowing, as plain data (lab status --json)."""
        state = self._state()
        if state is None or not self.running():
            return {"name": self.name, "up": False, "dir": self.dir}
        machines = {name: self.machine(name) for name in topo.MACHINES}
        daemons = {}
        for name, daemon in state["daemons"].items():
            alive = machines[daemon["machine"]].alive(daemon["pid"])
            daemons[name] = {**daemon, "alive": alive}
        return {
            "name": self.name,
            "up": True,
            "dir": self.dir,
            "init_pid": state["init"],
            "machines": {
                name: {"pid_inside": pid, "proc": machines[name].proc}
                for name, pid in state["machines"].items()
            },
            "daemons": daemons,
            "addresses": ADDRESSES,
            "consensus": tornet.consensus(machines["net"]),
            "onion": tornet.onion_address(machines["net"]),
        }

    # --- running things -----------------------------------------------------

    def run(self, machine, argv, **kwargs):
        """subprocess.run() in a namespace."""
        return self.machine(machine).run(argv, **kwargs)

    def output(self, machine, argv, **kwargs):
        """What a command prints; CalledProcessError when it fails."""
        kwargs.setdefault("check", True)
        done = self.run(
            machine, argv, stdout=subprocess.PIPE, universal_newlines=True, **kwargs
        )
        return done.stdout

    def popen(self, machine, argv, **kwargs):
        """subprocess.Popen() in a namespace, see Namespace.popen()."""
        return self.machine(machine).popen(argv, **kwargs)

    def spawn(self, machine, name, argv):
        """Start a daemon of the lab's in a machine (Namespace); returns its PID
        inside. Its log is log_path(name)."""
        pid = machine.spawn(argv, self.log_path(name))
        self._remember(machine.name, name, pid)
        return pid

    def log_path(self, name):
        return os.path.join(self.log_dir, name + ".log")

    def _start_servers(self, machines):
        for name, conf in (
            ("net", topo.dnsmasq_internet()),
            ("router", topo.dnsmasq_router(self.log_path("dns-queries"))),
        ):
            path = "/run/dnsmasq.conf"
            with open(machines[name].path(path), "w", encoding="ascii") as f:
                f.write(conf)
            self.spawn(machines[name], "dnsmasq-" + name, ["dnsmasq", "-C", path])
        public = [a for pair in topo.SERVERS.values() for a in pair]
        near = [topo.NEIGHBOUR4, topo.NEIGHBOUR6]
        portal = "%s:%d" % (topo.ROUTER4, topo.PORTAL_PORT)
        self._web(machines["net"], public)
        self._web(machines["lan"], near)
        self._web(machines["router"], [], "--portal", portal)
        for name in ("net", "lan", "router"):
            self._wait_log("web-" + name, "ready")

    def _web(self, machine, addresses, *more):
        argv = ["/usr/bin/python3", os.path.join(HERE, "webserver.py")]
        argv += ["--log", self._requests_path(machine.name)]
        for address in addresses:
            argv += ["--http", address, "--echo", address]
        self.spawn(machine, "web-" + machine.name, argv + list(more))

    def _wait_log(self, name, word, timeout_s=15):
        daemon = self._state()["daemons"][name]
        machine = self.machine(daemon["machine"])
        deadline = time.monotonic() + timeout_s
        while True:
            alive = machine.alive(daemon["pid"])
            with open(self.log_path(name), encoding="utf-8", errors="replace") as f:
                if word in f.read():
                    return
            if not alive or time.monotonic() > deadline:
                raise LabError(
                    "%s: no %r: %s" % (name, word, tornet.tail(self.log_path(name)))
                )
            time.sleep(0.05)

    def _start_dhcp(self, host):
        need("dhclient")
        self.spawn(
            host,
            "dhclient",
            ["dhclient", "-4", "-d", "-sf", os.path.join(HERE, "dhclient-script")]
            + ["-lf", "/run/dhclient.leases", "-pf", "/run/dhclient.pid", "eth0"],
        )
        self._wait_log("dhclient", "bound to", 30)

    def _start_bus(self, host):
        need("dbus-daemon")
        bus.write_conf(host.path("/run/dbus"), "/run/dbus")
        self.spawn(host, "dbus-daemon", bus.command("/run/dbus/" + bus.CONF))
        self._wait_log("dbus-daemon", "unix:path=")

    # --- what the servers saw ----------------------------------------------

    def _requests_path(self, machine):
        return os.path.join(self.log_dir, "requests-%s.jsonl" % machine)

    def requests(self, machine="net"):
        """Requests that the servers of "net", "lan" or "router" wrote down."""
        with open(self._requests_path(machine), encoding="utf-8") as f:
            return [json.loads(line) for line in f]

    def dns_queries(self):
        """Lines of queries that reached the LAN's (the router's) resolver."""
        with open(self.log_path("dns-queries"), encoding="utf-8") as f:
            return [line.rstrip() for line in f if ": query[" in line]

    def capture(self, name="capture", port=topo.CAPTURE_PORT):
        """A Capture of the host's uplink (or of another link of the router's); a
        context manager."""
        return Capture(self.machine("router"), self._capture_dir, name, port)

    # --- faults -------------------------------------------------------------

    def net_cut(self):
        """The Internet is gone: the router forwards nothing."""
        self.machine("router").check("nft", "-f", "-", text=topo.FAULT_CUT)

    def net_restore(self):
        self.machine("router").check("nft", "-f", "-", text=topo.FAULT_OFF)

    def captive(self, on):
        """A captive portal: web requests get a login page, the rest nothing."""
        text = topo.FAULT_CAPTIVE if on else topo.FAULT_OFF
        self.machine("router").check("nft", "-f", "-", text=text)

    def censor(self, what, *endpoints):
        """A censor on the router, one at a time.

        "drop-all-but" ADDRESS:PORT...: all else from the LAN is dropped;
        "drop" ADDRESS...: what goes there is dropped;
        "reset-tor": TLS with a relay is reset once the client has said hello;
        "false-dns": each name, asked of anyone, is FALSE_ADDRESS;
        "off".
        """
        router = self.machine("router")
        text = topo.censor(what, endpoints)
        if what == "false-dns" and not self._alive("dnsmasq-censor"):
            path = "/run/dnsmasq-censor.conf"
            with open(router.path(path), "w", encoding="ascii") as f:
                f.write(topo.dnsmasq_censor())
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.log_path("dnsmasq-censor"))
            self.spawn(router, "dnsmasq-censor", ["dnsmasq", "-C", path])
            self._wait_log("dnsmasq-censor", "started")
        router.check("nft", "-f", "-", text=text)
        if what != "false-dns":
            self._end("dnsmasq-censor")

    # --- peers ----------------------------------------------------------------

    def peers_up(self, *names):
        """Start peers (peers.PEERS); those that run are left alone."""
        for name in names:
            self._check_peer(name)
        state = self._running_state()
        with tornet.Cache(CACHE) as cache:
            site = PeerSite(self, cache.peers(), cache.certificates(), state)
        for name in names:
            if self._peer_runs(name):
                continue
            self.peers_down(name)
            machine = self.machine(peers.PEERS[name][1])
            try:
                facts, daemons = peers.start(name, machine, site)
            except BaseException:
                for daemon in self._state()["daemons"]:
                    if daemon.startswith("peer-%s-" % name):
                        self._end(daemon)
                raise
            state = self._state()
            state["peers"][name] = {"facts": facts, "daemons": daemons}
            self._save(state)

    def peers_down(self, *names):
        """End peers, all without names; one that does not run is no error."""
        for name in names or self._running_state()["peers"]:
            self._check_peer(name)
            peer = self._running_state()["peers"].get(name)
            if peer is None:
                continue
            for daemon in peer["daemons"]:
                self._end(daemon)
            state = self._state()
            del state["peers"][name]
            self._save(state)

    def peer(self, name):
        """What a client needs to know of a peer that runs, see peers.start()."""
        self._check_peer(name)
        peer = self._running_state()["peers"].get(name)
        if peer is None:
            raise LabError("peer %s is not up: lab peers up %s" % (name, name))
        return peer["facts"]

    def peers_running(self):
        """Names of the peers of which every daemon lives."""
        return [n for n in self._running_state()["peers"] if self._peer_runs(n)]

    def snowflake_events(self):
        """What the broker, the STUN server and the snowflake proxy saw."""
        with open(self.log_path("snowflake-events"), encoding="utf-8") as f:
            return [json.loads(line) for line in f]

    def ca_path(self):
        """The lab's certificate authority, which clients have to trust."""
        return os.path.join(CACHE, "pki", pki.CA)

    @staticmethod
    def _check_peer(name):
        if name not in peers.PEERS:
            raise LabError(
                "no peer %r; there are: %s" % (name, ", ".join(peers.PEERS))
            )

    def _peer_runs(self, name):
        peer = self._running_state()["peers"].get(name)
        return peer is not None and all(self._alive(d) for d in peer["daemons"])

    def _alive(self, daemon):
        entry = self._running_state()["daemons"].get(daemon)
        return entry is not None and self.machine(entry["machine"]).alive(entry["pid"])

    def _end(self, daemon):
        """Kill a daemon and forget it; an unknown one is no error."""
        state = self._running_state()
        entry = state["daemons"].pop(daemon, None)
        if entry is not None:
            self.machine(entry["machine"]).end(entry["pid"])
            self._save(state)

    # --- tor clients --------------------------------------------------------

    def client_torrc(self):
        """torrc lines that make any Tor a client of this lab."""
        return self._running_state()["client_torrc"]

    def onion(self, timeout_s=60):
        """Host name of the onion service, once clients can reach it."""
        deadline = time.monotonic() + timeout_s
        while not tornet.onion_ready(self.log_dir):
            if time.monotonic() > deadline:
                raise LabError("the onion service's descriptor is not published")
            time.sleep(0.1)
        return tornet.onion_address(self.machine("net"))

    def torvm_config(self, use_bridge=None, use_proxy=None, **sections):
        """TorVM's configuration for this lab, as a dictionary; sections are
        merged over it, e.g. vm={"accel": "tcg"}.

        use_bridge, use_proxy: names of peers that run.
        """
        config = {"tor": {"options": self.client_torrc()}}
        if use_bridge:
            line = self.peer(use_bridge)["line"]
            transport = line.split()[0] if line[0].isalpha() else "none"
            config["bridge"] = {
                "use_bridges": True,
                "transport": transport,
                "bridges": [line],
            }
        if use_proxy:
            facts = self.peer(use_proxy)
            keys = ("type", "address", "username", "password")
            config["proxy"] = {key: facts[key] for key in keys}
        for section, values in sections.items():
            config.setdefault(section, {}).update(values)
        return config

    def native_tor_up(self, timeout_s=60, use_bridge=None, use_proxy=None):
        """A Tor client in "native", with every TCP connection and DNS query of
        that namespace redirected to it: SocksPort 9050, TransPort 9095, DNSPort
        9093. Returns the seconds it took to bootstrap.

        use_bridge, use_proxy: names of peers that run.
        """
        state = self._running_state()
        native = self.machine("native")
        old = state["daemons"].get("native-tor")
        if old and native.alive(old["pid"]):
            raise LabError("native tor is already up")
        data = native.path("/run/tor")
        os.makedirs(data, 0o700, exist_ok=True)
        os.chown(data, NATIVE_UID, NATIVE_UID)
        torrc = native.path("/run/torrc")
        with open(torrc, "w", encoding="ascii") as f:
            lines = state["client_torrc"] + NATIVE_TORRC
            lines += self._peers_torrc(use_bridge, use_proxy)
            f.write("\n".join(lines) + "\n")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.log_path("native-tor"))
        start = time.monotonic()
        self.spawn(
            native,
            "native-tor",
            ["env", "SSL_CERT_FILE=" + self.ca_path()]
            + ["setpriv", "--reuid", str(NATIVE_UID), "--regid", str(NATIVE_UID)]
            + ["--clear-groups", os.path.join(state["tor"], "tor")]
            + ["-f", "/run/torrc", "--defaults-torrc", "/dev/null"],
        )
        self._wait_log("native-tor", "Bootstrapped 100%", timeout_s)
        native.check("nft", "-f", "-", text=NATIVE_RULES)
        return time.monotonic() - start

    def _peers_torrc(self, use_bridge, use_proxy):
        """torrc lines of a client with lyrebird."""
        lines = []
        if use_bridge:
            line = self.peer(use_bridge)["line"]
            lines += ["UseBridges 1", "Bridge " + line]
            transport = line.split()[0]
            if ":" not in transport:
                # One alone: asked for snowflake too, lyrebird refuses most proxies.
                lyrebird = packages.program(os.path.join(CACHE, "peers"), "lyrebird")
                lines.append(
                    "ClientTransportPlugin %s exec %s" % (transport, lyrebird)
                )
        if use_proxy:
            proxy = self.peer(use_proxy)
            if proxy["type"] == "socks5":
                lines.append("Socks5Proxy " + proxy["address"])
                lines.append("Socks5ProxyUsername " + proxy["username"])
                lines.append("Socks5ProxyPassword " + proxy["password"])
            else:
                lines.append("HTTPSProxy " + proxy["address"])
                lines.append(
                    "HTTPSProxyAuthenticator %(username)s:%(password)s" % proxy
                )
        return lines

    def native_tor_down(self):
        state = self._running_state()
        native = self.machine("native")
        native.check("nft", "-f", "-", text=NATIVE_RULES_OFF)
        daemon = state["daemons"].pop("native-tor", None)
        if daemon is None:
            return
        native.end(daemon["pid"])
        shutil.rmtree(native.path("/run/tor"), ignore_errors=True)
        self._save(state)


class PeerSite:
    """What peers are started with: root is the folder of their programs
    (packages.py), files that of certificates (pki.py)."""

    def __init__(self, lab, root, files, state):
        self.lab = lab
        self.root = root
        self.files = files
        self.tor = state["tor"]
        self.client_torrc = state["client_torrc"]

    def spawn(self, machine, name, argv):
        return self.lab.spawn(machine, name, argv)


NATIVE_TORRC = [
    "DataDirectory /run/tor",
    "Log notice stdout",
    "SocksPort 127.0.0.1:9050",
    "TransPort 127.0.0.1:9095",
    "DNSPort 127.0.0.1:9093",
    "ClientUseIPv6 0",
    "ClientOnly 1",
]

NATIVE_RULES_OFF = """
table inet native
delete table inet native
"""

NATIVE_RULES = NATIVE_RULES_OFF + """
table inet native {
	chain output {
		type nat hook output priority -100
		meta skuid %d return
		udp dport 53 redirect to :9093
		ip daddr { 127.0.0.0/8, %s.0/24 } return
		meta nfproto ipv4 meta l4proto tcp redirect to :9095
	}
	chain refuse {
		type filter hook output priority filter
		meta nfproto ipv6 oifname != "lo" meta l4proto { tcp, udp } reject
	}
}
""" % (
    NATIVE_UID,
    topo.LAN4,
)
