#!/usr/bin/python3
"""A small meek server, for tests: HTTP requests become one connection to a bridge.

    meek_server.py --listen ADDRESS:PORT --orport ADDRESS:PORT

A client's POST carries the bytes that go up, the answer those that come down; the
header X-Session-Id says to which session they belong. Not for the Internet: sessions
are never forgotten before they end.
"""

import argparse
import select
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# What a client takes in one answer, and how long one waits for its first byte:
# the fewer empty answers, the fewer requests.
ANSWER_MAX = 0x10000
TURNAROUND_S = 0.02


class Meek(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "lab"

    def log_message(self, *_):
        pass

    def _answer(self, status, body=b""):
        self.send_response(status)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self._answer(200, b"nothing to see here\n")

    def do_POST(self):
        up = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        session = self.headers.get("X-Session-Id", "")
        if len(session) < 8:
            self._answer(400)
            return
        try:
            down = self.server.exchange(session, up)
        except OSError as e:
            print("session ended: %s" % e, file=sys.stderr, flush=True)
            self._answer(502)
            return
        self._answer(200, down)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address, orport):
        super().__init__(address, Meek)
        self._orport = orport
        self._sessions = {}
        self._lock = threading.Lock()

    def exchange(self, session, up):
        """Send up's bytes to the bridge; returns those that came from it."""
        with self._lock:
            bridge = self._sessions.get(session)
            if bridge is None:
                bridge = socket.create_connection(self._orport)
                self._sessions[session] = bridge
        try:
            bridge.sendall(up)
            down = b""
            while len(down) < ANSWER_MAX:
                wait_s = 0 if down else TURNAROUND_S
                if not select.select([bridge], [], [], wait_s)[0]:
                    break
                part = bridge.recv(ANSWER_MAX - len(down))
                if not part:
                    if down:
                        break
                    raise ConnectionError("closed by the bridge")
                down += part
            return down
        except OSError:
            with self._lock:
                self._sessions.pop(session, None)
            bridge.close()
            raise


def endpoint(text):
    host, _, port = text.rpartition(":")
    return host, int(port)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", required=True, type=endpoint)
    parser.add_argument("--orport", required=True, type=endpoint)
    args = parser.parse_args()
    server = Server(args.listen, args.orport)
    print("ready", flush=True)
    server.serve_forever(3600)


if __name__ == "__main__":
    main()
