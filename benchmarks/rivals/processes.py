"""The processes of clients and workers: started with their environment, their processor time read, ended.

A worker may be several processes: one that manages, one that runs jobs, one for each job. All count.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.rivals.catalogue import CHECKOUT
from benchmarks.rivals.jobs import PORT, RUNS
from benchmarks.servers import BenchmarkFailed, dies_with_us, state_of

CLIENT_TIMEOUT: Final = 1200.0
"""Seconds for one run of a client: the slowest needs ten minutes for a million jobs."""

STOP_TIMEOUT: Final = 1.0
"""Seconds that a worker has to end after SIGTERM, before SIGKILL. All its jobs have run by then."""

_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Process:
    """A worker that runs."""

    process: subprocess.Popen[bytes]
    output: Path

    def cpu(self) -> float:
        """CPU seconds that it has taken so far, with all processes that it has started and waited for."""
        return sum(map(cpu_of, _tree(self.process.pid)))

    def check(self) -> None:
        """Raises `BenchmarkFailed` if it has ended."""
        if self.process.poll() is not None:
            raise BenchmarkFailed(f"a worker ended by itself: {_last_words(self.output)}")


def environment(port: int, runs: Path) -> dict[str, str]:
    """Of a client or a worker: where the broker and the checkout are, and where to note what ran."""
    return {**os.environ, "PYTHONPATH": str(CHECKOUT), PORT: str(port), RUNS: str(runs)}


def run_client(command: Sequence[str], settings: dict[str, str], folder: Path) -> bytes:
    """Run a client to its end; what it printed. Raises `BenchmarkFailed`."""
    try:
        done = subprocess.run(
            command, capture_output=True, check=False, timeout=CLIENT_TIMEOUT, env=settings, cwd=folder
        )
    except subprocess.TimeoutExpired:
        raise BenchmarkFailed(f"{' '.join(command)}: still at work after {CLIENT_TIMEOUT:.0f} s") from None
    if done.returncode != 0:
        raise BenchmarkFailed(f"{' '.join(command)}: {done.stderr.decode(errors='replace')[-2000:].strip()}")
    return done.stdout


@contextmanager
def running(command: Sequence[str], settings: dict[str, str], folder: Path) -> Iterator[Process]:
    """A worker for the length of a ``with`` block."""
    output = folder / "worker.output"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [*dies_with_us(), *command],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=settings,
            start_new_session=True,
        )
    try:
        yield Process(process, output)
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a worker, and what it has started and does not end itself."""
    started = _tree(process.pid)
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_TIMEOUT)
    process.kill()
    process.wait()
    for pid, since in started.items():
        if pid != process.pid and _since(pid) == since:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _tree(pid: int) -> dict[int, str]:
    """A process and its descendants, with the time at which each started: ids are given anew."""
    found: dict[int, str] = {}
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        since = _since(one)
        if since is None:
            continue
        found[one] = since
        for children in Path(f"/proc/{one}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                waiting += map(int, children.read_text().split())
    return found


def _since(pid: int) -> str | None:
    fields = _stat(pid)
    return None if fields is None else fields[19]


def _stat(pid: int) -> list[str] | None:
    """What `state_of` returns; None if the process is gone."""
    try:
        return state_of(pid)
    except OSError:
        return None


def cpu_of(pid: int) -> float:
    """CPU seconds of one process, exact, and of the children that it has waited for, in hundredths."""
    fields = _stat(pid)
    if fields is None:
        return 0.0
    # The clock of another process, as clock_getcpuclockid() has it on Linux.
    try:
        own = time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0
    return own + (int(fields[13]) + int(fields[14])) / _TICKS


def _last_words(output: Path) -> str:
    return output.read_text(errors="replace").strip()[-2000:] or "it wrote nothing"
