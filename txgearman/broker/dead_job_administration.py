"""What an administrator does with failed jobs: retry them now, run dead ones again, forget them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from txgearman.broker.dead_job import DeadCursor, DeadFilter, DeadJob, DeadPage
from txgearman.broker.handles import number_in
from txgearman.broker.job_states import JobState
from txgearman.broker.stored_job import StoredJob
from txgearman.errors import JobNotFound, Refused, UniqueInUse

if TYPE_CHECKING:
    from txgearman.broker.broker import Broker
    from txgearman.broker.interfaces import DeadJobStore

_RETRYING: Final = JobState.RETRYING

Tell = Callable[[Refused | None], None]
"""Called once: with None when it was done, or with what prevents it."""


class Progress(NamedTuple):
    """How far a verb over many dead jobs has come: `done` and `skipped` jobs, and the cursor to go on with,
    None when there are no more."""

    done: int
    skipped: int
    next: DeadCursor | None


class DeadJobAdministration:
    """The verbs of administrators on jobs whose runs have failed. It has no state of its own."""

    __slots__ = ("_broker", "_life", "_store")

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._life = broker.life
        self._store: DeadJobStore = broker.ended_jobs.dead_job_store

    @property
    def counts(self) -> Mapping[bytes, int]:
        """How many dead jobs each function has."""
        return self._store.counts()

    @property
    def evicted(self) -> int:
        """How many dead jobs this server has forgotten as they were too many, too large or too old."""
        return self._store.evicted

    def page(
        self,
        wanted: DeadFilter,
        cursor: DeadCursor | None,
        limit: int,
        with_data: bool,
        tell: Callable[[DeadPage | Refused], None],
    ) -> None:
        """Find dead jobs, those that died last first.

        Args:
            wanted: Which ones.
            cursor: `DeadPage.next` of the page before, None for the first page.
            limit: How many jobs at most.
            with_data: Whether the jobs are to have their data.
            tell: Called with the page, or with what prevents it.
        """
        self._store.page(wanted, cursor, limit, with_data, tell)

    def find(self, handle: bytes, tell: Callable[[DeadJob | Refused], None]) -> None:
        """Find one dead job, with its data.

        Args:
            handle: The job's handle.
            tell: Called with the job, or with `JobNotFound` or another refusal.
        """

        def found(job: DeadJob | Refused | None) -> None:
            if isinstance(job, DeadJob) and job.handle != handle:
                job = None
            tell(JobNotFound() if job is None else job)

        number = number_in(handle)
        if number is None:
            tell(JobNotFound())
        else:
            self._store.find(number, found)

    def retry(self, handle: bytes, tell: Tell) -> None:
        """Run a job again: a dead one with its attempts anew, behind the others of its queue; one that waits
        for its retry at once, with the attempts that it has.

        Args:
            handle: The job's handle.
            tell: Called with None, or with `JobNotFound`, with `UniqueInUse` if a live job has its unique, or
                with what refuses a new job of its function; it stays dead then.
        """
        job = self._life.handles.get(handle)
        if job is not None and job.state is _RETRYING:
            self._life.retry_now(job)
            tell(None)
            return

        def found(dead: DeadJob | Refused) -> None:
            if isinstance(dead, Refused):
                tell(dead)
            else:
                self._retry_dead(dead, tell)

        self.find(handle, found)

    def _retry_dead(self, dead: DeadJob, tell: Tell) -> None:
        def retried(stored: StoredJob | Refused | None) -> None:
            if isinstance(stored, StoredJob):
                self._life.revive_dead(stored)
                tell(None)
            else:
                # Somebody else was faster.
                tell(JobNotFound() if stored is None else stored)

        broker = self._broker
        try:
            function = broker.functions.by_name.get(dead.function)
            if function is None:
                broker.limits.check_open(broker.total)
                function = broker.functions.new(dead.function)
            if dead.unique and self._life.duplicates.find(function, dead.unique, dead.data or b""):
                raise UniqueInUse
            if function.limited:
                broker.limits.admit(function, dead.priority, broker.total)
        except Refused as refusal:
            tell(refusal)
        else:
            self._store.retry(dead.number, retried)

    def kill(self, handle: bytes) -> None:
        """End a job that waits for its retry: it is dead.

        Args:
            handle: The job's handle.

        Raises:
            JobNotFound: No job with this handle waits for its retry.
        """
        job = self._life.handles.get(handle)
        if job is None or job.state is not _RETRYING or job.failures is None:
            raise JobNotFound
        self._life.give_up(job, job.failures.outcome)

    def forget(self, handle: bytes, tell: Tell) -> None:
        """Forget a dead job.

        Args:
            handle: The job's handle.
            tell: Called with None, or with `JobNotFound` or another refusal.
        """

        def forgotten(count: int | Refused) -> None:
            if isinstance(count, Refused):
                tell(count)
            else:
                tell(None if count else JobNotFound())

        def found(dead: DeadJob | Refused) -> None:
            if isinstance(dead, Refused):
                tell(dead)
            else:
                self._store.forget([dead.number], forgotten)

        self.find(handle, found)

    def retry_some(
        self,
        wanted: DeadFilter,
        cursor: DeadCursor | None,
        limit: int,
        tell: Callable[[Progress | Refused], None],
    ) -> None:
        """Run dead jobs again, as `retry` does, and skip those that cannot be.

        Args:
            wanted: Which ones.
            cursor: `Progress.next` of the call before, None for the first call.
            limit: How many jobs at most.
            tell: Called with what was done.
        """

        def found(page: DeadPage | Refused) -> None:
            if isinstance(page, Refused):
                tell(page)
                return
            left = len(page.jobs)
            done = 0

            def one(refusal: Refused | None) -> None:
                nonlocal left, done
                left -= 1
                done += refusal is None
                if not left:
                    tell(Progress(done, len(page.jobs) - done, page.next))

            if not page.jobs:
                tell(Progress(0, 0, page.next))
            for dead in page.jobs:
                self._retry_dead(dead, one)

        self._store.page(wanted, cursor, limit, True, found)

    def forget_some(
        self,
        wanted: DeadFilter,
        cursor: DeadCursor | None,
        limit: int,
        tell: Callable[[Progress | Refused], None],
    ) -> None:
        """Forget dead jobs.

        Args:
            wanted: Which ones.
            cursor: `Progress.next` of the call before, None for the first call.
            limit: How many jobs at most.
            tell: Called with what was done.
        """

        def found(page: DeadPage | Refused) -> None:
            if isinstance(page, Refused):
                tell(page)
                return

            def forgotten(count: int | Refused) -> None:
                if isinstance(count, Refused):
                    tell(count)
                else:
                    tell(Progress(count, len(page.jobs) - count, page.next))

            self._store.forget([job.number for job in page.jobs], forgotten)

        self._store.page(wanted, cursor, limit, False, found)
