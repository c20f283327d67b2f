"""The exception handler: what it is given, what the default one logs, and what it may do."""

import asyncio
import contextvars
import gc
import logging
import re
import sys

import pytest
from helpers import run_turns


def boom(*args):
    raise ZeroDivisionError("boom")


def source_of(loop, callback, *args):
    """How this Python's asyncio words a callback."""
    return repr(asyncio.Handle(callback, args, loop)).removeprefix("<Handle ").removesuffix(">")


def test_default_handler_output(loop, asyncio_log):
    loop.call_soon(boom, 1, "two")
    run_turns(loop)
    (record,) = asyncio_log.take()
    assert record.levelno == logging.ERROR and record.name == "asyncio"
    lines = record.getMessage().splitlines()
    assert lines[0] == f"Exception in callback {source_of(loop, boom, 1, 'two')}"
    assert lines[1] == f"handle: <Handle {source_of(loop, boom, 1, 'two')}>"
    assert len(lines) == 2
    assert record.exc_info[0] is ZeroDivisionError
    assert str(record.exc_info[1]) == "boom"


def test_the_context_of_a_callback(loop):
    seen = []
    loop.set_exception_handler(lambda loop_, context: seen.append((loop_, context)))
    assert callable(loop.get_exception_handler())
    handle = loop.call_soon(boom)
    run_turns(loop)
    ((loop_, context),) = seen
    assert loop_ is loop
    assert context["handle"] is handle
    assert type(context["exception"]) is ZeroDivisionError
    assert context["message"].startswith("Exception in callback boom() at ")
    assert set(context) == {"message", "exception", "handle"}
    assert context["exception"].__traceback__ is not None


def test_the_traceback_ends_in_the_callback(loop):
    seen = []
    loop.set_exception_handler(lambda loop, context: seen.append(context["exception"]))
    loop.call_soon(boom)
    run_turns(loop)
    traceback = seen[0].__traceback__
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    assert traceback.tb_frame.f_code is boom.__code__


def test_the_handler_of_a_timer(loop):
    seen = []
    loop.set_exception_handler(lambda loop, context: seen.append(context))
    handle = loop.call_later(0, boom)
    while not seen:
        run_turns(loop)
    assert seen[0]["handle"] is handle
    assert isinstance(handle, asyncio.TimerHandle)


def test_reset(loop, asyncio_log):
    loop.set_exception_handler(lambda loop, context: None)
    loop.call_soon(boom)
    run_turns(loop)
    assert asyncio_log.take() == []
    loop.set_exception_handler(None)
    assert loop.get_exception_handler() is None
    loop.call_soon(boom)
    run_turns(loop)
    assert len(asyncio_log.take()) == 1


@pytest.mark.parametrize("bad", [42, "handler", object()])
def test_not_callable(loop, bad):
    with pytest.raises(TypeError, match=r"^A callable object or None is expected, got "):
        loop.set_exception_handler(bad)
    assert loop.get_exception_handler() is None


def test_a_handler_that_raises(loop, asyncio_log):
    def handler(loop, context):
        raise LookupError("in the handler")

    loop.set_exception_handler(handler)
    loop.call_soon(boom)
    loop.call_soon(boom)
    run_turns(loop)
    records = asyncio_log.take()
    assert len(records) == 2
    for record in records:
        assert record.getMessage().startswith("Unhandled error in exception handler\ncontext: {")
        assert record.exc_info[0] is LookupError


def test_a_default_handler_that_raises(new_loop, asyncio_log):
    class Loop(type(new_loop())):
        def default_exception_handler(self, context):
            raise LookupError("overridden")

    loop = Loop()
    try:
        loop.call_soon(boom)
        run_turns(loop)
        assert asyncio_log.messages() == ["Exception in default exception handler"]
        loop.set_exception_handler(boom)
        loop.call_soon(boom)
        run_turns(loop)
        assert asyncio_log.messages() == [
            "Exception in default exception handler while handling an unexpected error "
            "in custom exception handler"
        ]
    finally:
        loop.close()


def test_a_handler_that_defers_to_the_default(loop, asyncio_log):
    loop.set_exception_handler(lambda loop, context: loop.default_exception_handler(context))
    loop.call_soon(boom)
    run_turns(loop)
    (message,) = asyncio_log.messages()
    assert message.startswith("Exception in callback boom()")


def test_a_handler_that_schedules_and_stops(loop):
    seen = []

    def handler(loop, context):
        loop.call_soon(seen.append, "scheduled")
        loop.call_soon(loop.stop)

    loop.set_exception_handler(handler)
    loop.call_soon(boom)
    loop.run_forever()
    assert seen == ["scheduled"]


def test_call_exception_handler_by_hand(loop, asyncio_log):
    loop.call_exception_handler({"message": "by hand", "more": [1], "exception": OSError("why")})
    (record,) = asyncio_log.take()
    assert record.getMessage() == "by hand\nmore: [1]"
    assert record.exc_info[0] is OSError
    loop.call_exception_handler({})
    assert asyncio_log.messages() == ["Unhandled exception in event loop"]


def test_the_source_traceback_in_debug_mode(loop, asyncio_log):
    loop.set_debug(True)
    loop.call_soon(boom)
    run_turns(loop)
    (message,) = asyncio_log.messages()
    assert "source_traceback: Object created at (most recent call last):" in message
    assert __file__ in message and "loop.call_soon(boom)" in message
    assert re.search(r"<Handle boom\(\) at \S+:\d+ created at \S+:\d+>", message)


def test_the_handle_traceback_of_an_unrelated_error(loop, asyncio_log):
    loop.set_debug(True)

    def callback():
        loop.call_exception_handler({"message": "from inside"})

    loop.call_soon(callback)
    run_turns(loop)
    (message,) = asyncio_log.messages()
    assert message.startswith("from inside\nhandle_traceback: Handle created at (most recent")
    assert "loop.call_soon(callback)" in message


def test_a_task_that_nobody_awaits(loop, asyncio_log):
    async def fail():
        raise LookupError("lost")

    async def main():
        asyncio.create_task(fail(), name="lonely")
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    loop.run_until_complete(main())
    gc.collect()
    (record,) = asyncio_log.take()
    text = record.getMessage()
    assert text.startswith(
        "Task exception was never retrieved\nfuture: <Task finished name='lonely'"
    )
    assert record.exc_info[0] is LookupError


def test_a_future_that_nobody_reads(loop, asyncio_log):
    future = loop.create_future()
    future.set_exception(LookupError("unread"))
    del future
    gc.collect()
    (record,) = asyncio_log.take()
    assert record.getMessage().startswith("Future exception was never retrieved\nfuture: <Future ")


def test_a_task_destroyed_while_pending(loop, asyncio_log):
    async def wait():
        await loop.create_future()

    task = loop.create_task(wait())
    run_turns(loop)
    del task
    gc.collect()
    messages = asyncio_log.messages()
    assert any(
        m.startswith("Task was destroyed but it is pending!\ntask: <Task ") for m in messages
    )


@pytest.mark.skipif(sys.version_info < (3, 12), reason="handlers have a context since 3.12")
def test_the_handler_runs_in_the_callbacks_context(loop):
    var = contextvars.ContextVar("var", default="outer")
    seen = []
    loop.set_exception_handler(lambda loop, context: seen.append(var.get()))
    context = contextvars.copy_context()
    context.run(var.set, "the callback's")
    loop.call_soon(boom, context=context)
    run_turns(loop)
    assert seen == ["the callback's"]


def test_errors_of_done_callbacks(loop, asyncio_log):
    seen = []
    future = loop.create_future()
    future.add_done_callback(boom)
    future.add_done_callback(lambda future: seen.append(1))
    future.set_result(None)
    run_turns(loop)
    assert seen == [1]
    (record,) = asyncio_log.take()
    source = source_of(loop, boom, future)
    assert record.getMessage().startswith(f"Exception in callback {source}")
    assert record.exc_info[0] is ZeroDivisionError


def test_errors_in_a_row_keep_their_order(loop):
    seen = []
    loop.set_exception_handler(lambda loop, context: seen.append(str(context["exception"])))

    def fail(number):
        raise ValueError(number)

    for number in range(100):
        loop.call_soon(fail, number)
    run_turns(loop)
    assert seen == [str(number) for number in range(100)]


def test_no_exception_is_being_handled_in_a_callback(loop):
    """An error of one callback must not become the __context__ of the next one's."""
    seen = []
    loop.set_exception_handler(lambda loop, context: seen.append(context["exception"]))

    def second():
        assert sys.exc_info() == (None, None, None)
        raise LookupError

    loop.call_soon(boom)
    loop.call_soon(second)
    run_turns(loop)
    assert [type(exc) for exc in seen] == [ZeroDivisionError, LookupError]
    assert all(exc.__context__ is None for exc in seen)
