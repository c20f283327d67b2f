"""gyre.run: asyncio.run() on gyre's loop."""

from __future__ import annotations

import asyncio
from asyncio import events
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from .loop import new_event_loop

__all__ = ["run"]

_T = TypeVar("_T")


def run(
    main: Coroutine[Any, Any, _T],
    *,
    debug: bool | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    **loop_options: Any,
) -> _T:
    """Run a coroutine on a new gyre loop and return its result, as asyncio.run() does.

    loop_options are new_event_loop()'s; loop_factory replaces it (TypeError if both are given).
    """
    if events._get_running_loop() is not None:
        raise RuntimeError("gyre.run() cannot be called from a running event loop")
    if loop_factory is None:

        def loop_factory() -> asyncio.AbstractEventLoop:
            return new_event_loop(**loop_options)

    elif loop_options:
        raise TypeError("gyre.run() takes loop options or a loop_factory, not both")
    with asyncio.Runner(debug=debug, loop_factory=loop_factory) as runner:
        return runner.run(main)
