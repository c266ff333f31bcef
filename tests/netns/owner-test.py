#!/usr/bin/env python3
"""Who may take the block away, and what is left when its owner dies."""

import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from netlab import (  # noqa: E402
    USER_UID, WEB4, Driver, DriverError, Lab, connect, main, private)

DRIVER = private()
UNOWNED = os.path.abspath(sys.argv[2])
lab = Lab()
clean = lab.snapshot()


def blocked():
    """Whether a bound socket, which no policy rule stops, gets out"""
    import socket
    _, _, s = connect("host", USER_UID, (WEB4, 9), seconds=0.3, prepare=lambda x:
                      x.setsockopt(socket.SOL_SOCKET, 25, b"eth0\0"))
    s.close()
    return not [f for f in lab.capture.leaks()]


def tables():
    return lab.exec("host", "nft", "list", "tables").split("\n")


def nft(*words):
    return subprocess.run(["ip", "netns", "exec", "host", "nft"] + list(words),
                          stderr=subprocess.PIPE, universal_newlines=True)


def foreign_flush():
    """A foreign flush, delete or addition does not touch the block"""
    driver = Driver(DRIVER)
    assert not blocked()
    driver("firewall", "blocked")
    assert blocked()
    nft("flush", "ruleset")
    assert blocked() and "table inet torvm" in tables()
    for command in ("delete table inet torvm", "delete table netdev torvm",
                    "flush chain inet torvm postrouting",
                    "insert rule inet torvm postrouting accept",
                    "insert rule netdev torvm out accept"):
        assert nft(*command.split()).returncode != 0, command
    assert blocked()
    # Its own owner may.
    driver("firewall-remove")
    assert not blocked() and driver("present") == "0"
    driver.close()


def another_instance():
    """A second controller is refused by precheck and by the change itself"""
    first, second = Driver(DRIVER), Driver(DRIVER, mark=7)
    first("firewall", "blocked")
    for command in (("precheck",), ("firewall", "open"), ("firewall-remove",)):
        try:
            second(*command)
            raise AssertionError(command)
        except DriverError as e:
            assert e.name == "EPERM" and "another TorVM" in e.text, e
    assert blocked()
    first("firewall-remove")
    second("precheck")
    for d in (first, second):
        d.close()


def orphan():
    """kill -9 of the owner: the block stays, and `recover` takes all of it away"""
    driver = Driver(DRIVER)
    driver.up()
    driver.kill()
    assert blocked()
    other = Driver(DRIVER)
    assert other("present") == "1"
    other("precheck")
    other.down()
    assert not blocked()
    lab.same(clean)
    # Again: nothing left to do is no error.
    other.down()
    other.close()


def adopted():
    """The next controller takes over an orphan without a gap"""
    driver = Driver(DRIVER)
    driver("firewall", "blocked")
    driver("rules-add")
    driver.kill()
    other = Driver(DRIVER, mark=99, uid=61150)
    other("firewall", "blocked")
    other("rules-add")
    assert nft("flush", "ruleset").returncode == 0
    assert blocked(), "an adopted table is owned again"
    rules = lab.ip("host", "rule")
    assert "61150" in rules and "61101" not in rules, rules
    other.down()
    other.close()
    lab.same(clean)


def no_owners():
    """Kernels without owners: the same block, replaced and removed as well"""
    driver = Driver(UNOWNED)
    driver("precheck")
    driver("firewall", "blocked")
    assert blocked()
    driver("firewall", "open")
    assert blocked()
    nft("flush", "ruleset")
    assert not blocked(), "positive control: a flush opens it"
    driver("firewall", "blocked")
    assert blocked()
    driver.kill()
    assert blocked()
    # An owning controller after an update of the kernel's abilities.
    other = Driver(DRIVER)
    other("firewall", "blocked")
    assert blocked()
    other("firewall-remove")
    other.close()
    lab.same(clean)


main([foreign_flush, another_instance, orphan, adopted, no_owners])
