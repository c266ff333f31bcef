"""The private Tor network: binary, keys, torrcs, and when it is ready.

Theory of operation

Three authorities, three guards, three exits. Tor's first consensus of a testing
network comes at a multiple of TestingV3AuthInitialVotingInterval, shifted by
TestingV3AuthVotingStartOffset. The offset is computed from the clock so that
the first one falls just after every relay has uploaded its descriptor: no
waiting for the next multiple, and never a consensus that lacks a relay. Later
consensuses come every VOTING_INTERVAL seconds and stay valid for many
intervals, so a lab can run for days. If a busy machine made a relay come too
late, the network is started anew with more time: the next consensus would be
VOTING_INTERVAL away, and a shorter interval would make every client of the lab
fetch more often than real ones do. The relays get a HUP once the consensus stands,
which makes them fetch it at once instead of at their next retry.

Relays this young have measured no bandwidth, and a client's weighted choice would
fall on the same one or two every time. So the authorities vote the same bandwidth
for all guards and exits, from the file that a bandwidth scanner would write
(bandwidth-file-spec); themselves they leave unmeasured, hence all but unused.

One more tor, "onion", is no relay: it serves www4.lab.test as an onion service.

Authority keys are slow to make and kept in build/lab/cache.
"""

import fcntl
import glob
import os
import shutil
import signal
import subprocess
import time

import packages
import pki
import topology as topo
from errors import LabError, need
from packages import tool

ORPORT = 9001
DIRPORT = 9030
BANDWIDTHS = "/run/tor/bandwidths"
BANDWIDTH_KB = 10000
KEY_LIFE_S = 90 * 24 * 3600

INITIAL_INTERVAL = 20
# From the start of the authorities to the first consensus; votes go out
# 2 * VOTE_DELAY earlier, and every relay must have uploaded by then. Tried in
# turn: 13 s are enough on two free cores, a busy machine needs more.
FIRST_CONSENSUS_S = (13, 30, 60)
VOTE_DELAY = 2
VOTING_INTERVAL = 300
# How long after its time a consensus may take to appear.
CONSENSUS_GRACE_S = 10


class Cache:
    """What outlives a lab: tor's binaries and the authorities' keys."""

    def __init__(self, directory):
        self.dir = directory

    def __enter__(self):
        os.makedirs(self.dir, exist_ok=True)
        self._lock = open(os.path.join(self.dir, "lock"), "w", encoding="ascii")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_):
        self._lock.close()

    def tor(self):
        """Folder with tor and tor-gencert: Debian's package, not installed
        (that would start a Tor service on this machine)."""
        root = os.path.join(self.dir, "tor")
        binaries = os.path.join(root, "usr", "bin")
        if not os.path.exists(os.path.join(binaries, "tor-gencert")):
            need("apt-get", "dpkg-deb")
            shutil.rmtree(root, ignore_errors=True)
            self._download()
            (package,) = glob.glob(os.path.join(self.dir, "tor_*.deb"))
            tool("dpkg-deb", "-x", package, root + ".new")
            os.rename(root + ".new", root)
            os.unlink(package)
        probe = subprocess.run(
            [os.path.join(binaries, "tor"), "--version"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            universal_newlines=True,
        )
        if probe.returncode != 0:
            raise LabError(
                "Debian's tor does not run here: %s\nNothing was changed. Install "
                "its libraries with: scripts/install-deps test" % probe.stdout.strip()
            )
        return binaries

    def _download(self):
        for stale in glob.glob(os.path.join(self.dir, "tor_*.deb")):
            os.unlink(stale)
        get = ("apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", "tor")
        try:
            tool(*get, cwd=self.dir)
        except LabError:
            # Old lists name a version that the mirror no longer has.
            tool("apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", "update")
            tool(*get, cwd=self.dir)

    def peers(self):
        """Folder with the peers' programs, see packages.py."""
        return packages.peers_root(self.dir)

    def certificates(self):
        """Folder with certificates for the peers, see pki.py."""
        return pki.certificates(self.dir)

    def authorities(self, binaries):
        """Make or reuse keys; returns [(nick, v3ident, fingerprint, keys)]."""
        return [self._authority(n, binaries) for n in topo.AUTHORITIES]

    def _authority(self, nick, binaries):
        keys = os.path.join(self.dir, "keys", nick)
        certificate = os.path.join(keys, "authority_certificate")
        ids = os.path.join(keys, "ids")
        try:
            fresh = time.time() - os.stat(ids).st_mtime < KEY_LIFE_S
        except FileNotFoundError:
            fresh = False
        if not fresh:
            shutil.rmtree(keys, ignore_errors=True)
            os.makedirs(keys, 0o700)
            # tor-gencert asks for a passphrase; there is nothing to guard.
            tool(
                os.path.join(binaries, "tor-gencert"),
                *("--create-identity-key", "--passphrase-fd", "0", "-m", "12"),
                *("-i", "authority_identity_key", "-s", "authority_signing_key"),
                *("-c", "authority_certificate"),
                text="lab\n",
                cwd=keys,
            )
            with open(certificate, encoding="ascii") as f:
                v3ident = next(x.split()[1] for x in f if x.startswith("fingerprint "))
            fingerprint = self._relay_fingerprint(nick, v3ident, binaries, keys)
            with open(ids + ".new", "w", encoding="ascii") as f:
                f.write("%s %s\n" % (v3ident, fingerprint))
            os.rename(ids + ".new", ids)
        with open(ids, encoding="ascii") as f:
            v3ident, fingerprint = f.read().split()
        return nick, v3ident, fingerprint, keys

    def _relay_fingerprint(self, nick, v3ident, binaries, keys):
        data = os.path.join(self.dir, "keys", nick + ".tmp")
        shutil.rmtree(data, ignore_errors=True)
        os.makedirs(data, 0o700)
        address = topo.AUTHORITIES[nick]
        torrc = os.path.join(data, "torrc")
        # The address that counts is ours; the rest of the line is not looked at.
        line = "x orport=1 v3ident=%s %s:1 %s" % (v3ident, address, "f" * 40)
        with open(torrc, "w", encoding="ascii") as f:
            f.write("")
        out = tool(
            os.path.join(binaries, "tor"),
            *("--ignore-missing-torrc", "-f", torrc, "--defaults-torrc", torrc),
            *("--list-fingerprint", "--quiet", "--DataDirectory", data),
            *("--Nickname", nick, "--ORPort", str(ORPORT), "--Address", address),
            *("--DirAuthority", line),
        )
        fingerprint = "".join(out.strip().splitlines()[-1].split()[1:])
        if len(fingerprint) != 40:
            raise LabError("tor --list-fingerprint said: " + out.strip())
        for name in os.listdir(os.path.join(data, "keys")):
            os.rename(os.path.join(data, "keys", name), os.path.join(keys, name))
        shutil.rmtree(data)
        return fingerprint


def client_lines(authorities):
    """torrc lines that make any tor a client of this network."""
    lines = ["TestingTorNetwork 1"]
    for nick, v3ident, fingerprint, _ in authorities:
        lines.append(
            "DirAuthority %s orport=%d ipv6=[%s]:%d v3ident=%s %s:%d %s"
            % (
                *(nick, ORPORT, topo.relay6(topo.RELAYS[nick]), ORPORT),
                *(v3ident, topo.RELAYS[nick], DIRPORT, fingerprint),
            )
        )
    return lines


def relay_torrc(nick, lines, offset):
    """Complete torrc of one relay or authority."""
    address = topo.RELAYS[nick]
    address6 = topo.relay6(address)
    conf = lines + [
        "Nickname " + nick,
        "DataDirectory /run/tor/" + nick,
        "Log notice stdout",
        "Address " + address,
        "Address [%s]" % address6,
        "OutboundBindAddress " + address,
        "OutboundBindAddress [%s]" % address6,
        "ORPort %s:%d" % (address, ORPORT),
        "ORPort [%s]:%d" % (address6, ORPORT),
        "SocksPort 0",
        "AssumeReachable 1",
        "ContactInfo lab@lab.test",
        "DirCache 1",
        "ShutdownWaitLength 0",
    ]
    if nick in topo.EXITS:
        conf += [
            "ExitRelay 1",
            "IPv6Exit 1",
            "ExitPolicy accept *:*",
            # The zone is small and has no wildcard of its own: nothing to test.
            "ServerDNSDetectHijacking 0",
            "ServerDNSAllowBrokenConfig 1",
        ]
    else:
        conf += ["ExitRelay 0", "ExitPolicy reject *:*"]
    if nick in topo.AUTHORITIES:
        conf += [
            "DirPort %s:%d" % (address, DIRPORT),
            "AuthoritativeDirectory 1",
            "V3AuthoritativeDirectory 1",
            "TestingV3AuthInitialVotingInterval %d" % INITIAL_INTERVAL,
            "TestingV3AuthInitialVoteDelay %d" % VOTE_DELAY,
            "TestingV3AuthInitialDistDelay %d" % VOTE_DELAY,
            "TestingV3AuthVotingStartOffset %d" % offset,
            "V3AuthVotingInterval %d" % VOTING_INTERVAL,
            "V3AuthVoteDelay %d" % VOTE_DELAY,
            "V3AuthDistDelay %d" % VOTE_DELAY,
            "V3AuthNIntervalsValid 100",
            "V3BandwidthsFile " + BANDWIDTHS,
            # The relays' IPv6 addresses are tried, and named if they answer.
            "AuthDirHasIPv6Connectivity 1",
            "TestingDirAuthVoteGuard " + topo.GUARD_RANGE,
            "TestingDirAuthVoteExit " + topo.EXIT_RANGE,
            "TestingDirAuthVoteHSDir *",
        ]
    return "\n".join(conf) + "\n"


def onion_torrc(lines):
    """torrc of the onion service."""
    return (
        "\n".join(
            lines
            + [
                "DataDirectory /run/tor/onion",
                "Log [~rend]notice [rend]info stdout",
                "SocksPort 0",
                "HiddenServiceDir /run/tor/onion/service",
                "HiddenServicePort 80 %s:80" % topo.SERVERS["www4.lab.test"][0],
            ]
        )
        + "\n"
    )


def start(net, authorities, binaries, log_dir):
    """Start every tor of the network and wait until a client can use it;
    returns nick -> PID inside."""
    for delay_s in FIRST_CONSENSUS_S:
        pids = _start(net, authorities, binaries, log_dir, delay_s)
        _write_bandwidths(net, pids, log_dir)
        state = _first_consensus(net, pids, log_dir, delay_s)
        if _complete(state):
            for nick, pid in pids.items():
                if nick not in topo.AUTHORITIES:
                    net.kill(pid, signal.SIGHUP)
            return pids
        for pid in pids.values():
            net.end(pid)
        shutil.rmtree(net.path("/run/tor"))
    raise LabError(
        "no complete consensus (%s), though every tor runs: is the machine very "
        "busy? The logs are in %s" % (state, log_dir)
    )


def _start(net, authorities, binaries, log_dir, delay_s):
    lines = client_lines(authorities)
    offset = int(time.time() + delay_s) % INITIAL_INTERVAL
    keys = {nick: folder for nick, _, _, folder in authorities}
    torrcs = {nick: relay_torrc(nick, lines, offset) for nick in topo.RELAYS}
    torrcs["onion"] = onion_torrc(lines)
    pids = {}
    os.mkdir(net.path("/run/tor"), 0o700)
    for nick, torrc in torrcs.items():
        data = net.path("/run/tor/" + nick)
        os.mkdir(data, 0o700)
        if nick in keys:
            shutil.copytree(keys[nick], data + "/keys")
            os.chmod(data + "/keys", 0o700)
        with open(data + "/torrc", "w", encoding="ascii") as f:
            f.write(torrc)
        pids[nick] = net.spawn(
            [
                os.path.join(binaries, "tor"),
                *("-f", "/run/tor/%s/torrc" % nick),
                *("--defaults-torrc", "/dev/null"),
            ],
            os.path.join(log_dir, nick + ".log"),
        )
    return pids


def _write_bandwidths(net, pids, log_dir):
    """Same bandwidth for every guard and exit, as soon as they have made their
    keys; the authorities read the file when they vote."""
    lines = ["%d" % time.time()]
    for nick in (*topo.GUARDS, *topo.EXITS):
        path = net.path("/run/tor/%s/fingerprint" % nick)
        while True:
            try:
                with open(path, encoding="ascii") as f:
                    words = f.read().split()
            except FileNotFoundError:
                words = []
            if len(words) == 2:
                break
            _still_runs(net, nick, pids[nick], log_dir)
            time.sleep(0.05)
        lines.append("node_id=$%s bw=%d" % (words[1], BANDWIDTH_KB))
    path = net.path(BANDWIDTHS)
    with open(path + ".new", "w", encoding="ascii") as f:
        f.write("\n".join(lines) + "\n")
    os.rename(path + ".new", path)


def _still_runs(net, nick, pid, log_dir):
    if not net.alive(pid):
        raise LabError("%s's tor ended: %s" % (nick, tail(log_dir + "/%s.log" % nick)))


def _complete(state):
    return (
        state is not None
        and state["relays"] == len(topo.RELAYS)
        and state["exits"] == len(topo.EXITS)
    )


def _first_consensus(net, pids, log_dir, delay_s):
    """The first consensus, or None when it is overdue."""
    deadline = time.monotonic() + delay_s + CONSENSUS_GRACE_S
    while time.monotonic() < deadline:
        state = consensus(net)
        if state:
            return state
        for nick, pid in pids.items():
            _still_runs(net, nick, pid, log_dir)
        time.sleep(0.2)
    return None


def onion_address(net):
    """Host name of the onion service, or None before it is made."""
    try:
        with open(net.path("/run/tor/onion/service/hostname"), encoding="ascii") as f:
            return f.read().strip()
    except FileNotFoundError:
        return None


def onion_ready(log_dir):
    """Whether every relay that is to hold the onion service's descriptor has it.

    A client that asks one of them too early does not ask it again for minutes.
    """
    with open(os.path.join(log_dir, "onion.log"), encoding="utf-8") as f:
        log = f.read()
    begun = log.count("initiated upload request")
    return begun > 0 and log.count("Uploaded hidden service descriptor") >= begun


def consensus(net):
    """State of the consensus, asked of the first authority over HTTP:
    {"valid_after", "valid_until", "relays", "exits"}, or None."""
    url = "http://%s:%d/tor/status-vote/current/consensus-microdesc" % (
        topo.AUTHORITIES["auth1"],
        DIRPORT,
    )
    done = net.run(
        ["curl", "-sf", "--noproxy", "*", "-m", "5", url],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        universal_newlines=True,
    )
    if done.returncode != 0:
        return None
    state = {"valid_after": None, "valid_until": None, "relays": 0, "exits": 0}
    for line in done.stdout.splitlines():
        word, _, rest = line.partition(" ")
        if word in ("valid-after", "valid-until"):
            state[word.replace("-", "_")] = rest
        elif word == "r":
            state["relays"] += 1
        elif word == "s" and "Exit" in rest.split():
            state["exits"] += 1
    return state


def tail(path, lines=5):
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            return "".join(f.readlines()[-lines:]).strip()
    except FileNotFoundError:
        return "(no log)"
