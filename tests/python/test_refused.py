"""A refused io_uring, and resource limits at their edge."""

import errno
import json
import os
import textwrap

import pytest
from helpers import script

SECCOMP = """
import ctypes, errno, os, struct, sys

def forbid(number, error):
    # A filter of three instructions: load the number of the system call, compare, answer.
    LD_ABS, JEQ, RET, ALLOW, ERRNO = 0x20, 0x15, 0x06, 0x7FFF0000, 0x00050000
    program = b"".join(
        struct.pack("HBBI", *line)
        for line in [(LD_ABS, 0, 0, 0), (JEQ, 0, 1, number), (RET, 0, 0, ERRNO | error),
                     (RET, 0, 0, ALLOW)]
    )
    buffer = ctypes.create_string_buffer(program, len(program))
    fprog = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 4, ctypes.addressof(buffer)))
    libc = ctypes.CDLL(None, use_errno=True)
    NO_NEW_PRIVS, SET_SECCOMP, FILTER = 38, 22, 2
    assert libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    if libc.prctl(SET_SECCOMP, FILTER, fprog, 0, 0) != 0:
        sys.exit(77)
"""


IO_URING = {"io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427}  # everywhere
REFUSALS = [
    ("io_uring_setup", "EPERM", "seccomp"),
    ("io_uring_setup", "ENOSYS", "kernel"),
    ("io_uring_setup", "ENOMEM", "RLIMIT_MEMLOCK"),
    ("io_uring_setup", "EMFILE", "ulimit -n"),
    ("io_uring_setup", "EACCES", "seccomp"),
    ("io_uring_setup", "EINVAL", os.strerror(errno.EINVAL)),
    ("io_uring_setup", "EIO", os.strerror(errno.EIO)),
    # A filter that allows the setup and forbids the rest.
    ("io_uring_enter", "EPERM", "io_uring_enter"),
    ("io_uring_enter", "ENOSYS", "io_uring_enter"),
    ("io_uring_register", "EPERM", "io_uring_register"),
    ("io_uring_register", "ENOSYS", "io_uring_register"),
]
KILL = 0x80000000


def under_seccomp(call, error, code, before="", **options):
    """Runs code where a seccomp filter answers this call of io_uring with an error."""
    number = IO_URING[call]
    begin = SECCOMP + textwrap.dedent(before)
    text = f"{begin}\nforbid({number}, {error})\n" + textwrap.dedent(code)
    done = script(text, **{"GYRE_BACKEND": "", **options})
    if done.returncode == 77:
        pytest.skip("seccomp filters cannot be installed here")
    return done


@pytest.mark.only("gyre")
class TestForced:
    """io_uring is asked for, and forbidden or missing: one clear BackendError."""

    @pytest.mark.parametrize("call, error, words", REFUSALS)
    def test_error(self, kind, call, error, words):
        done = under_seccomp(
            call,
            f"errno.{error}",
            """
            import gyre
            before = sorted(os.listdir("/proc/self/fd"))
            for _ in range(2):
                try:
                    gyre.new_event_loop(backend="io_uring")
                except gyre.BackendError as exc:
                    assert isinstance(exc, RuntimeError)
                    assert exc.__cause__ is None and exc.__context__ is None
                    print(exc)
                else:
                    sys.exit("it was made")
            assert sorted(os.listdir("/proc/self/fd")) == before
            """,
        )
        assert (done.returncode, done.stderr) == (0, "")
        first, second = done.stdout.splitlines()
        assert first == second
        assert "io_uring" in first and words in first

    def test_the_program_can_go_on(self, kind):
        done = under_seccomp(
            "io_uring_setup",
            "errno.EPERM",
            """
            import asyncio, gyre
            async def main():
                print("no gyre, but asyncio")
            try:
                gyre.run(main(), backend="io_uring")
            except RuntimeError:
                asyncio.run(main())
            """,
            flags=("-W", "ignore"),
        )
        assert done.stdout == "no gyre, but asyncio\n", done.stderr

    def test_the_traceback_is_short(self, kind):
        """What a user sees who forces io_uring in such a container."""
        done = under_seccomp(
            "io_uring_setup",
            "errno.EPERM",
            """
            import gyre
            async def main(): pass
            gyre.run(main())
            """,
            GYRE_BACKEND="io_uring",
        )
        lines = done.stderr.splitlines()
        assert done.returncode == 1
        assert any(line.startswith("gyre.BackendError: ") for line in lines)
        assert "During handling of the above exception" not in done.stderr


@pytest.mark.only("gyre")
class TestFallback:
    """io_uring is forbidden or missing: loops run on epoll, and one line of the log says why."""

    @pytest.mark.parametrize("call, error, words", REFUSALS)
    def test_epoll(self, kind, call, error, words):
        done = under_seccomp(
            call,
            f"errno.{error}",
            """
            import asyncio, logging
            logging.basicConfig(level=logging.INFO, format="%(name)s %(levelname)s %(message)s")
            import gyre

            async def echo(reader, writer):
                writer.write(await reader.read())
                writer.close()

            async def main():
                assert asyncio.get_running_loop().backend == "epoll"
                server = await asyncio.start_server(echo, "127.0.0.1", 0)
                reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
                writer.write(b"hello" * 100_000)
                writer.write_eof()
                await asyncio.sleep(0.001)
                assert await reader.read() == b"hello" * 100_000
                writer.close()
                await writer.wait_closed()
                server.close()
                await server.wait_closed()

            before = sorted(os.listdir("/proc/self/fd"))
            gyre.run(main())
            gyre.run(main(), backend="auto")
            assert sorted(os.listdir("/proc/self/fd")) == before
            """,
        )
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        [line] = [line for line in done.stderr.splitlines() if not line.startswith("asyncio ")]
        assert line.startswith("gyre INFO gyre runs on epoll. ")
        assert "io_uring" in line and words in line

    def test_silent_by_default(self, kind):
        code = "import gyre; gyre.new_event_loop().close()"
        done = under_seccomp("io_uring_setup", "errno.EPERM", code)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    @pytest.mark.parametrize("call", IO_URING)
    def test_no_call_of_io_uring_when_epoll_is_asked_for(self, kind, call):
        """Some sandboxes kill instead of refusing."""
        code = """
            import asyncio, gyre, gyre._gyre
            async def main():
                print(asyncio.get_running_loop().backend)
            gyre.run(main())
            gyre.run(main(), backend="epoll")
            print(gyre._gyre.probe("epoll")["errno"])
        """
        number = IO_URING[call]
        text = SECCOMP.replace("ERRNO | error", str(KILL)) + f"\nforbid({number}, 0)\n"
        done = script(text + textwrap.dedent(code), GYRE_BACKEND="epoll")
        if done.returncode == 77:
            pytest.skip("seccomp filters cannot be installed here")
        assert (done.returncode, done.stdout) == (0, "epoll\nepoll\n0\n"), done.stderr

    @pytest.mark.skipif(
        os.environ.get("GYRE_BACKEND") == "epoll", reason="these tests run on epoll anyhow"
    )
    @pytest.mark.parametrize(
        "error, suites",
        [
            ("EPERM", "tcp tcp_server transport sock task loop_timers loop_callbacks"),
            ("ENOSYS", "tcp tcp_server loop_timers"),
        ],
    )
    def test_suites(self, kind, error, suites):
        """The tests of TCP, tasks and timers pass in a process that is refused io_uring."""
        here = os.path.dirname(__file__)
        files = [os.path.join(here, f"test_{name}.py") for name in suites.split()]
        arguments = ["-q", "-p", "no:cacheprovider", "--loops", "gyre", *files]
        code = f"""
            import gyre, pytest
            loop = gyre.new_event_loop()
            assert loop.backend == "epoll"
            loop.close()
            sys.exit(pytest.main({arguments!r}))
        """
        done = under_seccomp("io_uring_setup", f"errno.{error}", code, timeout=300)
        assert done.returncode == 0, done.stdout[-20_000:] + done.stderr


@pytest.mark.only("gyre")
class TestDoctor:
    CODE = "import gyre._doctor; sys.exit(gyre._doctor.main(%r))"

    @pytest.mark.parametrize("call, error, words", REFUSALS)
    def test_cause_and_remedy(self, kind, call, error, words):
        done = under_seccomp(call, f"errno.{error}", self.CODE % ["--json"])
        assert (done.returncode, done.stderr) == (0, "")
        report = json.loads(done.stdout)
        assert report["backend"] == "epoll"
        assert report["io_uring"]["errno"] == getattr(errno, error)
        assert report["seccomp"] == {"mode": "filter", "filters": 1, "no_new_privs": True}
        assert words in report["why"]
        [problem] = report["problems"]
        assert words in problem["remedy"]
        assert "--seccomp-profile" in problem["remedy"]

    def test_forced(self, kind):
        done = under_seccomp(
            "io_uring_setup", "errno.EPERM", self.CODE % [], GYRE_BACKEND="io_uring"
        )
        assert (done.returncode, done.stderr) == (1, "")
        assert "backend            none\n" in done.stdout
        assert "\nproblem: io_uring is refused\nremedy:  " in done.stdout

    def test_in_kubernetes(self, kind):
        done = under_seccomp(
            "io_uring_setup", "errno.EPERM", self.CODE % [], KUBERNETES_SERVICE_HOST="10.0.0.1"
        )
        assert "localhostProfile: gyre.json" in done.stdout


@pytest.mark.only("gyre")
@pytest.mark.skipif(os.environ.get("GYRE_BACKEND") == "epoll", reason="about io_uring")
class TestFirstRun:
    """The rings of later loops are set up by their first run, and may be refused there."""

    def run(self, code, **options):
        done = script(textwrap.dedent(code), **{"GYRE_BACKEND": "", **options})
        if done.returncode == 77:
            pytest.skip("io_uring is refused here")
        return done

    BEGIN = """
        import asyncio, gc, os, resource, sys, threading, warnings
        import gyre
        first = gyre.new_event_loop()
        if first.backend != "io_uring":
            sys.exit(77)
        first.close()
        open_files = lambda: len(os.listdir("/proc/self/fd")) - 1
        before = open_files()
        def spare(count):
            resource.setrlimit(resource.RLIMIT_NOFILE, (count, 4096))
    """

    def test_a_loop_that_never_runs_has_no_ring(self, kind):
        done = self.run(
            self.BEGIN
            + """
        loop = gyre.new_event_loop()
        assert loop.backend == "io_uring" and loop.stats()["enters"] == 0
        assert open_files() == before + 1  # the eventfd
        loop.call_soon(print, "never")
        loop.call_later(1, print, "never")
        loop.call_soon_threadsafe(print, "never")
        loop.close()
        assert loop.backend is None and open_files() == before
        warnings.simplefilter("ignore")
        for _ in range(3):
            loop = gyre.new_event_loop()
            loop.itself = loop
            del loop
        gc.collect()
        assert open_files() == before
        """
        )
        assert (done.returncode, done.stderr) == (0, "")

    def test_before_the_first_run(self, kind):
        """What is asked for before it is done in it: in another thread, woken by a third."""
        done = self.run(
            self.BEGIN
            + """
        def run():
            loop.run_forever()
            print(loop.backend, seen)
        loop, seen = gyre.new_event_loop(), []
        reader, writer = os.pipe()
        def ready():
            seen.append(os.read(reader, 9))
            loop.remove_reader(reader)
        loop.add_reader(reader, ready)
        loop.call_soon_threadsafe(seen.append, "early")
        os.write(writer, b"read")
        runner = threading.Thread(target=run)
        runner.start()
        while len(seen) < 2:
            pass
        loop.call_soon_threadsafe(loop.stop)
        runner.join()
        loop.call_soon(loop.stop)
        run()
        loop.close()
        """
        )
        assert done.stdout == "io_uring ['early', b'read']\n" * 2, done.stderr

    def test_the_child_of_a_fork(self, kind):
        done = self.run(
            self.BEGIN
            + """
        loop = gyre.new_event_loop()
        pid = os.fork()
        if pid == 0:
            try:
                loop.run_forever()
            except RuntimeError as exc:
                assert "fork" in str(exc)
                loop.close()
                assert open_files() == before
                gyre.run(asyncio.sleep(0))
                os._exit(3)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        assert open_files() == before
        """
        )
        assert (done.returncode, done.stderr) == (0, "")

    def test_forced(self, kind):
        done = self.run(
            self.BEGIN
            + """
        loop = gyre.new_event_loop(backend="io_uring")
        loop.call_soon(loop.stop)
        spare(open_files())
        for _ in range(2):
            try:
                loop.run_forever()
            except gyre.BackendError as exc:
                print(exc)
            assert not loop.is_running() and loop.backend == "io_uring"
        spare(4096)
        loop.run_forever()
        assert loop.backend == "io_uring"
        loop.close()
        assert open_files() == before
        """
        )
        assert (done.returncode, done.stderr) == (0, "")
        first, second = done.stdout.splitlines()
        assert first == second and "ulimit -n" in first

    def test_auto(self, kind):
        """io_uring is forbidden after the first loop: the next one runs on epoll and says so."""
        done = under_seccomp(
            "io_uring_setup",
            "errno.EPERM",
            """
            import asyncio, logging
            class Log(logging.Handler):
                def emit(self, record):
                    print(record.getMessage())
                    for call in (loop.run_forever, loop.close, loop._close_core, loop._run_once):
                        try:
                            call()
                        except RuntimeError as exc:
                            print("refused")
            logging.getLogger("gyre").addHandler(Log())
            logging.getLogger("gyre").setLevel(logging.INFO)
            reader, writer = os.pipe()
            loop.add_reader(reader, lambda: (print(os.read(reader, 9)), loop.stop()))
            os.write(writer, b"read")
            print(loop.backend)
            loop.run_forever()
            print(loop.backend)
            loop.run_until_complete(asyncio.sleep(0.001))
            loop.close()
            """,
            before="""
            import gyre
            gyre.new_event_loop().close()
            loop = gyre.new_event_loop()
            if loop.backend != "io_uring":
                sys.exit(77)
            """,
        )
        lines = done.stdout.splitlines()
        assert done.returncode == 0, done.stderr
        assert lines[0] == "io_uring"
        assert lines[1].startswith("gyre runs on epoll. ") and "seccomp" in lines[1]
        assert lines[2:] == ["refused"] * 4 + ["b'read'", "epoll"]


class TestLimits:
    @pytest.mark.only("gyre")  # asyncio leaks what a failed constructor had opened
    def test_descriptors_at_their_edge(self, new):
        """With n descriptors to spare a loop is made or refused, and nothing leaks or crashes."""
        done = script(
            f"""
            import asyncio, os, resource
            {new}.close()  # imports are done
            used = len(os.listdir("/proc/self/fd")) - 1
            made = 0
            for spare in range(0, 16):
                resource.setrlimit(resource.RLIMIT_NOFILE, (used + spare, 4096))
                try:
                    loop = {new}
                except (OSError, RuntimeError) as exc:
                    text = str(exc)
                    assert "Too many open files" in text or "ulimit -n" in text, text
                    assert made == 0
                else:
                    made += 1
                    try:
                        loop.call_later(0.0001, loop.stop)
                        loop.run_forever()
                    except (OSError, RuntimeError) as exc:
                        assert "Too many open files" in str(exc) or "ulimit -n" in str(exc), exc
                    loop.close()
                resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
                now = len(os.listdir("/proc/self/fd")) - 1
                assert now == used, (spare, now, used)
            assert made >= 3, made
            print("fine")
            """
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")

    def test_readers_and_signals_without_descriptors(self, new):
        done = script(
            f"""
            import os, resource, signal, socket
            loop = {new}
            left, right = socket.socketpair()
            used = len(os.listdir("/proc/self/fd")) - 1
            resource.setrlimit(resource.RLIMIT_NOFILE, (used, 4096))
            for call in (
                lambda: loop.add_reader(left, loop.stop),
                lambda: loop.add_signal_handler(signal.SIGUSR1, print),
                lambda: (loop.call_later(0.001, loop.stop), loop.run_forever()),
            ):
                try:
                    call()
                except (OSError, RuntimeError) as exc:
                    assert "Too many open files" in str(exc) or "ulimit -n" in str(exc), exc
            resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
            loop.remove_reader(left)
            loop.add_reader(left, loop.stop)
            right.send(b"x")
            loop.run_forever()
            loop.remove_reader(left)
            loop.close()
            print("fine")
            """
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")

    @pytest.mark.parametrize("limit", [0, 4096, 65536])
    def test_locked_memory(self, new, limit):
        """Old kernels charge rings to RLIMIT_MEMLOCK: made, or refused with the reason."""
        done = script(
            f"""
            import asyncio, os, resource
            {new}.close()  # imports are done: another user may not read them
            resource.setrlimit(resource.RLIMIT_MEMLOCK, ({limit}, {limit}))
            if os.getuid() == 0:
                os.setgid(65534), os.setuid(65534)
            loop = {new}
            loop.call_later(0.001, loop.stop)
            try:
                loop.run_forever()
            except RuntimeError as exc:
                assert "RLIMIT_MEMLOCK" in str(exc) or "memlock" in str(exc), exc
            else:
                if getattr(loop, "backend", None) == "epoll":
                    print("by epoll,", end=" ")
            loop.close()
            print("fine")
            """
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout in ("fine\n", "by epoll, fine\n")

    @pytest.mark.only("gyre")  # asyncio's is not sure to have its memory back at once
    def test_address_space(self, new):
        """Memory runs out while loops are made: MemoryError or OSError, never a crash."""
        done = script(
            f"""
            import resource, re
            {new}.close()
            size = int(re.search(r"VmSize:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
            loops = []
            resource.setrlimit(resource.RLIMIT_AS, (size + (4 << 20), resource.RLIM_INFINITY))
            try:
                for _ in range(2000):
                    loops.append({new})
                    loops[-1].call_soon(loops[-1].stop)
                    loops[-1].run_forever()
            except (MemoryError, OSError, RuntimeError):
                pass
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
            while loops:
                loops.pop().close()
            print("fine")
            """
        )
        assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr
