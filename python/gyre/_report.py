"""What the C code says to asyncio's logger and exception handler, and to gyre's logger.

Only reached when something went wrong or was slow.  asyncio's wording differs by version, so its
own functions are asked where it says the same.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from asyncio import base_events, format_helpers
from typing import Any

__all__ = ["callback_failed", "io_uring_refused", "slow_callback"]

_format_source: Any = format_helpers._format_callback_source
_format_takes_debug = "debug" in inspect.signature(_format_source).parameters

_refusals: list[str] = []


def io_uring_refused(explanation: str) -> None:
    """Log, once per process, why loops run on epoll."""
    if not _refusals:
        logging.getLogger("gyre").info("gyre runs on epoll. %s", explanation)
    _refusals.append(explanation)
    del _refusals[1:]


def callback_failed(handle: Any, exc: BaseException) -> None:
    """Report an exception that left a handle's callback to the loop's exception handler."""
    loop = handle._loop
    if _format_takes_debug:
        source = _format_source(handle._callback, handle._args, debug=loop.get_debug())
    else:
        source = _format_source(handle._callback, handle._args)
    context: dict[str, Any] = {
        "message": f"Exception in callback {source}",
        "exception": exc,
        "handle": handle,
    }
    if handle._source_traceback:
        context["source_traceback"] = handle._source_traceback
    loop.call_exception_handler(context)


def slow_callback(what: Any, seconds: float) -> None:
    """Log a callback that held the loop up for longer than loop.slow_callback_duration."""
    if isinstance(what, asyncio.Handle):
        text = base_events._format_handle(what)  # type: ignore[attr-defined]
    else:
        text = repr(what)
    # By its name in base_events: a program that replaces it there gets these lines too.
    logger = base_events.logger  # type: ignore[attr-defined]
    logger.warning("Executing %s took %.3f seconds", text, seconds)
