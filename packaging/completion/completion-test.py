#!/usr/bin/env python3
"""Hold completions and manual to what torvm --help says, and try them.

Usage: completion-test.py PATH-OF-TORVM

bash, zsh and fish complete in real shells; a shell that is not installed is
reported and leaves the comparison of its file's text.
"""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

TORVM = os.path.abspath(sys.argv.pop(1))
HERE = os.path.dirname(os.path.abspath(__file__))
MANUAL = os.path.join(HERE, "..", "..", "docs", "man", "torvm.1")


def run(*args):
    return subprocess.run([TORVM, *args], check=True, text=True,
                          stdout=subprocess.PIPE).stdout


def commands():
    part = run("--help").split("Commands:\n")[1].split("\n\n")[0]
    return [line.split()[0] for line in part.splitlines()]


def options(command):
    """{"--json": "j", ...} of a command; "" is torvm itself."""
    part = run(*([command] if command else []), "--help")
    part = part.split("\nOptions:\n")[1].split("\n\n")[0]
    found = re.findall(r"^  (?:-(\w), |    )--([\w-]+)", part, re.M)
    return {"--" + name: letter for letter, name in found}


def read(name):
    with open(os.path.join(HERE, name), encoding="utf-8") as f:
        return f.read()


class Text(unittest.TestCase):
    def test_every_word_is_in_every_file(self):
        manual = read(MANUAL).replace("\\-", "-")
        for command in commands():
            for name in ("torvm.bash", "_torvm", "torvm.fish"):
                self.assertRegex(read(name), rf"\b{command}\b")
            self.assertRegex(manual, rf"(?m)^\.(It )?Cm {command}\b")
            for option, letter in options(command).items():
                self.assertIn(option, read("torvm.bash"))
                self.assertIn(option, read("_torvm"))
                self.assertRegex(read("torvm.fish"), rf" -l {option[2:]}\b")
                self.assertRegex(manual, rf"Fl -{option[1:]}|Fl {option[1:]}")
                if letter:
                    self.assertRegex(read("_torvm"), rf"-{letter}[ ,]")
                    self.assertRegex(read("torvm.fish"), rf" -s {letter}\b")
                    self.assertIn(f"Fl {letter}", manual)

    def test_every_exit_code_is_in_the_manual(self):
        manual = read(MANUAL)
        for command in [""] + commands():
            text = run(*([command] if command else []), "--help")
            text = text.split("\nExit codes:\n")[1].split("\n\n")[0]
            for code in re.findall(r"^  (\d)  ", text, re.M):
                self.assertIn(f"\n.It {code}\n", manual)


class Shell(unittest.TestCase):
    """complete(words) -> what the shell offers for the last word."""

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="torvm-completion-")
        self.addCleanup(shutil.rmtree, self.dir)
        self.home = tempfile.mkdtemp(prefix="torvm-completion-home-")
        self.addCleanup(shutil.rmtree, self.home)
        os.mkdir(os.path.join(self.dir, "folder"))
        with open(os.path.join(self.dir, "file.json"), "w"):
            pass

    def check(self):
        c = self.complete
        self.assertEqual(c("torvm", "st"), ["status"])
        self.assertLessEqual(set(commands()), set(c("torvm", "")))
        for command in commands():
            self.assertLessEqual(set(options(command)),
                                 set(c("torvm", command, "--")), command)
        self.assertLessEqual(set(options("")), set(c("torvm", "--")))
        self.assertNotIn("--json", c("torvm", "up", "--"))
        self.assertNotIn("--wait", c("torvm", "status", "--"))
        self.assertEqual(c("torvm", "up", "--accel", ""),
                         ["auto", "kvm", "tcg"])
        self.assertEqual(c("torvm", "--headless", "--accel", "t"), ["tcg"])
        self.assertEqual(c("torvm", "config", ""), ["check", "default", "schema"])
        self.assertEqual(c("torvm", "config", "check", "fi"), ["file.json"])
        self.assertEqual([x.rstrip("/") for x in
                          c("torvm", "up", "--runtime-dir", "f")], ["folder"])


class Bash(Shell):
    def complete(self, *words):
        script = """
            source "$1"; shift
            COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
            _torvm
            printf '%s\\n' "${COMPREPLY[@]}" """
        out = subprocess.run(
            ["bash", "--norc", "-c", script, "bash",
             os.path.join(HERE, "torvm.bash"), *words],
            cwd=self.dir, text=True, check=True, stdout=subprocess.PIPE)
        return sorted(set(out.stdout.split()))

    def test_completion(self):
        self.check()
        self.assertEqual(self.complete("torvm", "up", "--accel", "=", "k"),
                         ["kvm"])
        self.assertEqual(self.complete("torvm", "up", "--accel", "="),
                         ["auto", "kvm", "tcg"])


if shutil.which("fish"):
    class Fish(Shell):
        def complete(self, *words):
            line = " ".join(words)
            out = subprocess.run(
                ["fish", "--no-config", "-c",
                 'source $argv[1]; complete -C $argv[2]',
                 os.path.join(HERE, "torvm.fish"), line],
                cwd=self.dir, text=True, check=True, stdout=subprocess.PIPE,
                env=dict(os.environ, HOME=self.home,
                         XDG_DATA_HOME=self.home, XDG_CONFIG_HOME=self.home,
                         PATH=os.path.dirname(TORVM) + ":" +
                         os.environ["PATH"]))
            return sorted({x.split("\t")[0] for x in out.stdout.splitlines()})

        def test_completion(self):
            self.check()
else:
    print("fish is not installed: only its file's text is compared")


ZSH_SETUP = r"""
fpath=("$COMPLETION_DIR" $fpath)
autoload -U compinit
compinit -u -D
unsetopt list_beep auto_menu auto_list
PS1= PS2=
compadd() {
	# Calls that only fill arrays add nothing.
	if [[ ${@[1,(i)(-|--)]} == *-[OAD]\ * ]]; then
		builtin compadd "$@"
		return
	fi
	local -a hits
	builtin compadd -A hits "$@"
	(( $#hits )) && print -rl -- $hits >>$COMPLETION_OUT
	builtin compadd "$@"
}
probe-end() { print -r -- "<end>" >>$COMPLETION_OUT }
probe() { comppostfuncs=(probe-end); _main_complete "$@" }
zle -C complete-probe complete-word probe
bindkey "^I" complete-probe
print -r -- "<end>" >>$COMPLETION_OUT
"""


if shutil.which("zsh"):
    class Zsh(Shell):
        """An interactive shell on a terminal: zsh completes nowhere else."""

        def setUp(self):
            super().setUp()
            self.out = os.path.join(self.home, "out")
            setup = os.path.join(self.home, "setup")
            with open(self.out, "w"):
                pass
            with open(setup, "w", encoding="utf-8") as f:
                f.write(ZSH_SETUP)
            self.pid, self.fd = pty.fork()
            if self.pid == 0:
                os.chdir(self.dir)
                os.execvpe("zsh", ["zsh", "-f", "-i"],
                           dict(os.environ, COMPLETION_DIR=HERE, TERM="dumb",
                                COMPLETION_OUT=self.out, HOME=self.home))
            self.addCleanup(self.end)
            os.write(self.fd, f"source {setup}\n".encode())
            self.wait()

        def end(self):
            os.close(self.fd)
            os.waitpid(self.pid, 0)

        def wait(self):
            deadline = time.monotonic() + 30
            while True:
                with open(self.out, encoding="utf-8") as f:
                    words = f.read().split("\n")
                if "<end>" in words:
                    return [w for w in words if w and w != "<end>"]
                self.assertLess(time.monotonic(), deadline, words)
                # The terminal has to be read, or zsh waits for us.
                if select.select([self.fd], [], [], 0.02)[0]:
                    os.read(self.fd, 4096)

        def complete(self, *words):
            with open(self.out, "w"):
                pass
            # ^U empties the line that the last completion left.
            os.write(self.fd, b"\x15" + " ".join(words).encode() + b"\t")
            return sorted(set(self.wait()))

        def test_completion(self):
            self.check()
else:
    print("zsh is not installed: only its file's text is compared")


if __name__ == "__main__":
    unittest.main()
