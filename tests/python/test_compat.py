"""docs/compat.md says what is true of the Python that runs."""

import asyncio
import inspect
import pathlib
import re

import gyre
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOC = ROOT / "docs" / "compat.md"
METHOD = re.compile(r"^\| `(\w+)` \| (C|gyre|inherited|borrowed) \| `([\w.]+)` \|$", re.MULTILINE)
MEMBER = re.compile(r"^\| (\w+) \| `(\w+)` \| `([\w.]+)` \|$", re.MULTILINE)
TYPES = {
    "Server": [asyncio.Server],
    "transport": [
        asyncio.ReadTransport,
        asyncio.WriteTransport,
        asyncio.DatagramTransport,
        asyncio.SubprocessTransport,
    ],
    "Future": [asyncio.Future],
    "Task": [asyncio.Task],
    "Handle": [asyncio.Handle],
    "TimerHandle": [asyncio.TimerHandle],
}


@pytest.fixture(scope="module")
def text():
    if not DOC.exists():
        pytest.skip("the documentation is not beside the tests")
    return DOC.read_text(encoding="utf-8")


def status(name):
    member = inspect.getattr_static(gyre.Loop, name)
    if not inspect.isfunction(member):
        return "C"
    if member.__module__.startswith("gyre"):
        return "gyre"
    return "inherited" if member.__module__ == "asyncio.base_events" else "borrowed"


def public(*classes):
    return {name for cls in classes for name in dir(cls) if not name.startswith("_")}


def test_every_method_of_the_loop_has_its_status(text):
    stated = {name: how for name, how, _ in METHOD.findall(text)}
    methods = public(asyncio.AbstractEventLoop, asyncio.SelectorEventLoop)
    assert {name: stated.get(name) for name in methods} == {name: status(name) for name in methods}
    assert set(stated) <= methods, "not a method of this Python's loop"


def test_no_method_is_stated_twice(text):
    names = [name for name, _, _ in METHOD.findall(text)]
    assert len(names) == len(set(names))
    members = [(kind, name) for kind, name, _ in MEMBER.findall(text)]
    assert len(members) == len(set(members))


@pytest.mark.parametrize("which", TYPES)
def test_every_method_of_a_type_is_stated(text, which):
    stated = {name for where, name, _ in MEMBER.findall(text) if where == which}
    assert public(*TYPES[which]) - stated == set()


def test_the_named_file_calls_the_method(text):
    rows = [(name, file) for name, _, file in METHOD.findall(text)]
    rows += [(name, file) for _, name, file in MEMBER.findall(text)]
    assert len(rows) > 100
    for name, file in rows:
        code = (ROOT / "tests" / "python" / file).read_text(encoding="utf-8")
        assert re.search(rf"[.\"']{name}\b", code), f"{file} does not call {name}"


def test_every_named_test_exists(text):
    suites = (ROOT / "tests" / "conformance" / "run.py").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_[\w@]+(?:\.py)?)`", text))
    assert len(named) > 20
    for name in named:
        if name.endswith(".py"):
            assert (ROOT / "tests" / "python" / name).exists(), name
        else:
            assert f'"{name}":' in suites, name


def test_every_difference_has_a_reason_and_a_test(text):
    table = text.partition("## Differences that are meant")[2]
    rows = [re.split(r" \|(?= )", line) for line in table.splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 30
    for row in rows:
        assert len(row) == 4, row
        assert row[2].strip("| ") and "test_" in row[3], row
