#!/usr/bin/env python3
"""What the guest's firewall lets in and out, seen from both of its links.

Runs itself in a network namespace of its own: a TAP whose host end is here, and
QEMU's user-mode network with nothing behind it, which QEMU records. Needs root,
dist/vm (make vm) and QEMU. TCG only.
"""

import ctypes
import errno
import os
import select
import socket
import struct
import subprocess
import sys
import tempfile
import time

import guest
from guest import Guest, check

CLONE_NEWNET = 0x40000000
SO_RCVBUFFORCE = 33  # not in the socket module

TAP = "torvm0"
HOST = "10.10.10.2"
VM = "10.10.10.1"
FAR = "192.0.2.1"  # an address of nobody (TEST-NET-1)
OUTSIDE = "203.0.113.5"  # a bridge of nobody (TEST-NET-3)

# At once: no retransmission can have happened. Generous for a busy machine.
AT_ONCE = 0.9

# Tor is made to try what the firewall forbids it: QEMU's own addresses and the
# host; and one address that is allowed.
BRIDGES = ("10.0.2.2", "10.0.2.3", HOST, OUTSIDE)
TORRC = guest.TORRC.format(data="/run/tor/data") + "UseBridges 1\n"
TORRC += "".join(f"Bridge {address}:443\n" for address in BRIDGES)

# The same with IPv6, where it may go to global addresses alone.
OUTSIDE6 = "2001:db8:5::5"
BRIDGES6 = ("fec0::2", "fec0::3", "fd00::5", "64:ff9b::c000:201", OUTSIDE6)
TORRC6 = guest.TORRC.format(data="/run/tor/data") + "UseBridges 1\n"
TORRC6 += "".join(f"Bridge [{address}]:443\n" for address in BRIDGES6)
TORRC6 += f"Bridge {OUTSIDE}:443\n"

vm = None
sniffer = None
frames = []


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True)


def make_network():
    ip("link", "set", "lo", "up")
    ip("tuntap", "add", TAP, "mode", "tap")
    ip("link", "set", TAP, "address", guest.HOST_MAC, "mtu", "65520", "addrgenmode", "none")
    ip("link", "set", TAP, "up")
    ip("addr", "add", f"{HOST}/30", "dev", TAP)
    ip("addr", "add", "10.9.9.9/32", "dev", TAP)
    ip("neigh", "replace", VM, "lladdr", guest.MAC_ETH1, "dev", TAP, "nud", "permanent")
    ip("route", "add", "default", "via", VM, "src", HOST)


def sniff():
    """Frames the guest has put on the TAP since the last call."""
    while select.select([sniffer], [], [], 0)[0]:
        frame, address = sniffer.recvfrom(65535)
        if address[2] != socket.PACKET_OUTGOING:
            frames.append(frame)
    return frames


def tcp(address, port, source=None, timeout=AT_ONCE):
    """The connected socket, or an errno name."""
    sock = socket.socket()
    sock.settimeout(timeout)
    if source:
        sock.bind((source, 0))
    try:
        sock.connect((address, port))
        return sock
    except socket.timeout:
        sock.close()
        return "ETIMEDOUT"
    except OSError as error:
        sock.close()
        return errno.errorcode[error.errno]


def udp(address, port, data=b"x"):
    """The answer, or an errno name."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(AT_ONCE)
    try:
        sock.connect((address, port))
        sock.send(data)
        return sock.recv(4096)
    except socket.timeout:
        return "ETIMEDOUT"
    except OSError as error:
        return errno.errorcode[error.errno]
    finally:
        sock.close()


def is_connected(result):
    if isinstance(result, str):
        return False
    result.close()
    return True


# A question Tor answers without a network: it does not do MX.
MX = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x00\x00\x0f\x00\x01"


def tcp_to_anywhere_reaches_transport():
    for address, port in ((FAR, 80), (FAR, 9050), ("10.0.2.2", 80), ("8.8.8.8", 443)):
        check(is_connected(tcp(address, port)), f"{address}:{port} is not redirected")


def socks_is_there_and_nothing_else_on_the_vm():
    sock = tcp(VM, 9050)
    check(not isinstance(sock, str), f"SOCKS: {sock}")
    sock.sendall(b"\x05\x01\x00")
    check(sock.recv(2) == b"\x05\x00", "SOCKS does not answer")
    sock.close()
    for port in (1, 22, 53, 80, 9051, 9093, 9095):
        result = tcp(VM, port)
        check(result == "ECONNREFUSED", f"TCP {VM}:{port}: {result}")
    for port in (1, 123, 9050, 9093, 9095):
        result = udp(VM, port)
        check(result == "EHOSTUNREACH", f"UDP {VM}:{port}: {result}")


def dns_by_udp_is_answered_for_any_server():
    for server in (VM, FAR, "8.8.8.8"):
        answer = udp(server, 53, MX)
        check(answer[:2] == MX[:2] and answer[2] & 0x80, f"{server}: {answer}")


def a_datagram_too_short_for_dns_does_not_reach_tor():
    # Tor, in whose parser each of them is a crash, would answer no question after it.
    for length in range(12):
        result = udp(FAR, 53, MX[:length])
        check(result == "EHOSTUNREACH", f"{length} bytes: {result}")
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(AT_ONCE)
    sock.connect((FAR, 53))
    sock.send(MX)
    check(sock.recv(4096)[:2] == MX[:2], "no answer")
    sock.send(MX[:6])
    try:
        result = sock.recv(4096)
    except OSError as error:
        result = errno.errorcode.get(error.errno, error)
    check(result == "EHOSTUNREACH", f"after a question, 6 bytes: {result}")
    sock.close()
    # A header alone is for Tor to judge.
    udp(FAR, 53, MX[:12])
    check(udp(FAR, 53, MX)[:2] == MX[:2], "Tor does not answer any more")


def dns_by_tcp_is_reset():
    for server in (VM, FAR):
        result = tcp(server, 53)
        check(result == "ECONNREFUSED", f"TCP {server}:53: {result}")


def everything_else_is_refused_at_once():
    for address, port in ((FAR, 123), (FAR, 443), ("8.8.8.8", 5353)):
        result = udp(address, port)
        check(result == "EHOSTUNREACH", f"UDP {address}:{port}: {result}")
    # Any other protocol: ICMP administratively prohibited.
    for address, protocol in ((VM, 1), (FAR, 1), (FAR, 132), (FAR, 47)):
        listener = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        sender = socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol)
        payload = b"\x08\x00\xf7\xff\x00\x00\x00\x00" if protocol == 1 else bytes(20)
        sender.sendto(payload, (address, 0))
        deadline = time.monotonic() + AT_ONCE
        while True:
            left = deadline - time.monotonic()
            ready = left > 0 and select.select([listener], [], [], left)[0]
            check(ready, f"protocol {protocol} to {address}: no answer")
            packet = listener.recv(2048)
            if packet[20:22] == b"\x03\x0d" and packet[28 + 9] == protocol:
                break
        listener.close()
        sender.close()


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def a_connection_of_an_earlier_vm_is_reset():
    """An ACK of a flow the guest does not know, as after its restart."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
    sender = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
    # Port 443 is redirected, port 53 is not: neither may adopt the flow.
    for port in (443, 53):
        segment = struct.pack("!HHIIBBHHH", 40000, port, 1000, 2000, 0x50, 0x10, 512, 0, 0)
        pseudo = socket.inet_aton(HOST) + socket.inet_aton(FAR)
        pseudo += struct.pack("!BBH", 0, 6, len(segment))
        value = checksum(pseudo + segment)
        sender.sendto(segment[:16] + struct.pack("!H", value) + segment[18:], (FAR, 0))
        deadline = time.monotonic() + AT_ONCE
        while True:
            left = deadline - time.monotonic()
            ready = left > 0 and select.select([listener], [], [], left)[0]
            check(ready, f"no reset from port {port}")
            packet = listener.recv(2048)
            source, to, sequence = struct.unpack("!HHI", packet[20:28])
            if source == port and to == 40000:
                check(packet[33] & 4 and sequence == 2000, f"not a reset: {packet}")
                break
    listener.close()
    sender.close()


def another_source_gets_no_answer():
    for address, port in ((FAR, 80), (VM, 9050), (VM, 1)):
        result = tcp(address, port, source="10.9.9.9")
        check(result == "ETIMEDOUT", f"from 10.9.9.9 to {address}:{port}: {result}")


def refusals_are_bounded():
    listener = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    listener.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    start = time.monotonic()
    for _ in range(20000):
        try:
            sender.sendto(b"x", (FAR, 123))
        except OSError:
            pass
    refused = 0
    while select.select([listener], [], [], 2)[0]:
        refused += listener.recv(2048)[20:22] == b"\x03\x0d"
    seconds = time.monotonic() - start
    print(f"# 20000 datagrams: {refused} refusals in {seconds:.1f} s")
    check(refused > 100, "the flood was not refused at all")
    check(refused <= 1000 + 1000 * seconds, "the refusals are not bounded")
    listener.close()
    sender.close()
    # And it still lives.
    check(udp(FAR, 53, MX)[:2] == MX[:2], "no DNS after the flood")


def ipv6_is_not_spoken():
    for frame in sniff():
        check(frame[12:14] != b"\x86\xdd", f"IPv6 on the TAP: {frame.hex()}")


def wait_until_tor_tried(bridges):
    """Tor's own word that it tried all of its bridges."""
    control = vm.torctl()
    check(guest.ask_tor(control, "AUTHENTICATE") == ["250 OK"], "AUTHENTICATE")
    control.send("SETEVENTS ORCONN\r\n")
    missing = set(bridges)
    while missing:
        try:
            line = control.line(120)
        except guest.TestFailure:
            raise guest.TestFailure(f"Tor does not try {missing}") from None
        check(line is not None, "torctl hung up")
        words = line.split(" ")
        if words[:2] == ["650", "ORCONN"] and words[3] in ("LAUNCHED", "FAILED"):
            # $FINGERPRINT~NAME or, when that is not known, ADDRESS:PORT
            missing -= {words[2].rpartition(":")[0].strip("[]")}
    control.close()


def uplink(capture, kinds=(b"\x08\x00", b"\x08\x06")):
    """IP packets that left eth0, from QEMU's record of it (pcap)."""
    with open(capture, "rb") as file:
        data = file.read()
    at, packets = 24, []
    while at + 16 <= len(data):
        length = struct.unpack("=I", data[at + 8 : at + 12])[0]
        frame = data[at + 16 : at + 16 + length]
        at += 16 + length
        if frame[6:12] != bytes.fromhex(guest.MAC_ETH0.replace(":", "")):
            continue
        kind = frame[12:14]
        check(kind in kinds, f"out of eth0: {frame.hex()}")
        if kind != b"\x08\x06":
            packets.append(frame[14:])
    return packets


def nothing_but_tor_leaves_by_the_uplink():
    packets = uplink(vm.capture)
    check(packets, "Tor was never seen on the uplink")
    for packet in packets:
        source = socket.inet_ntoa(packet[12:16])
        to = socket.inet_ntoa(packet[16:20])
        check(source == "10.0.2.15", f"source {source}")
        check(not to.startswith("10.0.2."), f"to QEMU's own address {to}")
        # All that was sent to FAR and 8.8.8.8 by the tests above ended here.
        check(to == OUTSIDE and packet[9] == 6, f"to {to}, protocol {packet[9]}")


def with_ipv6_nothing_but_tor_leaves_either():
    """Another guest, which may use IPv6 and nothing else."""
    global vm
    vm.process.kill()
    vm.process.wait()
    frames.clear()
    config = {"ipv6": "1", "uplink": "tcp6"}
    with Guest(config=config, torrc=TORRC6, tap=TAP, capture=vm.capture + "6") as vm:
        vm.connect().wait_for("stage", "ready")
        wait_until_tor_tried(BRIDGES6 + (OUTSIDE,))
        tcp_to_anywhere_reaches_transport()
        socks_is_there_and_nothing_else_on_the_vm()
        the_tap_stays_without_ipv6()
        judge_ipv6(uplink(vm.capture, kinds=(b"\x86\xdd",)))


def judge_ipv6(packets):
    """Tor's to an address of the Internet; an answer to QEMU: who has fec0::15."""
    protocols = {packet[6] for packet in packets}
    check(protocols == {6, 58}, f"protocols by IPv6: {protocols}")
    for packet in packets:
        source, to = (socket.inet_ntop(socket.AF_INET6, packet[at : at + 16]) for at in (8, 24))
        check(source == "fec0::15", f"source {source}")
        if packet[6] == 58:
            check(to == "fec0::2" and packet[40] == 136, f"ICMPv6 {packet[40]} to {to}")
        else:
            check(to == OUTSIDE6, f"to {to}")


def the_tap_stays_without_ipv6():
    """eth1 answers no question, not even for the address that eth0 has."""
    sniff()
    ask = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    ask.bind((TAP, 0))
    host = bytes.fromhex(guest.HOST_MAC.replace(":", ""))
    source = socket.inet_pton(socket.AF_INET6, "fec0::77")
    for target in ("fec0::15", "fe80::5054:ff:fe12:3402"):
        address = socket.inet_pton(socket.AF_INET6, target)
        group = socket.inet_pton(socket.AF_INET6, "ff02::1:ff00:0")[:13] + address[13:]
        body = struct.pack("!BBHI", 135, 0, 0, 0) + address + b"\x01\x01" + host
        pseudo = source + group + struct.pack("!II", len(body), 58)
        body = body[:2] + struct.pack("!H", checksum(pseudo + body)) + body[4:]
        head = struct.pack("!IHBB", 6 << 28, len(body), 58, 255) + source + group
        ask.send(b"\x33\x33" + group[12:] + host + b"\x86\xdd" + head + body)
        ask.send(bytes.fromhex(guest.MAC_ETH1.replace(":", "")) + host + b"\x86\xdd" + head + body)
    ask.close()
    # What came before it has been seen by then.
    check(udp(VM, 53, MX)[:2] == MX[:2], "no DNS")
    ipv6_is_not_spoken()


def tor_cannot_reach_the_host():
    for frame in sniff():
        if frame[12:14] != b"\x08\x00" or frame[23] != 6:
            continue
        header = 14 + (frame[14] & 15) * 4
        check(frame[header + 13] & 0x12 != 0x02, f"a SYN to the host: {frame.hex()}")


TESTS = [
    tcp_to_anywhere_reaches_transport,
    socks_is_there_and_nothing_else_on_the_vm,
    dns_by_udp_is_answered_for_any_server,
    a_datagram_too_short_for_dns_does_not_reach_tor,
    dns_by_tcp_is_reset,
    everything_else_is_refused_at_once,
    a_connection_of_an_earlier_vm_is_reset,
    another_source_gets_no_answer,
    refusals_are_bounded,
    nothing_but_tor_leaves_by_the_uplink,
    tor_cannot_reach_the_host,
    ipv6_is_not_spoken,
    with_ipv6_nothing_but_tor_leaves_either,
]


def main():
    global vm, sniffer
    if not os.path.exists(os.path.join(guest.IMAGE, "manifest.json")):
        raise SystemExit(f"there is no image in {guest.IMAGE}: run `make vm`")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) < 0:
        raise SystemExit("needs root: " + os.strerror(ctypes.get_errno()))
    make_network()
    sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    sniffer.bind((TAP, 0))
    sniffer.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 256 << 20)
    with tempfile.TemporaryDirectory(prefix="torvm-uplink-") as folder:
        capture = os.path.join(folder, "uplink.pcap")
        with Guest(torrc=TORRC, tap=TAP, capture=capture) as vm:
            vm.connect().wait_for("stage", "ready")
            wait_until_tor_tried(BRIDGES)
            return guest.run(TESTS)


if __name__ == "__main__":
    sys.exit(main())
