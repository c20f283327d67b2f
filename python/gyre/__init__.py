"""gyre: a drop-in asyncio event loop for Linux, in C on io_uring."""

from ._gyre import Future, Task, __version__

__all__ = ["Future", "Task", "__version__"]
