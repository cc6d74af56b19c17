"""Dead jobs in memory, where no store keeps them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from txgearman.broker.dead_job import DeadCursor, DeadFilter, DeadJob, DeadPage
from txgearman.broker.stored_job import StoredJob

if TYPE_CHECKING:
    from txgearman.errors import Refused

MAX_EXAMINED: Final = 2000
"""Dead jobs that are looked at for one page, so that a search that finds little holds up nobody."""


class DeadJobs:
    """A `DeadJobStore` in memory. Those that died first are forgotten first.

    Args:
        max_jobs: How many are kept; 0 keeps none.
        max_bytes: How many bytes they take at most.
        max_age: Seconds for which they are kept.
        wall_clock: Gives seconds since the epoch.
    """

    def __init__(
        self, max_jobs: int, max_bytes: int, max_age: float, wall_clock: Callable[[], float]
    ) -> None:
        self._max_jobs = max_jobs
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._wall_clock = wall_clock
        # By number, in the order in which they died.
        self._jobs: OrderedDict[int, DeadJob] = OrderedDict()
        self._bytes = 0
        self._counts: dict[bytes, int] = {}
        self._evicted = 0

    def __len__(self) -> int:
        return len(self._jobs)

    def limit(self, max_jobs: int, max_bytes: int, max_age: float) -> None:
        """Keep so many from now on, as the constructor has it."""
        self._max_jobs, self._max_bytes, self._max_age = max_jobs, max_bytes, max_age
        self._evict()

    def add(self, job: DeadJob) -> None:
        """Keep a job that has just died."""
        if not self._max_jobs:
            return
        self._forget(job.number)
        self._jobs[job.number] = job
        self._bytes += job.weight
        self._counts[job.function] = self._counts.get(job.function, 0) + 1
        self._evict()

    def _evict(self) -> None:
        oldest_allowed = self._wall_clock() - self._max_age
        while self._jobs:
            number, job = next(iter(self._jobs.items()))
            few = len(self._jobs) <= self._max_jobs and self._bytes <= self._max_bytes
            if few and job.ended >= oldest_allowed:
                return
            self._forget(number)
            self._evicted += 1

    def _forget(self, number: int) -> DeadJob | None:
        job = self._jobs.pop(number, None)
        if job is not None:
            self._bytes -= job.weight
            self._counts[job.function] -= 1
            if not self._counts[job.function]:
                del self._counts[job.function]
        return job

    # -- DeadJobStore -----------------------------------------------------------------------------

    def page(
        self,
        wanted: DeadFilter,
        before: DeadCursor | None,
        limit: int,
        with_data: bool,
        tell: Callable[[DeadPage | Refused], None],
    ) -> None:
        self._evict()
        jobs: list[DeadJob] = []
        cursor: DeadCursor | None = None
        examined = 0
        for job in sorted(self._jobs.values(), key=_cursor, reverse=True):
            if before is not None and _cursor(job) >= before:
                continue
            if len(jobs) == limit or examined == MAX_EXAMINED:
                tell(DeadPage(jobs, cursor))
                return
            examined += 1
            cursor = _cursor(job)
            if wanted.matches(job):
                jobs.append(job if with_data else job._replace(data=None))
        tell(DeadPage(jobs, None))

    def find(self, number: int, tell: Callable[[DeadJob | Refused | None], None]) -> None:
        tell(self._jobs.get(number))

    def retry(self, number: int, tell: Callable[[StoredJob | Refused | None], None]) -> None:
        job = self._forget(number)
        tell(None if job is None else stored_job(job, self._wall_clock()))

    def forget(self, numbers: Sequence[int], tell: Callable[[int | Refused], None]) -> None:
        tell(sum(self._forget(number) is not None for number in numbers))

    def counts(self) -> Mapping[bytes, int]:
        return self._counts

    @property
    def evicted(self) -> int:
        return self._evicted


def _cursor(job: DeadJob) -> DeadCursor:
    return DeadCursor(job.ended, job.number)


def stored_job(job: DeadJob, submitted: float) -> StoredJob:
    """The live job that a dead one becomes: with its handle, unique, priority and data, nothing lost or tried
    yet, and an age that counts from `submitted`."""
    return StoredJob(
        number=job.number,
        position=job.number,
        handle=job.handle,
        function=job.function,
        unique=job.unique,
        data=job.data or b"",
        priority=job.priority,
        run_at=None,
        losses=0,
        submitted=submitted,
        reducer=job.reducer,
        attributes=job.attributes,
    )
