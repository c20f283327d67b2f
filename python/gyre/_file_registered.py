"""gyre.RegisteredBuffers: memory that the kernel knows, for reads and writes of the disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self, overload

from ._file_base import running_loop, settle

__all__ = ["RegisteredBuffers"]

BYTES_MAX = 1 << 30  # what io_uring registers in one piece


class RegisteredBuffers(Sequence[memoryview]):
    """count writable buffers of size bytes, aligned, and registered with io_uring.

    They are memoryviews, for readinto(), pread_into(), write(), pwrite() of the files of the loop
    that ran when they were made; so are parts of them.  A buffer is its user's alone until the
    call has ended.  Where the kernel has no such thing, or takes no more memory (RLIMIT_MEMLOCK),
    they are plain memory: `registered` says so, and everything works all the same.
    """

    __slots__ = ("__weakref__", "_buffers", "_loop", "_memory", "_refusal", "_registered", "_size")

    def __init__(self, count: int, size: int, *, alignment: int = 4096) -> None:
        """Raises ValueError for what cannot be, MemoryError where there is no memory."""
        if count < 1:
            raise ValueError(f"count must be at least 1, not {count}")
        if size < 1:
            raise ValueError(f"size must be at least 1, not {size}")
        if alignment < 1 or alignment & (alignment - 1):
            raise ValueError(f"an alignment is a power of two, not {alignment}")
        step = -(-size // alignment) * alignment
        if count * step > BYTES_MAX:
            raise ValueError(
                f"{count} buffers of {step} bytes are more than the {BYTES_MAX} bytes that can be "
                "registered in one piece"
            )
        self._loop = loop = running_loop()
        self._size = size
        self._memory = loop._file_buffer(count * step, alignment)
        self._refusal: OSError | None = None
        self._registered = False
        try:
            self._registered = loop._file_register(self._memory)
        except OSError as exc:
            self._refusal = exc.with_traceback(None)
        whole = memoryview(self._memory)
        places = range(0, count * step, step)
        self._buffers: tuple[memoryview, ...] | None = tuple(
            whole[place : place + size] for place in places
        )

    @property
    def registered(self) -> bool:
        """True while the kernel has them; the ring of another thread's run may refuse them."""
        if not self._registered or self._loop.is_closed():
            return False
        return self._loop._file_register(self._memory)  # the same again only tells

    @property
    def refusal(self) -> OSError | None:
        """What the kernel said when it would not take them; None, too, where it was not asked."""
        return self._refusal

    @property
    def size(self) -> int:
        """The bytes of one buffer."""
        return self._size

    def _all(self) -> tuple[memoryview, ...]:
        if self._buffers is None:
            raise ValueError("the buffers are closed")
        return self._buffers

    def __len__(self) -> int:
        return len(self._buffers or ())

    @overload
    def __getitem__(self, index: int, /) -> memoryview: ...
    @overload
    def __getitem__(self, index: slice, /) -> tuple[memoryview, ...]: ...
    def __getitem__(self, index: int | slice, /) -> memoryview | tuple[memoryview, ...]:
        return self._all()[index]

    def __iter__(self) -> Iterator[memoryview]:
        return iter(self._all())

    def __repr__(self) -> str:
        if self._buffers is None:
            return "<gyre.RegisteredBuffers closed>"
        state = "registered" if self.registered else "plain memory"
        return f"<gyre.RegisteredBuffers count={len(self)} size={self._size} {state}>"

    async def close(self) -> None:
        """Waits for the operations that use them, then gives them back.  Again: does nothing.

        A buffer that somebody still has is plain memory from now on.  Cancelled while it waits, it
        leaves them registered.  What is dropped unclosed is given back as well.
        """
        if self._buffers is None:
            return
        if not self._loop.is_closed():
            while (busy := self._loop._file_idle(self._memory)) is not None:
                await settle(self._loop, busy)
            self._loop._file_unregister(self._memory)
        self._registered = False
        self._buffers = None

    async def aclose(self) -> None:
        """close(), by the name that contextlib.aclosing() knows."""
        await self.close()

    async def __aenter__(self) -> Self:
        self._all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
