"""Makes the pristine state disk: an ext4 file system with Tor's directory.

The same bytes every time and without root: mke2fs gets a fixed UUID, hash seed
and clock and ignores the machine's mke2fs.conf; the directory's owner is set
with debugfs, as only root could chown a source directory for `mke2fs -d`.
"""

import os

from report import BuildError, run

LABEL = "torvm-state"
SIZE_MIB = 64
OWNER = 100  # uid and gid of Tor in the guest

# Any fixed values do; they only must not change from build to build.
_UUID = "7e1a70e0-5774-4b1e-8d0c-9095909390c0"
_HASH_SEED = "5a5e0d64-0c6b-4c0f-9e15-746f72766d31"

# Named in full because the default set depends on the e2fsprogs version. No
# resize_inode: the disk is replaced, never grown. 4 KiB blocks: mke2fs would
# take 1 KiB for a disk this small, and Tor's files are megabytes.
_FEATURES = (
    "none,has_journal,ext_attr,dir_index,filetype,extent,64bit,flex_bg,"
    "metadata_csum,sparse_super,large_file,huge_file,dir_nlink,extra_isize"
)


def make(path, epoch):
    """Write the image to `path` (a sparse file). epoch: every time in it."""
    environment = {
        "E2FSPROGS_FAKE_TIME": str(epoch),
        "MKE2FS_CONFIG": "/dev/null",
        "MKE2FS_SYNC": "0",
    }
    with open(path, "wb") as file:
        file.truncate(SIZE_MIB << 20)
    run(
        ["mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256",
         "-N", "1024", "-m", "0", "-J", "size=4", "-O", _FEATURES,
         "-e", "remount-ro", "-L", LABEL, "-U", _UUID,
         "-E", f"hash_seed={_HASH_SEED},root_owner=0:0,nodiscard,"
               "lazy_itable_init=0,lazy_journal_init=0",
         path],
        env=environment,
    )
    commands = ["mkdir /tor"]
    for field, value in (("uid", OWNER), ("gid", OWNER), ("mode", "040700")):
        commands.append(f"set_inode_field /tor {field} {value}")
    for inode in ("/tor", "/"):
        for field in ("atime", "ctime", "mtime", "crtime"):
            commands.append(f"set_inode_field {inode} {field} @{epoch}")
            if field != "crtime":
                commands.append(f"set_inode_field {inode} {field}_extra 0")
    commands.append(f"set_super_value wtime @{epoch}")
    # debugfs exits 0 whatever its commands did; what it says on stderr counts,
    # after the line with its version.
    result = run(
        ["debugfs", "-w", "-f", "-", path],
        env=environment, stdin="\n".join(commands) + "\n",
    )
    problems = result.stderr.strip().splitlines()[1:]
    if problems:
        raise BuildError("debugfs: " + "; ".join(problems))
    run(["e2fsck", "-f", "-n", path], env=environment)
    os.chmod(path, 0o644)
