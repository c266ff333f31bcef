"""A guest under test: QEMU (TCG) with the built image, and the host's ends of
its channels. Used by the guest-*-test.py scripts; Python's library only."""

import ctypes
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
IMAGE = os.environ.get("TORVM_IMAGE_DIR", os.path.join(TOP, "dist", "vm"))

MAC_ETH0 = "52:54:00:12:34:01"
MAC_ETH1 = "52:54:00:12:34:02"
HOST_MAC = "02:00:0a:0a:0a:02"

# A boot takes 5 s on an idle machine with two cores; the rest is for busy ones.
BOOT_TIMEOUT = 120

CONFIG = {
    "version": "1",
    "host_ip": "10.10.10.2",
    "vm_ip": "10.10.10.1",
    "host_mac": HOST_MAC,
}

TORRC = """\
TransPort 10.10.10.1:9095
DNSPort 10.10.10.1:9093
SocksPort 10.10.10.1:9050
ControlSocket /run/tor/control
Log notice stdout
DataDirectory {data}
Sandbox 1
"""


PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def _die_with_parent():
    """However the test ends, no VM is left behind."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class TestFailure(Exception):
    pass


def check(condition, text):
    if not condition:
        raise TestFailure(text)


class Channel:
    """A stream of lines from a Unix socket, with deadlines."""

    def __init__(self, path, timeout=BOOT_TIMEOUT):
        self.sock = socket.socket(socket.AF_UNIX)
        self.buf = b""
        deadline = time.monotonic() + timeout
        while True:
            try:
                self.sock.connect(path)
                return
            except (FileNotFoundError, ConnectionRefusedError):
                if time.monotonic() > deadline:
                    raise TestFailure(f"nobody listens on {path}") from None
                time.sleep(0.01)

    def send(self, text):
        self.sock.sendall(text.encode())

    def line(self, timeout=BOOT_TIMEOUT):
        """The next line, or None when the other end hung up."""
        deadline = time.monotonic() + timeout
        while b"\n" not in self.buf:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.sock], [], [], left)[0]:
                raise TestFailure(f"no line within {timeout} s; so far {self.buf!r}")
            try:
                data = self.sock.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                return None
            self.buf += data
        line, _, self.buf = self.buf.partition(b"\n")
        return line.decode().rstrip("\r")

    def close(self):
        self.sock.close()


class Guest:
    """A running VM. Use as a context manager: it ends with the block."""

    def __init__(
        self, config=None, torrc=None, state=None, tap=None, drop=(), capture=None,
        archives=(),
    ):  # fmt: skip
        """config: changes of CONFIG, None removes a key. torrc: the whole text.
        state: an image used in place. tap: an interface instead of a network
        nobody is on. drop: fw_cfg files not handed in. capture: where QEMU
        records the uplink. archives: of the image, or paths, behind
        initramfs.zst."""
        self.dir = tempfile.mkdtemp(prefix="torvm-guest-")
        self.seen = []
        self.agent = None
        self.capture = capture
        self._qmp = None
        values = dict(CONFIG, time=str(int(time.time())))
        values["state_disk"] = "1" if state else "0"
        values.update(config or {})
        data = "/var/lib/tor-state/tor" if state else "/run/tor/data"
        self._write(
            "config", "".join(f"{k}={v}\n" for k, v in values.items() if v is not None)
        )
        self._write("torrc", TORRC.format(data=data) if torrc is None else torrc)
        with open(self._path("initrd"), "wb") as out:
            for name in ("initramfs.zst", *archives):
                with open(os.path.join(IMAGE, name), "rb") as file:
                    shutil.copyfileobj(file, out)
        argv = self._argv(state, tap, drop, "on" if values.get("ipv6") == "1" else "off")
        self.console = open(self._path("console"), "wb+")
        self.start = time.monotonic()
        self.process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=self.console,
            stderr=self.console,
            preexec_fn=_die_with_parent,
        )

    def _path(self, name):
        return os.path.join(self.dir, name)

    def _write(self, name, text):
        with open(self._path(name), "w", encoding="utf-8") as file:
            file.write(text)

    def _argv(self, state, tap, drop, ipv6):
        # What differs from src/vm/args.c: paths instead of descriptors, and
        # networks of its own.
        argv = [
            shutil.which("qemu-system-x86_64") or "/usr/bin/qemu-system-x86_64",
            "-nodefaults", "-no-user-config", "-no-reboot",
            "-display", "none",
            "-machine", "q35,vmport=off,smbus=off,sata=off,usb=off,hpet=off",
            "-accel", "tcg,tb-size=96", "-cpu", "max",
            "-m", "192", "-smp", "1", "-rtc", "base=utc",
            "-kernel", os.path.join(IMAGE, "vmlinuz"),
            "-initrd", self._path("initrd"),
            "-append", "panic=-1 oops=panic loglevel=4 console=ttyS0 no_timer_check",
            "-serial", "stdio",
            "-device", "virtio-serial-pci,max_ports=3",
            "-object", "rng-builtin,id=rng", "-device", "virtio-rng-pci,rng=rng",
            # Recorded, it shows what the guest sends; else it leads nowhere.
            "-netdev",
            f"user,id=uplink,ipv6={ipv6}" + ("" if self.capture else ",restrict=on"),
            # The wrong way round: order means nothing.
            "-device", f"virtio-net-pci,netdev=tap,mac={MAC_ETH1},romfile=",
            "-device", f"virtio-net-pci,netdev=uplink,mac={MAC_ETH0},romfile=",
        ]  # fmt: skip
        for name, nr in (("agent", 1), ("torctl", 2)):
            argv += [
                "-chardev",
                f"socket,id={name},path={self._path(name)},server=on,wait=off",
                "-device",
                f"virtserialport,nr={nr},chardev={name},name=torvm.{name}",
            ]
        argv += [
            "-chardev", f"socket,id=qmp,path={self._path('qmp')},server=on,wait=off",
            "-mon", "chardev=qmp,mode=control",
        ]  # fmt: skip
        for name in ("config", "torrc"):
            if name not in drop:
                argv += ["-fw_cfg", f"name=opt/torvm/{name},file={self._path(name)}"]
        if self.capture:
            argv += ["-object", f"filter-dump,id=dump,netdev=uplink,file={self.capture}"]
        if state:
            argv += [
                "-drive", f"file={state},if=none,format=raw,id=state",
                "-device", "virtio-blk-pci,drive=state",
            ]  # fmt: skip
        if tap:
            argv += ["-netdev", f"tap,id=tap,ifname={tap},script=no,downscript=no"]
        else:
            argv += ["-netdev", "user,id=tap,restrict=on,ipv6=off,net=10.99.0.0/24"]
        return argv

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind:
            self.console.seek(0)
            print("# console:")
            for line in self.console.read().decode(errors="replace").splitlines():
                print("#   " + line)
            print("# agent:")
            for line in self.seen[-40:]:
                print("#   " + line)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.console.close()
        shutil.rmtree(self.dir)

    # -- the agent port

    def connect(self):
        self.agent = Channel(self._path("agent"))
        return self

    def next(self, timeout=BOOT_TIMEOUT):
        """The guest's next line, split at spaces; None at the end."""
        line = self.agent.line(timeout)
        if line is None:
            return None
        self.seen.append(line)
        return line.split(" ")

    def wait_for(self, word, argument=None, timeout=BOOT_TIMEOUT):
        """Reads on to a line `word ms argument ...`, and returns it split."""
        deadline = time.monotonic() + timeout
        while True:
            words = self.next(max(0, deadline - time.monotonic()))
            check(words is not None, f"the VM ended without saying {word} {argument}")
            if words[0] == word and argument in (None, words[2] if len(words) > 2 else 0):
                return words

    def wait_until_off(self, timeout=BOOT_TIMEOUT):
        """Reads to the end; QEMU has to end by itself, with code 0."""
        if self.agent:
            deadline = time.monotonic() + timeout
            while self.next(max(0, deadline - time.monotonic())) is not None:
                pass
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TestFailure("the VM did not power off") from None
        check(code == 0, f"QEMU ended with {code}")

    def said(self, pattern):
        """Lines of the agent port that match, in order."""
        return [line for line in self.seen if re.search(pattern, line)]

    # -- the other channels

    def torctl(self):
        """Open the port of Tor's control, and wait until it leads to Tor.

        What is sent before the guest says so may be taken for an earlier
        session's: the news of an opening and the bytes come by other queues.
        """
        control = self.open_torctl()
        self.wait_for("torctl", "connected")
        return control

    def open_torctl(self):
        return Channel(self._path("torctl"))

    def qmp(self, command):
        if not self._qmp:
            self._qmp = Channel(self._path("qmp"))
            self._qmp.line()
            self._execute("qmp_capabilities")
        return self._execute(command)

    def _execute(self, command):
        self._qmp.send(json.dumps({"execute": command}) + "\n")
        while True:
            answer = json.loads(self._qmp.line())
            if "return" in answer or "error" in answer:
                check("return" in answer, f"QMP {command}: {answer}")
                return answer["return"]


def ask_tor(channel, command, timeout=30):
    """One command of the control protocol; the reply's lines."""
    channel.send(command + "\r\n")
    lines = []
    while True:
        line = channel.line(timeout)
        check(line is not None, f"torctl hung up after {command}")
        if line[:1] == "6":
            continue
        lines.append(line)
        if re.match(r"\d\d\d ", line):
            return lines


def run(tests):
    """Runs functions; TAP on stdout. Returns the exit code."""
    # A time-out of the test run: leave by the with blocks.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    failed = 0
    print(f"1..{len(tests)}", flush=True)
    for number, test in enumerate(tests, 1):
        name = test.__name__.replace("_", " ")
        start = time.monotonic()
        try:
            test()
            result = "ok"
        except TestFailure as failure:
            failed += 1
            result = "not ok"
            print(f"# {failure}")
        seconds = time.monotonic() - start
        print(f"{result} {number} - {name} ({seconds:.1f} s)", flush=True)
    print(f"# {len(tests) - failed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0
