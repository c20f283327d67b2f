"""registration: what it costs to keep a task in asyncio's books, on the Python that runs this.

    ./dev run --kind release --python 3.13 python bench/micro/registration.py

Nanoseconds of CPU time per task, the best of several rounds: other programs make it larger, never
smaller.  `books` is `_register_task()` and `_unregister_task()`, what a task that is not asyncio's
own pays by the documented way; `spawn` is a task made, run and awaited.
"""

import asyncio
import sys
import time
from collections.abc import Callable

import gyre

TASKS = 1000
ROUNDS = 60


async def nothing() -> None:
    """A task's least."""


async def spawn() -> int:
    """Nanoseconds of CPU time for TASKS tasks."""
    loop = asyncio.get_running_loop()
    start = time.thread_time_ns()
    for _ in range(TASKS):
        await loop.create_task(nothing())
    return time.thread_time_ns() - start


async def books() -> int:
    """The same for an entry in asyncio's books and its end."""
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(nothing()) for _ in range(TASKS)]
    await asyncio.gather(*tasks)
    start = time.thread_time_ns()
    for task in tasks:
        asyncio._register_task(task)
        asyncio._unregister_task(task)
    return time.thread_time_ns() - start


async def best(measure: Callable) -> float:
    """Nanoseconds per task."""
    return min([await measure() for _ in range(ROUNDS)]) / TASKS


def main() -> None:
    """Prints one row of the table in docs/benchmarks.md."""
    row = [
        asyncio.run(best(books)),
        asyncio.run(best(spawn)),
        gyre.run(best(spawn)),
    ]
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"| {version} |", " | ".join(f"{value:.0f}" for value in row), "|")


if __name__ == "__main__":
    main()
