"""gyre: a drop-in asyncio event loop for Linux, in C on io_uring."""

from ._gyre import __version__

__all__ = ["__version__"]
