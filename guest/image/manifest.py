"""dist/vm/manifest.json: what an image was made from and what came out.

The controller compares the outputs with it before it starts them; the builder
compares the inputs with it to see that there is nothing to do. It is written
last and taken away first, so a set of outputs without one is never trusted.
"""

import hashlib
import json
import os

from report import BuildError

NAME = "manifest.json"
SCHEMA = 1


def sha256_file(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def describe_output(path):
    """The manifest's entry for one output."""
    return {
        "file": os.path.basename(path),
        "size": os.path.getsize(path),
        "sha256": sha256_file(path),
    }


def describe_package(package):
    """The manifest's entry for one debian.Package."""
    return {
        "name": package.name,
        "version": package.version,
        "architecture": package.architecture,
        "sha256": package.sha256,
        "source": package.source,
        "source_version": package.source_version,
    }


def load(directory):
    """The manifest as a dictionary; None if there is none of this schema."""
    try:
        with open(os.path.join(directory, NAME), encoding="utf-8") as file:
            content = json.load(file)
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        raise BuildError(f"{directory}/{NAME}: {error}") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        return None
    return content


def problems(directory, content):
    """What is wrong with the outputs of `content`: a list of sentences."""
    found = []
    for output in content["outputs"].values():
        path = os.path.join(directory, output["file"])
        if not os.path.isfile(path):
            found.append(f"{output['file']} is missing")
        elif os.path.getsize(path) != output["size"]:
            found.append(
                f"{output['file']} has {os.path.getsize(path)} bytes, "
                f"not {output['size']}"
            )
        elif sha256_file(path) != output["sha256"]:
            found.append(f"{output['file']} has another content")
    return found


def install(staging, directory, content):
    """Move the outputs from `staging` (same file system) into `directory`.

    A reader sees the old set, no manifest, or the new set.
    """
    staged = os.path.join(staging, NAME)
    with open(staged, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1, sort_keys=True)
        file.write("\n")
    names = [output["file"] for output in content["outputs"].values()]
    for name in [*names, NAME]:
        os.chmod(os.path.join(staging, name), 0o644)
        _sync(os.path.join(staging, name))
    os.makedirs(directory, mode=0o755, exist_ok=True)
    old = os.path.join(directory, NAME)
    stale = load_stale_names(directory) - set(names)
    if os.path.lexists(old):
        os.unlink(old)
    for name in stale:
        if os.path.lexists(os.path.join(directory, name)):
            os.unlink(os.path.join(directory, name))
    for name in [*names, NAME]:
        os.replace(os.path.join(staging, name), os.path.join(directory, name))
    _sync(directory)


def load_stale_names(directory):
    """Output names of the manifest that is being replaced."""
    try:
        content = load(directory)
    except BuildError:
        return set()
    if content is None:
        return set()
    return {os.path.basename(o["file"]) for o in content["outputs"].values()}


def _sync(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
