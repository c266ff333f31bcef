"""What differs between the processors an image can be built for.

A new architecture is one more entry of ARCHES, nothing else.
"""

from dataclasses import dataclass

from report import BuildError


@dataclass(frozen=True)
class Arch:
    name: str            # Debian's name, also the value of ARCH=
    kernel_package: str  # metapackage that depends on the current kernel
    elf_machine: int     # e_machine, <elf.h>
    multiarch: str       # directory below /usr/lib that ld.so searches
    interpreter: str     # PT_INTERP of every dynamic program


ARCHES = {
    arch.name: arch
    for arch in (
        Arch(
            name="amd64",
            kernel_package="linux-image-cloud-amd64",
            elf_machine=62,  # EM_X86_64
            multiarch="x86_64-linux-gnu",
            interpreter="/lib64/ld-linux-x86-64.so.2",
        ),
        Arch(
            name="arm64",
            kernel_package="linux-image-cloud-arm64",
            elf_machine=183,  # EM_AARCH64
            multiarch="aarch64-linux-gnu",
            interpreter="/lib/ld-linux-aarch64.so.1",
        ),
    )
}


def find(name):
    """The entry called `name`, or a BuildError that lists the known ones."""
    if name not in ARCHES:
        known = ", ".join(sorted(ARCHES))
        raise BuildError(
            f"unknown architecture '{name}'",
            f"use one of: {known}",
        )
    return ARCHES[name]
