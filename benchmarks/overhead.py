"""What an option of the server costs on the way of a job: metrics, an access policy, limits, traces.

Lives here: a server in this process that is fed by hand, with each option in turn, and two ways to say what
that took. Never here: sockets, rates, and other servers.

Where two rates differ by a few percent, the noise of a machine is as large. So this takes the server's own
work alone, and tells the difference in nanoseconds, to be held against what a job takes in all: a million
divided by the rate of `run`, in microseconds. Called as

    python -m benchmarks.overhead [--rounds N] [--count] [--only NAME]

it takes the processor's time, the least of many rounds in turn. With ``--count`` it runs itself under
valgrind and counts instructions, which are the same in every run, whatever else the machine does.
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.testing import StringTransport

from txgearman.access.policy import AccessPolicy, Rule
from txgearman.broker.interfaces import Follower
from txgearman.server import GearmanServerFactory, GearmanServerProtocol, Settings
from txgearman.server.process.memory import tune_collector
from txgearman.wire.codec import encode
from txgearman.wire.packets import CAN_DO, GRAB_JOB_UNIQ, REQUEST, SUBMIT_JOB_BG, WORK_COMPLETE

FUNCTION: Final = b"resize"
WORKERS: Final = 8
PAYLOAD: Final = 64
"""Bytes: as in the workloads ``submit`` and ``drain``."""

IN_A_READ: Final = 500
"""Submits that come in one read: what 64 KiB hold."""

JOBS: Final = 20_000
"""Jobs of a round."""

FEW: Final = 1000
MORE: Final = 3000
"""Jobs of two runs whose instructions are counted: the difference is without what a start takes."""

POLICY: Final = AccessPolicy((Rule("all", submit=(b"re*", b"mail"), work=(b"re*",)),))

NOBODY: Final = "http://127.0.0.1:1"
"""Where the collector would be: spans are made, and are not sent."""

OPTIONS: Final[Mapping[str, Settings]] = {
    "none": Settings(),
    "metrics": Settings(metrics_functions=100),
    "access policy": Settings(access=POLICY),
    "max-connections": Settings(max_connections=1000, max_connections_per_address=1000),
    "max-jobs": Settings(max_jobs=10**9),
    "submit-rate": Settings(submit_rate=1e9),
    "max-running": Settings(max_running=10**9),
    "start-rate": Settings(start_rate=1e9),
    "traces": Settings(traces=NOBODY),
    "all traces": Settings(traces=NOBODY, traces_ratio=1.0),
}
"""What is compared, with the first."""

COUNTED: Final = re.compile(r"I\s+refs:\s+([0-9,]+)")
VALGRIND: Final = ("valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null")
"""Counts instructions and nothing else."""


class _Sink(StringTransport):
    """Takes everything and keeps nothing."""

    def write(self, data: bytes) -> None:
        pass

    def writeSequence(self, data: object) -> None:
        pass


def _follower(settings: Settings) -> Follower | None:
    """What makes spans of the jobs, if the settings want that, and drops them when they are made."""
    if settings.traces is None:
        return None
    from opentelemetry.sdk.trace import SpanProcessor

    from txgearman.server.monitoring.tracing import Traces

    traces = Traces(None, settings.traces, settings.traces_ratio, lambda _url: SpanProcessor())
    traces.start()
    return traces


def connect(factory: GearmanServerFactory) -> GearmanServerProtocol:
    """A peer whose server forgets what it answers."""
    connection = factory.buildProtocol(None)
    assert isinstance(connection, GearmanServerProtocol)
    sink: Any = _Sink
    connection.makeConnection(sink())  # type: ignore[no-untyped-call]
    return connection


class Server:
    """A server with one client and some workers; `jobs` are submitted and then worked off. How long a read
    takes it sees by `clock`, if there is one."""

    def __init__(self, settings: Settings, jobs: int, clock: Callable[[], float] | None = None) -> None:
        # One that is not run, but has the clocks of one that is.
        self._reactor: Any = EPollReactor()  # type: ignore[no-untyped-call]
        self._factory = GearmanServerFactory(self._reactor, settings, follower=_follower(settings))
        if clock is not None:
            self._factory.clock = clock
        self._client = connect(self._factory)
        self._workers = [connect(self._factory) for _ in range(WORKERS)]
        for worker in self._workers:
            worker.dataReceived(encode(REQUEST, CAN_DO, (FUNCTION,)))
        submit = encode(REQUEST, SUBMIT_JOB_BG, (FUNCTION, b"", bytes(PAYLOAD)))
        self._submits = [submit * IN_A_READ] * (jobs // IN_A_READ)
        grab = encode(REQUEST, GRAB_JOB_UNIQ)
        prefix = self._factory.settings.handle_prefix.encode()
        # Each worker has the result of its job and asks for the next, in one read, as workers do.
        self._reads = [grab] * WORKERS + [
            encode(REQUEST, WORK_COMPLETE, (b"%b:%d" % (prefix, number + 1), b"")) + grab
            for number in range(jobs)
        ]

    def submit(self, jobs: int = JOBS) -> None:
        """Submit jobs."""
        turn, read = self._reactor.runUntilCurrent, self._client.dataReceived
        for data in self._submits[: jobs // IN_A_READ]:
            read(data)
            turn()

    def drain(self, jobs: int = JOBS) -> None:
        """Work them off, with a read of each worker in a turn of the reactor."""
        turn = self._reactor.runUntilCurrent
        reads = [worker.dataReceived for worker in self._workers]
        for place in range(0, jobs + WORKERS, WORKERS):
            for read, data in zip(reads, self._reads[place : place + WORKERS], strict=False):
                read(data)
            turn()

    def check(self) -> None:
        """Raises `AssertionError` unless all jobs are done."""
        (view,) = self._factory.inspection.functions()
        assert view.total == 0, view


def nanoseconds(names: Sequence[str], rounds: int) -> dict[str, tuple[float, float]]:
    """The processor's time for a submit, and for a job's grab and completion, by option."""
    least: dict[str, tuple[float, float]] = {}
    for _ in range(rounds):
        for name in names:
            server = Server(OPTIONS[name], JOBS)
            gc.collect()
            took = []
            for part in (server.submit, server.drain):
                begin = time.process_time_ns()
                part()
                took.append((time.process_time_ns() - begin) / JOBS)
            server.check()
            before = least.get(name, (took[0], took[1]))
            least[name] = min(before[0], took[0]), min(before[1], took[1])
    return least


def instructions(names: Sequence[str]) -> dict[str, tuple[float, float]]:
    """The same in instructions."""
    counted = {}
    for name in names:
        submitted, drained = (
            (_count(name, part, MORE) - _count(name, part, FEW)) / (MORE - FEW)
            for part in ("submit", "drain")
        )
        counted[name] = submitted, drained - submitted
    return counted


def _count(name: str, part: str, jobs: int) -> int:
    command = [*VALGRIND, sys.executable, "-m", "benchmarks.overhead", "--run", name, part, str(jobs)]
    # Dictionaries are then the same in each run.
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found = COUNTED.search(done.stderr)
    assert found is not None, done.stderr
    return int(found[1].replace(",", ""))


def _run(name: str, part: str, jobs: int) -> None:
    """What is counted: a server that gets so many jobs, and works them off too if `part` is ``drain``."""
    # Prepared for the same number in any case, so that the difference is the work alone. The clock stands
    # still: under valgrind a read takes so long that the server would give way, and leave submits for later.
    server = Server(OPTIONS[name], MORE, lambda: 0.0)
    server.submit(jobs)
    if part == "drain":
        server.drain(jobs)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure as the command line says; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=20, metavar="N")
    parser.add_argument("--count", action="store_true", help="instructions, by valgrind")
    parser.add_argument(
        "--only", action="append", choices=[*OPTIONS], metavar="NAME", help=", ".join(OPTIONS)
    )
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    tune_collector()
    if chosen.run:
        name, part, jobs = chosen.run
        _run(name, part, int(jobs))
        return 0
    unit = "instructions" if chosen.count else "nanoseconds"
    names = chosen.only or list(OPTIONS)
    found = instructions(names) if chosen.count else nanoseconds(names, chosen.rounds)
    base = found[names[0]]
    print(f"{unit:18}{'submit':>22}{'grab and complete':>22}")
    for name, row in found.items():
        cells = (f"{cost:,.0f} {cost - before:+8,.0f}" for cost, before in zip(row, base, strict=True))
        print(f"{name:18}" + "".join(f"{cell:>22}" for cell in cells))
    return 0


if __name__ == "__main__":
    sys.exit(main())
