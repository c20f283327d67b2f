"""A refused io_uring, and resource limits at their edge."""

import errno
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


@pytest.mark.only("gyre")
class TestRefused:
    """io_uring is forbidden or missing: one clear RuntimeError when the loop is made."""

    def attempt(self, before, kind="gyre"):
        code = (
            SECCOMP
            + textwrap.dedent(before)
            + textwrap.dedent(
                """
            import gyre
            before = sorted(os.listdir("/proc/self/fd"))
            try:
                gyre.new_event_loop()
            except gyre.BackendError as exc:
                assert isinstance(exc, RuntimeError)
                assert exc.__cause__ is None and exc.__context__ is None
                print(exc)
            else:
                sys.exit("it was made")
            assert sorted(os.listdir("/proc/self/fd")) == before
            """
            )
        )
        done = script(code)
        if done.returncode == 77:
            pytest.skip("seccomp filters cannot be installed here")
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    IO_URING_SETUP = 425  # the same number on every architecture

    def test_by_a_seccomp_filter(self, kind):
        text = self.attempt(f"forbid({self.IO_URING_SETUP}, errno.EPERM)")
        assert "seccomp" in text and "io_uring" in text

    def test_by_a_kernel_without_it(self, kind):
        text = self.attempt(f"forbid({self.IO_URING_SETUP}, errno.ENOSYS)")
        assert "io_uring" in text and "kernel" in text

    @pytest.mark.parametrize(
        "error, words",
        [
            ("ENOMEM", "RLIMIT_MEMLOCK"),
            ("EMFILE", "ulimit -n"),
            ("EACCES", "seccomp"),
            ("EINVAL", os.strerror(errno.EINVAL)),
            ("EIO", os.strerror(errno.EIO)),
        ],
    )
    def test_by_any_other_error(self, kind, error, words):
        text = self.attempt(f"forbid({self.IO_URING_SETUP}, errno.{error})")
        assert "io_uring" in text and words in text

    @pytest.mark.parametrize("number, name", [(426, "io_uring_enter"), (427, "io_uring_register")])
    @pytest.mark.parametrize("error", ["EPERM", "ENOSYS"])
    def test_of_a_part_of_it(self, kind, number, name, error):
        """A filter that allows the setup and forbids the rest: an error, at creation."""
        text = self.attempt(f"forbid({number}, errno.{error})")
        assert "io_uring" in text

    def test_asyncio_still_works_there(self, kind):
        done = script(
            SECCOMP
            + textwrap.dedent(
                f"""
            forbid({self.IO_URING_SETUP}, errno.EPERM)
            import asyncio, gyre
            async def main():
                print("no gyre, but asyncio")
            try:
                gyre.run(main())
            except RuntimeError as exc:
                coro = main()
                asyncio.run(coro)
            """
            ),
            flags=("-W", "ignore"),
        )
        if done.returncode == 77:
            pytest.skip("seccomp filters cannot be installed here")
        assert done.stdout == "no gyre, but asyncio\n", done.stderr

    def test_the_traceback_is_short(self, kind):
        """What a user sees who runs a program in such a container."""
        done = script(
            SECCOMP
            + f"forbid({self.IO_URING_SETUP}, errno.EPERM)\n"
            + "import gyre\nasync def main(): pass\ngyre.run(main())"
        )
        if done.returncode == 77:
            pytest.skip("seccomp filters cannot be installed here")
        lines = done.stderr.splitlines()
        assert done.returncode == 1
        assert any(line.startswith("gyre.BackendError: ") for line in lines)
        assert "During handling of the above exception" not in done.stderr


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
                    except OSError as exc:
                        assert "Too many open files" in str(exc), exc
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
                    assert "Too many open files" in str(exc), exc
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
            try:
                loop = {new}
            except RuntimeError as exc:
                assert "RLIMIT_MEMLOCK" in str(exc) or "memlock" in str(exc), exc
            else:
                loop.run_until_complete(asyncio.sleep(0.001))
                loop.close()
            print("fine")
            """
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")

    def test_address_space(self, new):
        """Memory runs out while loops are made: MemoryError or OSError, never a crash."""
        done = script(
            f"""
            import resource, re
            {new}.close()
            size = int(re.search(r"VmSize:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
            loops = []
            resource.setrlimit(resource.RLIMIT_AS, (size + (4 << 20), -1))
            try:
                for _ in range(2000):
                    loops.append({new})
                    loops[-1].call_soon(loops[-1].stop)
                    loops[-1].run_forever()
            except (MemoryError, OSError, RuntimeError):
                pass
            resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
            while loops:
                loops.pop().close()
            print("fine")
            """
        )
        assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr
