"""docs/files.md: its examples run, and what it names exists."""

import contextlib
import importlib
import io
import os
import pathlib
import re

import gyre
import gyre.files
import pytest

DOC = pathlib.Path(__file__).resolve().parents[2] / "docs" / "files.md"
pytestmark = pytest.mark.skipif(
    not DOC.exists(), reason="the documentation is not beside the tests"
)

# The heading above an example, and what it prints.
EXPECTED = {
    "Opening": "b'one'\n",
    "Past the page cache": None,
    "Registered buffers": "524288\n",
    "Paths": "tree/sub/a.txt 5\ntree ['sub'] []\ntree/sub [] ['a.txt']\n",
    "Following a log": "first\n\nsecond\n\n",
    "A static file server": (
        "HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n<h1>hello</h1>\n"
        "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n\n"
    ),
    "A checksum of a large file, in parallel": "6\n",
    "A configuration that is never half written": "{'debug': True}\n",
}


def examples():
    """{heading: code} of every Python block."""
    if not DOC.exists():
        return {}
    found, heading = {}, None
    pattern = r"^(#+ [^\n]*|```python\n.*?^```)$"
    for part in re.split(pattern, DOC.read_text("utf-8"), flags=re.M | re.S):
        if part.startswith("#"):
            heading = part.lstrip("# ")
        elif part.startswith("```python"):
            assert heading not in found, "one example for each heading"
            found[heading] = part[len("```python") : -3]
    return found


def test_every_example_is_known():
    assert set(examples()) == set(EXPECTED)


@pytest.mark.parametrize("heading", examples())
def test_example(heading, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "big").write_bytes(os.urandom(1 << 20))
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output):
            exec(compile(examples()[heading], f"docs/files.md: {heading}", "exec"), {})
    except OSError as exc:
        if heading in ("Past the page cache", "Registered buffers") and exc.errno == 22:
            pytest.skip("the file system has no O_DIRECT")
        raise
    expected = EXPECTED[heading]
    if expected is None:
        assert int(output.getvalue()) > 0
    else:
        assert output.getvalue() == expected


def test_what_is_named_exists():
    text = DOC.read_text("utf-8")
    for name in set(re.findall(r"`gyre\.([A-Za-z_.]+)", text)):
        value = gyre
        for part in name.rstrip(".").split("."):
            value = getattr(value, part)


# aiofiles 25.1.0; where it is installed here, the lists are compared with it.
AIOFILES = {
    "aiofiles": "open tempfile stdin stdout stderr stdin_bytes stdout_bytes stderr_bytes",
    "aiofiles.os": (
        "path stat rename renames replace remove unlink mkdir makedirs rmdir removedirs symlink "
        "readlink listdir scandir access wrap getcwd link sendfile statvfs"
    ),
    "aiofiles.ospath": (
        "abspath getatime getctime getmtime getsize exists isdir isfile islink ismount samefile "
        "sameopenfile"
    ),
    "aiofiles.tempfile": (
        "NamedTemporaryFile TemporaryFile SpooledTemporaryFile TemporaryDirectory"
    ),
}
# The attributes of its files are io's, and these of AnyIO 4.16.0.
ANYIO = {
    "anyio": (
        "AsyncFile NamedTemporaryFile Path SpooledTemporaryFile TemporaryDirectory TemporaryFile "
        "gettempdir gettempdirb mkdtemp mkstemp open_file wrap_file"
    ),
    "anyio.AsyncFile": (
        "aclose flush limiter read read1 readinto readinto1 readline readlines seek tell truncate "
        "wrapped write writelines"
    ),
    "anyio.streams.file": "FileReadStream FileStreamAttribute FileWriteStream",
}
OF_FILES = (
    "buffer close closed detach encoding errors fileno flush isatty line_buffering mode name "
    "newlines peek raw read read1 readable readall readinto readline readlines seek seekable tell "
    "truncate writable write writelines"
)


def columns():
    """The words of each column of the table."""
    table = DOC.read_text("utf-8").partition("| aiofiles | AnyIO | gyre |")[2]
    rows = [line.split("|")[1:4] for line in table.splitlines() if line.startswith("| ")]
    return [set(re.findall(r"\w+", " ".join(column))) for column in zip(*rows)]


def test_every_name_is_mapped():
    theirs, anyios, _ = columns()
    both = theirs | anyios
    for names in (*AIOFILES.values(), OF_FILES):
        assert set(names.split()) - theirs == set()
    for names in ANYIO.values():
        assert set(names.split()) - both == set()


def test_the_names_are_aiofiles_own():
    pytest.importorskip("aiofiles")
    for module, names in AIOFILES.items():
        assert set(names.split()) >= set(importlib.import_module(module).__all__), module
    from aiofiles.threadpool import binary, text

    kinds = [binary.AsyncFileIO, binary.AsyncBufferedReader, text.AsyncTextIOWrapper]
    found = {name for kind in kinds for name in dir(kind) if not name.startswith("_")}
    assert found - set(OF_FILES.split()) == set()


def test_the_names_are_anyios_own():
    anyio = pytest.importorskip("anyio")
    found = {name for name in dir(anyio.AsyncFile) if not name.startswith("_")}
    assert found - set(ANYIO["anyio.AsyncFile"].split()) == set()
    # gyre.Path has what pathlib's has; AnyIO's has that and a limiter.
    found = {name for name in dir(anyio.Path) if not name.startswith("_")}
    assert found - set(dir(gyre.Path)) - {"limiter", "with_segments"} == set()
