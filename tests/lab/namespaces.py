"""Namespaces without a trace on the machine.

Theory of operation

The lab is one process, its init: PID 1 of a PID namespace of its own, with
mount, network, UTS and IPC namespaces of its own. Below it stands one holder
for each machine of the lab ("host", "router", ...), again PID 1 of five
namespaces. No namespace has a file in /run/netns: they live exactly as long as
their processes, and the kernel kills every process of a PID namespace with its
init. So one kill -9 of the lab's init, by whoever, ends the lab and frees every
interface, mount and process; nothing can be left over but files.

From outside, a holder is reached by /proc/INIT/root/proc/HOLDER: the first part
in the machine's PIDs, the second in the lab's.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
import time

from errors import PATH, LabError

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_ALL = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET

MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15

# "mnt" last: the other files are opened by paths of the caller's mounts.
KINDS = ("ipc", "uts", "net", "pid", "mnt")

INIT_NAME = "torvm-lab-init"

# An installed TorVM's state and configuration are not the lab's.
MASKED = ("/var/lib/torvm", "/etc/torvm")

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result, what):
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, "%s: %s" % (what, os.strerror(code)))


def _unshare(flags):
    _check(_libc.unshare(flags), "unshare")


def _mount(source, target, fstype, flags=0, data=None):
    def raw(text):
        return None if text is None else text.encode()

    _check(
        _libc.mount(
            raw(source), raw(target), raw(fstype), ctypes.c_ulong(flags), raw(data)
        ),
        "mount on " + target,
    )


def start_time(pid, proc="/proc"):
    """Start of a process in clock ticks since boot, or None when it is gone."""
    try:
        with open("%s/%s/stat" % (proc, pid), encoding="ascii", errors="replace") as f:
            fields = f.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def boot_id():
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as f:
        return f.read().strip()


# --- the processes that hold the namespaces --------------------------------


def _own_mounts(resolv_conf, with_sys):
    _mount("none", "/", None, MS_REC | MS_PRIVATE)
    real = os.path.realpath("/etc/resolv.conf")
    flags = MS_NOSUID | MS_NODEV
    _mount("proc", "/proc", "proc", flags | MS_NOEXEC)
    if with_sys:
        _mount("sysfs", "/sys", "sysfs", flags | MS_NOEXEC)
    # The machine's bus, resolved and every other service's socket go away.
    _mount("tmpfs", "/run", "tmpfs", flags, "mode=755")
    os.mkdir("/run/lock", 0o1777)
    for path in MASKED:
        if os.path.isdir(path):
            _mount("tmpfs", path, "tmpfs", flags, "mode=755")
    if resolv_conf is None:
        return
    if real.startswith("/run/"):
        os.makedirs(os.path.dirname(real), exist_ok=True)
        own = real
    else:
        own = "/run/resolv.conf"
    with open(own, "w", encoding="ascii") as f:
        f.write(resolv_conf)
    if own != real:
        _mount(own, real, None, MS_BIND)


def private_run():
    """Give the calling process its own mounts with an empty /run."""
    _unshare(CLONE_NEWNS)
    _mount("none", "/", None, MS_REC | MS_PRIVATE)
    _mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    os.mkdir("/run/lock", 0o1777)


def _reap_forever(name):
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    _libc.prctl(PR_SET_NAME, name.encode(), 0, 0, 0)
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass
        signal.sigwait({signal.SIGCHLD})


def _hold(prefix, name, resolv_conf, report):
    """Fork a holder; returns its PID in the lab's PID namespace."""
    out, into = os.pipe()
    middle = os.fork()
    if middle == 0:
        try:
            os.close(out)
            _unshare(CLONE_ALL)
            ready_out, ready_into = os.pipe()
            holder = os.fork()
            if holder == 0:
                os.chdir("/")
                for fd in (into, ready_out, report):
                    os.close(fd)
                hostname = ("%s-%s" % (prefix, name)).encode()
                _libc.sethostname(hostname, len(hostname))
                try:
                    _own_mounts(resolv_conf, True)
                except OSError as e:
                    os.write(ready_into, str(e).encode())
                    os._exit(1)
                os.write(ready_into, b"ready")
                os.close(ready_into)
                _reap_forever("lab-" + name)
            os.close(ready_into)
            answer = os.read(ready_out, 500)
            if answer == b"ready":
                answer = b"%d" % holder
            os.write(into, answer)
        except OSError as e:
            os.write(into, str(e).encode())
        os._exit(0)
    os.close(into)
    answer = _read_all(out)
    os.waitpid(middle, 0)
    if not answer.isdigit():
        raise LabError("namespace %s: %s" % (name, answer))
    return int(answer)


def _init(prefix, machines, report):
    """Body of the lab's init; does not return."""
    try:
        _own_mounts(None, False)
        lines = []
        for name, resolv_conf in machines.items():
            holder = _hold(prefix, name, resolv_conf, report)
            lines.append("%s %d" % (name, holder))
        os.write(report, ("\n".join(lines) + "\n").encode())
    except (OSError, LabError) as e:
        os.write(report, ("error %s\n" % e).encode())
        os._exit(1)
    os.close(report)
    _reap_forever(INIT_NAME)


def start(directory, prefix, machines):
    """Start the lab's init and one holder per machine.

    directory: the lab's; the init is found again by it, see find_inits().
    prefix: hostnames are PREFIX-MACHINE.
    machines: name -> contents of its /etc/resolv.conf.

    Returns the init's PID, and name -> PID in the lab's PID namespace.
    """
    report_out, report_into = os.pipe()
    pid_out, pid_into = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    middle = os.fork()
    if middle == 0:
        try:
            os.setsid()
            os.chdir(directory)
            # From here to its end the lab can be found by find_inits().
            _libc.prctl(PR_SET_NAME, INIT_NAME.encode(), 0, 0, 0)
            null = os.open("/dev/null", os.O_RDWR)
            for fd in (0, 1, 2):
                os.dup2(null, fd)
            # The lab outlives its caller: hold none of the caller's files.
            low = 3
            for fd in sorted((report_into, pid_into)):
                os.closerange(low, fd)
                low = fd + 1
            os.closerange(low, 65536)
            for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(signum, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, set())
            _unshare(CLONE_ALL)
            init = os.fork()
            if init == 0:
                os.close(pid_into)
                _init(prefix, machines, report_into)
            os.write(pid_into, b"%d" % init)
        except OSError as e:
            os.write(pid_into, str(e).encode())
        os._exit(0)
    os.close(report_into)
    os.close(pid_into)
    answer = _read_all(pid_out)
    os.waitpid(middle, 0)
    text = _read_all(report_out)
    if not answer.isdigit() or not text or text.startswith("error "):
        raise LabError("cannot make namespaces: " + (text or answer))
    holders = (line.split() for line in text.splitlines())
    return int(answer), {name: int(pid) for name, pid in holders}


def _read_all(fd):
    with os.fdopen(fd, "rb") as f:
        return f.read().decode(errors="replace")


def kill_inits(directory):
    """End every lab of a directory and wait until all of it is gone.

    The directory may have been deleted; nothing recorded is needed. The kernel
    kills the rest of a PID namespace with its init, which ends only when all of
    it has ended.
    """
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            fd = os.pidfd_open(int(entry))
        except OSError:
            continue
        try:
            # Checked after the descriptor is open: it cannot be another's PID.
            with open("/proc/%s/comm" % entry, encoding="ascii", errors="replace") as f:
                if f.read().rstrip("\n") != INIT_NAME:
                    continue
            cwd = os.readlink("/proc/%s/cwd" % entry)
            if cwd in (directory, directory + " (deleted)"):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
                if not select.select([fd], [], [], 20)[0]:
                    raise LabError("the lab's init %s was killed but lives on" % entry)
        except (FileNotFoundError, ProcessLookupError):
            pass
        finally:
            os.close(fd)


# --- entering -----------------------------------------------------------------


class Namespace:
    """One machine of a running lab."""

    def __init__(self, name, init, holder):
        self.name = name
        self.proc = "/proc/%d/root/proc/%d" % (init, holder)

    def path(self, inside):
        """Path by which a file of this machine is reached from outside."""
        return self.proc + "/root" + inside

    def enter(self):
        """Move the calling process in; its children are in the PID namespace."""
        cwd = os.getcwd()
        fds = []
        try:
            for kind in KINDS:
                fds.append(os.open("%s/ns/%s" % (self.proc, kind), os.O_RDONLY))
        except FileNotFoundError:
            raise LabError("the lab is not running; start it with: lab up") from None
        for fd in fds:
            _check(_libc.setns(fd, 0), "setns")
            os.close(fd)
        try:
            os.chdir(cwd)
        except OSError:
            os.chdir("/")

    def run(self, argv, **kwargs):
        """subprocess.run() inside, by a forked child that enters first."""
        return subprocess.run(argv, preexec_fn=self._enter_and_fork, **kwargs)

    def popen(self, argv, **kwargs):
        """subprocess.Popen() inside. Its PID is a waiter's, outside the lab:
        SIGTERM, SIGHUP and SIGINT are handed on, SIGKILL kills both."""
        return subprocess.Popen(argv, preexec_fn=self._enter_and_fork, **kwargs)

    def _enter_and_fork(self):
        # A process cannot change its own PID namespace, only that of its
        # children: the child that exec()s is a grandchild of the caller.
        self.enter()
        fork_and_mirror()

    def _enter_net(self):
        fd = os.open(self.proc + "/ns/net", os.O_RDONLY)
        _check(_libc.setns(fd, CLONE_NEWNET), "setns")
        os.close(fd)

    def call_net(self, function, *args):
        """Call a function in a child on the network namespace alone."""
        child = os.fork()
        if child == 0:
            status = 1
            try:
                self._enter_net()
                function(*args)
                status = 0
            finally:
                os._exit(status)
        if os.waitpid(child, 0)[1] != 0:
            raise LabError("%s: %s failed" % (self.name, function.__name__))

    def check(self, *argv, text=None):
        """Run a tool on the network namespace alone; returns its output,
        LabError with its words when it fails."""
        done = subprocess.run(
            argv,
            preexec_fn=self._enter_net,
            input=text,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            universal_newlines=True,
            env={"PATH": PATH, "LC_ALL": "C"},
        )
        if done.returncode != 0:
            raise LabError(
                "%s: %s: %s" % (self.name, " ".join(argv), done.stdout.strip())
            )
        return done.stdout

    def spawn(self, argv, log):
        """Start a daemon that belongs to the machine's PID 1.

        log: file that gets its output. Returns its PID inside.
        """
        out, into = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.close(out)
                self.enter()
                if os.fork() == 0:
                    self._daemon(argv, log, into)
            except (OSError, LabError) as e:
                os.write(into, str(e).encode())
            os._exit(0)
        os.close(into)
        answer = _read_all(out)
        os.waitpid(child, 0)
        if not answer.isdigit():
            raise LabError("%s: cannot start %s: %s" % (self.name, argv[0], answer))
        return int(answer)

    @staticmethod
    def _daemon(argv, log, into):
        os.setsid()
        # Before the PID is known: whoever waits for words in it finds a file.
        fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        pid = os.fork()
        if pid:
            os.write(into, b"%d" % pid)
            os._exit(0)
        os.close(into)
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        os.dup2(null, 0)
        os.dup2(fd, 1)
        os.dup2(fd, 2)
        os.closerange(3, 65536)
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        try:
            os.execvpe(argv[0], argv, {"PATH": PATH, "LC_ALL": "C.UTF-8"})
        except OSError as e:
            os.write(2, ("%s: %s\n" % (argv[0], e)).encode())
            os._exit(127)

    def alive(self, pid):
        return start_time(pid, self.path("/proc")) is not None

    def end(self, pid):
        """Kill a process by its PID inside and wait until it is gone."""
        self.kill(pid, signal.SIGKILL)
        while self.alive(pid):
            time.sleep(0.01)

    def kill(self, pid, signum=signal.SIGTERM):
        """Signal a process by its PID inside; a gone one is no error."""
        child = os.fork()
        if child == 0:
            status = 1
            try:
                self.enter()
                # Only children are in the PID namespace.
                inner = os.fork()
                if inner == 0:
                    try:
                        os.kill(pid, signum)
                    except ProcessLookupError:
                        pass
                    os._exit(0)
                os.waitpid(inner, 0)
                status = 0
            finally:
                os._exit(status)
        os.waitpid(child, 0)


def fork_and_mirror():
    """Return in a child; the caller waits for it, hands signals on and ends as
    the child ended. The child dies with the caller."""
    forwarded = {signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
    ignored = set()
    # A terminal sends these to the whole group by itself.
    if os.isatty(0):
        ignored = {signal.SIGINT, signal.SIGQUIT}
    else:
        forwarded |= {signal.SIGINT, signal.SIGQUIT}
    old = signal.pthread_sigmask(signal.SIG_BLOCK, forwarded | {signal.SIGCHLD})
    child = os.fork()
    if child == 0:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        for signum in forwarded | {signal.SIGPIPE}:
            signal.signal(signum, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, old - forwarded)
        return
    for signum in ignored:
        signal.signal(signum, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    # Whoever waits for the end of our output waits for the child only.
    os.closerange(3, 65536)
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            break
        signum = signal.sigwait(forwarded | {signal.SIGCHLD})
        if signum != signal.SIGCHLD:
            os.kill(child, signum)
    if os.WIFSIGNALED(status):
        os._exit(128 + os.WTERMSIG(status))
    os._exit(os.WEXITSTATUS(status))
