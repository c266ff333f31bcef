#!/usr/bin/python3
"""The lab's servers: HTTP, echo, login page. They write down who came.

    webserver.py --log FILE [--http ADDRESS]... [--echo ADDRESS]...
                 [--portal ADDRESS:PORT]

HTTP, port 80:
    GET /            a page that says the caller's address as seen here
    GET /address     the address alone
    GET /data/N      N MiB, by sendfile
    GET /hold/N      one line a second, N times: a long-lived connection
    POST|PUT /upload counts what it gets: {"bytes": N, "seconds": S}
Echo, TCP and UDP port 7.

Each request, echo connection and datagram is one JSON line of FILE: time, proto,
server, source, port, and for HTTP method, path, host. The line is written before
the answer is sent, so whoever has the answer finds the line.
"""

import argparse
import json
import os
import resource
import socket
import socketserver
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MIB = 1 << 20
# Larger than one sendfile: it is sent again and again.
BLOCK = os.memfd_create("data")
os.write(BLOCK, os.urandom(MIB))


class Log:
    def __init__(self, path):
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, **entry):
        # One write(2) in append mode: lines of threads do not mix.
        line = json.dumps({"time": round(time.time(), 3), **entry})
        os.write(self._fd, (line + "\n").encode())


class Http(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "lab"

    def log_message(self, *_):
        pass

    def _record(self):
        self.server.log.write(
            proto="http",
            server=self.server.server_address[0],
            source=self.client_address[0],
            port=self.client_address[1],
            method=self.command,
            path=self.path,
            host=self.headers.get("Host", ""),
        )

    def _send(self, text, kind="text/plain", status=200):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind + "; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self._record()
        first, _, number = self.path.lstrip("/").partition("/")
        if first == "":
            self._send(
                "<!doctype html><title>lab</title>"
                "<p>Your address, as this server sees it: <b>%s</b></p>\n"
                % self.client_address[0],
                "text/html",
            )
        elif first == "address":
            self._send(self.client_address[0] + "\n")
        elif first == "data" and number.isdigit():
            self._data(int(number))
        elif first == "hold" and number.isdigit():
            self._hold(int(number))
        else:
            self._send("no such page\n", status=404)

    def _data(self, mib):
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(mib * MIB))
        self.end_headers()
        self.wfile.flush()
        for _ in range(mib):
            at = 0
            while at < MIB:
                at += os.sendfile(self.connection.fileno(), BLOCK, at, MIB - at)

    def _hold(self, seconds):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Connection", "close")
        self.end_headers()
        for i in range(seconds):
            self.wfile.write(b"%d\n" % i)
            time.sleep(1)

    def do_POST(self):
        self._record()
        if "Content-Length" not in self.headers:
            self.close_connection = True
            self._send("say how much: Content-Length\n", status=411)
            return
        start = time.monotonic()
        left = total = int(self.headers["Content-Length"])
        buffer = bytearray(MIB)
        while left:
            got = self.rfile.readinto(memoryview(buffer)[: min(left, MIB)])
            if not got:
                return
            left -= got
        seconds = time.monotonic() - start
        self._send(json.dumps({"bytes": total, "seconds": seconds}) + "\n")

    do_PUT = do_POST


class Portal(Http):
    """What a captive network answers to every page."""

    def do_GET(self):
        self._record()
        self.send_response(302)
        self.send_header("Location", "http://login.lab.test/")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_PUT = do_GET


class TcpEcho(socketserver.BaseRequestHandler):
    def handle(self):
        log_peer(self, "tcp")
        while True:
            data = self.request.recv(65536)
            if not data:
                return
            self.request.sendall(data)


class UdpEcho(socketserver.BaseRequestHandler):
    def handle(self):
        log_peer(self, "udp")
        self.request[1].sendto(self.request[0], self.client_address)


def log_peer(handler, proto):
    handler.server.log.write(
        proto=proto,
        server=handler.server.server_address[0],
        source=handler.client_address[0],
        port=handler.client_address[1],
    )


class Quiet:
    """A peer that goes away, as leak probes do, is no event."""

    daemon_threads = True
    request_queue_size = 1024
    allow_reuse_address = True

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class HttpServer(Quiet, ThreadingHTTPServer):
    pass


class TcpServer(Quiet, socketserver.ThreadingTCPServer):
    pass


class UdpServer(Quiet, socketserver.UDPServer):
    pass


def serve(base, handler, address, port, log):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = type(base.__name__, (base,), {"address_family": family})
    server = kind((address, port), handler)
    server.log = log
    threading.Thread(target=server.serve_forever, args=(3600,)).start()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--log", required=True)
    parser.add_argument("--http", action="append", default=[])
    parser.add_argument("--echo", action="append", default=[])
    parser.add_argument("--portal")
    args = parser.parse_args()
    log = Log(args.log)
    # Each held connection is a file.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # A thread waits for each connection; the default of 8 MiB is for recursion.
    threading.stack_size(256 * 1024)
    for address in args.http:
        serve(HttpServer, Http, address, 80, log)
    for address in args.echo:
        serve(TcpServer, TcpEcho, address, 7, log)
        serve(UdpServer, UdpEcho, address, 7, log)
    if args.portal:
        address, _, port = args.portal.rpartition(":")
        serve(HttpServer, Portal, address, int(port), log)
    print("ready", flush=True)


if __name__ == "__main__":
    main()
