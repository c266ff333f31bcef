#!/usr/bin/env python3
"""Boots the built image and holds PID 1 to docs/guest-protocol.md.

Needs dist/vm (make vm) and QEMU; no root, no network. TCG only.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time

import guest
from guest import Guest, TestFailure, ask_tor, check

STAGES = [
    "mounts", "modules", "config", "firewall", "network", "state-disk", "clock",
    "lockdown", "tor-start", "ready",
]  # fmt: skip

# What the host says differs so much from what the guest believes.
YEARS_AHEAD = 3 * 365 * 86400 + 40 * 86400

SUPERBLOCK = 1024  # where ext4's begins

GEOIP_FILE = "GeoIPFile /usr/share/tor/geoip\n"
# Universities with their networks since the eighties, and an address of nobody.
COUNTRIES = {"130.149.7.1": "de", "18.9.22.1": "us", "130.237.32.1": "se", "127.0.0.1": "??"}


class StateDisk:
    """A copy of the pristine state disk that a test may spoil."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="torvm-state-")
        self.path = os.path.join(self.dir, "state.img")
        shutil.copyfile(os.path.join(guest.IMAGE, "state.img"), self.path)

    def patch(self, offset, data):
        with open(self.path, "r+b") as file:
            file.seek(offset)
            file.write(data)

    def needs_recovery(self):
        """Whether the journal is to be replayed (feature incompat 4)."""
        with open(self.path, "rb") as file:
            file.seek(SUPERBLOCK + 0x60)
            return bool(int.from_bytes(file.read(4), "little") & 4)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.dir)


def offset_ms(vm):
    return int(vm.wait_for("clock")[2])


def a_boot_goes_through_every_stage_in_order():
    with StateDisk() as disk, Guest(state=disk.path) as vm:
        vm.connect()
        first = vm.next()
        check(first[:2] == ["hello", "1"] and first[2].isdigit(), f"first: {first}")
        now = time.time() + YEARS_AHEAD
        vm.agent.send(f"time {int(now)} 0\n")
        vm.wait_for("stage", "ready")
        stages = [line.split(" ") for line in vm.said("^stage ")]
        check([s[2] for s in stages] == STAGES, f"stages: {stages}")
        times = [int(s[1]) for s in stages]
        check(times == sorted(times), f"times: {times}")
        print("# " + ", ".join(f"{s[2]} {s[1]} ms" for s in stages))
        print(f"# ready {time.monotonic() - vm.start:.1f} s after QEMU's start")
        check(len(vm.said(r"^state-disk \d+ ok$")) == 1, "no state-disk line")
        check(not vm.said("^(error|warning) "), f"{vm.said('^(error|warning)')}")
        total, available = vm.wait_for("memory")[2:]
        check(0 < int(available) < int(total) < 192 * 1024, f"{total} {available}")

        # The clock was set before Tor started, by what the host said.
        clock = vm.said("^clock ")
        check(len(clock) == 1, f"clock lines: {clock}")
        offset = int(clock[0].split(" ")[2]) / 1000
        check(abs(offset - YEARS_AHEAD) < 120, f"clock set by {offset} s")
        check(
            vm.seen.index(clock[0]) < vm.seen.index(vm.said(" tor-start$")[0]),
            "Tor started before the clock was set",
        )
        # Tor's log tells its date (a day and a month, no year).
        day = time.strftime("%b %d", time.gmtime(now))
        check(vm.said(rf"^tor \d+ {day} .*Tor 0\.4"), f"no log of Tor on {day}")

        # After resume the host says it again.
        vm.agent.send(f"time {int(time.time())} 500000000\n")
        back = offset_ms(vm) / 1000
        check(abs(back + YEARS_AHEAD) < 120, f"clock set back by {back} s")

        vm.agent.send("poweroff\n")
        vm.wait_until_off()
        check(vm.said(r"^tor-exit \d+ exit 0 1$"), f"{vm.said('^tor-exit')}")


def the_torctl_port_reaches_tor_and_only_while_open():
    with Guest() as vm:
        vm.connect().wait_for("stage", "ready")
        for _ in range(3):
            control = vm.torctl()
            check(ask_tor(control, "AUTHENTICATE") == ["250 OK"], "AUTHENTICATE")
            control.close()
            vm.wait_for("torctl", "closed")
        # Each opening is a new connection: nobody is authenticated yet, and Tor
        # hangs up. The guest connects again, on the same opening.
        control = vm.torctl()
        reply = ask_tor(control, "GETINFO version")
        check(reply[0].startswith("514 "), f"without AUTHENTICATE: {reply}")
        vm.wait_for("torctl", "closed")
        vm.wait_for("torctl", "connected")
        check(ask_tor(control, "AUTHENTICATE") == ["250 OK"], "AUTHENTICATE")
        reply = ask_tor(control, "GETINFO version")
        check(reply[0].startswith("250-version=0.4."), f"GETINFO version: {reply}")

        # More than either ring holds, in both directions at once.
        count = 3000
        control.send("GETINFO version\r\n" * count)
        oks = 0
        while oks < count:
            line = control.line()
            check(line is not None, "torctl hung up in a flood")
            oks += line == "250 OK"
        vm.agent.send("ping still1\n")
        while vm.next(30) != ["pong", "still1"]:
            pass


def messages_of_the_host_are_answered():
    with Guest() as vm:
        vm.connect()
        vm.wait_for("stage", "ready")
        vm.agent.send("ping a1Z\nping " + "b" * 32 + "\n")
        while vm.next(30) != ["pong", "a1Z"]:
            pass
        check(vm.next(30) == ["pong", "b" * 32], "the second pong")

        # Unknown words are ignored, broken lines named; neither hurts.
        vm.agent.send("colour red\n\nping \nping a-b\ntime 1\n" + "x" * 5000 + "\n")
        for _ in range(4):
            vm.wait_for("warning", "a", 30)
        vm.agent.send("ping alive\n")
        while vm.next(30) != ["pong", "alive"]:
            pass

        # A controller that takes over: everything it needs is said again.
        vm.agent.close()
        vm.connect()
        vm.agent.send("hello\n")
        vm.wait_for("hello", timeout=30)
        check(vm.next(30)[2] == "ready", "the last stage is repeated")


def a_silent_host_holds_nobody_up():
    with Guest() as vm:
        # Nobody reads the agent port until Tor has long started.
        control = vm.open_torctl()
        check(ask_tor(control, "AUTHENTICATE", 120) == ["250 OK"], "AUTHENTICATE")
        vm.connect()
        check(vm.next()[0] == "hello", "hello is the first line however late")
        vm.wait_for("stage", "ready")
        check([s.split()[2] for s in vm.said("^stage ")] == STAGES, "all stages")
        # No `time` came: the configuration's was used.
        check(len(vm.said("^clock ")) == 1, f"clock lines: {vm.said('^clock')}")


def tor_is_started_again_and_the_third_exit_ends_the_vm():
    with Guest() as vm:
        vm.connect().wait_for("stage", "ready")
        control = vm.torctl()
        for count in (1, 2, 3):
            check(ask_tor(control, "AUTHENTICATE") == ["250 OK"], "AUTHENTICATE")
            control.send("SIGNAL HALT\r\n")
            words = vm.wait_for("tor-exit")
            check(words[2:] == ["exit", "0", str(count)], f"tor-exit: {words}")
            if count == 1:
                # The same opening of the port leads to the new Tor.
                vm.wait_for("stage", "ready")
                vm.wait_for("torctl", "connected")
                control.buf = b""
            elif count == 2:
                # So does a new one, while nobody is there.
                control.close()
                control = vm.torctl()
        vm.wait_until_off()
        check(vm.said(r"^error \d+ Tor ended 3 times"), f"{vm.seen[-3:]}")


def an_unusable_state_disk_is_reported():
    """It ends the VM: Tor never gets a RAM disk that nobody asked for."""
    with StateDisk() as damaged, StateDisk() as scrambled:
        damaged.patch(SUPERBLOCK + 0x3A, b"\x02\x00")
        scrambled.patch(SUPERBLOCK + 0x60, b"\xff" * 64)
        for state, reason in (
            (damaged.path, "its file system is marked as damaged"),
            (scrambled.path, "it cannot be mounted: .+"),
            (None, "there is no disk"),
        ):
            torrc = guest.TORRC.format(data="/var/lib/tor-state/tor")
            with Guest(config={"state_disk": "1"}, torrc=torrc, state=state) as vm:
                vm.connect().wait_until_off()
                lines = vm.said("^state-disk ")
                check(len(lines) == 1, f"{lines}")
                check(vm.said(rf"^state-disk \d+ unusable {reason}$"), f"{lines}")
                check(not vm.said("tor-start"), "Tor was started all the same")


def a_state_disk_survives_a_crash_and_is_left_clean():
    with StateDisk() as disk:
        with Guest(state=disk.path) as vm:
            vm.connect().wait_for("stage", "ready")
            vm.process.kill()
            vm.process.wait()
        check(disk.needs_recovery(), "the crash left no journal to replay")
        with Guest(state=disk.path) as vm:
            vm.connect().wait_for("stage", "ready")
            check(vm.said(r"^state-disk \d+ ok$"), "the disk")
            # The power button, as QMP presses it.
            start = time.monotonic()
            vm.qmp("system_powerdown")
            vm.wait_until_off()
            print(f"# off {time.monotonic() - start:.1f} s after system_powerdown")
            check(vm.said(r"^tor-exit \d+ exit 0 1$"), f"{vm.said('^tor-exit')}")
        check(not disk.needs_recovery(), "the disk was not unmounted")


def tor_knows_countries_by_the_list_that_is_handed_in():
    torrc = guest.TORRC.format(data="/run/tor/data") + GEOIP_FILE
    torrc += "ExcludeNodes {de}\n"
    with Guest(torrc=torrc, archives=["geoip.zst"]) as vm:
        vm.connect().wait_for("stage", "ready")
        control = vm.torctl()
        check(ask_tor(control, "AUTHENTICATE") == ["250 OK"], "AUTHENTICATE")
        for address, country in COUNTRIES.items():
            reply = ask_tor(control, "GETINFO ip-to-country/" + address)
            wanted = f"250-ip-to-country/{address}={country}"
            check(reply[0] == wanted, f"{reply} in place of {wanted}")
        check(not vm.said("(?i)geoip file|recognized"), f"{vm.said('(?i)geoip')}")


class HalfArchive:
    """geoip.zst as the kernel leaves it when memory is full."""

    def __enter__(self):
        plain = subprocess.run(
            ["zstd", "-dqc", os.path.join(guest.IMAGE, "geoip.zst")],
            stdout=subprocess.PIPE, check=True,
        ).stdout  # fmt: skip
        self.file = tempfile.NamedTemporaryFile()
        half = plain[: len(plain) // 2]
        subprocess.run(["zstd", "-q"], input=half, stdout=self.file, check=True)
        return self.file.name

    def __exit__(self, *_):
        self.file.close()


def half_a_list_of_countries_is_none():
    torrc = guest.TORRC.format(data="/run/tor/data") + GEOIP_FILE
    with HalfArchive() as half, Guest(torrc=torrc, archives=[half]) as vm:
        vm.connect().wait_until_off()
        check(vm.said(r"^error \d+ the list of countries "), f"{vm.seen[-3:]}")
        check(not vm.said("tor-start"), "Tor was started all the same")


def what_the_guest_cannot_trust_ends_it():
    torrc = guest.TORRC.format(data="/run/tor/data")
    for arguments, text in (
        ({"config": {"colour": "red"}}, "unknown key"),
        ({"drop": ["config"]}, "QEMU handed in no fw_cfg file opt/torvm/config"),
        ({"torrc": torrc + "ControlPort 9051\n"}, "controlport is not allowed"),
        # Tor would go on without it.
        ({"torrc": torrc + GEOIP_FILE}, "the list of countries was not handed in"),
    ):
        with Guest(**arguments) as vm:
            vm.connect().wait_until_off()
            lines = vm.said(r"^error \d+ ")
            check(len(lines) == 1 and text in lines[0], f"{arguments}: {lines}")
            check(not vm.said("tor-start"), "Tor was started all the same")
            vm.console.seek(0)
            console = vm.console.read().decode(errors="replace")
            check(text in console, "the console does not say it")


TESTS = [
    a_boot_goes_through_every_stage_in_order,
    the_torctl_port_reaches_tor_and_only_while_open,
    messages_of_the_host_are_answered,
    a_silent_host_holds_nobody_up,
    tor_is_started_again_and_the_third_exit_ends_the_vm,
    an_unusable_state_disk_is_reported,
    a_state_disk_survives_a_crash_and_is_left_clean,
    tor_knows_countries_by_the_list_that_is_handed_in,
    half_a_list_of_countries_is_none,
    what_the_guest_cannot_trust_ends_it,
]


def main():
    if not os.path.exists(os.path.join(guest.IMAGE, "manifest.json")):
        raise SystemExit(f"there is no image in {guest.IMAGE}: run `make vm`")
    wanted = sys.argv[1:]
    tests = [t for t in TESTS if not wanted or any(w in t.__name__ for w in wanted)]
    return guest.run(tests)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except TestFailure as failure:
        sys.exit(str(failure))
