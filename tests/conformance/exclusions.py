"""The tests of CPython that are not expected to pass with gyre.

exclusions/<reason>.txt holds one reason each.  Lines that begin with `#` say why; every other line
is

    suite.Class.test                  fails on every Python
    suite.Class.test  3.11 3.12       fails on these only
    !suite.Class.test                 is not even run (it would hang, or passes at times)
    !suite.Class.*                    none of the class is run
"""

import pathlib

FOLDER = pathlib.Path(__file__).resolve().parent / "exclusions"


def parse(text, version):
    """Yield (test name, run it?) for each line of a file that concerns this (major, minor)."""
    for line in text.splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, *versions = line.split()
        if versions and "{}.{}".format(*version) not in versions:
            continue
        yield name.lstrip("!"), not name.startswith("!")


def load(version):
    """Return ({test: file} that must fail, {test: file} that must not be run)."""
    failing, skipped = {}, {}
    for path in sorted(FOLDER.glob("*.txt")):
        text = path.read_text(encoding="utf-8")
        if not text.startswith("# "):
            raise SystemExit(f"{path.name}: begin with `# ` and the reason")
        for name, run in parse(text, version):
            if name in failing or name in skipped:
                raise SystemExit(f"{path.name}: {name} is excluded twice")
            (failing if run else skipped)[name] = path.name
    return failing, skipped


def is_skipped(name, skipped):
    """Is this test one of those that must not be run?"""
    return name in skipped or f"{name.rpartition('.')[0]}.*" in skipped
