"""Searches among millions of jobs: in slices, between which the reactor serves others."""

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
from txgearman.broker.job_states import PRIORITIES, JobState
from txgearman.broker.stored_job_search import StoredJobSearch
from txgearman.broker.views import JobDetail, JobPage
from txgearman.errors import FunctionNotFound, Refused
from txgearman.web.api.serializers import STORED
from txgearman.web.interfaces import Connection, Gearman

SEARCHED_BYTES: Final = 64 * 1024
"""Bytes at the beginning of a job's data that a search looks at."""

SLICE_BYTES: Final = 2 * 1024 * 1024
"""Bytes that a search looks at before it gives way: about 4 ms at 0.6 GB/s, measured with data of one
repeated letter."""

JOB_BYTES: Final = 512
"""Bytes that a job counts for in a slice beside its data: the cost that all jobs have."""

SEARCH_SECONDS: Final = 2.0
"""Seconds after which a search returns what it has found, and the cursor to go on from."""

FETCH_SECONDS: Final = 0.05
"""Seconds between two looks at whether jobs have come into memory from the store."""

MAX_NUMBER: Final = 2**63 - 1
"""The largest number that a database knows. Numbers from outside are checked against it first."""

_CURSOR: Final = re.compile(rb"(?:stored-([0-2])-)?([0-9]{1,19})", re.ASCII)

_first = operator.itemgetter(0)


@dataclass(frozen=True, slots=True)
class JobCursor:
    """A position in a list of jobs. The list continues after it.

    Jobs in memory come first, in the order of their handles; then, for each priority, the jobs that only the
    store has, in the order of their queue.

    Args:
        number: The number of a handle, or, with a priority, a position in the stored queue.
        priority: The priority of the stored queue; None among the jobs in memory.
    """

    number: int = 0
    priority: int | None = None

    @classmethod
    def parse(cls, text: bytes) -> JobCursor | None:
        """Read a cursor as `str` writes it.

        Args:
            text: What a peer sent.

        Returns:
            The cursor, or None if `text` is not one.
        """
        found = _CURSOR.fullmatch(text)
        if found is None or int(found[2]) > MAX_NUMBER:
            return None
        return cls(int(found[2]), None if found[1] is None else int(found[1]))

    def __str__(self) -> str:
        return f"{self.number}" if self.priority is None else f"{STORED}-{self.priority}-{self.number}"


@dataclass(frozen=True, slots=True)
class FoundJobs:
    """A page of jobs, and the cursor of the next page, None at the end."""

    jobs: list[JobDetail]
    next_cursor: JobCursor | None


def compile_search(search: AnyStr) -> Callable[..., re.Match[AnyStr] | None]:
    """Make a function that finds `search` in a text, in time that is linear in both lengths.

    ``find`` and ``in`` are not linear: up to 30,000 bytes CPython compares letter by letter at each position,
    which takes the product of both lengths where all letters are the same.

    Args:
        search: What to find.

    Returns:
        A function of a text, and of positions to begin and to end at if given. It returns None where `search`
        is not found.
    """
    return re.compile(re.escape(search)).search


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs are looked for.

    Args:
        function: The name of their function, None for any. Then jobs that only the store has do not match.
        state: The state of the jobs, None for any.
        search: What their handle, unique or the beginning of their data contains.
    """

    function: bytes | None
    state: str | None
    search: bytes
    _find: Callable[..., re.Match[bytes] | None] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_find", compile_search(self.search))

    @property
    def may_match_stored(self) -> bool:
        """Whether jobs that only the store has may match."""
        return self.function is not None and self.state in (None, JobState.QUEUED.value, STORED)

    def matches(self, job: Job) -> bool:
        """Whether a job in memory matches."""
        if self.function is not None and job.function.name != self.function:
            return False
        if self.state is not None and job.state.value != self.state:
            return False
        return self._contains(job.handle, job.unique, job.data)

    def matches_stored(self, job: JobDetail) -> bool:
        """Whether a job of the function matches that the store has, or that came from there meanwhile."""
        if self.state == STORED and job.state is not None:
            return False
        if self.state == JobState.QUEUED.value and job.state not in (None, JobState.QUEUED):
            return False
        return self._contains(job.handle, job.unique, job.data or b"")

    def _contains(self, handle: bytes, unique: bytes, data: bytes) -> bool:
        if not self.search:
            return True
        find = self._find
        found = find(unique) or find(handle) or find(data, 0, SEARCHED_BYTES)
        return found is not None


class _Slice:
    """Counts the work of a search, and says when to give way."""

    def __init__(self, job_filter: JobFilter) -> None:
        self._filter = job_filter
        self._left = SLICE_BYTES

    def matches(self, job: Job) -> bool:
        """Whether a job in memory matches."""
        self._left -= JOB_BYTES
        if self._filter.search:
            self._left -= min(len(job.data), SEARCHED_BYTES)
        return self._filter.matches(job)

    def is_over(self) -> bool:
        """Whether it is time to give way."""
        return self._left <= 0


async def find_jobs(
    gearman: Gearman, reactor: IReactorTime, job_filter: JobFilter, cursor: JobCursor, limit: int
) -> FoundJobs:
    """Find jobs of a function, in memory and in the store.

    It ends after `SEARCH_SECONDS` with what it has, so a page may be short and not be the last.

    Args:
        gearman: Where to look.
        reactor: The clock, and the turns between slices.
        job_filter: Which jobs are wanted.
        cursor: Where to go on.
        limit: How many jobs to return at most.

    Returns:
        The page.

    Raises:
        Refused: The store does not answer, and there is nothing else to show.
    """
    inspection, search = gearman.inspection, gearman.search
    jobs: list[JobDetail] = []
    give_up = reactor.seconds() + SEARCH_SECONDS
    next_cursor: JobCursor | None = cursor
    if job_filter.state == STORED and cursor.priority is None:
        next_cursor = JobCursor(0, 0)
    while next_cursor is not None:
        if next_cursor.priority is None:
            part = _Slice(job_filter)
            page = inspection.job_page(next_cursor.number, limit - len(jobs), part.matches, part.is_over)
            jobs.extend(page.jobs)
        else:
            assert job_filter.function is not None, "only jobs of one function are looked for in the store"
            try:
                page = await _stored_page(search, job_filter.function, next_cursor, limit - len(jobs))
            except Refused:
                if not jobs:
                    raise
                break
            jobs.extend(job for job in page.jobs if job_filter.matches_stored(job))
        next_cursor = _cursor_behind(next_cursor, page, job_filter)
        if len(jobs) == limit or reactor.seconds() >= give_up:
            break
        await deferLater(reactor, 0)
    return FoundJobs(jobs, next_cursor)


def _cursor_behind(cursor: JobCursor, page: JobPage, job_filter: JobFilter) -> JobCursor | None:
    """The cursor after a page that began at `cursor`."""
    if page.next is not None:
        return JobCursor(page.next, cursor.priority)
    if cursor.priority is None:
        return JobCursor(0, 0) if job_filter.may_match_stored else None
    return JobCursor(0, cursor.priority + 1) if cursor.priority + 1 < PRIORITIES else None


async def _stored_page(search: StoredJobSearch, function: bytes, cursor: JobCursor, limit: int) -> JobPage:
    assert cursor.priority is not None
    told: Deferred[JobPage | Refused] = Deferred()
    try:
        search.seek_page(function, cursor.priority, cursor.number, limit, told.callback)
    except FunctionNotFound:
        # It was dropped meanwhile.
        return JobPage((), None)
    page = await told
    if isinstance(page, Refused):
        raise page
    return page


async def find_running_jobs(
    gearman: Gearman, reactor: IReactorTime, job_filter: JobFilter, cursor: JobCursor, limit: int
) -> FoundJobs:
    """Find running jobs of a function, by way of the workers that have them.

    Args:
        gearman: The server, whose connections are looked at.
        reactor: The clock, and the turns between slices.
        job_filter: Which jobs are wanted.
        cursor: Where to go on.
        limit: How many jobs to return at most.

    Returns:
        The page.
    """
    inspection = gearman.inspection
    numbered = []
    for connection in gearman.connections.values():
        for handle, job in connection.worker.jobs.items():
            number = int(handle.rpartition(b":")[2])
            if number > cursor.number and job.function.name == job_filter.function:
                numbered.append((number, handle, job))
    numbered.sort(key=_first)
    jobs: list[JobDetail] = []
    give_up = reactor.seconds() + SEARCH_SECONDS
    part = _Slice(job_filter)
    for number, handle, job in numbered:
        if len(jobs) == limit or reactor.seconds() >= give_up:
            return FoundJobs(jobs, cursor)
        if part.is_over():
            await deferLater(reactor, 0)
            part = _Slice(job_filter)
        # A job that ended meanwhile is not running, so it does not match.
        if part.matches(job):
            jobs.append(inspection.job_detail(handle))
        cursor = JobCursor(number)
    return FoundJobs(jobs, None)


def first_jobs_of(inspection: Inspection, connection: Connection, limit: int) -> list[JobDetail]:
    """The first of the jobs that a connection works on, at most `limit`."""
    handles = [handle for _, handle in zip(range(limit), connection.worker.jobs, strict=False)]
    return [inspection.job_detail(handle) for handle in handles]


async def cancel_jobs(
    gearman: Gearman, reactor: IReactorTime, function: bytes, cancelled: Callable[[int], None]
) -> None:
    """Cancel all jobs that a function has now.

    Jobs that only the store has are cancelled as they come into memory. This gives up when none has come for
    `SEARCH_SECONDS`.

    Args:
        gearman: Where the jobs are.
        reactor: The clock, and the turns between slices.
        function: The name of the function.
        cancelled: Is told how many more were cancelled.

    Raises:
        FunctionNotFound: There is no such function, or no longer.
    """
    inspection, administration = gearman.inspection, gearman.administration
    last_number = inspection.last_number
    seen = reactor.seconds()
    while True:
        cursor: int | None = 0
        while cursor is not None:
            # Nothing else can come between: what this counts more is what was cancelled.
            before = inspection.function_detail(function).dropped
            cursor = administration.cancel_some(function, cursor, last_number)
            count = inspection.function_detail(function).dropped - before
            if count:
                seen = reactor.seconds()
                cancelled(count)
            await deferLater(reactor, 0)
        now = inspection.function_detail(function)
        if not now.stored or reactor.seconds() - seen > SEARCH_SECONDS:
            return
        await deferLater(reactor, FETCH_SECONDS)
