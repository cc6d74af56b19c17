"""One measurement each: jobs enqueued and worked off, calls, memory. What is run how often is run.py's."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.rivals import processes
from benchmarks.rivals.brokers import Brokers, Keeping
from benchmarks.rivals.catalogue import Rival, WorkerForm
from benchmarks.rivals.contract import BULK, CALL, EACH
from benchmarks.rivals.jobs import count_runs, read_runs
from benchmarks.rivals.processes import Process, cpu_of
from benchmarks.servers import BenchmarkFailed, Running, memory_of

WORK_TIMEOUT: Final = 120.0
"""Seconds that a worker has for all jobs."""

LOOK_AGAIN: Final = 0.002
"""Seconds between two looks at how many jobs have run."""


@dataclass(frozen=True, slots=True)
class Enqueued:
    """Jobs that one client enqueued: how many in a second, and CPU seconds for each of them."""

    rate: float
    client_cpu: float
    broker_cpu: float


@dataclass(frozen=True, slots=True)
class Worked:
    """Jobs that one worker ran: how many in a second, and CPU seconds for each of them.

    These are None where the jobs were over before the processor time was first read.
    """

    rate: float
    worker_cpu: float | None
    broker_cpu: float | None


@dataclass(frozen=True, slots=True)
class Called:
    """Jobs whose results one client waited for, one after the other.

    `p50` and `p99` are percentiles of the seconds from submit to result; CPU seconds are for each job.
    """

    p50: float
    p99: float
    client_cpu: float
    worker_cpu: float
    broker_cpu: float


@dataclass(frozen=True, slots=True)
class Remembered:
    """Resident bytes of a broker: fresh, and with `jobs` queued."""

    jobs: int
    fresh: int
    full: int

    @property
    def per_job(self) -> float:
        """Bytes that one queued job takes."""
        return (self.full - self.fresh) / self.jobs


@dataclass(frozen=True, slots=True)
class Measure:
    """Measures in `folder`, each time with a fresh broker of `brokers`."""

    brokers: Brokers
    folder: Path

    def through(
        self, rival: Rival, role: str, form: WorkerForm, keeping: Keeping, jobs: int
    ) -> tuple[Enqueued, Worked]:
        """Enqueue jobs, and have a worker run them when all are there. Raises `BenchmarkFailed`."""
        runs = self._fresh_runs()
        with self.brokers.running(rival.broker, keeping) as broker:
            settings = processes.environment(broker.port, runs)
            enqueued = self._enqueue(rival, role, broker, settings, jobs)
            command = form.command(rival.programs, broker.port)
            with processes.running(command, settings, self.folder) as worker:
                worked = _work(worker, broker, runs, min(form.most or jobs, jobs) + 1)
        _check_runs(runs, None if form.most else jobs + 1)
        return enqueued, worked

    def call(self, rival: Rival, form: WorkerForm, keeping: Keeping, jobs: int) -> Called:
        """Submit jobs one after the other and wait for the result of each. Raises `BenchmarkFailed`."""
        runs = self._fresh_runs()
        with self.brokers.running(rival.broker, keeping) as broker:
            settings = processes.environment(broker.port, runs)
            command = form.command(rival.programs, broker.port)
            with processes.running(command, settings, self.folder) as worker:
                # A job that is done shows that the worker is there, with all that it imports.
                self._client(rival, EACH, settings, 0)
                _await_runs(worker, runs, 1)
                before = worker.cpu(), cpu_of(broker.pid)
                found = self._client(rival, CALL, settings, jobs)
                after = worker.cpu(), cpu_of(broker.pid)
        worker_cpu, broker_cpu = (end - begin for end, begin in zip(after, before, strict=True))
        return Called(found["p50"], found["p99"], found["cpu"] / jobs, worker_cpu / jobs, broker_cpu / jobs)

    def memory(self, rival: Rival, keeping: Keeping, jobs: int) -> Remembered:
        """Fill a queue in the quickest way there is. Raises `BenchmarkFailed`."""
        role = BULK if BULK in rival.roles else EACH
        with self.brokers.running(rival.broker, keeping) as broker:
            fresh = memory_of(broker.pid).resident
            self._client(rival, role, processes.environment(broker.port, self._fresh_runs()), jobs - 1)
            return Remembered(jobs, fresh, memory_of(broker.pid).resident)

    def _enqueue(
        self, rival: Rival, role: str, broker: Running, settings: dict[str, str], jobs: int
    ) -> Enqueued:
        before = cpu_of(broker.pid)
        found = self._client(rival, role, settings, jobs)
        broker_cpu = cpu_of(broker.pid) - before
        return Enqueued(jobs / found["seconds"], found["cpu"] / jobs, broker_cpu / jobs)

    def _client(self, rival: Rival, role: str, settings: dict[str, str], jobs: int) -> dict[str, Any]:
        program = [str(rival.programs / "python"), "-m", "benchmarks.rivals.client"]
        done = processes.run_client([*program, rival.module, role, str(jobs)], settings, self.folder)
        found: dict[str, Any] = json.loads(done)
        return found

    def _fresh_runs(self) -> Path:
        runs = self.folder / "runs"
        runs.unlink(missing_ok=True)
        return runs


def _work(worker: Process, broker: Running, runs: Path, jobs: int) -> Worked:
    """Wait until a worker has run `jobs` jobs. The clock runs from the first run to the last."""
    _await_runs(worker, runs, 1)
    before = worker.cpu(), cpu_of(broker.pid)
    already = count_runs(runs)
    _await_runs(worker, runs, jobs)
    after = worker.cpu(), cpu_of(broker.pid)
    times = [time_ for _, time_ in read_runs(runs)][:jobs]
    rate = (len(times) - 1) / (times[-1] - times[0]) * 1e9
    counted = jobs - already
    if counted <= 0:
        return Worked(rate, None, None)
    worker_cpu, broker_cpu = (end - begin for end, begin in zip(after, before, strict=True))
    return Worked(rate, worker_cpu / counted, broker_cpu / counted)


def _await_runs(worker: Process, runs: Path, count: int) -> None:
    give_up = time.monotonic() + WORK_TIMEOUT
    while count_runs(runs) < count:
        worker.check()
        if time.monotonic() > give_up:
            raise BenchmarkFailed(f"{count_runs(runs)} of {count} jobs ran in {WORK_TIMEOUT:.0f} s")
        time.sleep(LOOK_AGAIN)


def _check_runs(runs: Path, jobs: int | None) -> None:
    """No job may have run twice, and all of `jobs` must have run, unless that is None.

    Raises `BenchmarkFailed`.
    """
    numbers = [number for number, _ in read_runs(runs)]
    if len(set(numbers)) != len(numbers):
        raise BenchmarkFailed(f"{len(numbers) - len(set(numbers))} jobs ran more than once")
    if jobs is not None and len(numbers) != jobs:
        raise BenchmarkFailed(f"{len(numbers)} of {jobs} jobs ran")
