"""The pairs of types that the Future and Task tests run on, each on both loops: asyncio's own are
the oracle."""

import asyncio

import gyre
import pytest


class Types:
    def __init__(self, name, task, future):
        self.name, self.Task, self.Future = name, task, future

    def __repr__(self):
        return self.name


ASYNCIO = Types("asyncio", asyncio.Task, asyncio.Future)
GYRE = Types("gyre", gyre.Task, gyre.Future)

both = pytest.mark.parametrize("types", [ASYNCIO, GYRE], ids=repr)


async def turn():
    """Lets everything that is ready run once."""
    await asyncio.sleep(0)


async def turns(count):
    for _ in range(count):
        await asyncio.sleep(0)
