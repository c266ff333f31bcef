#!/usr/bin/env python3
"""Lockdown with the real programs: torvm, torvm-block, the broker.

What may leave in that mode, and what does, is leak-test.py's and flow-test.py's
subject; here it is how lockdown begins and ends. A third party beyond the
uplink counts every probe that gets out; that it sees them is shown before and
after.

Usage: lockdown-test.py BROKER STUB BLOCK TORVM [NAME...]
"""

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys

spec = importlib.util.spec_from_file_location(
    "broker_test", os.path.join(os.path.dirname(os.path.abspath(__file__)), "broker-test.py"))
b = importlib.util.module_from_spec(spec)
spec.loader.exec_module(b)

BROKER, STUB, BLOCK, TORVM = (os.path.abspath(path) for path in sys.argv[1:5])


class Test(b.Test):
    def __init__(self, broker, stub):
        super().__init__(broker, stub)
        for path in (BLOCK, TORVM):
            shutil.copy(path, os.path.join(self.c.top, "bin"))

    def torvm(self, *words, code=0):
        done = subprocess.run(
            [os.path.join(self.c.top, "bin", "torvm"), *words, "--runtime-dir", self.c.runtime],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        assert done.returncode == code, (words, done.returncode, done.stdout)
        return done.stdout

    def status(self, code=3):
        return json.loads(self.torvm("status", "--json", code=code))

    def locked(self):
        """Nothing leaves by itself, this machine's own connections work."""
        with self.no_leak():
            with socket.create_server(("127.0.0.1", 0)) as s:
                socket.create_connection(s.getsockname(), 1).close()
        status = self.status()
        assert (status["state"], status["blocked"], status["lockdown"], status["last_error"]) == \
            ("Stopped", True, True, None), status
        assert "is blocked (lockdown)" in self.torvm("status", code=3)
        self.torvm("lockdown", "status")

    def unlocked(self):
        status = self.status()
        assert (status["blocked"], status["lockdown"]) == (False, False), status
        self.torvm("lockdown", "status", code=3)
        assert not os.path.exists(self.c.runtime) or not os.listdir(self.c.runtime)
        self.restored()

    # --- the cases ---

    def test_on_and_off(self):
        """On twice, off twice; the network is then as it was found."""
        said = self.torvm("lockdown", "on", "--yes")
        assert "all traffic is blocked" in said and "default --runtime-dir" in said, said
        self.locked()
        with self.no_leak():
            self.torvm("lockdown", "on", "--yes")
            assert "Lockdown is on" in self.torvm("down")
        self.locked()
        assert "network is open" in self.torvm("lockdown", "off")
        self.unlocked()
        self.torvm("lockdown", "off")
        self.unlocked()

    def test_block_at_boot(self):
        """torvm-block needs nothing: no library, no file, no environment."""
        with open(BLOCK, "rb") as f:
            assert b"/lib64/ld-linux" not in f.read(), "not linked statically"
        root = os.path.join(self.c.top, "root")
        os.makedirs(os.path.join(root, "run"))
        shutil.copy(BLOCK, root)
        done = subprocess.run(["/usr/sbin/chroot", root, "/torvm-block"], check=False, env={})
        assert done.returncode == 0
        with self.no_leak():
            # What is in /run of this root is in the runtime directory's place.
            os.rename(os.path.join(root, "run", "torvm"), self.c.runtime)
        self.locked()
        self.torvm("lockdown", "off")
        self.unlocked()

    def test_start_and_stop_under_lockdown(self):
        """A controller begins and ends under it, and never opens."""
        self.torvm("lockdown", "on", "--yes")
        c = self.c
        with self.no_leak():
            c.start("--verbose")
            assert c.must("STATUS") == [0x40, 0]
            c.protect()
            assert c.must("STATUS")[0] == 0x6f
            assert "when TorVM ends" in self.torvm("lockdown", "on", "--yes")
            c.must("UNBLOCK")
            c.client.write("exit 0\n")
            c.client.flush()
            c.wait(0)
        self.locked()
        assert os.listdir(c.runtime) == ["lockdown"], os.listdir(c.runtime)
        # All of a controller's changes but the block are undone.
        self.torvm("lockdown", "off")
        self.unlocked()

    def test_start_elsewhere_under_lockdown(self):
        """Another runtime directory inherits it."""
        self.torvm("lockdown", "on", "--yes")
        c = self.c
        boot, c.runtime = c.runtime, c.runtime + "2"
        with self.no_leak():
            c.start()
            c.protect()
            c.must("UNBLOCK")
            c.client.write("exit 0\n")
            c.client.flush()
            c.wait(0)
        self.locked()
        shutil.rmtree(boot)
        self.torvm("lockdown", "off")
        self.unlocked()

    def test_failed_start_under_lockdown(self):
        """It ends as it began."""
        self.torvm("lockdown", "on", "--yes")
        with self.no_leak():
            self.c.start()
            self.c.must("PRECHECK")
            self.c.client.write("exit 5\n")
            self.c.client.flush()
            self.c.wait(5)
        self.locked()
        self.torvm("lockdown", "off")
        self.unlocked()

    def test_killed_under_lockdown(self):
        """A dead controller is told from lockdown, and lockdown outlives it."""
        self.torvm("lockdown", "on", "--yes")
        c = self.c
        with self.no_leak():
            c.start()
            c.protect()
            c.process.kill()
            c.process.wait()
            status = self.status()
            assert status["blocked"] and status["lockdown"] and status["last_error"], status
            assert "recover" in self.torvm("lockdown", "off", code=8)
            self.torvm("lockdown", "on", "--yes")
            c.start()
            c.protect()
            c.process.terminate()
            c.await_event("STOP")
            c.client.write("exit 0\n")
            c.client.flush()
            c.wait(0)
        self.locked()
        said = self.torvm("recover")
        assert "lockdown off" in said and "network is open" in said, said
        self.unlocked()

    def test_off_while_running(self):
        """Turned off meanwhile, the stop opens the network."""
        self.torvm("lockdown", "on", "--yes")
        c = self.c
        with self.no_leak():
            c.start()
            c.protect()
            assert "when TorVM ends" in self.torvm("lockdown", "off")
        c.stop()
        self.unlocked()

    def test_on_while_running(self):
        """Turned on meanwhile, the stop ends in lockdown."""
        c = self.c
        c.start()
        c.protect()
        with self.no_leak():
            self.torvm("lockdown", "on", "--yes")
            c.must("UNBLOCK")
            c.client.write("exit 0\n")
            c.client.flush()
            c.wait(0)
        self.locked()
        assert "lockdown off" in self.torvm("recover")
        self.unlocked()

    def _selftest(self, code):
        report = json.loads(self.torvm("selftest", "--json", code=code))
        results = {(p["probe"], p["link"]): p["result"] for p in report["probes"]}
        assert len(results) == len(report["probes"]) > 30
        assert [link["name"] for link in report["links"]] == ["up0"]
        return report, results

    def test_selftest(self):
        """It sees what gets out, and does not claim what it cannot see."""
        report, results = self._selftest(3)
        assert (report["expected"], report["verdict"]) == ("open", "open"), report
        for (name, link), result in results.items():
            # There is no way to IPv6 here but by the link's own addresses.
            assert result == "SENT" or ("IPv6" in name and name != "mDNS, IPv6"), (name, link)
        self.torvm("lockdown", "on", "--yes")
        report, results = self._selftest(0)
        assert (report["expected"], report["verdict"]) == ("blocked", "blocked"), report
        assert set(results.values()) == {"refused"}, report
        # A link on which even what is allowed is not seen proves nothing.
        b.run("nft", "add table netdev t; add chain netdev t c { type filter hook egress "
              "device up0 priority -10; policy drop; }")
        report, _ = self._selftest(1)
        assert (report["verdict"], report["links"][0]["watched"]) == ("unproven", False), report
        b.run("nft", "delete table netdev t")
        # Without the egress chains a packet socket is all that gets out.
        b.run("nft", "delete table netdev torvm")
        report, results = self._selftest(1)
        assert report["verdict"] == "leaking", report
        assert [k for k, v in results.items() if v == "SENT"] == [("packet socket", "up0")], report
        self.torvm("lockdown", "on", "--yes")
        self._selftest(0)
        self.torvm("lockdown", "off")
        self.unlocked()

    def test_selftest_with_lan_access(self):
        """What LAN access opens is no leak, however large the LAN is."""
        for lan in ("10.1.2.3/8", "172.16.0.1/12", "192.168.0.1/16", "169.254.0.1/16"):
            b.run("ip", "addr", "add", lan, "dev", "up0")
        # Somebody has the address, whichever is tried.
        for last in range(255):
            b.run("ip", "neigh", "replace", f"10.255.255.{last}", "lladdr",
                  "02:00:00:00:00:01", "nud", "permanent", "dev", "up0")
        c = self.c
        c.start()
        with open(os.path.join(c.state, "lan_access"), "w", encoding="ascii"):
            pass
        c.protect()
        # The stub answers no client of torvm's; its block stays.
        c.process.kill()
        c.process.wait()
        seen = self.outside.seen()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.sendto(b"probe", ("10.255.255.9", b.PROBE[1]))
        b.wait_for("the LAN to be reached", lambda: self.outside.seen() > seen)
        report, results = self._selftest(0)
        assert (report["expected"], report["verdict"]) == ("blocked", "blocked"), report
        assert results.pop(("TCP, IPv4", None)) == "into TorVM", report
        assert set(results.values()) == {"refused"}, report


if __name__ == "__main__":
    sys.exit(b.main(Test, BROKER, STUB, *sys.argv[5:]))
