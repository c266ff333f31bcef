"""Dependency closure, over ELF files made here byte by byte."""

import struct
import unittest

import elf

MACHINE = 62


def make_elf(needed=(), soname=None, interpreter=None, machine=MACHINE,
             sections=None):
    """A minimal file: headers, one PT_LOAD, dynamic section, strings."""
    strings = b"\0"
    dynamic = b""

    def intern(text):
        nonlocal strings
        offset = len(strings)
        strings += text.encode() + b"\0"
        return offset

    for name in needed:
        dynamic += struct.pack("<qQ", 1, intern(name))
    if soname:
        dynamic += struct.pack("<qQ", 14, intern(soname))
    headers = 64 + 3 * 56
    vaddr = 0x400000
    dynamic += struct.pack("<qQ", 5, 0) + struct.pack("<qQ", 0, 0)
    dynamic_at = headers
    strings_at = dynamic_at + len(dynamic)
    dynamic = dynamic.replace(
        struct.pack("<qQ", 5, 0), struct.pack("<qQ", 5, vaddr + strings_at)
    )
    interp = (interpreter or "").encode() + b"\0"
    interp_at = strings_at + len(strings)
    body = dynamic + strings + interp
    size = headers + len(body)
    program = [
        struct.pack("<IIQQQQQQ", 1, 5, 0, vaddr, vaddr, size, size, 4096),
        struct.pack("<IIQQQQQQ", 2, 6, dynamic_at, vaddr + dynamic_at, 0,
                    len(dynamic), len(dynamic), 8),
        struct.pack("<IIQQQQQQ", 3 if interpreter else 0, 4, interp_at, 0, 0,
                    len(interp), len(interp), 1),
    ]
    shoff, shnum, tail = 0, 0, b""
    if sections:
        names = b"\0"
        entries = []
        for name, content in [*sections.items(), (".shstrtab", None)]:
            name_at = len(names)
            names += name.encode() + b"\0"
            entries.append((name_at, content))
        offset = size
        table = b""
        for name_at, content in entries:
            content = names if content is None else content
            table += struct.pack("<IIQQQQIIQQ", name_at, 1, 0, 0, offset,
                                 len(content), 0, 0, 1, 0)
            tail += content
            offset += len(content)
        shoff, shnum = offset, len(entries)
        tail += table
    header = b"\x7fELF\x02\x01\x01" + b"\0" * 9 + struct.pack(
        "<HHIQQQIHHHHHH", 3, machine, 1, 0, 64, shoff, 0, 64, 56, 3, 64, shnum,
        max(shnum - 1, 0),
    )
    return header + b"".join(program) + body + tail


class ClosureTest(unittest.TestCase):
    LOADER = "/lib64/ld-test.so.2"

    def resolve(self, program, libraries):
        asked = []

        def find(name, wanted_by):
            asked.append((name, wanted_by))
            return "/usr/lib/" + name.rpartition("/")[2], libraries[name]

        found = elf.closure({"/bin/p": program}, find, MACHINE)
        return found, asked

    def test_transitive(self):
        found, asked = self.resolve(
            make_elf(["liba.so.1", "libc.so.6"], interpreter=self.LOADER),
            {
                "liba.so.1": make_elf(["libb.so.2", "libc.so.6"], "liba.so.1"),
                "libb.so.2": make_elf(["liba.so.1"], "libb.so.2"),
                "libc.so.6": make_elf(["ld-test.so.2"], "libc.so.6"),
                self.LOADER: make_elf(soname="ld-test.so.2"),
            },
        )
        self.assertEqual(
            set(found), {"liba.so.1", "libb.so.2", "libc.so.6", self.LOADER}
        )
        self.assertIn(("libb.so.2", "/usr/lib/liba.so.1"), asked)
        self.assertEqual(len(asked), 4, "each is looked for once")

    def test_missing(self):
        with self.assertRaises(KeyError):
            self.resolve(make_elf(["libgone.so.1"]), {})

    def test_other_processor(self):
        with self.assertRaisesRegex(elf.NotElf, "another processor"):
            self.resolve(
                make_elf(["liba.so.1"]), {"liba.so.1": make_elf(machine=183)}
            )

    def test_static(self):
        parsed = elf.Elf(make_elf())
        self.assertEqual(parsed.needed, [])
        self.assertIsNone(parsed.interpreter)

    def test_damaged(self):
        whole = make_elf(["liba.so.1"], sections={".modinfo": b"a=b\0"})
        self.assertEqual(elf.Elf(whole).section(".modinfo"), b"a=b\0")
        self.assertEqual(elf.Elf(whole).section(".none"), b"")
        for data in (b"", b"\x7fELF", whole[:64], whole[:240], b"MZ" + whole[2:]):
            with self.assertRaises(elf.NotElf):
                elf.Elf(data)


if __name__ == "__main__":
    unittest.main()
