"""The archive's bytes, read back by cpio(1) and compared."""

import io
import shutil
import subprocess
import unittest

import cpio


def build(order):
    archive = cpio.Archive(1000)
    for add in order:
        add(archive)
    out = io.BytesIO()
    archive.write(out)
    return out.getvalue()


STEPS = [
    lambda a: a.add_file("/init", b"abc", 0o755),
    lambda a: a.add_file("/usr/lib/x/liba.so", b"12345"),
    lambda a: a.add_link("/lib", "usr/lib"),
    lambda a: a.add_dir("/tmp", 0o1777),
    lambda a: a.add_char_device("/dev/console", 5, 1),
]


class CpioTest(unittest.TestCase):
    def test_order_of_adding_does_not_matter(self):
        self.assertEqual(build(STEPS), build(STEPS[::-1]))

    def test_content_matters(self):
        self.assertNotEqual(build(STEPS), build(STEPS[1:]))

    def test_same_path_twice(self):
        with self.assertRaises(ValueError):
            build([STEPS[0], STEPS[0]])

    @unittest.skipUnless(shutil.which("cpio"), "needs cpio")
    def test_read_back(self):
        listing = subprocess.run(
            ["cpio", "-itvn", "--quiet"], input=build(STEPS), check=True,
            stdout=subprocess.PIPE, env={"LC_ALL": "C", "TZ": "UTC"},
        ).stdout.decode().splitlines()
        # A device has "major, minor" where the others have their size.
        entries = {
            (line.split()[9] if line[0] == "c" else line.split()[8]): line.split()
            for line in listing
        }
        self.assertEqual(
            list(entries),
            ["dev", "dev/console", "init", "lib", "tmp", "usr", "usr/lib",
             "usr/lib/x", "usr/lib/x/liba.so"],
        )
        self.assertEqual(entries["init"][0], "-rwxr-xr-x")
        self.assertEqual(entries["init"][2:5], ["0", "0", "3"])
        self.assertEqual(entries["tmp"][0], "drwxrwxrwt")
        self.assertEqual(entries["dev/console"][0], "crw-------")
        self.assertEqual(entries["dev/console"][4:6], ["5,", "1"])
        self.assertEqual(entries["lib"][9:], ["->", "usr/lib"])


if __name__ == "__main__":
    unittest.main()
