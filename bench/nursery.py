"""Starts measured processes without waiting for Python's imports each time.

A nursery is a process that has imported what its children need and done nothing else: no loop, no
thread, no descriptor. For each sample it forks one child, which is as fresh as a started process
(its heap holds the imported modules) and is there after milliseconds instead of a tenth of a
second. While something is measured, nurseries sleep in recvmsg(2).

All children of one nursery share their address layout and hash seed, which are worth some percent
either way. So the runner makes new nurseries for each repetition.

    python -m bench.nursery FD MODULE...      a child of the runner; FD is its end of a socket
"""

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import traceback

from bench import machine

REQUEST_MAX = 64 * 1024
ANSWER_S = 30.0


class NurseryError(Exception):
    """The nursery ended; the text is what it said last."""


class Child:
    """A process forked elsewhere, with what is needed of subprocess.Popen's interface."""

    def __init__(self, pid, stdout=None, stderr=None):
        self.pid = pid
        self.stdout = stdout  # a text file to read from, or None
        self.stderr = stderr  # a text file that the child wrote to, or None
        self.pidfd = None
        try:
            self.pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            pass  # it has ended already

    def ended(self, timeout_s=0.0):
        if self.pidfd is None:
            return True
        poll = select.poll()  # select() takes no descriptor above 1023
        poll.register(self.pidfd, select.POLLIN)
        if not poll.poll(timeout_s * 1000):
            return False
        os.close(self.pidfd)
        self.pidfd = None
        return True

    def poll(self):
        """Whether it ended: 0 or None. Its status went to the nursery, and nobody asks for it."""
        return 0 if self.ended() else None

    def wait(self, timeout_s=None):
        if not self.ended(3600.0 if timeout_s is None else timeout_s):
            raise subprocess.TimeoutExpired("a child of a nursery", timeout_s)
        return 0

    def send_signal(self, number):
        if self.pidfd is not None:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                signal.pidfd_send_signal(self.pidfd, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)


class Nursery:
    """The runner's side."""

    def __init__(self, modules, environment=None):
        self.socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(ANSWER_S)
        command = [sys.executable, "-m", "bench.nursery", str(other.fileno()), *modules]
        with other:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                cwd=machine.ROOT,
                env={**os.environ, **(environment or {})},
                pass_fds=[other.fileno()],
                preexec_fn=machine.end_with_parent,
            )

    def wait_ready(self):
        """Waits for the imports; nurseries that were made together import at the same time."""
        self.answer()
        return self

    def answer(self):
        try:
            data = self.socket.recv(REQUEST_MAX)
        except (TimeoutError, ConnectionError) as error:
            data = b""
            self.process.kill()
            reason = str(error)
        else:
            reason = "no reason given"
        if data:
            return json.loads(data)
        _, text = self.process.communicate()
        lines = [line for line in text.splitlines() if line.strip()] or [reason]
        raise NurseryError(f"the process that starts servers ended: {lines[-1][-300:]}")

    def start(self, module, argv, core, stdout, stderr):
        """Forks a child that runs module.main(argv) on a core, or on any; the last are files."""
        request = json.dumps({"module": module, "argv": argv, "core": core}).encode()
        try:
            socket.send_fds(self.socket, [request], [stdout.fileno(), stderr.fileno()])
        except OSError:
            pass  # it is gone; the answer says why
        return Child(self.answer()["pid"])

    def close(self):
        self.socket.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stderr.close()


class Nurseries:
    """Those of one repetition, each made when it is first wanted."""

    def __init__(self):
        self.made = {}

    def prepare(self, wanted):
        """Makes several, which import at the same time: [(modules, environment)]."""
        keys = [(modules, tuple(sorted(environment.items()))) for modules, environment in wanted]
        new = [key for key in dict.fromkeys(keys) if key not in self.made]
        for modules, environment in new:
            self.made[modules, environment] = Nursery(modules, dict(environment))
        for key in new:
            try:
                self.made[key].wait_ready()
            except NurseryError:
                self.made.pop(key).close()
                raise

    def get(self, modules, environment):
        self.prepare([(modules, environment)])
        return self.made[modules, tuple(sorted(environment.items()))]

    def close(self):
        """The next ones have other address layouts and hash seeds."""
        for each in self.made.values():
            each.close()
        self.made.clear()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()


# ---- the nursery's side ----


def become(request, stdout, stderr):
    """In the child: runs the module to its end and never returns."""
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        machine.end_with_parent()
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        for descriptor in (stdout, stderr):
            os.close(descriptor)
        if request["core"] is not None:
            os.sched_setaffinity(0, {request["core"]})
        sys.argv = [request["module"], *request["argv"]]
        importlib.import_module(request["module"]).main(request["argv"])
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)


def serve(channel):
    while True:
        data, descriptors, _, _ = socket.recv_fds(channel, REQUEST_MAX, 2)
        if not data:
            return
        pid = os.fork()
        if pid == 0:
            channel.close()
            become(json.loads(data), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        channel.send(json.dumps({"pid": pid}).encode())


def main():
    channel = socket.socket(fileno=int(sys.argv[1]))
    first, *more = sys.argv[2:]
    importlib.import_module(first)
    for name in more:
        with contextlib.suppress(ImportError):  # the arm that needs it says so
            importlib.import_module(name)
    gc.collect()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    channel.send(b"{}")
    serve(channel)


if __name__ == "__main__":
    main()
