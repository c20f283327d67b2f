import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any, TypeVar, TypeVarTuple, Unpack

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")

__version__: str

# The methods are those of asyncio's types, with the same signatures: the stubs inherit them.

class Future(asyncio.Future[_T]): ...
class Task(asyncio.Task[_T]): ...

LIBURING_VERSION: str

def probe(backend: str, /) -> dict[str, Any]:
    """What a backend can do here: errno (0: usable), stage, explanation, features."""

def _freelists(limit: int | None, /) -> dict[str, int]:
    """How many pieces of memory each free list holds; limit (None: as it is) for each."""

class BackendError(RuntimeError):
    """A kernel interface that was asked for is refused; the text gives cause and remedy."""

class LoopCore:
    """The C half of gyre.Loop."""

    slow_callback_duration: float
    def __init__(
        self,
        *,
        backend: str | None = None,
        receive: str | None = None,
        busy_poll: float | None = None,
    ) -> None: ...
    @property
    def backend(self) -> str | None: ...
    def stats(self) -> dict[str, int]: ...
    def is_running(self) -> bool: ...
    def is_closed(self) -> bool: ...
    def get_debug(self) -> bool: ...
    def time(self) -> float: ...
    def call_soon(
        self, callback: Callable[[Unpack[_Ts]], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.Handle: ...
    def call_soon_threadsafe(
        self, callback: Callable[[Unpack[_Ts]], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.Handle: ...
    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[_Ts]], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle: ...
    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[_Ts]], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle: ...
    def create_future(self) -> asyncio.Future[Any]: ...
    def create_task(
        self,
        coro: Generator[Any, None, _T] | Coroutine[Any, Any, _T],
        *,
        name: object = None,
        context: Context | None = None,
        eager_start: bool | None = None,
    ) -> asyncio.Task[_T]: ...
    def add_reader(
        self, fd: Any, callback: Callable[[Unpack[_Ts]], object], *args: *_Ts
    ) -> None: ...
    def add_writer(
        self, fd: Any, callback: Callable[[Unpack[_Ts]], object], *args: *_Ts
    ) -> None: ...
    def remove_reader(self, fd: Any) -> bool: ...
    def remove_writer(self, fd: Any) -> bool: ...
    def _close_core(self) -> None: ...
    def _ready_items(self) -> list[asyncio.Handle]: ...
    def _ready_len(self) -> int: ...
    def _ready_popleft(self) -> asyncio.Handle: ...
    def _ready_append(self, handle: asyncio.Handle) -> None: ...
    def _ready_clear(self) -> None: ...
    def _scheduled_items(self) -> list[asyncio.TimerHandle]: ...
    def _scheduled_clear(self) -> None: ...

class StreamTransport(asyncio.Transport):
    """The transport of a TCP or UNIX stream; made by the loop."""

    max_size: int

class SockOp:
    """A sock_*() call that waits for its socket; made by the loop."""

    @property
    def future(self) -> asyncio.Future[Any]: ...
    def cancel(self) -> None: ...
    def take(self) -> int: ...
