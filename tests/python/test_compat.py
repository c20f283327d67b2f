"""docs/compat.md says what is true of the Python that runs."""

import asyncio
import inspect
import pathlib
import re

import gyre
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOC = ROOT / "docs" / "compat.md"
METHOD = re.compile(r"^\| `(\w+)` \| (C|gyre|inherited|borrowed) \|$", re.MULTILINE)


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


def test_every_method_of_the_loop_has_its_status(text):
    stated = dict(METHOD.findall(text))
    public = {name for name in dir(asyncio.SelectorEventLoop) if not name.startswith("_")}
    assert {name: stated.get(name) for name in public} == {name: status(name) for name in public}
    assert set(stated) <= public, "not a method of this Python's loop"


def test_no_method_is_stated_twice(text):
    names = [name for name, _ in METHOD.findall(text)]
    assert len(names) == len(set(names))


def test_every_named_test_exists(text):
    suites = (ROOT / "tests" / "conformance" / "run.py").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_[\w@]+(?:\.py)?)`", text))
    assert len(named) > 20
    for name in named:
        if name.endswith(".py"):
            assert (ROOT / "tests" / "python" / name).exists(), name
        else:
            assert f'"{name}":' in suites, name
