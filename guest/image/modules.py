"""Which kernel modules the guest loads, and in which order.

There is no modprobe in the guest: PID 1 loads the files of /etc/torvm/modules
from the first line to the last. So dependencies ("depends" and "softdep" of the
module's own .modinfo section) are resolved here. A soft dependency may name an
alias ("crypto-crc32c"); it is followed where it names a module.

Debian's signature is cut off each module: the guest would spend 25 to 30 ms on
each to check it (without KVM), and what it would prove is already known. The
package was signed, the controller checks the whole image before it starts, and
PID 1 forbids further modules once these are loaded.
"""

import lzma
import struct

import elf
from report import BuildError


def parse_list(text, arch_name):
    """The module names of modules.list that apply to an architecture.

    A line is a name, optionally `[arch]`, then a comment after `#`.
    """
    names = []
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) > 2 or (len(words) == 2 and words[1][:1] != "["):
            raise BuildError(f"modules.list: cannot read '{line}'")
        if len(words) == 1 or words[1].strip("[]") == arch_name:
            names.append(canonical(words[0]))
    return names


def canonical(name):
    """A module's name as the kernel says it; files may have dashes."""
    return name.replace("-", "_")


def decompress(path, data):
    """The module's bytes as init_module(2) wants them."""
    if path.endswith(".ko"):
        return data
    if path.endswith(".ko.xz"):
        return lzma.decompress(data)
    raise BuildError(
        f"{path}: a module compressed in a way this builder does not know",
        "modules.decompress() needs that format",
    )


_SIGNED = b"~Module signature appended~\n"


def without_signature(data):
    """The module without what CONFIG_MODULE_SIG appended to it: signature,
    struct module_signature (12 bytes, its last 4 the signature's length,
    big-endian), marker. See include/linux/module_signature.h."""
    if not data.endswith(_SIGNED):
        return data
    end = len(data) - len(_SIGNED)
    (length,) = struct.unpack(">I", data[end - 4:end])
    if length + 12 >= end:
        raise BuildError("a kernel module's signature is longer than the module")
    return data[:end - 12 - length]


def info(data):
    """{key: [values]} of a module's .modinfo section."""
    result = {}
    for item in elf.Elf(data).section(".modinfo").split(b"\0"):
        key, equals, value = item.decode("ascii", "replace").partition("=")
        if equals:
            result.setdefault(key, []).append(value)
    return result


class Tree:
    """The modules of one kernel package."""

    def __init__(self, files, builtin):
        """files: {path: compressed data}; builtin: modules.builtin's text."""
        self._paths = {_name_of(path): path for path in files}
        self._files = files
        self._builtin = {_name_of(path) for path in builtin.split()}
        self._loaded = {}

    def load_order(self, wanted):
        """[(path, data)], dependencies first. A wanted module may be built in."""
        order = []
        for name in wanted:
            self._visit(name, "modules.list", order, [])
        return order

    def _visit(self, name, wanted_by, order, chain):
        if name in self._builtin or name in (n for n, _, _ in chain):
            return
        path = self._paths.get(name)
        if path is None:
            raise BuildError(
                f"kernel module '{name}', wanted by {wanted_by}, "
                "is not in the kernel package"
            )
        if any(path == done for done, _ in order):
            return
        data = self._read(path)
        details = info(data)
        chain = chain + [(name, path, data)]
        for before in _names(details.get("depends", []), ","):
            self._visit(canonical(before), name, order, chain)
        pre, post = _softdeps(details.get("softdep", []))
        for before in pre:
            self._visit_soft(before, name, order, chain)
        order.append((path, data))
        for after in post:
            self._visit_soft(after, name, order, chain)

    def _visit_soft(self, name, wanted_by, order, chain):
        if canonical(name) in self._paths:
            self._visit(canonical(name), wanted_by, order, chain)

    def _read(self, path):
        if path not in self._loaded:
            self._loaded[path] = without_signature(
                decompress(path, self._files[path])
            )
        return self._loaded[path]


def _name_of(path):
    return canonical(path.rpartition("/")[2].partition(".ko")[0])


def _names(values, separator):
    return [n for value in values for n in value.split(separator) if n]


def _softdeps(values):
    """("pre" names, "post" names) of values such as "pre: a b post: c"."""
    lists = {"pre:": [], "post:": []}
    for value in values:
        current = None
        for word in value.split():
            if word in lists:
                current = lists[word]
            elif current is not None:
                current.append(word)
    return lists["pre:"], lists["post:"]
