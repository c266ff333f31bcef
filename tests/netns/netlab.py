"""Namespaces, captures and probes for the tests of the host's network.

Each test program runs itself again in mount, PID and network namespaces of its
own with /run masked; `ip netns add` then works on names that nobody else sees, and
everything is gone when the program ends, however it ends.

    host eth0 ---- r0 router r1 ---- i0 internet
         192.0.2.10    192.0.2.1    203.0.113.1  203.0.113.80
         2001:db8:1::10       ::1   2001:db8:2::1          ::80

The judge is a capture in the router, on the link to the host.
"""

import contextlib
import ctypes
import errno
import json
import os
import select
import socket
import struct
import subprocess
import sys
import time
import traceback

VM_UID = 61101
USER_UID = 61199
MARK = 0x5EED1234

HOST4, ROUTER4, WEB4 = "192.0.2.10", "192.0.2.1", "203.0.113.80"
HOST6, ROUTER6, WEB6 = "2001:db8:1::10", "2001:db8:1::1", "2001:db8:2::80"

CLONE_NEWNET = 0x40000000
SKIP = 77

_libc = ctypes.CDLL(None, use_errno=True)


def private(build_dir_arg=1):
    """Runs the program again in its own namespaces; returns the driver."""
    if os.geteuid() != 0:
        print("1..0 # SKIP needs root")
        sys.exit(SKIP)
    if os.environ.get("NETLAB_PRIVATE") != "1":
        os.environ["NETLAB_PRIVATE"] = "1"
        os.execvp(
            "unshare",
            ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child",
             "--mount-proc", "--propagation", "private", "--"]
            + [sys.executable]
            + sys.argv,
        )
    run("mount", "-t", "tmpfs", "tmpfs", "/run")
    os.makedirs("/run/netns")
    return os.path.abspath(sys.argv[build_dir_arg])


def run(*argv, check=True, **kwargs):
    return subprocess.run(
        argv, check=check, stdout=subprocess.PIPE, universal_newlines=True, **kwargs
    ).stdout


@contextlib.contextmanager
def inside(name):
    """Sockets made in this block belong to the namespace `name`."""
    with open("/proc/self/ns/net") as home, open("/run/netns/" + name) as there:
        if _libc.setns(there.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        try:
            yield
        finally:
            _libc.setns(home.fileno(), CLONE_NEWNET)


@contextlib.contextmanager
def as_user(uid):
    """Sockets made in this block belong to `uid`."""
    if uid:
        os.seteuid(uid)
    try:
        yield
    finally:
        if uid:
            os.seteuid(0)


def ns_socket(ns, uid, family, kind, proto=0):
    with inside(ns), as_user(uid):
        return socket.socket(family, kind, proto)


def wait_until(what, condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError("timed out waiting for " + what)


class Lab:
    """Host, router and Internet."""

    def __init__(self):
        for ns in ("host", "router", "inet"):
            run("ip", "netns", "add", ns)
            run("ip", "-n", ns, "link", "set", "lo", "up")
            self.sysctl(ns, "net.ipv6.conf.default.accept_dad", 0)
        self.wire("host", "eth0", HOST4, HOST6, "router", "r0", ROUTER4, ROUTER6)
        self.wire(
            "router", "r1", "203.0.113.1", "2001:db8:2::1", "inet", "i0", WEB4, WEB6
        )
        self.ip("host", "route", "add", "default", "via", ROUTER4)
        self.ip("host", "-6", "route", "add", "default", "via", ROUTER6)
        self.ip("inet", "route", "add", "default", "via", "203.0.113.1")
        self.ip("inet", "-6", "route", "add", "default", "via", "2001:db8:2::1")
        self.sysctl("router", "net.ipv4.ip_forward", 1)
        self.sysctl("router", "net.ipv6.conf.all.forwarding", 1)
        self.capture = Capture("router", "r0")
        self.settle("host")
        for address in (WEB4, WEB6):
            wait_until("a way to " + address, lambda a=address: subprocess.call(
                ["ip", "netns", "exec", "host", "ping", "-c1", "-W1", a],
                stdout=subprocess.DEVNULL) == 0, 10)
        self.host_mac = self.link("host", "eth0")["address"]
        self.router_mac = self.link("router", "r0")["address"]

    def wire(self, ns_a, a, a4, a6, ns_b, b, b4, b6):
        run("ip", "link", "add", a, "netns", ns_a, "type", "veth",
            "peer", "name", b, "netns", ns_b)
        for ns, dev, v4, v6 in ((ns_a, a, a4, a6), (ns_b, b, b4, b6)):
            self.ip(ns, "addr", "add", v4 + "/24", "dev", dev)
            self.ip(ns, "addr", "add", v6 + "/64", "dev", dev, "nodad")
            self.ip(ns, "link", "set", dev, "up")

    @staticmethod
    def ip(ns, *args, check=True):
        return run("ip", "-n", ns, *args, check=check)

    @staticmethod
    def exec(ns, *argv, check=True, **kwargs):
        return run("ip", "netns", "exec", ns, *argv, check=check, **kwargs)

    def sysctl(self, ns, name, value=None):
        path = "/proc/sys/" + name.replace(".", "/")
        with inside(ns):
            if value is not None:
                with open(path, "w") as f:
                    f.write(str(value))
            with open(path) as f:
                return f.read().strip()

    def link(self, ns, dev):
        return json.loads(self.ip(ns, "-j", "-d", "link", "show", dev))[0]

    def settle(self, ns):
        """Waits for the addresses that the kernel gives by itself."""
        def settled():
            links = json.loads(self.ip(ns, "-j", "-6", "addr", "show", "up"))
            return all(
                link["ifname"] == "lo"
                or any(a["scope"] == "link" and not a.get("tentative")
                       for a in link["addr_info"])
                for link in links)
        wait_until("link-local addresses", settled, 10)

    def snapshot(self, ns="host"):
        """What must be the same before and after, normalised."""
        volatile = ("valid_life_time", "preferred_life_time", "expires", "handle",
                    "packets", "bytes", "operstate", "tentative")

        def clean(x):
            if isinstance(x, dict):
                return {k: clean(v) for k, v in x.items() if k not in volatile}
            if isinstance(x, list):
                return [clean(v) for v in x]
            return x

        shot = {}
        for what in ("addr", "rule", "-6 rule", "route show table all",
                     "-6 route show table all", "neigh show nud permanent"):
            shot[what] = clean(json.loads(self.ip(ns, "-j", *what.split()) or "[]"))
        nft = json.loads(self.exec(ns, "nft", "-j", "list", "ruleset"))["nftables"]
        shot["nft"] = clean([x for x in nft if "metainfo" not in x])
        shot["rp_filter"] = {
            dev: self.sysctl(ns, "net.ipv4.conf.%s.rp_filter" % dev)
            for dev in ("all", "default", "eth0")
        }
        return shot

    def same(self, before):
        after = self.snapshot()
        for part in before:
            assert after[part] == before[part], (part, before[part], after[part])

    def listen(self, family=socket.AF_INET, port=443):
        s = ns_socket("inet", 0, family, socket.SOCK_STREAM)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((WEB4 if family == socket.AF_INET else WEB6, port))
        s.listen(16)
        s.settimeout(5)
        return s


class Frame:
    """An Ethernet frame, taken apart as far as the tests look."""

    def __init__(self, raw):
        self.raw = raw
        self.src = ":".join("%02x" % b for b in raw[6:12])
        self.ethertype = struct.unpack("!H", raw[12:14])[0]
        self.proto = self.sport = self.dport = self.icmp = None
        self.saddr = self.daddr = self.hops = None
        body = raw[14:]
        if self.ethertype == 0x0800 and len(body) >= 20:
            self.proto, self.hops = body[9], body[8]
            self.saddr = socket.inet_ntoa(body[12:16])
            self.daddr = socket.inet_ntoa(body[16:20])
            l4 = body[(body[0] & 15) * 4:]
        elif self.ethertype == 0x86DD and len(body) >= 40:
            self.proto, self.hops, l4 = body[6], body[7], body[40:]
            self.saddr = socket.inet_ntop(socket.AF_INET6, body[8:24])
            self.daddr = socket.inet_ntop(socket.AF_INET6, body[24:40])
            if self.proto == 0 and len(l4) >= 8:  # hop-by-hop, as MLD has
                self.proto, l4 = l4[0], l4[(l4[1] + 1) * 8:]
        else:
            return
        if self.proto in (6, 17) and len(l4) >= 4:
            self.sport, self.dport = struct.unpack("!HH", l4[:4])
        elif self.proto in (1, 58) and l4:
            self.icmp = l4[0]

    def __repr__(self):
        return "<%04x %s:%s > %s:%s proto %s icmp %s %d bytes>" % (
            self.ethertype, self.saddr, self.sport, self.daddr, self.dport,
            self.proto, self.icmp, len(self.raw))

    def holds_the_link(self):
        if self.ethertype in (0x0806, 0x888E):
            return True
        if self.ethertype == 0x0800:
            return self.proto == 17 and (self.sport, self.dport) == (68, 67)
        if self.ethertype == 0x86DD:
            if self.proto == 17:
                return (self.sport, self.dport) == (546, 547)
            if self.proto == 58 and self.hops == 255:
                return self.icmp in (133, 135, 136)
            return self.proto == 58 and self.icmp in (131, 132, 143)
        return False


class Capture:
    """Everything that arrives at `dev` in `ns`."""

    def __init__(self, ns, dev, judge=None):
        """@judge: the capture whose list this one's frames join."""
        self.others = []
        if judge:
            judge.others.append(self)
        self.sock = ns_socket(ns, 0, socket.AF_PACKET, socket.SOCK_RAW,
                              socket.htons(3))
        self.sock.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)  # RCVBUFFORCE
        self.sock.bind((dev, 3))
        self.frames = []
        self.barriers = 0

    def _read(self, timeout):
        while select.select([self.sock], [], [], timeout)[0]:
            raw, address = self.sock.recvfrom(65600)
            if address[2] != 4:  # PACKET_OUTGOING
                self.frames.append(Frame(raw))
            timeout = 0

    def barrier(self):
        """Returns once all that the host sent before is in self.frames."""
        self.barriers += 1
        # ARP is always let through.
        body = b"barrier%d" % self.barriers
        frame = b"\xff" * 6 + b"\x02" + b"\0" * 5 + b"\x08\x06" + body.ljust(46, b".")
        s = ns_socket("host", 0, socket.AF_PACKET, socket.SOCK_RAW)
        with s:
            s.bind(("eth0", 0))
            s.send(frame)
        deadline = time.monotonic() + 5
        while not any(body + b"." in f.raw for f in self.frames):
            assert time.monotonic() < deadline, "the capture is deaf"
            self._read(0.05)
        # The other processor's queue, and the other links.
        for capture in [self] + self.others:
            capture._read(0.05)
        for capture in self.others:
            self.frames += capture.frames
            capture.frames = []

    def take(self):
        self.barrier()
        frames, self.frames = self.frames, []
        return [f for f in frames if b"barrier" not in f.raw]

    def leaks(self, allowed=lambda frame: False):
        return [f for f in self.take()
                if not f.holds_the_link() and not allowed(f)]


class Driver:
    """net-driver in the namespace: one command, one answer."""

    def __init__(self, path, ns="host", uid=VM_UID, mark=MARK, env=None):
        self.proc = subprocess.Popen(
            ["ip", "netns", "exec", ns, path, str(uid), hex(mark)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, universal_newlines=True,
            env=env)
        self.answer()

    def answer(self):
        line = self.proc.stdout.readline()
        kind, _, rest = line.strip().partition(" ")
        if kind == "ok":
            return rest
        name, _, text = rest.partition(" ")
        raise DriverError(name, text)

    def __call__(self, *words):
        self.proc.stdin.write(" ".join(map(str, words)) + "\n")
        self.proc.stdin.flush()
        return self.answer()

    def kill(self):
        self.proc.kill()
        self.proc.wait()

    def close(self):
        self.proc.stdin.close()
        self.proc.wait()

    def up(self, mode="open"):
        """All of a start, in the broker's order."""
        self("firewall", "blocked")
        self("rules-add")
        self("sysctls")
        self("tap-create")
        self("firewall", "uplink")
        self("tap-configure")
        if mode != "uplink":
            self("firewall", mode)

    def down(self):
        self("sockets-destroy")
        self("tap-delete")
        self("rules-remove")
        self("firewall-remove")


class DriverError(Exception):
    def __init__(self, name, text):
        super().__init__("%s: %s" % (name, text))
        self.name, self.text = name, text


def connect(ns, uid, address, family=None, seconds=2.0, prepare=None):
    """(errno or 0, seconds taken, socket)"""
    if family is None:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    s = ns_socket(ns, uid, family, socket.SOCK_STREAM)
    s.settimeout(seconds)
    begin = time.monotonic()
    err = 0
    try:
        if prepare:
            prepare(s)
        s.connect(address)
    except socket.timeout:
        err = errno.ETIMEDOUT
    except OSError as e:
        err = e.errno
    return err, time.monotonic() - begin, s


def main(tests):
    """Runs the functions, prints TAP, exits."""
    failed = 0
    print("1..%d" % len(tests), flush=True)
    for number, test in enumerate(tests, 1):
        name = test.__doc__.strip().splitlines()[0]
        begin = time.monotonic()
        try:
            test()
        except Exception:  # noqa: a test may fail in any way
            failed += 1
            print("not ok %d - %s" % (number, name))
            for line in traceback.format_exc().splitlines():
                print("# " + line)
        else:
            print("ok %d - %s # %.0f ms"
                  % (number, name, (time.monotonic() - begin) * 1000))
        sys.stdout.flush()
    sys.exit(1 if failed else 0)
