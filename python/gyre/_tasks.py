"""gyre's tasks in asyncio's set of all tasks, before Python 3.14.

asyncio keeps its tasks in a WeakSet written in Python: adding one costs more than the whole rest of
a short task's life.  gyre.Task keeps a list of its own in C, and the set is told to look there as
well: all_tasks() and everything else that iterates over it sees them as if they had been added.
What reads the attribute `data` of the set does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


def adopt(tasks: Any, live: Callable[[], list[Any]], forget: Callable[[Any], None]) -> None:
    """Make the WeakSet `tasks` contain what live() lists; forget(task) takes one off that list."""
    base: Any = type(tasks)

    class TaskSet(base):  # type: ignore[misc]
        def __iter__(self) -> Iterator[Any]:
            yield from live()
            yield from base.__iter__(self)

        def __len__(self) -> int:
            return int(base.__len__(self)) + len(live())

        def __contains__(self, item: Any) -> bool:
            return any(item is task for task in live()) or bool(base.__contains__(self, item))

        def discard(self, item: Any) -> None:
            forget(item)
            base.discard(self, item)

        def copy(self) -> Any:
            return base(self)

    tasks.__class__ = TaskSet
