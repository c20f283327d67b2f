"""The demo takes a cell again that failed, says so, and gives up in the end."""

import importlib
import pathlib
import types

import pytest

HTTP = pathlib.Path(__file__).resolve().parents[2] / "bench" / "http"
SERVER = types.SimpleNamespace(arm=types.SimpleNamespace(name="uvloop"))


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(str(HTTP))
    return importlib.import_module("load")


def failing(load, monkeypatch, failures):
    """wrk() that fails so often; the times it is called with."""
    calls = []

    def wrk(server, case, duration_s, core):
        calls.append(duration_s)
        if len(calls) <= failures:
            raise load.LoadError(f"{server.arm.name}: {len(calls)} errors")
        return {"requests_per_s": 1.0}

    monkeypatch.setattr(load, "wrk", wrk)
    return calls


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_a_cell_is_taken_again(load, monkeypatch, failures):
    calls, told = failing(load, monkeypatch, failures), []
    cell = load.wrk_again(SERVER, load.CASES[0], 3, None, told)
    assert cell == {"requests_per_s": 1.0}
    assert calls == [3] * (failures + 1)
    assert told == [f"uvloop: {n + 1} errors" for n in range(failures)]


def test_what_fails_always_ends_the_run(load, monkeypatch):
    calls, told = failing(load, monkeypatch, 100), []
    with pytest.raises(load.LoadError, match="3 errors"):
        load.wrk_again(SERVER, load.CASES[0], 3, None, told)
    assert len(calls) == 3 and len(told) == 2
