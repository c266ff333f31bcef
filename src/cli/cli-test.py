#!/usr/bin/env python3
"""Drive the torvm program against scripted controllers.

Usage: cli-test.py PATH-OF-TORVM

The program is copied beside a stand-in for torvm-broker, so that nothing of
this machine is touched: no network, no service, no real controller.
"""

import http.server
import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import unittest.mock

ROOT = os.geteuid() == 0
if ROOT and "--in-namespace" not in sys.argv:
    # Whether TorVM runs on this machine must not matter.
    os.execvp("unshare", ["unshare", "--net", sys.executable, *sys.argv,
                          "--in-namespace"])
if ROOT:
    sys.argv.remove("--in-namespace")
TORVM = os.path.abspath(sys.argv.pop(1))
KEYS = {"state", "since", "blocked", "lockdown", "lan_access", "bootstrap", "accel", "vm",
        "tor", "last_error", "entry", "tried", "traffic", "obstacle", "uplink", "alarms",
        "confirm_left", "refused", "refused_by", "stages",
        "version"}


def status(state, percent=0, **more):
    s = {"state": state, "since": "2026-01-02T03:04:05Z", "blocked": True, "lockdown": False,
         "lan_access": False,
         "bootstrap": {"percent": percent, "tag": "tag", "summary": "words"},
         "vm": {"pid": 4242, "uptime": 61}, "accel": "tcg",
         "tor": {"version": "0.4.9.1", "circuit_established": False},
         "entry": "direct", "tried": [], "alarms": [], "refused": 17,
         "refused_by": [{"uid": 0, "packets": 9}, {"uid": 4242424, "packets": 3}],
         "stages": {"Init": 0}, "version": "0.1.0"}
    s.update(more)
    return s


class Controller(threading.Thread):
    """Answers each method with a list of (parameters, seconds before)."""

    def __init__(self, folder, replies):
        super().__init__(daemon=True)
        self.replies = replies
        self.path = os.path.join(folder, "control.sock")
        self.calls = []
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.bind(self.path)
        self.sock.listen(8)
        self.start()

    def close(self):
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.sock.close()
        if os.path.exists(self.path):
            os.unlink(self.path)

    def run(self):
        while True:
            try:
                conn, _ = self.sock.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(conn,),
                             daemon=True).start()

    def serve(self, conn):
        with conn, conn.makefile("rb") as f:
            data = b""
            while True:
                byte = f.read(1)
                if not byte:
                    return
                if byte != b"\0":
                    data += byte
                    continue
                call = json.loads(data)
                data = b""
                self.calls.append(call)
                name = call["method"].rsplit(".", 1)[1]
                answers = self.replies[name]
                if isinstance(answers, str):
                    out = {"error": "org.torvm.Controller." + answers}
                    conn.sendall(json.dumps(out).encode() + b"\0")
                    continue
                for i, p in enumerate(answers):
                    if p is None:  # hang up without a last reply
                        return
                    if callable(p):
                        p()
                        continue
                    last = i == len(answers) - 1
                    out = {"parameters": p}
                    if not last:
                        out["continues"] = True
                    try:
                        conn.sendall(json.dumps(out).encode() + b"\0")
                    except OSError:
                        return


class Base(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="torvm-cli-")
        self.addCleanup(shutil.rmtree, self.dir)
        self.bin = os.path.join(self.dir, "bin")
        self.run_dir = os.path.join(self.dir, "run")
        os.mkdir(self.bin)
        os.mkdir(self.run_dir)
        self.torvm_path = os.path.join(self.bin, "torvm")
        shutil.copy2(TORVM, self.torvm_path)
        self.env = {k: v for k, v in os.environ.items()
                    if not k.startswith("SSH_")}
        self.env["LC_ALL"] = "C.UTF-8"

    def torvm(self, *args, env=None, **kw):
        return subprocess.run([self.torvm_path, *args], text=True,
                              stdin=subprocess.DEVNULL, capture_output=True,
                              timeout=60, env=env or self.env, **kw)

    def here(self, command, *args, **kw):
        return self.torvm(command, "--runtime-dir", self.run_dir, *args, **kw)

    def controller(self, **replies):
        c = Controller(self.run_dir, replies)
        self.addCleanup(c.close)
        return c

    def broker(self, text):
        """A stand-in for torvm-broker, in Python."""
        path = os.path.join(self.bin, "torvm-broker")
        with open(path, "w") as f:
            f.write(f"#!{sys.executable}\nimport json, os, socket, sys, time\n"
                    + text)
        os.chmod(path, 0o755)


class Usage(Base):
    def commands(self):
        out = self.torvm("--help").stdout
        part = out.split("Commands:\n")[1].split("\n\n")[0]
        return [line.split()[0] for line in part.splitlines()]

    def test_every_command_explains_itself(self):
        names = self.commands()
        self.assertLessEqual({"up", "down", "status", "log", "confirm",
                              "doctor", "config", "version", "recover"},
                             set(names))
        for name in names:
            r = self.torvm(name, "--help")
            self.assertEqual(r.returncode, 0, r.stderr)
            for part in (f"Usage: torvm {name}", "\nOptions:\n", "--help",
                         "\nExit codes:\n  0", f"\nExamples:\n  "):
                self.assertIn(part, r.stdout)
            for line in r.stdout.splitlines():
                self.assertLessEqual(len(line), 80, line)
            self.assertEqual(r.stdout, self.torvm("help", name).stdout)

    def test_mistyped_words_are_answered(self):
        for args, part in (
                (["statsu"], 'did you mean "torvm status"'),
                (["xyzzyxyzzy"], "torvm --help"),
                (["status", "--jsno"], "unknown option --jsno"),
                (["status", "extra"], "one argument too many: extra"),
                (["config"], "missing: check FILE | default | schema"),
                (["config", "chekc", "x"], "allowed are"),
                (["up", "--confirm"], "a value is missing after --confirm"),
                (["up", "--wait=3"], "no value belongs to"),
                (["up", "--confirm", "0"], "seconds from 1 to 3600"),
                (["up", "--confirm", "1e3"], "seconds from 1 to 3600"),
                (["up", "--confirm", "3601"], "seconds from 1 to 3600"),
                (["up", "--accel", "xen"], "auto, kvm, tcg"),
                (["up", "--runtime-dir", ""], "path of a folder"),
                (["--verbose"], "need --headless or a command"),
                (["--headless", "x"], "one argument too many"),
                ([], "torvm up --wait")):
            r = self.torvm(*args)
            self.assertEqual(r.returncode, 2, (args, r))
            self.assertIn(part, r.stderr)
            self.assertEqual(r.stdout, "")

    def test_version(self):
        self.assertRegex(self.torvm("version").stdout, r"^torvm \d+\.\d+\.\d+$")
        self.assertEqual(self.torvm("--version").stdout,
                         self.torvm("version").stdout)

    def test_a_full_disk_is_noticed(self):
        with open("/dev/full", "w") as full:
            r = subprocess.run([self.torvm_path, "version"], stdout=full,
                               stderr=subprocess.PIPE, text=True)
        self.assertEqual(r.returncode, 1)
        self.assertIn("cannot write", r.stderr)


class Config(Base):
    def test_the_default_is_accepted(self):
        r = self.torvm("config", "default")
        path = os.path.join(self.dir, "t.json")
        with open(path, "w") as f:
            f.write(r.stdout)
        os.chmod(path, 0o600)
        self.assertEqual(json.loads(r.stdout)["vm"]["memory_mb"], 160)
        self.assertEqual(self.torvm("config", "check", path).returncode, 0)
        with open(path, "w") as f:
            f.write('{"vm": {"memroy_mb": 1}}')
        r = self.torvm("config", "check", path)
        self.assertEqual(r.returncode, 4)
        self.assertIn(f"{path}: key vm.memroy_mb", r.stderr)
        self.assertIn("did you mean vm.memory_mb?", r.stderr)
        r = self.torvm("config", "check", path + "x")
        self.assertEqual(r.returncode, 4)
        self.assertIn("No such file", r.stderr)


class Schema(Base):
    TYPES = {"boolean": bool, "integer": int, "string": str, "array": list}

    def test_schema_describes_the_default(self):
        schema = json.loads(self.torvm("config", "schema").stdout)
        default = json.loads(self.torvm("config", "default").stdout)
        self.assertIn("2020-12", schema["$schema"])
        self.assertIs(schema["additionalProperties"], False)
        self.assertEqual(set(schema["properties"]), set(default))
        for section, keys in default.items():
            of_section = schema["properties"][section]
            self.assertIs(of_section["additionalProperties"], False)
            self.assertEqual(set(of_section["properties"]), set(keys))
            for key, value in keys.items():
                s = of_section["properties"][key]
                self.assertEqual(s["default"], value, key)
                self.assertTrue(s["description"], key)
                if "enum" in s:
                    self.assertIn(value, s["enum"], key)
                    continue
                self.assertIs(type(value), self.TYPES[s["type"]], key)
                if s["type"] == "integer":
                    self.assertTrue(s["minimum"] <= value <= s["maximum"], key)
        vm = schema["properties"]["vm"]["properties"]["memory_mb"]
        self.assertEqual((vm["minimum"], vm["maximum"]), (128, 4096))


class Clients(Base):
    def test_status_without_a_controller(self):
        r = self.here("status", "--json")
        s = json.loads(r.stdout)
        self.assertEqual(r.returncode, 3)
        self.assertEqual(set(s), KEYS)
        self.assertEqual(s["state"], "Stopped")
        self.assertFalse(s["blocked"])
        for key in ("since", "accel", "last_error", "confirm_left"):
            self.assertIsNone(s[key])
        self.assertEqual(s["vm"], {"pid": None, "uptime": None})
        self.assertEqual(s["tor"], {"version": None,
                                    "circuit_established": False})
        open(os.path.join(self.run_dir, "journal"), "w").close()
        s = json.loads(self.here("status", "--json").stdout)
        self.assertTrue(s["blocked"])
        self.assertIn("torvm recover", s["last_error"])
        self.assertIn("torvm recover", self.here("status").stdout)

    def test_lockdown_without_a_controller(self):
        open(os.path.join(self.run_dir, "lockdown"), "w").close()
        r = self.here("status", "--json")
        s = json.loads(r.stdout)
        self.assertEqual(r.returncode, 3)
        self.assertEqual((s["state"], s["blocked"], s["lockdown"], s["last_error"]),
                         ("Stopped", True, True, None))
        r = self.here("status")
        self.assertIn("is blocked (lockdown)", r.stdout)
        r = self.here("down")
        self.assertEqual(r.returncode, 0)
        self.assertIn("torvm lockdown off", r.stdout)
        r = self.here("lockdown", "status", "--json")
        self.assertEqual(r.returncode, 0)
        self.assertIs(json.loads(r.stdout)["lockdown"], True)
        os.unlink(os.path.join(self.run_dir, "lockdown"))
        r = self.here("lockdown", "status")
        self.assertEqual(r.returncode, 3)
        self.assertIn("off", r.stdout)
        r = self.here("lockdown", "onn")
        self.assertEqual(r.returncode, 2)

    def test_status_of_a_controller(self):
        self.controller(GetStatus=[{"status": status("Running", 100, alarms=["a bell"])}])
        r = self.here("status", "--json")
        self.assertEqual(r.returncode, 0)
        s = json.loads(r.stdout)
        self.assertEqual(set(s), KEYS)
        self.assertEqual(s["vm"], {"pid": 4242, "uptime": 61})
        self.assertIsNone(s["last_error"])
        r = self.here("status")
        self.assertEqual(r.returncode, 0)
        for part in ("Running", "0.4.9.1", "100 %", "4242", "tcg",
                     "1 min 1 s", "17 packets", "a bell"):
            self.assertIn(part, r.stdout)

    def test_status_not_running_yet(self):
        self.controller(GetStatus=[{"status": status(
            "Blocked", 45, last_error="tor \x1b[2Jdied", confirm_left=12)}])
        r = self.here("status")
        self.assertEqual(r.returncode, 3)
        self.assertIn("torvm confirm", r.stdout)
        self.assertIn("is blocked", r.stdout)

    def test_watch_prints_each_change(self):
        self.controller(WatchStatus=[{"status": status("LaunchVM")},
                                     {"status": status("WaitBootstrap", 45)},
                                     {"status": status("Running", 100)}, None])
        r = self.here("status", "--watch", "--json")
        lines = [json.loads(x) for x in r.stdout.splitlines()]
        self.assertEqual([x["state"] for x in lines],
                         ["LaunchVM", "WaitBootstrap", "Running", "Stopped"])
        self.assertEqual(r.returncode, 3)
        r = self.here("status", "--watch")
        self.assertRegex(r.stdout, r"\d\d:\d\d:\d\d  WaitBootstrap +Tor "
                                   r"connects: 45 %, words")

    def test_refused_callers(self):
        self.controller(GetStatus="PermissionDenied", Stop="PermissionDenied",
                        Confirm="PermissionDenied", GetLog="PermissionDenied")
        for command in ("status", "down", "confirm", "log"):
            r = self.here(command)
            self.assertEqual(r.returncode, 6, command)
            self.assertIn("group torvm", r.stderr)

    @unittest.skipUnless(ROOT, "needs another user")
    def test_a_closed_folder_is_about_privileges(self):
        os.chmod(self.dir, 0o755)
        self.controller(GetStatus=[{"status": status("Running")}])
        os.chmod(os.path.join(self.run_dir, "control.sock"), 0o600)
        r = self.here("status", user=65534, group=65534, extra_groups=[])
        self.assertEqual(r.returncode, 6)
        self.assertIn("root", r.stderr)

    def test_confirm(self):
        c = self.controller(Confirm=[{}])
        r = self.here("confirm")
        self.assertEqual(r.returncode, 0)
        self.assertEqual(c.calls[0]["method"], "org.torvm.Controller.Confirm")
        c.replies["Confirm"] = "NothingToConfirm"
        r = self.here("confirm")
        self.assertEqual(r.returncode, 1)
        self.assertIn("nothing to confirm", r.stderr)

    def test_log(self):
        lines = [{"time": "2026-01-02T03:04:05Z", "level": "info",
                  "text": "one \x1b[31m"},
                 {"time": "2026-01-02T03:04:06Z", "level": "error",
                  "text": "two"}]
        self.controller(GetLog=[{"lines": lines}, {"lines": lines[1:]}, None])
        r = self.here("log", "-f")
        self.assertEqual(r.returncode, 0)
        self.assertEqual(len(r.stdout.splitlines()), 3)
        self.assertNotIn("\x1b", r.stdout)
        self.assertIn("2026-01-02T03:04:06Z error   two", r.stdout)

    def test_nothing_runs(self):
        for command in ("log", "confirm"):
            r = self.here(command)
            self.assertEqual(r.returncode, 3)
            self.assertIn("torvm up", r.stderr)
        r = self.here("down")
        self.assertEqual(r.returncode, 0)
        self.assertIn("does not run", r.stdout)
        open(os.path.join(self.run_dir, "journal"), "w").close()
        r = self.here("down")
        self.assertEqual(r.returncode, 8)
        self.assertIn("torvm recover", r.stderr)

    def test_down_waits_for_the_end(self):
        steps = [{"status": status("Shutdown")},
                 {"status": status("RestoreNetwork")},
                 {"status": status("Cleanup", blocked=False)}]
        c = self.controller(Stop=steps)
        done = threading.Event()

        def end():  # goes a while after its last word
            time.sleep(0.3)
            done.set()
            c.close()
        answer = c.replies["Stop"]
        c.replies["Stop"] = answer[:2] + [
            lambda: threading.Thread(target=end).start()] + answer[2:]
        r = self.here("down")
        self.assertEqual(r.returncode, 0, r.stderr)
        self.assertTrue(done.is_set())
        self.assertIn("restoring the network\n", r.stderr)
        self.assertIn("as it was", r.stdout)

    def test_down_asks_the_engine_that_follows_a_crashed_one(self):
        c = self.controller()

        def crash():
            c.replies["Stop"] = [{"status": status("Shutdown")}, c.close,
                                 {"status": status("Cleanup", blocked=False)}]
        c.replies["Stop"] = [crash, None]
        r = self.here("down")
        self.assertEqual(r.returncode, 0, r.stderr)
        self.assertEqual([call["method"] for call in c.calls],
                         ["org.torvm.Controller.Stop"] * 2)

    def test_down_reports_what_was_left(self):
        open(os.path.join(self.run_dir, "journal"), "w").close()
        c = self.controller()
        c.replies["Stop"] = [{"status": status("Shutdown")}, c.close, None]
        r = self.here("down")
        self.assertEqual(r.returncode, 8)
        self.assertIn("torvm recover", r.stderr)


class Doctor(Base):
    def doctor(self, *args, code):
        """In a network namespace: the kernel is asked about real rules."""
        net = "-n" if ROOT else "-rn"
        r = subprocess.run(["unshare", net, self.torvm_path, "doctor",
                            "--runtime-dir", self.run_dir, *args],
                           env=self.env, text=True, capture_output=True,
                           timeout=60)
        self.assertEqual(r.returncode, code, r)
        return r.stdout

    def test_each_missing_thing_names_what_mends_it(self):
        images = os.path.join(self.dir, "images")
        os.mkdir(images)
        out = self.doctor("--json", "--image-dir", images, code=1)
        by_name = {x["check"]: x for x in json.loads(out)}
        self.assertEqual(set(by_name), {
            "privileges", "configuration", "state", "programs", "qemu",
            "image", "tun", "kvm", "kernel", "users", "resolver",
            "resolved", "names", "firewalld"})
        self.assertEqual(by_name["image"]["result"], "missing")
        self.assertEqual(by_name["image"]["mend"], "make vm")
        self.assertEqual(by_name["programs"]["result"], "missing")
        self.assertEqual(by_name["state"]["result"], "ok")
        text = self.doctor("--image-dir", images, code=1)
        self.assertEqual(len(text.splitlines()), len(by_name))
        self.assertRegex(text, r"(?m)^missing  image .*; run: make vm$")

    def test_leftovers_and_a_bad_configuration(self):
        open(os.path.join(self.run_dir, "journal"), "w").close()
        path = os.path.join(self.dir, "t.json")
        with open(path, "w") as f:
            f.write('{"vm": {"accel": "xen"}}')
        out = self.doctor("--config", path, code=1)
        self.assertRegex(out, r"(?m)^missing  state .*torvm recover$")
        self.assertRegex(out, r"(?m)^missing  configuration .*key vm.accel")

    def test_a_running_controller_is_no_fault(self):
        self.controller(GetStatus=[{"status": status("Running", 100)}])
        out = self.doctor(code=1)
        self.assertRegex(out, r"(?m)^ok +state +a controller runs$")
        self.assertRegex(out, r"(?m)^ok +kernel ")

    def test_a_server_that_tor_answers_for_is_not_to_be_replaced(self):
        self.controller(GetStatus=[{"status": status("Blocked", 0)}])
        path = os.path.join(self.dir, "resolv.conf")
        for server, mend in (("192.0.2.1", "torvm doctor --connection"),
                             ("2001:db8::1", "sed -i ")):
            with open(path, "w") as f:
                f.write(f"nameserver {server}\r\n")
            r = subprocess.run(
                ["unshare", "-nm" if ROOT else "-rnm", "sh", "-c",
                 f"mount --bind {path} $(realpath /etc/resolv.conf) && "
                 f'exec "$@"', "sh", self.torvm_path, "doctor",
                 "--runtime-dir", self.run_dir],
                env=self.env, text=True, capture_output=True, timeout=60)
            told = re.search(r"(?m)^note +names .*$", r.stdout).group()
            self.assertIn(server + " does not resolve", told)
            self.assertIn("run: " + mend, told)


SERVE = """
run = sys.argv[sys.argv.index('--runtime-dir') + 1]
def status(state, percent=0, blocked=True, **more):
    s = {'state': state, 'since': '2026-01-02T03:04:05Z', 'blocked': blocked,
         'lockdown': False, 'lan_access': False, 'bootstrap': {'percent': percent, 'tag': 't', 'summary': 'words'},
         'vm': {}, 'tor': {'circuit_established': False}, 'alarms': [], 'refused': 0,
         'stages': {}, 'version': '0.1.0'}
    s.update(more)
    return {'parameters': {'status': s}, 'continues': True}
sock = socket.socket(socket.AF_UNIX)
sock.bind(run + '/control.sock')
sock.listen(4)
print(os.getpid(), file=open(run + '/pid', 'w'), flush=True)
def serve(steps, seconds=20):
    sock.settimeout(seconds)
    conn, _ = sock.accept()
    for s in steps:
        conn.sendall(json.dumps(s).encode() + b'\\0')
    return conn
"""


class Start(Base):
    def kill_broker(self):
        try:
            with open(os.path.join(self.run_dir, "pid")) as f:
                os.kill(int(f.read()), signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError, ValueError):
            pass

    def setUp(self):
        super().setUp()
        self.addCleanup(self.kill_broker)

    def test_root_is_needed(self):
        os.chmod(self.dir, 0o755)
        other = {"user": 65534, "group": 65534, "extra_groups": []}
        for args in (["up", "--yes"], ["--headless", "--yes"]):
            r = self.torvm(*args, "--runtime-dir", self.run_dir,
                           **(other if ROOT else {}))
            self.assertEqual(r.returncode, 6)
            self.assertIn("Nothing was changed", r.stderr)

    @unittest.skipUnless(ROOT, "a controller needs root")
    def test_headless_becomes_the_broker(self):
        self.broker("print(json.dumps(sys.argv)); sys.exit(7)\n")
        path = os.path.join(self.dir, "t.json")
        with open(path, "w") as f:
            f.write("{}")
        r = self.torvm("--headless", "--yes", "--verbose", "--accel", "tcg",
                       "--config", "t.json", "--runtime-dir", "r",
                       "--state-dir", "/s", "--image-dir", "/i",
                       "--confirm", "30", cwd=self.dir)
        self.assertEqual(r.returncode, 7, r.stderr)
        self.assertEqual(json.loads(r.stdout)[1:], [
            "--config", path, "--accel", "tcg", "--verbose", "--confirm",
            "30", "--runtime-dir", os.path.join(self.dir, "r"), "--state-dir",
            "/s", "--image-dir", "/i"])
        with open(path, "w") as f:
            f.write('{"vm": {"cpus": 0}}')
        r = self.torvm("--headless", "--yes", "--config", path)
        self.assertEqual(r.returncode, 4)
        self.assertIn("key vm.cpus", r.stderr)

    @unittest.skipUnless(ROOT, "a controller needs root")
    def test_a_missing_broker_is_named(self):
        r = self.torvm("--headless", "--yes")
        self.assertEqual(r.returncode, 1)
        self.assertIn("torvm-broker is neither in", r.stderr)

    @unittest.skipUnless(ROOT, "a controller needs root")
    def test_remote_sessions_have_to_say_so(self):
        self.broker("sys.exit(0)\n")
        env = dict(self.env, SSH_CONNECTION="1 2 3 4")
        for command in (["up"], ["--headless"]):
            r = self.torvm(*command, "--runtime-dir", self.run_dir, env=env)
            self.assertEqual(r.returncode, 2)
            self.assertIn("--confirm", r.stderr)
            self.assertIn("Nothing was changed", r.stderr)
        r = self.torvm("--headless", "--yes", env=env)
        self.assertEqual(r.returncode, 0)
        r = self.torvm("--headless", "--confirm", "9", env=env)
        self.assertEqual(r.returncode, 0)
        # sudo drops the variables: an ancestor called sshd tells.
        code = ("import ctypes, subprocess, sys\n"
                "ctypes.CDLL(None).prctl(15, b'sshd', 0, 0, 0)\n"
                "sys.exit(subprocess.run(sys.argv[1:]).returncode)\n")
        r = subprocess.run([sys.executable, "-c", code, self.torvm_path,
                            "--headless"], env=self.env, capture_output=True,
                           text=True)
        self.assertEqual(r.returncode, 2, r.stderr)
        self.assertIn("remote session", r.stderr)

    @unittest.skipUnless(ROOT, "a controller needs root")
    def test_up_returns_once_blocked(self):
        self.broker(SERVE + "conn = serve([status('CheckPrivileges', "
                    "blocked=False), status('SaveNetwork', blocked=False), "
                    "status('CreateTAP')])\ntime.sleep(30)\n")
        r = self.here("up", "--yes")
        self.assertEqual(r.returncode, 0, r.stderr)
        self.assertIn("Protected", r.stdout)
        self.assertIn("making the network interface", r.stderr)

    @unittest.skipUnless(ROOT, "a controller needs root")
    def test_up_waits_until_running(self):
        self.broker(SERVE + "conn = serve([status('LaunchVM'), "
                    "status('WaitBootstrap', 45), status('Running', 100, "
                    "confirm_left=30)])\ntime.sleep(30)\n")
        r = self.here("up", "--yes", "--wait")
        self.assertEqual(r.returncode, 0, r.stderr)
        self.assertIn("Connected", r.stdout)
        self.assertIn('"torvm confirm" within 30 s', r.stdout)
        self.assertIn("Tor connects: 45 %, words\n", r.stderr)

    @unittest.skipUnless(ROOT, "a controller needs root")
    def test_up_gives_up_at_its_timeout(self):
        self.broker(SERVE + "conn = serve([status('Blocked', "
                    "last_error='no route')])\ntime.sleep(30)\n")
        r = self.here("up", "--yes", "--wait", "--timeout", "1")
        self.assertEqual(r.returncode, 9)
        self.assertIn("no route", r.stderr)
        self.assertIn("stays blocked", r.stderr)

    @unittest.skipUnless(ROOT, "a controller needs root")
    def test_up_forwards_an_early_end(self):
        self.broker("print('torvm-broker: error: no QEMU here', "
                    "file=sys.stderr); sys.exit(5)\n")
        for more in ([], ["--wait"]):
            r = self.here("up", "--yes", *more)
            self.assertEqual(r.returncode, 5)
            self.assertIn("no QEMU here", r.stderr)
            self.assertIn("exit code 5", r.stderr)
        log = os.path.join(self.run_dir, "controller.log")
        self.assertEqual(os.stat(log).st_mode & 0o777, 0o600)

    @unittest.skipUnless(ROOT, "a controller needs root")
    def test_up_reports_a_killed_controller(self):
        self.broker(SERVE + "conn = serve([status('LaunchVM')])\n"
                    "open(run + '/journal', 'w')\nos.kill(os.getpid(), 9)\n")
        r = self.here("up", "--yes", "--wait")
        self.assertEqual(r.returncode, 1)
        self.assertIn("signal 9", r.stderr)
        self.assertIn("torvm recover", r.stderr)

    def test_up_when_it_is_up(self):
        self.controller(GetStatus=[{"status": status("WaitBootstrap", 9)}],
                        WatchStatus=[{"status": status("WaitBootstrap", 9)},
                                     {"status": status("Running", 100)}, None])
        for more in ([], ["--wait"]):
            r = self.here("up", *more)
            self.assertEqual(r.returncode, 0, r.stderr)
            self.assertIn("already up", r.stdout)


@unittest.skipUnless(ROOT, "mounts need root")
@unittest.skipUnless(os.path.exists("/usr/bin/systemctl"),
                     "no /usr/bin/systemctl to put a scripted one over")
class Service(Base):
    """The service's way, in a mount namespace with a scripted systemctl."""

    def up(self, systemctl, *args):
        fake = os.path.join(self.dir, "systemctl")
        with open(fake, "w") as f:
            f.write(f"#!{sys.executable}\nimport json, os, socket, sys, time\n"
                    f"sys.argv += ['--runtime-dir', '/run/torvm']\n"
                    + systemctl)
        os.chmod(fake, 0o755)
        script = """
            mount -t tmpfs tmpfs /run
            mkdir -p /run/systemd/system /run/torvm
            mount -t tmpfs tmpfs /etc/systemd/system
            touch /etc/systemd/system/torvm.service
            mount --bind "$1" /usr/bin/systemctl
            shift
            "$@" """
        # A PID namespace: what was started ends with the test.
        return subprocess.run(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child",
             "--mount-proc", "sh", "-euc", script, "sh", fake,
             self.torvm_path, "up", "--yes", *args],
            env=self.env, text=True, capture_output=True, timeout=60)

    def test_up_starts_the_service(self):
        self.broker("sys.exit(99)\n")
        start = ("assert sys.argv[1:3] == ['start', 'torvm.service']\n"
                 "if os.fork() == 0:\n    "
                 + (SERVE + "conn = serve([status('LaunchVM'), "
                    "status('Running', 100)])\ntime.sleep(30)\n"
                    ).strip().replace("\n", "\n    ")
                 + "\ntime.sleep(0.1)\n")
        r = self.up(start, "--wait")
        self.assertEqual(r.returncode, 0, r.stderr)
        self.assertIn("Connected", r.stdout)

    def test_the_exit_code_of_the_service_counts(self):
        r = self.up("if sys.argv[1] == 'show':\n    print(5)\n"
                    "else:\n    sys.exit(1)\n")
        self.assertEqual(r.returncode, 5, r.stderr)
        self.assertIn("journalctl -u torvm.service", r.stderr)

    def test_options_need_a_process_of_their_own(self):
        self.broker("print('by hand', file=sys.stderr); sys.exit(5)\n")
        r = self.up("sys.exit(1)\n", "--accel", "tcg")
        self.assertEqual(r.returncode, 5)
        self.assertIn("by hand", r.stderr)


class Terminal(Base):
    def on_tty(self, *args, **env):
        pid, fd = pty.fork()
        if pid == 0:
            os.execve(self.torvm_path,
                      [self.torvm_path, args[0], "--runtime-dir",
                       self.run_dir, *args[1:]],
                      dict(self.env, TERM="xterm", **env))
        out = b""
        while True:
            try:
                data = os.read(fd, 4096)
            except OSError:
                break
            if not data:
                break
            out += data
        os.close(fd)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), out.decode()

    def test_colour_is_for_terminals(self):
        self.env.pop("NO_COLOR", None)
        self.assertIn("\x1b[1;31m", self.on_tty("status")[1])
        self.assertNotIn("\x1b", self.on_tty("status", NO_COLOR="1")[1])
        self.assertNotIn("\x1b", self.here("status").stdout)

    def test_progress_rewrites_one_line(self):
        self.controller(GetStatus=[{"status": status("LaunchVM")}],
                        WatchStatus=[{"status": status("LaunchVM")},
                                     {"status": status("WaitBootstrap", 45)},
                                     {"status": status("Running", 100)}, None])
        code, out = self.on_tty("up", "--wait")
        self.assertEqual(code, 0)
        self.assertRegex(out, "\r\x1b\\[K.*45 %, words.*\r\x1b\\[K")
        self.assertRegex(re.sub("\x1b\\[[?0-9]*[A-Za-z]", "", out),
                         "\rTorVM was already up.\r\n$")


class Circuits(Base):
    CIRCUITS = {
        "circuits": [
            {"id": "5", "status": "BUILT", "purpose": "GENERAL", "relays": [
                {"bridge": True}, {"bridge": False, "nickname": "mid\x1bdle"},
                {"bridge": False, "fingerprint": "A" * 40, "country": "de"}]},
            {"id": "6", "status": "LAUNCHED", "relays": []}],
        "streams": [
            {"id": "9", "status": "SUCCEEDED", "circuit": "5", "target": "www.example:443"},
            {"id": "10", "status": "NEW", "target": "other.example:80"}]}

    def test_circuits_are_shown(self):
        self.controller(GetCircuits=[self.CIRCUITS])
        done = self.here("circuits")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("(bridge) > mid?dle > $AAAAAAAA {de}\n           www.example:443",
                      done.stdout)
        self.assertIn("Waiting for a circuit:\n           other.example:80", done.stdout)
        done = self.here("circuits", "--json")
        self.assertEqual(json.loads(done.stdout), self.CIRCUITS)

    def test_a_reply_of_another_version_is_refused(self):
        self.controller(GetCircuits=[{"circuits": [{"id": 5}], "streams": []}])
        done = self.here("circuits")
        self.assertEqual(done.returncode, 1)
        self.assertIn("same version", done.stderr)

    def test_tor_that_does_not_answer_is_said(self):
        self.controller(GetCircuits="TorNotReady", NewIdentity="TorNotReady")
        for command in ("circuits", "newnym"):
            done = self.here(command)
            self.assertEqual(done.returncode, 1)
            self.assertIn("Tor does not answer", done.stderr)

    def test_newnym_says_when(self):
        control = self.controller(NewIdentity=[{"wait": 0}])
        self.assertNotIn("In ", self.here("newnym").stdout)
        control.replies["NewIdentity"] = [{"wait": 7}]
        self.assertIn("In 7 s: ", self.here("newnym").stdout)

    def test_bandwidth_is_shown(self):
        running = status("Running", 100, traffic={
            "read": 5_000_000, "written": 999, "read_rate": 12_345, "written_rate": 0})
        self.controller(GetStatus=[{"status": running}],
                        WatchStatus=[{"status": running}, {"status": running}])
        self.assertIn("Bandwidth  12.3 kB/s down, 0 B/s up; 5.0 MB down, 999 B up",
                      self.here("status").stdout)
        self.assertEqual(json.loads(self.here("status", "--json").stdout)["traffic"],
                         running["traffic"])
        self.assertEqual(self.here("status", "--watch").stdout.count("12.3 kB/s down"), 1)

    def test_the_way_out_is_shown(self):
        running = status("Running", 100, uplink={
            "transport": "meek", "proxy": None, "resolvers": ["192.168.1.1"],
            "names": [
                {"name": "front.example", "addresses": ["192.0.2.1", "192.0.2.2"],
                 "error": None},
                {"name": "gone.example", "addresses": [],
                 "error": "there is no such name"}]})
        self.controller(GetStatus=[{"status": running}])
        out = self.here("status").stdout
        self.assertIn("Way out    meek bridges\n", out)
        self.assertIn("Name       front.example: 192.0.2.1 192.0.2.2\n", out)
        self.assertIn("Name       gone.example: (there is no such name)\n", out)
        self.assertIn("Asked      192.168.1.1, ", out)
        self.assertEqual(json.loads(self.here("status", "--json").stdout)["uplink"],
                         running["uplink"])


class Connection(Base):
    def findings(self, code):
        done = self.here("doctor", "--connection", "--json")
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return {f["check"]: f for f in json.loads(done.stdout)}

    def test_what_tor_met_is_told_with_the_next_step(self):
        self.controller(GetStatus=[{"status": status("WaitBootstrap", 5, obstacle={
            "kind": "refused", "text": "The network refuses.",
            "next": "sudo torvm bridges use obfs4"})}])
        found = self.findings(1)
        self.assertEqual(found["tor"]["result"], "bad")
        self.assertIn("5 %", found["tor"]["text"])
        self.assertIn("The network refuses.", found["tor"]["text"])
        self.assertEqual(found["tor"]["next"], "sudo torvm bridges use obfs4")
        self.assertEqual(found["clock"]["result"], "ok")
        self.assertIn("Next step  sudo torvm bridges use obfs4", self.here("status").stdout)
        self.assertIn("next:  sudo torvm bridges use",
                      self.here("doctor", "--connection").stdout)

    def test_without_a_controller_nobody_has_tried(self):
        self.assertIn("nobody has tried", self.here("doctor", "--connection").stdout)

    @unittest.skipUnless(ROOT, "needs a network namespace of its own")
    def test_links_and_routes_are_looked_at(self):
        def ip(*args):
            subprocess.run(["ip", *args], check=True)

        self.controller(GetStatus=[{"status": status("Running", 100)}])
        self.assertIn("no network link", self.findings(1)["link"]["text"])
        ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
        self.addCleanup(ip, "link", "del", "v0")
        for name in ("v0", "v1"):
            ip("addr", "flush", "dev", name)
            ip("link", "set", name, "up")
        end = time.monotonic() + 60
        while b"LOWER_UP" not in subprocess.check_output(["ip", "link", "show", "v0"]) or \
                b"state UP" not in subprocess.check_output(["ip", "link", "show", "v0"]):
            self.assertLess(time.monotonic(), end)
            time.sleep(0.02)
        self.assertIn("no address", self.findings(1)["link"]["text"])
        ip("addr", "add", "2001:db8::2/64", "dev", "v0", "nodad")
        self.assertIn("no default route", self.findings(1)["route"]["text"])
        ip("route", "add", "default", "via", "2001:db8::1")
        route = self.findings(0)["route"]
        self.assertEqual((route["result"], route["text"]), ("note", "this network has IPv6 only"))
        self.assertIn("tor.client_use_ipv4 false", route["next"])
        ip("-6", "route", "del", "default")
        ip("addr", "add", "192.0.2.2/24", "dev", "v0")
        found = self.findings(1)
        self.assertEqual(found["link"]["result"], "ok")
        self.assertIn("no default route", found["route"]["text"])
        ip("route", "add", "default", "via", "192.0.2.1")
        found = self.findings(0)
        self.assertEqual({f["result"] for f in found.values()}, {"ok"})


class BridgesBase(Base):
    FP = "0123456789ABCDEF0123456789ABCDEF01234567"
    OBFS4 = f"obfs4 192.0.2.1:443 {FP} cert={'s' * 70} iat-mode=0"
    PLAIN = f"192.0.2.2:9001 {FP}"

    def setUp(self):
        super().setUp()
        self.config = os.path.join(self.dir, "torvm.json")

    def bridges(self, *args, stdin="", code=0):
        done = subprocess.run(
            [self.torvm_path, "bridges", *args, "--config", self.config],
            input=stdin, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, timeout=60)
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertNotIn("s" * 70, done.stderr)
        return done

    def content(self):
        with open(self.config, encoding="utf-8") as f:
            return json.load(f)

    def write(self, what):
        with open(self.config, "w", encoding="utf-8") as f:
            json.dump(what, f)


class Bridges(BridgesBase):
    def test_an_option_of_another_one_is_refused_with_those_that_it_takes(self):
        self.write({})
        told = self.bridges("use", "none", "--json", code=2).stderr
        self.assertIn("torvm bridges use", told)
        self.assertIn("--config FILE", told)
        self.assertNotIn("--qr", told)

    def test_pasted_lines_are_added_listed_and_removed(self):
        self.write({"vm": {"cpus": 2}})
        os.chmod(self.config, 0o640)
        done = self.bridges("add", stdin=f"# two\nBridge {self.OBFS4}\r\n{self.PLAIN}\n")
        self.assertIn("1 obfs4 bridge", done.stdout)
        self.assertEqual(self.content(), {
            "vm": {"cpus": 2}, "bridge": {"bridges": [self.OBFS4, self.PLAIN]}})
        self.assertEqual(os.stat(self.config).st_mode & 0o777, 0o640)
        shown = self.bridges("list").stdout
        self.assertIn("cert=***", shown)
        self.assertNotIn("s" * 70, shown)
        self.assertIn(self.OBFS4, self.bridges("list", "--show-secrets").stdout)
        shown = json.loads(self.bridges("list", "--json").stdout)
        self.assertEqual([b["transport"] for b in shown["bridges"]], ["obfs4", "plain"])
        self.assertEqual([b["used"] for b in shown["bridges"]], [False, False])
        self.assertIn("***", shown["bridges"][0]["line"])
        self.bridges("remove", "1")
        self.assertEqual(self.content()["bridge"]["bridges"], [self.PLAIN])
        self.bridges("remove", self.PLAIN)
        self.assertEqual(self.content()["bridge"]["bridges"], [])

    def test_lines_as_arguments_are_joined_and_warned_about(self):
        done = self.bridges("add", *self.OBFS4.split(), *self.PLAIN.split(), "192.0.2.3:1")
        self.assertIn("can be seen by other users", done.stderr)
        self.assertEqual(self.content()["bridge"]["bridges"],
                         [self.OBFS4, self.PLAIN, "192.0.2.3:1"])
        self.assertEqual(os.stat(self.config).st_mode & 0o777, 0o600)

    def test_text_of_a_qr_code_is_taken_and_one_is_drawn(self):
        self.bridges("add", "-", stdin=repr([self.OBFS4, self.PLAIN]))
        self.assertEqual(self.content()["bridge"]["bridges"], [self.OBFS4, self.PLAIN])
        self.assertIn("Nothing to add", self.bridges("add", stdin=self.PLAIN).stdout)
        rows = self.bridges("list", "--qr", "2").stdout.splitlines()
        self.assertGreater(len(rows), 15)
        self.assertEqual(len({len(row) for row in rows}), 1)
        self.bridges("list", "--qr", "3", code=2)

    def test_a_wrong_line_is_named_and_changes_nothing(self):
        done = self.bridges("add", stdin=f"{self.PLAIN}\n{self.OBFS4[:-1]}7\n", code=4)
        self.assertIn("line 2: the value of iat-mode= is wrong; allowed: iat-mode=0, 1 or 2",
                      done.stderr)
        self.assertFalse(os.path.exists(self.config))
        self.bridges("add", stdin="# nothing\n", code=4)

    def test_use_keeps_lines_and_takes_the_built_in_ones(self):
        self.bridges("add", stdin=self.OBFS4)
        done = self.bridges("use", "snowflake")
        self.assertIn("built-in", done.stdout)
        bridge = self.content()["bridge"]
        self.assertEqual((bridge["use_bridges"], bridge["transport"]), (True, "snowflake"))
        self.assertEqual(bridge["bridges"][0], self.OBFS4)
        self.assertTrue(bridge["bridges"][1].startswith("snowflake "))
        self.assertNotIn("built-in", self.bridges("use", "obfs4").stdout)
        self.assertEqual(self.content()["bridge"]["transport"], "obfs4")
        # The last one that is in use stays.
        self.assertIn("the last obfs4 bridge", self.bridges("remove", "1", code=4).stderr)
        self.bridges("use", "none")
        self.bridges("remove", "1")
        self.assertFalse(self.content()["bridge"]["use_bridges"])
        self.bridges("use", "webtunnel", code=1)
        self.bridges("use", "obsf4", code=2)

    def test_test_asks_the_running_tor(self):
        self.write({"bridge": {"use_bridges": True, "transport": "obfs4",
                               "bridges": [self.OBFS4, self.PLAIN]}})
        os.chmod(self.config, 0o600)
        args = ("test", "--runtime-dir", self.run_dir)
        self.assertIn("only Tor may try", self.bridges(*args, code=3).stderr)
        control = self.controller(GetEntries=[{"entries": [
            {"fingerprint": self.FP.lower(), "state": "connected"}]}])
        done = self.bridges(*args)
        self.assertRegex(done.stdout, r"1  obfs4 +reached")
        self.assertRegex(done.stdout, r"2  plain +not in use")
        control.replies["GetEntries"] = [{"entries": [
            {"address": "192.0.2.1:443", "state": "failed"}]}]
        done = self.bridges(*args, "1", "--json", code=1)
        self.assertEqual(json.loads(done.stdout), [
            {"number": 1, "transport": "obfs4", "state": "down"}])
        self.bridges(*args, "3", code=2)


class Moat(http.server.BaseHTTPRequestHandler):
    """The bridge service; says "answer" of the server to everything."""

    def do_GET(self):
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length).decode()
        self.server.asked.append((self.path, self.headers["Content-Type"], body))
        self.server.uids.append(self.peer_uid())
        self.send_response(self.server.code)
        self.send_header("Location", "http://192.0.2.1/")
        self.end_headers()
        try:
            self.wfile.write(self.server.answer)
        except OSError:
            pass

    do_POST = do_GET

    def peer_uid(self):
        """Whose the connection's other end is, by /proc/net/tcp."""
        with open("/proc/net/tcp", encoding="ascii") as f:
            for line in f.readlines()[1:]:
                words = line.split()
                if int(words[1].split(":")[1], 16) == self.client_address[1]:
                    return int(words[7])
        return None

    def log_message(self, *_):
        pass


class Request(BridgesBase):
    def setUp(self):
        super().setUp()
        shutil.copy2(os.path.join(os.path.dirname(TORVM), "torvm-moat"), self.bin)
        if ROOT:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        self.server = http.server.HTTPServer(("127.0.0.1", 0), Moat)
        self.server.asked, self.server.uids, self.server.code = [], [], 200
        self.answer({"settings": [{"bridges": {
            "type": "obfs4", "source": "bridgedb",
            "bridge_strings": [self.OBFS4, "conjure 192.0.2.1:1"]}}], "country": "cn"})
        thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        thread.start()
        self.addCleanup(self.server.server_close)
        self.addCleanup(thread.join)
        self.addCleanup(self.server.shutdown)
        self.url = "http://127.0.0.1:%d/moat/circumvention" % self.server.server_port

    def answer(self, answer):
        self.server.answer = json.dumps(answer).encode()

    def request(self, *args, code=0):
        return self.bridges("request", "--runtime-dir", self.run_dir, "--url", self.url,
                            *args, code=code)

    def test_nobody_is_asked_in_the_clear(self):
        done = self.request()
        self.assertIn("nothing was asked", done.stderr)
        self.assertIn("built-in", done.stderr)
        self.assertIn("snowflake ", done.stdout)
        self.assertEqual(self.server.asked, [])
        self.controller(GetStatus=[{"status": status("Shutdown")}])
        self.assertIn("traffic is blocked", self.request("--direct").stderr)
        self.assertEqual(self.server.asked, [])
        self.request("--transport", "webtunnel", code=1)

    def test_through_meek_while_tor_is_not_connected(self):
        # The service's own address is never connected to.
        address = "127.0.0.1:%d" % self.server.server_port
        self.controller(GetStatus=[{"status": status("WaitBootstrap")}],
                        OpenMoat=[{}, {"address": address}])
        done = self.request("--url", "http://127.0.0.1:1/moat/circumvention")
        self.assertIn("through meek", done.stderr)
        self.assertEqual(done.stdout, self.OBFS4 + "\n")
        self.assertEqual(self.server.asked[0][0], "/moat/circumvention/settings")

    def test_without_a_way_the_built_in_bridges_are_left(self):
        self.controller(GetStatus=[{"status": status("Blocked")}],
                        OpenMoat="MoatNotPossible")
        done = self.request()
        self.assertIn("cannot be asked", done.stderr)
        self.assertIn("snowflake ", done.stdout)
        self.assertEqual(self.server.asked, [])

    def test_directly_if_the_user_says_so(self):
        done = self.request("--direct", "--country", "cn", "--transport", "obfs4")
        self.assertEqual(done.stdout, self.OBFS4 + "\n")
        self.assertIn("1 further bridges", done.stderr)
        (path, kind, body), = self.server.asked
        self.assertEqual((path, kind), ("/moat/circumvention/settings",
                                        "application/vnd.api+json"))
        self.assertEqual(json.loads(body), {"country": "cn", "transports": ["obfs4"]})
        # What is printed is what "add" reads.
        self.bridges("add", stdin=done.stdout)
        self.assertEqual(self.content()["bridge"]["bridges"], [self.OBFS4])

    def test_bridges_go_into_the_configuration(self):
        done = self.request("--direct", "--add", "defaults")
        self.assertEqual(self.server.asked[0][0], "/moat/circumvention/defaults")
        self.assertEqual(self.content()["bridge"]["bridges"], [self.OBFS4])
        self.assertNotIn("cert=", done.stdout)

    @unittest.skipUnless(ROOT, "needs root to give it up")
    def test_root_does_not_ask(self):
        with unittest.mock.patch.dict(os.environ, {"SUDO_UID": "1234", "SUDO_GID": "1234"}):
            self.request("--direct")
        with unittest.mock.patch.dict(os.environ):
            os.environ.pop("SUDO_UID", None)
            self.request("--direct")
        self.assertEqual(self.server.uids, [1234, 65534])

    def test_map_and_countries_are_printed(self):
        self.answer({"cn": {"settings": [{"bridges": {"type": "snowflake"}}]}})
        self.assertEqual(self.request("--direct", "map").stdout, "cn: snowflake\n")
        self.assertEqual(self.server.asked[0][1:], (None, ""))
        self.answer(["by", "cn"])
        self.assertEqual(self.request("--direct", "countries").stdout, "by\ncn\n")
        self.answer({"settings": [], "country": "se"})
        self.assertIn("without bridges in se", self.request("--direct").stderr)

    def test_other_answers_fall_back_to_the_built_in_bridges(self):
        for answer, words in ((b"<html>", "login page"), (b"x" * 2_000_000, "too long"),
                              (b'{"errors": [{"code": 406, "detail": "no"}]}', "(406): no")):
            self.server.answer = answer
            done = self.request("--direct")
            self.assertIn(words, done.stderr)
            self.assertIn("snowflake ", done.stdout)
        self.server.code = 302
        self.assertIn("another address", self.request("--direct").stderr)
        self.server.shutdown()
        self.server.server_close()
        self.assertIn("was not reached", self.request("--direct").stderr)

    def test_through_tor_its_socks_port_is_used(self):
        self.controller(GetStatus=[{"status": status("Running")}])
        done = self.request("--url", "https://bridges.example/moat")
        self.assertIn("through Tor", done.stderr)
        self.assertIn("not reached", done.stderr)

    def test_wrong_usage(self):
        for args in (("--country", "china"), ("--transport", "obfs3"), ("nonsense",),
                     ("--url", "http://192.0.2.1/")):
            self.request(*args, code=2)


if __name__ == "__main__":
    unittest.main(verbosity=1)
