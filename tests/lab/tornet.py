"""The private Tor network: binary, keys, torrcs, and when it is ready.

Theory of operation

Three authorities, three guards, three exits. Tor's first consensus of a testing
network comes at a multiple of TestingV3AuthInitialVotingInterval, shifted by
TestingV3AuthVotingStartOffset. The offset is computed from the clock so that
the first one falls just after every relay has uploaded its descriptor: no
waiting for the next multiple, and never a consensus that lacks a relay. Later
consensuses come every VOTING_INTERVAL seconds and stay valid for many
intervals, so a lab can run for days. The relays get a HUP once the consensus
stands, which makes them fetch it at once instead of at their next retry.

Authority keys are slow to make and kept in build/lab/cache.
"""

import fcntl
import glob
import os
import shutil
import signal
import subprocess
import time

import topology as topo
from errors import LabError, need

ORPORT = 9001
DIRPORT = 9030
KEY_LIFE_S = 90 * 24 * 3600

INITIAL_INTERVAL = 20
# From the start of the authorities to the first consensus; votes go out
# 2 * VOTE_DELAY earlier, and every relay must have uploaded by then.
FIRST_CONSENSUS_S = 13
VOTE_DELAY = 2
VOTING_INTERVAL = 300
READY_TIMEOUT_S = 90


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
            _tool("dpkg-deb", "-x", package, root + ".new")
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
            _tool(*get, cwd=self.dir)
        except LabError:
            # Old lists name a version that the mirror no longer has.
            _tool("apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", "update")
            _tool(*get, cwd=self.dir)

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
            _tool(
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
        with open(torrc, "w", encoding="ascii") as f:
            f.write("")
        out = _tool(
            os.path.join(binaries, "tor"),
            *("--ignore-missing-torrc", "-f", torrc, "--defaults-torrc", torrc),
            *("--list-fingerprint", "--quiet", "--DataDirectory", data),
            *("--Nickname", nick, "--ORPort", str(ORPORT), "--Address", address),
            *("--DirAuthority", "x orport=1 v3ident=%s %s:1 %s" % (v3ident, address, "f" * 40)),
        )
        fingerprint = "".join(out.strip().splitlines()[-1].split()[1:])
        if len(fingerprint) != 40:
            raise LabError("tor --list-fingerprint said: " + out.strip())
        for name in os.listdir(os.path.join(data, "keys")):
            os.rename(os.path.join(data, "keys", name), os.path.join(keys, name))
        shutil.rmtree(data)
        return fingerprint


def _tool(*argv, text=None, cwd=None):
    done = subprocess.run(
        argv,
        input=text,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
    )
    if done.returncode != 0:
        raise LabError("%s failed: %s" % (os.path.basename(argv[0]), done.stdout.strip()))
    return done.stdout


def client_lines(authorities):
    """torrc lines that make any tor a client of this network."""
    lines = ["TestingTorNetwork 1"]
    for nick, v3ident, fingerprint, _ in authorities:
        lines.append(
            "DirAuthority %s orport=%d v3ident=%s %s:%d %s"
            % (nick, ORPORT, v3ident, topo.RELAYS[nick], DIRPORT, fingerprint)
        )
    return lines


def relay_torrc(nick, lines, offset):
    """Complete torrc of one relay or authority."""
    address = topo.RELAYS[nick]
    conf = lines + [
        "Nickname " + nick,
        "DataDirectory /run/tor/" + nick,
        "Log notice stdout",
        "Address " + address,
        "OutboundBindAddress " + address,
        "ORPort %s:%d" % (address, ORPORT),
        "SocksPort 0",
        "AssumeReachable 1",
        "ContactInfo lab@lab.test",
        "DirCache 1",
        "ShutdownWaitLength 0",
    ]
    if nick in topo.EXITS:
        conf += [
            "OutboundBindAddress [%s]" % topo.exit6(address),
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
            "TestingDirAuthVoteGuard " + topo.GUARD_RANGE,
            "TestingDirAuthVoteExit " + topo.EXIT_RANGE,
            "TestingDirAuthVoteHSDir *",
        ]
    return "\n".join(conf) + "\n"


def start(net, authorities, binaries, log_dir):
    """Start every tor of the network; returns nick -> PID inside."""
    lines = client_lines(authorities)
    offset = int(time.time() + FIRST_CONSENSUS_S) % INITIAL_INTERVAL
    keys = {nick: folder for nick, _, _, folder in authorities}
    pids = {}
    os.mkdir(net.path("/run/tor"), 0o700)
    for nick in topo.RELAYS:
        data = net.path("/run/tor/" + nick)
        os.mkdir(data, 0o700)
        if nick in keys:
            shutil.copytree(keys[nick], data + "/keys")
            os.chmod(data + "/keys", 0o700)
        with open(data + "/torrc", "w", encoding="ascii") as f:
            f.write(relay_torrc(nick, lines, offset))
        pids[nick] = net.spawn(
            [
                os.path.join(binaries, "tor"),
                *("-f", "/run/tor/%s/torrc" % nick),
                *("--defaults-torrc", "/dev/null"),
            ],
            os.path.join(log_dir, nick + ".log"),
        )
    return pids


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


def wait_ready(net, pids, log_dir):
    """Wait until the consensus holds every relay and every relay has it."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while True:
        state = consensus(net)
        if state and state["relays"] == len(topo.RELAYS):
            if state["exits"] == len(topo.EXITS):
                break
        for nick, pid in pids.items():
            if not net.alive(pid):
                raise LabError(
                    "%s's tor ended: %s" % (nick, tail(log_dir + "/%s.log" % nick))
                )
        if time.monotonic() > deadline:
            raise LabError(
                "no usable consensus within %d s (%s); the logs are in %s"
                % (READY_TIMEOUT_S, state, log_dir)
            )
        time.sleep(0.2)
    for nick, pid in pids.items():
        if nick not in topo.AUTHORITIES:
            net.kill(pid, signal.SIGHUP)


def tail(path, lines=5):
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            return "".join(f.readlines()[-lines:]).strip()
    except FileNotFoundError:
        return "(no log)"
