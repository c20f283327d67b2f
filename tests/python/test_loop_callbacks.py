"""call_soon: order, turns, arguments, cancelling, contexts."""

import asyncio
import contextvars
import functools
import gc
import weakref

import pytest
from helpers import run_turns

VAR = contextvars.ContextVar("var", default="unset")


def test_fifo_order(loop):
    seen = []
    for number in range(1000):
        loop.call_soon(seen.append, number)
    run_turns(loop)
    assert seen == list(range(1000))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 8, 40])
def test_any_number_of_arguments(loop, count):
    seen = []
    args = tuple(object() for _ in range(count))
    loop.call_soon(lambda *got: seen.append(got), *args)
    run_turns(loop)
    assert seen == [args]


def test_keyword_arguments_are_refused(loop):
    with pytest.raises(TypeError):
        loop.call_soon(print, end="")
    with pytest.raises(TypeError):
        loop.call_soon()
    with pytest.raises(TypeError):
        loop.call_later(0.1)
    with pytest.raises(TypeError):
        loop.call_at(0.1)
    with pytest.raises(TypeError):
        loop.call_soon_threadsafe()


def test_a_callback_of_a_callback_waits_for_the_next_turn(loop):
    seen = []

    def first():
        seen.append("first")
        loop.call_soon(seen.append, "next turn")

    loop.call_soon(first)
    loop.call_soon(seen.append, "same turn")
    loop.call_soon(lambda: loop.call_soon(seen.append, "next turn, after"))
    run_turns(loop)
    assert seen == ["first", "same turn"]
    run_turns(loop)
    assert seen == ["first", "same turn", "next turn", "next turn, after"]


def test_callbacks_scheduled_before_stop_still_run(loop):
    seen = []
    loop.call_soon(loop.stop)
    loop.call_soon(seen.append, "after stop, same turn")
    loop.call_soon(lambda: loop.call_soon(seen.append, "next turn"))
    loop.run_forever()
    assert seen == ["after stop, same turn"]
    run_turns(loop)
    assert seen == ["after stop, same turn", "next turn"]


def test_what_waits_in_the_queue_survives_between_runs(loop):
    seen = []
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.call_soon(seen.append, 1)
    assert seen == []
    run_turns(loop)
    assert seen == [1]


def test_cancel_before_the_run(loop):
    seen = []
    handle = loop.call_soon(seen.append, 1)
    loop.call_soon(seen.append, 2)
    handle.cancel()
    assert handle.cancelled()
    run_turns(loop)
    assert seen == [2]


def test_cancel_by_a_callback_of_the_same_turn(loop):
    seen = []
    handles = []
    loop.call_soon(lambda: handles[0].cancel())
    handles.append(loop.call_soon(seen.append, 1))
    run_turns(loop)
    assert seen == []


def test_cancel_after_the_run_is_harmless(loop):
    seen = []
    handle = loop.call_soon(seen.append, 1)
    run_turns(loop)
    assert not handle.cancelled()
    handle.cancel()
    handle.cancel()
    assert handle.cancelled() and seen == [1]


def test_a_callback_cancels_itself(loop):
    handles = []
    handles.append(loop.call_soon(lambda: handles[0].cancel()))
    run_turns(loop)
    assert handles[0].cancelled()


def test_a_handle_dropped_at_once_still_runs(loop):
    seen = []
    loop.call_soon(seen.append, 1)
    gc.collect()
    run_turns(loop)
    assert seen == [1]


def test_references_are_dropped_after_the_run(loop):
    class Arg:
        pass

    arg = Arg()
    gone = weakref.ref(arg)
    handle = loop.call_soon(lambda _: None, arg)
    del arg
    run_turns(loop)
    assert gone() is not None  # asyncio's handles keep their arguments
    del handle
    gc.collect()
    assert gone() is None


def test_cancel_drops_callback_and_arguments(loop):
    class Arg:
        pass

    arg = Arg()
    gone = weakref.ref(arg)
    handle = loop.call_soon(lambda _: None, arg)
    del arg
    handle.cancel()
    assert gone() is None
    run_turns(loop)


def test_close_drops_what_waits(new_loop):
    class Arg:
        pass

    loop = new_loop()
    arg = Arg()
    gone = weakref.ref(arg)
    loop.call_soon(lambda _: None, arg)
    loop.call_later(1000, lambda _: None, arg)
    del arg
    loop.close()
    gc.collect()
    assert gone() is None


def test_a_loop_in_its_own_queue_is_collected(new_loop):
    loop = new_loop()
    loop.call_soon(lambda: loop)
    loop.call_later(1000, lambda: loop)
    gone = weakref.ref(loop)
    loop.close()
    assert gone() is not None


@pytest.mark.parametrize(
    "make",
    [
        lambda seen: functools.partial(seen.append, 1),
        lambda seen: seen.append.__call__,
        lambda seen: type("C", (), {"__call__": lambda self, *a: seen.append(1)})(),
        lambda seen: lambda *a: seen.append(1),
    ],
)
def test_every_sort_of_callable(loop, make):
    seen = []
    callback = make(seen)
    args = (1,) if callback.__class__.__name__ == "method-wrapper" else ()
    loop.call_soon(callback, *args)
    run_turns(loop)
    assert seen == [1]


def test_results_of_callbacks_are_ignored(loop):
    loop.call_soon(lambda: 42)
    loop.call_soon(lambda: NotImplemented)
    run_turns(loop)


def test_many_callbacks_in_one_turn(loop):
    count = 0

    def hit():
        nonlocal count
        count += 1

    for _ in range(200_000):
        loop.call_soon(hit)
    run_turns(loop)
    assert count == 200_000


def test_the_queue_wraps_and_grows(loop):
    # Pushes and pops interleaved at every fill level of a growing ring.
    seen = []

    def produce(level):
        for number in range(level):
            loop.call_soon(seen.append, (level, number))
        if level < 130:
            loop.call_soon(produce, level + 1)

    produce(0)
    run_turns(loop, 200)
    assert seen == [(level, number) for level in range(131) for number in range(level)]


class TestContext:
    def test_the_current_context_is_copied(self, loop):
        seen = []
        VAR.set("at call")
        loop.call_soon(lambda: seen.append(VAR.get()))
        VAR.set("later")
        run_turns(loop)
        assert seen == ["at call"]

    def test_a_given_context_is_used_itself(self, loop):
        context = contextvars.copy_context()
        context.run(VAR.set, "mine")
        seen = []

        def callback():
            seen.append(VAR.get())
            VAR.set("changed")

        loop.call_soon(callback, context=context)
        run_turns(loop)
        assert seen == ["mine"]
        assert context[VAR] == "changed"

    def test_changes_do_not_leak_into_the_next_callback(self, loop):
        VAR.set("outer")
        seen = []
        loop.call_soon(VAR.set, "inner")
        loop.call_soon(lambda: seen.append(VAR.get()))
        run_turns(loop)
        assert seen == ["outer"] and VAR.get() == "outer"

    @pytest.mark.parametrize("method", ["call_later", "call_at", "call_soon_threadsafe"])
    def test_the_other_methods_too(self, loop, method):
        context = contextvars.copy_context()
        context.run(VAR.set, "given")
        first = {"call_later": [0], "call_at": [0], "call_soon_threadsafe": []}[method]
        seen = []
        getattr(loop, method)(*first, lambda: seen.append(VAR.get()), context=context)
        VAR.set("copied")
        getattr(loop, method)(*first, lambda: seen.append(VAR.get()))
        getattr(loop, method)(*first, loop.stop, context=None)
        VAR.set("too late")
        loop.run_forever()
        assert seen == ["given", "copied"]

    def test_a_context_that_is_entered_already(self, loop, asyncio_log):
        context = contextvars.copy_context()

        def nested():
            # The callback's context is the current one: entering it again is the user's error.
            handle = loop.call_soon(print, context=context)
            handle._run()
            handle.cancel()

        loop.call_soon(nested, context=context)
        run_turns(loop)
        (record,) = asyncio_log.take()
        assert "cannot enter context" in str(record.exc_info[1])

    def test_what_is_not_a_context(self, loop, asyncio_log):
        # asyncio finds out when it runs the callback, or refuses at once: never a crash.
        try:
            loop.call_soon(print, context=42)
        except TypeError:
            return
        with pytest.raises(AttributeError):
            try:
                run_turns(loop)
            finally:
                errors = asyncio_log.take()
            for record in errors:
                raise record.exc_info[1]


class TestClosed:
    @pytest.mark.parametrize(
        "call",
        [
            lambda loop: loop.call_soon(print),
            lambda loop: loop.call_soon_threadsafe(print),
            lambda loop: loop.call_later(1, print),
            lambda loop: loop.call_at(1, print),
            lambda loop: loop.run_forever(),
            lambda loop: loop.run_until_complete(loop.create_future()),
            lambda loop: loop.run_in_executor(None, print),
        ],
        ids=["call_soon", "threadsafe", "later", "at", "forever", "complete", "executor"],
    )
    def test_scheduling_raises(self, new_loop, call):
        loop = new_loop()
        loop.close()
        with pytest.raises(RuntimeError, match="^Event loop is closed$"):
            call(loop)

    def test_create_task_raises(self, new_loop):
        loop = new_loop()
        loop.close()

        async def main():
            pass

        coro = main()
        with pytest.raises(RuntimeError, match="^Event loop is closed$"):
            loop.create_task(coro)
        coro.close()

    def test_close_twice_and_state(self, new_loop):
        loop = new_loop()
        assert not loop.is_closed() and not loop.is_running()
        loop.close()
        loop.close()
        assert loop.is_closed() and not loop.is_running()

    def test_time_and_futures_still_work(self, new_loop):
        loop = new_loop()
        loop.close()
        assert loop.time() > 0
        future = loop.create_future()
        future.cancel()
        assert not loop.get_debug()
        loop.stop()

    def test_repr(self, new_loop):
        loop = new_loop()
        name = type(loop).__name__
        assert repr(loop) == f"<{name} running=False closed=False debug=False>"
        loop.call_soon(lambda: seen.append(repr(loop)))
        seen = []
        run_turns(loop)
        assert seen == [f"<{name} running=True closed=False debug=False>"]
        loop.set_debug(True)
        loop.close()
        assert repr(loop) == f"<{name} running=False closed=True debug=True>"


def test_a_loop_is_an_event_loop(loop):
    assert isinstance(loop, asyncio.AbstractEventLoop)
    assert isinstance(loop, asyncio.BaseEventLoop)
    assert hash(loop) == hash(loop) and {loop: 1}[loop] == 1
    assert weakref.ref(loop)() is loop
    loop.attribute = 1
    assert loop.attribute == 1 and "attribute" in vars(loop)
    with pytest.raises(AttributeError):
        loop.no_such_attribute  # noqa: B018


def test_class_level_overrides_of_call_soon_are_honoured(kind, new_loop):
    plain = new_loop()
    seen = []

    class Loop(type(plain)):
        def call_soon(self, callback, *args, context=None):
            seen.append(callback)
            return super().call_soon(callback, *args, context=context)

    loop = Loop()
    try:

        async def main():
            await asyncio.sleep(0)
            future = loop.create_future()
            loop.call_soon(future.set_result, 7)
            return await future

        assert loop.run_until_complete(main()) == 7
        # The steps of the task, the explicit call and the wake-up all went through it.
        assert len(seen) >= 4
    finally:
        loop.close()


def test_instance_level_overrides_of_call_soon_are_honoured(loop):
    seen = []
    original = loop.call_soon

    def call_soon(callback, *args, context=None):
        seen.append(callback)
        return original(callback, *args, context=context)

    loop.call_soon = call_soon

    async def main():
        await asyncio.sleep(0)

    loop.run_until_complete(main())
    assert len(seen) >= 2
    before = len(seen)
    del loop.call_soon
    loop.run_until_complete(main())
    assert len(seen) == before
