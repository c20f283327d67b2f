"""tidy: the rules of this tree that no other tool knows, as a lint.

    python tools/tidy.py [folder]     prints file:line: rule: what is wrong, and fails if any is

A rule is a generator over a Tree, registered under its name; tests/tools/test_tidy.py holds for
each one a sample that breaks it.  The rules about C are in tidy_c.py.
"""

from __future__ import annotations

import ast
import functools
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

PYTHON_FILE_LINES_MAX = 900
PYTHON_FUNCTION_LINES_MAX = 70
IGNORED_FOLDERS = {".git", ".venv", "build", "__pycache__", "results"}
BINARY = {".png", ".pem", ".gz", ".bin", ".ico"}


@dataclass(frozen=True)
class Finding:
    path: str
    line: int
    text: str


class Tree:
    """The files of a checkout: those git knows or would add, or all of a folder without git."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.paths = sorted(p for p in self._list() if (root / p).is_file())

    def _list(self) -> list[str]:
        if (self.root / ".git").exists():
            argv = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
            done = subprocess.run(argv, cwd=self.root, capture_output=True, text=True, check=True)
            return done.stdout.splitlines()
        found = []
        for folder, names, files in os.walk(self.root):
            names[:] = [n for n in names if n not in IGNORED_FOLDERS]
            found += [os.path.relpath(os.path.join(folder, f), self.root) for f in files]
        return found

    def select(self, folder: str, *suffixes: str) -> list[str]:
        prefix = f"{folder}/" if folder else ""
        return [p for p in self.paths if p.startswith(prefix) and p.endswith(suffixes)]

    @functools.cache  # noqa: B019  (a tree lives as long as the run)
    def text(self, path: str) -> str:
        return (self.root / path).read_text(encoding="utf-8", errors="surrogateescape")

    def lines(self, path: str) -> list[str]:
        return self.text(path).splitlines()

    def texts(self) -> list[str]:
        return [p for p in self.paths if Path(p).suffix not in BINARY]


Rule = Callable[[Tree], Iterator[Finding]]
RULES: dict[str, Rule] = {}


def rule(name: str) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        RULES[name] = function
        return function

    return register


@rule("plain-text")
def plain_text(tree: Tree) -> Iterator[Finding]:
    """UTF-8, no control characters, no trailing blanks, one newline at the end, no tabs in code."""
    for path in tree.texts():
        text = tree.text(path)
        if text and (not text.endswith("\n") or text.endswith("\n\n")):
            yield Finding(path, text.count("\n"), "the file does not end in exactly one newline")
        for number, line in enumerate(text.split("\n"), 1):
            if re.search(r"[\x00-\x08\x0b-\x1f\x7f\udc80-\udcff]", line):
                yield Finding(path, number, "control character, or not UTF-8")
            if line != line.rstrip():
                yield Finding(path, number, "blanks at the end of the line")
            if "\t" in line and path.endswith((".c", ".h", ".py", ".pyi", "meson.build")):
                yield Finding(path, number, "tab")


@rule("unfinished")
def unfinished(tree: Tree) -> Iterator[Finding]:
    """Nothing lands that says of itself that it is not done."""
    words = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b|^\s*#\s*if 0\b")
    for path in tree.texts():
        if not path.endswith((".c", ".h", ".py", ".pyi", ".build", ".md", "dev", "run")):
            continue
        for number, line in enumerate(tree.lines(path), 1):
            if match := words.search(line):
                yield Finding(path, number, f"'{match.group().strip()}' is not finished")


@rule("python-size")
def python_size(tree: Tree) -> Iterator[Finding]:
    """A file is one concept, a function fits a screen."""
    for path in [*tree.select("", ".py"), *(["dev"] if "dev" in tree.paths else [])]:
        count = len(tree.lines(path))
        if count > PYTHON_FILE_LINES_MAX:
            yield Finding(path, 1, f"{count} lines, the limit is {PYTHON_FILE_LINES_MAX}")
        if path.startswith("tests/"):
            continue
        for node in ast.walk(ast.parse(tree.text(path))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > PYTHON_FUNCTION_LINES_MAX:
                    limit = PYTHON_FUNCTION_LINES_MAX
                    text = f"{node.name}() has {length} lines, the limit is {limit}"
                    yield Finding(path, node.lineno, text)


@rule("launcher-imports")
def launcher_imports(tree: Tree) -> Iterator[Finding]:
    """./dev runs before anything is installed: the standard library and tools/ only."""
    own = {Path(p).stem for p in tree.select("tools", ".py")}
    for path in tree.paths:
        if not re.fullmatch(r"dev|tools/(dev_\w+|tidy\w*)\.py", path):
            continue
        for node in ast.walk(ast.parse(tree.text(path))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            else:
                continue
            for name in names:
                top = name.split(".")[0]
                if top not in sys.stdlib_module_names and top not in own:
                    yield Finding(path, node.lineno, f"imports {name}")


@rule("version-once")
def version_once(tree: Tree) -> Iterator[Finding]:
    """The version stands in meson.build; changelog and measurements may name it as history."""
    if "meson.build" not in tree.paths:
        return
    match = re.search(r"^\s*version:\s*'([^']+)'", tree.text("meson.build"), re.MULTILINE)
    if match is None:
        yield Finding("meson.build", 1, "no version")
        return
    pattern = re.compile(rf"(?<![\w.]){re.escape(match.group(1))}(?![\w.]*\d)")
    for path in tree.texts():
        if path in ("meson.build", "docs/changelog.md", "docs/benchmarks.md"):
            continue
        for number, line in enumerate(tree.lines(path), 1):
            if pattern.search(line):
                yield Finding(path, number, f"repeats the version {match.group(1)}")


@rule("stands-alone")
def stands_alone(tree: Tree) -> Iterator[Finding]:
    """No file refers to one machine's folders or climbs out of the checkout."""
    home = re.compile(r"(?<![\w.}])/(?:root|home|work|mnt|Users)/\w")
    climb = re.compile(r"(?<![\w/.])(?:\.\./)+[\w.-]*")
    for path in tree.texts():
        depth = path.count("/")
        for number, line in enumerate(tree.lines(path), 1):
            if match := home.search(line):
                yield Finding(path, number, f"a folder of one machine: {match.group()}...")
            for match in climb.finditer(line):
                if match.group().count("../") > depth:
                    yield Finding(path, number, f"{match.group()} is outside the project")


@rule("links")
def links(tree: Tree) -> Iterator[Finding]:
    """What a document links to inside the project is there."""
    for path in tree.select("", ".md"):
        for number, line in enumerate(tree.lines(path), 1):
            for target in re.findall(r"\]\(([^)\s]+)\)", line):
                plain = target.split("#")[0]
                if not plain or re.match(r"[a-z]+:", plain):
                    continue
                there = (tree.root / path).parent / plain
                if not there.exists():
                    yield Finding(path, number, f"the link to {target} leads nowhere")


def check(tree: Tree) -> list[tuple[str, Finding]]:
    import tidy_c  # noqa: F401  (registers its rules)

    return [(name, finding) for name, run in RULES.items() for finding in run(tree)]


def main(argv: list[str]) -> int:
    tree = Tree(Path(argv[0]) if argv else Path(__file__).resolve().parent.parent)
    findings = check(tree)
    for name, finding in findings:
        print(f"{finding.path}:{finding.line}: {name}: {finding.text}")
    print(f"tidy: {len(RULES)} rules, {len(tree.paths)} files, {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    # Under its module name, so that tidy_c registers in the same RULES.
    import tidy

    sys.exit(tidy.main(sys.argv[1:]))
