"""A network namespace in the VM's place: what goes into the TAP comes out there.

    host torvm0 == pump of frames == eth1 10.10.10.1 namespace "vm"

As the guest does, it takes TCP to any address and DNS; it answers by itself:
TCP with "tor ADDRESS" of who asked and sends back what follows, DNS with
198.18.0.80 for any name.
"""

import ctypes
import fcntl
import os
import select
import socket
import struct
import threading

from netlab import inside, run, wait_until

TAP_MAC, VM_MAC = "52:54:00:12:34:03", "52:54:00:12:34:02"
TUNSETIFF, TUNGETVNETHDRSZ, TUNSETVNETHDRSZ = 0x400454CA, 0x800454D7, 0x400454D8
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 2, 0x1000, 0x4000
PIDFD_OPEN, PIDFD_GETFD = 434, 438
TRANS_PORT, DNS_PORT = 9095, 9093

RULES = """
table ip guest {
	chain nat {
		type nat hook prerouting priority dstnat
		iifname "eth1" tcp flags & (fin|syn|rst|ack) == syn redirect to :%d
		iifname "eth1" udp dport 53 redirect to :%d
	}
}
""" % (TRANS_PORT, DNS_PORT)

_libc = ctypes.CDLL(None, use_errno=True)


def _syscall(*args):
    value = _libc.syscall(*args)
    if value < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return value


class FakeVM:
    def __init__(self, lab, driver):
        self.lab = lab
        run("ip", "netns", "add", "vm")
        with inside("vm"):
            self.inner = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR
            fcntl.ioctl(self.inner, TUNSETIFF, struct.pack("16sH14x", b"eth1", flags))
        lab.ip("vm", "link", "set", "lo", "up")
        lab.ip("vm", "link", "set", "eth1", "address", VM_MAC, "mtu", "65520", "up")
        lab.ip("vm", "addr", "add", "10.10.10.1/30", "dev", "eth1")
        lab.ip("vm", "neigh", "replace", "10.10.10.2", "lladdr", TAP_MAC,
               "dev", "eth1", "nud", "permanent")
        # Only what the test wants to send past the host's NAT uses it.
        lab.ip("vm", "route", "add", "default", "via", "10.10.10.2")
        lab.exec("vm", "nft", "-f", "-", input=RULES)
        with inside("vm"):
            self.tcp = socket.socket()
            self.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.tcp.bind(("0.0.0.0", TRANS_PORT))
            self.tcp.listen(64)
            self.dns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.dns.bind(("0.0.0.0", DNS_PORT))
        self.outer = self._never = None
        self.rounds = 0
        self.connections = []
        self.attach(driver)
        for work in (self._pump, self._accept, self._answer_dns):
            threading.Thread(target=work, daemon=True).start()

    def attach(self, driver):
        """Takes the queue of the TAP that the driver holds now."""
        fd = int(driver("tap-open"))
        pidfd = _syscall(PIDFD_OPEN, driver.proc.pid, 0)
        mine = _syscall(PIDFD_GETFD, pidfd, fd, 0)
        os.close(pidfd)
        size = fcntl.ioctl(mine, TUNGETVNETHDRSZ, struct.pack("i", 0))
        fcntl.ioctl(self.inner, TUNSETVNETHDRSZ, size)
        if self.outer is None:
            self.outer = mine
        else:
            os.dup2(mine, self.outer)
            os.close(mine)

    def hang(self, driver):
        """Nothing goes in or out until attach(); nobody holds the TAP."""
        idle, self._never = os.pipe2(os.O_NONBLOCK)
        os.dup2(idle, self.outer)
        os.close(idle)
        # The pump may still wait for the old one.
        rounds = self.rounds
        wait_until("the pump", lambda: self.rounds > rounds + 1)
        driver("tap-close")

    def close_connections(self):
        """As the end of Tor does."""
        while self.connections:
            s = self.connections.pop()
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # ended before

    def _pump(self):
        while True:
            self._move(self.outer, self.inner)
            self._move(self.inner, self.outer)
            self.rounds += 1
            # A new queue in the old one's place wakes nobody.
            select.select([self.outer, self.inner], [], [], 0.05)

    @staticmethod
    def _move(source, sink):
        while True:
            try:
                os.write(sink, os.read(source, 1 << 17))
            except OSError:
                return  # empty, or the TAP is down

    def _accept(self):
        while True:
            s, peer = self.tcp.accept()
            self.connections.append(s)
            threading.Thread(target=self._serve, args=(s, peer), daemon=True).start()

    @staticmethod
    def _serve(s, peer):
        try:
            s.sendall(b"tor " + peer[0].encode() + b"\n")
            while True:
                data = s.recv(65536)
                if not data:
                    break
                s.sendall(data)
        except OSError:
            pass
        s.close()

    def _answer_dns(self):
        """Any question of type A: 198.18.0.80 (RFC 1035, 4.1)."""
        while True:
            query, peer = self.dns.recvfrom(4096)
            end = query.index(b"\0", 12) + 5
            answer = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04" + bytes((198, 18, 0, 80))
            self.dns.sendto(query[:2] + b"\x81\x80\0\x01\0\x01\0\0\0\0"
                            + query[12:end] + answer, peer)
