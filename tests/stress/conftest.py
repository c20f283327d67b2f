"""The stress tests: minutes, not seconds; `./dev test --all` runs them.

They have the fixtures of tests/python, counters that must balance included.  GYRE_SEED=n repeats a
run; GYRE_STRESS=n multiplies how much is done.
"""

import importlib.util
import os
import pathlib
import random
import sys

import pytest

PYTHON_TESTS = pathlib.Path(__file__).resolve().parent.parent / "python"
sys.path.insert(0, str(PYTHON_TESTS))


def _shared():
    spec = importlib.util.spec_from_file_location("python_conftest", PYTHON_TESTS / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


_module = _shared()
globals().update({name: value for name, value in vars(_module).items() if name[0] != "_"})


@pytest.fixture
def rng(record_property):
    seed = int(os.environ.get("GYRE_SEED", "0")) or random.randrange(1 << 32)
    record_property("seed", seed)
    print(f"GYRE_SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def amount():
    """How often to do something: amount(100) unless GYRE_STRESS says more or less."""
    factor = float(os.environ.get("GYRE_STRESS", "1"))
    return lambda count: max(1, round(count * factor))
