"""What is shipped: the wheel, built and installed into an environment of its own."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import unittest
import zipfile
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

PROJECT = Path(__file__).resolve().parent.parent
SHIPPED = ("setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in")
PACKAGES = ("txgearman", "twisted", "tests")
IGNORED = shutil.ignore_patterns("__pycache__", "*.cache", "*.so")
# An npm package, beside those that the tests of the server run.
PYRIGHT = shutil.which(
    "pyright", path=f"{os.environ['PATH']}{os.pathsep}{os.environ.get('NODE_PATH', '')}/.bin"
)
LIMIT = 120
"""Seconds any of the programs below may take."""


def run(*command: str | Path, folder: Path | None = None) -> str:
    """The standard output of a program. Raises `AssertionError` with all it wrote if it fails."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["TXGEARMAN_COMPILE"] = "0"
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=LIMIT, check=False, cwd=folder, env=environment
    )
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Built:
    """The wheel, the names of what is in it, and the Python of an environment that it is installed in.

    `folder` holds all of it.
    """

    folder: Path
    wheel: Path
    names: list[str]
    python: Path


@cache
def built() -> Built:
    """Build and install once for all tests; trial does not know setUpClass."""
    folder = Path(tempfile.mkdtemp(prefix="txgearman-packaging-")).resolve()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    wheel = build(folder)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        # All of it is pure Python, so unpacking is installing.
        assert not any(name.partition("/")[0].endswith(".data") for name in names), names
        return Built(folder, wheel, names, install(folder, archive))


def build(folder: Path) -> Path:
    """Build from a copy, so that the checkout is neither written to nor taken from by accident."""
    source = folder / "source"
    source.mkdir()
    for name in SHIPPED:
        if (PROJECT / name).exists():
            shutil.copy(PROJECT / name, source)
    for name in PACKAGES:
        shutil.copytree(PROJECT / name, source / name, ignore=IGNORED)
    # Where the tools are there, nothing needs to be fetched.
    isolation = ["--no-isolation"] if find_spec("setuptools") else []
    run(sys.executable, "-m", "build", "--wheel", *isolation, "--outdir", folder, source)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(folder: Path, archive: zipfile.ZipFile) -> Path:
    """A fresh environment with the wheel; Twisted and its like come from this one by a .pth file."""
    environment = folder / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    places = {"base": str(environment), "platbase": str(environment)}
    site = Path(sysconfig.get_path("purelib", "venv", places))
    archive.extractall(site)
    # Only the packages themselves: the .pth files in there, which may lead to the checkout, are not read.
    (site / "beside.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return Path(sysconfig.get_path("scripts", "venv", places)) / "python"


@unittest.skipUnless(find_spec("build"), "not installed: build")
class WheelTest(SynchronousTestCase):
    """The wheel, and an environment that has it and what this one has beside it."""

    def setUp(self) -> None:
        its = built()
        self.folder, self.wheel, self.names, self.python = its.folder, its.wheel, its.names, its.python

    def test_the_plugin_is_in(self) -> None:
        self.assertIn("twisted/plugins/txgearman_gearmand.py", self.names)

    @unittest.skipUnless(find_spec("mypy"), "not installed: mypy")
    def test_types_hold_for_users(self) -> None:
        """A program that uses all roles passes the strictest check, without the plugins of this project."""
        program = shutil.copy(Path(__file__).parent / "typed_program.py", self.folder)
        cache = f"--cache-dir={self.folder / 'types'}"
        strictly = ("--strict", "--config-file=", cache, f"--python-executable={self.python}")
        run(sys.executable, "-m", "mypy", *strictly, program, folder=self.folder)

    @unittest.skipUnless(PYRIGHT, "not installed: pyright")
    def test_types_hold_for_users_of_pyright(self) -> None:
        program = shutil.copy(Path(__file__).parent / "typed_program.py", self.folder)
        assert PYRIGHT is not None
        run(PYRIGHT, f"--pythonpath={self.python}", program, folder=self.folder)

    def test_nothing_of_twisted_is_overwritten(self) -> None:
        ours = [name for name in self.names if name.startswith("twisted/")]
        self.assertEqual(ours, ["twisted/plugins/txgearman_gearmand.py"])

    def test_no_tests_and_nothing_else(self) -> None:
        roots = {name.partition("/")[0] for name in self.names if ".dist-info/" not in name}
        self.assertEqual(roots, {"txgearman", "twisted"})

    def test_all_of_the_package_is_in(self) -> None:
        there = {
            str(path.relative_to(PROJECT))
            for path in (PROJECT / "txgearman").rglob("*")
            if path.suffix == ".py" or path.name == "py.typed" or path.parent.name == "static"
        }
        self.assertEqual({name for name in self.names if name.startswith("txgearman/")}, there)

    def test_both_programs_are_in(self) -> None:
        text = (
            "from importlib.metadata import distribution as named; "
            "print(*sorted(entry.name for entry in named('txgearman').entry_points))"
        )
        found = run(self.python, "-c", text, folder=self.folder).split()
        self.assertEqual(found, ["txgearman", "txgearmand"])

    def test_it_says_that_it_is_typed(self) -> None:
        self.assertIn("txgearman/py.typed", self.names)

    def test_versions_agree(self) -> None:
        version = run(self.python, "-c", "import txgearman; print(txgearman.__version__)", folder=self.folder)
        self.assertEqual(self.wheel.name.split("-")[:2], ["txgearman", version.strip()])

    def test_the_environment_has_the_wheel_and_not_the_checkout(self) -> None:
        script = (
            "import txgearman, twisted.plugins.txgearman_gearmand as p; print(txgearman.__file__, p.__file__)"
        )
        for file in run(self.python, "-c", script, folder=self.folder).split():
            self.assertIn(self.folder, Path(file).parents)

    def test_twistd_lists_the_server(self) -> None:
        listed = run(self.python, "-m", "twisted", "--help", folder=self.folder)
        self.assertRegex(listed, r"(?m)^ +gearmand +A Gearman job server$")

    def test_twistd_has_the_server_s_help(self) -> None:
        code = (
            "import sys; from twisted.scripts.twistd import run\n"
            "sys.argv = ['twistd', 'gearmand', '--help']; run()"
        )
        self.assertIn("--listen=", run(self.python, "-c", code, folder=self.folder))


class ImportTest(SynchronousTestCase):
    """What importing the package brings along."""

    MODULES = tuple(
        ".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted((PROJECT / "txgearman").rglob("*.py"))
    )

    def loaded(self, *modules: str) -> set[str]:
        """What is loaded when these modules are."""
        script = f"import sys, {', '.join(modules)}\nprint(*sys.modules)"
        return set(run(sys.executable, "-c", script).split())

    def test_the_package_brings_no_web_and_no_database(self) -> None:
        heavy = ("twisted.web", "twisted.enterprise", "sqlite3", "psycopg", "psycopg2", "MySQLdb")
        loaded = self.loaded("txgearman")
        self.assertFalse([name for name in loaded if name.startswith(heavy)])

    def test_a_client_brings_nothing_of_the_admin_client(self) -> None:
        for module in ("txgearman.client.client", "txgearman.blocking.client"):
            loaded = self.loaded(module)
            self.assertIn(module, loaded)
            self.assertEqual(loaded & {"txgearman.client.admin", "txgearman.wire.replies"}, set(), module)

    def test_no_module_installs_a_reactor(self) -> None:
        self.assertGreater(len(self.MODULES), 10)
        loaded = self.loaded(*self.MODULES, "twisted.plugins.txgearman_gearmand")
        self.assertLess(set(self.MODULES), loaded)
        self.assertNotIn("twisted.internet.reactor", loaded)
        reactors = {name for name in loaded if name.startswith("twisted.") and name.endswith("reactor")}
        # A class, of which `txgearman.aio` makes one where a loop runs.
        self.assertEqual(reactors, {"twisted.internet.asyncioreactor"})

    def test_the_plugin_loads_nothing_of_the_server(self) -> None:
        loaded = self.loaded("twisted.plugins.txgearman_gearmand")
        self.assertFalse([name for name in loaded if name.split(".")[0] == "txgearman"])
