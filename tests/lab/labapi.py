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
import topology as topo
import tornet
from capture import Capture
from errors import LabError, need

HERE = os.path.dirname(os.path.realpath(__file__))
CHECKOUT = os.path.dirname(os.path.dirname(HERE))
DEFAULT_DIR = os.path.join(CHECKOUT, "build", "lab")
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
        nick: {"ipv4": a, "ipv6": topo.exit6(a)} for nick, a in topo.EXITS.items()
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
        with tornet.Cache(os.path.join(DEFAULT_DIR, "cache")) as cache:
            binaries = cache.tor()
            authorities = cache.authorities(binaries)
        progress("namespaces")
        state = {
            "name": self.name,
            "boot_id": namespaces.boot_id(),
            "tor": binaries,
            "client_torrc": tornet.client_lines(authorities),
            "daemons": {},
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

    def _daemon(self, machine, name, argv):
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
            self._daemon(machines[name], "dnsmasq-" + name, ["dnsmasq", "-C", path])
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
        self._daemon(machine, "web-" + machine.name, argv + list(more))

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
        self._daemon(
            host,
            "dhclient",
            ["dhclient", "-4", "-d", "-sf", os.path.join(HERE, "dhclient-script")]
            + ["-lf", "/run/dhclient.leases", "-pf", "/run/dhclient.pid", "eth0"],
        )
        self._wait_log("dhclient", "bound to", 30)

    def _start_bus(self, host):
        need("dbus-daemon")
        bus.write_conf(host.path("/run/dbus"), "/run/dbus")
        self._daemon(host, "dbus-daemon", bus.command("/run/dbus/" + bus.CONF))
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

    def torvm_config(self, **sections):
        """TorVM's configuration for this lab, as a dictionary; sections are
        merged over it, e.g. vm={"accel": "tcg"}."""
        config = {"tor": {"options": self.client_torrc() + ["ClientUseIPv6 0"]}}
        for section, values in sections.items():
            config.setdefault(section, {}).update(values)
        return config

    def native_tor_up(self, timeout_s=60):
        """A Tor client in "native", with every TCP connection and DNS query of
        that namespace redirected to it: SocksPort 9050, TransPort 9095, DNSPort
        9093. Returns the seconds it took to bootstrap."""
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
            f.write("\n".join(state["client_torrc"] + NATIVE_TORRC) + "\n")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.log_path("native-tor"))
        start = time.monotonic()
        self._daemon(
            native,
            "native-tor",
            ["setpriv", "--reuid", str(NATIVE_UID), "--regid", str(NATIVE_UID)]
            + ["--clear-groups", os.path.join(state["tor"], "tor")]
            + ["-f", "/run/torrc", "--defaults-torrc", "/dev/null"],
        )
        self._wait_log("native-tor", "Bootstrapped 100%", timeout_s)
        native.check("nft", "-f", "-", text=NATIVE_RULES)
        return time.monotonic() - start

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
