"""EventLoopPolicy and install(): for programs that cannot name a loop factory.

Gone from Python 3.16 on.  Imported only when asked for (gyre/__init__.py): asyncio warns about its
own policy API from 3.14 on.
"""

from __future__ import annotations

import asyncio
import sys
import warnings
from asyncio import events
from typing import Any

from .loop import Loop, new_event_loop

__all__ = ["EventLoopPolicy", "install", "set_policy"]

if sys.version_info >= (3, 14):
    _Base: Any = events._BaseDefaultEventLoopPolicy
else:
    _Base = asyncio.DefaultEventLoopPolicy


class EventLoopPolicy(_Base):
    """An event loop policy whose loops are gyre's."""

    def _loop_factory(self) -> Loop:
        return new_event_loop()


def set_policy() -> None:
    """install() without its warning."""
    if sys.version_info >= (3, 14):
        events._set_event_loop_policy(EventLoopPolicy())
    else:
        asyncio.set_event_loop_policy(EventLoopPolicy())


def install() -> None:
    """Make gyre the loop of asyncio.run() and asyncio.new_event_loop() in this process."""
    if sys.version_info >= (3, 14):
        # asyncio.set_event_loop_policy() warns so from 3.14 on; ours names the way out.
        warnings.warn(
            "gyre.install() relies on asyncio's policies, which Python 3.16 removes;"
            " use gyre.run()",
            DeprecationWarning,
            stacklevel=2,
        )
    set_policy()
