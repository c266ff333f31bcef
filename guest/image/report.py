"""Errors a person can act on, progress lines, and running programs."""

import os
import shutil
import subprocess
import sys


class BuildError(Exception):
    """The build cannot go on. `what` happened, and the `remedy` if known."""

    def __init__(self, what, remedy=None):
        super().__init__(what)
        self.what = what
        self.remedy = remedy


def progress(text):
    print(f"image: {text}", flush=True)


def need_tools(tools):
    """Fail, naming all of them, if a program of `tools` is not installed.

    tools: {program: Debian package}
    """
    missing = {t: p for t, p in tools.items() if not find_tool(t)}
    if missing:
        packages = " ".join(sorted(set(missing.values())))
        raise BuildError(
            "not installed: " + ", ".join(sorted(missing)),
            f"as root: apt-get install {packages}",
        )


def find_tool(name):
    # mke2fs and debugfs are in /sbin, which a plain user's PATH lacks.
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    return shutil.which(name, path=path)


def run(argv, env=None, stdin=None, check=True):
    """Run a program to its end; return the CompletedProcess (text output).

    It sees a C locale and UTC and nothing of ours on stdin, so that its output
    depends on its arguments alone. With `check`, a failure is a BuildError with
    the program's last words.
    """
    full_env = dict(os.environ, LC_ALL="C.UTF-8", LANGUAGE="", TZ="UTC")
    full_env.update(env or {})
    tool = find_tool(argv[0])
    if not tool:
        raise BuildError(f"{argv[0]} is not installed")
    result = subprocess.run(
        [tool, *argv[1:]],
        env=full_env,
        input=stdin or "",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        check=False,
    )
    if check and result.returncode != 0:
        words = (result.stderr.strip() or result.stdout.strip()).splitlines()
        raise BuildError(
            f"{argv[0]} failed with status {result.returncode}: "
            + "\n  ".join(words[-6:] or ["no output"])
        )
    return result


def main(function):
    """Run `function()` and turn its errors into one message and exit status."""
    try:
        sys.exit(function())
    except BuildError as error:
        print(f"build-image: {error.what}", file=sys.stderr)
        if error.remedy:
            print(f"build-image: {error.remedy}", file=sys.stderr)
    except OSError as error:
        # A full disk and a missing permission both land here.
        print(f"build-image: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("build-image: interrupted, nothing was changed", file=sys.stderr)
        sys.exit(130)
    sys.exit(1)
