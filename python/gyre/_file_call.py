"""loop._file_call(): what has no operation of the kernel's runs in a few threads of the loop's own.

Not in the default executor, which belongs to the program.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from typing import Any, TypeVar, TypeVarTuple, Unpack

__all__ = ["FileCallMixin"]

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")

THREADS_MAX = 8


class FileCallMixin:
    """The threads are started when they are first needed, and joined when the loop is closed."""

    _file_threads: concurrent.futures.ThreadPoolExecutor | None = None

    def _file_call(self: Any, function: Callable[[Unpack[_Ts]], _T], *args: *_Ts) -> Any:
        """An awaitable of function(*args), called in a thread."""
        threads = self._file_threads
        if threads is None:
            self._check_closed()
            threads = self._file_threads = concurrent.futures.ThreadPoolExecutor(
                THREADS_MAX, thread_name_prefix="gyre-file"
            )
        return self.run_in_executor(threads, function, *args)

    def _close_file_threads(self) -> None:
        threads, self._file_threads = self._file_threads, None
        if threads is not None:
            threads.shutdown(wait=False, cancel_futures=True)
