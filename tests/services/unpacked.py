"""Debian's packages of the services, unpacked into a folder, never installed.

Installing them would start them and hand them this machine's network. apt works
out what they need beyond what is installed here, and downloads it; nothing but the
folder below the lab's cache is written.
"""

import fcntl
import glob
import os
import shutil
import sys

sys.path.insert(
    0, os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "lab")
)

import packages  # noqa: E402
from errors import LabError  # noqa: E402

SERVICES = ("systemd", "systemd-resolved", "network-manager", "firewalld")
# Taken alone: apt would install none of them beside the others.
ALONE = ("libnss-resolve", "openresolv", "resolvconf")
# These two have the same files, and get a folder each.
OWN_FOLDER = ("openresolv", "resolvconf")


def fetch(directory):
    """Folder with usr/ and etc/ of the packages; openresolv and resolvconf have one
    each in it. Kept from one run to the next."""
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, "lock"), "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        root = os.path.join(directory, "root")
        stamp = os.path.join(root, "versions")
        wanted = _installed_versions()
        if os.path.exists(stamp):
            with open(stamp, encoding="utf-8") as f:
                if f.read() == wanted:
                    return root
        shutil.rmtree(root, ignore_errors=True)
        archives = os.path.join(directory, "archives")
        shutil.rmtree(archives, ignore_errors=True)
        os.makedirs(os.path.join(archives, "partial"))
        try:
            _download(archives)
        except LabError:
            # Old lists name versions that the mirror no longer has.
            packages.tool("apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", "update")
            _download(archives)
        for package in sorted(glob.glob(os.path.join(archives, "*.deb"))):
            name = os.path.basename(package).partition("_")[0]
            _unpack(package, os.path.join(root, name) if name in OWN_FOLDER else root)
        shutil.rmtree(archives)
        with open(stamp, "w", encoding="utf-8") as f:
            f.write(wanted)
    return root


def _installed_versions():
    """What the unpacked folder was made for: another set of installed packages
    may lack what this one had."""
    return packages.tool("dpkg-query", "-W")


def _apt(*args, cwd=None):
    # The archives' lock, which ours is, is enough: nothing is installed.
    get = ["apt-get", "-q", "-y", "-o", "Debug::NoLocking=1"]
    get += ["-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3"]
    packages.tool(*get, *args, cwd=cwd)


def _download(archives):
    _apt(
        *("--download-only", "--no-install-recommends"),
        *("-o", "Dir::Cache::archives=" + archives, "install", *SERVICES),
    )
    _apt("download", *ALONE, cwd=archives)


def _unpack(package, root):
    os.makedirs(root, exist_ok=True)
    packages.tool("dpkg-deb", "-x", package, root)
    # Packages of Debian 12 still have files in /lib, which is a link here.
    for name in ("lib", "bin", "sbin"):
        old = os.path.join(root, name)
        if os.path.isdir(old) and not os.path.islink(old):
            shutil.copytree(
                old, os.path.join(root, "usr", name), symlinks=True, dirs_exist_ok=True
            )
            shutil.rmtree(old)
