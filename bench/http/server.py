"""The server under test: uvicorn with one of the loops, in a process of its own, on one core."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import app as application

HERE = Path(__file__).resolve().parent
START_LIMIT_S = 20
STOP_LIMIT_S = 10
ECHO_BYTES = 1024


class ServerError(Exception):
    """The server did not come up, or did not answer what the application says."""


@dataclass(frozen=True)
class Arm:
    name: str
    option: str  # uvicorn's --loop
    module: str  # what the running loop's class must come from
    probe: str  # a program that fails with one clear line if the loop is not to be had


ARMS = (
    Arm("asyncio", "asyncio", "asyncio.", "import asyncio; asyncio.new_event_loop().close()"),
    Arm("uvloop", "uvloop", "uvloop.", "import uvloop; uvloop.new_event_loop().close()"),
    Arm("gyre", "gyre:new_event_loop", "gyre.", "import gyre; gyre.new_event_loop().close()"),
)


def why_not(arm: Arm) -> str | None:
    """None if the loop works here, else the reason in one line."""
    done = subprocess.run([sys.executable, "-c", arm.probe], capture_output=True, text=True)
    if done.returncode == 0:
        return None
    return (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]


class Server:
    """A context manager: inside it the server answers at host:port."""

    host = "127.0.0.1"

    def __init__(self, arm: Arm, core: int | None, log: Path) -> None:
        self.arm = arm
        self.core = core
        self.log = log
        self.port = _free_port(self.host)

    def __enter__(self) -> Server:
        argv = [sys.executable, "-m", "uvicorn", "app:app", "--app-dir", str(HERE)]
        argv += ["--host", self.host, "--port", str(self.port), "--loop", self.arm.option]
        argv += ["--http", "httptools", "--ws", "none", "--lifespan", "on", "--no-access-log"]
        argv += ["--log-level", "warning", "--timeout-keep-alive", "60"]
        with self.log.open("wb") as out:
            self.child = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
            )
        try:
            if self.core is not None:
                # Every thread: what the interpreter or the kernel started already, too.
                for thread in os.listdir(f"/proc/{self.child.pid}/task"):
                    os.sched_setaffinity(int(thread), {self.core})
            self._wait_until_up()
            self._check_answers()
        except BaseException:
            self._stop(signal.SIGKILL)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        code = self._stop(signal.SIGTERM)
        # uvicorn raises the signal again after its orderly shutdown.
        if _[0] is None and code not in (0, -signal.SIGTERM):
            raise ServerError(f"{self.arm.name}: the server ended with status {code}{self._tail()}")

    @property
    def pid(self) -> int:
        return self.child.pid

    def cpu_s(self) -> float:
        """User and system time of the whole process so far, its kernel workers included."""
        with open(f"/proc/{self.child.pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak_kib(self) -> int:
        with open(f"/proc/{self.child.pid}/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:"))

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline:
            if self.child.poll() is not None:
                code = self.child.returncode
                raise ServerError(
                    f"{self.arm.name}: the server ended with status {code} before it was up"
                    f"{self._tail()}"
                )
            with contextlib.suppress(OSError):
                socket.create_connection((self.host, self.port), 1).close()
                return
            time.sleep(0.02)  # another process: there is no event to wait for
        raise ServerError(f"{self.arm.name}: no answer after {START_LIMIT_S} s{self._tail()}")

    def _check_answers(self) -> None:
        """Load is only worth something if the answers are right."""
        echo = os.urandom(ECHO_BYTES)
        expected = {"/plaintext": application.PLAINTEXT, "/body": application.BODY, "/echo": echo}
        connection = http.client.HTTPConnection(self.host, self.port, timeout=10)

        def ask(path: str, body: bytes | None = None) -> bytes:
            try:
                connection.request("GET" if body is None else "POST", path, body)
                return connection.getresponse().read()
            except (OSError, http.client.HTTPException) as exc:
                text = f"{self.arm.name}: no answer to {path}: {type(exc).__name__}: {exc}"
                raise ServerError(text + self._tail()) from exc

        with contextlib.closing(connection):
            for path, body in expected.items():
                got = ask(path, echo if path == "/echo" else None)
                if got != body:
                    raise ServerError(f"{self.arm.name}: {path} answers {got[:60]!r}")
            loop = ask("/loop").decode()
            if not loop.startswith(self.arm.module):
                raise ServerError(f"{self.arm.name}: uvicorn runs on {loop}")

    def _stop(self, number: int) -> int:
        with contextlib.suppress(ProcessLookupError):
            self.child.send_signal(number)
        try:
            return self.child.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
            raise ServerError(
                f"{self.arm.name}: still there {STOP_LIMIT_S} s after SIGTERM"
            ) from None

    def _tail(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()[-12:]
        return "".join(f"\n     | {line}" for line in lines)


def _free_port(host: str) -> int:
    with socket.create_server((host, 0)) as listener:
        return int(listener.getsockname()[1])
