#!/usr/bin/env python3
"""Prechecks change nothing, a stop restores everything, others' things stay."""

import errno
import os
import socket
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from netlab import (  # noqa: E402
    USER_UID, VM_UID, WEB4, Driver, DriverError, Lab, connect, inside, main,
    ns_socket, private, run, wait_until)

DRIVER = private()
lab = Lab()
# Something of everybody else's, to be found again.
lab.exec("host", "nft", "-f", "-", input="""
table inet firewalld {
    chain output { type filter hook output priority 10; }
}
table ip nat {
    chain out { type nat hook output priority -100; }
}
""")
lab.ip("host", "rule", "add", "pref", "5000", "uidrange", "5-6", "lookup", "77")
lab.ip("host", "route", "add", "198.51.100.0/24", "via", "192.0.2.1", "table", "77")
lab.sysctl("host", "net.ipv4.conf.all.rp_filter", 1)
lab.sysctl("host", "net.ipv4.conf.eth0.rp_filter", 1)
clean = lab.snapshot()
driver = Driver(DRIVER)


def refuses(name, *words):
    before = lab.snapshot()
    try:
        driver("precheck")
    except DriverError as e:
        assert e.name == name, e
        assert all(w in e.text for w in words), e
    else:
        raise AssertionError("precheck passed")
    lab.same(before)


def precheck_changes_nothing():
    """precheck passes, and nothing on the host changes, not even for a moment"""
    monitor = subprocess.Popen(
        ["ip", "netns", "exec", "host", "sh", "-c",
         "ip monitor all & exec nft monitor"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    # The monitors are deaf until their sockets are bound.
    path = "/proc/%d/net/netlink" % monitor.pid

    def listening():
        with open(path) as f:
            return sum(line.split()[3] != "00000000" for line in f) > 3
    wait_until("the monitors", listening)
    driver("precheck")
    driver("precheck")
    # Positive control and end mark.
    lab.ip("host", "link", "set", "eth0", "alias", "end-mark")
    os.set_blocking(monitor.stdout.fileno(), False)
    text = []

    def ended():
        text.append((monitor.stdout.read() or b"").decode())
        return "eth0" in "".join(text)
    wait_until("the end mark", ended)
    os.killpg(monitor.pid, 15)
    monitor.wait()
    seen = "".join(text)
    for trace in ("torvm", "9095", "10.10.10", "table"):
        assert trace not in seen, seen
    lab.ip("host", "link", "set", "eth0", "alias", "")
    lab.same(clean)


def precheck_refusals():
    """precheck names what is in the way, and what to do"""
    lab.ip("host", "link", "add", "torvm0", "type", "bridge")
    refuses("EEXIST", "torvm0", "tap_name")
    lab.ip("host", "link", "del", "torvm0")
    lab.ip("host", "addr", "add", "10.10.10.1/24", "dev", "eth0")
    refuses("EADDRINUSE", "eth0", "host_ip")
    lab.ip("host", "addr", "del", "10.10.10.1/24", "dev", "eth0")
    lab.ip("host", "route", "add", "10.10.10.0/31", "via", "192.0.2.1")
    refuses("EADDRINUSE", "eth0", "host_ip")
    lab.ip("host", "route", "del", "10.10.10.0/31")
    lab.ip("host", "route", "add", "198.51.100.7", "via", "192.0.2.1", "table", "9095")
    refuses("EBUSY", "9095", "ip route flush table")
    lab.ip("host", "route", "flush", "table", "9095")
    # Where there is no room before them; see vpn-test.py for where there is.
    lab.ip("host", "rule", "add", "pref", "7", "lookup", "51820")
    refuses("EBUSY", "preference 7", "VPN")
    lab.ip("host", "rule", "del", "pref", "7")
    lab.ip("host", "-6", "rule", "add", "pref", "0", "lookup", "51820")
    refuses("EBUSY", "preference 0", "-6 rule")
    lab.ip("host", "-6", "rule", "del", "pref", "0", "lookup", "51820")
    # A larger network that merely contains the TAP's is no conflict.
    lab.ip("host", "route", "add", "10.0.0.0/8", "via", "192.0.2.1")
    driver("precheck")
    lab.ip("host", "route", "del", "10.0.0.0/8")


def precheck_without_privileges():
    """Without CAP_NET_ADMIN precheck says so"""
    line = subprocess.run(
        ["ip", "netns", "exec", "host", "capsh", "--drop=cap_net_admin", "--", "-c",
         "echo precheck | %s 1 1" % DRIVER],
        stdout=subprocess.PIPE, universal_newlines=True).stdout.splitlines()[-1]
    assert line.startswith("error EPERM") and "CAP_NET_ADMIN" in line, line


saved = []


def start_and_stop():
    """A stop leaves rules, routes, links, tables and sysctls as found"""
    for _ in range(2):
        driver("firewall", "blocked")
        driver("rules-add")
        driver("rules-add")
        changes = driver("sysctls")
        assert "net/ipv4/conf/eth0/rp_filter=1>2" in changes, changes
        assert driver("sysctls") == ""
        driver("tap-create")
        driver("tap-create")
        driver("firewall", "uplink")
        driver("tap-configure")
        driver("tap-configure")
        driver("firewall", "open")
        shot = lab.snapshot()
        assert shot != clean
        # Main is untouched: all the new routes are in T and local.
        main_before = [r for r in clean["route show table all"] if "table" not in r]
        main_after = [r for r in shot["route show table all"] if "table" not in r]
        assert main_before == main_after, (main_before, main_after)
        driver("sockets-destroy")
        driver("tap-delete")
        for change in changes.split(","):
            name, _, values = change.partition("=")
            driver("sysctl-restore", name, *values.split(">"))
        driver("rules-remove")
        driver("firewall-remove")
        lab.same(clean)


def dhcp_may_set_routes():
    """While the rules are there, a DHCP client can still replace the default route"""
    driver("firewall", "blocked")
    driver("rules-add")
    for tap in (False, True):
        if tap:
            driver("tap-create")
            driver("firewall", "open")
            driver("tap-configure")
        lab.ip("host", "route", "replace", "default", "via", "192.0.2.254", "dev",
               "eth0")
        lab.ip("host", "route", "replace", "default", "via", "192.0.2.1")
        lab.ip("host", "-6", "route", "replace", "default", "via", "2001:db8:1::254")
        lab.ip("host", "-6", "route", "replace", "default", "via", "2001:db8:1::1")
        # Nobody else's question gets that far.
        get = subprocess.run(["ip", "-n", "host", "route", "get", "192.0.2.77"],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             universal_newlines=True)
        assert "eth0" not in get.stdout, get.stdout
        for address in (WEB4, "192.0.2.1"):
            with ns_socket("host", USER_UID, socket.AF_INET, socket.SOCK_DGRAM) as s:
                if tap:
                    s.connect((address, 53))
                    assert s.getsockname()[0] == "10.10.10.2"
                    continue
                try:
                    s.connect((address, 53))
                    raise AssertionError(address)
                except OSError as e:
                    assert e.errno == errno.EACCES, e
    # The table of the TAP's route flushed: still prohibited.
    lab.ip("host", "route", "flush", "table", "9095")
    err, took, s = connect("host", USER_UID, (WEB4, 80))
    s.close()
    assert err == errno.EACCES and took < 0.1, (err, took)
    driver.down()
    lab.same(clean)


def others_sysctl_stays():
    """A sysctl that somebody else set meanwhile is theirs"""
    driver("sysctls")
    lab.sysctl("host", "net.ipv4.conf.eth0.rp_filter", 0)
    driver("sysctl-restore", "net/ipv4/conf/eth0/rp_filter", "1", "2")
    assert lab.sysctl("host", "net.ipv4.conf.eth0.rp_filter") == "0"
    lab.sysctl("host", "net.ipv4.conf.eth0.rp_filter", 1)
    # A link that is gone has no settings to restore; a path outside is refused.
    driver("sysctl-restore", "net/ipv4/conf/gone0/rp_filter", "1", "2")
    for name in ("kernel/core_pattern", "net/../kernel/core_pattern"):
        try:
            driver("sysctl-restore", name, "x", "core")
            raise AssertionError(name)
        except DriverError as e:
            assert e.name == "EINVAL", e
    for change in ("net/ipv4/conf/default/rp_filter",):
        assert lab.sysctl("host", change.replace("/", ".")) == (
            clean["rp_filter"]["default"])


def strict_rp_filter():
    """With rp_filter 1 the uplink connects because it is loosened"""
    listener = lab.listen()
    driver("firewall", "blocked")
    driver("rules-add")
    driver("tap-create")
    driver("firewall", "uplink")
    driver("tap-configure")
    err, _, s = connect("host", VM_UID, (WEB4, 443), seconds=0.5)
    s.close()
    assert err == errno.ETIMEDOUT, "positive control: strict filtering drops"
    driver("sysctls")
    err, _, s = connect("host", VM_UID, (WEB4, 443))
    s.close()
    listener.close()
    assert err == 0, err
    driver.down()
    driver("sysctl-restore", "net/ipv4/conf/eth0/rp_filter", "1", "2")
    lab.same(clean)


def tap_is_ours_only():
    """Another user cannot attach the TAP; a foreign link is neither used nor deleted"""
    driver("tap-create")
    link = lab.link("host", "torvm0")
    assert link["address"] == "52:54:00:12:34:03", link
    assert link["linkinfo"]["info_data"]["persist"], link
    assert link["linkinfo"]["info_data"]["user"] in ("root", 0), link
    assert "UP" not in link["flags"]
    driver("tap-close")
    # Opened before: the node's mode is 0666 on most systems.
    code = ("import fcntl,os,struct;f=os.open('/dev/net/tun',os.O_RDWR);"
            "os.setgid(61199);os.setuid(61199);"
            "fcntl.ioctl(f,0x400454ca,struct.pack('16sH22x',b'torvm0',0x5002))")
    result = subprocess.run(
        ["ip", "netns", "exec", "host", sys.executable, "-c", code],
        stderr=subprocess.PIPE, universal_newlines=True)
    assert result.returncode and "not permitted" in result.stderr, result.stderr
    driver("tap-open")
    driver("tap-configure")
    link = lab.link("host", "torvm0")
    assert link["mtu"] == 65520 and "UP" in link["flags"], link
    addresses = lab.ip("host", "addr", "show", "torvm0")
    assert "inet6" not in addresses and "10.10.10.2/30" in addresses, addresses
    # Nothing speaks on it by itself.
    assert driver("tap-read") == "0"
    driver("tap-delete")
    lab.ip("host", "link", "add", "torvm0", "type", "bridge")
    for command in ("tap-create", "tap-open", "tap-configure"):
        try:
            driver(command)
            raise AssertionError(command)
        except DriverError as e:
            assert e.name == "EEXIST", e
    driver("tap-delete")
    lab.ip("host", "link", "show", "torvm0")
    lab.ip("host", "link", "del", "torvm0")


def stale_packets():
    """A new VM does not get the packets that waited for the old one"""
    driver.up()
    with ns_socket("host", USER_UID, socket.AF_INET, socket.SOCK_DGRAM) as s:
        def waiting(word):
            s.sendto(word, ("198.51.100.53", 53))
            return int(driver("tap-read", word.decode()))
        wait_until("the queue to work", lambda: waiting(b"first"))
        for _ in range(10):
            s.sendto(b"for-the-old-one", ("198.51.100.53", 53))
        driver("tap-open")
        assert driver("tap-read") == "0"
        # The link comes back to life a moment after the new reader attached.
        wait_until("new packets", lambda: waiting(b"for-the-new-one"))
        assert driver("tap-read", "for-the-old-one") == "0"


def sockets_end():
    """A stop destroys what is bound to the TAP's address, and nothing else"""
    udp = ns_socket("host", USER_UID, socket.AF_INET, socket.SOCK_DGRAM)
    udp.connect(("198.51.100.53", 53))
    udp6 = ns_socket("host", USER_UID, socket.AF_INET6, socket.SOCK_DGRAM)
    udp6.connect(("::ffff:198.51.100.53", 53))
    tcp = ns_socket("host", USER_UID, socket.AF_INET, socket.SOCK_STREAM)
    tcp.setblocking(False)
    assert tcp.connect_ex(("198.51.100.80", 80)) == errno.EINPROGRESS
    service = ns_socket("host", 0, socket.AF_INET, socket.SOCK_STREAM)
    service.bind(("127.0.0.1", 7000))
    service.listen(1)
    for s in (udp, udp6, tcp):
        assert "10.10.10.2" in s.getsockname()[0]
    driver("sockets-destroy")
    for s in (udp, udp6, tcp):
        try:
            s.send(b"in clear")
            raise AssertionError("alive")
        except OSError as e:
            assert e.errno in (errno.ECONNABORTED, errno.EDESTADDRREQ, errno.EPIPE,
                               errno.ENOTCONN), e
    err, _, s = connect("host", 0, ("127.0.0.1", 7000))
    assert err == 0
    s.close()
    service.close()
    lab.capture.take()
    driver("tap-delete")
    driver("rules-remove")
    driver("firewall-remove")
    for s in (udp, udp6, tcp):
        s.close()
    driver("sysctl-restore", "net/ipv4/conf/eth0/rp_filter", "1", "2")
    assert not lab.capture.leaks()
    lab.same(clean)


def containers():
    """Host and its own containers keep talking; without NAT that is all"""
    run("ip", "netns", "add", "box")
    run("ip", "link", "add", "v0", "netns", "host", "type", "veth",
        "peer", "name", "v1", "netns", "box")
    lab.ip("host", "link", "add", "docker0", "type", "bridge")
    lab.ip("host", "addr", "add", "172.17.0.1/16", "dev", "docker0")
    lab.ip("host", "link", "set", "docker0", "up")
    lab.ip("host", "link", "set", "v0", "master", "docker0", "up")
    lab.ip("box", "addr", "add", "172.17.0.2/16", "dev", "v1")
    lab.ip("box", "link", "set", "v1", "up")
    lab.ip("box", "route", "add", "default", "via", "172.17.0.1")
    lab.sysctl("host", "net.ipv4.ip_forward", 1)
    lab.settle("host")
    before = lab.snapshot()
    driver.up()
    service = ns_socket("box", 0, socket.AF_INET, socket.SOCK_STREAM)
    service.bind(("172.17.0.2", 80))
    service.listen(1)
    err, took, s = connect("host", USER_UID, ("172.17.0.2", 80))
    assert err == 0 and took < 0.1, err
    s.close()
    own = ns_socket("host", 0, socket.AF_INET, socket.SOCK_STREAM)
    own.bind(("172.17.0.1", 81))
    own.listen(1)
    err, took, s = connect("box", 0, ("172.17.0.1", 81))
    assert err == 0 and took < 0.1, err
    s.close()
    lab.capture.take()
    err, took, s = connect("box", 0, (WEB4, 80))
    s.close()
    # Its first packet is lost, see containers-test.py.
    assert err in (errno.ECONNREFUSED, errno.EHOSTUNREACH) and took < 3, (err, took)
    assert not lab.capture.leaks()
    # A port that leads out: the bridge is guarded from then on.
    lab.ip("host", "route", "add", "198.51.100.0/24", "via", "172.17.0.2")
    assert int(driver("watch", 2000)) & 8
    driver("firewall", "open")
    assert "docker0" not in lab.ip("host", "route", "show", "table", "9095")
    err, _, s = connect("host", USER_UID, ("172.17.0.2", 80), seconds=0.3)
    s.close()
    assert err != 0
    lab.ip("host", "route", "del", "198.51.100.0/24")
    service.close()
    own.close()
    driver.down()
    driver("sysctl-restore", "net/ipv4/conf/eth0/rp_filter", "1", "2")
    lab.same(before)


main([precheck_changes_nothing, precheck_refusals, precheck_without_privileges,
      start_and_stop, dhcp_may_set_routes, others_sysctl_stays, strict_rp_filter, tap_is_ours_only,
      stale_packets, sockets_end, containers])
