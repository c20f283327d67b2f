"""Tasks by the ten thousand: nothing is kept, and no chain is too long for the C stack."""

import asyncio
import gc
import subprocess
import sys
import weakref

import gyre
import pytest
from task_types import both, turn, turns

pytestmark = both

CHAIN = 100_000


async def give(value):
    return value


async def hop(value):
    await turn()
    return value


async def fail():
    raise KeyError("expected")


async def forever(loop):
    await loop.create_future()


def counts(objects):
    return [sys.getrefcount(x) for x in objects]


def test_no_leaks(loop, types):
    loop.set_debug(False)  # also under -X dev
    marker = object()

    async def one_of_each(index):
        kind = index % 5
        if kind == 0:
            assert await types.Task(give(marker), loop=loop) is marker
        elif kind == 1:
            assert await types.Task(hop(marker), loop=loop) is marker
        elif kind == 2:
            with pytest.raises(KeyError):
                await types.Task(fail(), loop=loop)
        elif kind == 3:
            task = types.Task(forever(loop), loop=loop)
            await turn()
            task.cancel(marker)
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            future = types.Future(loop=loop)
            task = types.Task(forever(loop), loop=loop)
            waiter = types.Task(asyncio.wait([task, future]), loop=loop)
            await turn()
            future.set_result(marker)
            task.cancel()
            await waiter

    async def many(count):
        for index in range(count):
            await one_of_each(index)

    objects = (marker, loop, types.Task, types.Future, hop.__code__, one_of_each)
    loop.run_until_complete(many(1000))
    gc.collect()
    before, blocks = counts(objects), sys.getallocatedblocks()
    loop.run_until_complete(many(20_000))
    gc.collect()
    assert counts(objects) == before
    assert sys.getallocatedblocks() - blocks < 500


def test_pending_tasks_are_collected_with_their_loop(new_loop, types):
    def make():
        loop = new_loop()
        loop.set_exception_handler(lambda loop, context: None)
        tasks = [types.Task(forever(loop), loop=loop) for _ in range(100)]
        loop.run_until_complete(turn())
        return [weakref.ref(task) for task in tasks]

    references = make()
    gc.collect()
    assert [reference() for reference in references] == [None] * 100


def test_long_chain_of_tasks(loop, types):
    """Each awaits the next: woken, cancelled and freed without recursion."""
    loop.set_debug(False)  # also under -X dev

    async def link(task):
        if task is not None:
            return await task
        return await future

    for outcome in ("result", "cancel"):
        future = loop.create_future()

        async def main():
            task = None
            for _ in range(CHAIN):
                task = types.Task(link(task), loop=loop)
                await turn()
            return task

        task = loop.run_until_complete(main())
        if outcome == "result":
            future.set_result("through")
            assert loop.run_until_complete(task) == "through"
        elif types.Task is gyre.Task:  # asyncio's own cancel() recurses
            assert task.cancel("all")
            assert future.cancelled()
            with pytest.raises(asyncio.CancelledError):
                loop.run_until_complete(task)
        else:
            future.set_result(None)
            loop.run_until_complete(task)
        del task
        gc.collect()


def test_long_chain_is_freed_in_one_go(loop, types):
    loop.set_debug(False)  # also under -X dev

    async def keep(task):
        return task

    task = None
    for _ in range(CHAIN // 10):
        task = types.Task(keep(task), loop=loop)
        loop.run_until_complete(task)
    del task
    gc.collect()


def test_reference_counts_of_a_step(loop, types):
    """A task that waits holds exactly what it shows."""

    async def main():
        future = types.Future(loop=loop)
        alone = sys.getrefcount(future)

        async def waits():
            await future

        task = types.Task(waits(), loop=loop)
        await turns(2)
        task.cancel()
        await asyncio.wait([task])
        assert task._fut_waiter is None
        del task
        gc.collect()
        # The closure of waits() is the one more.
        assert sys.getrefcount(future) - alone <= 1

    loop.run_until_complete(main())


@pytest.mark.only("gyre")
def test_interpreter_exit_with_pending_tasks(kind, types):
    """Tasks that outlive everything: no crash, whatever is left at exit."""
    code = (
        "import asyncio, gyre\n"
        "loop = gyre.Loop()\n"
        "async def forever():\n"
        "    await loop.create_future()\n"
        "loop.set_exception_handler(lambda loop, context: None)\n"
        "kept = [gyre.Task(forever(), loop=loop) for _ in range(100)]\n"
        "failed = gyre.Future(loop=loop)\n"
        "failed.set_exception(ValueError())\n"
        "loop.run_until_complete(asyncio.sleep(0))\n"
        "import builtins\n"
        "builtins.kept_for_ever = kept, failed\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
