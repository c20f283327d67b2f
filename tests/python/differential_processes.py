"""The processes half of a differential world: children that give back what they are given.

Which comes first, the end of a pipe or that of the child, asyncio does not promise: each has a
trace of its own.  A child works while the world waits for it, between the turns of the loop: what
it was given comes back, and what was to end has ended.  Nothing is written to a child in the step
that ends it: what becomes of that is by chance.
"""

import asyncio
import contextlib
import os
import select
import signal
import subprocess
import threading
import zlib

from differential import World, pattern, told

WAIT_SECONDS = 10
KILLED_BY = [signal.SIGTERM, signal.SIGKILL, signal.SIGUSR1]


class Child(asyncio.SubprocessProtocol):
    def __init__(self, world, number, heard):
        self.world = world
        self.label = f"p{number}"
        self.heard = heard  # what it says is
        self.transport = None
        self.pid = None
        self.sent = self.got = self.crc = 0
        self.wrote = None  # the step
        self.ending = False
        self.exited = False

    def connection_made(self, transport):
        self.transport = transport
        self.pid = transport.get_pid()
        self.world.note(self.label, "connection_made", type(self.pid).__name__)

    def pipe_data_received(self, fd, data):
        self.got += len(data)
        self.crc = zlib.crc32(data, self.crc)
        self.world.count(f"{self.label} says", "data", len(data), fd)

    def pipe_connection_lost(self, fd, exc):
        self.world.note(f"{self.label} pipe {fd}", "lost", told(exc))

    def process_exited(self):
        self.exited = True
        self.world.note(self.label, "exited", self.transport.get_returncode())

    def connection_lost(self, exc):
        self.world.note(self.label, "connection_lost", told(exc), self.crc)

    def wait(self):
        """Until there is news for the loop; False if there will be none."""
        if self.transport is None or self.exited:
            return False
        if self.ending:
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            for thread in threading.enumerate():  # asyncio's, which tells the loop
                if "waitpid" in thread.name and self.pid in getattr(thread, "_args", ()):
                    thread.join()
            return True
        if self.heard and self.got < self.sent:
            pipe = self.transport.get_pipe_transport(1).get_extra_info("pipe")
            select.select([pipe], [], [], WAIT_SECONDS)
            return True
        return False


class Processes(World):
    def __init__(self, loop):
        super().__init__(loop)
        self.children = []
        self.tasks = []
        self.talks = []

    def spawn(self, label, coro):
        async def run():
            try:
                result = await coro
            except Exception as exc:
                self.note(label, told(exc))
            else:
                self.note(label, "done", result)

        task = self.loop.create_task(run())
        self.tasks.append(task)
        return task

    def op_start(self, how, heard):
        child = Child(self, len(self.children), heard)
        stdout = subprocess.PIPE if heard else subprocess.DEVNULL
        self.children.append(child)

        async def start():
            options = {"stdin": subprocess.PIPE, "stdout": stdout, "stderr": None}
            if how == "shell":
                await self.loop.subprocess_shell(lambda: child, "exec cat", **options)
            else:
                command = "cat" if how == "exec" else "/no/such/command"
                await self.loop.subprocess_exec(lambda: child, command, **options)

        self.spawn(f"{child.label} start", start())

    def of(self, number):
        child = self.children[number % len(self.children)] if self.children else None
        return child if child is not None and child.transport is not None else None

    def op_write(self, number, size):
        """To one that answers: another may be killed before it has read, and by a socket, which is
        its input on asyncio, that is a reset."""
        if (child := self.of(number)) and child.heard and not (child.ending or child.exited):
            child.transport.get_pipe_transport(0).write(pattern(child.sent, size))
            child.sent += size
            child.wrote = self.step

    def may_end(self, child):
        """Once: a second signal, on asyncio, may reap the child behind the back of who waits."""
        if child is None or child.wrote is self.step or child.ending:
            return False
        child.ending = True
        return True

    def op_close_pipe(self, number, how):
        child = self.of(number)
        if how == "abort" and child is not None and child.exited:
            return None  # asyncio's pipe has forgotten its loop, and says so by an AttributeError
        if self.may_end(child):
            pipe = child.transport.get_pipe_transport(0)
            return getattr(pipe, how)()

    def op_signal_child(self, number, what):
        child = self.of(number)
        if child is not None and child.exited:
            child.ending = False  # it is over, and asking again says so
        if what == 0 and child is not None and not child.ending:
            child.transport.send_signal(0)  # asks whether there is somebody
        elif what != 0 and self.may_end(child):
            if isinstance(what, int):
                child.transport.send_signal(what)
            else:
                getattr(child.transport, what)()

    def op_look(self, number):
        if child := self.of(number):
            transport = child.transport
            code = transport.get_returncode() if child.exited else None
            pipes = [transport.get_pipe_transport(fd) is not None for fd in range(3)]
            return code, transport.get_pid() == child.pid, pipes

    def op_communicate(self, size, stderr):
        """By asyncio's own protocol, to the end."""

        async def talk():
            options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            if stderr:
                options["stderr"] = subprocess.STDOUT
            process = await asyncio.create_subprocess_exec("cat", **options)
            out, error = await process.communicate(pattern(0, size))
            return len(out), zlib.crc32(out), error, process.returncode, await process.wait()

        self.talks.append(self.spawn(f"talk {len(self.tasks)}", talk()))

    def op_run(self, code, count):
        """One that says something and ends by itself."""

        async def run():
            command = f"echo over >&2; head -c {count} /dev/zero; exit {code}"
            options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            process = await asyncio.create_subprocess_shell(command, **options)
            error = await process.stderr.readline()
            out = await process.stdout.read()
            return len(out), error, await process.wait()

        self.talks.append(self.spawn(f"run {len(self.tasks)}", run()))

    def pump(self):
        more = super().pump()
        while self.talks:
            self.loop.run_until_complete(self.talks.pop())
            more = True
        return any([more, *[child.wait() for child in self.children]])

    def finish(self):
        for child in self.children:
            if child.transport is not None:
                child.ending = True
                child.transport.close()
        self.settle()
        for task in self.tasks:
            task.cancel()
        self.settle()
        super().finish()
