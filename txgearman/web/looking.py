"""Finding jobs among millions without holding up anybody: a part at a time, between the reactor's turns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from txgearman.broker.broker import Broker
from txgearman.broker.job import Job
from txgearman.broker.views import JobDetail
from txgearman.web.sources import Connection, Gearman

SEARCHED: Final = 64 * 1024
"""Bytes at the beginning of a job's data that a search looks at."""

PATIENCE: Final = 2.0
"""Seconds after which a search gives what it has found, and where to go on."""


FETCHING: Final = 0.05
"""Seconds between two looks at whether jobs that were not in memory have come in."""


@dataclass(frozen=True, slots=True)
class Found:
    """Jobs, and what to go on with behind them, None at the end."""

    jobs: list[JobDetail]
    next: int | None


def wanted(function: bytes, state: str | None, search: bytes) -> Callable[[Job], bool]:
    """Tells jobs of a function, in a state, that have `search` in their handle, unique or data."""

    def test(job: Job) -> bool:
        if job.function.name != function or (state is not None and job.state.value != state):
            return False
        if not search:
            return True
        return search in job.unique or search in job.handle or job.data.find(search, 0, SEARCHED) >= 0

    return test


async def find_jobs(
    broker: Broker, reactor: IReactorTime, test: Callable[[Job], bool], after: int, most: int
) -> Found:
    """At most so many jobs that pass the test, behind the number `after`."""
    jobs: list[JobDetail] = []
    give_up = reactor.seconds() + PATIENCE
    place: int | None = after
    while place is not None:
        page = broker.job_page(place, most - len(jobs), test)
        jobs.extend(page.jobs)
        place = page.next
        if len(jobs) == most or reactor.seconds() >= give_up:
            break
        await deferLater(reactor, 0)
    return Found(jobs, place)


def running_jobs(gearman: Gearman, test: Callable[[Job], bool], after: int, most: int) -> Found:
    """As `find_jobs`, for running jobs alone: these are found by way of their workers."""
    broker = gearman.broker
    numbered = []
    for connection in gearman.connections.values():
        for handle, job in connection.worker.jobs.items():
            number = int(handle.rpartition(b":")[2])
            if number > after and test(job):
                numbered.append((number, handle))
    numbered.sort()
    jobs = [broker.job_detail(handle) for _, handle in numbered[:most]]
    return Found(jobs, numbered[most - 1][0] if len(numbered) > most else None)


def jobs_of(broker: Broker, connection: Connection, most: int) -> list[JobDetail]:
    """The jobs that a connection works on, the first of them."""
    handles = [handle for _, handle in zip(range(most), connection.worker.jobs, strict=False)]
    return [broker.job_detail(handle) for handle in handles]


async def cancel_all(broker: Broker, reactor: IReactorTime, function: bytes) -> None:
    """Cancel all jobs that a function has now. Raises `FunctionNotFound`.

    Those that are not in memory come in as there is room, and are cancelled then; this gives up when none
    has come for `PATIENCE` seconds.
    """
    until = broker.last_number
    seen = reactor.seconds()
    while True:
        before = broker.function_detail(function)
        after: int | None = 0
        while after is not None:
            after = broker.cancel_some(function, after, until)
            await deferLater(reactor, 0)
        now = broker.function_detail(function)
        if now.failed != before.failed:
            seen = reactor.seconds()
        if not now.away or reactor.seconds() - seen > PATIENCE:
            return
        await deferLater(reactor, FETCHING)
