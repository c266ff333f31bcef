"""Package records and the contents of packages."""

import os
import shutil
import subprocess
import tempfile
import unittest

import debian
from report import BuildError

RECORD = """Package: tor
Source: torsrc (1.2-3)
Version: 1.2-3+b1
Architecture: amd64
Pre-Depends: libc6 (>= 2.36)
Depends: adduser, libssl3t64 (>= 3), lsb-base | sysvinit-utils, python3:any
Size: 12
SHA256: aa
Description: x
 folded
"""


class RecordTest(unittest.TestCase):
    def test_fields(self):
        package = debian.Package(debian.parse_records(RECORD)[0])
        self.assertEqual(package.depends, [
            "libc6", "adduser", "libssl3t64", "lsb-base", "python3",
        ])
        self.assertEqual((package.source, package.source_version),
                         ("torsrc", "1.2-3"))
        plain = debian.parse_records(RECORD.replace("Source: torsrc (1.2-3)\n", ""))
        package = debian.Package(plain[0])
        self.assertEqual((package.source, package.source_version),
                         ("tor", "1.2-3+b1"))


@unittest.skipUnless(shutil.which("dpkg-deb"), "needs dpkg-deb")
class ContentsTest(unittest.TestCase):
    def setUp(self):
        self._top = tempfile.TemporaryDirectory()
        self.addCleanup(self._top.cleanup)
        tree = os.path.join(self._top.name, "tree")
        os.makedirs(f"{tree}/DEBIAN")
        os.makedirs(f"{tree}/usr/lib")
        with open(f"{tree}/DEBIAN/control", "w", encoding="utf-8") as file:
            file.write("Package: p\nVersion: 1\nArchitecture: all\n"
                       "Maintainer: x <x@example.com>\nDescription: x\n")
        for name in ("a", "b"):
            with open(f"{tree}/usr/lib/{name}", "w", encoding="utf-8") as file:
                file.write(name)
        os.symlink("a", f"{tree}/usr/lib/link")
        os.symlink("/usr/lib/a", f"{tree}/usr/lib/absolute")
        self.deb = os.path.join(self._top.name, "p.deb")
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-b", tree, self.deb],
            check=True, stdout=subprocess.DEVNULL,
        )

    def test_contents(self):
        files, links = debian.contents(self.deb, lambda p: p.endswith("/a"))
        self.assertEqual(files, {"/usr/lib/a": b"a"})
        self.assertEqual(links, {
            "/usr/lib/link": "/usr/lib/a", "/usr/lib/absolute": "/usr/lib/a",
        })

    def test_damaged(self):
        with open(self.deb, "r+b") as file:
            file.truncate(os.path.getsize(self.deb) - 60)
        with self.assertRaisesRegex(BuildError, "damaged package"):
            debian.contents(self.deb, lambda p: True)


if __name__ == "__main__":
    unittest.main()
