"""The package as it is installed: its version, its files, what importing it does."""

import importlib.metadata
import importlib.resources
import subprocess
import sys

import gyre


def test_version_is_the_distributions():
    assert gyre.__version__ == importlib.metadata.version("gyre-loop")


def test_types_are_shipped():
    files = importlib.resources.files("gyre")
    assert files.joinpath("py.typed").is_file()
    assert files.joinpath("_gyre.pyi").is_file()


def test_import_is_silent_with_every_warning_an_error():
    code = "import gyre; gyre.__version__"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-c", code], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_module_can_be_loaded_twice_and_freed():
    """Multi-phase init: a second import makes a second state, and dropping it crashes nothing."""
    code = (
        "import gc, sys, gyre._gyre as first\n"
        "del sys.modules['gyre._gyre']\n"
        "import gyre._gyre as second\n"
        "assert first is not second and first.__version__ == second.__version__\n"
        "del first, second, sys.modules['gyre._gyre'], sys.modules['gyre']\n"
        "gc.collect()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
