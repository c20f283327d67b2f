"""The package: names, stubs, policy, gyre.run, the environment, silence on import."""

import ast
import asyncio
import inspect
import os
import subprocess
import sys
import textwrap
import warnings
from importlib import metadata, resources

import pytest

gyre = pytest.importorskip("gyre")


def python(*args, **environment):
    return subprocess.run(
        [sys.executable, *args],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=50,
    )


class TestImport:
    def test_silent_with_warnings_as_errors(self):
        code = "import gyre; gyre.Loop; gyre.run; gyre.new_event_loop"
        done = python("-W", "error", "-X", "dev", "-c", code)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def test_silent_when_everything_public_is_touched(self):
        code = "import gyre; [getattr(gyre, name) for name in gyre.__all__]"
        done = python("-W", "error" if sys.version_info < (3, 14) else "default", "-c", code)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def test_opens_nothing(self):
        code = (
            "import os, asyncio, socket, ssl; before = sorted(os.listdir('/proc/self/fd'));"
            "import gyre; assert sorted(os.listdir('/proc/self/fd')) == before;"
            "import threading; assert threading.active_count() == 1"
        )
        done = python("-c", code)
        assert (done.returncode, done.stderr) == (0, "")

    def test_loaded_twice_and_freed(self):
        """Multi-phase init: a second import makes a second state; dropping it crashes nothing."""
        code = (
            "import gc, sys, gyre._gyre as first\n"
            "del sys.modules['gyre._gyre']\n"
            "import gyre._gyre as second\n"
            "assert first is not second and first.__version__ == second.__version__\n"
            "del first, second, sys.modules['gyre._gyre'], sys.modules['gyre']\n"
            "gc.collect()\n"
        )
        done = python("-c", code)
        assert (done.returncode, done.stderr) == (0, "")

    def test_star(self):
        names = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            exec("from gyre import *", names)
        assert {"Loop", "run", "new_event_loop", "Task", "Future"} <= set(names)

    def test_unknown_names(self):
        with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
            gyre.nonsense  # noqa: B018

    def test_dir(self):
        assert set(gyre.__all__) <= set(dir(gyre)) | {"EventLoopPolicy", "install"}

    def test_the_version_is_one(self):
        assert gyre.__version__ == metadata.version("gyre-loop")

    def test_only_the_init_symbol_is_exported(self):
        from gyre import _gyre

        nm = subprocess.run(
            ["nm", "-D", "--defined-only", _gyre.__file__], capture_output=True, text=True
        )
        symbols = [line.split()[-1] for line in nm.stdout.splitlines()]
        if nm.returncode == 0 and "asan" not in nm.stdout:
            assert symbols == ["PyInit__gyre"]


class TestTypes:
    def test_task_and_future(self):
        assert issubclass(gyre.Task, asyncio.Task)
        assert issubclass(gyre.Future, asyncio.Future)
        loop = gyre.new_event_loop()

        async def main():
            return asyncio.current_task(), asyncio.get_running_loop().create_future()

        try:
            task, future = loop.run_until_complete(main())
            assert type(task) is gyre.Task and type(future) is gyre.Future
            assert isinstance(task, asyncio.Task) and isinstance(future, asyncio.Future)
            assert asyncio.isfuture(future)
        finally:
            loop.close()

    def test_the_loop(self):
        loop = gyre.new_event_loop()
        try:
            assert type(loop) is gyre.Loop
            assert isinstance(loop, asyncio.AbstractEventLoop)
            assert loop.backend == os.environ.get("GYRE_BACKEND", "io_uring")
        finally:
            loop.close()

    def test_backend_error(self):
        assert issubclass(gyre.BackendError, RuntimeError)
        assert gyre.BackendError.__module__ == "gyre"

    @pytest.mark.parametrize("name", ["Task", "Future", "Loop"])
    def test_modules_and_docs(self, name):
        member = getattr(gyre, name)
        assert member.__name__ == name
        assert member.__module__.partition(".")[0] == "gyre"
        assert member.__doc__

    def test_signatures_are_those_of_asyncio(self):
        """Every public method of asyncio's loop takes the same parameters on gyre's."""
        different = {}
        for name, member in inspect.getmembers(asyncio.SelectorEventLoop, inspect.isfunction):
            if name.startswith("_"):
                continue
            ours = getattr(gyre.Loop, name)
            if not inspect.isfunction(ours):
                continue  # C: the other tests call it
            ours = inspect.signature(ours)
            theirs = inspect.signature(member)
            if list(ours.parameters) != list(theirs.parameters):
                different[name] = (str(ours), str(theirs))
        assert different == {}

    def test_nothing_of_asyncios_loop_is_left_unimplemented(self):
        for name in dir(asyncio.AbstractEventLoop):
            if name.startswith("_"):
                continue
            mine = getattr(gyre.Loop, name)
            assert mine is not getattr(asyncio.AbstractEventLoop, name), name

    def test_documented(self):
        missing = [
            name
            for name, member in vars(gyre.Loop).items()
            if not name.startswith("_")
            and getattr(member, "__module__", "").startswith("gyre")
            and not member.__doc__
        ]
        assert missing == []


class TestRun:
    def test_result(self):
        async def main():
            assert type(asyncio.get_running_loop()) is gyre.Loop
            await asyncio.sleep(0)
            return 42

        assert gyre.run(main()) == 42

    def test_exceptions(self):
        async def main():
            raise LookupError("why")

        with pytest.raises(LookupError, match="why"):
            gyre.run(main())

    @pytest.mark.parametrize("debug", [None, True, False])
    def test_debug(self, debug):
        async def main():
            return asyncio.get_running_loop().get_debug()

        assert gyre.run(main(), debug=debug) is bool(debug)

    def test_not_inside_a_running_loop(self):
        async def main():
            coro = asyncio.sleep(0)
            try:
                with pytest.raises(
                    RuntimeError, match="cannot be called from a running event loop"
                ):
                    gyre.run(coro)
            finally:
                coro.close()

        gyre.run(main())

    def test_not_a_coroutine(self):
        with pytest.raises((ValueError, TypeError), match="coroutine|awaitable"):
            gyre.run(42)

    def test_a_loop_factory(self):
        async def main():
            return type(asyncio.get_running_loop())

        assert gyre.run(main(), loop_factory=asyncio.SelectorEventLoop) is asyncio.SelectorEventLoop

    def test_loop_options(self):
        async def main():
            return asyncio.get_running_loop().backend

        assert gyre.run(main(), backend="io_uring") == "io_uring"
        coro = main()
        with pytest.raises(TypeError):
            gyre.run(coro, nonsense=1)
        coro.close()

    def test_options_and_a_factory(self):
        async def main():
            pass

        coro = main()
        with pytest.raises(TypeError, match="not both"):
            gyre.run(coro, loop_factory=asyncio.SelectorEventLoop, backend="io_uring")
        coro.close()

    def test_cleans_up(self):
        ended = []

        async def background():
            try:
                await asyncio.sleep(3600)
            finally:
                ended.append("task")

        async def agen():
            try:
                yield 1
            finally:
                ended.append("agen")

        async def main():
            main.task = asyncio.create_task(background())
            main.agen = agen()
            await main.agen.__anext__()
            await asyncio.to_thread(int)

        gyre.run(main())
        assert ended == ["task", "agen"]

    def test_in_rows(self):
        async def main(number):
            await asyncio.sleep(0)
            return number

        assert [gyre.run(main(n)) for n in range(10)] == list(range(10))

    def test_with_asyncio_run(self):
        async def main():
            return type(asyncio.get_running_loop())

        with asyncio.Runner(loop_factory=gyre.new_event_loop) as runner:
            assert runner.run(main()) is gyre.Loop
        if sys.version_info >= (3, 12):
            assert asyncio.run(main(), loop_factory=gyre.new_event_loop) is gyre.Loop


@pytest.mark.skipif(sys.version_info >= (3, 16), reason="asyncio has no policies any more")
class TestPolicy:
    @pytest.fixture(autouse=True)
    def restore(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            before = asyncio.get_event_loop_policy()
            yield
            asyncio.set_event_loop_policy(before)

    def test_install(self):
        def install():
            gyre.install()

        if sys.version_info >= (3, 14):
            with pytest.warns(DeprecationWarning):
                install()
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                install()

        async def main():
            return type(asyncio.get_running_loop())

        assert asyncio.run(main()) is gyre.Loop
        loop = asyncio.new_event_loop()
        assert type(loop) is gyre.Loop
        loop.close()

    def test_the_policy(self):
        policy = gyre.EventLoopPolicy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            assert isinstance(policy, asyncio.AbstractEventLoopPolicy)
            asyncio.set_event_loop_policy(policy)
        loop = policy.new_event_loop()
        assert type(loop) is gyre.Loop
        policy.set_event_loop(loop)
        assert policy.get_event_loop() is loop
        policy.set_event_loop(None)
        loop.close()

    def test_the_policys_own_loop(self):
        """As asyncio's: made by the main thread when asked before 3.14, refused elsewhere."""
        policy = gyre.EventLoopPolicy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            reference = type(asyncio.DefaultEventLoopPolicy)  # not instantiated: only looked at
            assert reference is type
            try:
                loop = policy.get_event_loop()
            except RuntimeError:
                assert sys.version_info >= (3, 14)
            else:
                assert type(loop) is gyre.Loop
                loop.close()

    def test_child_processes(self):
        """The policy brings what subprocesses need on the Pythons that had child watchers."""
        code = (
            "import asyncio, sys, warnings; warnings.simplefilter('ignore'); import gyre;"
            "gyre.install()\n"
            "async def main():\n"
            "    proc = await asyncio.create_subprocess_exec(sys.executable, '-c', 'exit(3)')\n"
            "    return await proc.wait()\n"
            "print(asyncio.run(main()))"
        )
        done = python("-c", code)
        assert (done.stdout, done.stderr) == ("3\n", "")


class TestEnvironment:
    def make(self, **environment):
        return python("-c", "import gyre; gyre.new_event_loop().close()", **environment)

    @pytest.mark.parametrize("value", ["io_uring", "auto", ""])
    def test_known_backends(self, value):
        done = self.make(GYRE_BACKEND=value)
        assert (done.returncode, done.stderr) == (0, "")

    @pytest.mark.parametrize("value", ["kqueue", "IO_URING", " auto", "uring", "0"])
    def test_unknown_backends(self, value):
        done = self.make(GYRE_BACKEND=value)
        last = done.stderr.splitlines()[-1]
        assert done.returncode == 1 and last.startswith("ValueError: ")
        assert value in last and "io_uring" in last and "GYRE_BACKEND" in last

    @pytest.mark.parametrize("value", ["-recv_multishot", "-recv_multishot,-buf_ring", ""])
    def test_known_features(self, value):
        done = self.make(GYRE_FEATURES=value)
        assert (done.returncode, done.stderr) == (0, "")

    @pytest.mark.parametrize("value", ["nonsense", "-nonsense", "+recv_multishot", "-", ",", "--x"])
    def test_unknown_features(self, value):
        done = self.make(GYRE_FEATURES=value)
        last = done.stderr.splitlines()[-1]
        assert done.returncode == 1 and last.startswith("ValueError: ")
        assert "GYRE_FEATURES" in last

    def test_the_argument_wins_over_the_environment(self, monkeypatch):
        monkeypatch.setenv("GYRE_BACKEND", "nonsense")
        gyre.new_event_loop(backend="io_uring").close()
        with pytest.raises(ValueError, match="nonsense"):
            gyre.new_event_loop()

    @pytest.mark.parametrize("bad", ["kqueue", "", "auto\0"])
    def test_bad_arguments(self, bad):
        with pytest.raises(ValueError):
            gyre.Loop(backend=bad)

    @pytest.mark.parametrize("bad", [42, b"auto", ["auto"]])
    def test_arguments_of_the_wrong_type(self, bad):
        with pytest.raises(TypeError, match="backend must be a str or None"):
            gyre.Loop(backend=bad)

    def test_unknown_arguments(self):
        with pytest.raises(TypeError):
            gyre.Loop(nonsense=1)
        with pytest.raises(TypeError):
            gyre.Loop("io_uring")

    def test_a_failed_loop_is_no_loop(self):
        """Nothing is left of it: no descriptor, no warning when it is collected."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for _ in range(20):
                with pytest.raises(ValueError):
                    gyre.Loop(backend="nonsense")

    def test_initialized_twice(self):
        loop = gyre.Loop()
        try:
            with pytest.raises(RuntimeError):
                loop.__init__()
            loop.call_soon(loop.stop)
            loop.run_forever()
        finally:
            loop.close()

    def test_not_initialized(self):
        """A subclass that forgets super().__init__() gets an exception from whatever it calls."""

        class Forgetful(gyre.Loop):
            def __init__(self):
                pass

        loop = Forgetful()
        for call in (
            lambda: loop.call_soon(print),
            lambda: loop.call_later(1, print),
            lambda: loop.call_soon_threadsafe(print),
            lambda: loop.run_forever(),
            lambda: loop._run_once(),
            lambda: loop.add_reader(0, print),
            lambda: loop.remove_reader(0),
            lambda: loop.stats(),
        ):
            try:
                call()
            except Exception:
                pass
        loop.get_debug(), loop.is_closed(), loop.is_running()


class TestStubs:
    def test_py_typed(self):
        assert resources.files("gyre").joinpath("py.typed").is_file()
        assert resources.files("gyre").joinpath("_gyre.pyi").is_file()

    @pytest.fixture
    def stub(self):
        text = resources.files("gyre").joinpath("_gyre.pyi").read_text()
        return ast.parse(text)

    @staticmethod
    def names_in(body):
        names = {}
        for node in body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                names[node.name] = node
            elif isinstance(node, ast.AnnAssign):
                names[node.target.id] = node
            elif isinstance(node, ast.Assign):
                for target in node.targets:
                    names[target.id] = node
            elif isinstance(node, ast.If):
                test = compile(ast.Expression(node.test), "stub", "eval")
                branch = node.body if eval(test, {"sys": sys}) else node.orelse
                names |= TestStubs.names_in(branch)
        return names

    @staticmethod
    def public(names):
        return {name for name in names if not name.startswith("_")}

    def test_the_modules_names(self, stub):
        from gyre import _gyre

        assert self.public(self.names_in(stub.body)) == self.public(vars(_gyre))

    def test_the_members_of_each_class(self, stub):
        from gyre import _gyre

        different = {}
        for name, node in self.names_in(stub.body).items():
            if not isinstance(node, ast.ClassDef) or name.startswith("_"):
                continue
            runtime = self.public(vars(getattr(_gyre, name)))
            stubbed = self.public(self.names_in(node.body))
            bases = getattr(_gyre, name).__mro__[1:]
            inherited = {n for n in runtime if any(n in vars(base) for base in bases)}
            if stubbed - runtime or runtime - stubbed - inherited:
                different[name] = (stubbed - runtime, runtime - stubbed - inherited)
        assert different == {}

    def test_parameters_of_the_methods(self, stub):
        """Where the runtime knows its signature, the stub's parameters have the same names."""
        from gyre import _gyre

        for name, node in self.names_in(stub.body).items():
            if not isinstance(node, ast.ClassDef):
                continue
            for method, definition in self.names_in(node.body).items():
                if not isinstance(definition, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    continue
                if method == "create_task":
                    continue  # differs by version: test_signatures.py compares it with asyncio's
                runtime = inspect.getattr_static(getattr(_gyre, name), method)
                if not getattr(runtime, "__text_signature__", None):
                    continue
                try:
                    signature = inspect.signature(runtime)
                except (TypeError, ValueError):
                    continue
                args = definition.args
                stubbed = [a.arg for a in args.posonlyargs + args.args + args.kwonlyargs]
                kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
                real = [p.name for p in signature.parameters.values() if p.kind not in kinds]
                made_up = {"object", "type"} & set(real)  # inspect's guesses
                if runtime.__class__.__name__ != "wrapper_descriptor" and not made_up:
                    assert stubbed == real, (name, method)

    def test_private_members_in_the_stub_exist(self, stub):
        from gyre import _gyre

        for name, node in self.names_in(stub.body).items():
            if isinstance(node, ast.ClassDef) and not name.startswith("_"):
                for member in self.names_in(node.body):
                    assert hasattr(getattr(_gyre, name), member), (name, member)


def test_imported_before_asyncio():
    """_asyncio must not be the first that anybody imports of asyncio."""
    code = """
        import gyre, asyncio
        async def main():
            assert asyncio.current_task() in asyncio.all_tasks()
            print("fine")
        gyre.run(main())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")


class TestCommandLine:
    def test_stats(self):
        loop = gyre.new_event_loop()
        try:
            stats = loop.stats()
            assert all(isinstance(k, str) and isinstance(v, int) for k, v in stats.items())
            loop.call_soon(loop.stop)
            loop.run_forever()
            after = loop.stats()
            assert set(after) == set(stats)
            assert after["turns"] > stats["turns"]
            assert after["ops_in_flight"] == 0
        finally:
            loop.close()


def test_no_gil_no_gyre():
    """What a free-threaded Python says under PYTHON_GIL=0; else it switches the GIL on for gyre."""
    code = "import sys; sys._is_gil_enabled = lambda: False; import gyre"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("ImportError: gyre needs the GIL")
