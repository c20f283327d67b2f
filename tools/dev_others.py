"""dev_others: ./dev others, CPython's asyncio tests on the Pythons that ./dev test leaves out.

The versions this machine has come first, then those of Debian forky.  A version that cannot be set
up here, or for which no time is left, counts as skipped and says why.
"""

from __future__ import annotations

import time

import dev_forky
import dev_python
import dev_test
from dev_tally import Count, Tally
from dev_term import Stop

BACKEND = dev_test.BACKENDS[0]


def main(limit_s: float | None) -> int:
    """With a limit no version is begun once so many seconds have passed."""
    begin = time.monotonic()
    tally = Tally("others", may_be_empty=True)
    here = dev_python.present()
    for version in [*here, *(v for v in dev_forky.VERSIONS if v not in here)]:
        if version == dev_python.DEFAULT:
            continue
        title = dev_test.conformance_title(BACKEND, version)
        if limit_s is not None and time.monotonic() - begin >= limit_s:
            tally.phase(title, Count.missing, f"{limit_s:.0f} s have passed")
        elif version in here:
            tally.phase(title, _here, version)
        else:
            tally.phase(title, _forky, version)
    return tally.close()


def _here(version: str) -> Count:
    try:
        dev_python.venv(version, ("build", "test"))
    except Stop as exc:
        return Count.missing(str(exc))
    return dev_test.conformance(version, BACKEND)


def _forky(version: str) -> Count:
    try:
        dev_forky.set_up(version)
    except Stop as exc:
        return Count.missing(str(exc))
    return dev_test.forky(version, [dev_test.conformance_title(BACKEND, version)])
