"""The measured clients and workers: which programs there are, and one of them at work on a server.

Lives here: their command lines, what of them is installed, and the check that no job was lost. Never here:
what is compared with what (run.py), how much is done (workloads.py), starting servers (servers.py), the
programs themselves (programs/).
"""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks import servers
from benchmarks.programs.clock import BATCH, DATA, FUNCTION
from benchmarks.results import LibrarySample
from benchmarks.servers import BenchmarkFailed, Running
from benchmarks.workloads import (
    BARE,
    BLOCKING,
    CALL,
    EACH,
    GEAR,
    LIBGEARMAN,
    MANY,
    ONE_AT_ONCE,
    ONE_BY_ONE,
    OURS,
    PYGEARMAN,
    WORK,
)

PROGRAM_TIMEOUT: Final = 120.0
"""Seconds for one run of a program."""

SETTLE_TIMEOUT: Final = 5.0
"""Seconds the server has to count the last jobs."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Seconds that the measured jobs took, and the CPU seconds of the program in them."""

    seconds: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Program:
    """A client or a worker: `measure` lets it do a number of jobs on a server.

    It does `ahead` jobs more, ahead of its clock. A worker that `fills` needs no queue to begin with.
    """

    measure: Callable[[int, Running], Outcome]
    ahead: int = 1
    fills: bool = False


def programs(load: Path, folder: Path) -> dict[str, dict[str, Program]]:
    """All that are installed, by library and role.

    `load` is the compiled load.c; what has to be compiled beside it goes to `folder`.
    """
    found = {
        OURS: _in_python("txgearman", "on_twisted", EACH, CALL, MANY, WORK),
        ONE_AT_ONCE: {WORK: _in_python("txgearman", "on_twisted", "work-one")["work-one"]},
        ONE_BY_ONE: {MANY: _in_python("txgearman", "on_twisted", "many-calls")["many-calls"]},
        BLOCKING: _in_python("txgearman", "on_blocking", EACH, CALL, MANY, WORK),
        LIBGEARMAN: _in_c(folder),
        GEAR: _in_python("gear", "on_gear", EACH, WORK),
        PYGEARMAN: _in_python("gearman", "on_pygearman", EACH, CALL, MANY, WORK),
        BARE: _bare(load),
    }
    return {library: roles for library, roles in found.items() if roles}


def run(program: Program, role: str, jobs: int, server: Running, load: Path) -> LibrarySample:
    """Let a program do `jobs` jobs on a fresh server.

    Raises `BenchmarkFailed` if a job was lost or is left over.
    """
    total = jobs + program.ahead
    if role == WORK and not program.fills:
        options = {"jobs": total, "window": BATCH, "payload": len(DATA)}
        servers.load(load, "submit", server, options)
        _expect(server, total)
    with _answering(server) if role == CALL else nullcontext():
        before = servers.cpu_of(server.pid)
        outcome = program.measure(jobs, server)
        server_cpu = servers.cpu_of(server.pid) - before
    _expect(server, 0 if role in (WORK, CALL) else total)
    return LibrarySample(jobs, jobs / outcome.seconds, outcome.seconds, outcome.cpu, server_cpu)


@contextmanager
def _answering(server: Running) -> Iterator[None]:
    """A worker of `OURS` in a process of its own, for the jobs that a client waits for."""
    command = [sys.executable, "-m", "benchmarks.programs.on_twisted", "answer", str(server.port), "0"]
    with subprocess.Popen(command, env=_environment()) as worker:
        try:
            give_up = time.monotonic() + SETTLE_TIMEOUT
            while not _counts(server)[2]:
                if time.monotonic() > give_up:
                    raise BenchmarkFailed("the worker that answers did not come")
                time.sleep(0.01)
            yield
        finally:
            worker.terminate()


# -- the programs -------------------------------------------------------------------------------


def _in_python(package: str, name: str, *roles: str) -> dict[str, Program]:
    """The program `name` of programs/; none if `package` is not installed."""
    if importlib.util.find_spec(package) is None:
        return {}

    def made(role: str) -> Program:
        command = [sys.executable, "-m", f"benchmarks.programs.{name}", role]
        return Program(lambda jobs, server: _reported([*command, str(server.port), str(jobs)]))

    return {role: made(role) for role in roles}


def _in_c(folder: Path) -> dict[str, Program]:
    """gearmand's own: its tool, and what the tool cannot do by a program on its library."""
    found: dict[str, Program] = {}
    tool = shutil.which("gearman")
    if tool is not None:
        command = [tool, "-h", "127.0.0.1", "-f", FUNCTION]

        def submit(jobs: int, server: Running) -> Outcome:
            return _timed([*command, "-p", str(server.port), "-b", "-n"], (DATA + b"\n") * jobs)

        def work(jobs: int, server: Running) -> Outcome:
            return _timed([*command, "-p", str(server.port), "-w", "-c", str(jobs)], b"")

        found |= {EACH: Program(submit, ahead=0), WORK: Program(work, ahead=0)}
    try:
        program = str(servers.compile_c("programs/on_libgearman.c", folder, "-lgearman"))
    except BenchmarkFailed:
        # The library's headers are not installed.
        return found
    return found | {MANY: Program(lambda jobs, server: _reported([program, str(server.port), str(jobs)]))}


def _bare(load: Path) -> dict[str, Program]:
    """load.c, which writes packets without any library: what the server has to give."""

    def made(shape: str, options: Mapping[str, int], *, fills: bool = False) -> Program:
        def measure(jobs: int, server: Running) -> Outcome:
            done = servers.load(load, shape, server, {**options, "jobs": jobs, "payload": len(DATA)})
            return Outcome(done["seconds"], done["generator_cpu"])

        return Program(measure, ahead=0, fills=fills)

    return {
        EACH: made("submit", {"window": 1}),
        MANY: made("submit", {"window": BATCH}),
        WORK: made("drain", {"workers": 1, "window": BATCH}, fills=True),
    }


# -- running them -------------------------------------------------------------------------------


def _reported(command: list[str]) -> Outcome:
    """Run a program that has a clock of its own."""
    done = _run(command, b"")
    found: dict[str, Any] = json.loads(done)
    return Outcome(found["seconds"], found["cpu"])


def _timed(command: list[str], stdin: bytes) -> Outcome:
    """Run a program that has none: its whole life counts, a few milliseconds more than its jobs."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    _run(command, stdin)
    seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Outcome(seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def _run(command: list[str], stdin: bytes) -> bytes:
    try:
        done = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            check=False,
            timeout=PROGRAM_TIMEOUT,
            env=_environment(),
        )
    except subprocess.TimeoutExpired:
        raise BenchmarkFailed(f"{' '.join(command)}: still at work after {PROGRAM_TIMEOUT:.0f} s") from None
    if done.returncode != 0:
        raise BenchmarkFailed(f"{' '.join(command)}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def _environment() -> dict[str, str]:
    """Of a program: the checkout is found, whatever the working directory."""
    return {**os.environ, "PYTHONPATH": str(servers.HERE.parent)}


def _expect(server: Running, jobs: int) -> None:
    """Wait until exactly `jobs` jobs are in the server and none runs. Raises `BenchmarkFailed`."""
    give_up = time.monotonic() + SETTLE_TIMEOUT
    while (found := _counts(server)[:2]) != (jobs, 0):
        if time.monotonic() > give_up:
            raise BenchmarkFailed(f"(jobs, running) should be {(jobs, 0)} and are {found}")
        time.sleep(0.01)


def _counts(server: Running) -> tuple[int, int, int]:
    """The jobs that the server has, how many of them run, and its workers."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=SETTLE_TIMEOUT) as connection:
        connection.sendall(b"status\n")
        answer = b""
        while not answer.endswith(b".\n"):
            received = connection.recv(4096)
            if not received:
                raise BenchmarkFailed("the server closed the admin connection")
            answer += received
    for row in answer.decode().splitlines()[:-1]:
        name, queued, active, workers = row.split("\t")
        if name == FUNCTION:
            return int(queued), int(active), int(workers)
    return 0, 0, 0
