"""Child processes: pinned, stopped while they wait, and ended by their own pid whatever happens."""

import ctypes
import os
import re
import resource
import select
import signal
import socket
import subprocess
import time

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class Failed(Exception):
    """Something without which the run means nothing; the text says what to do."""


def raise_open_files():
    """Lifts the soft limit on open files to the hard one, for this process and its children; returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = 1 << 20
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def cores():
    """(core of the proxy under test, cores of everything else)."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise Failed("two cores are needed: one for the proxy, one for the load and the upstream")
    return allowed[0], set(allowed[1:])


def free_port():
    """A loopback port that was free a moment ago; for peers that can't be asked which one they took."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Process:
    """One program under our control."""

    def __init__(self, name, argv, cpus, log, env=None):
        self.name, self.argv = name, [str(part) for part in argv]
        self._log_path = log
        self._log = open(log, "wb")

        def prepare():
            os.sched_setaffinity(0, cpus)
            # Should this script be killed outright, its children go too.
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

        self.started = time.monotonic()
        self.child = subprocess.Popen(
            self.argv, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
            preexec_fn=prepare, env={**os.environ, **(env or {})})
        self.pid = self.child.pid
        self.stopped = False

    def log(self):
        with open(self._log_path, errors="replace") as text:
            return text.read()

    def pids(self):
        """The process and its children (nginx does its work in one)."""
        found = [self.pid]
        for pid in found:
            try:
                with open(f"/proc/{pid}/task/{pid}/children") as text:
                    found += [int(child) for child in text.read().split()]
            except OSError:
                pass
        return found

    def announced(self, pattern, count=1, timeout=20.0):
        """Waits until the log holds `count` matches of `pattern`; returns their first groups."""
        end = time.monotonic() + timeout
        while True:
            found = re.findall(pattern, self.log())
            if len(found) >= count:
                return found
            if self.child.poll() is not None or time.monotonic() > end:
                state = "ended" if self.child.poll() is not None else f"said nothing in {timeout:.0f} s"
                raise Failed(f"{self.name} {state}: {' '.join(self.argv)}\n{self.log()[-2000:]}")
            time.sleep(0.002)

    def pause(self):
        for pid in self.pids():
            os.kill(pid, signal.SIGSTOP)
        self.stopped = True

    def resume(self):
        for pid in self.pids():
            os.kill(pid, signal.SIGCONT)
        self.stopped = False

    def end(self):
        """Asks, waits three seconds, then insists."""
        if self.child.poll() is None:
            family = self.pids()
            try:
                self.resume()
                self.child.terminate()
                self.child.wait(3)
            except (subprocess.TimeoutExpired, ProcessLookupError):
                for pid in family:
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        pass
                self.child.wait(3)
        self._log.close()


class Processes:
    """All that were started; a context manager that ends every one of them."""

    def __init__(self, directory):
        self.directory, self.running, self._count = directory, [], 0

    def start(self, name, argv, cpus, env=None):
        self._count += 1
        process = Process(name, argv, cpus, f"{self.directory}/{self._count:03}-{name}.log", env)
        self.running.append(process)
        return process

    def end(self, process):
        process.end()
        self.running.remove(process)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in reversed(self.running):
            try:
                process.end()
            except Exception as error:  # the others must still be ended
                print(f"perf/run: {process.name}: {error}")
        self.running.clear()


def first_answer(port, request, since, timeout=20.0):
    """Seconds from `since` to the first 200 for `request` (bytes) on a loopback port; None if none came."""
    end = time.monotonic() + timeout
    last = b"nothing"
    while time.monotonic() < end:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as stream:
                stream.sendall(request)
                readable, _, _ = select.select([stream], [], [], 5)
                last = stream.recv(4096) if readable else b"nothing within 5 s"
                if last.startswith(b"HTTP/1.1 200"):
                    return time.monotonic() - since
        except OSError as error:
            last = str(error).encode()
        time.sleep(0.0005)
    raise Failed(f"no 200 on port {port} within {timeout:.0f} s; last: {last[:300]!r}")
