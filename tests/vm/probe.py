#!/usr/bin/python3
"""Try ways out of this machine and say, as JSON, how each one ended.

    probe.py [--link eth0] [PROBE...]

Each result: {"error": errno name or "" when the kernel let it go, "ms": how
long that took}. Without PROBE: all. The probes are those of tests/leak, on the
lab's addresses; a DNS query has to be answered.
"""

import argparse
import json
import os
import random
import sys

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "leak"))

from probes import Prober, dns_query  # noqa: E402

CONFIG = {
    "source": {4: "192.168.77.2", 6: "2001:db8:77::2"},
    "target": {4: "203.0.113.10", 6: "2001:db8:113::10"},
    "gateway": {4: "192.168.77.1", 6: "2001:db8:77::1"},
    "dns": {4: "203.0.113.53", 6: "2001:db8:113::10"},
    "lan": {4: "192.168.77.9", 6: "2001:db8:77::9"},
    "broadcast": "192.168.77.255",
    "gateway_mac": "ff:ff:ff:ff:ff:ff",
    "raw_proto": 253,
    "dns_name": b"www.lab.test",
}
PATIENCE_S = {"tcp": 3, "udp": 1, "answer": 10}

# name: (probe of tests/leak, family)
PROBES = {
    "tcp4": ("tcp", 4),
    "tcp6": ("tcp", 6),
    "udp4": ("udp", 4),
    "udp6": ("udp", 6),
    "quic4": ("quic", 4),
    "dns4": ("dns-public", 4),
    "dns4-gateway": ("dns-gateway", 4),
    "dns4-tcp": ("dns-tcp-public", 4),
    "dns6": ("dns-public", 6),
    "tcp4-device": ("tcp-device", 4),
    "tcp4-source": ("tcp-source", 4),
    "tcp4-lan": ("tcp-lan", 4),
    "udp4-device": ("udp-device", 4),
    "udp4-lan-device": ("udp-lan-device", 4),
    "udp4-source": ("udp-source", 4),
    "udp4-unicast-if": ("udp-unicast-if", 4),
    "udp6-device": ("udp-device", 6),
    "pktinfo4": ("udp-pktinfo", 4),
    "multicast4": ("mdns", 4),
    "broadcast4": ("broadcast", 4),
    "icmp4": ("ping", 4),
    "icmp6": ("ping", 6),
    "raw4": ("raw", 4),
    "sctp4": ("sctp", 4),
    "mark4": ("tcp-mark", 4),
    "packet": ("packet", 4),
    "packet-bypass": ("packet-bypass", 4),
}
ANSWERED = ("dns4", "dns4-gateway", "dns4-tcp")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--link", default="eth0")
    parser.add_argument("probe", nargs="*")
    args = parser.parse_args()
    names = args.probe or list(PROBES)
    for name in names:
        if name not in PROBES:
            parser.error("no probe %s; there are: %s" % (name, ", ".join(PROBES)))
    # Another run's ports may still be remembered at the other end.
    first = random.randrange(10000, 30000)
    cells = [[first + i, *PROBES[name]] for i, name in enumerate(names)]
    answers = {
        n: dns_query(n, CONFIG["dns_name"])
        for (n, *_), name in zip(cells, names)
        if name in ANSWERED
    }
    results = Prober({**CONFIG, "link": args.link}).fire(cells, PATIENCE_S, answers)
    json.dump({name: results[n] for (n, *_), name in zip(cells, names)}, sys.stdout)


if __name__ == "__main__":
    main()
