"""Installing outputs with a manifest, and noticing what is wrong with them."""

import os
import tempfile
import unittest

import manifest
from report import BuildError


class ManifestTest(unittest.TestCase):
    def setUp(self):
        self._top = tempfile.TemporaryDirectory()
        self.addCleanup(self._top.cleanup)
        self.out = os.path.join(self._top.name, "vm")

    def install(self, outputs):
        with tempfile.TemporaryDirectory(dir=self._top.name) as staging:
            for name, data in outputs.items():
                with open(os.path.join(staging, name), "wb") as file:
                    file.write(data)
            manifest.install(staging, self.out, {
                "schema": manifest.SCHEMA,
                "outputs": {
                    name: manifest.describe_output(os.path.join(staging, name))
                    for name in outputs
                },
            })

    def test_round_trip(self):
        self.install({"vmlinuz": b"k", "initramfs.zst": b"i"})
        content = manifest.load(self.out)
        self.assertEqual(content["outputs"]["vmlinuz"]["size"], 1)
        self.assertEqual(manifest.problems(self.out, content), [])
        self.assertEqual(
            sorted(os.listdir(self.out)),
            ["initramfs.zst", "manifest.json", "vmlinuz"],
        )

    def test_problems(self):
        self.install({"a": b"same", "b": b"long", "c": b"gone", "d": b"fine"})
        for name, data in (("a", b"SAME"), ("b", b"longer")):
            with open(os.path.join(self.out, name), "wb") as file:
                file.write(data)
        os.unlink(os.path.join(self.out, "c"))
        found = manifest.problems(self.out, manifest.load(self.out))
        self.assertEqual(found, [
            "a has another content", "b has 6 bytes, not 4", "c is missing",
        ])

    def test_an_older_output_goes_but_not_a_strangers(self):
        self.install({"initramfs.gz": b"old"})
        with open(os.path.join(self.out, "notes"), "wb"):
            pass
        self.install({"initramfs.zst": b"new"})
        self.assertEqual(
            sorted(os.listdir(self.out)),
            ["initramfs.zst", "manifest.json", "notes"],
        )

    def test_none_other_schema_and_damaged(self):
        self.assertIsNone(manifest.load(self.out))
        os.mkdir(self.out)
        path = os.path.join(self.out, manifest.NAME)
        for text, outcome in (('{"schema": 99}', None), ("[]", None)):
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            self.assertIs(manifest.load(self.out), outcome)
        with open(path, "w", encoding="utf-8") as file:
            file.write("{")
        with self.assertRaises(BuildError):
            manifest.load(self.out)


if __name__ == "__main__":
    unittest.main()
