"""docs/files.md: its examples run, and what it names exists."""

import contextlib
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
