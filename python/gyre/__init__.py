"""gyre: a drop-in asyncio event loop for Linux, in C on io_uring.

import gyre
gyre.run(main())
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from ._gyre import BackendError, Future, Task, __version__
from ._run import run
from .loop import Loop, new_event_loop

if TYPE_CHECKING:
    from .files import (
        RegisteredBuffers,
        aligned_buffer,
        copy_file,
        open,
        read_file,
        read_many,
        stat,
        stat_many,
        write_file,
    )
    from .path import Path

__all__ = [
    "BackendError",
    "Future",
    "Loop",
    "Path",
    "RegisteredBuffers",
    "Task",
    "__version__",
    "aligned_buffer",
    "copy_file",
    "new_event_loop",
    "open",
    "read_file",
    "read_many",
    "run",
    "stat",
    "stat_many",
    "write_file",
]

# A free-threaded Python switches its GIL on for _gyre, and warns, unless it was told not to.
if not getattr(sys, "_is_gil_enabled", lambda: True)():
    raise ImportError("gyre needs the GIL: run Python without PYTHON_GIL=0 and -X gil=0")

# Imported when first asked for: a program that has no async files does not pay for them.
_FILE_NAMES = (
    "RegisteredBuffers",
    "aligned_buffer",
    "copy_file",
    "open",
    "read_file",
    "read_many",
    "stat",
    "stat_many",
    "write_file",
)
# Not imported with the package: from 3.14 on asyncio warns when its policies are touched.
_POLICY_NAMES = ("EventLoopPolicy", "install") if sys.version_info < (3, 16) else ()
__all__ += _POLICY_NAMES


def __getattr__(name: str) -> Any:
    if name in _FILE_NAMES:
        from . import files

        value = getattr(files, name)
    elif name == "Path":
        from .path import Path as value
    elif name in _POLICY_NAMES:
        from . import _policy

        return getattr(_policy, name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
