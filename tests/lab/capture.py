"""Captures on the router's side of the host's uplink: the judge of leaks.

Theory of operation

A capture that starts late or loses its last packets would call a leak clean. So
start() and stop() both send a marker frame (ethertype 0x88b5, reserved for
experiments, with a random payload) through the captured link, and wait until
the file holds it: everything between the two is then in the file. tcpdump's
count of dropped packets must be 0, or stop() fails.
"""

import json
import os
import re
import signal
import socket
import subprocess
import time

import topology as topo
from errors import LabError, need

MARKER = 0x88B5
TIMEOUT_S = 15
# Headers are enough, and bulk transfers stay small.
SNAPLEN = 256


class Capture:
    """One capture, by name; several may run at once. port: a link of the
    router's, if another than the host's first uplink."""

    def __init__(self, router, directory, name, port=topo.CAPTURE_PORT):
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,60}", name):
            raise LabError("capture name: letters, digits, '.', '_', '-'")
        self.name = name
        self._router = router
        self._port = port
        base = os.path.join(directory, name)
        self.pcap = base + ".pcap"
        self._log = base + ".log"
        self._state = base + ".json"

    def start(self):
        """Start; returns when packets are being recorded."""
        need("tcpdump")
        if self._pid() is not None:
            raise LabError("capture %s is already running" % self.name)
        for path in (self.pcap, self._log):
            if os.path.exists(path):
                os.unlink(path)
        pid = self._router.spawn(
            ["tcpdump", "-i", self._port, "-n", "-s", str(SNAPLEN)]
            # -B: KiB; immediate: nothing lingers in the kernel's buffer.
            + ["-B", "32768", "--immediate-mode", "-U", "-Z", "root"]
            + ["-w", self.pcap],
            self._log,
        )
        with open(self._state, "w", encoding="ascii") as f:
            json.dump(pid, f)
        deadline = time.monotonic() + TIMEOUT_S
        while "listening on" not in self._messages():
            self._still(pid, deadline)
        self._mark(pid)
        return self

    def stop(self):
        """Stop once all that has passed is in the file; returns the number of
        packets that the kernel dropped, which is 0."""
        pid = self._pid()
        if pid is None:
            raise LabError("capture %s is not running" % self.name)
        self._mark(pid)
        self._router.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + TIMEOUT_S
        while self._router.alive(pid):
            if time.monotonic() > deadline:
                raise LabError("tcpdump does not end")
            time.sleep(0.01)
        os.unlink(self._state)
        match = re.search(r"(\d+) packets? dropped by kernel", self._messages())
        if not match or int(match.group(1)):
            raise LabError(
                "capture %s is not complete and proves nothing: %s"
                % (self.name, self._messages())
            )
        return 0

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        if self._pid() is not None:
            self.stop()

    def show(self, expression="", *options):
        """Lines of tcpdump, one per packet, without the markers."""
        if not os.path.exists(self.pcap):
            raise LabError("no capture named " + self.name)
        wanted = "not ether proto 0x%x" % MARKER
        if expression:
            wanted += " and (%s)" % expression
        done = subprocess.run(
            ["tcpdump", "-n", "-r", self.pcap, *options, wanted],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            universal_newlines=True,
        )
        # A running capture may end in half a packet.
        if done.returncode != 0 and "truncated" not in done.stderr:
            raise LabError("tcpdump: " + done.stderr.strip())
        return done.stdout.splitlines()

    def sync(self):
        """Wait until all that has passed the link so far is in the file."""
        pid = self._pid()
        if pid is None:
            raise LabError("capture %s is not running" % self.name)
        self._mark(pid)

    def _pid(self):
        try:
            with open(self._state, encoding="ascii") as f:
                pid = json.load(f)
        except FileNotFoundError:
            return None
        return pid if self._router.alive(pid) else None

    def _messages(self):
        try:
            with open(self._log, encoding="utf-8", errors="replace") as f:
                return f.read()
        except FileNotFoundError:
            return ""

    def _still(self, pid, deadline):
        if not self._router.alive(pid):
            raise LabError("tcpdump ended: " + self._messages().strip())
        if time.monotonic() > deadline:
            raise LabError("capture %s does not record" % self.name)
        time.sleep(0.01)

    def _mark(self, pid):
        link = self._router.check("ip", "link", "show", self._port)
        if "LOWER_UP" not in link:
            # The host's eth0 is down: nothing passes, no marker either.
            time.sleep(0.5)
            return
        payload = b"torvm-lab" + os.urandom(16)
        frame = b"\xff" * 6 + b"\x02" + bytes(5) + MARKER.to_bytes(2, "big") + payload
        try:
            start = max(0, os.path.getsize(self.pcap) - 1)
        except FileNotFoundError:
            start = 0
        self._router.call_net(_send_frame, self._port, frame)
        deadline = time.monotonic() + TIMEOUT_S
        with open(self.pcap, "rb") as f:
            f.seek(start)
            seen = b""
            while payload not in seen:
                part = f.read(1 << 20)
                # Keep a payload that straddles two reads.
                seen = seen[-len(payload) :] + part
                if not part:
                    self._still(pid, deadline)


def _send_frame(port, frame):
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as s:
        s.bind((port, 0))
        s.send(frame.ljust(60, b"\0"))
