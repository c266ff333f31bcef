"""Reads from ELF files what resolving dependencies needs, and resolves them.

Only the fields used: class and machine, PT_INTERP, DT_NEEDED, DT_SONAME, and
sections by name (a kernel module's .modinfo). Little-endian 64-bit files; both
architectures are. Format: elf(5).
"""

import struct

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_SONAME = 0, 1, 5, 14


class NotElf(ValueError):
    """Not a 64-bit little-endian ELF file, or one that ends too early."""


class Elf:
    """One file's headers. Attributes: machine, interpreter (None when static or
    a library), needed (list), soname (None when not a library)."""

    def __init__(self, data):
        self._data = data
        try:
            self._parse()
        except (struct.error, IndexError, UnicodeDecodeError) as error:
            raise NotElf(f"damaged ELF file: {error}") from error

    def _parse(self):
        if self._data[:6] != b"\x7fELF\x02\x01":
            raise NotElf("not a 64-bit little-endian ELF file")
        (self.machine,) = struct.unpack_from("<H", self._data, 18)
        phoff, self._shoff = struct.unpack_from("<QQ", self._data, 32)
        phentsize, phnum, self._shentsize, self._shnum, self._shstrndx = (
            struct.unpack_from("<HHHHH", self._data, 54)
        )
        self.interpreter = None
        self.needed = []
        self.soname = None
        loads, dynamic = [], None
        for index in range(phnum):
            kind, _, offset, vaddr, _, filesz = struct.unpack_from(
                "<IIQQQQ", self._data, phoff + index * phentsize
            )
            if kind == _PT_LOAD:
                loads.append((vaddr, offset, filesz))
            elif kind == _PT_DYNAMIC:
                dynamic = (offset, filesz)
            elif kind == _PT_INTERP:
                self.interpreter = self._string(offset)
        if dynamic:
            self._parse_dynamic(dynamic, loads)

    def _parse_dynamic(self, dynamic, loads):
        offset, size = dynamic
        entries = []
        for at in range(offset, offset + size, 16):
            tag, value = struct.unpack_from("<qQ", self._data, at)
            if tag == _DT_NULL:
                break
            entries.append((tag, value))
        tables = [value for tag, value in entries if tag == _DT_STRTAB]
        if not tables:
            return
        strings = _file_offset(tables[0], loads)
        for tag, value in entries:
            if tag == _DT_NEEDED:
                self.needed.append(self._string(strings + value))
            elif tag == _DT_SONAME:
                self.soname = self._string(strings + value)

    def _string(self, offset):
        end = self._data.index(b"\0", offset)
        return self._data[offset:end].decode("ascii")

    def section(self, name):
        """The bytes of the section called `name`, b"" if there is none."""
        headers = [
            struct.unpack_from("<IIQQQQ", self._data, self._shoff + i * self._shentsize)
            for i in range(self._shnum)
        ]
        names = headers[self._shstrndx][4]
        for name_offset, _, _, _, offset, size in headers:
            if self._string(names + name_offset) == name:
                return self._data[offset:offset + size]
        return b""


def _file_offset(vaddr, loads):
    for start, offset, size in loads:
        if start <= vaddr < start + size:
            return vaddr - start + offset
    raise NotElf("dynamic string table is in no segment")


def closure(roots, find, machine):
    """Every shared library that the programs `roots` load, and the loader.

    roots:   {path: data}
    find:    find(name, wanted_by) -> (key, data) of a library by its soname, or
             of the interpreter by its path; raises if there is none. `wanted_by`
             is the key of the file that names it.
    machine: the e_machine that each file must have
    Returns {name: key}, names being sonames and the interpreter's path.
    """
    found = {}
    queue = sorted(roots.items())
    while queue:
        key, data = queue.pop(0)
        elf = Elf(data)
        if elf.machine != machine:
            raise NotElf(f"{key} is built for another processor")
        wanted = list(elf.needed)
        if elf.interpreter:
            wanted.append(elf.interpreter)
        for name in wanted:
            # A library may name the loader by its soname: one file, one entry.
            if name in found or any(n.endswith("/" + name) for n in found):
                continue
            found[name], library = find(name, key)
            queue.append((found[name], library))
    return found
