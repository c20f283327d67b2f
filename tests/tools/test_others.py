"""./dev others: which Pythons are tested, and what those count that are not."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import dev_forky  # noqa: E402
import dev_others  # noqa: E402
import dev_python  # noqa: E402
import dev_tally  # noqa: E402
import dev_test  # noqa: E402
from dev_tally import Count  # noqa: E402
from dev_term import Stop  # noqa: E402


@pytest.fixture
def tested(monkeypatch, tmp_path):
    """The versions that were tested, on a machine with 3.11, 3.13 and 3.14 and a forky root."""
    versions = []

    def passes(version, *_):
        versions.append(version)
        return Count(passed=10)

    monkeypatch.setattr(dev_tally, "BUILD", tmp_path)
    monkeypatch.setattr(dev_python, "present", lambda: ["3.11", "3.13", "3.14"])
    monkeypatch.setattr(dev_python, "venv", lambda *_: None)
    monkeypatch.setattr(dev_forky, "set_up", lambda version: None)
    monkeypatch.setattr(dev_test, "conformance", passes)
    monkeypatch.setattr(dev_test, "forky", passes)
    return versions


def closing_line(tmp_path):
    return (tmp_path / "results" / "others.txt").read_text()


def test_each_but_the_default_one(tested, tmp_path):
    assert dev_others.main(None) == 0
    assert tested == ["3.13", "3.14", "3.15"]
    assert closing_line(tmp_path) == "30 passed, 0 failed, 0 skipped\n"


def test_what_cannot_be_set_up_is_skipped(tested, tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise Stop("no mirror")

    monkeypatch.setattr(dev_forky, "set_up", refuse)
    assert dev_others.main(None) == 0
    assert tested == ["3.13", "3.14"]
    assert closing_line(tmp_path) == "20 passed, 0 failed, 1 skipped\n"
    assert "no tests: no mirror" in capsys.readouterr().out
    monkeypatch.setattr(dev_python, "venv", refuse)
    assert dev_others.main(None) == 0
    assert closing_line(tmp_path) == "0 passed, 0 failed, 3 skipped\n"


def test_a_failure_fails(tested, tmp_path, monkeypatch):
    monkeypatch.setattr(dev_test, "forky", lambda *_: Count(passed=9, failed=1))
    assert dev_others.main(None) == 1
    assert closing_line(tmp_path) == "29 passed, 1 failed, 0 skipped\n"


def test_none_is_begun_after_the_limit(tested, tmp_path):
    assert dev_others.main(0) == 0
    assert tested == []
    assert closing_line(tmp_path) == "0 passed, 0 failed, 3 skipped\n"
