#!/usr/bin/env python3
"""systemd-resolved's settings, against a stand-in on a private bus."""

import os
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from netlab import (  # noqa: E402
    Driver, DriverError, Lab, main, private, wait_until)

DRIVER = private()
MOCK = os.path.abspath(sys.argv[2])
lab = Lab()

scratch = tempfile.TemporaryDirectory()
address = "unix:path=%s/bus" % scratch.name
with open(scratch.name + "/bus.conf", "w") as f:
    f.write("""<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration
 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>%s</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_type="*"/>
<allow receive_type="*"/></policy></busconfig>""" % address)
bus = subprocess.Popen(["dbus-daemon", "--nofork", "--config-file",
                        scratch.name + "/bus.conf"], stderr=subprocess.DEVNULL)
wait_until("the bus", lambda: os.path.exists(scratch.name + "/bus"))
env = dict(os.environ, DBUS_SYSTEM_BUS_ADDRESS=address)


class Mock:
    def __init__(self, ns, *args):
        self.proc = subprocess.Popen(["ip", "netns", "exec", ns, MOCK, *args],
                                     stdout=subprocess.PIPE, env=env,
                                     universal_newlines=True)
        assert self.proc.stdout.readline() == "ready\n"
        os.set_blocking(self.proc.stdout.fileno(), False)

    def calls(self):
        try:
            return os.read(self.proc.stdout.fileno(), 65536).decode().splitlines()
        except BlockingIOError:
            return []

    def end(self):
        self.proc.kill()
        self.proc.wait()


driver = Driver(DRIVER, env=env)
driver("tap-create")
driver("tap-configure")
index = lab.link("host", "torvm0")["ifindex"]


def unsupported(command):
    try:
        driver(command)
    except DriverError as e:
        assert e.name == "EOPNOTSUPP", e
        return
    raise AssertionError(command)


def absent():
    """No resolved, no bus: not an error that stops anything"""
    unsupported("dns-set")
    other = Driver(DRIVER, env=dict(env, DBUS_SYSTEM_BUS_ADDRESS="unix:path=/none"))
    try:
        other("dns-set")
        raise AssertionError
    except DriverError as e:
        assert e.name == "EOPNOTSUPP", e
    other.close()


def set_and_restored():
    """Names go to the VM by this link only, caches are flushed, then undone"""
    mock = Mock("host")
    driver("dns-set")
    calls = mock.calls()
    for call in ("SetLinkDNS %d 2:10.10.10.1", "SetLinkDomains %d .:1",
                 "SetLinkDefaultRoute %d 1", "SetLinkDNSSEC %d no",
                 "SetLinkDNSOverTLS %d no", "SetLinkLLMNR %d no",
                 "SetLinkMulticastDNS %d no"):
        assert call % index in calls, (call, calls)
    assert calls[-1] == "FlushCaches", calls
    # Off before the server is known: nothing is asked otherwise in between.
    assert calls.index("SetLinkLLMNR %d no" % index) < calls.index(
        "SetLinkDNS %d 2:10.10.10.1" % index)
    assert driver("dns-check") == "1"
    driver("dns-restore")
    assert mock.calls() == ["RevertLink %d" % index, "FlushCaches"]
    assert driver("dns-check") == "0"
    mock.end()


def other_namespace():
    """A resolver of another network namespace is never asked anything"""
    mock = Mock("router")
    unsupported("dns-set")
    unsupported("dns-restore")
    unsupported("dns-check")
    assert mock.calls() == []
    mock.end()


def deaf():
    """One that does not answer costs 3 s, not a hang"""
    mock = Mock("host", "deaf")
    begin = time.monotonic()
    try:
        driver("dns-set")
        raise AssertionError
    except DriverError as e:
        assert e.name == "ETIMEDOUT", e
    assert 2 < time.monotonic() - begin < 5
    mock.end()


def link_gone():
    """After the TAP is gone its settings are gone; caches are still flushed"""
    mock = Mock("host")
    driver("tap-delete")
    driver("dns-restore")
    assert mock.calls() == ["FlushCaches"]
    mock.end()
    bus.kill()
    bus.wait()


main([absent, set_and_restored, other_namespace, deaf, link_gone])
