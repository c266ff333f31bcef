"""Puts together what the guest finds at boot, from packages and our PID 1.

Everything is named by a file or follows from one: the program (Tor), the
libraries that it needs, and the modules of modules.list. The result is a
cpio.Archive and a record of where each file came from. Transports and Geoip are
further archives, unpacked over the first where a pluggable transport is wanted, or
where Tor has to know countries.
"""

import hashlib
import os
import re

import cpio
import debian
import elf
import modules
from report import BuildError

PROGRAM_PACKAGE = "tor"
PROGRAM = "/usr/bin/tor"

# Libraries that are opened by name at run time, which no ELF header tells.
_OPENED = (
    # pthread_exit() aborts without it; Tor's worker threads end that way.
    "libgcc_s.so.1",
)

_MODULE_LIST = os.path.join(os.path.dirname(os.path.abspath(__file__)), "modules.list")

# The uids are part of docs/guest-protocol.md.
_USERS = (("tor", 100, "/var/lib/tor-state"), ("transport", 101, "/"),
          ("resolver", 102, "/"), ("tls", 103, "/"))
_PASSWD = "root:x:0:0::/:/nonexistent\n" + "".join(
    f"{name}:x:{uid}:{uid}::{home}:/nonexistent\n" for name, uid, home in _USERS)
_GROUP = "root:x:0:\n" + "".join(f"{name}:x:{uid}:\n" for name, uid, _ in _USERS)

_LIBRARIES = ("/usr/lib/", "/usr/lib64/")

# Mount points and other empty directories: path, mode.
_DIRECTORIES = (
    ("/dev", 0o755),
    ("/proc", 0o555),
    ("/run", 0o755),
    ("/sys", 0o555),
    ("/tmp", 0o1777),
    ("/var/lib/tor-state", 0o755),
)


class _Tree:
    """Files of packages in an archive. Attributes: archive, packages (list of
    debian.Package), sources (list of dicts for the manifest)."""

    def __init__(self, mtime, wanted):
        """wanted(path): whether a package's file may be taken."""
        self._wanted = wanted
        self._opened = {}  # package name -> (files, links)
        self.archive = cpio.Archive(mtime)
        self.packages = []
        self.sources = []

    def _open(self, source, name, optional=False):
        """source: debian.Archive, prepared."""
        package = source.package(name)
        if package is None:
            if optional:  # a virtual package
                return None
            raise BuildError(f"{source.release} has no package {name}")
        if name not in self._opened:
            self._opened[name] = debian.contents(source.fetch(package), self._wanted)
        return package

    def _file(self, package, path):
        files, _ = self._opened[package.name]
        if path not in files:
            raise BuildError(f"package {package.name} has no {path}")
        return files[path]

    def _take(self, package, path, to, data, mode):
        self.archive.add_file(to, data, mode)
        # The hash of the file as packaged: a module is decompressed on the way.
        self._record(package, path, self._file(package, path), to)

    def _record(self, package, path, data, to):
        if package not in self.packages:
            self.packages.append(package)
        self.sources.append({
            "path": path,
            "sha256": hashlib.sha256(data).hexdigest(),
            "package": package.name,
            "installed_as": to,
        })

    def _find_library(self, source, arch, name, wanting):
        """(package, path, data) of a soname, or of the interpreter's path,
        looked for in the package that wants it and its dependencies.

        source: debian.Archive, prepared."""
        candidates = [wanting.name, *wanting.depends]
        source.load(candidates)
        # What is open already first, so that nothing is fetched in vain, then
        # what is called a library.
        candidates.sort(key=lambda c: (c not in self._opened, c[:3] != "lib"))
        for candidate in candidates:
            package = self._open(source, candidate, optional=True)
            if package is None:
                continue
            files, links = self._opened[candidate]
            places = (
                ["/usr" + name] if name.startswith("/")
                else [f"{d}/{name}" for d in _library_dirs(arch)]
            )
            for place in places:
                for _ in range(8):
                    if place not in links:
                        break
                    place = links[place]
                    # The packages are usr-merged; links may say /lib.
                    if place.startswith("/lib"):
                        place = "/usr" + place
                if place in files:
                    return package, place, files[place]
        raise BuildError(
            f"{name}, needed by a file of package {wanting.name}, is in none of "
            "its dependencies: " + ", ".join(candidates)
        )

    def _sort(self):
        self.packages.sort(key=lambda package: package.name)
        self.sources.sort(key=lambda source: source["path"])


class Transports(_Tree):
    """What pluggable transports, and a proxy that is spoken to by TLS, need beside
    the root file system."""

    PACKAGE = "lyrebird"
    PROGRAM = "/usr/bin/lyrebird"
    TLS_PACKAGE = "stunnel4"
    TLS_PROGRAM = "/usr/bin/stunnel4"
    CA_PACKAGE = "ca-certificates"
    CA_FILE = "/etc/ssl/certs/ca-certificates.crt"  # where Go looks first
    _CA_FOLDER = "/usr/share/ca-certificates/"

    def __init__(self, mtime):
        super().__init__(
            mtime,
            lambda path: path in (self.PROGRAM, self.TLS_PROGRAM)
            or path.startswith((self._CA_FOLDER, *_LIBRARIES)),
        )

    def build(self, stable, unstable, arch, present):
        """stable, unstable: debian.Archive, prepared. present: the paths of the
        root file system, which has the libraries."""
        package = self._open(unstable, self.PACKAGE)
        program = self._file(package, self.PROGRAM)
        header = elf.Elf(program)
        if header.machine != arch.elf_machine:
            raise BuildError(f"{self.PROGRAM} is not built for {arch.name}")
        for name in header.needed:
            if f"/usr/lib/{arch.multiarch}/{name}" not in present:
                raise BuildError(
                    f"{self.PROGRAM} needs {name}, which Tor's image does not have"
                )
        self._take(package, self.PROGRAM, self.PROGRAM, program, 0o755)
        self._add_tls_client(stable, arch, present)
        self._add_certificates(stable)
        # What PID 1 looks up, or was given, is what a transport finds.
        self.archive.add_link("/etc/hosts", "/run/torvm/hosts")
        self._sort()

    def _add_tls_client(self, stable, arch, present):
        """stunnel, and the libraries that Tor does not need."""
        package = self._open(stable, self.TLS_PACKAGE)
        program = self._file(package, self.TLS_PROGRAM)
        self._take(package, self.TLS_PROGRAM, self.TLS_PROGRAM, program, 0o755)
        wanted = [(name, package) for name in elf.Elf(program).needed]
        seen = set()
        while wanted:
            name, wanting = wanted.pop()
            to = f"/usr/lib/{arch.multiarch}/{name}"
            if to in present or to in seen:
                continue
            seen.add(to)
            owner, path, data = self._find_library(stable, arch, name, wanting)
            self._take(owner, path, to, data, 0o644)
            wanted += [(needed, owner) for needed in elf.Elf(data).needed]

    def _add_certificates(self, stable):
        """As update-ca-certificates does it: one file after the other."""
        package = self._open(stable, self.CA_PACKAGE)
        files, _ = self._opened[package.name]
        bundle = b""
        for path in sorted(path for path in files if path.endswith(".crt")):
            bundle += files[path].rstrip(b"\n") + b"\n"
            self._record(package, path, files[path], self.CA_FILE)
        if bundle.count(b"-----BEGIN CERTIFICATE-----") < 50:
            raise BuildError(f"package {package.name} has not the CAs expected in it")
        self.archive.add_file(self.CA_FILE, bundle)


class Geoip(_Tree):
    """In which country an address is, for Tor. Further attributes after build():
    generated, license (what the file says of itself), countries (list of codes)."""

    PACKAGE = "tor-geoipdb"
    FILE = "/usr/share/tor/geoip"
    # Tor asks for the country of a relay's IPv4 address only, so this file of the
    # package is left out (docs/decisions/0007-countries.md). An empty one keeps Tor
    # from complaining; and it comes last: where it is, the whole archive was
    # unpacked (init/contract.h).
    FILE6 = "/usr/share/tor/geoip6"

    _LINE = re.compile(rb"\d+,\d+,([A-Z][A-Z0-9]|\?\?)")

    def __init__(self, mtime):
        super().__init__(mtime, lambda path: path == self.FILE)
        self.generated = self.license = ""
        self.countries = []

    def build(self, source):
        """source: debian.Archive, prepared."""
        package = self._open(source, self.PACKAGE)
        data = self._file(package, self.FILE)
        self.add(data)
        if len(self.countries) < 200:
            raise BuildError(f"{self.FILE} has {len(self.countries)} countries only")
        self._record(package, self.FILE, data, self.FILE)

    def add(self, data):
        """data: a file in the form that Tor reads."""
        codes = set()
        for line in data.splitlines():
            if line.startswith(b"#"):
                word, _, text = line[1:].decode().partition(":")
                if word.strip() == "Generated":
                    self.generated = text.strip()
                elif word.strip() == "License":
                    self.license = text.strip()
                continue
            match = self._LINE.fullmatch(line)
            if not match:
                raise BuildError(f"{self.FILE}: {line[:60]} is not as expected")
            codes.add(match[1].decode().lower())
        # Two that nobody is to name as a country: "??" is what Tor calls all that
        # is in no line, "UK" what some networks registered in place of GB.
        self.countries = sorted(codes - {"??", "uk"})
        self.archive.add_file(self.FILE, data)
        self.archive.add_file(self.FILE6, b"# left out\n")


class Rootfs(_Tree):
    """The root file system. Further attributes after build(): kernel (bytes),
    kernel_release."""

    def __init__(self, archive, arch, mtime):
        """archive: debian.Archive, prepared."""
        super().__init__(mtime, _may_be_wanted)
        self._debian = archive
        self._arch = arch
        self.kernel = b""
        self.kernel_release = ""

    def build(self, init):
        """init: the bytes of PID 1."""
        if elf.Elf(init).needed or elf.Elf(init).interpreter:
            raise BuildError("init is not a static program; the guest's PID 1 must be")
        if elf.Elf(init).machine != self._arch.elf_machine:
            raise BuildError(f"init is not built for {self._arch.name}")
        for path, mode in _DIRECTORIES:
            self.archive.add_dir(path, mode)
        # For whatever PID 1 says before it has mounted devtmpfs.
        self.archive.add_char_device("/dev/console", 5, 1)
        self.archive.add_file("/init", init, 0o755)
        self.archive.add_file("/etc/passwd", _PASSWD.encode())
        self.archive.add_file("/etc/group", _GROUP.encode())
        # Debian's own layout: the interpreter's path goes through these.
        self.archive.add_link("/lib", "usr/lib")
        self.archive.add_link("/lib64", "usr/lib64")
        self._add_program()
        self._add_kernel()
        self._sort()

    # -- Tor and its libraries

    def _add_program(self):
        package = self._open(self._debian, PROGRAM_PACKAGE)
        program = self._file(package, PROGRAM)
        owners = {PROGRAM: package}
        libraries = {}

        def find(name, wanted_by):
            owner, path, data = self._find_library(
                self._debian, self._arch, name, owners[wanted_by]
            )
            owners[path] = owner
            libraries[path] = data
            return path, data

        found = elf.closure({PROGRAM: program}, find, self._arch.elf_machine)
        for name in _OPENED:
            found[name], _ = find(name, found["libc.so.6"])
        self._take(package, PROGRAM, PROGRAM, program, 0o755)
        for name, path in sorted(found.items()):
            if name.startswith("/"):
                to, mode = "/usr" + name, 0o755
            else:
                # One file under the name that is asked for, no link chain.
                to, mode = f"/usr/lib/{self._arch.multiarch}/{name}", 0o644
            self._take(owners[path], path, to, libraries[path], mode)

    # -- the kernel and its modules

    def _add_kernel(self):
        meta = self._debian.package(self._arch.kernel_package)
        if meta is None:
            raise BuildError(f"there is no package {self._arch.kernel_package}")
        names = [d for d in meta.depends if d.startswith("linux-image-")]
        if len(names) != 1:
            raise BuildError(f"{meta.name} does not name one kernel: {meta.depends}")
        package = self._open(self._debian, names[0])
        files, _ = self._opened[names[0]]
        images = [path for path in files if path.startswith("/boot/vmlinu")]
        if len(images) != 1:
            raise BuildError(f"{package.name} has not one kernel but {images}")
        self.kernel = files[images[0]]
        self._record(package, images[0], self.kernel, "vmlinuz")
        self.kernel_release = images[0].partition("-")[2]
        top = f"/usr/lib/modules/{self.kernel_release}"
        builtin = files.get(f"{top}/modules.builtin")
        if builtin is None:
            raise BuildError(f"{package.name} has no {top}/modules.builtin")
        tree = modules.Tree(
            {path: data for path, data in files.items() if ".ko" in path},
            builtin.decode(),
        )
        with open(_MODULE_LIST, encoding="utf-8") as file:
            wanted = modules.parse_list(file.read(), self._arch.name)
        lines = []
        for path, data in tree.load_order(wanted):
            to = path.partition(".ko")[0] + ".ko"
            self._take(package, path, to, data, 0o644)
            lines.append(to + "\n")
        self.archive.add_file("/etc/torvm/modules", "".join(lines).encode())


def _library_dirs(arch):
    return (f"/usr/lib/{arch.multiarch}", "/usr/lib64", "/usr/lib")


def _may_be_wanted(path):
    return path.startswith((*_LIBRARIES, "/boot/vmlinu")) or path == PROGRAM
