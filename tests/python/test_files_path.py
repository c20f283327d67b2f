"""gyre.Path against pathlib.Path: the same answers, errors and effects."""

import inspect
import os
import pathlib
import pickle
import socket
import stat
import sys
import warnings

import gyre
import gyre.files
import pytest

pytestmark = pytest.mark.only("gyre")


@pytest.fixture
def run(loop):
    """Runs a coroutine function on gyre's loop."""
    return lambda function, *args: loop.run_until_complete(function(*args))


def fill(root):
    """A tree with one of each kind."""
    (root / "dir" / "sub").mkdir(parents=True)
    (root / "dir" / "file.txt").write_bytes("line\r\nzwei ä\n".encode())
    (root / "dir" / "sub" / "deep.txt").write_text("deep")
    (root / "dir" / ".hidden").touch()
    (root / "empty").mkdir()
    (root / "link").symlink_to("dir/file.txt")
    (root / "dirlink").symlink_to("dir")
    (root / "broken").symlink_to("nowhere")
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(root / "socket"))
    return root


@pytest.fixture
def roots(tmp_path, monkeypatch):
    """Two equal trees, for pathlib and for gyre."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        fill(tmp_path / name)
    return tmp_path / "a", tmp_path / "b"


def plain(value, root):
    """What an answer says, without saying in which tree, or when."""
    if isinstance(value, pathlib.PurePath):
        return "path", plain(str(value), root)
    if isinstance(value, str):
        return value.replace(str(root), "ROOT")
    if isinstance(value, os.stat_result):
        return value.st_mode, value.st_size if stat.S_ISREG(value.st_mode) else 0, value.st_nlink
    if isinstance(value, (list, tuple)):
        return [plain(item, root) for item in value]
    return value


def failed(exc, root):
    if isinstance(exc, OSError):
        names = plain(exc.filename, root), plain(exc.filename2, root)
        return type(exc), exc.errno, exc.strerror, names
    return (type(exc),)


async def both(roots, name, method, *args, **kwargs):
    """The answers of pathlib and of gyre."""
    theirs, ours = roots
    warnings.simplefilter("ignore", DeprecationWarning)

    def fit(value, root, kind):
        return kind(root / value.name) if isinstance(value, Here) else value

    try:
        arguments = [fit(arg, theirs, pathlib.Path) for arg in args]
        expected = plain(getattr(theirs / name, method)(*arguments, **kwargs), theirs)
    except Exception as exc:
        expected = failed(exc, theirs)
    try:
        arguments = [fit(arg, ours, gyre.Path) for arg in args]
        answer = getattr(gyre.Path(ours) / name, method)(*arguments, **kwargs)
        got = plain(await answer, ours)
    except Exception as exc:
        got = failed(exc, ours)
    return got, expected


class Here:
    """A path in the tree at hand, as an argument."""

    def __init__(self, name):
        self.name = name

    def __repr__(self):
        return f"Here({self.name!r})"


NAMES = [
    "dir", "dir/file.txt", "link", "dirlink", "broken", "loop", "fifo", "socket", "missing",
    "missing/below", "dir/file.txt/below", "empty", "nu\0ll", "x" * 300, "",
]  # fmt: skip
QUESTIONS = [
    "exists", "is_dir", "is_file", "is_symlink", "is_block_device", "is_char_device", "is_fifo",
    "is_socket", "is_mount", "stat", "lstat", "owner", "group", "readlink", "resolve", "absolute",
    "expanduser", "is_junction",
]  # fmt: skip


@pytest.mark.parametrize("method", [m for m in QUESTIONS if hasattr(pathlib.Path, m)])
def test_questions(run, roots, method):
    async def main():
        for name in NAMES:
            got, expected = await both(roots, name, method)
            assert got == expected, name

    run(main)


OPTIONS = [
    ("stat", {"follow_symlinks": False}, ()),
    ("exists", {"follow_symlinks": False}, (3, 12)),
    ("is_dir", {"follow_symlinks": False}, (3, 13)),
    ("is_file", {"follow_symlinks": False}, (3, 13)),
    ("owner", {"follow_symlinks": False}, (3, 13)),
    ("resolve", {"strict": True}, ()),
]


@pytest.mark.parametrize("method, options, since", OPTIONS)
def test_options(run, roots, method, options, since):
    if sys.version_info < since:
        pytest.skip(f"new in Python {since[0]}.{since[1]}")

    async def main():
        for name in NAMES:
            got, expected = await both(roots, name, method, **options)
            assert got == expected, name

    run(main)


CHANGES = [
    ("new", "mkdir", (), {}),
    ("new", "mkdir", (0o700,), {}),
    ("new/a/b", "mkdir", (), {}),
    ("new/a/b", "mkdir", (), {"parents": True}),
    ("dir", "mkdir", (), {}),
    ("dir", "mkdir", (), {"exist_ok": True}),
    ("dir/file.txt", "mkdir", (), {"exist_ok": True}),
    ("dir/file.txt/x", "mkdir", (), {"parents": True}),
    ("empty", "rmdir", (), {}),
    ("dir", "rmdir", (), {}),
    ("missing", "rmdir", (), {}),
    ("link", "unlink", (), {}),
    ("dir", "unlink", (), {}),
    ("missing", "unlink", (), {}),
    ("missing", "unlink", (), {"missing_ok": True}),
    ("link", "rename", (Here("moved"),), {}),
    ("missing", "rename", (Here("moved"),), {}),
    ("dir/file.txt", "replace", (Here("link"),), {}),
    ("dir", "replace", (Here("link"),), {}),
    ("new", "symlink_to", ("dir",), {}),
    ("link", "symlink_to", ("dir",), {}),
    ("new", "hardlink_to", (Here("dir/file.txt"),), {}),
    ("new", "hardlink_to", (Here("missing"),), {}),
    ("link", "hardlink_to", (Here("dir/file.txt"),), {}),
    ("dir/file.txt", "chmod", (0o600,), {}),
    ("missing", "chmod", (0o600,), {}),
    ("link", "lchmod", (0o600,), {}),
    ("new", "touch", (), {}),
    ("new", "touch", (0o600,), {}),
    ("dir/file.txt", "touch", (), {"exist_ok": False}),
    ("dir/file.txt", "touch", (), {}),
    ("missing/x", "touch", (), {}),
    ("dir/file.txt", "samefile", (Here("link"),), {}),
    ("dir/file.txt", "samefile", (Here("dir"),), {}),
    ("dir/file.txt", "samefile", (Here("missing"),), {}),
    ("dir/file.txt", "read_bytes", (), {}),
    ("dir", "read_bytes", (), {}),
    ("missing", "read_bytes", (), {}),
    ("dir/file.txt", "read_text", ("utf-8",), {}),
    ("dir/file.txt", "read_text", ("ascii",), {}),
    ("dir/file.txt", "read_text", ("ascii", "replace"), {}),
    ("dir/file.txt", "read_text", ("nonsense",), {}),
    ("new", "write_bytes", (b"data",), {}),
    ("dir/file.txt", "write_bytes", (bytearray(b"data"),), {}),
    ("dir", "write_bytes", (b"data",), {}),
    ("new", "write_bytes", ("text",), {}),
    ("new", "write_text", ("tä\nxt", "utf-8"), {}),
    ("new", "write_text", ("tä\nxt", "utf-16", "strict", "\r\n"), {}),
    ("new", "write_text", (b"bytes",), {}),
    ("missing/x", "write_text", ("text",), {}),
]


def tree(root):
    found = []
    for path in sorted(root.rglob("*")):
        info = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(info.st_mode) else b""
        found.append((str(path.relative_to(root)), info.st_mode, content))
    return found


@pytest.mark.parametrize("name, method, args, options", CHANGES)
def test_changes(run, roots, name, method, args, options):
    async def main():
        got, expected = await both(roots, name, method, *args, **options)
        assert got == expected

    run(main)
    assert tree(roots[1]) == tree(roots[0])


@pytest.mark.skipif(sys.version_info < (3, 13), reason="new in Python 3.13")
@pytest.mark.parametrize("newline", [None, "", "\n", "\r\n", "x"])
def test_newlines(run, roots, newline):
    async def main():
        got, expected = await both(roots, "dir/file.txt", "read_text", "utf-8", None, newline)
        assert got == expected

    run(main)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="new in Python 3.14")
@pytest.mark.parametrize("method", ["copy", "move", "copy_into", "move_into"])
def test_copies(run, roots, method):
    async def main():
        for name in ("dir/file.txt", "dir", "missing"):
            target = Here("empty" if "into" in method else "target")
            got, expected = await both(roots, name, method, target)
            assert got == expected

    run(main)
    assert tree(roots[1]) == tree(roots[0])


async def collect(found):
    return [item async for item in found]


class TestDirectories:
    @pytest.mark.parametrize("name", ["", "dir", "missing", "link", "dirlink"])
    def test_iterdir(self, run, roots, name):
        async def main():
            try:
                expected = sorted(plain(list((roots[0] / name).iterdir()), roots[0]))
            except OSError as exc:
                expected = failed(exc, roots[0])
            try:
                found = await collect((gyre.Path(roots[1]) / name).iterdir())
                assert all(type(path) is gyre.Path for path in found)
                got = sorted(plain(found, roots[1]))
            except OSError as exc:
                got = failed(exc, roots[1])
            assert got == expected

        run(main)

    @pytest.mark.parametrize("pattern", ["*", "**/*.txt", "*/*", "dir", "none*", "", "../*", "/x"])
    @pytest.mark.parametrize("method", ["glob", "rglob"])
    def test_glob(self, run, roots, pattern, method):
        async def main():
            try:
                expected = sorted(plain(list(getattr(roots[0], method)(pattern)), roots[0]))
            except Exception as exc:
                expected = failed(exc, roots[0])
            try:
                found = await collect(getattr(gyre.Path(roots[1]), method)(pattern))
                got = sorted(plain(found, roots[1]))
            except Exception as exc:
                got = failed(exc, roots[1])
            assert got == expected

        run(main)

    def walked(self, root, top_down, follow):
        if sys.version_info >= (3, 12):
            return list(pathlib.Path(root).walk(top_down, follow_symlinks=follow))
        found = []
        for here, folders, files in os.walk(root, top_down, followlinks=follow):
            links = [n for n in folders if os.path.islink(os.path.join(here, n)) and not follow]
            folders = [name for name in folders if name not in links]
            found.append((pathlib.Path(here), folders, files + links))
        return found

    @pytest.mark.parametrize("top_down", [True, False])
    @pytest.mark.parametrize("follow", [True, False])
    def test_walk(self, run, roots, top_down, follow):
        def seen(found):
            return [(str(path), sorted(dirs), sorted(files)) for path, dirs, files in found]

        async def main():
            walk = gyre.Path(roots[1]).walk(top_down, follow_symlinks=follow)
            got = seen(await collect(walk))
            expected = seen(self.walked(roots[1], top_down, follow))
            assert sorted(got) == sorted(expected)
            order = [path for path, _, _ in got]
            for number, path in enumerate(order):
                parents = [o for o in order[:number] if path.startswith(o + "/")]
                if top_down:
                    assert number == 0 or parents
                else:
                    assert not parents

        run(main)

    def test_walk_where_the_caller_says(self, run, roots):
        async def main():
            seen = []
            async for path, folders, _ in gyre.Path(roots[1]).walk():
                seen.append(path.name)
                folders[:] = [name for name in folders if name == "dir"]
            assert seen == ["b", "dir"]

        run(main)

    def test_walk_and_errors(self, run, roots):
        async def main():
            errors = []
            assert await collect(gyre.Path(roots[1] / "missing").walk(on_error=errors.append)) == []
            assert errors[0].errno == 2
            assert await collect(gyre.Path(roots[1] / "missing").walk()) == []

        run(main)

    def test_many_entries(self, run, tmp_path):
        for number in range(1000):
            (tmp_path / f"{number}").touch()

        async def main():
            found = await collect(gyre.Path(tmp_path).iterdir())
            assert sorted(int(path.name) for path in found) == list(range(1000))
            async for path in gyre.Path(tmp_path).iterdir():
                assert path.parent == gyre.Path(tmp_path)
                break
            entries = gyre.Path(tmp_path).iterdir()
            await anext(entries)
            await entries.aclose()
            assert await collect(entries) == []

        run(main)


class TestOpen:
    def test_open(self, run, tmp_path):
        async def main():
            path = gyre.Path(tmp_path) / "file"
            async with path.open("w", encoding="utf-8") as file:
                assert type(file) is gyre.files.TextFile
                await file.write("text\n")
            file = await path.open("rb")
            assert await file.read() == b"text\n"
            await file.close()
            async with path.open("rb", 0) as raw:
                assert type(raw) is gyre.files.RawFile
            with pytest.raises(FileNotFoundError) as missing:
                await (path.parent / "missing").open()
            assert missing.value.filename == str(path.parent / "missing")

        run(main)


class TestPure:
    def test_kinds(self):
        path = gyre.Path("/a/b.txt")
        for made in (
            path / "c", "/x" / path, path.parent, path.with_name("n"), path.with_suffix(".py"),
            path.joinpath("x"), path.relative_to("/a"), path.parents[0], gyre.Path("/", path),
        ):  # fmt: skip
            assert type(made) is gyre.Path
        assert os.fspath(path) == str(path) == "/a/b.txt"
        assert bytes(path) == b"/a/b.txt"
        assert (path.name, path.stem, path.suffix, path.parts) == (
            "b.txt", "b", ".txt", ("/", "a", "b.txt"),
        )  # fmt: skip
        assert repr(path) == "Path('/a/b.txt')"
        assert isinstance(path, os.PathLike) and isinstance(path, pathlib.PurePath)
        assert path.match("*.txt") and path.is_absolute() and path.as_uri() == "file:///a/b.txt"

    def test_comparing(self):
        assert gyre.Path("a") == gyre.Path("a") != gyre.Path("b")
        assert hash(gyre.Path("a/b")) == hash(gyre.Path("a") / "b")
        assert sorted([gyre.Path("b"), gyre.Path("a")]) == [gyre.Path("a"), gyre.Path("b")]
        assert gyre.Path("a") == pathlib.PurePosixPath("a")
        assert gyre.Path("a") != "a"
        assert len({gyre.Path("a"), gyre.Path("a"), gyre.Path("b")}) == 2

    def test_subclass(self, run, tmp_path):
        class Mine(gyre.Path):
            __slots__ = ()

            def shout(self):
                return self.name.upper()

        async def main():
            root = Mine(tmp_path)
            path = root / "file"
            assert type(path) is Mine and path.shout() == "FILE"
            await path.write_text("x")
            assert [type(p) async for p in root.iterdir()] == [Mine]
            assert [type(p) async for p in root.glob("*")] == [Mine]
            assert [type(p) async for p, _, _ in root.walk()] == [Mine]
            assert type(await path.resolve()) is Mine
            assert type(await path.absolute()) is Mine
            assert type(await path.rename(tmp_path / "other")) is Mine
            assert type(await Mine.cwd()) is Mine and type(await Mine.home()) is Mine

        run(main)

    def test_pickle(self):
        path = gyre.Path("/a/b")
        again = pickle.loads(pickle.dumps(path))
        assert again == path and type(again) is gyre.Path

    def test_places(self, run):
        async def main():
            assert await gyre.Path.cwd() == gyre.Path(os.getcwd())
            assert await gyre.Path.home() == gyre.Path(pathlib.Path.home())
            assert await gyre.Path("~").expanduser() == gyre.Path(pathlib.Path.home())
            assert await gyre.Path("x").absolute() == gyre.Path(os.getcwd(), "x")

        run(main)

    @pytest.mark.skipif(sys.version_info < (3, 13), reason="new in Python 3.13")
    def test_from_uri(self):
        path = gyre.Path.from_uri("file:///a/b")
        assert path == gyre.Path("/a/b") and type(path) is gyre.Path

    @pytest.mark.skipif(sys.version_info < (3, 14), reason="new in Python 3.14")
    def test_info(self, run, roots):
        async def main():
            for name in NAMES[:-3]:
                ours, theirs = (gyre.Path(roots[1]) / name).info, (roots[1] / name).info
                assert await ours.exists() == theirs.exists()
                assert await ours.is_dir(follow_symlinks=False) == theirs.is_dir(
                    follow_symlinks=False
                )
                assert await ours.is_file() == theirs.is_file()
                assert await ours.is_symlink() == theirs.is_symlink()

        run(main)

    def test_every_name_of_pathlib(self):
        """Each public member of this Python's pathlib.Path is here; what asks the disk is ours."""
        theirs = {name for name in dir(pathlib.Path) if not name.startswith("_")}
        assert theirs - set(dir(gyre.Path)) == set()
        pure = {name for name in dir(pathlib.PurePath) if not name.startswith("_")}
        for name in theirs - pure:
            assert name in vars(gyre.Path), name

    def test_awaitable(self, run, tmp_path):
        """What asks the disk returns something to be awaited or iterated over."""
        sync = {"from_uri", "info"}
        pure = set(dir(pathlib.PurePath))

        async def main():
            for name in dir(pathlib.Path):
                if name.startswith("_") or name in pure or name in sync:
                    continue
                member = getattr(gyre.Path, name)
                ours = inspect.iscoroutinefunction(member)
                assert ours or name in {"open", "iterdir", "glob", "rglob", "walk"}, name

        run(main)

    def test_encoding_warning(self):
        code = (
            "import gyre\n"
            "async def main():\n"
            "    await gyre.Path('/dev/null').read_text()\n"
            "    async with gyre.open('/dev/null') as f: pass\n"
            "gyre.run(main())"
        )
        import subprocess

        done = subprocess.run(
            [sys.executable, "-X", "warn_default_encoding", "-c", code],
            capture_output=True, text=True,
        )  # fmt: skip
        lines = [line for line in done.stderr.splitlines() if "EncodingWarning" in line]
        assert done.returncode == 0, done.stderr
        assert [line.split(":")[0:2] for line in lines] == [["<string>", "3"], ["<string>", "4"]]
