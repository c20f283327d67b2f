"""python -m gyre: the doctor, and programs that run on gyre without a change."""

import json
import os
import subprocess
import sys
import textwrap

import gyre
import pytest
from gyre import _gyre, _seccomp


def python_m_gyre(*arguments, cwd=None, flags=(), **environment):
    return subprocess.run(
        [sys.executable, *flags, "-m", "gyre", *arguments],
        cwd=cwd,
        env=os.environ | {"GYRE_BACKEND": "", "GYRE_FEATURES": ""} | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def doctor(**environment):
    done = python_m_gyre("doctor", "--json", **environment)
    assert done.stderr == ""
    return json.loads(done.stdout), done.returncode


class TestUsage:
    @pytest.mark.parametrize("option", ["-h", "--help"])
    def test_help(self, option):
        done = python_m_gyre(option)
        assert (done.returncode, done.stderr) == (0, "")
        assert "doctor" in done.stdout and "-m MODULE" in done.stdout

    @pytest.mark.parametrize("arguments", [(), ("-m",), ("--nonsense",), ("no_such_file.py",)])
    def test_mistakes(self, arguments):
        done = python_m_gyre(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr


class TestDoctor:
    def test_says_what_a_loop_gets(self):
        report, status = doctor()
        loop = gyre.Loop(backend="auto")
        assert report["backend"] == loop.backend
        loop.close()
        assert status == 0
        assert report["asked"] == "auto"
        assert report["gyre"] == gyre.__version__
        assert report["python"]["executable"] == sys.executable
        assert report["kernel"]["release"] == os.uname().release
        assert report["liburing"] == _gyre.LIBURING_VERSION
        for backend in ("io_uring", "epoll"):
            features = report[backend]["features"]
            assert features.items() <= _gyre.probe(backend)["features"].items()
            assert {"poll_multishot", "buf_ring", "accept"} <= set(features)
        assert set(report["limits"]) == {"memlock", "nofile", "nproc"}
        assert all(0 < n <= 64 for n in report["workers"].values())

    def test_epoll_is_asked_for(self):
        report, status = doctor(GYRE_BACKEND="epoll")
        assert (status, report["backend"], report["io_uring"]) == (0, "epoll", None)
        assert "GYRE_BACKEND" in report["why"]
        assert report["problems"] == []

    def test_an_unknown_backend_is_asked_for(self):
        report, status = doctor(GYRE_BACKEND="kqueue")
        assert (status, report["backend"]) == (1, None)
        assert "kqueue" in report["why"] and "epoll" in report["why"]
        [problem] = report["problems"]
        assert "GYRE_BACKEND" in problem["problem"] and "io_uring" in problem["remedy"]

    def test_features_that_are_switched_off(self):
        report, _ = doctor(GYRE_FEATURES="-poll_multishot,-epoll_pwait2")
        for backend in ("io_uring", "epoll"):
            assert report[backend]["features"]["poll_multishot"] is False
        assert report["epoll"]["features"]["epoll_pwait2"] is False
        assert report["epoll"]["features"]["accept"] is True

    def test_features_that_need_one_that_is_switched_off(self):
        report, _ = doctor(GYRE_FEATURES="-buf_ring,-accept")
        for features in (report["io_uring"]["features"], report["epoll"]["features"]):
            assert features["recv_multishot"] is False
            assert features["accept_multishot"] is False

    @pytest.mark.parametrize("text", ["-nonsense", "buf_ring", "-buf_ring,"])
    def test_features_that_no_loop_accepts(self, text, monkeypatch):
        report, status = doctor(GYRE_FEATURES=text)
        assert (status, report["backend"]) == (1, None)
        assert "GYRE_FEATURES" in report["why"]
        [problem] = report["problems"]
        assert "GYRE_FEATURES" in problem["problem"] and "-buf_ring" in problem["remedy"]
        monkeypatch.setenv("GYRE_FEATURES", text)
        with pytest.raises(ValueError, match="GYRE_FEATURES"):
            gyre.Loop()

    def test_sysctls(self):
        report, _ = doctor()
        for name in ("io_uring_disabled", "io_uring_group"):
            path = f"/proc/sys/kernel/{name}"
            value = None
            if os.path.exists(path):
                with open(path) as file:
                    value = int(file.read())
            assert report["sysctl"][f"kernel.{name}"] == value

    def test_for_people(self):
        done = python_m_gyre("doctor")
        assert (done.returncode, done.stderr) == (0, "")
        rows = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if line.strip())
        assert rows["backend"] in ("io_uring", "epoll")
        assert {"kernel", "liburing", "seccomp", "why"} <= set(rows)
        assert "+poll_multishot" in rows["epoll"]

    def test_limits_that_are_low(self):
        code = """
            import json, os, resource, sys
            import gyre._doctor
            gyre._doctor.examine()  # imports are done: another user may not read them
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (4096, 4096))
            if os.getuid() == 0:
                os.setgid(65534), os.setuid(65534)
            print(json.dumps(gyre._doctor.examine()))
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        report = json.loads(done.stdout)
        assert report["limits"]["nofile"] == {"soft": 64, "hard": 64}
        remedies = " ".join(item["remedy"] for item in report["problems"])
        assert "RLIMIT_NOFILE" in remedies and "RLIMIT_MEMLOCK" in remedies


class TestSeccompProfile:
    def profile(self, *arguments):
        done = python_m_gyre("doctor", "--seccomp-profile", *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout)

    def test_short(self):
        profile = self.profile()
        assert profile["defaultAction"] == "SCMP_ACT_ALLOW"
        names = [name for rule in profile["syscalls"] for name in rule["names"]]
        assert len(names) == len(set(names))
        assert not set(names) & set(_seccomp.CALLS)
        assert {"mount", "ptrace", "bpf", "kexec_load"} <= set(names)

    def test_added_to_the_one_in_use(self, tmp_path):
        base = {
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 1,
            "syscalls": [
                {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["io_uring_enter", "mount"], "action": "SCMP_ACT_ERRNO"},
                {"name": "io_uring_setup", "action": "SCMP_ACT_KILL"},
            ],
        }
        path = tmp_path / "default.json"
        path.write_text(json.dumps(base))
        profile = self.profile(str(path))
        assert profile == base | {
            "syscalls": [
                {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["mount"], "action": "SCMP_ACT_ERRNO"},
                {"names": list(_seccomp.CALLS), "action": "SCMP_ACT_ALLOW"},
            ]
        }


PROGRAM = """
import asyncio, os, sys

async def main():
    print(type(asyncio.get_running_loop()).__module__)

if __name__ == "__main__":
    asyncio.run(main())
    loop = asyncio.new_event_loop()
    print(type(loop).__module__)
    loop.close()
    print(sys.argv, __name__, os.path.basename(__file__), sys.modules["__main__"].main is main)
    print(os.path.basename(sys.path[0]))
"""


class TestProgram:
    @pytest.fixture
    def folder(self, tmp_path):
        folder = tmp_path / "place"
        folder.mkdir()
        (folder / "program.py").write_text(PROGRAM)
        return folder

    def test_script(self, folder):
        path = str(folder / "program.py")
        done = python_m_gyre(path, "-m", "--help", "x y", flags=("-W", "error"))
        assert done.stderr == ""
        first, second, third, fourth = done.stdout.splitlines()
        assert (first, second) == ("gyre.loop", "gyre.loop")
        assert third == f"{[path, '-m', '--help', 'x y']} __main__ program.py True"
        assert fourth == "place"

    def test_module(self, folder):
        done = python_m_gyre("-m", "program", "a", cwd=folder, flags=("-W", "error"))
        assert done.stderr == ""
        first, second, third, _ = done.stdout.splitlines()
        assert (first, second) == ("gyre.loop", "gyre.loop")
        assert third.endswith("program.py', 'a'] __main__ program.py True")

    def test_folder(self, folder):
        (folder / "__main__.py").write_text("import program, asyncio; asyncio.run(program.main())")
        done = python_m_gyre(str(folder))
        assert (done.stdout, done.stderr) == ("gyre.loop\n", "")

    def test_status_and_traceback(self, folder):
        (folder / "exits.py").write_text("raise SystemExit(7)")
        (folder / "raises.py").write_text("def f():\n    1 / 0\nf()\n")
        assert python_m_gyre(str(folder / "exits.py")).returncode == 7
        done = python_m_gyre(str(folder / "raises.py"))
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1] == "ZeroDivisionError: division by zero"
        assert "raises.py" in done.stderr and "    1 / 0" in done.stderr

    def test_the_module_lives_until_the_end(self, folder):
        (folder / "late.py").write_text(
            "import atexit, sys\n"
            "name = 'still here'\n"
            "atexit.register(lambda: print(name, sys.modules['__main__'].name))\n"
        )
        done = python_m_gyre(str(folder / "late.py"))
        assert (done.stdout, done.stderr) == ("still here still here\n", "")

    def test_children_of_multiprocessing(self, folder):
        (folder / "spawns.py").write_text(
            "import multiprocessing\n"
            "def work(n):\n"
            "    return n * n\n"
            "if __name__ == '__main__':\n"
            "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
            "        print(pool.map(work, [1, 2, 3]))\n"
        )
        done = python_m_gyre(str(folder / "spawns.py"))
        assert (done.stdout, done.stderr) == ("[1, 4, 9]\n", "")

    def test_subprocesses(self, folder):
        (folder / "runs.py").write_text(
            "import asyncio, sys\n"
            "async def main():\n"
            "    process = await asyncio.create_subprocess_exec(sys.executable, '-c', 'exit(3)')\n"
            "    print(await process.wait())\n"
            "asyncio.run(main())\n"
        )
        done = python_m_gyre(str(folder / "runs.py"))
        assert (done.stdout, done.stderr) == ("3\n", "")
