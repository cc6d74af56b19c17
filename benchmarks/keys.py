"""What a grab costs where runs are limited by key, with very many keys and blocked jobs.

Lives here: a server in this process that is fed by hand, as in `overhead`, with a million jobs of a hundred
thousand keys, first without a limit, then with one job of a key at a time, so that every key is full and all
other jobs are blocked. Called as

    python -m benchmarks.keys [--keys N] [--jobs N] [--rounds N]

it takes the processor's time, the least of the rounds, of grabs that get a job, and of reads with a
completion and a grab, as workers send them.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Final

from twisted.internet.epollreactor import EPollReactor

from benchmarks.overhead import WORKERS, connect
from txgearman.broker.entities import Client
from txgearman.server import GearmanServerFactory, Settings
from txgearman.server.process.memory import tune_collector
from txgearman.wire.codec import encode
from txgearman.wire.packets import CAN_DO, GRAB_JOB_UNIQ, REQUEST, WORK_COMPLETE

FUNCTION: Final = b"resize"

KEYS: Final = 100_000
JOBS: Final = 1_000_000

ROUNDS: Final = 20
IN_A_ROUND: Final = 1000
"""Grabs of a round."""


class _Submitter:
    """A `ClientConnection` that needs to know nothing."""

    def created(self, handle: bytes) -> None:
        """The job has this handle."""


class Server:
    """A server with `jobs` of `keys`, of which one of each key runs already."""

    def __init__(self, settings: Settings, keys: int, jobs: int) -> None:
        self._reactor: Any = EPollReactor()  # type: ignore[no-untyped-call]
        self._factory = GearmanServerFactory(self._reactor, settings)
        self._workers = [connect(self._factory) for _ in range(WORKERS)]
        for worker in self._workers:
            worker.dataReceived(encode(REQUEST, CAN_DO, (FUNCTION,)))
        submitter: Any = _Submitter()
        client = Client(submitter)
        for number in range(jobs):
            unique = b"customer%d:%d" % (number % keys, number // keys)
            self._factory.broker.submit(client, FUNCTION, unique, b"", background=True)
        running = (self._grab(number) for number in range(keys))
        self._running: Iterator[tuple[int, bytes]] = iter(list(enumerate(running)))

    def _grab(self, number: int) -> bytes:
        worker = self._workers[number % WORKERS]
        job = self._factory.broker.grab(worker.worker)
        assert job is not None
        return job.handle

    def _read(self, reads: Sequence[tuple[int, bytes]]) -> int:
        """Let workers be heard, all in a turn of the reactor; returns the nanoseconds."""
        turn = self._reactor.runUntilCurrent
        receive = [worker.dataReceived for worker in self._workers]
        begin = time.process_time_ns()
        for number, (place, data) in enumerate(reads, 1):
            receive[place](data)
            if number % WORKERS == 0:
                turn()
        turn()
        return time.process_time_ns() - begin

    def _completions(self) -> list[tuple[int, bytes]]:
        ended = islice(self._running, IN_A_ROUND)
        return [(number % WORKERS, encode(REQUEST, WORK_COMPLETE, (handle, b""))) for number, handle in ended]

    def grabs(self) -> int:
        """The nanoseconds of grabs, for which so many keys have a slot free."""
        grab = encode(REQUEST, GRAB_JOB_UNIQ)
        completions = self._completions()
        self._read(completions)
        return self._read([(place, grab) for place, _ in completions])

    def both(self) -> int:
        """The nanoseconds of completions with a grab after each."""
        grab = encode(REQUEST, GRAB_JOB_UNIQ)
        return self._read([(place, data + grab) for place, data in self._completions()])


def measure(settings: Settings, keys: int, jobs: int, rounds: int) -> tuple[float, float]:
    """The nanoseconds of a grab, and of a completion with a grab."""
    server = Server(settings, keys, jobs)
    gc.collect()
    gc.freeze()
    parts: tuple[Callable[[], int], ...] = server.grabs, server.both
    least = tuple(min(part() for _ in range(rounds)) / IN_A_ROUND for part in parts)
    gc.unfreeze()
    return least[0], least[1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure as the command line says; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.keys", description=__doc__.split("\n")[0])
    parser.add_argument("--keys", type=int, default=KEYS, metavar="N")
    parser.add_argument("--jobs", type=int, default=JOBS, metavar="N")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N")
    chosen = parser.parse_args(arguments)
    if chosen.keys < 2 * chosen.rounds * IN_A_ROUND:
        parser.error(f"each of two times {chosen.rounds} rounds needs {IN_A_ROUND} keys")
    tune_collector()
    base = None
    print(f"{'nanoseconds':26}{'grab':>16}{'complete and grab':>22}")
    for name, settings in (
        ("no limit", Settings()),
        ("max-running-per-key 1", Settings(max_running_per_key=1)),
    ):
        row = measure(settings, chosen.keys, chosen.jobs, chosen.rounds)
        base = base or row
        cells = [f"{cost:,.0f} ({cost / before:.2f})" for cost, before in zip(row, base, strict=True)]
        print(f"{name:26}{cells[0]:>16}{cells[1]:>22}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
