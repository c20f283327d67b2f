"""dev_term: what the launcher prints, and how it runs other programs.

Everything that can fail ends in Stop, whose text says what happened and what to do about it.  Steps
that set something up are one line each, their output goes to build/logs and is shown only if they
fail; tests and benchmarks print straight to the terminal.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
LOG_LINES_SHOWN = 40

Arg = str | os.PathLike[str]

_failed_steps: set[str] = set()


class Stop(Exception):
    """The launcher cannot go on; str() is what the user reads."""


def say(text: str = "") -> None:
    print(text, flush=True)


def head(text: str) -> None:
    """A line that opens a phase."""
    bold = sys.stdout.isatty() and os.environ.get("NO_COLOR") is None
    say(f"\n\033[1m== {text}\033[0m" if bold else f"\n== {text}")


def seconds(duration_s: float) -> str:
    if duration_s < 100:
        return f"{duration_s:.1f} s"
    return f"{int(duration_s) // 60} min {int(duration_s) % 60:02d} s"


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Our environment for a child process, without what would point it at another Python."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    env.update(extra or {})
    return env


def step(
    title: str,
    argv: Sequence[Arg],
    *,
    cwd: Path = ROOT,
    env: Mapping[str, str] | None = None,
    hint: str = "",
) -> None:
    """Runs a command that sets something up: one line of progress, the output in build/logs.

    What failed once is not tried again in the same run: several phases may need the same step.
    """
    if title in _failed_steps:
        raise Stop(f"'{title}' failed before, as said above.")
    logs = BUILD / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / (re.sub(r"[^a-z0-9.]+", "-", title.lower()).strip("-") + ".log")
    print(f"   {title} ...", end="", flush=True)
    begin = time.monotonic()
    with log.open("w") as out:
        out.write(f"$ {shlex.join(str(a) for a in argv)}\n")
        out.flush()
        try:
            code = subprocess.run(
                [str(a) for a in argv],
                cwd=cwd,
                env=environment(env),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            ).returncode
        except OSError as exc:
            code = 127
            out.write(f"{exc}\n")
    say(f" {seconds(time.monotonic() - begin)}" if code == 0 else " failed")
    if code != 0:
        _failed_steps.add(title)
        lines = log.read_text(errors="replace").splitlines()[1:][-LOG_LINES_SHOWN:]
        say("\n".join(f"   | {line}" for line in lines))
        raise Stop(
            f"'{title}' failed with exit status {code}"
            f"{'; ' + hint if hint else ''}.\n     The whole output: {log.relative_to(ROOT)}"
        )


def output(argv: Sequence[Arg], env: Mapping[str, str] | None = None) -> str | None:
    """What a short command prints, stripped; None if it fails or does not exist."""
    try:
        done = subprocess.run(
            [str(a) for a in argv],
            env=environment(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def stream(
    argv: Sequence[Arg],
    *,
    cwd: Path = ROOT,
    env: Mapping[str, str] | None = None,
    limit_s: float = 1800,
    tee: Path | None = None,
) -> int:
    """Runs a command whose output the user reads as it comes; returns its exit status.

    After limit_s the whole process group is killed and the status is 124, as timeout(1) has it.
    With tee, the output goes to that file as well.
    """
    say(f"$ {shlex.join(str(a) for a in argv)}")
    try:
        child = subprocess.Popen(
            [str(a) for a in argv],
            cwd=cwd,
            env=environment(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if tee else None,
            stderr=subprocess.STDOUT if tee else None,
            start_new_session=True,
        )
    except OSError as exc:
        say(f"cannot run {argv[0]}: {exc}")
        return 127
    copier = None
    if tee is not None:
        assert child.stdout is not None
        copier = subprocess.Popen(["tee", str(tee)], stdin=child.stdout)
        child.stdout.close()
    try:
        code = child.wait(limit_s)
    except subprocess.TimeoutExpired:
        say(f"\nno end after {seconds(limit_s)}: killed")
        code = 124
    finally:
        # Whatever the command left behind (a server of a test, say) goes with it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        if copier is not None:
            copier.wait()
    return code


@contextlib.contextmanager
def tree_lock() -> Iterator[None]:
    """One ./dev at a time per working tree: they share .venv and build."""
    BUILD.mkdir(exist_ok=True)
    with (BUILD / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another ./dev works in this tree: waiting for it to end")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
