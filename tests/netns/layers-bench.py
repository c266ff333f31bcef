#!/usr/bin/env python3
"""What each layer of the block costs a packet.

    sudo tests/netns/layers-bench.py build/tests/netns [ROUNDS]

Interleaved: each round measures every set-up once, and only ratios to the same
round's first one are compared; the machine's load is in both.
"""

import os
import statistics
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from netlab import USER_UID, VM_UID, WEB4, Driver, Lab, private  # noqa: E402

BUILD = private()
ROUNDS = int(sys.argv[2]) if len(sys.argv) > 2 else 30
PROBE = os.path.join(BUILD, "layers-probe")
ROUND_TRIPS, DATAGRAMS = 1000, 400  # the TAP's queue holds 500

lab = Lab()
# Tables without an owner: one of the two is taken away below.
driver = Driver(os.path.join(BUILD, "net-driver-unowned"))


def probe(*args):
    done = subprocess.run(
        ["ip", "netns", "exec", "host", PROBE] + [str(a) for a in args],
        check=True, stdout=subprocess.PIPE, universal_newlines=True)
    return int(done.stdout)


def round_trip():
    """A byte of the uplink's there and back, over a router, in ns."""
    return probe("pingpong", VM_UID, WEB4, 7, ROUND_TRIPS)


def datagram():
    """A program's DNS packet into the TAP, in ns."""
    driver("tap-read")
    return probe("send", USER_UID, "8.8.8.8", 53, DATAGRAMS)


def clear():
    driver("rules-remove")
    driver("firewall-remove")


def delete(family):
    lab.exec("host", "nft", "delete", "table", family, "torvm")


def nothing():
    clear()


def rules():
    clear()
    driver("rules-add")


def inet(mode):
    clear()
    driver("firewall", mode)
    delete("netdev")


def egress():
    clear()
    driver("firewall", "uplink")
    delete("inet")
    # By itself it would let nothing of the uplink's pass: no mark.
    lab.exec("host", "nft", "insert", "rule", "netdev", "torvm", "out",
             "meta", "mark", "!=", "0x5eed1234", "accept")


def everything(mode):
    clear()
    driver("firewall", mode)
    driver("rules-add")


UPLINK = [("without", nothing), ("policy rules", rules),
          ("table inet (and conntrack)", lambda: inet("uplink")),
          ("table netdev", egress), ("all", lambda: everything("open"))]
INTO_TAP = [("without", nothing), ("policy rules", rules),
            ("table inet (and conntrack)", lambda: inet("open")),
            ("all", lambda: everything("open"))]


def compare(title, measure, setups):
    times = {name: [] for name, _ in setups}
    for _ in range(ROUNDS):
        for name, prepare in setups:
            prepare()
            times[name].append(measure())
    base = times[setups[0][0]]
    print("\n%s\n%-28s %8s %8s %8s" % (title, "", "ns", "more", "ratio"))
    for name, _ in setups:
        ratios = [a / b for a, b in zip(times[name], base)]
        more = [a - b for a, b in zip(times[name], base)]
        print("%-28s %8d %8d %8.3f" % (
            name, statistics.median(times[name]), statistics.median(more),
            statistics.median(ratios)))


server = subprocess.Popen(["ip", "netns", "exec", "inet", PROBE, "serve", "7"],
                          stdout=subprocess.PIPE, universal_newlines=True)
assert server.stdout.readline() == "ready\n"
driver("tap-create")
driver("tap-configure")
# Without our rules something else has to lead into the TAP, by the same way.
lab.ip("host", "route", "add", "8.8.8.8", "via", "10.10.10.1", "dev", "torvm0",
       "onlink", "src", "10.10.10.2")
print("%d rounds, medians" % ROUNDS)
compare(round_trip.__doc__, round_trip, UPLINK)
compare(datagram.__doc__, datagram, INTO_TAP)
server.kill()
