"""create_task() and task factories, with what each Python passes on to them; call graphs."""

import asyncio
import contextvars
import inspect
import io
import subprocess
import sys
import textwrap

import pytest
from tcp_tools import drive

PASSES_KWARGS = sys.version_info >= (3, 13, 3)
var = contextvars.ContextVar("var", default="outside")


async def read_var():
    return var.get()


def test_name_and_context(loop):
    async def main():
        context = contextvars.copy_context()
        context.run(var.set, "inside")
        task = loop.create_task(read_var(), name="a name", context=context)
        assert task.get_name() == "a name"
        assert await task == "inside"
        assert await loop.create_task(read_var()) == "outside"
        assert loop.create_task(read_var(), name=17).get_name() == "17"
        await asyncio.sleep(0)

    drive(loop, main())


def test_what_a_factory_gets(loop):
    calls = []

    def factory(loop, coro, **kwargs):
        calls.append(kwargs)
        return asyncio.Task(coro, loop=loop, **kwargs)

    async def main():
        loop.set_task_factory(factory)
        assert loop.get_task_factory() is factory
        context = contextvars.copy_context()
        plain = loop.create_task(read_var())
        named = loop.create_task(read_var(), name="named", context=context)
        assert named.get_name() == "named"
        await asyncio.gather(plain, named)
        loop.set_task_factory(None)
        with pytest.raises(TypeError, match="task factory must be a callable or None"):
            loop.set_task_factory(17)
        return context

    context = drive(loop, main())
    if PASSES_KWARGS:
        assert calls == [
            {"name": None, "context": None},
            {"name": "named", "context": context},
        ] or calls == [{}, {"name": "named", "context": context}]
    else:
        assert calls == [{}, {"context": context}]


@pytest.mark.skipif(not PASSES_KWARGS, reason="new in Python 3.13.3")
def test_anything_goes_to_the_factory(loop):
    calls = []

    def factory(loop, coro, *, spice=None, **kwargs):
        calls.append(spice)
        return asyncio.Task(coro, loop=loop, **kwargs)

    async def main():
        loop.set_task_factory(factory)
        await loop.create_task(read_var(), spice="salt")
        await asyncio.create_task(read_var(), name="x")
        loop.set_task_factory(None)
        with pytest.raises(TypeError):
            coro = read_var()
            try:
                loop.create_task(coro, spice="salt")
            finally:
                coro.close()

    drive(loop, main())
    assert calls == ["salt", None]


@pytest.mark.skipif(not PASSES_KWARGS, reason="new in Python 3.13.3")
def test_eager_start(loop):
    events = []

    async def note():
        events.append("begin")
        await asyncio.sleep(0)
        events.append("end")

    async def main():
        task = loop.create_task(note(), eager_start=True, name="eager")
        events.append(task.get_name())
        await task
        done = loop.create_task(read_var(), eager_start=True)
        assert done.done() and done.result() == "outside"
        lazy = loop.create_task(note(), eager_start=False)
        events.append("made")
        await lazy

    drive(loop, main())
    assert events == ["begin", "eager", "end", "made", "begin", "end"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="new in Python 3.12")
def test_eager_factory(loop, kind):
    async def main():
        loop.set_task_factory(asyncio.eager_task_factory)
        task = asyncio.create_task(read_var())
        assert task.done()
        async with asyncio.TaskGroup() as group:
            inner = group.create_task(read_var())
            assert inner.done()
        assert await asyncio.gather(read_var(), read_var()) == ["outside"] * 2
        loop.set_task_factory(None)

    drive(loop, main())


def test_what_is_no_coroutine(loop):
    async def main():
        with pytest.raises(TypeError, match="a coroutine was expected"):
            loop.create_task(17)

    drive(loop, main())


def test_closed_loop(new_loop):
    loop = new_loop()
    loop.close()
    coro = read_var()
    with pytest.raises(RuntimeError, match="closed"):
        loop.create_task(coro)
    assert inspect.getcoroutinestate(coro) == "CORO_CREATED"
    coro.close()


# ---- call graphs and the tools that read them, 3.14 --------------------------------------------

graphs = pytest.mark.skipif(sys.version_info < (3, 14), reason="new in Python 3.14")


@graphs
def test_print_call_graph(loop):
    async def leaf():
        await asyncio.sleep(0)
        out = io.StringIO()
        asyncio.print_call_graph(file=out)
        return out.getvalue()

    async def middle():
        async with asyncio.TaskGroup() as group:
            task = group.create_task(leaf(), name="the leaf")
        return task.result()

    async def main():
        return await loop.create_task(middle(), name="the middle")

    text = drive(loop, main())
    assert "name='the leaf'" in text and "name='the middle'" in text
    assert "Awaited by" in text and "middle()" in text


@graphs
@pytest.mark.parametrize("command", ["ps", "pstree"])
def test_from_outside(new, command):
    """Names, stacks and awaiters of the tasks of another process."""
    code = f"""
    import asyncio
    async def leaf():
        await asyncio.sleep(60)
    async def middle():
        async with asyncio.TaskGroup() as group:
            group.create_task(leaf(), name="leaf-one")
            group.create_task(leaf(), name="leaf-two")
    async def main():
        task = asyncio.create_task(middle(), name="the-middle")
        for _ in range(3):
            await asyncio.sleep(0)
        print("ready", flush=True)
        await task
    loop = {new}
    loop.run_until_complete(main())
    """
    argv = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout.readline() == b"ready\n"
            shown = subprocess.run(
                [sys.executable, "-m", "asyncio", command, str(child.pid)],
                capture_output=True,
                text=True,
                timeout=30,
            )
        finally:
            child.kill()
    if "ermission" in shown.stderr or "not supported" in shown.stderr:
        pytest.skip(shown.stderr.strip().splitlines()[-1])
    for name in ("leaf-one", "leaf-two", "the-middle", "Task-1", "leaf", "middle"):
        assert name in shown.stdout, (shown.stdout, shown.stderr)
    if command == "ps":  # a row names the task, its stack, and who waits for it
        [row] = [line for line in shown.stdout.splitlines() if "leaf-one" in line.split()]
        assert "the-middle" in row and "leaf" in row
