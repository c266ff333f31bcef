#!/usr/bin/env python3
"""The guest's resolver against servers that answer, fail, lie and keep silent."""

import os
import socket
import struct
import subprocess
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from netlab import main, private, run  # noqa: E402

INIT = private()
SERVER, NOBODY = "10.9.9.9", "10.9.9.8"
SERVER6 = "fd00::9"
AAAA = b"\0\x1c"
run("ip", "link", "set", "lo", "up")
for address in (SERVER + "/32", NOBODY + "/32", SERVER6 + "/128"):
    run("ip", "addr", "add", address, "dev", "lo")


def question(query):
    """The name that is asked for, and the question as it was sent."""
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode())
        at += query[at] + 1
    return ".".join(labels), query[12 : at + 5]


def answer(query, tcp):
    name, asked = question(query)
    flags, records = 0x8180, 1
    if name.startswith("many"):
        records = 10
        if not tcp:
            flags, records = flags | 0x200, 0  # truncated
    elif name.startswith("no"):
        flags, records = flags | 3, 0
    elif name.startswith("fail"):
        flags, records = flags | 2, 0
    address = "127.0.0.1" if name.startswith("local") else "192.0.2.%d"
    if asked[-4:-2] == AAAA:
        if not name.startswith(("six", "both", "many")):
            records = 0
        body = b"".join(
            b"\xc0\x0c\0\x1c\0\1\0\0\0\x1e\0\x10"
            + socket.inet_pton(socket.AF_INET6, "2001:db8::%d" % (n + 1))
            for n in range(records)
        )
        return query[:2] + struct.pack("!HHHHH", flags, 1, records, 0, 0) + asked + body
    if name.startswith("six"):
        records = 0
    body = b"".join(
        b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4"
        + socket.inet_aton(address % (n + 1) if "%" in address else address)
        for n in range(records)
    )
    return query[:2] + struct.pack("!HHHHH", flags, 1, records, 0, 0) + asked + body


def serve_udp(server):
    while True:
        query, peer = server.recvfrom(512)
        # Not its answer: another name, another number, no DNS at all.
        other = query[:13] + b"z" + query[14:]
        server.sendto(answer(other, False), peer)
        server.sendto(b"\0\0" + answer(query, False)[2:], peer)
        server.sendto(b"x", peer)
        server.sendto(answer(query, False), peer)


def serve_tcp(server):
    while True:
        client, _ = server.accept()
        with client:
            (length,) = struct.unpack("!H", client.recv(2, socket.MSG_WAITALL))
            reply = answer(client.recv(length, socket.MSG_WAITALL), True)
            client.sendall(struct.pack("!H", len(reply)) + reply)


def start():
    for family, address in ((socket.AF_INET, SERVER), (socket.AF_INET6, SERVER6)):
        udp = socket.socket(family, socket.SOCK_DGRAM)
        udp.bind((address, 53))
        tcp = socket.socket(family)
        tcp.bind((address, 53))
        tcp.listen(5)
        for target, server in ((serve_udp, udp), (serve_tcp, tcp)):
            threading.Thread(target=target, args=(server,), daemon=True).start()


def look_up(*names, servers=(SERVER,)):
    done = subprocess.run(
        [INIT, "resolver", *servers, "--", *names], check=True,
        stdout=subprocess.PIPE, universal_newlines=True, timeout=120)
    return done.stdout.splitlines()


def answers():
    """Addresses, also by TCP; what is not the answer is not believed"""
    many = " ".join("192.0.2.%d" % n for n in range(1, 9))
    found = look_up("a.example", "many.example", servers=(NOBODY, SERVER))
    assert found == ["ok a.example 60 192.0.2.1", "ok many.example 60 " + many], found


def both_families():
    """IPv6 addresses where they are asked for, in turn with IPv4's, and by IPv6"""
    names = ("a.example", "six.example", "both.example", "many.example")
    wanted = [
        "ok a.example 60 192.0.2.1",
        "ok six.example 30 2001:db8::1",
        "ok both.example 30 2001:db8::1 192.0.2.1",
        "ok many.example 30 " + " ".join(
            "2001:db8::%d 192.0.2.%d" % (n, n) for n in range(1, 5)),
    ]
    for server in (SERVER, SERVER6):
        found = look_up(*names, servers=("-6", server))
        assert found == wanted, found
    # Not asked for, they are not looked up.
    found = look_up("six.example", "both.example")
    assert found == ["no six.example it has no usable address",
                     "ok both.example 60 192.0.2.1"], found
    found = look_up("no.example", "fail.example", servers=("-6", SERVER6))
    assert found == ["no no.example there is no such name",
                     "no fail.example the resolver failed or refused"], found


def failures():
    """Each has its reason"""
    found = look_up("no.example", "fail.example", "local.example", "x..y")
    assert found == [
        "no no.example there is no such name",
        "no fail.example the resolver failed or refused",
        "no local.example it has no usable address",
        "no x..y Invalid argument",
    ], found


def nobody():
    """Nobody to ask"""
    assert look_up("a.example", servers=()) == ["no a.example no answer"]
    (line,) = look_up("a.example", servers=(NOBODY,))
    assert line == "no a.example Connection refused", line


start()
main([answers, both_families, failures, nobody])
