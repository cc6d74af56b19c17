"""Clients and workers that others wrote, each behind the same two small faces.

Every foreign worker here offers one repertoire of functions, their names behind a prefix of the test's own:

=========== =================================================================================
echo       gives back its workload
size       the length of its workload, in decimal digits
unique     the job's unique, where the library tells it
empty      an empty result
chatty     data ``one\\0`` + workload, warning ``careful\\0`` + workload, status 1/2, data ``two``,
           and the result ``done``
fail       fails
raise      an exception with the data ``reason\\0`` + workload
hold       status 3/7, then runs until the file that its workload names exists: ``released``
busy       (PHP only) as hold, with a status every tenth of a second
dies       (Perl only) dies in the language's own way
zero       (Perl only) the result ``0``
half-status (Perl only) status 1/2 by a method that forgets the 2, and the result ``done``
=========== =================================================================================

Every foreign client runs a list of jobs and tells, job by job, what became of them. The programs
themselves are in the folders php, perl, python and node; what is expected of them stands in the tests.

Node's packages ``gearmanode`` and ``gearman`` are looked for where Node looks: in a ``node_modules`` of
this folder or above it, and along ``NODE_PATH``.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import importlib.util
import json
import shutil
import subprocess
import sys
import unittest
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.interop.programs import Program, Server, run_program, running

_HERE: Final = Path(__file__).resolve().parent
_BYTES_EVENTS: Final = frozenset({"data", "warning", "complete", "exception"})

Event = tuple[Any, ...]
"""What a client was told of a job: ``("data", b"...")``, ``("status", 1, 2)``, ``("fail",)`` and so on."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job to submit; its workload is `data`, `repeat` times over."""

    function: str
    data: bytes = b""
    unique: str | None = None
    priority: str = "normal"
    background: bool = False
    repeat: int = 1

    def as_json(self) -> dict[str, Any]:
        """The job as the foreign programs read it."""
        return {
            "function": self.function,
            "unique": self.unique,
            "priority": self.priority,
            "background": self.background,
            "data": base64.b64encode(self.data).decode(),
            "repeat": self.repeat,
        }


@dataclass(slots=True)
class Told:
    """What a client told about its jobs, by their index.

    `handles` are the handles it got, as its library gives them; `events` the other events of each job
    in order; `order` the indexes of the jobs in the order of their ends.
    """

    handles: dict[int, str] = field(default_factory=dict)
    events: dict[int, list[Event]] = field(default_factory=dict)
    order: list[int] = field(default_factory=list)

    def add(self, index: int, event: str, *values: Any) -> None:
        """Take one line of the program's output."""
        if event == "created":
            self.handles[index] = values[0]
            return
        if event in _BYTES_EVENTS:
            values = (base64.b64decode(values[0]),)
        self.events.setdefault(index, []).append((event, *values))
        if event in {"complete", "exception", "fail"}:
            self.order.append(index)


@dataclass(frozen=True, slots=True)
class ForeignClient:
    """A client program. `mode` are its arguments behind the port.

    `streams`: it tells data and status as they come, not only the result. `exceptions`: it can ask the
    server for exceptions; else it is told of failures.
    """

    name: str
    command: tuple[str, ...]
    mode: tuple[str, ...]
    missing: Callable[[], str]
    streams: bool = True
    exceptions: bool = True

    async def run(self, server: Server, jobs: Sequence[Job], *, exceptions: bool = True) -> Told:
        """Run `jobs` to their ends. `exceptions`: ask the server for the exceptions of jobs.

        Raises `AssertionError` if the program fails, and `unittest.SkipTest` if it is not installed.
        """
        request = {"exceptions": exceptions, "jobs": [job.as_json() for job in jobs]}
        return await self.ask(server, request, self.mode)

    async def ask(self, server: Server, request: dict[str, Any], mode: Sequence[str]) -> Told:
        """Run the program with a request of another `mode` of its own."""
        require(self.missing)
        command = [*self.command, str(server.port), *mode]
        code, output, errors = await run_program(command, json.dumps(request).encode())
        assert code == 0, f"{self.name} ended with {code}: {errors!r} after {output!r}"
        told = Told()
        for line in output.splitlines():
            told.add(*json.loads(line))
        return told


@dataclass(frozen=True, slots=True)
class ForeignWorker:
    """A worker program. `binary`: it can send any bytes, not only text."""

    name: str
    command: tuple[str, ...]
    missing: Callable[[], str]
    binary: bool = True

    @contextlib.asynccontextmanager
    async def serving(self, server: Server, prefix: str) -> AsyncIterator[Program]:
        """The worker, offering its repertoire under `prefix`; it is there when the body begins.

        Raises `unittest.SkipTest` if it is not installed.
        """
        require(self.missing)
        _, _, before = await server.status(f"{prefix}echo")
        async with running(*self.command, str(server.port), prefix) as program:
            await server.has(f"{prefix}echo", workers=before + 1)
            yield program


def require(missing: Callable[[], str]) -> None:
    """Skip the running test, saying why, if something is `missing`."""
    reason = missing()
    if reason:
        raise unittest.SkipTest(reason)


@functools.cache
def missing_php() -> str:
    """Why PHP cannot take part, or an empty string."""
    return _missing(["php", "-r", "exit(extension_loaded('gearman') ? 0 : 1);"], "PHP's gearman extension")


@functools.cache
def missing_perl() -> str:
    """Why Perl cannot take part, or an empty string."""
    command = ["perl", "-MGearman::Client", "-MGearman::Worker", "-e1"]
    return _missing(command, "Perl's Gearman::Client and Gearman::Worker")


@functools.cache
def missing_gear() -> str:
    """Why the Python package `gear` cannot take part, or an empty string."""
    return "" if importlib.util.find_spec("gear") else "not installed: the Python package gear"


@functools.cache
def missing_pygearman() -> str:
    """Why the Python package `pygearman`, which is imported as ``gearman``, cannot take part, or ''."""
    return "" if importlib.util.find_spec("gearman") else "not installed: the Python package pygearman"


@functools.cache
def missing_gearmanode() -> str:
    """Why Node's package `gearmanode` cannot take part, or an empty string."""
    return _missing_in_node("gearmanode")


@functools.cache
def missing_gearman() -> str:
    """Why Node's package `gearman` cannot take part, or an empty string."""
    return _missing_in_node("gearman")


def _missing_in_node(package: str) -> str:
    script = f"require.resolve({json.dumps(package)}, {{paths: [{json.dumps(str(_HERE))}]}})"
    return _missing(["node", "-e", script], f"Node's package {package}")


def _missing(probe: Sequence[str], what: str) -> str:
    """An empty string if the program `probe` succeeds, else that `what` it needs is not installed."""
    if shutil.which(probe[0]) is None:
        return f"not installed: {probe[0]}"
    found = subprocess.run(probe, capture_output=True, timeout=10, check=False).returncode == 0
    return "" if found else f"not installed: {what}"


_PHP: Final = ("php", str(_HERE / "php" / "client.php"))
_PERL: Final = ("perl", str(_HERE / "perl" / "client.pl"))
_GEAR: Final = (sys.executable, str(_HERE / "python" / "gear_client.py"))

_NODE: Final = _HERE / "node"

PHP_TASKS: Final = ForeignClient("PHP addTask", _PHP, ("tasks",), missing_php)
PHP_DO: Final = ForeignClient("PHP doNormal", _PHP, ("do",), missing_php, streams=False)
PERL_TASKS: Final = ForeignClient("Perl task set", _PERL, ("tasks",), missing_perl)
PERL_DO: Final = ForeignClient("Perl do_task", _PERL, ("do",), missing_perl)
GEAR_CLIENT: Final = ForeignClient("gear client", _GEAR, (), missing_gear)
PYGEARMAN_CLIENT: Final = ForeignClient(
    "pygearman client",
    (sys.executable, str(_HERE / "python" / "gearman_client.py")),
    (),
    missing_pygearman,
    exceptions=False,
)
GEARMANODE_CLIENT: Final = ForeignClient(
    "gearmanode client", ("node", str(_NODE / "gearmanode_client.js")), (), missing_gearmanode
)
GEARMAN_JS_CLIENT: Final = ForeignClient(
    "gearman.js client", ("node", str(_NODE / "gearman_client.js")), (), missing_gearman
)

PHP_WORKER: Final = ForeignWorker("PHP worker", ("php", str(_HERE / "php" / "worker.php")), missing_php)
PERL_WORKER: Final = ForeignWorker("Perl worker", ("perl", str(_HERE / "perl" / "worker.pl")), missing_perl)
GEAR_WORKER: Final = ForeignWorker(
    "gear worker", (sys.executable, str(_HERE / "python" / "gear_worker.py")), missing_gear
)
PYGEARMAN_WORKER: Final = ForeignWorker(
    "pygearman worker",
    (sys.executable, str(_HERE / "python" / "gearman_worker.py")),
    missing_pygearman,
)
GEARMANODE_WORKER: Final = ForeignWorker(
    "gearmanode worker", ("node", str(_NODE / "gearmanode_worker.js")), missing_gearmanode, binary=False
)
GEARMAN_JS_WORKER: Final = ForeignWorker(
    "gearman.js worker", ("node", str(_NODE / "gearman_worker.js")), missing_gearman
)
