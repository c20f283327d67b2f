"""The end of the interpreter, and programs that close descriptors that are not theirs."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys

import pytest
from helpers import Served, script


class TestInterpreterExit:
    """A program may end at any moment; the exit is quiet and its status its own."""

    def check(self, done, status=0, stdout=""):
        assert (done.returncode, done.stdout) == (status, stdout), done.stderr
        assert "Fatal" not in done.stderr and "Segmentation" not in done.stderr
        return done.stderr

    def test_with_an_open_loop(self, new):
        done = script(f"loop = {new}; loop.call_later(1000, print); loop.call_soon(print)")
        assert self.check(done) == ""

    def test_with_an_open_loop_that_ran(self, new):
        done = script(
            f"""
            import asyncio, socket
            loop = {new}
            left, right = socket.socketpair()
            loop.add_reader(left, print)
            loop.run_until_complete(asyncio.sleep(0.001))
            """
        )
        assert self.check(done) == ""

    def test_with_an_open_loop_in_debug_mode(self, new):
        done = script(
            f"""
            import asyncio
            loop = {new}
            asyncio.set_event_loop(loop)
            loop.set_debug(True)
            async def wait():
                await asyncio.Event().wait()
            task = loop.create_task(wait())
            loop.call_soon(loop.stop)
            loop.run_forever()
            """,
            flags=("-X", "dev"),
        )
        assert "Task was destroyed but it is pending" in self.check(done)
        assert "Loop.__del__" not in done.stderr and "AttributeError" not in done.stderr

    def test_with_open_connections(self, new):
        done = script(
            f"""
            import asyncio
            async def serve(reader, writer):
                writer.write(await reader.read(10))
                await asyncio.sleep(1000)
            async def main():
                global server, reader, writer
                server = await asyncio.start_server(serve, "127.0.0.1", 0)
                reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
                writer.write(b"x")
                await reader.read(1)
            loop = {new}
            loop.run_until_complete(main())
            """
        )
        assert "Traceback" not in self.check(done) or "destroyed" in done.stderr

    def test_with_a_handler_installed(self, new):
        done = script(
            f"import signal; loop = {new}; loop.add_signal_handler(signal.SIGUSR1, print)"
        )
        self.check(done)

    def test_sys_exit_in_a_callback(self, new):
        done = script(f"import sys; loop = {new}; loop.call_soon(sys.exit, 7); loop.run_forever()")
        assert self.check(done, 7) == ""

    def test_os_exit_in_a_callback(self, new):
        done = script(f"import os; loop = {new}; loop.call_soon(os._exit, 5); loop.run_forever()")
        assert self.check(done, 5) == ""

    def test_with_the_loop_running_in_a_daemon_thread(self, new):
        done = script(
            f"""
            import asyncio, threading
            loop = {new}
            started = threading.Event()
            loop.call_soon(started.set)
            threading.Thread(target=loop.run_forever, daemon=True).start()
            started.wait()
            """
        )
        self.check(done)

    def test_with_a_busy_loop_in_a_daemon_thread(self, new):
        done = script(
            f"""
            import asyncio, threading
            loop = {new}
            started = threading.Event()
            async def main():
                while True:
                    await asyncio.sleep(0)
                    started.set()
            threading.Thread(target=loop.run_until_complete, args=(main(),), daemon=True).start()
            started.wait()
            """
        )
        self.check(done)

    def test_with_a_loop_in_a_thread_that_is_joined_at_exit(self, new):
        done = script(
            f"""
            import asyncio, atexit, threading
            loop = {new}
            thread = threading.Thread(target=loop.run_forever)
            thread.start()
            threading._register_atexit(loop.call_soon_threadsafe, loop.stop)
            """
        )
        assert self.check(done) == ""

    def test_pending_tasks_at_exit(self, new):
        done = script(
            f"""
            import asyncio
            loop = {new}
            async def wait():
                await loop.create_future()
            task = loop.create_task(wait())
            loop.call_soon(loop.stop)
            loop.run_forever()
            """
        )
        self.check(done)

    def test_a_loop_used_in_atexit(self, new):
        done = script(
            f"""
            import asyncio, atexit
            loop = {new}
            loop.run_until_complete(asyncio.sleep(0))
            async def main():
                await asyncio.sleep(0.001)
                print("late")
            @atexit.register
            def late():
                loop.run_until_complete(main())
                loop.close()
            """
        )
        assert self.check(done, 0, "late\n") == ""

    def test_a_loop_used_by_a_destructor_at_exit(self, new):
        done = script(
            f"""
            class Late:
                def __del__(self):
                    try:
                        self.loop.call_soon(print)
                        self.loop.close()
                    except Exception:
                        pass
            late = Late()
            late.loop = {new}
            import builtins
            builtins.late = late
            """
        )
        self.check(done)

    def test_killed_by_ctrl_c(self, new):
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"import functools; loop = {new}\n"
                "loop.call_soon(functools.partial(print, 'up', flush=True)); loop.run_forever()",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stdout.readline() == "up\n"
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=20)
        assert process.returncode == -signal.SIGINT
        assert stderr.splitlines()[-1] == "KeyboardInterrupt"


class TestDescriptorsClosedUnderUs:
    @pytest.mark.only("gyre")
    def test_a_connections(self, loop, asyncio_log):
        """The number may already belong to somebody else: that one must not be harmed."""
        served = Served(loop)
        transport = served.writer.transport
        fd = transport.get_extra_info("socket").fileno()
        os.close(fd)
        victim = os.open("/dev/null", os.O_RDONLY)
        same = victim == fd
        loop.run_until_complete(asyncio.sleep(0.001))
        if not same:
            victim = os.dup2(victim, fd)
        transport.abort()
        loop.run_until_complete(asyncio.sleep(0.001))
        served.server.close()
        with contextlib.suppress(OSError):
            os.close(victim)
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0.001))
        asyncio_log.take()

    def test_the_loops_own(self, new):
        """A program that closes all descriptors (as daemons do) gets an exception, no spinning."""
        done = script(
            f"""
            import asyncio, os, resource, sys
            loop = {new}
            loop.run_until_complete(asyncio.sleep(0.001))
            os.closerange(3, 1000)
            resource.setrlimit(resource.RLIMIT_CPU, (5, 5))
            try:
                loop.call_later(0.01, loop.stop)
                loop.run_forever()
            except (OSError, RuntimeError) as exc:
                print("refused")
            else:
                print("ran")
            try:
                loop.close()
            except (OSError, RuntimeError, KeyError):
                pass
            sys.stdout.flush()
            os._exit(0)
            """
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout in ("refused\n", "ran\n")

    @pytest.mark.only("gyre")
    def test_the_loops_own_while_it_runs(self, new):
        done = script(
            f"""
            import asyncio, os, resource, sys
            loop = {new}
            resource.setrlimit(resource.RLIMIT_CPU, (5, 5))
            loop.call_later(0.005, os.closerange, 3, 1000)
            loop.call_later(0.01, loop.stop)
            try:
                loop.run_forever()
            except (OSError, RuntimeError) as exc:
                print("refused")
            else:
                print("ran")
            sys.stdout.flush()
            os._exit(0)
            """
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout in ("refused\n", "ran\n")

    def test_a_fresh_loop_after_closing_everything(self, new):
        done = script(
            f"""
            import asyncio, os
            loop = {new}
            loop.run_until_complete(asyncio.sleep(0.001))
            loop.close()
            os.closerange(3, 1000)
            loop = {new}
            loop.run_until_complete(asyncio.sleep(0.001))
            loop.close()
            print("fine")
            """
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")
