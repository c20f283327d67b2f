"""A lint rule that cannot fail is no rule: each one is shown a tree that breaks it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"
sys.path.insert(0, str(TOOLS))

import tidy  # noqa: E402
import tidy_c  # noqa: E402


def head(name: str, rest: str) -> str:
    return f"/* {name}: a sample. */\n{rest}"


# A tree in which every rule holds.
CLEAN = {
    "meson.build": "project('sample', 'c',\n  version: '7.8.9')\n",
    "dev": "import sys\n\nfrom dev_x import y\n",
    "tools/dev_x.py": "import os\n\ny = os\n",
    "README.md": "See [the page](docs/page.md) and [another](https://example.org/x.md).\n",
    "docs/page.md": "Back to [the first](../README.md#top).\n",
    "docs/changelog.md": "## 7.8.9\n",
    "src/core/base.h": "/* base.h: a sample. */\n",
    "src/core/ring_uring.c": (
        "/* ring_uring.c: a sample. */\n"
        '#include "base.h"\n'
        "#include <liburing.h>\n"
        "int\nleave(int fd)\n{\n    io_uring_enter(fd);\n    return close(fd);\n}\n"
    ),
    "src/core/op.c": (
        '/* op.c: close(fd) in a comment and "TODAY" in a string are neither. */\n'
        '#include "base.h"\n'
        "int\nleave(struct gy_x *x)\n{\n    x->close(x);\n"
        '    return gy_sys_close(x->fd, "close(3); assert(0)");\n}\n'
    ),
    "src/core/stream_recv.c": head(
        "stream_recv.c", '#include "stream_impl.h"\n#include "loop.h"\n#include "op.h"\n'
    ),
    "src/core/loop.c": head("loop.c", '#include "loop.h"\n#include "stream.h"\n'),
    "src/binding/pycompat.h": "/* pycompat.h: a sample. */\n#if PY_VERSION_HEX\n#endif\n",
}

LONG_C = "int\nlong_one(void)\n{\n" + "    x();\n" * 69 + "}\n"
LONG_PYTHON = "def long_one():\n" + "    x()\n" * 70
WIDE_C = "int\nwide_one(int a, int b, int (*c)(int, int), int d, int e, int f)\n{\n    x();\n}\n"


# rule -> files that break it, each written over the clean tree on its own, and the line it is at.
BROKEN: dict[str, list[tuple[str, str, int]]] = {
    "plain-text": [
        ("a.md", "one\n\x07\n", 2),
        ("a.md", "one \n", 1),
        ("a.md", "one", 0),
        ("a.md", "one\n\n", 2),
        ("a.py", "if x:\n\ty()\n", 2),
        ("a.md", "caf\udce9\n", 1),
    ],
    "unfinished": [
        ("a.py", "# TO" + "DO: more\n", 1),
        ("src/core/op.c", head("op.c", "#if 0\n#endif\n"), 2),
    ],
    "python-size": [
        ("a.py", "x = 1\n" * 901, 1),
        ("a.py", LONG_PYTHON, 1),
    ],
    "launcher-imports": [
        ("dev", "import pytest\n", 1),
        ("tools/dev_x.py", "from yaml.x import y\n", 1),
    ],
    "version-once": [
        ("a.py", "x = 1\nversion = '7.8.9'\n", 2),
        ("meson.build", "project('sample', 'c')\n", 1),
    ],
    "stands-alone": [
        ("docs/page.md", "see ../../elsewhere\n", 1),
        ("a.py", "path = '/ho" + "me/somebody/x'\n", 1),
    ],
    "links": [("README.md", "See [the page](docs/gone.md).\n", 1)],
    "layers": [
        ("src/core/sendq.c", head("sendq.c", '#include "loop.h"\n'), 2),
        ("src/core/loop.h", head("loop.h", '#include "stream.h"\n'), 2),
        ("src/core/op_more.c", head("op_more.c", '#include "stream.h"\n'), 2),
        ("src/core/stream.c", head("stream.c", '#include "listener.h"\n'), 2),
        ("src/core/timer.c", head("timer.c", '#include "wakeup.h"\n'), 2),
        ("src/core/novelty.c", head("novelty.c", ""), 1),
    ],
    "core-knows-no-python": [
        ("src/core/op.c", head("op.c", "#include <Python.h>\n"), 2),
        ("src/core/op.c", head("op.c", "PyObject *x;\n"), 2),
    ],
    "liburing-caller": [
        ("src/core/op.c", head("op.c", "#include <liburing.h>\n"), 2),
        ("src/binding/x.c", head("x.c", "int x = io_uring_submit(ring);\n"), 2),
    ],
    "system-calls": [("src/core/op.c", head("op.c", "int x = close(3);\n"), 2)],
    "banned-calls": [
        ("src/core/op.c", head("op.c", "int x = strcpy(a, b);\n"), 2),
        ("src/binding/x.c", head("x.c", "void y(void) { assert(1); }\n"), 2),
    ],
    "c-size": [
        ("src/core/op.c", head("op.c", "int x;\n" * 600), 1),
        ("src/binding/x.c", head("x.c", "int x;\n" * 900), 1),
        ("src/core/op.c", head("op.c", LONG_C), 2),
        ("src/core/op.c", head("op.c", WIDE_C), 2),
        ("src/binding/x.c", head("x.c", WIDE_C.replace("a,", "a, int a2,")), 2),
    ],
    "contract-comment": [("src/core/op.c", "int x;\n", 1)],
    "python-versions": [
        ("src/binding/x.c", head("x.c", "#if PY_VERSION_HEX > 1\n#endif\n"), 2),
    ],
}


def plant(folder: Path, files: dict[str, str]) -> tidy.Tree:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
    return tidy.Tree(folder)


def test_a_clean_tree_has_no_findings(tmp_path):
    assert tidy.check(plant(tmp_path, CLEAN)) == []


@pytest.mark.parametrize(
    ("rule", "path", "text", "line"),
    [(rule, *sample) for rule, samples in BROKEN.items() for sample in samples],
)
def test_a_rule_finds_what_breaks_it(tmp_path, rule, path, text, line):
    findings = tidy.check(plant(tmp_path, {**CLEAN, path: text}))
    assert [(r, f.path, f.line) for r, f in findings if r == rule] == [(rule, path, line)]


def test_every_rule_has_a_sample():
    assert set(BROKEN) == set(tidy.RULES)


def test_the_program_fails_on_findings(tmp_path):
    plant(tmp_path, {**CLEAN, "src/core/op.c": "int x;\n"})
    argv = [sys.executable, str(TOOLS / "tidy.py"), str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 1
    assert "src/core/op.c:1: contract-comment:" in done.stdout
    plant(tmp_path, CLEAN)
    assert subprocess.run(argv, capture_output=True).returncode == 0


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git to ask")
def test_files_git_ignores_are_not_looked_at(tmp_path):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    tree = plant(tmp_path, {**CLEAN, ".gitignore": "/build/\n", "build/x.md": "x \n"})
    assert "build/x.md" not in tree.paths
    assert "src/core/op.c" in tree.paths


def test_headers_alone(tmp_path):
    good, bad = "#include <stddef.h>\nsize_t x(void);\n", "size_t x(void);\n"
    plant(tmp_path, {"good.h": good, "bad.h": bad})
    found = tidy_c.headers_alone(tmp_path, ["good.h", "bad.h"], [])
    assert [f.path for f in found] == ["bad.h"]


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        ('__attribute__((visibility("hidden"))) int y;\nint PyInit_x(void) { return y; }\n', []),
        ("int y;\nint PyInit_x(void) { return y; }\n", ["exports y"]),
        ("static int y;\nint other(void) { return y; }\n", ["exports other", "lacks PyInit_x"]),
    ],
)
def test_exported(tmp_path, code, wrong):
    source, library = tmp_path / "x.c", tmp_path / "x.so"
    source.write_text(code)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    assert [f.text for f in tidy_c.exported(library, ["PyInit_x"])] == wrong


def test_exported_says_so_if_there_is_no_library(tmp_path):
    assert len(tidy_c.exported(tmp_path / "gone.so", ["PyInit_x"])) == 1
