#!/usr/bin/env python3
"""The VM image builder as a whole: the same bytes twice, nothing done when
nothing changed, nothing in the image that could interpret commands, and no
package or list believed that the archive did not sign.

Needs build/guest/init/init, and Debian's mirror unless the packages are cached.
TORVM_IMAGE_CACHE: the cache to start from (default: build-cache/image-amd64).
"""

import functools
import glob
import http.server
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import unittest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILDER = os.path.join(TOP, "guest", "image", "build-image")
INIT = os.path.join(TOP, "build", "guest", "init", "init")
CACHE = os.environ.get(
    "TORVM_IMAGE_CACHE", os.path.join(TOP, "build-cache", "image-amd64")
)

# Nothing listens there: with it, whoever uses the network fails.
NO_NETWORK = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}


def run(*args, cwd=None, umask=0o022, **environment):
    return subprocess.run(
        [BUILDER, "--arch", "amd64", *args],
        cwd=cwd,
        env=dict(os.environ, **environment),
        preexec_fn=lambda: os.umask(umask),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def build(out, cache, **kwargs):
    return run("--init", INIT, "--out", out, "--cache", cache, **kwargs)


def read(path):
    with open(path, "rb") as file:
        return file.read()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files without a line on stderr for each."""

    def log_message(self, *_args):
        pass


class ImageTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if not os.path.exists(INIT):
            raise unittest.SkipTest(f"{INIT} is not built: ninja -C build")
        cls.top = tempfile.mkdtemp(prefix="torvm-image-test-")
        # So that an apt run as root may hand it to its user _apt.
        os.chmod(cls.top, 0o755)
        cls.addClassCleanup(shutil.rmtree, cls.top)
        cls.cache = os.path.join(cls.top, "cache")
        if os.path.isdir(CACHE):
            shutil.copytree(CACHE, cls.cache)
        cls.out = os.path.join(cls.top, "first", "vm")
        result = build(cls.out, cls.cache)
        if result.returncode != 0:
            raise AssertionError(f"the first build failed:\n{result.stdout}")
        with open(os.path.join(cls.out, "manifest.json"), encoding="utf-8") as file:
            cls.manifest = json.load(file)

    def copy_of_cache(self, name):
        path = os.path.join(self.top, name)
        shutil.copytree(self.cache, path)
        self.addCleanup(shutil.rmtree, path)
        return path

    def assert_refused(self, result, words, out):
        self.assertNotEqual(result.returncode, 0, result.stdout)
        self.assertRegex(result.stdout, words)
        self.assertNotIn("Traceback", result.stdout)
        self.assertFalse(os.path.exists(os.path.join(out, "manifest.json")))

    # -- the result

    def test_same_bytes_elsewhere(self):
        place = os.path.join(self.top, "second place")
        os.mkdir(place)
        result = build(
            "vm", self.copy_of_cache("cache-2"), cwd=place, umask=0o077,
            TZ="Pacific/Auckland", LC_ALL="de_DE.UTF-8", HOME="/nonexistent",
            **NO_NETWORK,
        )
        self.assertEqual(result.returncode, 0, result.stdout)
        names = sorted(os.listdir(self.out))
        self.assertEqual(
            names,
            ["geoip.zst", "initramfs.zst", "manifest.json", "state.img",
             "transports.zst", "vmlinuz"],
        )
        self.assertEqual(sorted(os.listdir(os.path.join(place, "vm"))), names)
        for name in names:
            other = os.path.join(place, "vm", name)
            self.assertEqual(
                read(os.path.join(self.out, name)), read(other), f"{name} differs"
            )
            self.assertEqual(os.stat(other).st_mode & 0o777, 0o644, name)
        self.assertEqual(os.listdir(place), ["vm"], "nothing else is left")

    def test_rebuild_does_nothing(self):
        before = self.identities()
        result = build(self.out, os.path.join(self.top, "no-cache"), **NO_NETWORK)
        self.assertEqual(result.returncode, 0, result.stdout)
        self.assertIn("is up to date", result.stdout)
        after = self.identities()
        self.assertEqual(before, after)

    def identities(self):
        """What changes when an output is written again (reading does not)."""
        found = {}
        for name in os.listdir(self.out):
            status = os.stat(os.path.join(self.out, name))
            found[name] = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
        return found

    def test_only_what_is_needed(self):
        paths = self.manifest["initramfs"]["paths"]
        for needed in ("/init", "/usr/bin/tor", "/etc/torvm/modules", "/etc/passwd"):
            self.assertIn(needed, paths)
        programs = [p for p in paths if "/bin/" in p or "/sbin/" in p]
        self.assertEqual(programs, ["/usr/bin/tor"])
        for path in paths:
            name = os.path.basename(path)
            self.assertNotRegex(
                name, r"^(ba|da|z|k|c)?sh$|busybox|toybox|perl|python|lua|awk"
            )
        # The manifest does not say so by itself: look into the archive.
        listing = self.unpack(["cpio", "-it", "--quiet"]).decode().split()
        self.assertEqual(["/" + name for name in listing], paths)

    def test_transports(self):
        transports = self.manifest["transports"]
        self.assertEqual(
            [os.path.basename(p) for p in transports["paths"]
             if "." in p or "/bin/" in p],
            ["ca-certificates.crt", "lyrebird", "stunnel4", "libwrap.so.0"],
        )
        # Beside Tor there is none of it.
        self.assertNotIn("/usr/bin/lyrebird", self.manifest["initramfs"]["paths"])
        sizes = {k: v["size"] for k, v in self.manifest["outputs"].items()}
        self.assertLess(sizes["initramfs"], 9 << 20)
        self.assertLess(sizes["transports"], 8 << 20)
        self.assertIn("lyrebird", [p["name"] for p in self.manifest["packages"]])

    def test_countries(self):
        geoip = self.manifest["geoip"]
        self.assertEqual(
            [p for p in geoip["paths"] if "geoip" in p],
            ["/usr/share/tor/geoip", "/usr/share/tor/geoip6"],
        )
        # The second says that the first was unpacked.
        self.assertEqual(geoip["paths"][-1], "/usr/share/tor/geoip6")
        self.assertNotIn("/usr/share/tor/geoip", self.manifest["initramfs"]["paths"])
        self.assertLess(geoip["unpacked_size"], 12 << 20)
        self.assertLess(self.manifest["outputs"]["geoip"]["size"], 3 << 20)
        for code in ("de", "us", "gb"):
            self.assertIn(code, geoip["countries"])
        self.assertNotIn("uk", geoip["countries"])
        self.assertNotIn("??", geoip["countries"])
        # Where it is from, how old it is and what may be done with it.
        packages = {p["name"]: p for p in self.manifest["packages"]}
        self.assertEqual(
            packages["tor-geoipdb"]["source_version"], packages["tor"]["source_version"]
        )
        self.assertRegex(geoip["generated"], r"\b20\d\d\b")
        self.assertEqual(geoip["license"], "CC BY-SA 4.0")

    def test_modules_in_load_order(self):
        listing = self.unpack(
            ["cpio", "-i", "--quiet", "--to-stdout", "etc/torvm/modules"]
        ).decode().splitlines()
        names = [os.path.basename(p).partition(".")[0] for p in listing]
        for path in listing:
            self.assertIn(path, self.manifest["initramfs"]["paths"])
        for before, after in (
            ("nf_tables", "nft_ct"), ("nf_conntrack", "nft_ct"),
            ("nf_nat", "nft_redir"), ("net_failover", "virtio_net"),
        ):
            self.assertLess(names.index(before), names.index(after))

    def test_manifest(self):
        self.assertEqual(self.manifest["schema"], 1)
        packages = {p["name"]: p for p in self.manifest["packages"]}
        for name in ("tor", "libc6", "libssl3t64"):
            self.assertRegex(packages[name]["version"], r"^\d")
            self.assertRegex(packages[name]["sha256"], r"^[0-9a-f]{64}$")
        for source in self.manifest["files"]:
            self.assertIn(source["package"], packages)
        mirror = read(os.path.join(self.cache, "apt", "complete")).decode().strip()
        host = mirror.split("/")[2]
        self.assertNotIn(host, json.dumps(self.manifest))
        self.assertEqual(run("--check", "--out", self.out).returncode, 0)

    def test_check_notices(self):
        copy = os.path.join(self.top, "changed")
        shutil.copytree(self.out, copy)
        self.addCleanup(shutil.rmtree, copy)
        with open(os.path.join(copy, "initramfs.zst"), "r+b") as file:
            file.write(b"\0")
        result = run("--check", "--out", copy)
        self.assertEqual(result.returncode, 1)
        self.assertIn("initramfs.zst has another content", result.stdout)

    def test_state_disk(self):
        image = os.path.join(self.out, "state.img")
        self.assertEqual(os.path.getsize(image), 64 << 20)
        self.assertLess(os.stat(image).st_blocks * 512, 16 << 20, "sparse")
        environment = dict(os.environ, PATH=os.environ["PATH"] + ":/usr/sbin:/sbin")
        listed = subprocess.run(
            ["debugfs", "-R", "stat /tor", image], check=True, env=environment,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        ).stdout
        self.assertRegex(listed, r"User:\s+100\s+Group:\s+100\b")
        self.assertRegex(listed, r"Mode:\s+0700\b")

    def unpack(self, argv):
        plain = subprocess.run(
            ["zstd", "-dqc", os.path.join(self.out, "initramfs.zst")],
            check=True, stdout=subprocess.PIPE,
        ).stdout
        return subprocess.run(
            argv, input=plain, check=True, stdout=subprocess.PIPE
        ).stdout

    # -- what is not believed

    def test_tampered_package(self):
        cache = self.copy_of_cache("cache-tampered")
        (deb,) = glob.glob(os.path.join(cache, "debs", "tor_*.deb"))
        with open(deb, "r+b") as file:
            file.seek(5000)
            file.write(b"tampered")
        out = os.path.join(self.top, "tampered")
        result = build(out, cache, **NO_NETWORK)
        self.assert_refused(result, r"is damaged(.|\n)*could not fetch tor", out)

    def local_mirror(self, name, change):
        """The URL of a mirror made of the lists that apt fetched, changed by
        change(path of its InRelease, path of its Packages). It has no packages
        and Packages only uncompressed, which apt takes when all else is 404."""
        lists = os.path.join(self.cache, "apt", "lists")
        (release,) = glob.glob(os.path.join(lists, "*_dists_trixie_InRelease"))
        (packages,) = glob.glob(
            os.path.join(lists, "*_dists_trixie_main_binary-amd64_Packages")
        )
        mirror = os.path.join(self.top, name)
        top = os.path.join(mirror, "dists", "trixie")
        os.makedirs(os.path.join(top, "main", "binary-amd64"))
        self.addCleanup(shutil.rmtree, mirror)
        shutil.copy(release, os.path.join(top, "InRelease"))
        target = os.path.join(top, "main", "binary-amd64", "Packages")
        shutil.copy(packages, target)
        change(os.path.join(top, "InRelease"), target)
        server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(Quiet, directory=mirror)
        )
        self.addCleanup(server.server_close)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.shutdown)
        return f"http://127.0.0.1:{server.server_port}"

    def assert_mirror_refused(self, name, change, words):
        mirror = self.local_mirror(name, change)
        out = os.path.join(self.top, name + "-out")
        result = build(
            out, os.path.join(self.top, name + "-cache"), DEBIAN_MIRROR=mirror,
        )
        self.assert_refused(result, words, out)

    def test_untouched_local_mirror(self):
        # The control of the two below: these lists as they are, are believed;
        # the build then stops for want of the packages themselves.
        self.assert_mirror_refused(
            "mirror-good", lambda release, packages: None, r"could not fetch tor"
        )

    def test_tampered_list(self):
        def change(_release, packages):
            with open(packages, "r+b") as file:
                file.write(b"PACKAGE")
        self.assert_mirror_refused(
            "mirror-list", change, r"Hash Sum mismatch"
        )

    def test_tampered_signature(self):
        def change(release, _packages):
            text = read(release).replace(b"Codename: trixie", b"Codename: trixiE")
            with open(release, "wb") as file:
                file.write(text)
        self.assert_mirror_refused(
            "mirror-signature", change, r"not signed|signature"
        )

    def test_no_network(self):
        out = os.path.join(self.top, "offline")
        result = build(
            out, os.path.join(self.top, "offline-cache"),
            DEBIAN_MIRROR="http://127.0.0.1:9/debian",
        )
        self.assert_refused(result, r"check the network", out)

    # -- bad arguments

    def test_bad_input(self):
        out = os.path.join(self.top, "bad")
        self.assert_refused(
            run("--arch", "vax", "--init", INIT, "--out", out),
            r"unknown architecture 'vax'(.|\n)*amd64, arm64", out,
        )
        self.assert_refused(
            run("--init", "/nonexistent/init", "--out", out),
            r"/nonexistent/init", out,
        )
        self.assert_refused(
            run("--init", sys.executable, "--out", out, "--cache", self.cache),
            r"not a static program", out,
        )


if __name__ == "__main__":
    unittest.main(verbosity=2)
