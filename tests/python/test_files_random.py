"""gyre.open() against io.open(): the same generated calls give the same answers and the same file.

io is the oracle.  Not compared: what is chance there too (how far is read ahead, what tell() of a
text file looks like; that seek() leads back is compared).
"""

import errno
import io
import os

import gyre
import pytest
from gyre import _file_text
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

EXAMPLES = settings(
    max_examples=int(os.environ.get("GYRE_EXAMPLES", "120")),
    deadline=None,
    database=None,
    derandomize="GYRE_EXAMPLES" not in os.environ,  # new ones only for who looks for them
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)

# ---- binary ----

content = st.binary(max_size=60) | st.lists(
    st.sampled_from([b"\n", b"a", b"\r\n", b"some words", b"\0"]), max_size=30
).map(b"".join)
small = st.integers(0, 25)
offsets = st.integers(-30, 70)

binary_calls = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.sampled_from([-1, 0, 1, 2, 3, 7, 20, 100])),
        st.tuples(st.just("read")),
        st.tuples(st.just("readline"), st.sampled_from([-1, 1, 5, 100])),
        st.tuples(st.just("readlines"), st.sampled_from([-1, 0, 1, 10, 100])),
        st.tuples(st.just("readinto"), small),
        st.tuples(st.just("next")),
        st.tuples(st.just("write"), content),
        st.tuples(st.just("writelines"), st.lists(content, max_size=3)),
        st.tuples(st.just("seek"), offsets, st.sampled_from([0, 0, 0, 1, 2, 3, 4, 5])),
        st.tuples(st.just("seek"), offsets),
        st.tuples(st.just("pread"), small, offsets),
        st.tuples(st.just("pread_into"), small, offsets),
        st.tuples(st.just("preadv"), st.lists(small, max_size=3), offsets),
        st.tuples(st.just("pwrite"), content, offsets),
        st.tuples(st.just("pwritev"), st.lists(content, max_size=3), offsets),
        st.tuples(st.just("tell")),
        st.tuples(st.just("truncate")),
        st.tuples(st.just("truncate"), st.integers(-2, 70)),
        st.tuples(st.just("flush")),
        st.tuples(st.just("close")),
        st.tuples(st.sampled_from(["readable", "writable", "isatty"])),
    ),
    max_size=14,
)
PLAIN = {"readable", "writable", "seekable", "isatty", "fileno"}
AT_OFFSETS = {"pread", "pread_into", "preadv", "pwrite", "pwritev"}


def outcome_of(exc, file):
    kind = type(exc)
    if file.closed and issubclass(kind, ValueError):
        return ValueError, None  # or UnsupportedOperation, by what io happens to look at first
    return kind, getattr(exc, "errno", None)


def at_offset_io(file, name, value, offset):
    """What io's objects have not, by os's functions and without what the object has buffered."""
    writes = name.startswith("pwrite")
    if not (file.writable() if writes else file.readable()):
        raise io.UnsupportedOperation
    if offset < 0:  # os.preadv() takes -1 for the position
        raise OSError(errno.EINVAL, "")
    file.flush()
    fd = file.fileno()
    if not writes:
        if name == "pread":
            return os.pread(fd, value, offset)
        buffers = [bytearray(size) for size in ([value] if name == "pread_into" else value)]
        return os.preadv(fd, buffers, offset), buffers
    where = file.tell()
    count = (os.pwrite if name == "pwrite" else os.pwritev)(fd, value, offset)
    file.seek(0, os.SEEK_END)  # which drops what it has read ahead
    file.seek(where)
    return count


async def at_offset_gyre(file, name, value, offset):
    if name in ("preadv", "pread_into"):
        buffers = [bytearray(size) for size in (value if name == "preadv" else [value])]
        given = buffers if name == "preadv" else buffers[0]
        return await getattr(file, name)(given, offset), buffers
    return await getattr(file, name)(value, offset)


def ask_io(file, name, *args):
    try:
        if name in AT_OFFSETS:
            return at_offset_io(file, name, *args)
        if name == "readinto":
            buffer = bytearray(args[0])
            return file.readinto(buffer), bytes(buffer)
        if name == "next":
            return next(file, "end")
        return getattr(file, name)(*args)
    except Exception as exc:
        return outcome_of(exc, file)


async def ask_gyre(file, name, *args):
    try:
        if name in AT_OFFSETS:
            return await at_offset_gyre(file, name, *args)
        if name == "readinto":
            buffer = bytearray(args[0])
            return await file.readinto(buffer), bytes(buffer)
        if name == "next":
            return await anext(aiter(file), "end")
        answer = getattr(file, name)(*args)
        return answer if name in PLAIN else await answer
    except Exception as exc:
        return outcome_of(exc, file)


@pytest.fixture
def run(tmp_path):
    loop = gyre.Loop()
    yield loop.run_until_complete
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


@pytest.fixture
def paths(tmp_path):
    return tmp_path / "theirs", tmp_path / "ours"


MODES = ["rb", "wb", "ab", "r+b", "w+b", "a+b"]


@EXAMPLES
@given(
    before=content,
    mode=st.sampled_from(MODES),
    buffering=st.sampled_from([-1, 0, 2, 7, 16]),
    calls=binary_calls,
)
@example(b"", "ab", 0, [("seek", 1, 0), ("write", b""), ("tell",)])
def test_binary(run, paths, before, mode, buffering, calls):
    for path in paths:
        path.write_bytes(before)

    async def compare():
        with open(paths[0], mode, buffering) as theirs:
            async with gyre.open(paths[1], mode, buffering) as ours:
                assert ours.mode == theirs.mode
                for call in calls:
                    if theirs.closed and call[0] in PLAIN:
                        continue  # some of theirs raise, some do not
                    if mode == "a+b" and "write" in call[0] and not theirs.closed:
                        # Theirs reads on where it would have written, had it not appended.
                        assert await ours.seek(0, 2) == theirs.seek(0, 2)
                    expected = ask_io(theirs, *call)
                    got = await ask_gyre(ours, *call)
                    assert got == expected, call
                    assert ours.closed == theirs.closed
        assert paths[1].read_bytes() == paths[0].read_bytes()

    run(compare())


# ---- text ----

ENCODINGS = [
    "utf-8",
    "utf-8-sig",
    "utf-16",
    "utf-16-be",
    "utf-32",
    "latin-1",
    "ascii",
    "shift_jis",
    "gb18030",
    "iso-2022-jp",
]
pieces = st.sampled_from(
    ["\n", "\r", "\r\n", "a", "words", "ä", "日本", "\U0001f600", " ", "\n\n", "é\r", "x" * 9]
)
text = st.lists(pieces, max_size=25).map("".join)

text_calls = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.sampled_from([-1, 0, 1, 2, 3, 7, 20, 100])),
        st.tuples(st.just("readline"), st.sampled_from([-1, -1, 1, 5, 100])),
        st.tuples(st.just("readlines"), st.sampled_from([-1, 0, 1, 10])),
        st.tuples(st.just("next")),
        st.tuples(st.just("write"), text),
        st.tuples(st.just("writelines"), st.lists(text, max_size=3)),
        st.tuples(st.just("back"), st.integers(0, 5)),
        st.tuples(st.just("mark")),
        st.tuples(st.just("seek"), st.just(0), st.sampled_from([0, 1, 2])),
        st.tuples(st.just("truncate")),
        st.tuples(st.just("flush")),
        st.tuples(st.just("close")),
        st.tuples(st.sampled_from(["readable", "writable", "isatty"])),
    ),
    max_size=16,
)


async def compare_text(theirs, ours, calls):
    marks, reading, written, fresh = [], False, False, True
    for call in calls:
        name = call[0]
        if name.startswith("write") and reading:
            # How far they read ahead decides where this would go.
            marks.append((ask_io(theirs, "tell"), await ask_gyre(ours, "tell")))
            if any(isinstance(cookie, tuple) for cookie in marks[-1]):
                return  # closed, or theirs was read by lines that it had not
            theirs.seek(marks[-1][0])
            await ours.seek(marks[-1][1])
        if (name == "truncate" and reading) or (name in PLAIN and theirs.closed):
            continue
        if name in ("mark", "back"):
            if name == "mark":
                marks.append((ask_io(theirs, "tell"), await ask_gyre(ours, "tell")))
                fresh = True
            if not marks or any(isinstance(cookie, tuple) for cookie in marks[-1]):
                continue
            cookies = marks[call[1] % len(marks)] if name == "back" else None
            if cookies is None or not fresh:
                continue
            expected = ask_io(theirs, "seek", cookies[0])
            got = await ask_gyre(ours, "seek", cookies[1])
            assert isinstance(got, tuple) == isinstance(expected, tuple), call
            reading = True
            continue
        if name.startswith(("read", "next")) and written:
            ask_io(theirs, "flush")  # or theirs reads what it is about to overwrite
        written = name.startswith("write")
        expected = ask_io(theirs, *call)
        got = await ask_gyre(ours, *call)
        if expected == (OSError, None):
            return  # "telling position disabled by next() call", which ours never is
        if name == "seek" and isinstance(got, int) and isinstance(expected, int):
            continue
        assert got == expected, call
        if isinstance(got, tuple) and issubclass(got[0], UnicodeError):
            return  # what is left of a piece that does not decode is chance
        reading = reading or name.startswith(("read", "next"))
        if name.startswith("write"):
            reading = False
            marks.clear()  # may now lead into the middle of a character
        if name == "seek":
            reading = False


@EXAMPLES
@given(
    before=text,
    encoding=st.sampled_from(ENCODINGS),
    newline=st.sampled_from([None, "", "\n", "\r", "\r\n"]),
    mode=st.sampled_from(["r", "w", "a", "r+", "w+", "a+"]),
    chunk=st.sampled_from([1, 2, 3, 5, 8, 64, 8192]),
    buffering=st.sampled_from([-1, 1, 3, 16]),
    calls=text_calls,
)
def test_text(run, paths, before, encoding, newline, mode, chunk, buffering, calls):
    if encoding == "iso-2022-jp":
        mode = mode.rstrip("+")  # theirs writes needless escapes after going back
    for path in paths:
        path.write_bytes(before.encode(encoding, "ignore"))

    async def compare():
        with open(paths[0], mode, buffering, encoding, newline=newline) as theirs:
            theirs._CHUNK_SIZE = chunk
            async with gyre.open(paths[1], mode, buffering, encoding, newline=newline) as ours:
                ours._chunk = chunk
                assert (ours.mode, ours.encoding, ours.errors) == (
                    theirs.mode,
                    theirs.encoding,
                    theirs.errors,
                )
                await compare_text(theirs, ours, calls)
        assert paths[1].read_bytes() == paths[0].read_bytes()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_file_text, "CHUNK_BYTES", chunk)
        patch.setattr(_file_text, "CHUNK_BYTES_MOST", chunk)
        run(compare())


@EXAMPLES
@given(
    data=st.binary(max_size=80),
    encoding=st.sampled_from(["utf-8", "utf-16", "shift_jis", "utf-8-sig", "utf-7"]),
    errors=st.sampled_from(["replace", "ignore", "surrogateescape", "backslashreplace"]),
    newline=st.sampled_from([None, "", "\r"]),
    chunk=st.sampled_from([1, 2, 3, 7, 8192]),
    sizes=st.lists(st.sampled_from([1, 2, 5, 30]), max_size=12),
)
def test_bytes_that_are_no_text(run, paths, data, encoding, errors, newline, chunk, sizes):
    """Malformed input at the borders of pieces, and every position can be come back to."""
    paths[0].write_bytes(data)

    async def compare():
        with open(paths[0], encoding=encoding, errors=errors, newline=newline) as theirs:
            theirs._CHUNK_SIZE = chunk
            async with gyre.open(paths[0], "r", -1, encoding, errors, newline) as ours:
                ours._chunk = chunk
                where = []
                for size in sizes:
                    where.append(await ours.tell())
                    expected = ask_io(theirs, "read", size)
                    assert await ask_gyre(ours, "read", size) == expected
                    if isinstance(expected, tuple):
                        return
                rest = await ask_gyre(ours, "read")
                assert rest == ask_io(theirs, "read")
                if isinstance(rest, tuple):
                    return
                await ours.seek(0)
                whole = await ours.read()
                behind = 0
                for cookie, size in zip(where, sizes):
                    assert await ours.seek(cookie) == cookie
                    assert await ours.read(size) == whole[behind : behind + size]
                    behind += size

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_file_text, "CHUNK_BYTES", chunk)
        patch.setattr(_file_text, "CHUNK_BYTES_MOST", chunk)
        run(compare())


@EXAMPLES
@given(
    data=text,
    encoding=st.sampled_from(ENCODINGS[:6] + ["gb18030", "shift_jis"]),
    newline=st.sampled_from([None, "", "\n", "\r\n"]),
    chunk=st.sampled_from([1, 2, 3, 5, 17, 8192]),
)
def test_tell_of_every_line(run, paths, data, encoding, newline, chunk):
    """A cookie leads another file object to the same place."""
    paths[0].write_bytes(data.encode(encoding, "ignore"))

    async def main():
        lines, cookies = [], []
        async with gyre.open(paths[0], encoding=encoding, newline=newline) as file:
            file._chunk = chunk
            cookies.append(await file.tell())
            async for line in file:
                lines.append(line)
                cookies.append(await file.tell())
        with open(paths[0], encoding=encoding, newline=newline) as file:
            assert lines == list(file)
        for number, cookie in enumerate(cookies):
            async with gyre.open(paths[0], encoding=encoding, newline=newline) as other:
                await other.seek(cookie)
                assert await other.read() == "".join(lines[number:])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_file_text, "CHUNK_BYTES", chunk)
        patch.setattr(_file_text, "CHUNK_BYTES_MOST", chunk)
        run(main())
