"""The process of a client: ``python -m benchmarks.rivals.client on_rq bulk 5000`` prints JSON.

One job more than the measured ones is submitted ahead of the clock, so connecting is not in the figures.
"""

from __future__ import annotations

import importlib
import itertools
import json
import statistics
import sys
import time
from dataclasses import dataclass, field

from benchmarks.programs.clock import BATCH, Clock, end
from benchmarks.rivals.contract import BULK, EACH, AwaitedCalls, AwaitedClient, Calls
from benchmarks.rivals.jobs import payloads


@dataclass(slots=True)
class CallClock(Clock):
    """A clock that also takes the time of each call."""

    times: list[float] = field(default_factory=list)

    def lap(self) -> None:
        """A result has come. Called once ahead of the measured calls, and after each of them."""
        self.times.append(time.perf_counter())

    def percentiles(self) -> tuple[float, float]:
        """Median and 99th percentile of the calls, in seconds."""
        calls = [after - before for before, after in itertools.pairwise(self.times)]
        points = statistics.quantiles(calls, n=100, method="inclusive")
        return points[49], points[98]


def submit(calls: Calls, role: str, data: list[str], clock: CallClock) -> None:
    """Do what `role` says, with the first payload ahead of the clock."""
    first, *others = data
    if role == EACH:
        calls.enqueue(first)
        clock.start()
        for one in others:
            calls.enqueue(one)
    elif role == BULK:
        assert calls.enqueue_many is not None
        calls.enqueue(first)
        clock.start()
        for begin in range(0, len(others), BATCH):
            calls.enqueue_many(others[begin : begin + BATCH])
    else:
        _check(first, calls.call(first))
        clock.start()
        clock.lap()
        for one in others:
            _check(one, calls.call(one))
            clock.lap()
    clock.stop()


async def submit_awaited(calls: AwaitedCalls, role: str, data: list[str], clock: CallClock) -> None:
    """The same with calls that are awaited."""
    first, *others = data
    if role == EACH:
        await calls.enqueue(first)
        clock.start()
        for one in others:
            await calls.enqueue(one)
    elif role == BULK:
        assert calls.enqueue_many is not None
        await calls.enqueue(first)
        clock.start()
        for begin in range(0, len(others), BATCH):
            await calls.enqueue_many(others[begin : begin + BATCH])
    else:
        _check(first, await calls.call(first))
        clock.start()
        clock.lap()
        for one in others:
            _check(one, await calls.call(one))
            clock.lap()
    clock.stop()


def _check(payload: str, result: object) -> None:
    if result != payload:
        raise ValueError(f"a job with {payload!r} had the result {result!r}")


def main() -> None:
    module, role, jobs = sys.argv[1:]
    client: Calls | AwaitedClient = importlib.import_module(f"benchmarks.rivals.{module}").CLIENT
    clock = CallClock(int(jobs))
    data = payloads(clock.jobs + 1)
    if isinstance(client, Calls):
        submit(client, role, data, clock)
    else:
        connect = client.connect

        async def connected(reactor: object) -> None:
            async with connect(reactor) as calls:
                await submit_awaited(calls, role, data, clock)

        client.run(connected)
    seconds, cpu = clock.elapsed()
    found: dict[str, float] = {"seconds": seconds, "cpu": cpu}
    if clock.times:
        found["p50"], found["p99"] = clock.percentiles()
    print(json.dumps(found))
    end()


if __name__ == "__main__":
    main()
