"""The loop of the arm that GYRE_BENCH_ARM names, for uvicorn's --loop."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

# At the end: bench/ itself must not come before the standard library, its http would hide that one.
sys.path.append(str(Path(__file__).resolve().parents[2]))


def new_event_loop() -> asyncio.AbstractEventLoop:
    from bench import arms

    return arms.new_event_loop(arms.parse_arm(os.environ["GYRE_BENCH_ARM"]))
