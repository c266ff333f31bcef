"""Fetches Debian packages with signatures checked by apt, as any user.

Theory of operation: apt runs with a configuration of its own (APT_CONFIG), whose
lists, cache and dpkg status are in the builder's cache directory. The machine's
apt.conf and apt.conf.d are not read at all, as they may hold hooks that run on
"update"; only a proxy set there is carried over. The archive keyring is the one
trust anchor: apt checks InRelease against it, Packages against InRelease; each
.deb is checked here against Packages' SHA-256, cached ones too.

The network is used when a list or a .deb is missing or an update is asked for,
otherwise never.

No mirror is named here: it is DEBIAN_MIRROR, or what the machine's own apt
sources say (scripts/debian-mirror).
"""

import hashlib
import os
import re
import shutil
import subprocess
import tarfile

from report import BuildError, find_tool, progress, run

RELEASE = "trixie"
# Where the pluggable transports are; no stable release has them yet.
UNSTABLE = "sid"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

_NO_RELEASE = re.compile(r"The repository '\S+ (\S+) Release' does not have")


class Package:
    """A package's record, as Packages has it."""

    def __init__(self, record):
        self.name = record["Package"]
        self.version = record["Version"]
        self.architecture = record["Architecture"]
        self.sha256 = record["SHA256"]
        self.size = int(record["Size"])
        # "Source: name (version)" is left out where it equals the package.
        source = record.get("Source", self.name).replace("(", "").replace(")", "")
        self.source, _, version = source.partition(" ")
        self.source_version = version or self.version
        depends = record.get("Pre-Depends", "") + "," + record.get("Depends", "")
        # Of alternatives, the first: the one that the package was built with.
        self.depends = [
            clause.split("|")[0].split("(")[0].split(":")[0].strip()
            for clause in depends.split(",")
            if clause.strip()
        ]


class Archive:
    """The suites of one mirror, seen through a private apt."""

    def __init__(self, cache, arch_name, scripts, release=RELEASE):
        """cache: directory, made if missing; scripts: has debian-mirror.
        release: RELEASE, with its updates, or UNSTABLE."""
        self.release = release
        self._dir = os.path.abspath(cache)
        self._apt = os.path.join(
            self._dir, "apt" if release == RELEASE else f"apt-{release}"
        )
        self._debs = os.path.join(self._dir, "debs")
        self._arch = arch_name
        self._scripts = scripts
        self._packages = {}
        self._trust = f"signed-by={KEYRING}"
        if release == UNSTABLE:
            # Its Release is valid for a week only, and a mirror may stand still
            # for longer. What it names is signed all the same.
            self._trust += " check-valid-until=no"

    # -- configuration

    def prepare(self, update):
        """Make the private apt usable; fetch package lists if need be."""
        if not os.path.exists(KEYRING):
            raise BuildError(
                f"{KEYRING} is missing, so no signature can be checked",
                "as root: apt-get install debian-archive-keyring",
            )
        for name in ("lists/partial", "archives/partial", "etc"):
            os.makedirs(os.path.join(self._apt, name), exist_ok=True)
        os.makedirs(self._debs, exist_ok=True)
        status = os.path.join(self._apt, "status")
        if not os.path.exists(status):  # a new one would void apt's index
            _write(status, "")
        _write(os.path.join(self._apt, "apt.conf"), self._configuration())
        complete = os.path.join(self._apt, "complete")
        wanted = os.environ.get("DEBIAN_MIRROR", "")
        if not update and os.path.exists(complete):
            with open(complete, encoding="utf-8") as file:
                if not wanted or file.read().strip() == wanted.rstrip("/"):
                    return
        self._update(complete)

    def _configuration(self):
        options = {
            "Dir": self._apt,
            "Dir::State": self._apt,
            "Dir::State::lists": "lists",
            "Dir::State::status": os.path.join(self._apt, "status"),
            "Dir::Cache": self._apt,
            "Dir::Cache::archives": "archives",
            "Dir::Etc": os.path.join(self._apt, "etc"),
            "Dir::Etc::main": "/dev/null",
            "Dir::Etc::parts": "/dev/null",
            "Dir::Etc::sourcelist": os.path.join(self._apt, "sources.list"),
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::Etc::trusted": "/dev/null",
            "Dir::Etc::trustedparts": "/dev/null",
            "APT::Architecture": self._arch,
            "APT::Get::AllowUnauthenticated": "false",
            # A bad signature is an error even where older lists exist.
            "APT::Update::Error-Mode": "any",
            "Acquire::AllowInsecureRepositories": "false",
            "Acquire::AllowDowngradeToInsecureRepositories": "false",
            "Acquire::AllowWeakRepositories": "false",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
        }
        lines = [f'{key} "{value}";' for key, value in options.items()]
        lines.append(f'APT::Architectures {{ "{self._arch}"; }};')
        dump = run(["apt-config", "dump"]).stdout
        lines += re.findall(r"^Acquire::\w+::Proxy.*;$", dump, re.MULTILINE)
        return "\n".join(lines) + "\n"

    def _mirrors(self):
        """(mirror, security mirror or None)"""
        own = os.environ.get("DEBIAN_MIRROR", "").rstrip("/")
        mirror = own or run(
            [os.path.join(self._scripts, "debian-mirror")]
        ).stdout.strip()
        if not mirror:
            raise BuildError(
                "no Debian mirror is known",
                "set DEBIAN_MIRROR=http://HOST/debian",
            )
        if not own:
            listed = run(
                ["apt-get", "indextargets", "--format", "$(ORIGIN) $(REPO_URI)",
                 "Created-By: Packages"],
                check=False,
            ).stdout
            found = re.search(r"^Debian (\S+security\S*)$", listed, re.MULTILINE)
            if found:
                return mirror, found.group(1).rstrip("/")
        if mirror.endswith("/debian"):
            return mirror, mirror + "-security"
        return mirror, None

    def _update(self, complete):
        mirror, security = self._mirrors()
        sources = {self.release: mirror}
        if self.release == RELEASE:
            sources[f"{RELEASE}-updates"] = mirror
            if security:
                sources[f"{RELEASE}-security"] = security
        if os.path.exists(complete):
            os.unlink(complete)
        while True:
            progress("fetching package lists: " + ", ".join(sources))
            _write(
                os.path.join(self._apt, "sources.list"),
                "".join(
                    f"deb [{self._trust}] {url} {suite} main\n"
                    for suite, url in sources.items()
                ),
            )
            result = self._run(["apt-get", "-q", "update"])
            if result.returncode == 0:
                break
            absent = set(_NO_RELEASE.findall(result.stderr)) & set(sources)
            # A mirror need not carry updates and security; the release it must.
            if not absent or self.release in absent:
                raise BuildError(
                    "apt could not get package lists that it trusts:\n  "
                    + _last_words(result),
                    "check the network and the clock; another mirror: "
                    "DEBIAN_MIRROR=http://HOST/debian",
                )
            for suite in absent:
                progress(f"the mirror has no {suite}: going on without")
                del sources[suite]
        _write(complete, mirror + "\n")

    def _run(self, argv, cwd=None):
        # An apt as root hands downloading to its user _apt, who must get in.
        return subprocess.run(
            [find_tool(argv[0]), *argv[1:]],
            env=dict(
                os.environ,
                APT_CONFIG=os.path.join(self._apt, "apt.conf"),
                LC_ALL="C.UTF-8",
                LANGUAGE="",
            ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            cwd=cwd,
            check=False,
        )

    # -- packages

    def load(self, names):
        """Learn of several packages at once: asking apt costs 0.3 s each time."""
        unknown = [name for name in names if name not in self._packages]
        if not unknown:
            return
        result = self._run(["apt-cache", "show", "--no-all-versions", *unknown])
        self._packages.update(dict.fromkeys(unknown))
        for record in parse_records(result.stdout):
            if record["Package"] in unknown:
                self._packages[record["Package"]] = Package(record)

    def package(self, name):
        """The newest version of a package, None if the release has none."""
        self.load([name])
        return self._packages[name]

    def fetch(self, package):
        """The path of a package's .deb, downloaded unless cached, verified."""
        name = f"{package.name}_{package.version}_{package.architecture}.deb"
        path = os.path.join(self._debs, name.replace(":", "%3a"))
        if os.path.exists(path):
            if _sha256(path) == package.sha256:
                return path
            progress(f"{name} in the cache is damaged: fetching it again")
            os.unlink(path)
        progress(f"fetching {package.name} {package.version} "
                 f"({package.size / 1e6:.1f} MB)")
        partial = os.path.join(self._debs, "partial")
        shutil.rmtree(partial, ignore_errors=True)
        os.makedirs(partial)
        result = self._run(
            ["apt-get", "-q", "download",
             f"{package.name}:{package.architecture}={package.version}"
             if package.architecture != "all"
             else f"{package.name}={package.version}"],
            cwd=partial,
        )
        files = os.listdir(partial)
        if result.returncode != 0 or len(files) != 1:
            raise BuildError(
                f"could not fetch {package.name} {package.version}:\n  "
                + _last_words(result),
                "the mirror may have a newer one by now: build with --update",
            )
        fetched = os.path.join(partial, files[0])
        if _sha256(fetched) != package.sha256:
            os.unlink(fetched)
            raise BuildError(
                f"{package.name} {package.version} is not the file that the "
                "signed package list names; it was not used",
                "try again, or use another mirror",
            )
        os.replace(fetched, path)
        os.rmdir(partial)
        return path


def contents(deb, wanted):
    """{path: data} of a .deb's files for which wanted(path) holds, and
    {path: target} of all its symbolic links. Paths are absolute."""
    files, links = {}, {}
    with subprocess.Popen(
        [find_tool("dpkg-deb"), "--fsys-tarfile", deb],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
                for member in tar:
                    path = "/" + os.path.normpath(member.name).lstrip("./")
                    if member.issym():
                        links[path] = os.path.normpath(
                            os.path.join(os.path.dirname(path), member.linkname)
                        )
                    elif member.isreg() and wanted(path):
                        files[path] = tar.extractfile(member).read()
            # dpkg-deb pads after tar's end mark; closing on it would kill it.
            process.stdout.read()
        except tarfile.TarError as error:
            raise BuildError(f"{deb}: damaged package: {error}") from error
        finally:
            process.stdout.close()
            words = process.stderr.read().decode(errors="replace").strip()
    if process.returncode != 0:
        raise BuildError(f"{deb}: damaged package: {words}")
    return files, links


def parse_records(text):
    """The paragraphs of a control file as dictionaries; folded lines joined."""
    records = []
    for paragraph in text.split("\n\n"):
        record, key = {}, None
        for line in paragraph.splitlines():
            if line[:1].isspace() and key:
                record[key] += "\n" + line.strip()
            elif ":" in line:
                key, _, value = line.partition(":")
                record[key] = value.strip()
        if record:
            records.append(record)
    return records


def _last_words(result):
    lines = [
        line for line in result.stderr.splitlines() if line.startswith("E:")
    ] or result.stderr.splitlines() or result.stdout.splitlines()
    return "\n  ".join(lines[-6:]) or "apt said nothing"


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def _write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
