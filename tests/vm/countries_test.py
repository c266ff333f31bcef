#!/usr/bin/python3
"""Countries in Tor's settings, in the lab: which exits are used, what is shown.

    countries_test.py [--list] [--keep] [WORD...]     cases whose name has a WORD

No real list of countries knows the lab's addresses. So the image under test is
dist/vm with another list in place of geoip.zst, made by the image builder's own code
and named in the manifest like the real one. One case takes the real one.
"""

import json
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from cases import Cases  # noqa: E402
from product import (  # noqa: E402
    TOP,
    Product,
    expect,
    leak_filter,
    run_in_lab,
    same_network,
    wait_for,
)

sys.path.insert(0, os.path.join(TOP, "guest", "image"))
import manifest  # noqa: E402
import rootfs  # noqa: E402

cases = Cases()
REAL_IMAGE = os.path.join(TOP, "dist", "vm")
# Country of each relay: the exits differ, and nobody is in Austria.
COUNTRIES = {
    **{"auth%d" % i: "CH" for i in (1, 2, 3)},
    **{"guard%d" % i: "SE" for i in (1, 2, 3)},
    "exit1": "DE",
    "exit2": "FR",
    "exit3": "NL",
}
NOBODYS = "3221225984,3221226239,AT\n"  # 192.0.2.0/24
# One exit of three is missed by so many circuits, or taken by all of these few, once
# in a million runs.
CIRCUITS = 40
FEW_CIRCUITS = 13
STALL_S = 20


def write_manifest(image, content):
    with open(os.path.join(image, manifest.NAME), "w", encoding="utf-8") as f:
        json.dump(content, f)


def number(address):
    value = 0
    for part in address.split("."):
        value = value * 256 + int(part)
    return value


class Stage(Product):
    """TorVM in the lab, with a list that has the lab's relays."""

    def __init__(self, lab, directory):
        super().__init__(lab, directory, image_dir=os.path.join(directory, "image"))
        self.fetches = 0
        shutil.copytree(REAL_IMAGE, self.image)
        relays = lab.addresses["relays"]
        lines = [
            "%d,%d,%s\n" % (number(relays[nick]), number(relays[nick]), country)
            for nick, country in COUNTRIES.items()
        ]
        tree = rootfs.Geoip(0)
        tree.add("".join([NOBODYS] + lines).encode())
        packed = os.path.join(self.image, "geoip.zst")
        plain = os.path.join(directory, "geoip.cpio")
        with open(plain, "wb") as f:
            tree.archive.write(f)
        subprocess.run(["zstd", "-q", "-f", "-o", packed, plain], check=True)
        content = manifest.load(REAL_IMAGE)
        content["outputs"]["geoip"] = manifest.describe_output(packed)
        content["geoip"]["countries"] = tree.countries
        write_manifest(self.image, content)

    def start(self, options=(), **tor):
        """Up, with these keys of tor and lines of tor.options."""
        self.set(options, **tor)
        self.up()

    def set(self, options=(), **tor):
        self.ensure_down()
        lines = self.lab.torvm_config()["tor"]["options"]
        self.configure(
            tor={"options": [*lines, *options], **tor},
            failsafe={"bootstrap_stall_s": STALL_S},
        )

    def exits_used(self, count, enough=lambda used: False):
        """Nicknames of the exits that a server saw, each fetch by a circuit of its
        own (Tor isolates SOCKS users from each other)."""
        names = {
            address: nick
            for nick, addresses in self.lab.addresses["exits"].items()
            for address in addresses.values()
        }
        used = []
        for _ in range(count):
            self.fetches += 1
            done = self.fetch(
                "http://203.0.113.10/address",
                *("--socks5-hostname", "10.10.10.1:9050"),
                *("--proxy-user", "%d:x" % self.fetches),
                timeout_s=60,
            )
            expect(done.code == 0, "fetch: %s\n%s" % (done, self.log()))
            source = done.out.strip()
            expect(source in names, "the server saw %s, not an exit" % source)
            used.append(names[source])
            if enough(set(used)):
                break
        print("# exits: %s" % " ".join(used))
        return set(used)

    def paths(self):
        """Nicknames of the relays of each circuit, and the countries shown."""
        done = self.torvm("circuits", "--json")
        expect(done.code == 0, "circuits: %s" % done)
        found = []
        for circuit in json.loads(done.out)["circuits"]:
            relays = circuit["relays"]
            found.append(
                (
                    [relay["nickname"] for relay in relays],
                    [relay.get("country") for relay in relays],
                )
            )
        expect(any(len(nicks) == 3 for nicks, _ in found), "circuits: %s" % found)
        return found

    def shows_countries(self):
        for nicks, countries in self.paths():
            expect(
                countries == [COUNTRIES[nick].lower() for nick in nicks],
                "%s are shown in %s" % (nicks, countries),
            )
        done = self.torvm("circuits")
        expect(" {se} > " in done.out, "circuits: %s" % done)


# --- the positive control: all that is found missing below is there ----------------


@cases.case
def without_countries_every_exit_is_used_and_no_country_is_shown(t):
    t.start()
    used = t.exits_used(CIRCUITS, lambda used: len(used) == 3)
    expect(used == {"exit1", "exit2", "exit3"}, "exits: %s" % used)
    shown = [countries for _, countries in t.paths()]
    expect(not any(any(countries) for countries in shown), "countries: %s" % shown)
    expect("GEOIP" not in t.log(), "Tor was given a list")


@cases.case
def countries_are_shown_where_they_are_asked_for(t):
    t.start(geoip=True)
    t.shows_countries()
    used = t.exits_used(CIRCUITS, lambda used: len(used) == 3)
    expect(used == {"exit1", "exit2", "exit3"}, "exits: %s" % used)


# --- what the settings do ------------------------------------------------------------


@cases.case
def exits_of_one_country(t):
    t.start(exit_nodes="{de}")
    expect(t.exits_used(FEW_CIRCUITS) == {"exit1"}, "an exit outside Germany")
    t.shows_countries()
    # Transparent TCP and DNS as well.
    t.page_through_tor()
    # Tor has no complaint about the list.
    for line in t.log().splitlines():
        expect("warning tor: " not in line or "GEOIP" not in line, line)
        expect("ountry code" not in line, line)


@cases.case
def exits_by_an_option_in_capitals(t):
    t.start(options=["ExitNodes {FR}, {NL}"])
    used = t.exits_used(CIRCUITS, lambda used: len(used) == 2)
    used |= t.exits_used(FEW_CIRCUITS)
    expect(used == {"exit2", "exit3"}, "exits: %s" % used)


@cases.case
def exits_of_the_other_countries(t):
    t.start(exclude_exit_nodes="{de},{fr}")
    expect(t.exits_used(FEW_CIRCUITS) == {"exit3"}, "an excluded exit")
    t.shows_countries()


@cases.case
def a_country_is_avoided_altogether(t):
    t.start(exclude_nodes="{de}", strict_nodes=True)
    used = t.exits_used(CIRCUITS, lambda used: len(used) == 2)
    used |= t.exits_used(FEW_CIRCUITS)
    expect(used == {"exit2", "exit3"}, "exits: %s" % used)
    for nicks, _ in t.paths():
        expect("exit1" not in nicks, "a circuit through it: %s" % nicks)


@cases.case
def it_outlives_a_new_vm(t):
    t.start(exit_nodes="{nl}")
    (pid,) = t.qemu_pids()
    t.kill(pid)
    t.wait_state("Blocked", "LaunchVM", "WaitTAP", "WaitBootstrap")
    t.wait_state("Running")
    expect(t.exits_used(FEW_CIRCUITS) == {"exit3"}, "an exit outside the Netherlands")


# --- what cannot be done is said --------------------------------------------------------


def says_that_no_relay_is_left(t):
    t.up_until_blocked()
    with t.lab.capture("countries") as capture:
        status = wait_for(
            "a word about it", lambda: t.status()["obstacle"] and t.status(), 150, 0.5
        )
        expect(status["obstacle"]["kind"] == "relays", "obstacle: %s" % status)
        expect("tor.exit_nodes" in status["obstacle"]["next"], "next: %s" % status)
        expect("finds no relay" in status["last_error"], "error: %s" % status)
        expect(status["state"] == "WaitBootstrap", "state: %s" % status)
        done = t.fetch("http://203.0.113.10/address", timeout_s=10)
        expect(done.code != 0, "a page without an exit: %s" % done)
        capture.sync()
        leaked = capture.show(leak_filter(t.lab))
        expect(not leaked, "leaked:\n%s" % "\n".join(leaked[:20]))


@cases.case
def no_exit_in_the_country(t):
    # Before Tor has a list of relays, and after.
    t.set(exit_nodes="{at}")
    shutil.rmtree(t.state)
    says_that_no_relay_is_left(t)
    t.start(geoip=True)
    t.set(exit_nodes="{at}")
    says_that_no_relay_is_left(t)


@cases.case
def no_relay_outside_what_is_avoided(t):
    t.set(exclude_nodes="{ch},{se},{de},{fr},{nl}", strict_nodes=True)
    shutil.rmtree(t.state)
    says_that_no_relay_is_left(t)


def refused(t, words, image=None):
    """The start is refused with these words, and changes nothing."""
    before = t.snapshot()
    options = t.options()
    if image:
        options[options.index("--image-dir") + 1] = image
    process = t.headless(options=options)
    output, _ = process.communicate(timeout=60)
    expect(process.returncode == 5, "exit %d: %s" % (process.returncode, output))
    for word in words:
        expect(word in output, "no %r in: %s" % (word, output))
    same_network(before, t.snapshot())


@cases.case
def a_country_that_does_not_exist(t):
    t.set(exclude_nodes="192.0.2.1, {uk}")
    refused(t, ["tor.exclude_nodes", "{uk}", "{gb}"])
    t.set(options=["MiddleNodes {xx}"])
    refused(t, ["tor.options", "{xx}"])
    # The same, before a start.
    t.set(exit_nodes="{uk}")
    with open(t.config_path, encoding="utf-8") as f:
        config = json.load(f)
    config["vm"] = {"image_dir": t.image}
    path = os.path.join(t.directory, "checked.json")
    for code, exits in ((4, "{uk}"), (0, "{de}")):
        config["tor"]["exit_nodes"] = exits
        with open(path, "w", encoding="utf-8") as f:
            json.dump(config, f)
        os.chmod(path, 0o600)
        done = t.run(t.program, "config", "check", path)
        expect(done.code == code, "config check: %s" % done)
        expect(code == 0 or "key tor.exit_nodes: " in done.err, "says: %s" % done)


@cases.case
def an_image_without_the_list(t):
    old = os.path.join(t.directory, "old-image")
    shutil.copytree(t.image, old)
    content = manifest.load(old)
    os.unlink(os.path.join(old, content["outputs"].pop("geoip")["file"]))
    content.pop("geoip")
    write_manifest(old, content)
    t.set(exit_nodes="{de}")
    refused(t, ["no list of countries", "make vm"], image=old)
    shutil.rmtree(old)


# --- the real list --------------------------------------------------------------------


@cases.case
def the_real_list_does_not_have_the_labs_relays(t):
    t.ensure_down()
    test_image, t.image = t.image, REAL_IMAGE
    try:
        t.set(exit_nodes="{de}")
        shutil.rmtree(t.state)
        says_that_no_relay_is_left(t)
        # The other way round, they are the relays whose country is not known.
        t.start(exit_nodes="{??}")
        used = t.exits_used(CIRCUITS, lambda used: len(used) == 3)
        expect(used == {"exit1", "exit2", "exit3"}, "exits: %s" % used)
        shown = [countries for _, countries in t.paths()]
        expect(not any(any(c) for c in shown), "countries: %s" % shown)
    finally:
        t.ensure_down()
        t.image = test_image


@cases.case
def with_a_pluggable_transport(t):
    """All archives in one initrd, in the least memory."""
    t.ensure_down()
    t.lab.peers_up("obfs4")
    lines = t.lab.torvm_config()["tor"]["options"]
    t.configure(
        use_bridge="obfs4",
        vm={"memory_mb": 160},
        tor={"options": lines, "exit_nodes": "{fr}"},
    )
    t.up(timeout=240)
    expect(t.exits_used(FEW_CIRCUITS) == {"exit2"}, "an exit outside France")
    t.ensure_down()
    t.lab.peers_down("obfs4")


def main():
    return run_in_lab(cases, Stage, "countries", __doc__)


if __name__ == "__main__":
    sys.exit(main())
