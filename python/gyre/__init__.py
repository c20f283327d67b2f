"""gyre: a drop-in asyncio event loop for Linux, in C on io_uring.

import gyre
gyre.run(main())
"""

from __future__ import annotations

import sys
from typing import Any

from ._gyre import BackendError, Future, Task, __version__
from ._run import run
from .loop import Loop, new_event_loop

__all__ = [
    "BackendError",
    "Future",
    "Loop",
    "Task",
    "__version__",
    "new_event_loop",
    "run",
]

_POLICY_NAMES = ("EventLoopPolicy", "install")

if sys.version_info < (3, 16):
    __all__ += _POLICY_NAMES

    def __getattr__(name: str) -> Any:
        # Not imported with the package: from 3.14 on asyncio warns when its policies are touched.
        if name in _POLICY_NAMES:
            from . import _policy

            return getattr(_policy, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
