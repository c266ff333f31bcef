"""Order of kernel modules, and the format of modules.list."""

import lzma
import struct
import unittest

import modules
from elf_test import make_elf
from report import BuildError

TOP = "/usr/lib/modules/1/kernel/"


def make_module(depends="", softdep=()):
    info = [b"license=GPL", b"depends=" + depends.encode()]
    info += [b"softdep=" + s.encode() for s in softdep]
    return make_elf(sections={".modinfo": b"\0".join(info) + b"\0"})


def make_tree(definitions, builtin=""):
    return modules.Tree(
        {
            f"{TOP}{name}.ko.xz": lzma.compress(make_module(*definition))
            for name, definition in definitions.items()
        },
        builtin,
    )


def names(order):
    return [path[len(TOP):].partition(".")[0] for path, _ in order]


class LoadOrderTest(unittest.TestCase):
    def test_dependencies_first_and_once(self):
        tree = make_tree({
            "nft-ct": ("nf_conntrack,nf_tables",),
            "nf_tables": ("nfnetlink",),
            "nf_conntrack": (),
            "nfnetlink": (),
            "unused": (),
        })
        order = names(tree.load_order(["nft_ct", "nf_tables"]))
        self.assertEqual(
            order, ["nf_conntrack", "nfnetlink", "nf_tables", "nft-ct"]
        )

    def test_builtin_is_skipped(self):
        tree = make_tree({"a": ("ext4",)}, "kernel/fs/ext4/ext4.ko\n")
        self.assertEqual(names(tree.load_order(["a", "ext4"])), ["a"])

    def test_soft_dependencies(self):
        tree = make_tree({
            "fs": ("", ["pre: sum no-such-alias post: late"]),
            "sum": (),
            "late": (),
        })
        self.assertEqual(names(tree.load_order(["fs"])), ["sum", "fs", "late"])

    def test_unknown(self):
        with self.assertRaisesRegex(BuildError, "'gone', wanted by a"):
            make_tree({"a": ("gone",)}).load_order(["a"])

    def test_circle_ends(self):
        tree = make_tree({"a": ("", ["pre: b"]), "b": ("a",)})
        self.assertEqual(set(names(tree.load_order(["a"]))), {"a", "b"})

    def test_unknown_compression(self):
        with self.assertRaises(BuildError):
            modules.decompress("/x.ko.lz9", b"")


class SignatureTest(unittest.TestCase):
    def test_cut(self):
        module = make_module()
        signature = b"s" * 200
        signed = (module + signature + b"\0" * 8
                  + struct.pack(">I", len(signature))
                  + b"~Module signature appended~\n")
        self.assertEqual(modules.without_signature(signed), module)
        self.assertEqual(modules.without_signature(module), module)

    def test_length_is_checked(self):
        lying = b"x" * 40 + struct.pack(">I", 4000) + b"~Module signature appended~\n"
        with self.assertRaises(BuildError):
            modules.without_signature(lying)


class ListTest(unittest.TestCase):
    def test_format(self):
        text = "# all\n\na-b # why\nbutton [amd64] # x\nother [arm64]\n"
        self.assertEqual(modules.parse_list(text, "amd64"), ["a_b", "button"])
        self.assertEqual(modules.parse_list(text, "arm64"), ["a_b", "other"])

    def test_nonsense(self):
        for line in ("a b", "a [amd64] c"):
            with self.assertRaises(BuildError):
                modules.parse_list(line, "amd64")


if __name__ == "__main__":
    unittest.main()
