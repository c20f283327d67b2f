"""What asyncio calls loop._ready and loop._scheduled, as views over the queues in C.

For debuggers, simulators and tests that look into a loop; the loop itself does not use them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._gyre import LoopCore

__all__ = ["ReadyView", "ScheduledView"]


class ReadyView:
    """The callbacks of the next turn, oldest first; a live view with the methods of a deque."""

    def __init__(self, loop: LoopCore) -> None:
        self._loop = loop

    def __len__(self) -> int:
        return self._loop._ready_len()

    def __iter__(self) -> Iterator[asyncio.Handle]:
        return iter(self._loop._ready_items())

    def __getitem__(self, index: int) -> asyncio.Handle:
        return self._loop._ready_items()[index]

    def __repr__(self) -> str:
        return f"<ReadyView {self._loop._ready_items()!r}>"

    def append(self, handle: asyncio.Handle) -> None:
        """Add a handle (anything with _run() and _cancelled) at the end."""
        self._loop._ready_append(handle)

    def popleft(self) -> asyncio.Handle:
        """Take the oldest handle out; IndexError when there is none."""
        return self._loop._ready_popleft()

    def clear(self) -> None:
        """Drop all."""
        self._loop._ready_clear()


class ScheduledView:
    """The timers that wait, in heap order: the first is the earliest."""

    def __init__(self, loop: LoopCore) -> None:
        self._loop = loop

    def __len__(self) -> int:
        return len(self._loop._scheduled_items())

    def __iter__(self) -> Iterator[asyncio.TimerHandle]:
        return iter(self._loop._scheduled_items())

    def __getitem__(self, index: int) -> asyncio.TimerHandle:
        return self._loop._scheduled_items()[index]

    def __repr__(self) -> str:
        return f"<ScheduledView {self._loop._scheduled_items()!r}>"

    def clear(self) -> None:
        """Drop all."""
        self._loop._scheduled_clear()
