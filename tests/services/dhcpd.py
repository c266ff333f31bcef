#!/usr/bin/python3
"""A DHCP server whose leases a test chooses, hostile ones included.

    dhcpd.py --link LINK --server ADDRESS --offer FILE --log FILE

FILE is read again for each answer (JSON): address, router, dns (list), lease_s,
t1_s, t2_s, routes (option 121: list of [prefix, gateway]). An answer to a request
for another address than FILE's is a NAK, as when the LAN was renumbered. Each
request is a line of the log (JSON): kind, source, requested, answer.

RFC 2131, 2132, 3442. One client; broadcast answers go to the link by a packet
socket, because the client may have no address yet.
"""

import argparse
import json
import socket
import struct

MAGIC = b"\x63\x82\x53\x63"
DISCOVER, OFFER, REQUEST, DECLINE, ACK, NAK, RELEASE, INFORM = range(1, 9)
NAMES = ("", "discover", "offer", "request", "decline", "ack", "nak", "release", "inform")


def options_of(packet):
    found, at = {}, 240
    while at < len(packet) and packet[at] != 255:
        if packet[at] == 0:
            at += 1
            continue
        length = packet[at + 1]
        found[packet[at]] = packet[at + 2 : at + 2 + length]
        at += 2 + length
    return found


def option(code, data):
    return bytes((code, len(data))) + data


def classless(routes):
    out = b""
    for prefix, gateway in routes:
        network, _, bits = prefix.partition("/")
        length = int(bits)
        out += bytes((length,)) + socket.inet_aton(network)[: (length + 7) // 8]
        out += socket.inet_aton(gateway)
    return out


def answer_options(kind, server, offer):
    out = option(53, bytes((kind,))) + option(54, server)
    if kind == NAK:
        return out
    out += option(51, struct.pack("!I", offer["lease_s"]))
    out += option(58, struct.pack("!I", offer["t1_s"]))
    out += option(59, struct.pack("!I", offer["t2_s"]))
    out += option(1, socket.inet_aton("255.255.255.0"))
    out += option(3, socket.inet_aton(offer["router"]))
    out += option(6, b"".join(map(socket.inet_aton, offer["dns"])))
    if offer.get("domain"):
        out += option(15, offer["domain"].encode())
    if offer.get("routes"):
        out += option(121, classless(offer["routes"]))
    return out


def checksum(data):
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def frame(payload, server, server_mac):
    """An IPv4 broadcast from port 67 to 68, as a whole frame."""
    udp = struct.pack("!HHHH", 67, 68, 8 + len(payload), 0) + payload
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0)
    head += server + b"\xff" * 4
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    return b"\xff" * 6 + server_mac + b"\x08\x00" + head + udp


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("link", "server", "offer", "log"):
        parser.add_argument("--" + name, required=True)
    args = parser.parse_args()
    server = socket.inet_aton(args.server)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, args.link.encode())
    udp.bind(("", 67))
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    raw.bind((args.link, 0))
    mac = raw.getsockname()[4]
    log = open(args.log, "a", encoding="ascii", buffering=1)
    print("ready", flush=True)
    while True:
        packet, (source, _) = udp.recvfrom(4096)
        if len(packet) < 241 or packet[0] != 1 or packet[236:240] != MAGIC:
            continue
        options = options_of(packet)
        kind = options.get(53, b"\0")[0]
        with open(args.offer, encoding="ascii") as f:
            offer = json.load(f)
        address = socket.inet_aton(offer["address"])
        client = packet[12:16]  # ciaddr: set when it renews or rebinds
        requested = options.get(50, client)
        if kind == DISCOVER:
            answer = OFFER
        elif kind == REQUEST and options.get(54, server) != server:
            continue
        elif kind == REQUEST:
            answer = ACK if requested == address else NAK
        elif kind == INFORM:
            answer = ACK
        else:
            answer = 0
        log.write(
            json.dumps(
                {
                    "kind": NAMES[kind] if kind < len(NAMES) else str(kind),
                    "source": source,
                    "requested": socket.inet_ntoa(requested),
                    "answer": NAMES[answer],
                }
            )
            + "\n"
        )
        if not answer:
            continue
        yiaddr = bytes(4) if answer == NAK else address
        reply = b"\2" + packet[1:12] + bytes(4) + yiaddr + server + bytes(4)
        reply += packet[28:44] + bytes(192) + MAGIC
        reply += answer_options(answer, server, offer) + b"\xff"
        reply = reply.ljust(300, b"\0")
        if answer == ACK and client != bytes(4):
            udp.sendto(reply, (socket.inet_ntoa(client), 68))
        else:
            raw.send(frame(reply, server, mac))


if __name__ == "__main__":
    main()
