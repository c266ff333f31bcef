#!/usr/bin/env python3
"""Run torvmd with a scripted broker, QEMU, guest and Tor in one process.

Nothing privileged and no network: the broker is a socketpair whose requests
the test answers, QEMU's channels are Unix sockets that the test listens on.
"""

import fcntl
import hashlib
import json
import os
import re
import select
import shutil
import signal
import socket
import stat
import struct
import sys
import tempfile
import time
import unittest

TORVMD = os.path.abspath(sys.argv.pop(1))
TEST_ENGINE = os.path.abspath(sys.argv.pop(1))  # src/daemon/test-engine.c
TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
with open(os.path.join(TOP, "meson.build"), encoding="utf-8") as file:
    VERSION = re.search(r"^  version: '(.+)',$", file.read(), re.M).group(1)
DEADLINE_S = 20
MAGIC = 0x74766D31
REPLY, EVENT_VM_EXITED, EVENT_STOP, EVENT_TAP_LOST = 64, 96, 97, 98
REQUESTS = ["NONE", "PRECHECK", "BLOCK", "CREATE_TAP", "START_VM",
            "CONFIGURE_TAP", "REFUSE_TAP", "SET_DNS", "RESTORE_DNS", "KILL_VM",
            "DELETE_TAP", "UNBLOCK", "STATUS", "NOTIFY", "RENEW_UPLINK",
            "SET_UPLINK"]
UP_FIREWALL, UP_TAP, UP_VM = 1, 4, 32
ANY_TCP, ANY_TCP6 = 1, 4  # BROKER_UPLINK_ANY_*
MESSAGE = struct.Struct("<IIIi2096s480s")
BOOTSTRAPPED = ('NOTICE BOOTSTRAP PROGRESS=100 TAG=done SUMMARY="Done"')
STAGES = ["mounts", "modules", "config", "firewall", "network", "state-disk",
          "clock", "lockdown", "tor-start", "ready"]


def wait_for(what, seconds=DEADLINE_S):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = what()
        if value:
            return value
        time.sleep(0.005)
    raise AssertionError(f"not within {seconds} s: {what}")


def interface():
    """An interface to stand for the TAP: only its address is read."""
    for _, name in socket.if_nameindex():
        if name != "lo" and name[0].isalpha():
            return name
    raise unittest.SkipTest("needs any network interface besides lo")


class Lines:
    """One connection of a channel, read line by line (or NUL by NUL)."""

    def __init__(self, sock, end=b"\n"):
        self.sock, self.end, self.buffer = sock, end, b""
        sock.settimeout(DEADLINE_S)

    def read(self):
        while self.end not in self.buffer:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(self.end)
        return line.decode().rstrip("\r")

    def expect(self, start):
        while True:
            line = self.read()
            if line.startswith(start):
                return line

    def write(self, *lines):
        self.sock.sendall(b"".join(l.encode() + self.end for l in lines))


class Client(Lines):
    def __init__(self, path):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        super().__init__(sock, b"\0")

    def send(self, method, more=False, **parameters):
        self.write(json.dumps({"method": method, "parameters": parameters,
                               "more": more}))

    def reply(self):
        return json.loads(self.read())

    def call(self, method, **parameters):
        self.send(method, **parameters)
        return self.reply()

    def status(self):
        return self.call("org.torvm.Controller.GetStatus")[
            "parameters"]["status"]


class Engine:
    def __init__(self, args=(), config=None, up=0, vm_pid=0, program=TORVMD):
        self.program = program
        self.dir = tempfile.mkdtemp(prefix="torvmd-test.")
        self.up, self.vm_pid, self.answers = up, vm_pid, {}
        self.last, self.vm_fds, self.accepted = None, [], []
        for name in ("vm", "state", "image"):
            os.mkdir(f"{self.dir}/{name}")
        self.make_image()
        self.listeners = {n: self.listen(f"vm/{n}.sock")
                          for n in ("qmp", "torctl", "agent", "console")}
        self.control_path = f"{self.dir}/control.sock"
        control = self.listen("control.sock")
        self.broker, theirs = socket.socketpair(socket.AF_UNIX,
                                                socket.SOCK_SEQPACKET)
        self.broker.settimeout(DEADLINE_S)
        theirs.setblocking(False)
        self.write_config(config)
        self.start(args, [theirs.fileno(), control.fileno(),
                          os.open(f"{self.dir}/torvm.json", os.O_RDONLY),
                          os.open(f"{self.dir}/image", os.O_PATH),
                          os.open(f"{self.dir}/state", os.O_PATH),
                          os.open(f"{self.dir}/vm", os.O_PATH)])
        theirs.close()
        control.close()

    def listen(self, name):
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(f"{self.dir}/{name}")
        sock.listen(16)
        sock.settimeout(DEADLINE_S)
        return sock

    def make_image(self):
        outputs = {}
        for key, name in (("kernel", "vmlinuz"),
                          ("initramfs", "initramfs.gz"),
                          ("state", "state.img"),
                          ("transports", "transports.zst")):
            data = key.encode() * 2048
            with open(f"{self.dir}/image/{name}", "wb") as f:
                f.write(data)
            outputs[key] = {"file": name, "size": len(data),
                            "sha256": hashlib.sha256(data).hexdigest()}
        arch = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
        with open(f"{self.dir}/image/manifest.json", "w",
                  encoding="utf-8") as f:
            json.dump({"schema": 1, "arch": arch, "outputs": outputs}, f)

    def write_config(self, config):
        whole = {"vm": {"qemu_path": os.path.realpath("/bin/true")},
                 "network": {"tap_name": interface()},
                 "failsafe": {"shutdown_timeout_s": 1}}
        for section, keys in (config or {}).items():
            whole.setdefault(section, {}).update(keys)
        with open(f"{self.dir}/torvm.json", "w", encoding="utf-8") as f:
            json.dump(whole, f)
        os.chmod(f"{self.dir}/torvm.json", 0o600)

    def start(self, args, fds):
        self.stderr = open(f"{self.dir}/stderr", "w+b")
        # Out of the way first: 3 to 8 may be in use.
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100) for fd in fds]
        actions = [(os.POSIX_SPAWN_DUP2, fd, 3 + i)
                   for i, fd in enumerate(high)]
        actions.append((os.POSIX_SPAWN_DUP2, self.stderr.fileno(), 2))
        argv = [self.program, "--release", VERSION, "--config", "torvm.json", "--accel", "tcg",
                "--runtime-dir", self.dir, "--state-dir", f"{self.dir}/state",
                "--image-dir", f"{self.dir}/image", "--image-dir-fixed",
                "--verbose", *args]
        self.pid = os.posix_spawn(self.program, argv, dict(os.environ),
                                  file_actions=actions)
        for fd in high + fds[2:]:
            os.close(fd)

    def log(self):
        with open(f"{self.dir}/stderr", encoding="utf-8") as f:
            return f.read()

    def wait(self):
        def ended():
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            return (status,) if pid else None
        status = wait_for(ended)[0]
        self.pid = None
        if not os.WIFEXITED(status):
            raise AssertionError(f"torvmd ended with {status}: {self.log()}")
        return os.WEXITSTATUS(status)

    def close(self, keep=False):
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        if keep:
            print(self.log(), file=sys.stderr)
        self.broker.close()
        self.stderr.close()
        self.close_vm_fds()
        for sock in [*self.listeners.values(), *self.accepted]:
            sock.close()
        shutil.rmtree(self.dir)

    # The broker's end.

    def receive(self):
        data, fds, _, _ = socket.recv_fds(self.broker, MESSAGE.size, 16)
        if not data:
            raise EOFError
        magic, kind, serial, _, union, text = MESSAGE.unpack(data)
        assert magic == MAGIC
        return REQUESTS[kind], serial, union, text.rstrip(b"\0"), list(fds)

    def reply(self, serial, status=0, union=b"", text="", fds=()):
        socket.send_fds(self.broker, [MESSAGE.pack(
            MAGIC, REPLY, serial, status, union, text.encode())], list(fds))

    def event(self, kind, union=b"", text=""):
        self.broker.send(MESSAGE.pack(MAGIC, kind, 0, 0, union,
                                      text.encode()))

    def answer(self, name, serial, union=b"", status=0, text=""):
        if name == "START_VM" and status == 0:
            pidfd = os.open("/dev/null", os.O_RDONLY)
            self.reply(serial, 0, struct.pack("<iIQ", 4711, 0, 99),
                       fds=[pidfd])
            os.close(pidfd)
            return
        if name == "STATUS":
            union = struct.pack("<IiQ", self.up, self.vm_pid, 42)
        self.reply(serial, status, union, text)

    def expect(self, *names, status=0, text=""):
        """Wait for these requests in this order and answer each."""
        for name in names:
            while True:
                got, serial, union, said, fds = self.receive()
                if got in ("STATUS", "NOTIFY") and name != got:
                    self.answer(got, serial)
                    continue
                break
            if got != name:
                raise AssertionError(f"{got} instead of {name}\n{self.log()}")
            self.last = (union, said, fds)
            if name != "START_VM":
                for fd in fds:
                    os.close(fd)
            self.answer(name, serial, status=status, text=text)

    def quiet(self, seconds):
        """Nothing but STATUS is asked meanwhile."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if not select.select([self.broker], [], [], 0.05)[0]:
                continue
            got, serial, _, _, _ = self.receive()
            if got not in ("STATUS", "NOTIFY"):
                raise AssertionError(f"unexpected {got}")
            self.answer(got, serial)

    # QEMU's and the guest's end.

    def qmp_expect(self, command):
        while json.loads(self.qmp.read())["execute"] != command:
            pass

    def accept(self, name):
        while True:
            sock, _ = self.listeners[name].accept()
            poll = select.poll()
            poll.register(sock, select.POLLRDHUP)
            if not poll.poll(0):
                self.accepted.append(sock)
                return Lines(sock)
            # Of a VM that ended before its QEMU accepted.
            sock.close()

    def qmp_greets(self):
        self.qmp = self.accept("qmp")
        self.qmp.write('{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0,'
                       ' "major": 10}, "package": ""}, "capabilities": []}}')
        command = json.loads(self.qmp.read())
        assert command["execute"] == "qmp_capabilities"
        self.qmp.write(json.dumps({"return": {}, "id": command.get("id")}))

    def guest_boots(self, last="ready"):
        self.agent = self.accept("agent")
        self.agent.write("hello 1 10")
        self.agent.expect("time ")
        for i, stage in enumerate(STAGES):
            self.agent.write(f"stage {20 + i} {stage}")
            if stage == "state-disk":
                self.agent.write("state-disk 25 ok")
            if stage == last:
                break

    def tor_answers(self, phase=BOOTSTRAPPED):
        self.tor = self.accept("torctl")
        self.tor.expect("AUTHENTICATE")
        self.tor.write("250 OK\r")
        self.tor.expect("SETEVENTS")
        self.tor.write("250 OK\r")
        self.tor.expect("GETINFO")
        self.tor.write("250-version=0.4.9.11\r",
                       f"250-status/bootstrap-phase={phase}\r",
                       "250-status/circuit-established=1\r", "250 OK\r")

    def vm_starts(self):
        self.expect("START_VM")
        self.vm_fds = self.last[2]
        self.qmp_greets()
        self.guest_boots()

    def close_vm_fds(self):
        for fd in self.vm_fds:
            os.close(fd)
        self.vm_fds = []

    def vm_exits(self, status=0):
        self.close_vm_fds()
        self.event(EVENT_VM_EXITED, struct.pack("<i", status))

    def to_start_vm(self):
        self.expect("STATUS", "PRECHECK", "BLOCK", "CREATE_TAP")

    def to_running(self):
        self.to_start_vm()
        self.vm_starts()
        self.expect("CONFIGURE_TAP", "SET_DNS")
        self.tor_answers()
        self.expect("NOTIFY")

    def client(self):
        client = Client(self.control_path)
        self.accepted.append(client.sock)
        return client


class TorvmdTest(unittest.TestCase):
    def engine(self, *args, **kwargs):
        e = Engine(args, **kwargs)
        self.addCleanup(lambda: e.close(keep=self.failing()))
        return e

    def failing(self):
        outcome = getattr(self, "_outcome", None)
        return bool(outcome and not outcome.success)

    def finish(self, e, code=0):
        """From Shutdown, with the VM already told to stop, to the end."""
        e.expect("DELETE_TAP", "RESTORE_DNS", "UNBLOCK")
        self.assertEqual(e.wait(), code, e.log())

    def test_start_and_stop_in_order(self):
        e = self.engine()
        e.to_running()
        self.assertEqual(len(e.vm_fds), 7)
        argv = os.pread(e.vm_fds[0], 16384, 0).split(b"\0")
        self.assertEqual(argv[0].decode(), os.path.realpath("/bin/true"))
        torrc = os.pread(e.vm_fds[6], 65536, 0).decode()
        self.assertIn("TransPort", torrc)
        guest = os.pread(e.vm_fds[5], 65536, 0).decode()
        self.assertIn("host_ip=10.10.10.2\n", guest)

        status = e.client().status()
        self.assertEqual(status["state"], "Running")
        self.assertTrue(status["blocked"])
        self.assertEqual(status["bootstrap"]["percent"], 100)
        self.assertEqual(status["tor"], {"version": "0.4.9.11",
                                         "circuit_established": True})
        self.assertEqual(status["vm"]["pid"], 4711)
        self.assertEqual(status["accel"], "tcg")
        self.assertIn("guest.ready", status["stages"])
        self.assertNotIn("last_error", status)

        e.event(EVENT_STOP)
        e.expect("REFUSE_TAP")
        e.qmp_expect("system_powerdown")
        e.agent.expect("poweroff")
        e.agent.write("tor-exit 900 exit 0 1")
        e.quiet(0.1)
        e.vm_exits()
        self.finish(e)
        self.assertNotIn("Tor ended", e.log())
        self.assertIn("network is as it was found", e.log())

    def test_failed_check_changes_nothing(self):
        e = self.engine()
        e.expect("STATUS")
        e.expect("PRECHECK", status=-16, text="torvm0 exists")
        self.assertEqual(e.wait(), 5)
        self.assertIn("torvm0 exists. Nothing was changed.", e.log())

    def test_damaged_image_changes_nothing(self):
        original = Engine.make_image

        def damaged(engine):
            original(engine)
            with open(f"{engine.dir}/image/vmlinuz", "r+b") as f:
                f.write(b"X")
        Engine.make_image = damaged
        try:
            e = self.engine()
        finally:
            Engine.make_image = original
        e.expect("STATUS")
        self.assertEqual(e.wait(), 5)
        self.assertIn("damaged", e.log())

    def test_another_versions_broker_is_refused(self):
        e = self.engine("--release", "0.0.0")
        self.assertEqual(e.wait(), 5)
        for word in ("torvm-broker of version 0.0.0", VERSION, "Nothing was changed"):
            self.assertIn(word, e.log())

    def test_bad_configuration_is_refused(self):
        e = self.engine(config={"vm": {"colour": "red"}})
        self.assertEqual(e.wait(), 4)
        self.assertIn("colour", e.log())

    def test_a_bridge_that_cannot_be_reached_is_refused(self):
        e = self.engine(config={"bridge": {
            "use_bridges": True, "bridges": ["[fe80::1]:443"]}})
        self.assertEqual(e.wait(), 4)
        self.assertIn("bridge.bridges", e.log())
        self.assertIn("link-local", e.log())

    def test_failed_block_is_taken_back(self):
        e = self.engine()
        e.expect("STATUS", "PRECHECK")
        e.expect("BLOCK", status=-95, text="no nftables")
        e.expect("UNBLOCK")
        self.assertEqual(e.wait(), 1)

    def test_failures_after_the_block_stay_blocked(self):
        for step in ("CREATE_TAP", "START_VM", "CONFIGURE_TAP", "SET_DNS"):
            with self.subTest(step):
                e = Engine()
                try:
                    self.fail_at(e, step)
                finally:
                    e.close()

    def fail_at(self, e, step):
        e.expect("STATUS", "PRECHECK", "BLOCK")
        if step == "CREATE_TAP":
            e.expect(step, status=-5, text="broken")
            e.expect("CREATE_TAP")
            e.vm_starts()
        elif step == "START_VM":
            e.expect("CREATE_TAP")
            e.expect(step, status=-5, text="broken")
            e.expect("REFUSE_TAP", "KILL_VM")
            e.vm_starts()
        elif step == "CONFIGURE_TAP":
            e.expect("CREATE_TAP")
            e.vm_starts()
            e.expect(step, status=-5, text="broken")
            e.expect("REFUSE_TAP")
        else:
            e.expect("CREATE_TAP")
            e.vm_starts()
            e.expect("CONFIGURE_TAP")
            e.expect(step, status=-5, text="broken")
            e.expect("REFUSE_TAP")
        e.expect("CONFIGURE_TAP", "SET_DNS")
        e.tor_answers()
        e.expect("NOTIFY")
        status = e.client().status()
        self.assertEqual(status["state"], "Running")
        self.assertIn("broken", status["last_error"])

    def test_killed_vm_is_started_again(self):
        e = self.engine()
        e.to_running()
        e.vm_exits(9)
        e.expect("REFUSE_TAP")
        status = e.client().status()
        self.assertEqual(status["state"], "Blocked")
        self.assertTrue(status["blocked"])
        self.assertIn("killed by signal 9", status["last_error"])
        self.assertEqual(status["bootstrap"]["percent"], 0)
        self.assertEqual(status["vm"], {})
        e.vm_starts()
        e.expect("CONFIGURE_TAP", "SET_DNS")
        e.tor_answers()
        e.expect("NOTIFY")

    def test_lost_tap_is_made_again(self):
        e = self.engine()
        e.to_running()
        e.event(EVENT_TAP_LOST)
        e.expect("REFUSE_TAP", "KILL_VM", "CREATE_TAP")
        e.vm_starts()
        e.expect("CONFIGURE_TAP")

    def test_late_exit_event_of_a_killed_vm_is_dropped(self):
        e = self.engine()
        e.to_running()
        e.event(EVENT_TAP_LOST)
        e.expect("REFUSE_TAP")
        got, serial, _, _, _ = e.receive()
        while got in ("STATUS", "NOTIFY"):
            e.answer(got, serial)
            got, serial, _, _, _ = e.receive()
        self.assertEqual(got, "KILL_VM")
        e.vm_exits(9)
        e.answer(got, serial)
        e.expect("CREATE_TAP")
        e.vm_starts()
        e.expect("CONFIGURE_TAP", "SET_DNS")

    def test_stop_ladder_ends_a_vm_that_does_not_power_off(self):
        e = self.engine()
        e.to_running()
        e.event(EVENT_STOP)
        e.expect("REFUSE_TAP")
        e.qmp_expect("system_powerdown")
        e.qmp_expect("quit")
        e.expect("KILL_VM")
        self.finish(e)

    def test_stop_in_every_state(self):
        for state in ("SaveNetwork", "CreateTAP", "LaunchVM", "WaitTAP",
                      "ConfigureTAP", "WaitBootstrap", "Blocked"):
            with self.subTest(state):
                e = Engine()
                try:
                    self.stop_in(e, state)
                finally:
                    e.close()

    def stop_in(self, e, state):
        e.expect("STATUS", "PRECHECK")
        if state in ("SaveNetwork", "CreateTAP", "LaunchVM"):
            step = {"SaveNetwork": "BLOCK", "CreateTAP": "CREATE_TAP",
                    "LaunchVM": "START_VM"}[state]
            for name in ("BLOCK", "CREATE_TAP", "START_VM"):
                if name == step:
                    break
                e.expect(name)
            got, serial, _, _, _ = e.receive()
            self.assertEqual(got, step)
            e.event(EVENT_STOP)
            # The engine must have taken it in before the answer comes.
            wait_for(lambda: "Shutdown" in e.log())
            e.answer(got, serial)
            if state != "SaveNetwork":
                e.expect("REFUSE_TAP")
            if state == "LaunchVM":
                e.expect("KILL_VM")
            self.finish(e)
            return
        e.expect("BLOCK", "CREATE_TAP", "START_VM")
        e.vm_fds = e.last[2]
        if state == "Blocked":
            e.vm_exits(256)
            e.expect("REFUSE_TAP")
            e.event(EVENT_STOP)
            e.expect("REFUSE_TAP")
            self.finish(e)
            return
        e.qmp_greets()
        if state != "WaitTAP":
            e.guest_boots()
            e.expect("CONFIGURE_TAP")
        if state == "WaitBootstrap":
            e.expect("SET_DNS")
        wait_for(lambda: state in e.log())
        if state == "ConfigureTAP":
            e.expect("SET_DNS")
        e.event(EVENT_STOP)
        e.expect("REFUSE_TAP")
        e.qmp_expect("quit" if state == "WaitTAP" else "system_powerdown")
        e.vm_exits()
        self.finish(e)

    def uplink_and_argv(self, config):
        """What START_VM says of whom the uplink may reach, and of QEMU's."""
        e = self.engine(config=config)
        e.to_start_vm()
        e.expect("START_VM")
        union, _, fds = e.last
        _, any_of, n_peers = struct.unpack_from("<III", union)
        peers = [struct.unpack_from("<16sHBB", union, 12 + 20 * i) for i in range(n_peers)]
        with open(fds[0], "rb", closefd=False) as f:
            f.seek(0)
            argv = f.read().split(b"\0")
        e.vm_fds = fds
        e.vm_exits()
        e.expect("REFUSE_TAP")
        e.event(EVENT_STOP)
        e.expect("REFUSE_TAP")
        self.finish(e)
        return any_of, peers, next(a for a in argv if a.startswith(b"user,id=uplink"))

    def test_ipv6_is_opened_only_where_it_is_asked_for(self):
        any_of, peers, netdev = self.uplink_and_argv({})
        self.assertEqual((any_of, peers), (ANY_TCP, []))
        self.assertIn(b",ipv6=off", netdev)
        any_of, peers, netdev = self.uplink_and_argv({"tor": {"client_use_ipv6": True}})
        self.assertEqual((any_of, peers), (ANY_TCP | ANY_TCP6, []))
        self.assertIn(b",ipv6=on,", netdev)
        any_of, peers, netdev = self.uplink_and_argv({"bridge": {
            "use_bridges": True, "bridges": ["[2001:db8::1]:443"]}})
        address = socket.inet_pton(socket.AF_INET6, "2001:db8::1")
        self.assertEqual((any_of, peers), (0, [(address, 443, socket.IPPROTO_TCP, 0)]))
        self.assertIn(b",ipv6=on,", netdev)

    def test_unusable_state_disk_is_replaced_at_once(self):
        e = self.engine()
        e.to_start_vm()
        e.expect("START_VM")
        e.vm_fds = e.last[2]
        with open(f"{e.dir}/state/state.img", "r+b") as f:
            f.write(b"mine")
        e.qmp_greets()
        e.guest_boots("network")
        e.expect("CONFIGURE_TAP", "SET_DNS")
        e.agent.write("state-disk 30 unusable bad superblock")
        wait_for(lambda: "bad superblock" in e.log())
        e.vm_exits()
        e.expect("REFUSE_TAP")
        e.vm_starts()
        with open(f"{e.dir}/state/state.img.bad", "rb") as f:
            self.assertEqual(f.read(4), b"mine")
        with open(f"{e.dir}/state/state.img", "rb") as f:
            self.assertNotEqual(f.read(4), b"mine")
        e.expect("CONFIGURE_TAP", "SET_DNS")

    def test_tor_exit_blocks_until_it_is_connected_again(self):
        e = self.engine()
        e.to_running()
        e.agent.write("tor-exit 900 signal 11 1")
        e.expect("REFUSE_TAP")
        self.assertEqual(e.client().status()["state"], "Blocked")
        e.agent.write("stage 950 tor-start", "stage 990 ready")
        e.tor_answers('NOTICE BOOTSTRAP PROGRESS=10 TAG=conn_done '
                      'SUMMARY="Connected to a relay"')
        e.quiet(0.2)
        e.tor.write("650 STATUS_CLIENT " + BOOTSTRAPPED + "\r")
        e.expect("CONFIGURE_TAP", "SET_DNS", "NOTIFY")

    def test_clock_skew_names_the_command(self):
        e = self.engine()
        e.to_running()
        e.tor.write('650 STATUS_GENERAL WARN CLOCK_SKEW SKEW=-86400 '
                    'SOURCE=CONSENSUS\r')
        wait_for(lambda: "timedatectl" in
                 e.client().status().get("last_error", ""))

    def test_stuck_tor_says_why_and_keeps_trying(self):
        e = self.engine()
        e.to_start_vm()
        e.vm_starts()
        e.expect("CONFIGURE_TAP", "SET_DNS")
        e.tor_answers('NOTICE BOOTSTRAP PROGRESS=5 TAG=conn '
                      'SUMMARY="Connecting to a relay"')
        e.tor.write('650 STATUS_CLIENT WARN BOOTSTRAP PROGRESS=5 TAG=conn '
                    'SUMMARY="Connecting to a relay" WARNING="No route to '
                    'host" REASON=NOROUTE COUNT=5 RECOMMENDATION=warn\r')
        error = wait_for(lambda: e.client().status().get("last_error"))
        self.assertIn("No route to host", error)
        self.assertIn("cable", error)
        obstacle = e.client().status()["obstacle"]
        self.assertEqual(obstacle["kind"], "no-route")
        self.assertIn("cable", obstacle["text"])
        self.assertIn("doctor --connection", obstacle["next"])
        e.quiet(0.2)
        self.assertEqual(e.client().status()["state"], "WaitBootstrap")
        e.tor.write("650 STATUS_CLIENT " + BOOTSTRAPPED + "\r")
        e.expect("NOTIFY")
        self.assertNotIn("last_error", e.client().status())
        self.assertNotIn("obstacle", e.client().status())

    def test_refused_password_is_named_at_once(self):
        e = self.engine()
        e.to_start_vm()
        e.vm_starts()
        e.expect("CONFIGURE_TAP", "SET_DNS")
        e.tor_answers('NOTICE BOOTSTRAP PROGRESS=4 TAG=conn_done_proxy '
                      'SUMMARY="Connected to proxy"')
        wait_for(lambda: e.client().status()["bootstrap"]["percent"] == 4)
        e.agent.write('tor 2000 Nov 24 14:00:00.000 [warn] The https proxy sent '
                      'back an unexpected status code 407 ("Proxy Authentication '
                      'Required"). Closing.')
        error = wait_for(lambda: e.client().status().get("last_error"))
        self.assertIn("password", error)
        obstacle = e.client().status()["obstacle"]
        self.assertEqual(obstacle["kind"], "proxy-login")
        self.assertIn("proxy.password", obstacle["next"])
        e.tor.write("650 STATUS_CLIENT " + BOOTSTRAPPED + "\r")
        e.expect("NOTIFY")
        self.assertNotIn("last_error", e.client().status())

    def test_refused_certificate_of_the_proxy_is_named(self):
        e = self.engine(config={"proxy": {"type": "https",
                                          "address": "192.0.2.1:443"}})
        e.to_start_vm()
        e.vm_starts()
        e.expect("CONFIGURE_TAP", "SET_DNS")
        # Said before Tor answers for the first time, and kept.
        e.agent.write("tls 1900 CERT: Subject checks failed")
        e.agent.write("tls 1901 SSL_connect: certificate verify failed")
        e.tor_answers('NOTICE BOOTSTRAP PROGRESS=3 TAG=conn_proxy '
                      'SUMMARY="Connecting to a proxy"')
        error = wait_for(lambda: e.client().status().get("last_error"))
        self.assertIn("another name", error)
        obstacle = e.client().status()["obstacle"]
        self.assertEqual(obstacle["kind"], "proxy-name")
        self.assertIn("proxy.address", obstacle["next"])
        # The end of the TLS client is Tor's end, and told once.
        e.agent.write("tls-exit 3000 signal 9 1")
        e.agent.write("tor-exit 3001 signal 9 1")
        error = wait_for(lambda: "TLS client" in e.client().status()["last_error"]
                         and e.client().status()["last_error"])
        self.assertIn("signal 9", error)
        self.assertIn("blocked", error)

    def torrc_of_vm(self, e):
        """The torrc of the VM that is being started."""
        for fd in e.vm_fds:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                continue
            text = os.pread(fd, 1 << 16, 0)
            if text.startswith(b"ClientOnly"):
                return text.decode()
        self.fail("no torrc")

    def test_automatic_mode_tries_the_next_way_in(self):
        e = self.engine(config={"bridge": {"automatic": True},
                                "failsafe": {"bootstrap_stall_s": 10}})
        e.broker.settimeout(90)  # the stall is part of it
        e.to_start_vm()
        e.vm_starts()
        self.assertNotIn("UseBridges", self.torrc_of_vm(e))
        e.expect("CONFIGURE_TAP", "SET_DNS")
        e.tor_answers('NOTICE BOOTSTRAP PROGRESS=5 TAG=conn SUMMARY="Connecting"')
        e.tor.write('650 STATUS_CLIENT WARN BOOTSTRAP PROGRESS=5 TAG=conn '
                    'SUMMARY="Connecting" WARNING="x" REASON=CONNECTREFUSED COUNT=5 '
                    'RECOMMENDATION=ignore\r')
        e.expect("REFUSE_TAP", "KILL_VM")
        e.close_vm_fds()
        status = e.client().status()
        self.assertEqual(status["state"], "Blocked")
        self.assertEqual(status["entry"], "obfs4")
        self.assertEqual(status["tried"], ["direct: refused"])
        e.vm_starts()
        torrc = self.torrc_of_vm(e)
        self.assertIn("UseBridges 1\nBridge obfs4 ", torrc)
        e.expect("CONFIGURE_TAP", "SET_DNS")
        e.tor_answers()
        e.expect("NOTIFY")
        wait_for(lambda: "bridges use obfs4" in e.log())
        with open(f"{e.dir}/vm/entry", encoding="ascii") as f:
            self.assertEqual(f.read(), "obfs4")

    def guest_of_vm(self, e):
        """opt/torvm/config of the VM that is being started."""
        for fd in e.vm_fds:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                continue
            text = os.pread(fd, 1 << 16, 0)
            if text.startswith(b"version="):
                return text.decode()
        self.fail("no configuration")

    MOAT = "org.torvm.Controller.OpenMoat"
    NO_MOAT = "org.torvm.Controller.MoatNotPossible"

    def opens_moat(self, e):
        """OpenMoat, up to the address; returns the client."""
        c = e.client()
        c.send(self.MOAT, more=True)
        self.assertEqual(c.reply(), {"parameters": {}, "continues": True})
        e.expect("REFUSE_TAP", "KILL_VM")
        e.close_vm_fds()
        e.vm_starts()
        e.expect("CONFIGURE_TAP", "SET_DNS")
        self.assertEqual(c.reply()["parameters"], {"address": "10.10.10.1:9097"})
        return c

    def to_stuck(self, **bridge):
        # Of the transport's names none has to be looked up.
        e = self.engine(config={"bridge": {
            "moat": "url=https://moat.example/ front=front.example",
            "addresses": ["front.example=192.0.2.9"], **bridge}})
        e.to_start_vm()
        e.vm_starts()
        e.expect("CONFIGURE_TAP", "SET_DNS")
        e.tor_answers('NOTICE BOOTSTRAP PROGRESS=5 TAG=conn SUMMARY="Connecting"')
        return e

    def test_the_bridge_service_is_led_to_without_tor(self):
        e = self.to_stuck()
        c = self.opens_moat(e)
        guest = self.guest_of_vm(e)
        self.assertIn("uplink=none\npeer=tcp 192.0.2.9 443\n", guest)
        self.assertIn("moat=url=https://moat.example/;front=front.example\n", guest)
        with open(f"{e.dir}/vm/entry", encoding="ascii") as f:
            self.assertEqual(f.read(), "moat")
        other = e.client()
        other.send(self.MOAT, more=True)
        reply = other.reply()
        self.assertEqual(reply["error"], self.NO_MOAT)
        self.assertIn("another", reply["parameters"]["reason"])
        status = other.status()
        self.assertEqual((status["state"], status["entry"]), ("WaitBootstrap", "moat"))
        self.assertEqual(status["uplink"]["transport"], "meek")
        # Nobody speaks to a Tor that does not run.
        self.assertFalse(select.select([e.listeners["torctl"]], [], [], 0)[0])

        c.sock.close()
        e.expect("REFUSE_TAP", "KILL_VM")
        e.close_vm_fds()
        e.vm_starts()
        self.assertNotIn("moat", self.guest_of_vm(e))
        self.assertFalse(os.path.exists(f"{e.dir}/vm/entry"))
        e.expect("CONFIGURE_TAP", "SET_DNS")
        e.tor_answers()
        e.expect("NOTIFY")
        reply = other.call(self.MOAT)
        self.assertEqual(reply["error"], "org.varlink.service.ExpectedMore")
        other.send(self.MOAT, more=True)
        reply = other.reply()
        self.assertEqual(reply["error"], self.NO_MOAT)
        self.assertIn("Running", reply["parameters"]["reason"])

    def test_automatic_mode_goes_on_where_it_was(self):
        e = self.to_stuck(automatic=True)
        e.tor.write('650 STATUS_CLIENT WARN BOOTSTRAP PROGRESS=5 TAG=conn '
                    'SUMMARY="Connecting" WARNING="x" REASON=CONNECTREFUSED COUNT=5 '
                    'RECOMMENDATION=ignore\r')
        c = self.opens_moat(e)
        c.sock.close()
        e.expect("REFUSE_TAP", "KILL_VM")
        e.close_vm_fds()
        e.vm_starts()
        self.assertEqual(e.client().status()["entry"], "direct")

    def test_the_end_of_the_vm_is_the_end_of_the_way(self):
        e = self.to_stuck()
        c = self.opens_moat(e)
        e.vm_exits(256)
        reply = c.reply()
        self.assertEqual(reply["error"], self.NO_MOAT)
        self.assertIn("status 1", reply["parameters"]["reason"])
        e.expect("REFUSE_TAP")
        e.vm_starts()
        self.assertNotIn("moat", self.guest_of_vm(e))

    def test_without_transports_in_the_image_nothing_is_changed(self):
        e = self.to_stuck()
        os.unlink(f"{e.dir}/image/transports.zst")
        c = e.client()
        c.send(self.MOAT, more=True)
        reply = c.reply()
        self.assertEqual(reply["error"], self.NO_MOAT)
        self.assertIn("transports.zst", reply["parameters"]["reason"])
        e.quiet(0.2)
        self.assertEqual(c.status()["entry"], "direct")

    def test_resumed_engine_leaves_a_vm_without_tor(self):
        original = Engine.make_image

        def noted(engine):
            original(engine)
            with open(f"{engine.dir}/vm/entry", "w", encoding="ascii") as f:
                f.write("moat")
        Engine.make_image = noted
        try:
            e = self.engine("--resume", up=UP_FIREWALL | UP_TAP | UP_VM, vm_pid=4242)
        finally:
            Engine.make_image = original
        e.expect("STATUS", "KILL_VM")
        e.vm_starts()
        self.assertNotIn("moat", self.guest_of_vm(e))
        self.assertFalse(os.path.exists(f"{e.dir}/vm/entry"))

    def test_vanished_broker_ends_the_engine_at_once(self):
        e = self.engine()
        e.to_running()
        e.broker.shutdown(socket.SHUT_RDWR)
        self.assertEqual(e.wait(), 1)
        self.assertIn("torvm recover", e.log())

    def test_resumed_engine_adopts_the_vm(self):
        e = self.engine("--resume", up=UP_FIREWALL | UP_TAP | UP_VM,
                        vm_pid=4242)
        e.expect("STATUS")
        e.agent = e.accept("agent")
        e.agent.expect("hello")
        e.agent.write("hello 1 90000", "stage 9000 ready")
        e.expect("CONFIGURE_TAP", "SET_DNS")
        e.tor_answers()
        e.expect("NOTIFY")
        self.assertEqual(e.client().status()["vm"]["pid"], 4242)
        e.event(EVENT_STOP)
        e.expect("REFUSE_TAP")
        e.agent.expect("poweroff")
        e.vm_exits()
        self.finish(e)

    def test_resumed_engine_serves_whatever_became_of_the_files(self):
        e = self.engine("--resume", up=UP_FIREWALL | UP_TAP | UP_VM,
                        vm_pid=4242,
                        config={"vm": {"qemu_path": "/gone/qemu"},
                                "log": {"file": "/gone/torvm.log"}})
        e.expect("STATUS")
        wait_for(lambda: "/gone/torvm.log" in e.log())
        self.assertTrue(e.client().status()["blocked"])

    def test_block_of_a_dead_controller_is_completed(self):
        e = self.engine(up=UP_FIREWALL)
        e.expect("STATUS")
        wait_for(lambda: e.client().status()["blocked"])
        e.expect("PRECHECK", "BLOCK", "CREATE_TAP")

    def test_resumed_engine_without_vm_starts_one(self):
        e = self.engine("--resume", up=UP_FIREWALL | UP_TAP)
        e.expect("STATUS")
        e.vm_starts()
        e.expect("CONFIGURE_TAP")

    def test_vm_whose_tap_is_gone_is_not_kept(self):
        e = self.engine("--resume", up=UP_FIREWALL | UP_VM, vm_pid=4242,
                        config={"failsafe": {"boot_timeout_s": 30}})
        e.expect("STATUS", "REFUSE_TAP", "KILL_VM", "CREATE_TAP")
        # Not because its guest says nothing.
        self.assertNotIn("not finished booting", e.log())
        e.vm_starts()
        e.expect("CONFIGURE_TAP")

    def test_adopted_vm_that_is_silent_is_killed(self):
        e = self.engine("--resume", up=UP_FIREWALL | UP_TAP | UP_VM,
                        vm_pid=4242,
                        config={"failsafe": {"heartbeat_timeout_s": 5}})
        e.expect("STATUS")
        e.agent = e.accept("agent")
        e.agent.write("hello 1 90000", "stage 9000 ready")
        e.expect("CONFIGURE_TAP", "SET_DNS")
        e.agent.expect("ping ")
        e.expect("REFUSE_TAP", "KILL_VM")
        e.vm_starts()

    def clocks(self, e, realtime, boottime):
        """What the test engine takes for the machine's clocks, in s ahead."""
        with open(f"{e.dir}/state/new-clock", "w", encoding="ascii") as f:
            f.write(f"{realtime} {boottime}\n")
        os.rename(f"{e.dir}/state/new-clock", f"{e.dir}/state/test-clock")

    def told_time(self, e):
        """By how many seconds the next time told to the guest is ahead."""
        while True:
            word, first, *_ = e.agent.read().split()
            if word == "ping":
                e.agent.write("pong " + first)
            elif word == "time":
                return int(first) - time.time()

    def test_clock_jumps_and_sleeps_reach_the_vm(self):
        e = self.engine(program=TEST_ENGINE,
                        config={"failsafe": {"heartbeat_timeout_s": 9}})
        e.to_running()
        day, hours = 86400, 8 * 3600
        for ahead in (day, -day):
            self.clocks(e, ahead, 0)
            self.assertAlmostEqual(self.told_time(e), ahead, delta=60)
        wait_for(lambda: "set forward by 86400 s" in e.log())
        wait_for(lambda: "set back by 172800 s" in e.log())
        # A short sleep: the time alone. A long one: connections, too.
        self.clocks(e, -day + 30, 30)
        self.told_time(e)
        e.quiet(0.2)
        wait_for(lambda: "slept for 30 s; the VM gets the time." in e.log())
        self.clocks(e, -day + hours, hours)
        e.expect("RENEW_UPLINK")
        self.assertAlmostEqual(self.told_time(e), -day + hours, delta=60)
        wait_for(lambda: "and connects anew" in e.log())
        e.agent.expect("ping ")
        self.assertEqual(e.client().status()["state"], "Running")

    def test_standing_still_is_not_the_guests_silence(self):
        """As when the computer is a VM that is paused, or the engine was."""
        e = self.engine(config={"failsafe": {"heartbeat_timeout_s": 9}})
        e.to_running()
        os.kill(e.pid, signal.SIGSTOP)
        time.sleep(11)
        os.kill(e.pid, signal.SIGCONT)
        for _ in range(2):
            e.agent.write(e.agent.expect("ping ").replace("i", "o"))
            e.quiet(0.1)
        self.assertEqual(e.client().status()["state"], "Running")
        self.assertNotIn("silent", e.log())

    def test_the_broker_hears_of_us(self):
        e = self.engine()
        e.to_running()
        got, serial, _, _, _ = e.receive()
        self.assertEqual(got, "STATUS")
        e.answer(got, serial)

    def test_engine_holds_where_a_test_wants(self):
        e = self.engine(program=TEST_ENGINE)
        with open(f"{e.dir}/state/test-hold", "w", encoding="ascii") as f:
            f.write("LaunchVM")
        e.expect("STATUS", "PRECHECK", "BLOCK", "CREATE_TAP")
        wait_for(lambda: os.waitpid(e.pid, os.WUNTRACED | os.WNOHANG)[0])
        self.assertFalse(os.path.exists(f"{e.dir}/state/test-hold"))
        self.assertFalse(select.select([e.broker], [], [], 0.1)[0])
        os.kill(e.pid, signal.SIGCONT)
        e.expect("START_VM")

    def test_unconfirmed_start_is_taken_back(self):
        e = self.engine("--confirm", "1")
        e.to_start_vm()
        e.expect("START_VM")
        e.vm_fds = e.last[2]
        e.expect("REFUSE_TAP", "KILL_VM")
        self.finish(e, 9)

    def test_confirm_is_remembered(self):
        e = self.engine("--confirm", "60")
        e.to_running()
        c = e.client()
        self.assertGreater(c.status()["confirm_left"], 50)
        self.assertEqual(c.call("org.torvm.Controller.Confirm"),
                         {"parameters": {}})
        self.assertNotIn("confirm_left", c.status())
        self.assertEqual(c.call("org.torvm.Controller.Confirm")["error"],
                         "org.torvm.Controller.NothingToConfirm")

    def test_stop_streams_until_the_end(self):
        e = self.engine()
        e.to_running()
        c = e.client()
        c.send("org.torvm.Controller.Stop", more=True)
        e.expect("REFUSE_TAP")
        e.vm_exits()
        self.finish(e)
        states = []
        while True:
            reply = c.reply()
            states.append(reply["parameters"]["status"]["state"])
            if not reply.get("continues"):
                break
        self.assertEqual(states[0], "Running")
        self.assertEqual(states[-1], "Cleanup")
        self.assertFalse(reply["parameters"]["status"]["blocked"])

    def test_watchers_see_each_state(self):
        e = self.engine()
        c = e.client()
        c.send("org.torvm.Controller.WatchStatus", more=True)
        c.reply()
        e.to_running()
        wait_for(lambda: c.reply()["parameters"]["status"]["state"] ==
                 "Running")

    def test_log_is_kept_and_followed(self):
        e = self.engine()
        e.to_running()
        c = e.client()
        c.send("org.torvm.Controller.GetLog", more=True, follow=True)
        first = c.reply()["parameters"]["lines"]
        self.assertTrue(any("Running" in l["text"] for l in first))
        e.agent.write("tor 99 Nov 24 14:00:00.000 [warn] Something odd")
        line = c.reply()["parameters"]["lines"][0]
        while "odd" not in line["text"]:
            line = c.reply()["parameters"]["lines"][0]
        self.assertEqual(line["text"], "tor: Something odd")
        self.assertEqual(line["level"], "warning")

    def test_chatty_guest_does_not_fill_the_log(self):
        e = self.engine()
        e.to_running()
        for _ in range(100):
            e.agent.write(*["tor 99 spam"] * 100)
        wait_for(lambda: e.log().count("spam") >= 400)
        self.assertEqual(e.client().status()["state"], "Running")
        self.assertLessEqual(e.log().count("spam"), 600)

    def test_log_file_is_turned_over(self):
        where = tempfile.mkdtemp(prefix="torvmd-test.")
        self.addCleanup(shutil.rmtree, where)
        with open(f"{where}/torvm.log", "wb") as f:
            f.truncate(16 * 1024 * 1024 - 100)
        e = self.engine(config={"log": {"file": f"{where}/torvm.log"}})
        e.to_start_vm()
        wait_for(lambda: os.path.exists(f"{where}/torvm.log.1"))
        wait_for(lambda: os.path.exists(f"{where}/torvm.log"))
        e.vm_starts()
        wait_for(lambda: "ConfigureTAP" in
                 open(f"{where}/torvm.log", encoding="utf-8").read())

    def test_service_manager_is_told_of_a_block(self):
        e = self.engine()
        e.to_running()
        self.assertTrue(e.last[1].startswith(b"Running"))
        e.vm_exits(9)
        e.expect("REFUSE_TAP", "NOTIFY")
        self.assertTrue(e.last[1].startswith(b"Blocked"))

    def test_introspection(self):
        e = self.engine()
        c = e.client()
        info = c.call("org.varlink.service.GetInfo")["parameters"]
        self.assertIn("org.torvm.Controller", info["interfaces"])
        text = c.call("org.varlink.service.GetInterfaceDescription",
                      interface="org.torvm.Controller")
        self.assertIn("method GetStatus()", text["parameters"]["description"])
        for method, error in (("org.torvm.Controller.Nope", "MethodNotFound"),
                              ("org.example.Nope", "InterfaceNotFound")):
            self.assertTrue(c.call(method)["error"].endswith(error))

    def asks_tor(self, e, method, command, *answer):
        """Calls, plays Tor, and returns the reply's parameters."""
        c = e.client()
        c.send("org.torvm.Controller." + method)
        self.assertEqual(e.tor.read(), command)
        e.tor.write(*[line + "\r" for line in answer])
        return c.reply()["parameters"]

    def test_circuits_entries_and_new_identity_are_asked_of_tor(self):
        e = self.engine()
        one = e.client()
        self.assertEqual(one.call("org.torvm.Controller.GetCircuits")["error"],
                         "org.torvm.Controller.TorNotReady")
        e.to_running()
        fp = "A" * 40
        answer = ["250+circuit-status=", f"5 BUILT ${fp}~one PURPOSE=GENERAL", ".",
                  "250-stream-status=9 SUCCEEDED 5 www.example:443", "250 OK",
                  "250-ip-to-country/ipv4-available=0", "250 OK"]
        got = self.asks_tor(e, "GetCircuits", "GETINFO circuit-status stream-status",
                            *answer)
        self.assertEqual(got["circuits"], [
            {"id": "5", "status": "BUILT", "purpose": "GENERAL", "relays": [
                {"bridge": False, "fingerprint": fp, "nickname": "one"}]}])
        self.assertEqual(got["streams"], [
            {"id": "9", "status": "SUCCEEDED", "circuit": "5",
             "target": "www.example:443"}])
        e.tor.expect("GETINFO ip-to-country/ipv4-available")
        got = self.asks_tor(e, "GetEntries", "GETINFO entry-guards orconn-status",
                            f"250-entry-guards=${fp}~one up",
                            "250-orconn-status=192.0.2.1:443 LAUNCHED", "250 OK")
        self.assertEqual(got["entries"], [
            {"fingerprint": fp, "state": "up"},
            {"address": "192.0.2.1:443", "state": "connecting"}])
        got = self.asks_tor(e, "NewIdentity", "SIGNAL NEWNYM", "250 OK")
        self.assertEqual(got, {"wait": 0})
        got = self.asks_tor(e, "NewIdentity", "SIGNAL NEWNYM", "250 OK")
        self.assertIn(got["wait"], range(1, 11))

    def test_streams_do_not_name_the_bridge(self):
        fp = "0123456789ABCDEF" * 2 + "01234567"
        e = self.engine(config={"bridge": {
            "use_bridges": True, "transport": "none",
            "bridges": ["192.0.2.7:443 " + fp]}})
        e.to_running()
        got = self.asks_tor(e, "GetCircuits", "GETINFO circuit-status stream-status",
                            f"250-circuit-status=5 LAUNCHED ${fp}",
                            f"250-stream-status=9 SENTCONNECT 5 192.0.2.7.${fp}"
                            ".exit:443", "250 OK",
                            "250-ip-to-country/ipv4-available=0", "250 OK")
        self.assertEqual(len(got["streams"]), 1)
        self.assertNotIn(fp, json.dumps(got))
        self.assertNotIn("192.0.2.7", json.dumps(got))

    def test_who_waits_for_tor_is_told_when_it_goes(self):
        e = self.engine()
        e.to_running()
        c, other = e.client(), e.client()
        c.send("org.torvm.Controller.GetCircuits")
        c.send("org.torvm.Controller.GetStatus")
        e.tor.expect("GETINFO circuit-status")
        self.assertEqual(other.status()["state"], "Running")
        e.agent.write("tor-exit 900 signal 11 1")
        self.assertEqual(c.reply()["error"], "org.torvm.Controller.TorNotReady")
        self.assertIn("status", c.reply()["parameters"])

    def test_traffic_is_in_the_status(self):
        e = self.engine()
        e.to_running()
        c = e.client()
        self.assertNotIn("traffic", c.status())
        c.send("org.torvm.Controller.WatchStatus", more=True)
        e.tor.write("650 BW 1000 50\r", "650 BW 24 0\r")
        while True:
            traffic = c.reply()["parameters"]["status"].get("traffic", {})
            if traffic.get("read") == 1024:
                break
        self.assertEqual(traffic, {"read": 1024, "written": 50, "read_rate": 24,
                                   "written_rate": 0})

    def test_flood_does_no_harm(self):
        e = self.engine()
        e.to_running()
        crowd = []
        for i in range(300):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(e.control_path)
            try:
                sock.sendall((b"\xff{" * 9000, b'{"method":"x"}\0' * 500,
                              b"{", b"")[i % 4])
            except (BrokenPipeError, ConnectionResetError):
                pass
            crowd.append(sock)
        greedy = e.client()
        greedy.send("org.torvm.Controller.GetLog", more=True, follow=True)
        call = json.dumps({"method": "org.torvm.Controller.GetStatus"}
                          ).encode() + b"\0"
        eager = e.client()
        eager.sock.settimeout(0.2)
        try:
            for _ in range(2000):
                eager.sock.sendall(call * 10)
        except (socket.timeout, BrokenPipeError, ConnectionResetError):
            pass
        started = time.monotonic()
        self.assertEqual(e.client().status()["state"], "Running")
        self.assertLess(time.monotonic() - started, 2)
        with open(f"/proc/{e.pid}/status", encoding="ascii") as f:
            rss = next(int(l.split()[1]) for l in f if "VmRSS" in l)
        limit = 400000 if "asan" in TORVMD else 30000
        self.assertLess(rss, limit)
        for sock in crowd:
            sock.close()

    @unittest.skipUnless(os.getuid() == 0, "needs root to be somebody else")
    def test_strangers_are_refused(self):
        e = self.engine()
        e.to_running()
        os.chmod(e.dir, 0o755)
        os.chmod(e.control_path, 0o666)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            reply = e.client().call("org.torvm.Controller.Stop")
            os.write(write, reply.get("error", "allowed").encode())
            os._exit(0)
        os.waitpid(pid, 0)
        self.assertEqual(os.read(read, 100).decode(),
                         "org.torvm.Controller.PermissionDenied")
        os.close(read)
        os.close(write)
        e.quiet(0.1)

    @unittest.skipUnless(os.path.exists("/dev/kvm"), "needs a /dev/kvm")
    def test_kvm_that_does_not_work_ends_in_tcg(self):
        e = self.engine("--accel", "auto")
        e.to_start_vm()
        e.expect("START_VM")
        e.vm_fds = e.last[2]
        argv = os.pread(e.vm_fds[0], 16384, 0)
        self.assertIn(b"kvm", argv)
        os.write(e.vm_fds[1], b"failed to set MSR 0x10a\n")
        e.vm_exits(256)
        e.expect("REFUSE_TAP", "START_VM")
        e.vm_fds = e.last[2]
        argv = os.pread(e.vm_fds[0], 16384, 0)
        self.assertIn(b"tcg", argv)
        e.qmp_greets()
        e.guest_boots()
        e.expect("CONFIGURE_TAP")
        wait_for(lambda: "no guest starts with KVM" in e.log())
        with open(f"{e.dir}/state/accel", encoding="ascii") as f:
            self.assertIn("tcg", f.read())


if __name__ == "__main__":
    unittest.main(verbosity=2)
