"""The lab's host with the real services of a Debian machine.

Theory of operation

The services come from unpacked.py and are laid over the host's /usr, /etc and
/var/lib by overlay mounts that exist in that namespace alone; what they write goes
into its /run. /sys is read-only there: with that, NetworkManager and networkd know
that no udev will tell them of links. Nothing is started by itself; each service
runs in the foreground on the lab's own bus, as its unit would start it.

/etc/resolv.conf is an ordinary file of the overlay: services may replace it.
"""

import json
import os
import signal
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "vm"))

from product import Failure, LabError, expect, wait_for  # noqa: E402
import topology  # noqa: E402
import unpacked  # noqa: E402

OVERLAID = ("/usr", "/etc", "/var/lib")
# A user's own configuration of these must not decide what is tested.
EMPTY = (
    *("/etc/NetworkManager", "/etc/systemd/network", "/etc/systemd/resolved.conf.d"),
    *("/etc/firewalld", "/var/lib/NetworkManager", "/etc/resolvconf"),
)
USERS = {"systemd-resolve": 61190, "systemd-network": 61191}
MACHINE_ID = "5e1e3c2e000040008000000000000002"
RESOLV_CONF = "nameserver 192.168.77.1\n"
STUB = "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n"
TIMEOUT_S = 60

NM_CONF = """[main]
plugins=keyfile
auth-polkit=false
dhcp=internal
dns=%(dns)s
rc-manager=file
no-auto-default=*

[logging]
level=INFO
"""

NM_CONNECTION = """[connection]
id=wired
uuid=5e1e3c2e-0000-4000-8000-000000000001
type=ethernet
interface-name=eth0
autoconnect=true

[ipv4]
method=auto
dhcp-timeout=60

[ipv6]
method=auto
addr-gen-mode=0
"""

NETWORKD_DHCP = """[Match]
Name=eth0

[Network]
DHCP=ipv4
IPv6AcceptRA=yes
LinkLocalAddressing=ipv6
"""


class Host:
    """Services of one lab's host. Files below the lab's log folder."""

    def __init__(self, lab):
        self.lab = lab
        self.machine = lab.machine("host")
        self.pids = {}

    # --- the file system -----------------------------------------------------

    def prepare(self):
        """Lay the packages over the host's file system."""
        for path in OVERLAID:
            if os.path.realpath(self.lab.dir).startswith(path + "/"):
                raise LabError("the services need a lab outside of " + path)
        root = unpacked.fetch(os.path.join(self.lab.base, "cache", "services"))
        script = ["set -e", "mkdir -p /run/over", "mount -t tmpfs over /run/over"]
        for path in OVERLAID:
            low = "/run/over/low" + path
            up = "/run/over/up" + path
            work = "/run/over/work" + path
            script += [
                "mkdir -p %s %s %s" % (low, up, work),
                # An overlay takes ':' and ',' in a path for its own.
                "mount --bind %s %s" % (_quote(root + path), low)
                if os.path.isdir(root + path)
                else ":",
                "mount -t overlay over -o lowerdir=%s:%s,upperdir=%s,workdir=%s %s"
                % (low, path, up, work, path),
            ]
        for path in EMPTY:
            script += ["mkdir -p %s" % path, "mount -t tmpfs empty %s" % path]
        script += ["mkdir -p /run/systemd", "mount -o remount,ro /sys"]
        done = self.machine.run(
            ["sh", "-c", "\n".join(script)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            universal_newlines=True,
        )
        expect(done.returncode == 0, "overlay mounts: " + done.stdout)
        for name, number in USERS.items():
            self.append("/etc/passwd", "%s:x:%d:%d::/:/usr/sbin/nologin\n" % (name, number, number))
            self.append("/etc/group", "%s:x:%d:\n" % (name, number))
        # A chroot may have none, and networkd makes its DHCP identity of it.
        self.write("/etc/machine-id", MACHINE_ID + "\n")
        self.root = root
        self.resolv_conf()

    def write(self, path, text, mode=0o644):
        """A file of the host's, in place of what is there (a link, too)."""
        outside = self.machine.path(path)
        os.makedirs(os.path.dirname(outside), exist_ok=True)
        if os.path.lexists(outside):
            os.unlink(outside)
        with open(outside, "w", encoding="utf-8") as f:
            f.write(text)
        os.chmod(outside, mode)

    def append(self, path, text):
        with open(self.machine.path(path), "a", encoding="utf-8") as f:
            f.write(text)

    def read(self, path):
        with open(self.machine.path(path), encoding="utf-8") as f:
            return f.read()

    def resolv_conf(self, text=RESOLV_CONF):
        self.write("/etc/resolv.conf", text)

    def set_rp_filter(self, value):
        self.write_sysctl("net/ipv4/conf/all/rp_filter", 0)
        self.write_sysctl("net/ipv4/conf/eth0/rp_filter", value)

    def rp_filter(self):
        return self.output("sysctl", "-n", "net.ipv4.conf.eth0.rp_filter").strip()

    def write_sysctl(self, name, value):
        self.output("sh", "-c", "echo %s >/proc/sys/%s" % (value, name))

    # --- processes -------------------------------------------------------------

    def start(self, name, argv, **environment):
        """A daemon of the host's PID 1; its output is in log/NAME.log."""
        expect(not self.alive(name), name + " runs already")
        env = ["%s=%s" % item for item in environment.items()]
        self.pids[name] = self.machine.spawn(["env", *env, *argv], self.log_path(name))

    def log_path(self, name):
        return self.lab.log_path("service-" + name)

    def log(self, name):
        with open(self.log_path(name), encoding="utf-8", errors="replace") as f:
            return f.read()

    def alive(self, name):
        return name in self.pids and self.machine.alive(self.pids[name])

    def stop(self, name, signum=signal.SIGTERM):
        """End a service and wait for its end."""
        if not self.alive(name):
            return
        self.machine.kill(self.pids[name], signum)
        self.wait("the end of " + name, lambda: not self.alive(name), name)

    def wait(self, what, condition, name=None, timeout_s=TIMEOUT_S):
        try:
            return wait_for(what, condition, timeout_s)
        except Failure as e:
            log = self.log(name)[-3000:] if name in self.pids else ""
            raise Failure("%s\n%s" % (e, log)) from None

    def output(self, *argv, check=True):
        done = self.machine.run(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            universal_newlines=True,
            timeout=60,
        )
        expect(done.returncode == 0 or not check, "%s: %s" % (" ".join(argv), done.stdout))
        return done.stdout

    def on_bus(self, name):
        """Whether a service has its name on the lab's bus."""
        answer = self.output(
            *("busctl", "call", "org.freedesktop.DBus", "/org/freedesktop/DBus"),
            *("org.freedesktop.DBus", "NameHasOwner", "s", name),
            check=False,
        )
        return answer.strip() == "b true"

    # --- systemd-resolved ---------------------------------------------------------

    def start_resolved(self, config=""):
        """systemd-resolved, and a resolv.conf that leads to its stub."""
        self.write("/etc/systemd/resolved.conf", "[Resolve]\n" + config)
        self.start(
            "resolved",
            ["/usr/lib/systemd/systemd-resolved"],
            SYSTEMD_LOG_TARGET="console",
            SYSTEMD_LOG_LEVEL="info",
        )
        self.wait(
            "resolved on the bus",
            lambda: self.on_bus("org.freedesktop.resolve1"),
            "resolved",
        )
        self.resolv_conf(STUB)

    def resolve_link(self, name):
        """What resolved holds for a link, by its bus properties."""
        index = json.loads(self.output("ip", "-j", "link", "show", name))[0]["ifindex"]
        path = self.output(
            *("busctl", "-j", "call", "org.freedesktop.resolve1"),
            *("/org/freedesktop/resolve1", "org.freedesktop.resolve1.Manager"),
            *("GetLink", "i", str(index)),
        )
        values = {}
        for key in (
            *("DNS", "Domains", "DefaultRoute", "LLMNR", "MulticastDNS"),
            *("DNSOverTLS", "DNSSEC", "ScopesMask"),
        ):
            answer = self.output(
                *("busctl", "-j", "get-property", "org.freedesktop.resolve1"),
                *(json.loads(path)["data"][0], "org.freedesktop.resolve1.Link", key),
            )
            values[key] = json.loads(answer)["data"]
        return values

    def resolve_status(self):
        """All of resolved's settings, as text, without its cache's counters."""
        return self.output("resolvectl", "--no-pager", "status")

    # --- NetworkManager -------------------------------------------------------------

    def start_networkmanager(self, dns="default", drop_in=None):
        self.write("/etc/NetworkManager/NetworkManager.conf", NM_CONF % {"dns": dns})
        self.write(
            "/etc/NetworkManager/system-connections/wired.nmconnection",
            NM_CONNECTION,
            0o600,
        )
        if drop_in:
            self.write("/etc/NetworkManager/conf.d/torvm.conf", drop_in)
        self.start("NetworkManager", ["/usr/sbin/NetworkManager", "--debug"])
        self.wait_nm("connected")

    def wait_nm(self, state):
        def reached():
            answer = self.output("nmcli", "-t", "-f", "STATE", "general", check=False)
            return answer.strip().startswith(state)

        self.wait("NetworkManager " + state, reached, "NetworkManager", 60)

    # --- systemd-networkd -------------------------------------------------------------

    def start_networkd(self, files):
        """files: name -> text, in /etc/systemd/network or networkd.conf.d."""
        for path, text in files.items():
            self.write(path, text)
        self.start(
            "networkd",
            ["/usr/lib/systemd/systemd-networkd"],
            SYSTEMD_LOG_TARGET="console",
            SYSTEMD_LOG_LEVEL="info",
        )

    def wait_address(self, address, name):
        """Until eth0 has it and a default route."""

        def there():
            return (
                address in self.output("ip", "addr", "show", "eth0")
                and "default" in self.output("ip", "route")
            )

        self.wait("the address " + address, there, name)

    # --- firewalld -------------------------------------------------------------------

    def start_firewalld(self):
        self.start("firewalld", ["/usr/sbin/firewalld", "--nofork", "--nopid"])
        self.wait(
            "firewalld running",
            lambda: "running" == self.output("firewall-cmd", "--state", check=False).strip(),
            "firewalld",
        )

    # --- DHCP -----------------------------------------------------------------------

    def start_dhclient(self, script=None):
        """script: Debian's by default, which writes /etc/resolv.conf."""
        self.start(
            "dhclient",
            ["dhclient", "-4", "-d", *(("-sf", script) if script else ())]
            + ["-lf", "/run/dhclient.leases", "-pf", "/run/dhclient.pid", "eth0"],
        )
        self.wait("a lease", lambda: "bound to" in self.log("dhclient"), "dhclient")

    def start_dnsmasq(self, upstream):
        """A caching dnsmasq on loopback, as many machines have one."""
        self.write(
            "/run/dnsmasq-local.conf",
            "port=53\nlisten-address=127.0.0.1\nbind-interfaces\nno-resolv\nno-hosts\n"
            "user=root\npid-file=\ncache-size=0\nserver=%s\n" % upstream,
        )
        self.start("dnsmasq", ["dnsmasq", "-k", "-C", "/run/dnsmasq-local.conf"])
        self.wait(
            "dnsmasq on port 53",
            lambda: "127.0.0.1:53 " in self.output("ss", "-Hlun"),
            "dnsmasq",
        )

    def hostile_ra(self):
        """A new prefix, a route to the web servers' network and a resolver."""
        router = self.lab.machine("router")
        done = router.run(
            ["/usr/bin/python3", os.path.join(HERE, "ra.py"), "--link", "lan0"]
            + ["--prefix", "2001:db8:666::", "--route", "2001:db8:113::/48"]
            + ["--dns", "2001:db8:666::53"]
        )
        expect(done.returncode == 0, "ra.py failed")

    def add_package(self, name):
        """One of the resolvconfs, over the host's file system."""
        for part in ("usr", "etc"):
            folder = os.path.join(self.root, name, part)
            if os.path.isdir(folder):
                self.output("cp", "-a", "--remove-destination", folder + "/.", "/" + part)

    def start_resolvconf(self):
        """What Debian's resolvconf does when it is installed and at boot."""
        self.output("mkdir", "-p", "/run/resolvconf/interface")
        self.output("ln", "-sf", "/run/resolvconf/resolv.conf", "/etc/resolv.conf")
        self.output("resolvconf", "--enable-updates")
        self.output("resolvconf", "-u")

    def clear_eth0(self):
        """Down, with neither address nor route: as at boot. A link that is up gets
        an address from the router at any moment, and NetworkManager leaves a link
        alone that somebody else has configured."""
        self.output("ip", "link", "set", "eth0", "down")
        self.output("ip", "addr", "flush", "dev", "eth0")


class DhcpServer:
    """dhcpd.py on the router in place of the lab's; see there for an offer."""

    def __init__(self, lab, **offer):
        self.lab = lab
        self.router = lab.machine("router")
        self.log = lab.log_path("dhcpd-requests")
        self.offer_path = os.path.join(lab.dir, "dhcp-offer.json")
        self.values = {}
        self.offer(**offer)
        open(self.log, "a", encoding="ascii").close()
        self._without_dhcp()
        self.pid = self.router.spawn(
            ["/usr/bin/python3", os.path.join(HERE, "dhcpd.py"), "--link", "lan0"]
            + ["--server", lab.addresses["router"]["ipv4"]]
            + ["--offer", self.offer_path, "--log", self.log],
            lab.log_path("dhcpd"),
        )
        wait_for("the DHCP server", self._ready, TIMEOUT_S)

    def _without_dhcp(self):
        """The lab's dnsmasq again, for DNS and router advertisements alone."""
        kept = [
            line
            for line in topology.dnsmasq_router(self.lab.log_path("dns-queries")).splitlines()
            if "dhcp-option" not in line and "dhcp-range=192" not in line
        ]
        with open(self.router.path("/run/dnsmasq-dns.conf"), "w", encoding="ascii") as f:
            f.write("\n".join(kept) + "\n")
        self.router.end(self.lab.status()["daemons"]["dnsmasq-router"]["pid"])
        self.router.spawn(
            ["dnsmasq", "-C", "/run/dnsmasq-dns.conf"], self.lab.log_path("dnsmasq-dns")
        )

    def _ready(self):
        with open(self.lab.log_path("dhcpd"), encoding="utf-8") as f:
            return "ready" in f.read()

    def offer(self, **changes):
        """What the next answer says."""
        self.values.update(changes)
        with open(self.offer_path + ".new", "w", encoding="ascii") as f:
            json.dump(self.values, f)
        os.rename(self.offer_path + ".new", self.offer_path)

    def requests(self):
        with open(self.log, encoding="ascii") as f:
            return [json.loads(line) for line in f if line.endswith("\n")]

    def wait_renewal(self, address, since, timeout_s=60, answer="ack"):
        """A unicast renewal from `address` after the first `since` requests."""

        def renewed():
            return [
                r
                for r in self.requests()[since:]
                if r["kind"] == "request"
                and r["source"] == address
                and r["answer"] == answer
            ]

        return wait_for("a renewal from " + address, renewed, timeout_s)



def _quote(path):
    return "'" + path.replace("'", "'\\''") + "'"
