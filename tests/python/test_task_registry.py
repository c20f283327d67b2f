"""asyncio's books: all_tasks(), current_task(), awaited-by edges, and tools that read them."""

import asyncio
import gc
import subprocess
import sys
import threading
import weakref

import pytest
from task_types import ASYNCIO, both, turn, turns

pytestmark = both


async def forever(loop):
    await loop.create_future()


def test_all_tasks(loop, types):
    async def main():
        me = asyncio.current_task()
        tasks = {types.Task(forever(loop), loop=loop) for _ in range(10)}
        builtin = ASYNCIO.Task(forever(loop), loop=loop)
        assert asyncio.all_tasks() == tasks | {builtin, me}
        await turn()
        assert asyncio.all_tasks() == tasks | {builtin, me}
        for task in (*tasks, builtin):
            task.cancel()
        await asyncio.wait([*tasks, builtin])
        assert asyncio.all_tasks() == {me}

    task = types.Task(main(), loop=loop)
    assert asyncio.all_tasks(loop) == {task}
    loop.run_until_complete(task)
    assert asyncio.all_tasks(loop) == set()


def test_all_tasks_tells_loops_apart(loop, new_loop, types):
    other = new_loop()
    here, there = types.Task(forever(loop), loop=loop), types.Task(forever(other), loop=other)
    assert asyncio.all_tasks(loop) == {here} and asyncio.all_tasks(other) == {there}


def test_a_forgotten_task_is_forgotten(loop, types):
    """The books hold no reference: what only they know is collected."""
    loop.set_exception_handler(lambda loop, context: None)
    task = types.Task(forever(loop), loop=loop)
    loop.run_until_complete(turn())
    assert asyncio.all_tasks(loop) == {task}
    del task
    gc.collect()
    assert asyncio.all_tasks(loop) == set()


def test_all_tasks_while_tasks_come_and_go(loop, types):
    async def child():
        await turn()

    async def main():
        seen = 0
        for _ in range(200):
            tasks = [types.Task(child(), loop=loop) for _ in range(5)]
            seen += len(asyncio.all_tasks())
            await asyncio.wait(tasks)
        return seen

    assert loop.run_until_complete(main()) == 200 * 6


def test_current_task(loop, types):
    seen = []

    def callback():
        seen.append(asyncio.current_task(loop))

    async def child():
        task = asyncio.current_task()
        await turn()
        assert asyncio.current_task() is task
        return task

    async def main():
        loop.call_soon(callback)
        task = types.Task(child(), loop=loop)
        assert await task is task

    assert asyncio.current_task(loop) is None
    loop.run_until_complete(types.Task(main(), loop=loop))
    assert asyncio.current_task(loop) is None and seen == [None]


def test_a_step_inside_a_step_is_refused(loop, types):
    """What nested loops (nest_asyncio) must work around: one task at a time."""
    reports = []
    loop.set_exception_handler(lambda loop, context: reports.append(context))

    async def main():
        future = types.Future(loop=loop)

        async def waits():
            await future

        task = types.Task(waits(), loop=loop)
        await turn()
        [(wakeup, _)] = future._callbacks
        future.remove_done_callback(wakeup)
        future.set_result(None)
        with pytest.raises(RuntimeError, match="Cannot enter into task .* while another task"):
            wakeup(future)
        assert asyncio.current_task() is not task
        loop.call_soon(wakeup, future)
        await task

    loop.run_until_complete(types.Task(main(), loop=loop))
    assert reports == []


def test_threads_have_their_own(new_loop, types):
    """Loops in threads: each sees its tasks and its current one; a thread that ends takes nothing
    along."""
    count, errors, found = 4, [], []
    barrier = threading.Barrier(count)

    def run():
        try:
            loop = new_loop()
            loop.set_exception_handler(lambda loop, context: None)

            async def main():
                me = asyncio.current_task()
                mine = {types.Task(forever(loop), loop=loop) for _ in range(20)}
                await turn()
                barrier.wait(20)
                assert asyncio.current_task() is me
                assert asyncio.all_tasks() == mine | {me}
                barrier.wait(20)
                for task in mine:
                    task.cancel()
                await asyncio.wait(mine)

            loop.run_until_complete(types.Task(main(), loop=loop))
            left = types.Task(forever(loop), loop=loop)
            found.append((loop, left))
        except BaseException as exc:
            errors.append(exc)
            barrier.abort()

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    for loop, left in found:
        assert asyncio.all_tasks(loop) == {left}
        left.cancel()
    while found:
        loop, left = found.pop()
        loop.run_until_complete(asyncio.wait([left]))
        del left
        gc.collect()


def test_unbound_methods_of_asyncio(loop, types):
    """asyncio.Task.get_name(task) and the like, on any task: no crash, and the right answer."""

    async def main():
        task = types.Task(forever(loop), loop=loop, name="named")
        assert asyncio.Task.get_name(task) == "named"
        assert asyncio.Task.get_coro(task) is task.get_coro()
        assert asyncio.Task.get_loop(task) is loop
        assert "named" in asyncio.Task.__repr__(task)
        unnamed = types.Task(forever(loop), loop=loop)
        if sys.version_info >= (3, 12):
            assert asyncio.Task.get_context(task) is task.get_context()
            assert asyncio.Task.get_name(unnamed) == unnamed.get_name()
        assert asyncio.Future.get_loop(types.Future(loop=loop)) is loop
        for left in (task, unnamed):
            left.cancel()
        await asyncio.wait([task, unnamed])

    loop.run_until_complete(main())


def test_anyio_reads(loop, types):
    """What AnyIO's cancel scopes do, with the private names they use."""
    from asyncio.base_events import _run_until_complete_cb

    async def main():
        root = asyncio.current_task()
        assert any(callback is _run_until_complete_cb for callback, _ in root._callbacks)
        task = types.Task(forever(loop), loop=loop)
        assert task._fut_waiter is None and task._must_cancel is False
        await turn()
        waiter = task._fut_waiter
        assert isinstance(waiter, asyncio.Future) and not waiter.done()
        waiter.cancel()
        assert waiter.done() and task._fut_waiter is waiter
        await asyncio.wait([task])
        assert task._fut_waiter is None

    loop.run_until_complete(types.Task(main(), loop=loop))


def test_futures_combine(loop, types):
    """gather, shield, wait, as_completed, wait_for, TaskGroup and timeout over a mix of types."""

    async def value(x):
        await turns(x % 3)
        return x

    async def main():
        loop.set_task_factory(lambda loop, coro, **kwargs: types.Task(coro, loop=loop, **kwargs))
        mixed = [(ASYNCIO if x % 2 else types).Task(value(x), loop=loop) for x in range(6)]
        assert await asyncio.gather(*mixed) == list(range(6))
        assert await asyncio.shield(value(1)) == 1
        done, pending = await asyncio.wait([asyncio.create_task(value(x)) for x in range(3)])
        assert len(done) == 3 and not pending
        assert sorted([await f for f in asyncio.as_completed([value(2), value(1)])]) == [1, 2]
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(loop.create_future(), 0.001)
        with pytest.raises(asyncio.TimeoutError):
            async with asyncio.timeout(0.001):
                await loop.create_future()
        assert asyncio.current_task().cancelling() == 0
        with pytest.raises(BaseExceptionGroup) as caught:
            async with asyncio.TaskGroup() as group:
                sleeper = group.create_task(asyncio.sleep(60))
                group.create_task(asyncio.wait_for(loop.create_future(), 0.001))
        assert len(caught.value.exceptions) == 1 and sleeper.cancelled()

    loop.run_until_complete(types.Task(main(), loop=loop))


def test_runner_interrupt_cancels_the_main_task(kind, types):
    """Ctrl-C under asyncio.Runner: the main task is cancelled, then KeyboardInterrupt."""
    import _thread

    from conftest import make_loop

    ended = []

    async def main():
        asyncio.get_running_loop().call_soon(_thread.interrupt_main)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    with asyncio.Runner(loop_factory=lambda: make_loop(kind)) as runner:
        runner.get_loop().set_task_factory(
            lambda loop, coro, **kwargs: types.Task(coro, loop=loop, **kwargs)
        )
        with pytest.raises(KeyboardInterrupt):
            runner.run(main())
    assert ended == ["cancelled"]


# ---- call graphs, 3.14 -------------------------------------------------------------------------

graphs = pytest.mark.skipif(sys.version_info < (3, 14), reason="new in Python 3.14")


@graphs
def test_awaited_by(loop, types):
    async def main():
        future = types.Future(loop=loop)

        async def waits(what):
            await what

        first = types.Task(waits(future), loop=loop)
        second = types.Task(waits(future), loop=loop)
        third = ASYNCIO.Task(waits(first), loop=loop)
        await turns(2)
        assert future._asyncio_awaited_by == {first, second}
        assert first._asyncio_awaited_by == {third}
        future.set_result(None)
        await asyncio.wait([third, second])
        assert not future._asyncio_awaited_by and not first._asyncio_awaited_by

    loop.run_until_complete(types.Task(main(), loop=loop))


@graphs
def test_call_graph(loop, types):
    async def leaf(future):
        await future

    async def root(task):
        await task

    async def main():
        future = types.Future(loop=loop)
        task = types.Task(leaf(future), loop=loop, name="leaf")
        parent = types.Task(root(task), loop=loop, name="root")
        await turns(2)
        graph = asyncio.capture_call_graph(task)
        assert [entry.frame.f_code.co_name for entry in graph.call_stack] == ["leaf"]
        [above] = graph.awaited_by
        assert above.future is parent
        future.set_result(None)
        await parent

    loop.run_until_complete(types.Task(main(), loop=loop))


@graphs
@pytest.mark.only("gyre")
def test_asyncio_ps_sees_our_tasks(kind, types):
    """python -m asyncio ps PID, from outside the process."""
    code = (
        "import asyncio, sys, gyre\n"
        "async def worker():\n"
        "    await asyncio.sleep(60)\n"
        "async def main():\n"
        "    task = asyncio.create_task(worker(), name='the-worker')\n"
        "    await asyncio.sleep(0)\n"
        "    print('ready', flush=True)\n"
        "    await task\n"
        "asyncio.run(main(), loop_factory=gyre.new_event_loop)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout.readline() == b"ready\n"
            shown = subprocess.run(
                [sys.executable, "-m", "asyncio", "pstree", str(child.pid)],
                capture_output=True,
                text=True,
                timeout=30,
            )
        finally:
            child.kill()
    if "ermission" in shown.stderr or "not supported" in shown.stderr:
        pytest.skip(shown.stderr.strip().splitlines()[-1])
    assert "the-worker" in shown.stdout and "Task-1" in shown.stdout, shown.stderr


# ---- the set of all tasks, before 3.14 ---------------------------------------------------------


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="asyncio keeps no set any more")
def test_the_set_of_all_tasks(loop, types):
    """Libraries that read asyncio's WeakSet find gyre's tasks in it, and can take them out."""
    tasks = asyncio.tasks
    known = tasks._scheduled_tasks if sys.version_info >= (3, 12) else tasks._all_tasks
    gc.collect()
    before = len(known)
    task = types.Task(forever(loop), loop=loop)
    assert len(known) == before + 1 and task in known and list(known).count(task) == 1
    asyncio._register_task(task)
    assert asyncio.all_tasks(loop) == {task}
    assert task in known.copy()
    asyncio._unregister_task(task)
    assert task not in known and asyncio.all_tasks(loop) == set()
    asyncio._register_task(task)
    assert asyncio.all_tasks(loop) == {task}
    del task
    loop.set_exception_handler(lambda loop, context: None)
    loop.run_until_complete(turn())
    gc.collect()
    assert len(known) == before


def test_a_subclass_is_listed_until_it_is_gone(loop, types):
    """Weak reference callbacks and __del__ of a task that goes may ask for all tasks."""
    seen = []
    loop.set_exception_handler(lambda loop, context: seen.append(len(asyncio.all_tasks(loop))))

    class Mine(types.Task):
        def __del__(self):
            seen.append(len(asyncio.all_tasks(loop)))
            super().__del__()

    task = Mine(forever(loop), loop=loop)
    reference = weakref.ref(task, lambda _: seen.append(asyncio.all_tasks(loop)))
    loop.run_until_complete(turn())
    del task
    gc.collect()
    assert reference() is None and len(seen) >= 3
    seen.clear()  # from 3.14 on, and with gyre, the weak reference's callback may still find it
    gc.collect()
    assert asyncio.all_tasks(loop) == set()
