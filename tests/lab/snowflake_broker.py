#!/usr/bin/python3
"""A snowflake broker and a STUN server, for tests: rendezvous works, no more.

    snowflake_broker.py --listen ADDRESS:PORT --stun ADDRESS:PORT
                        --proxy ADDRESS:PORT --log FILE

The broker answers each client's offer with a session description that leads to
--proxy, where datagrams are counted and nobody speaks WebRTC: a client gets as far
as looking for its peer. While FILE.none exists, it answers as the real broker does
when no volunteer is free.

Each offer, STUN request and datagram to the proxy is one JSON line of FILE.
"""

import argparse
import json
import os
import secrets
import socket
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from meek_server import endpoint

# RFC 8489
STUN_MAGIC = 0x2112A442
STUN_REQUEST, STUN_RESPONSE = 0x0001, 0x0101
STUN_XOR_MAPPED_ADDRESS = 0x0020

ANSWER = """v=0
o=- 1 2 IN IP4 0.0.0.0
s=-
t=0 0
a=fingerprint:sha-256 %s
a=group:BUNDLE 0
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
a=setup:active
a=mid:0
a=sendrecv
a=sctp-port:5000
a=ice-ufrag:%s
a=ice-pwd:%s
a=candidate:1 1 udp 2130706431 %s %d typ host
a=end-of-candidates
"""


class Log:
    def __init__(self, path):
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, what, **entry):
        # One write(2) in append mode: lines of threads do not mix.
        line = json.dumps({"time": round(time.time(), 3), "what": what, **entry})
        os.write(self._fd, (line + "\n").encode())


class Broker(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "lab"

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            version, _, text = body.partition(b"\n")
            request = json.loads(text)
            offer = json.loads(request["offer"])
        except (ValueError, KeyError) as e:
            self.server.log.write("error", path=self.path, text=str(e))
            self._answer(400, b"")
            return
        self.server.log.write(
            "offer",
            version=version.decode("ascii", "replace"),
            path=self.path,
            host=self.headers.get("Host", ""),
            bridge=request.get("fingerprint"),
            candidates=[
                line
                for line in offer.get("sdp", "").splitlines()
                if line.startswith("a=candidate:")
            ],
        )
        if os.path.exists(self.server.no_proxies):
            answer = {"answer": "", "error": "no snowflake proxies currently available"}
        else:
            sdp = ANSWER % (
                ":".join("%02X" % b for b in os.urandom(32)),
                secrets.token_hex(8),
                secrets.token_hex(16),
                *self.server.proxy,
            )
            sdp = sdp.replace("\n", "\r\n")
            answer = {"answer": json.dumps({"type": "answer", "sdp": sdp})}
        self._answer(200, json.dumps(answer).encode())

    def _answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def stun_answer(request, source):
    """Answer to a binding request from (address, port), or None."""
    if len(request) < 20:
        return None
    kind, _, magic = struct.unpack("!HHI", request[:8])
    if kind != STUN_REQUEST or magic != STUN_MAGIC:
        return None
    address = struct.unpack("!I", socket.inet_aton(source[0]))[0]
    value = struct.pack("!xBHI", 1, source[1] ^ (magic >> 16), address ^ magic)
    attribute = struct.pack("!HH", STUN_XOR_MAPPED_ADDRESS, len(value)) + value
    head = struct.pack("!HHI", STUN_RESPONSE, len(attribute), magic)
    return head + request[8:20] + attribute


def serve_udp(address, what, log, answer):
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(address)

    def loop():
        while True:
            data, source = udp.recvfrom(2048)
            log.write(what, source=source[0], port=source[1], bytes=len(data))
            reply = answer(data, source)
            if reply:
                udp.sendto(reply, source)

    threading.Thread(target=loop, daemon=True).start()


def main():
    parser = argparse.ArgumentParser()
    for name in ("--listen", "--stun", "--proxy"):
        parser.add_argument(name, required=True, type=endpoint)
    parser.add_argument("--log", required=True)
    args = parser.parse_args()
    log = Log(args.log)
    serve_udp(args.stun, "stun", log, stun_answer)
    serve_udp(args.proxy, "proxy", log, lambda data, source: None)
    server = ThreadingHTTPServer(args.listen, Broker)
    server.daemon_threads = True
    server.log = log
    server.proxy = args.proxy
    server.no_proxies = args.log + ".none"
    print("ready", flush=True)
    server.serve_forever(3600)


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    main()
