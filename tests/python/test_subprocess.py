"""Child processes: every parameter, ends, signals, pipes, threads; nothing is left behind."""

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import warnings
from asyncio.subprocess import DEVNULL, PIPE, STDOUT

import pytest
from helpers import script

PYTHON = sys.executable
UNKNOWN = "will report returncode 255"


def run(loop, coroutine):
    return loop.run_until_complete(coroutine)


async def output(*args, input=None, **kwargs):
    """(code, stdout, stderr) of a program."""
    process = await asyncio.create_subprocess_exec(
        *args, stdin=PIPE, stdout=PIPE, stderr=PIPE, **kwargs
    )
    out, err = await process.communicate(input)
    return process.returncode, out, err


def children():
    """The pids of our children, zombies included."""
    with open(f"/proc/self/task/{threading.get_native_id()}/children") as file:
        return file.read().split()


# ---- ends


def test_exit_codes(loop):
    async def main():
        for code in (0, 1, 77, 255):
            process = await asyncio.create_subprocess_exec("/bin/sh", "-c", f"exit {code}")
            assert await process.wait() == code
            assert process.returncode == code
            assert await process.wait() == code

    run(loop, main())
    assert children() == []


def test_killed(loop):
    async def main():
        for name, number in (("kill", signal.SIGKILL), ("terminate", signal.SIGTERM)):
            process = await asyncio.create_subprocess_exec("/bin/sleep", "100")
            getattr(process, name)()
            assert await process.wait() == -number
        process = await asyncio.create_subprocess_exec("/bin/sleep", "100")
        process.send_signal(signal.SIGUSR1)
        assert await process.wait() == -signal.SIGUSR1

    run(loop, main())


def test_signals_after_the_end(loop):
    async def main():
        process = await asyncio.create_subprocess_exec("/bin/true")
        transport = process._transport
        await process.wait()
        for _ in range(3):
            await asyncio.sleep(0)  # until connection_lost()
        with pytest.raises(ProcessLookupError):
            process.kill()
        with pytest.raises(ProcessLookupError):
            transport.terminate()

    run(loop, main())


@pytest.mark.only("gyre")  # asyncio 3.11 loses the code
def test_signals_around_the_end(loop):
    """A signal to a child that is a zombie, or reaped and not yet told, hits nobody."""

    async def main():
        for _ in range(30):
            process = await asyncio.create_subprocess_exec("/bin/true")
            with contextlib.suppress(ProcessLookupError):
                while process.returncode is None:
                    process.send_signal(0)
                    process.send_signal(signal.SIGCONT)
                    await asyncio.sleep(0)
                process.kill()
            assert await process.wait() == 0

    run(loop, main())


def test_a_program_that_does_not_exist(loop, tmp_path):
    (tmp_path / "file").touch()

    async def main():
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            with pytest.raises(FileNotFoundError):
                await asyncio.create_subprocess_exec(
                    "/nowhere/program", stdin=PIPE, stdout=PIPE, stderr=PIPE
                )
        with pytest.raises(PermissionError):
            await asyncio.create_subprocess_exec(tmp_path / "file")
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) == before

    run(loop, main())
    assert children() == []


@contextlib.asynccontextmanager
async def waiting_child(code):
    """(process, end): end() makes it exit with this code, before end() returns."""
    reading, writing = os.pipe()
    process = await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", f"read x; exit {code}", stdin=reading
    )
    os.close(reading)

    def end():
        os.close(writing)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

    yield process, end


@pytest.mark.only("gyre")  # asyncio's watcher thread reaps at once, until 3.14
def test_a_child_is_reaped_when_its_end_is_told(loop):
    """Until then it is a zombie, and its number nobody else's."""

    async def main():
        async with waiting_child(3) as (process, end):
            end()
            assert process.returncode is None
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
            process.kill()
            assert await process.wait() == 3
            with pytest.raises(ChildProcessError):
                os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)

    run(loop, main())


@pytest.mark.only("gyre")  # on asyncio's loop, a race between two threads
def test_reaped_by_somebody_else(loop, asyncio_log):
    async def main():
        async with waiting_child(3) as (process, end):
            end()
            os.waitpid(process.pid, 0)
            process.send_signal(signal.SIGKILL)  # to nobody
            return await process.wait()

    assert run(loop, main()) == 255
    assert UNKNOWN in asyncio_log.messages()[0]


@pytest.mark.only("gyre")
def test_reaped_by_poll(loop):
    """Popen itself may be the one that reaps: its code counts."""

    async def main():
        async with waiting_child(3) as (process, end):
            end()
            popen = process._transport.get_extra_info("subprocess")
            assert popen.poll() == 3
            popen.kill()
            return await process.wait()

    assert run(loop, main()) == 3


# ---- pipes


def test_communicate(loop):
    async def main():
        data = os.urandom(1 << 20)
        code, out, err = await output("/bin/cat", input=data)
        assert (code, out == data, err) == (0, True, b"")
        code, out, err = await output("/bin/sh", "-c", "echo out; echo err >&2; exit 5")
        assert (code, out, err) == (5, b"out\n", b"err\n")

    run(loop, main())


@pytest.mark.parametrize("when", ["at once", "when the pipe is full"])
def test_communicate_with_a_child_that_does_not_read(loop, when):
    wait = "read -r line; " if when == "when the pipe is full" else ""

    async def main():
        process = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", f"{wait}echo done", stdin=PIPE, stdout=PIPE
        )
        out, _ = await process.communicate(b"line\n" + bytes(1 << 20))
        assert (process.returncode, out) == (0, b"done\n")
        # Old releases of 3.11 report the broken pipe if nobody asks for it: asyncio's own loop too.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            await process.stdin.wait_closed()

    run(loop, main())


def test_stdin_can_be_opened_by_its_name(loop):
    """It is a pipe, not a socket."""

    async def main():
        code, out, err = await output("/bin/sh", "-c", "cat < /dev/stdin", input=b"by name")
        assert (code, out, err) == (0, b"by name", b"")
        code, out, _ = await output("/bin/sh", "-c", "echo x > /dev/stdout; test -p /dev/stderr")
        assert (code, out) == (0, b"x\n")

    run(loop, main())


def test_stderr_to_stdout_and_devnull(loop, tmp_path):
    async def main():
        process = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", "echo a; echo b >&2", stdout=PIPE, stderr=STDOUT, stdin=DEVNULL
        )
        assert process.stdin is None
        assert process.stderr is None
        out, err = await process.communicate()
        assert (out, err) == (b"a\nb\n", None)
        with open(tmp_path / "out", "wb") as file:
            process = await asyncio.create_subprocess_exec("/bin/echo", "hi", stdout=file)
            await process.wait()
        assert (tmp_path / "out").read_text() == "hi\n"

    run(loop, main())


def test_lines_to_and_fro(loop):
    async def main():
        process = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE, stdout=PIPE)
        for i in range(200):
            process.stdin.write(b"%d\n" % i)
            await process.stdin.drain()
            assert await process.stdout.readline() == b"%d\n" % i
        process.stdin.close()
        assert await process.stdout.read() == b""
        assert await process.wait() == 0

    run(loop, main())


def test_drain_after_the_child_has_closed_stdin(loop):
    async def main():
        process = await asyncio.create_subprocess_exec(
            "/bin/sh",
            "-c",
            "exec <&-; echo closed; exec sleep 100",
            stdin=PIPE,
            stdout=PIPE,
        )
        assert await process.stdout.readline() == b"closed\n"
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            while True:
                process.stdin.write(bytes(100_000))
                await process.stdin.drain()
        process.kill()
        await process.wait()

    run(loop, main())


def test_protocol_callbacks(loop):
    trace = []

    class Protocol(asyncio.SubprocessProtocol):
        def connection_made(self, transport):
            trace.append("made")
            self.transport = transport

        def pipe_data_received(self, fd, data):
            trace.append((fd, data))

        def pipe_connection_lost(self, fd, exc):
            trace.append(("lost", fd, exc))

        def process_exited(self):
            trace.append("exited")

        def connection_lost(self, exc):
            trace.append(("over", exc))
            done.set_result(None)

    done = loop.create_future()

    async def main():
        transport, protocol = await loop.subprocess_exec(
            Protocol, "/bin/sh", "-c", "cat; echo err >&2"
        )
        assert protocol.transport is transport
        assert transport.get_pid() > 0
        assert transport.get_returncode() is None
        stdin = transport.get_pipe_transport(0)
        assert isinstance(stdin, asyncio.WriteTransport)
        assert isinstance(transport.get_pipe_transport(1), asyncio.ReadTransport)
        assert transport.get_pipe_transport(3) is None
        assert f"pid={transport.get_pid()} running stdin=" in repr(transport)
        stdin.write(b"in")
        stdin.close()
        await done
        assert transport.get_returncode() == 0
        transport.close()

    run(loop, main())
    assert trace[0] == "made"
    assert trace[-1] == ("over", None)
    assert sorted(map(repr, trace[1:-1])) == sorted(
        map(
            repr,
            [
                (1, b"in"),
                (2, b"err\n"),
                ("lost", 0, None),
                ("lost", 1, None),
                ("lost", 2, None),
                "exited",
            ],
        )
    )


# ---- parameters


def test_shell(loop):
    async def main():
        process = await asyncio.create_subprocess_shell("echo $((6 * 7)) | cat", stdout=PIPE)
        return (await process.communicate())[0]

    assert run(loop, main()) == b"42\n"


def test_subprocess_shell(loop):
    class Protocol(asyncio.SubprocessProtocol):
        def __init__(self):
            self.data = b""
            self.ended = loop.create_future()

        def pipe_data_received(self, fd, data):
            self.data += data

        def connection_lost(self, exc):
            self.ended.set_result(exc)

    async def main():
        transport, protocol = await loop.subprocess_shell(
            Protocol, b"echo out; echo err >&2; exit 4", stdin=None, stderr=STDOUT
        )
        assert await protocol.ended is None
        assert transport.get_pipe_transport(0) is None
        transport.close()
        return transport.get_returncode(), protocol.data

    assert run(loop, main()) == (4, b"out\nerr\n")


def test_popen_parameters(loop, tmp_path):
    (tmp_path / "here").touch()
    reading, writing = os.pipe()

    async def main():
        out = await output("/bin/sh", "-c", "ls; echo $NAME", cwd=tmp_path, env={"NAME": "value"})
        assert out == (0, b"here\nvalue\n", b"")
        out = await output("/bin/sh", "-c", "umask", umask=0o27)
        assert out[1] == b"0027\n"
        out = await output("/bin/sh", "-c", f"echo x >/dev/fd/{writing}", pass_fds=[writing])
        assert os.read(reading, 10) == b"x\n"
        out = await output("/bin/sh", "-c", f"echo x >/dev/fd/{writing}")
        assert out[0] != 0
        os.set_inheritable(writing, True)
        out = await output("/bin/sh", "-c", f"echo y >/dev/fd/{writing}", close_fds=False)
        assert os.read(reading, 10) == b"y\n"
        # Not ps(1): it hangs where ASan is loaded into it, as into every child.
        out = await output(
            "/usr/bin/cut", "-d ", "-f1,6", "/proc/self/stat", start_new_session=True
        )
        pid, session = out[1].split()
        assert pid == session
        out = await output("nonsense", "-c", "echo $0", executable="/bin/sh")
        assert out[0] == 0
        out = await output(
            "/bin/sh", "-c", "echo $PRE", preexec_fn=lambda: os.environ.update(PRE="exec")
        )
        assert out[1] == b"exec\n"
        out = await output("/bin/cat", pipesize=1 << 17, input=b"x")
        assert out[1] == b"x"
        out = await output("/bin/sh", "-c", "kill -PIPE $$; echo alive", restore_signals=False)
        assert out[1] == b"alive\n"
        out = await output("/bin/sh", "-c", "kill -PIPE $$; echo alive")
        assert out[0] == -signal.SIGPIPE
        out = await output("/usr/bin/cut", "-d ", "-f1,5", "/proc/self/stat", process_group=0)
        pid, group = out[1].split()
        assert pid == group
        if os.getuid() == 0:
            out = await output("/usr/bin/id", "-u", user=65534, group=65534, extra_groups=[])
            assert out[1] == b"65534\n"

    run(loop, main())
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"universal_newlines": True},
        {"shell": True},
        {"bufsize": 4096},
        {"text": True},
        {"encoding": "utf-8"},
        {"errors": "strict"},
        {"nonsense": 1},
    ],
    ids=lambda kwargs: next(iter(kwargs)),
)
def test_parameters_that_are_refused(loop, kwargs):
    with pytest.raises((ValueError, TypeError)):
        run(loop, loop.subprocess_exec(asyncio.SubprocessProtocol, "/bin/true", **kwargs))


# ---- cancelling and closing


def test_cancelled_while_starting(loop):
    async def main():
        for turns in range(12):
            task = asyncio.create_task(
                asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE, stdout=PIPE, stderr=PIPE)
            )
            for _ in range(turns):
                await asyncio.sleep(0)
            if task.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await task
            else:
                process = task.result()
                process.stdin.close()
                await process.wait()

    run(loop, main())
    gc.collect()
    assert children() == []


def test_communicate_is_cancelled(loop):
    async def main():
        process = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE, stdout=PIPE)
        reading = asyncio.create_task(process.stdout.read())
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        out, _ = await process.communicate(b"still there")
        assert out == b"still there"

    run(loop, main())


def test_wait_is_cancelled(loop):
    async def main():
        process = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE)
        waiters = [asyncio.create_task(process.wait()) for _ in range(3)]
        await asyncio.sleep(0)
        waiters[1].cancel()
        process.stdin.close()
        assert await asyncio.gather(waiters[0], waiters[2]) == [0, 0]

    run(loop, main())


def test_close_kills(loop):
    async def main():
        transport, _ = await loop.subprocess_exec(asyncio.SubprocessProtocol, "/bin/sleep", "100")
        pid = transport.get_pid()
        transport.close()
        transport.close()
        assert transport.is_closing()
        assert await transport._wait() == -signal.SIGKILL
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    run(loop, main())


@pytest.mark.only("gyre")
def test_loop_closed_with_a_live_child(new_loop):
    """The descriptors go with the loop, the child when its transport is collected."""
    loop = new_loop()

    async def main():
        return await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE, stdout=PIPE)

    process = run(loop, main())
    pid = process.pid
    loop.close()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del process, loop
        gc.collect()
    assert any("unclosed transport" in str(warning.message) for warning in caught)
    subprocess._cleanup()
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def test_many_in_a_row(loop, kind):
    thousands = 2000 if kind == "gyre" else 300

    def state():
        gc.collect()
        return len(os.listdir("/proc/self/fd")), len(gc.get_objects())

    async def some(count):
        for i in range(count):
            if i % 3 == 0:
                assert (await output("/bin/true"))[0] == 0
            else:
                process = await asyncio.create_subprocess_exec("/bin/true")
                assert await process.wait() == 0

    # gyre's descriptors for signals come with its first wait, and on a busy machine thirty children
    # may have ended before anybody waits for them.
    run(loop, asyncio.sleep(0.001))
    run(loop, some(30))
    fds, objects = state()
    run(loop, some(thousands))
    fds_after, objects_after = state()
    assert fds_after == fds
    assert objects_after - objects < 200
    assert children() == []


def test_many_at_once(loop):
    async def one(i):
        code, out, _ = await output(
            "/bin/sh", "-c", f"read x; echo $x; exit {i % 7}", input=b"%d\n" % i
        )
        assert (code, out) == (i % 7, b"%d\n" % i)

    async def main():
        await asyncio.gather(*[one(i) for i in range(60)])

    run(loop, main())
    assert children() == []


def test_loops_of_several_threads(new_loop):
    failures = []

    def body():
        loop = new_loop()

        async def main():
            for i in range(10):
                code, out, _ = await output("/bin/cat", input=b"%d" % i)
                assert (code, out) == (0, b"%d" % i)
                process = await asyncio.create_subprocess_exec("/bin/sh", "-c", f"exit {i}")
                assert await process.wait() == i

        try:
            loop.run_until_complete(main())
        except BaseException as exc:
            failures.append(exc)
        finally:
            loop.close()

    threads = [threading.Thread(target=body) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_sigchld_is_left_alone(loop):
    """The program's own handler stays, and is called; gyre needs none."""
    calls = []
    before = signal.signal(signal.SIGCHLD, lambda *args: calls.append(args))
    try:

        async def main():
            process = await asyncio.create_subprocess_exec("/bin/true")
            await process.wait()

        run(loop, main())
        assert len(calls) == 1
    finally:
        signal.signal(signal.SIGCHLD, before)


@pytest.mark.only("gyre")
def test_no_threads(loop):
    async def main():
        before = threading.active_count()
        process = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE)
        assert threading.active_count() == before
        process.stdin.close()
        await process.wait()

    run(loop, main())


@pytest.mark.only("gyre")
def test_readers_of_the_user_are_apart(loop):
    """A child is waited for by an operation of its own: not by what add_reader() changes."""

    async def main():
        process = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE)
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError, RuntimeError):
                if "pidfd" in os.readlink(f"/proc/self/fd/{name}"):
                    assert not loop.remove_reader(int(name))
                    loop.add_reader(int(name), seen.append, "reader")
                    found.append(int(name))
        process.stdin.close()
        assert await process.wait() == 0
        await asyncio.sleep(0)
        return process

    found, seen = [], []
    run(loop, main())
    assert len(found) == 1
    for number in found:
        loop.remove_reader(number)


@pytest.mark.only("gyre")
def test_where_pidfd_open_is_refused(loop, monkeypatch):
    def refused(pid, flags=0):
        raise PermissionError("pidfd_open")

    monkeypatch.setattr(os, "pidfd_open", refused)

    async def main():
        assert (await output("/bin/cat", input=b"x"))[:2] == (0, b"x")
        process = await asyncio.create_subprocess_exec("/bin/sleep", "100")
        process.kill()
        assert await process.wait() == -signal.SIGKILL

    run(loop, main())


@pytest.mark.only("gyre")
def test_where_pidfd_send_signal_is_refused(loop, monkeypatch):
    def refused(*args):
        raise PermissionError("pidfd_send_signal")

    monkeypatch.setattr(signal, "pidfd_send_signal", refused)

    async def main():
        process = await asyncio.create_subprocess_exec("/bin/sleep", "100")
        process.terminate()
        assert await process.wait() == -signal.SIGTERM

    run(loop, main())


@pytest.mark.only("gyre")
def test_the_child_ends_between_two_runs(loop):
    async def start():
        async with waiting_child(9) as pair:
            return pair

    process, end = run(loop, start())
    end()
    assert run(loop, process.wait()) == 9


SUBINTERPRETER = """
import sys
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
code = '''
import asyncio, gyre
async def main():
    process = await asyncio.create_subprocess_exec(
        "/bin/cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate(b"from inside")
    assert out == b"from inside", out
    assert process.returncode == 0
    open({path!r}, "a").write("ok ")
for _ in range(3):
    gyre.run(main())
'''
import threading
def body():
    ident = interpreters.create()
    failure = interpreters.run_string(ident, code)
    assert failure is None, failure
    interpreters.destroy(ident)
threads = [threading.Thread(target=body) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


@pytest.mark.only("gyre")
@pytest.mark.skipif(
    sys.version_info < (3, 13),
    reason="3.11: one GIL for all; 3.12.1 breaks its heap here, on asyncio's loop as on gyre's",
)
def test_from_subinterpreters(kind, tmp_path):
    path = str(tmp_path / "out")
    done = script(SUBINTERPRETER.replace("{path!r}", repr(path)))
    assert (done.returncode, done.stderr) == (0, "")
    with open(path) as file:
        assert file.read() == "ok " * 6
