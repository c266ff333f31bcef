"""The peers' programs: Debian's packages, unpacked and not installed.

Theory of operation

Installing nginx or squid would start services on the machine, and two of them
refuse to be installed together. So their packages are only unpacked, into one
folder of the lab's cache, together with whatever libraries of theirs the machine
lacks: apt is asked what it would download to install them, and it keeps the rest
to itself. Programs run with that folder's libraries first (environment()).

Pluggable transports come from sid, which has the versions that the VM carries, and
dante from bookworm, because trixie has none, by a private apt configuration
(scripts/apt-private).
"""

import glob
import os
import shutil
import subprocess

from errors import LabError, need

HERE = os.path.dirname(os.path.realpath(__file__))
SCRIPTS = os.path.join(os.path.dirname(os.path.dirname(HERE)), "scripts")

# squid-openssl is squid with TLS; it serves as both.
OWN = "obfs4proxy nginx squid-openssl tinyproxy-bin microsocks".split()
OTHER_SUITES = {
    "sid": "lyrebird webtunnel snowflake-client".split(),
    "bookworm": "dante-server libwrap0 libnsl2 libtirpc3".split(),
}

# name: path below the folder
PROGRAMS = {
    "lyrebird": "usr/bin/lyrebird",
    "obfs4proxy": "usr/bin/obfs4proxy",
    "webtunnel-server": "usr/bin/webtunnel-server",
    "snowflake-client": "usr/bin/snowflake-client",
    "nginx": "usr/sbin/nginx",
    "squid": "usr/sbin/squid",
    "squid-password-helper": "usr/lib/squid/basic_ncsa_auth",
    "tinyproxy": "usr/bin/tinyproxy",
    "microsocks": "usr/bin/microsocks",
    "danted": "usr/sbin/danted",
}


def tool(*argv, text=None, cwd=None):
    """Run a tool; returns its output, LabError with its words when it fails."""
    done = subprocess.run(
        argv,
        input=text,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
    )
    if done.returncode != 0:
        name = os.path.basename(argv[0])
        raise LabError("%s failed: %s" % (name, done.stdout.strip()))
    return done.stdout


def peers_root(cache):
    """Folder with the peers' programs, made on the first call.

    cache: the lab's cache folder, locked by the caller.
    """
    root = os.path.join(cache, "peers")
    if not os.path.isdir(root):
        need("apt-get", "dpkg-deb")
        new = root + ".new"
        shutil.rmtree(new, ignore_errors=True)
        debs = os.path.join(new, "debs")
        os.makedirs(os.path.join(debs, "partial"))
        _download_own(debs)
        private = os.path.join(SCRIPTS, "apt-private")
        for suite, names in OTHER_SUITES.items():
            tool(private, "--download", suite, *names, cwd=debs)
        for deb in glob.glob(os.path.join(debs, "*.deb")):
            tool("dpkg-deb", "-x", deb, new)
        shutil.rmtree(debs)
        # In Debian 13 an alternative, which installing would make.
        squid = os.path.join(new, "usr", "sbin", "squid")
        if not os.path.lexists(squid):
            os.symlink("squid-openssl", squid)
        os.rename(new, root)
    missing = [n for n in PROGRAMS if not os.access(program(root, n), os.X_OK)]
    if missing:
        raise LabError(
            "%s lacks: %s. Delete that folder and try again; it is filled anew"
            % (root, ", ".join(missing))
        )
    return root


def _download_own(debs):
    # The archives' lock is enough: nothing is installed.
    get = ["apt-get", "-q", "-y", "-o", "Debug::NoLocking=1"]
    get += ["-o", "APT::Sandbox::User=root", "-o", "Dir::Cache::archives=" + debs]
    get += ["--no-install-recommends", "--reinstall", "--download-only", "install"]
    try:
        tool(*get, *OWN)
    except LabError:
        # Old lists name versions that the mirror no longer has.
        tool("apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", "update")
        tool(*get, *OWN)


def program(root, name):
    return os.path.join(root, PROGRAMS[name])


def environment(root):
    """["NAME=VALUE"] that the programs need."""
    libraries = glob.glob(os.path.join(root, "usr", "lib", "*-linux-gnu"))
    libraries += glob.glob(os.path.join(root, "lib", "*-linux-gnu"))
    return ["LD_LIBRARY_PATH=" + ":".join(libraries)]
