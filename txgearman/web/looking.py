"""Finding jobs among millions without holding up anybody: a part at a time, between the reactor's turns."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import AnyStr, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from txgearman.broker.entities import Job
from txgearman.broker.inspection import Inspection
from txgearman.broker.states import PRIORITIES, JobState
from txgearman.broker.stored_job_search import StoredJobSearch
from txgearman.broker.views import JobDetail, JobPage
from txgearman.errors import FunctionNotFound, Refused
from txgearman.web.shapes import STORED
from txgearman.web.sources import Connection, Gearman

SEARCHED: Final = 64 * 1024
"""Bytes at the beginning of a job's data that a search looks at."""

STEP: Final = 2 * 1024 * 1024
"""Bytes that a search looks at until others have their turn: about 4 ms at 0.6 GB/s, measured with data that
have one letter alone."""

PER_JOB: Final = 512
"""Bytes that a job counts for in a step beside its data: for what is the same with all jobs."""

PATIENCE: Final = 2.0
"""Seconds after which a search gives what it has found, and where to go on."""

FETCHING: Final = 0.05
"""Seconds between two looks at whether jobs that were not in memory have come in."""

LARGEST_NUMBER: Final = 2**63 - 1
"""The largest number that a database knows; what is asked for is checked ahead of it."""

_PLACE: Final = re.compile(rb"(?:stored-([0-2])-)?([0-9]{1,19})", re.ASCII)

_first = operator.itemgetter(0)


@dataclass(frozen=True, slots=True)
class Place:
    """Behind what to go on in a list of jobs: first come those in memory, behind the `number` of a handle,
    then of each `priority` those that only the store has, behind the place `number` of their queue."""

    number: int = 0
    priority: int | None = None

    @classmethod
    def parse(cls, text: bytes) -> Place | None:
        """The place that is written so; None for what is none."""
        found = _PLACE.fullmatch(text)
        if found is None or int(found[2]) > LARGEST_NUMBER:
            return None
        return cls(int(found[2]), None if found[1] is None else int(found[1]))

    def __str__(self) -> str:
        return f"{self.number}" if self.priority is None else f"{STORED}-{self.priority}-{self.number}"


@dataclass(frozen=True, slots=True)
class Found:
    """Jobs, and what to go on with behind them, None at the end."""

    jobs: list[JobDetail]
    next: Place | None


def finder(search: AnyStr) -> Callable[..., re.Match[AnyStr] | None]:
    """What finds `search` in a text, or from one place of it up to another, in a time that is linear in both.

    ``find`` and ``in`` are not: in up to 30,000 bytes CPython compares letter by letter at each place, which
    takes the product of both lengths where all letters are the same.
    """
    return re.compile(re.escape(search)).search


@dataclass(frozen=True, slots=True)
class Wanted:
    """The jobs of a function, in a state if one is named, that have `search` in their handle, unique or the
    beginning of their data."""

    function: bytes
    state: str | None
    search: bytes
    _find: Callable[..., re.Match[bytes] | None] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_find", finder(self.search))

    @property
    def may_be_stored(self) -> bool:
        """Whether they may be among those that only the store has."""
        return self.state in (None, JobState.QUEUED.value, STORED)

    def job(self, job: Job) -> bool:
        """Whether one in memory is wanted."""
        if job.function.name != self.function or (self.state is not None and job.state.value != self.state):
            return False
        return self._has(job.handle, job.unique, job.data)

    def detail(self, detail: JobDetail) -> bool:
        """Whether one is wanted that was in the store alone, or has come into memory from there."""
        if self.state == STORED and detail.state is not None:
            return False
        if self.state == JobState.QUEUED.value and detail.state not in (None, JobState.QUEUED):
            return False
        return self._has(detail.handle, detail.unique, detail.data or b"")

    def _has(self, handle: bytes, unique: bytes, data: bytes) -> bool:
        if not self.search:
            return True
        find = self._find
        found = find(unique) or find(handle) or find(data, 0, SEARCHED)
        return found is not None


class _Step:
    """How much is looked at until others have their turn."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._left = STEP

    def wants(self, job: Job) -> bool:
        """Whether a job in memory is wanted."""
        self._left -= PER_JOB
        if self._wanted.search:
            self._left -= min(len(job.data), SEARCHED)
        return self._wanted.job(job)

    def is_over(self) -> bool:
        """Whether others are to have their turn."""
        return self._left <= 0


async def find_jobs(
    gearman: Gearman, reactor: IReactorTime, wanted: Wanted, after: Place, most: int
) -> Found:
    """At most so many of the wanted jobs, from `after` on. Raises `Refused` where the store does not answer
    and there is nothing else to show."""
    inspection, search = gearman.inspection, gearman.search
    jobs: list[JobDetail] = []
    give_up = reactor.seconds() + PATIENCE
    place: Place | None = after
    if wanted.state == STORED and after.priority is None:
        place = Place(0, 0)
    while place is not None:
        if place.priority is None:
            step = _Step(wanted)
            page = inspection.job_page(place.number, most - len(jobs), step.wants, step.is_over)
            jobs.extend(page.jobs)
        else:
            try:
                page = await _stored(search, wanted.function, place.priority, place.number, most - len(jobs))
            except Refused:
                if not jobs:
                    raise
                break
            jobs.extend(job for job in page.jobs if wanted.detail(job))
        place = _next(place, page, wanted)
        if len(jobs) == most or reactor.seconds() >= give_up:
            break
        await deferLater(reactor, 0)
    return Found(jobs, place)


def _next(place: Place, page: JobPage, wanted: Wanted) -> Place | None:
    """What comes behind a page."""
    if page.next is not None:
        return Place(page.next, place.priority)
    if place.priority is None:
        return Place(0, 0) if wanted.may_be_stored else None
    return Place(0, place.priority + 1) if place.priority + 1 < PRIORITIES else None


async def _stored(search: StoredJobSearch, function: bytes, priority: int, after: int, most: int) -> JobPage:
    told: Deferred[JobPage | Refused] = Deferred()
    try:
        search.seek_page(function, priority, after, most, told.callback)
    except FunctionNotFound:
        # It was dropped meanwhile.
        return JobPage((), None)
    page = await told
    if isinstance(page, Refused):
        raise page
    return page


async def running_jobs(
    gearman: Gearman, reactor: IReactorTime, wanted: Wanted, after: Place, most: int
) -> Found:
    """As `find_jobs`, for running jobs alone: these are found by way of their workers."""
    inspection = gearman.inspection
    numbered = []
    for connection in gearman.connections.values():
        for handle, job in connection.worker.jobs.items():
            number = int(handle.rpartition(b":")[2])
            if number > after.number and job.function.name == wanted.function:
                numbered.append((number, handle, job))
    numbered.sort(key=_first)
    jobs: list[JobDetail] = []
    place = after
    give_up = reactor.seconds() + PATIENCE
    step = _Step(wanted)
    for number, handle, job in numbered:
        if len(jobs) == most or reactor.seconds() >= give_up:
            return Found(jobs, place)
        if step.is_over():
            await deferLater(reactor, 0)
            step = _Step(wanted)
        # One that has ended meanwhile does not run any more.
        if step.wants(job):
            jobs.append(inspection.job_detail(handle))
        place = Place(number)
    return Found(jobs, None)


def jobs_of(inspection: Inspection, connection: Connection, most: int) -> list[JobDetail]:
    """The jobs that a connection works on, the first of them."""
    handles = [handle for _, handle in zip(range(most), connection.worker.jobs, strict=False)]
    return [inspection.job_detail(handle) for handle in handles]


async def cancel_all(gearman: Gearman, reactor: IReactorTime, function: bytes) -> None:
    """Cancel all jobs that a function has now. Raises `FunctionNotFound`.

    Those that are not in memory come in as there is room, and are cancelled then; this gives up when none
    has come for `PATIENCE` seconds.
    """
    inspection, administration = gearman.inspection, gearman.administration
    until = inspection.last_number
    seen = reactor.seconds()
    while True:
        before = inspection.function_detail(function)
        after: int | None = 0
        while after is not None:
            after = administration.cancel_some(function, after, until)
            await deferLater(reactor, 0)
        now = inspection.function_detail(function)
        if now.failed != before.failed:
            seen = reactor.seconds()
        if not now.away or reactor.seconds() - seen > PATIENCE:
            return
        await deferLater(reactor, FETCHING)
