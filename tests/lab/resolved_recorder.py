#!/usr/bin/python3
"""Run a command beside a stand-in for systemd-resolved and count its calls.

    resolved_recorder.py [--json FILE] CMD...

CMD runs in a mount namespace with an empty /run, where a D-Bus system bus of its
own carries org.freedesktop.resolve1, and /run/systemd/resolve/ has resolved's
Varlink socket. A call that reaches either came from something that would have
reached this machine's resolver. Before CMD runs, one call to each proves that the
recorder records. Exit status: that of CMD; 99 when CMD succeeded but a call came.

Recorder is also a class, for a bus that exists already. It speaks the little of
the D-Bus wire protocol that it needs (D-Bus specification, "Message Protocol"),
because the bindings would pull GLib's main loop in.
"""

import argparse
import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

import bus  # noqa: E402
import namespaces  # noqa: E402
from errors import LabError, need  # noqa: E402

NAME = "org.freedesktop.resolve1"
VARLINK = ("io.systemd.Resolve", "io.systemd.Resolve.Monitor")
METHOD_CALL, METHOD_RETURN, ERROR = 1, 2, 3
NO_REPLY_EXPECTED = 1
FIELD = {1: "path", 2: "interface", 3: "member", 5: "reply_serial", 7: "sender"}
TIMEOUT_S = 15


class Connection:
    """One connection to a bus, with its unique name taken."""

    def __init__(self, path):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._file = self._socket.makefile("rb")
        self._serial = 0
        uid = str(os.getuid()).encode().hex()
        self._socket.sendall(b"\0AUTH EXTERNAL %s\r\n" % uid.encode())
        answer = self._file.readline()
        if not answer.startswith(b"OK "):
            raise LabError("the bus refuses us: %r" % answer)
        self._socket.sendall(b"BEGIN\r\n")
        self.call("org.freedesktop.DBus", "/", "org.freedesktop.DBus", "Hello")

    def close(self):
        # Wakes a reader in another thread, which close() alone would not.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._file.close()
        self._socket.close()

    def call(self, destination, path, interface, member, signature="", body=b""):
        """Call a method and wait; returns the reply's type."""
        fields = [_string(1, "o", path), _string(2, "s", interface)]
        fields += [_string(3, "s", member), _string(6, "s", destination)]
        if signature:
            fields.append(_signature(signature))
        serial = self._send(METHOD_CALL, fields, body)
        while True:
            message = self.read()
            if message.get("reply_serial") == serial:
                return message["type"]

    def answer(self, message):
        """Return nothing to a call, which suits every setter."""
        serial = struct.pack("<BB2sI", 5, 1, b"u\0", message["serial"])
        fields = [serial, _string(6, "s", message["sender"])]
        self._send(METHOD_RETURN, fields, b"")

    def _send(self, kind, fields, body):
        self._serial += 1
        # Each field starts at a multiple of 8; the array's length does not
        # count what is behind the last.
        data = b""
        for field in fields:
            data = _pad(data) + field
        header = struct.pack(
            "<cBBBIII", b"l", kind, 0, 1, len(body), self._serial, len(data)
        )
        self._socket.sendall(header + _pad(data) + body)
        return self._serial

    def read(self):
        """Next message's header fields; EOFError when the bus is gone."""
        fixed = self._read(16)
        order = "<" if fixed[:1] == b"l" else ">"
        body, serial, length = struct.unpack(order + "III", fixed[4:])
        data = self._read((length + 7) // 8 * 8)[:length]
        self._read(body)
        message = {"type": fixed[1], "flags": fixed[2], "serial": serial}
        at = 0
        while at < length:
            code, kind = data[at], data[at + 2 : at + 3]
            at += 4
            if kind in (b"s", b"o"):
                (size,) = struct.unpack_from(order + "I", data, at)
                value = data[at + 4 : at + 4 + size].decode()
                at += 4 + size + 1
            elif kind == b"u":
                (value,) = struct.unpack_from(order + "I", data, at)
                at += 4
            elif kind == b"g":
                size = data[at]
                value = data[at + 1 : at + 1 + size].decode()
                at += 1 + size + 1
            else:
                raise LabError("bus: header field of type %r" % kind)
            at = (at + 7) // 8 * 8
            if code in FIELD:
                message[FIELD[code]] = value
        return message

    def _read(self, size):
        data = self._file.read(size)
        if len(data) != size:
            raise EOFError
        return data


def _pad(data):
    return data + bytes(-len(data) % 8)


def _string(code, kind, text):
    raw = text.encode()
    head = struct.pack("<BB2sI", code, 1, kind.encode() + b"\0", len(raw))
    return head + raw + b"\0"


def _signature(text):
    raw = text.encode()
    return struct.pack("<BB2sB", 8, 1, b"g\0", len(raw)) + raw + b"\0"


class Recorder:
    """org.freedesktop.resolve1 on a bus; calls: list of dictionaries."""

    def __init__(self, path):
        self.calls = []
        self._bus = Connection(path)
        raw = NAME.encode()
        body = struct.pack("<I", len(raw)) + raw + b"\0"
        # Flags 4: fail rather than queue behind another owner.
        body += bytes(-len(body) % 4) + struct.pack("<I", 4)
        dbus = "org.freedesktop.DBus"
        if self._bus.call(dbus, "/", dbus, "RequestName", "su", body) == ERROR:
            raise LabError("the bus does not give us the name " + NAME)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        with contextlib.suppress(EOFError, OSError, ValueError):
            while True:
                message = self._bus.read()
                if message["type"] != METHOD_CALL:
                    continue
                self.calls.append(
                    {
                        "time": time.time(),
                        "via": "dbus",
                        "member": "%s.%s"
                        % (message.get("interface", ""), message["member"]),
                        "sender": message.get("sender", ""),
                    }
                )
                if not message["flags"] & NO_REPLY_EXPECTED:
                    self._bus.answer(message)

    def close(self):
        self._bus.close()
        self._thread.join(TIMEOUT_S)


class VarlinkRecorder:
    """Connections to resolved's Varlink sockets; each is a call."""

    def __init__(self, calls, directory="/run/systemd/resolve"):
        os.makedirs(directory, exist_ok=True)
        self.paths = [os.path.join(directory, name) for name in VARLINK]
        self._calls = calls
        for path in self.paths:
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(path)
            os.chmod(path, 0o666)
            listener.listen(16)
            threading.Thread(target=self._run, args=(listener,), daemon=True).start()

    def _run(self, listener):
        while True:
            peer, _ = listener.accept()
            path = listener.getsockname()
            self._calls.append({"time": time.time(), "via": "varlink", "member": path})
            peer.close()


def start_bus(directory):
    """A dbus-daemon of our own; returns it, with its socket listening."""
    need("dbus-daemon")
    conf = bus.write_conf(directory)
    # Its complaints count only if it does not start: a lowered limit of open
    # files, for one, is none of ours.
    daemon = subprocess.Popen(
        bus.command(conf), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    if not daemon.stdout.readline():
        words = daemon.stderr.read().decode(errors="replace").strip()
        raise LabError("dbus-daemon does not start: " + words)
    return daemon


def prove(path, recorder, varlink):
    """Positive control: one call to each must be recorded; then start at 0."""
    caller = Connection(path)
    manager = NAME + ".Manager"
    caller.call(NAME, "/org/freedesktop/resolve1", manager, "FlushCaches")
    caller.close()
    for varlink_path in varlink.paths:
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(varlink_path)
            s.recv(1)
    if len(recorder.calls) != 1 + len(varlink.paths):
        raise LabError("the recorder does not record: %s" % recorder.calls)
    recorder.calls.clear()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="FILE", help="write the calls there")
    parser.add_argument("argv", nargs=argparse.REMAINDER, metavar="CMD...")
    args = parser.parse_args()
    if not args.argv:
        parser.error("which command?")
    if os.geteuid() != 0:
        raise LabError("resolved_recorder needs root")
    namespaces.private_run()
    daemon = start_bus("/run/dbus")
    path = "/run/dbus/" + bus.SOCKET
    try:
        recorder = Recorder(path)
        varlink = VarlinkRecorder(recorder.calls)
        prove(path, recorder, varlink)
        status = subprocess.run(args.argv).returncode
        recorder.close()
    finally:
        daemon.terminate()
        daemon.wait()
    calls = recorder.calls
    print("resolved recorder: %d calls" % len(calls), file=sys.stderr)
    for call in calls:
        print("  %(via)s %(member)s" % call, file=sys.stderr)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as f:
            json.dump(calls, f, indent=1)
    if status < 0:
        status = 128 - status
    return status or (99 if calls else 0)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as e:
        print("resolved_recorder: %s" % e, file=sys.stderr)
        sys.exit(1)
