"""Writes an initramfs: a cpio archive in the "newc" format, the same bytes for
the same content.

Format: Documentation/driver-api/early-userspace/buffer-format.rst of Linux.
Everything that a file system would add by chance is fixed here: the order is by
name, inode numbers count up, times are one constant, owner is root.
"""

import stat

_MAGIC = b"070701"
_TRAILER = "TRAILER!!!"


class Archive:
    """A tree that is built in memory and written at the end."""

    def __init__(self, mtime):
        """mtime: of every entry, seconds since 1970."""
        self._mtime = mtime
        self._entries = {}  # path without leading "/" -> (mode, data, rdev)

    def add_dir(self, path, mode=0o755):
        self._add(path, stat.S_IFDIR | mode, b"", (0, 0))

    def add_file(self, path, data, mode=0o644):
        self._add(path, stat.S_IFREG | mode, data, (0, 0))

    def add_link(self, path, target):
        self._add(path, stat.S_IFLNK | 0o777, target.encode(), (0, 0))

    def add_char_device(self, path, major, minor, mode=0o600):
        self._add(path, stat.S_IFCHR | mode, b"", (major, minor))

    def paths(self):
        return ["/" + path for path in sorted(self._entries)]

    def _add(self, path, mode, data, rdev):
        path = path.strip("/")
        parent = path.rpartition("/")[0]
        if parent and parent not in self._entries:
            self.add_dir(parent)
        if path in self._entries:
            raise ValueError(f"/{path} is there already")
        self._entries[path] = (mode, data, rdev)

    def write(self, out):
        """Write the archive to the binary file `out`."""
        # Byte order puts a directory before what is in it, as the kernel needs.
        ordered = sorted(self._entries.items(), key=lambda e: e[0].encode())
        for inode, (path, (mode, data, rdev)) in enumerate(ordered, start=1):
            self._write_entry(out, inode, path, mode, data, rdev)
        self._write_entry(out, 0, _TRAILER, 0, b"", (0, 0))

    def _write_entry(self, out, inode, path, mode, data, rdev):
        name = path.encode() + b"\0"
        nlink = 2 if stat.S_ISDIR(mode) else 1
        fields = (
            inode, mode, 0, 0, nlink, self._mtime if mode else 0, len(data),
            0, 0, *rdev, len(name), 0,
        )
        header = _MAGIC + b"".join(b"%08X" % field for field in fields)
        out.write(_padded(header + name))
        out.write(_padded(data))


def _padded(data):
    return data + b"\0" * (-len(data) % 4)
