"""dev_tally: the phases of a run, what they took and what came of them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ParamSpec

from dev_term import BUILD, Stop, head, say, seconds

P = ParamSpec("P")
CLOSING = re.compile(r"^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$")


@dataclass
class Count:
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    note: str = ""

    @classmethod
    def missing(cls, what: str) -> Count:
        """A phase without tests is never green in silence: it counts as skipped, and says so."""
        say(f"no tests: {what}")
        return cls(skipped=1, note=f"no tests: {what}")

    @classmethod
    def of_exit(cls, code: int, note: str = "") -> Count:
        return cls(passed=1) if code == 0 else cls(failed=1, note=note or f"exit status {code}")

    @classmethod
    def of_closing_line(cls, text: str) -> Count | None:
        for line in reversed(text.splitlines()):
            if match := CLOSING.match(line.strip()):
                passed, failed, skipped = (int(n or 0) for n in match.groups())
                return cls(passed, failed, skipped)
        return None

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


class Tally:
    """Runs phases one after the other; a phase that fails does not keep the next from running.

    With words, only the phases whose name has one of them.  A run in which no test ran failed,
    unless it may be empty.
    """

    def __init__(
        self, command: str, words: Sequence[str] = (), *, may_be_empty: bool = False
    ) -> None:
        self.command = command
        self.words = words
        self.may_be_empty = may_be_empty
        self.rows: list[tuple[str, Count, float]] = []
        self.left_out: list[str] = []

    def phase(self, name: str, run: Callable[P, Count], *args: P.args, **kwargs: P.kwargs) -> None:
        if self.words and not any(word in name for word in self.words):
            self.left_out.append(name)
            return
        head(name)
        begin = time.monotonic()
        try:
            count = run(*args, **kwargs)
        except Stop as exc:
            say(f"stopped: {exc}")
            count = Count(failed=1, note=str(exc).splitlines()[0])
        duration_s = time.monotonic() - begin
        say(f"-- {name}: {count}, {seconds(duration_s)}")
        self.rows.append((name, count, duration_s))

    def close(self) -> int:
        """Prints the summary, whose last line stands alone; returns the exit status."""
        total = Count()
        head(f"summary of ./dev {self.command}")
        for name, count, duration_s in self.rows:
            mark = "FAILED" if count.failed else "ok"
            note = f"  ({count.note})" if count.note else ""
            say(f"{mark:7}{name:36}{seconds(duration_s):>12}  {count}{note}")
            total.passed += count.passed
            total.failed += count.failed
            total.skipped += count.skipped
        say(f"all of it took {seconds(sum(row[2] for row in self.rows))}")
        if self.left_out:
            say(f"{len(self.left_out)} phases were left out, as --phase says")
        if total.passed + total.failed == 0 and not self.may_be_empty:
            say("nothing ran, which is a failure")
            if not self.rows:
                say("\n".join(["the phases:", *self.left_out]))
            total.failed = 1
        results = BUILD / "results"
        results.mkdir(parents=True, exist_ok=True)
        (results / f"{self.command}.txt").write_text(f"{total}\n")
        say(str(total))
        return 1 if total.failed else 0
