"""The fixtures' own promises: a leak or a swallowed error must be seen."""

import logging
import os
import sys
import threading

from conftest import AsyncioLog, Taken, complaints_of, descriptors


def complaints(log=None, unraisable=None, threads=None, fds=None):
    return complaints_of(
        log or AsyncioLog(),
        Taken(unraisable or ()),
        threads or threading.enumerate(),
        fds or descriptors(),
    )


def test_nothing_to_complain_about():
    assert complaints() == []


def test_a_leaked_descriptor_is_seen(monkeypatch):
    monkeypatch.setattr("conftest.eventually", lambda condition, timeout=0: condition())
    before = descriptors()
    fd = os.open("/dev/null", os.O_RDONLY)
    try:
        (text,) = complaints(fds=before)
    finally:
        os.close(fd)
    assert "left open" in text and "/dev/null" in text


def test_a_descriptor_closed_under_others_is_seen(monkeypatch):
    monkeypatch.setattr("conftest.eventually", lambda condition, timeout=0: condition())
    fd = os.open("/dev/null", os.O_RDONLY)
    before = descriptors()
    os.close(fd)
    (text,) = complaints(fds=before)
    assert "closed" in text and "/dev/null" in text


def test_a_thread_left_behind_is_seen(monkeypatch):
    monkeypatch.setattr("conftest.eventually", lambda condition, timeout=0: condition())
    before = threading.enumerate()
    go = threading.Event()
    thread = threading.Thread(target=go.wait, name="straggler")
    thread.start()
    try:
        (text,) = complaints(threads=before)
    finally:
        go.set()
        thread.join()
    assert "straggler" in text


def test_logged_errors_are_seen(asyncio_log):
    logging.getLogger("asyncio").error("something %s", "broke")
    logging.getLogger("asyncio").warning("only slow")
    (text,) = complaints(log=asyncio_log)
    assert "something broke" in text
    assert asyncio_log.messages() == ["only slow"]


def test_unraisable_exceptions_are_seen(unraisable):
    class Broken:
        def __del__(self):
            raise ValueError("in __del__")

    Broken()
    (text,) = complaints(unraisable=unraisable.take())
    assert "ValueError: in __del__" in text


def test_exceptions_of_threads_are_seen(unraisable):
    thread = threading.Thread(target=lambda: 1 / 0, name="divider")
    thread.start()
    thread.join()
    (text,) = complaints(unraisable=unraisable.take())
    assert "ZeroDivisionError" in text and "divider" in text


def test_the_hooks_are_ours_during_a_test(unraisable):
    assert sys.unraisablehook.__module__ == "conftest"
    assert threading.excepthook.__module__ == "conftest"
