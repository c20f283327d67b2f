"""tidy_c: the rules about C: layers, sizes, who may call what.

Rules read the code with comments and strings blanked out, so that prose about close() is no call.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from tidy import Finding, Tree, rule

CORE_FILE_LINES_MAX = 600
BINDING_FILE_LINES_MAX = 900
FUNCTION_LINES_MAX = 70
PARAMETERS_MAX = 5
# Python's calling convention alone takes five: self, class, args, nargs, kwnames.
BINDING_PARAMETERS_MAX = 6

# From the ground up.  A file includes only from layers below its own, and from its own family: what
# is called stream_*.[ch] belongs to stream.  The loop stands in two places: loop.h, its fields, is
# what operations need to know of it; loop*.c and the switch over the kinds in op.c know them all.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("base",),
    ("list", "fault", "trace", "uring_compat"),
    ("prep", "work", "sys"),
    ("pool", "forkmark"),
    ("probe",),
    ("ring",),
    ("op",),
    ("bufgroup", "fixed", "timer", "wakeup", "sendq", "spin", "hold", "heap", "ballast"),
    ("host",),
    ("loop.h",),
    ("poll", "wakeup.c"),
    ("stream", "listener", "dgram", "sockop", "fileop"),
    ("loop", "op.c"),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

SYSTEM_CALLS = (
    "read write readv writev pread pwrite recv recvfrom recvmsg send sendto sendmsg sendfile splice"
    " socket socketpair bind listen accept accept4 connect close shutdown open openat"
    " getsockopt setsockopt getsockname getpeername"
    " epoll_create1 epoll_ctl epoll_wait epoll_pwait2 poll ppoll select eventfd"
).split()
BANNED = {
    "strcpy": "say how long: memcpy",
    "strcat": "say how long: memcpy",
    "sprintf": "snprintf knows where to stop",
    "vsprintf": "vsnprintf knows where to stop",
    "gets": "it cannot know where to stop",
    "alloca": "the stack has no error path",
    "printf": "a library does not print",
    "puts": "a library does not print",
    "assert": "GY_ASSERT, which the build options rule",
}

_TOKEN = re.compile(r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.DOTALL)


def code_of(text: str) -> str:
    """The text with comments, strings and characters blanked; lines and columns stay."""
    return _TOKEN.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)


def calls(code: str, names: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Line and name of each plain call; members (x.close, x->close) are not these functions."""
    pattern = re.compile(rf"(?<![\w.>])({'|'.join(names)})\s*\(")
    for number, line in enumerate(code.split("\n"), 1):
        for match in pattern.finditer(line):
            # A member declared as a function pointer reads (*close)(...), never close(...).
            yield number, match.group(1)


def own_includes(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.split("\n"), 1):
        if match := re.match(r'\s*#\s*include\s+"([^"]+)"', line):
            yield number, match.group(1)


@rule("layers")
def layers(tree: Tree) -> Iterator[Finding]:
    """The core's includes lead downwards; its place in the order is named for every file."""
    for path in tree.select("src/core", ".c", ".h"):
        own = layer_of(path)
        if own is None:
            yield Finding(path, 1, "has no layer: give it its place in tools/tidy_c.py")
            continue
        for number, name in own_includes(tree.text(path)):
            other = layer_of(name)
            if other is None:
                yield Finding(path, number, f"includes {name}, which has no layer")
            elif other != own and LEVEL[other] >= LEVEL[own]:
                way = "upwards" if LEVEL[other] > LEVEL[own] else "sideways"
                yield Finding(path, number, f"includes {name} {way}")


def layer_of(path: str) -> str | None:
    """The entry of LAYERS that a file belongs to: by its name, its stem or the head of its stem."""
    name, stem = Path(path).name, Path(path).stem
    for candidate in (name, stem, stem.split("_")[0]):
        if candidate in LEVEL:
            return candidate
    return None


@rule("core-knows-no-python")
def core_knows_no_python(tree: Tree) -> Iterator[Finding]:
    for path in tree.select("src/core", ".c", ".h"):
        for number, line in enumerate(code_of(tree.text(path)).split("\n"), 1):
            if re.search(r"<\s*Python\.h\s*>|\bPy(?:Object|_\w+|\w+_\w+)\b", line):
                yield Finding(path, number, "the core knows nothing of Python")


@rule("liburing-caller")
def liburing_caller(tree: Tree) -> Iterator[Finding]:
    """ring_uring*.c alone call liburing; others may know the kernel's structs."""
    for path in tree.select("src", ".c", ".h"):
        if re.match(r"src/core/ring_uring\w*\.c$", path):
            continue
        text = tree.text(path)
        for number, line in enumerate(text.split("\n"), 1):
            if re.match(r"\s*#\s*include\s*<liburing\.h>", line):
                yield Finding(path, number, "includes liburing.h; only ring_uring.c does")
        for number, line in enumerate(code_of(text).split("\n"), 1):
            if match := re.search(r"\b(io_uring_\w+)\s*\(", line):
                yield Finding(path, number, f"calls {match.group(1)}; only ring_uring.c does")


@rule("system-calls")
def system_calls(tree: Tree) -> Iterator[Finding]:
    """A simulated kernel has to see every call: they go through the ring's table or sys.h."""
    for path in tree.select("src/core", ".c", ".h"):
        # trace.c speaks when an invariant broke, through nothing that could be simulated.
        if re.match(r"(sys|sys_file|sys_pipe|trace|ring_\w+)\.[ch]$", Path(path).name):
            continue
        for number, name in calls(code_of(tree.text(path)), SYSTEM_CALLS):
            yield Finding(path, number, f"calls {name}(); that is for sys.c and ring_*.c")


@rule("banned-calls")
def banned_calls(tree: Tree) -> Iterator[Finding]:
    for path in tree.select("src", ".c", ".h"):
        for number, name in calls(code_of(tree.text(path)), list(BANNED)):
            yield Finding(path, number, f"calls {name}(): {BANNED[name]}")


@rule("c-size")
def c_size(tree: Tree) -> Iterator[Finding]:
    """Files, functions and parameter lists stay readable."""
    for path in tree.select("src", ".c", ".h"):
        text = tree.text(path)
        core = path.startswith("src/core/")
        limit = CORE_FILE_LINES_MAX if core else BINDING_FILE_LINES_MAX
        count = text.count("\n")
        if count > limit:
            yield Finding(path, 1, f"{count} lines, the limit is {limit}")
        for name, begin, end, parameters in functions(code_of(text)):
            length = end - begin + 1
            if length > FUNCTION_LINES_MAX:
                limit_text = f"the limit is {FUNCTION_LINES_MAX}"
                yield Finding(path, begin, f"{name}() has {length} lines, {limit_text}")
            most = PARAMETERS_MAX if core else BINDING_PARAMETERS_MAX
            if parameters > most:
                limit_text = f"the limit is {most}"
                yield Finding(path, begin, f"{name}() has {parameters} parameters, {limit_text}")


def functions(code: str) -> Iterator[tuple[str, int, int, int]]:
    """Name, first and last line and parameter count of each function defined in formatted code."""
    lines = code.split("\n")
    begin = 0
    for number, line in enumerate(lines, 1):
        if line == "{":
            begin = number
        elif line == "}" and begin:
            header: list[str] = []
            first = begin - 1
            while first >= 1 and lines[first - 1].strip() not in ("", "}", "};"):
                if lines[first - 1].startswith("#"):
                    break
                header.insert(0, lines[first - 1])
                first -= 1
            match = re.search(r"(\w+)\s*\((.*)\)\s*$", " ".join(header), re.DOTALL)
            if match:
                arguments = match.group(2).strip()
                count = 0 if arguments in ("", "void") else _top_level_commas(arguments) + 1
                yield match.group(1), first + 1, number, count
            begin = 0


def _top_level_commas(text: str) -> int:
    depth = count = 0
    for character in text:
        depth += (character in "([") - (character in ")]")
        count += character == "," and depth == 0
    return count


@rule("contract-comment")
def contract_comment(tree: Tree) -> Iterator[Finding]:
    """A C file opens with a comment that says what it is for, after its own name."""
    for path in tree.select("src", ".c", ".h"):
        name = Path(path).name
        if not re.match(rf"/\* {re.escape(name)}\b", tree.text(path)):
            yield Finding(path, 1, f"the first line is not '/* {name}: ...'")


@rule("python-versions")
def python_versions(tree: Tree) -> Iterator[Finding]:
    """What differs between Pythons is in as few places as can be."""
    allowed = {"pycompat.h", "task_registry.c", "task_registry.h", "module.c"}
    for path in tree.select("src/binding", ".c", ".h"):
        if Path(path).name in allowed:
            continue
        for number, line in enumerate(code_of(tree.text(path)).split("\n"), 1):
            if "PY_VERSION_HEX" in line:
                yield Finding(path, number, "version differences belong in pycompat.h")


# The two checks below need a compiler and a build; ./dev lint calls them with those at hand.


def headers_alone(root: Path, headers: Sequence[str], flags: Sequence[str]) -> list[Finding]:
    """Each header compiles as the only thing in a file."""
    found = []
    for header in headers:
        argv = ["gcc", "-fsyntax-only", "-std=gnu11", "-Wall", "-Wextra", "-Werror"]
        argv += ["-Wno-unused-parameter", *flags, "-x", "c", "-"]
        text = f'#include "{(root / header).absolute()}"\n'
        done = subprocess.run(argv, cwd=root, input=text, capture_output=True, text=True)
        if done.returncode != 0:
            lines = [line for line in done.stderr.splitlines() if "error" in line]
            found.append(Finding(header, 1, f"does not compile alone: {(lines or ['?'])[0]}"))
    return found


def exported(library: Path, allowed: Sequence[str]) -> list[Finding]:
    """The extension exports its init function and nothing else."""
    argv = ["nm", "--dynamic", "--defined-only", "--extern-only", str(library)]
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode != 0:
        return [Finding(library.name, 1, f"nm failed: {done.stderr.strip()}")]
    names = {line.split()[-1].split("@")[0] for line in done.stdout.splitlines() if line.strip()}
    wrong = [Finding(library.name, 1, f"exports {n}") for n in sorted(names - set(allowed))]
    return wrong + [Finding(library.name, 1, f"lacks {n}") for n in sorted(set(allowed) - names)]
