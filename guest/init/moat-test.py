#!/usr/bin/env python3
"""Run "init moat" with a scripted transport: what is said to either side."""

import contextlib
import random
import socket
import subprocess
import sys
import threading
import time
import unittest

INIT = sys.argv.pop(1)
PORT = 9097
ARGS = "targets=https://moat.example/|front.example;utls=" + "x" * 240
DEADLINE_S = 20
CONNECTED = b"\5\0\0\1" + bytes(6)


class Transport:
    """Takes the SOCKS handshake, then hands the connection to @serve."""

    def __init__(self, serve, method=b"\5\2", login=b"\1\0", reply=CONNECTED):
        self.serve, self.replies = serve, (method, login, reply)
        self.sock = socket.socket()
        self.sock.bind(("127.0.0.1", 0))
        self.sock.listen(16)
        self.port = self.sock.getsockname()[1]
        self.asked = []
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while True:
            try:
                conn, _ = self.sock.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(conn,), daemon=True).start()

    def _one(self, conn):
        # A refusal may be noticed while we still talk.
        with contextlib.suppress(OSError), conn, conn.makefile("rb") as f:
            method, login, reply = self.replies
            asked = [f.read(3)]
            conn.sendall(method)
            head = f.read(2)
            user = f.read(head[1]) if len(head) == 2 else b""
            size = f.read(1)
            if size:
                asked.append((user, f.read(size[0])))
                conn.sendall(login)
                asked.append(f.read(10))
                # In pieces: a reply need not come as a whole.
                for byte in reply:
                    conn.sendall(bytes([byte]))
                    time.sleep(0.001)
            self.asked.append(asked)
            self.serve(conn, f)


def echo(conn, f):
    while True:
        data = f.read1(65536)
        if not data:
            return
        conn.sendall(data)


class Moat(unittest.TestCase):
    def start(self, transport):
        # An address of loopback's that no other run uses.
        self.ip = "127.97.%d.%d" % (random.randrange(256), random.randrange(1, 255))
        p = subprocess.Popen([INIT, "moat", self.ip, str(transport.port), ARGS],
                             stdout=subprocess.PIPE, text=True)
        self.addCleanup(p.stdout.close)
        self.addCleanup(p.wait)
        self.addCleanup(p.kill)
        self.addCleanup(transport.sock.close)
        self.assertEqual(p.stdout.readline(), "listens\n")
        return p

    def connect(self):
        sock = socket.create_connection((self.ip, PORT), DEADLINE_S)
        self.addCleanup(sock.close)
        return sock

    def read_to_the_end(self, sock):
        data = b""
        while True:
            try:
                part = sock.recv(65536)
            except ConnectionResetError:
                return data
            if not part:
                return data
            data += part

    def test_the_transport_is_asked_for_its_arguments_alone(self):
        t = Transport(echo)
        self.start(t)
        sock = self.connect()
        words = b"CONNECT 192.0.2.1:80 HTTP/1.1\r\n\r\n"
        sock.sendall(words)
        self.assertEqual(sock.recv(len(words), socket.MSG_WAITALL), words)
        (method, login, target), = t.asked
        self.assertEqual(method, b"\5\1\2")
        self.assertEqual(b"".join(login), ARGS.encode())
        self.assertEqual(len(login[0]), 255)
        self.assertEqual(target, b"\5\1\0\1\xc0\0\2\x14\0\x50")

    def test_much_passes_both_ways(self):
        self.start(Transport(echo))
        sent = random.randbytes(3_000_000)
        sock = self.connect()
        writer = threading.Thread(target=sock.sendall, args=(sent,))
        writer.start()
        got = b""
        while len(got) < len(sent):
            got += sock.recv(65536)
        writer.join()
        self.assertTrue(got == sent, "other bytes")

    def test_last_words_are_passed_on(self):
        said = random.randbytes(200_000)
        self.start(Transport(lambda conn, f: conn.sendall(said)))
        self.assertTrue(self.read_to_the_end(self.connect()) == said)

    def test_a_client_that_hangs_up_is_told_to_the_transport(self):
        got = []
        done = threading.Event()

        def serve(_, f):
            got.append(f.read())
            done.set()
        self.start(Transport(serve))
        sock = self.connect()
        sock.sendall(b"last")
        sock.close()
        self.assertTrue(done.wait(DEADLINE_S))
        self.assertEqual(got, [b"last"])

    def test_refusals_end_the_connection_not_the_program(self):
        for bad in ({"method": b"\5\xff"}, {"login": b"\1\1"},
                    {"reply": b"\5\5\0\1" + bytes(6)}, {"reply": b"\5\0\0\7\0"},
                    {"method": b"HT"}):
            t = Transport(lambda conn, f: f.read(), **bad)
            p = self.start(t)
            for _ in range(6):
                self.assertEqual(self.read_to_the_end(self.connect()), b"", bad)
            self.assertIsNone(p.poll())
        # Nobody there at all.
        t.sock.close()
        p = self.start(t)
        self.assertEqual(self.read_to_the_end(self.connect()), b"")
        self.assertIsNone(p.poll())

    def test_a_fifth_waits_for_its_turn(self):
        self.start(Transport(echo))
        first = [self.connect() for _ in range(4)]
        for sock in first:
            sock.sendall(b"a")
            self.assertEqual(sock.recv(1), b"a")
        fifth = self.connect()
        fifth.sendall(b"b")
        fifth.settimeout(0.3)
        with self.assertRaises(TimeoutError):
            fifth.recv(1)
        first[2].close()
        fifth.settimeout(DEADLINE_S)
        self.assertEqual(fifth.recv(1), b"b")


if __name__ == "__main__":
    unittest.main(verbosity=1)
