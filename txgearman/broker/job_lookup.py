"""Finding a job whatever has become of it: live, in a stored queue, dead, ended not long ago, or completed
with a result that is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from txgearman.broker.dead_job import DeadJob
from txgearman.broker.dead_job_administration import DeadJobAdministration
from txgearman.broker.handles import number_in
from txgearman.broker.history import EndedJob
from txgearman.broker.inspection import Inspection
from txgearman.broker.kept_result import KeptResult
from txgearman.broker.stored_job import StoredJob
from txgearman.broker.stored_job_search import StoredJobSearch
from txgearman.broker.views import JobDetail, dead_detail, ended_detail, kept_detail
from txgearman.errors import JobNotFound, Refused

if TYPE_CHECKING:
    from txgearman.broker.broker import Broker


class JobLookup:
    """One look-up over all that is known of jobs. It has no state of its own."""

    __slots__ = ("_broker", "_inspection")

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._inspection = Inspection(broker)

    def find(self, handle: bytes, tell: Callable[[JobDetail | Refused], None]) -> None:
        """Find a job.

        Args:
            handle: The job's handle.
            tell: Called with what is known of the job, with `JobNotFound`, or with what prevents the look-up.
        """
        try:
            tell(self._inspection.job_detail(handle))
        except JobNotFound:
            if self._inspection.may_have_stored_jobs:
                StoredJobSearch(self._broker).seek_job(handle, lambda found: self._found(handle, found, tell))
            else:
                self._find_ended(handle, tell)

    def find_unique(self, unique: bytes, tell: Callable[[JobDetail | Refused], None]) -> None:
        """Find the newest live job with a unique, whatever its function.

        Args:
            unique: The unique.
            tell: Called with what is known of the job, with `JobNotFound`, or with what prevents the look-up.
        """
        life = self._broker.life
        job = life.duplicates.by_unique.newest(unique)
        if job is not None:
            tell(self._inspection.detail_of(job))
            return
        if life.job_store is None or not self._inspection.may_have_stored_jobs:
            tell(JobNotFound())
            return

        def found(stored: StoredJob | Refused | None) -> None:
            if isinstance(stored, StoredJob):
                self.find(stored.handle, tell)
            else:
                tell(JobNotFound() if stored is None else stored)

        life.job_store.find_unique(unique, found)

    def _found(
        self, handle: bytes, found: JobDetail | Refused, tell: Callable[[JobDetail | Refused], None]
    ) -> None:
        if isinstance(found, JobNotFound):
            self._find_ended(handle, tell)
        else:
            tell(found)

    def _find_ended(self, handle: bytes, tell: Callable[[JobDetail | Refused], None]) -> None:
        history = self._broker.ended_jobs.history
        ended = None if history is None else history.get(handle)

        def found(dead: DeadJob | Refused) -> None:
            if isinstance(dead, DeadJob):
                tell(_with_runs(dead_detail(dead), ended))
            elif not isinstance(dead, JobNotFound):
                tell(dead)
            elif ended is not None:
                tell(ended_detail(ended))
            else:
                self._find_kept(handle, tell)

        DeadJobAdministration(self._broker).find(handle, found)

    def _find_kept(self, handle: bytes, tell: Callable[[JobDetail | Refused], None]) -> None:
        """A job of which this server remembers nothing was completed if its result is kept."""

        def found(result: KeptResult | Refused | None) -> None:
            if isinstance(result, Refused):
                tell(result)
            elif result is None or result.handle != handle:
                tell(JobNotFound())
            else:
                tell(kept_detail(result))

        number = number_in(handle)
        if number is None:
            tell(JobNotFound())
        else:
            self._broker.ended_jobs.result_store.find(number, found)


def _with_runs(detail: JobDetail, ended: EndedJob | None) -> JobDetail:
    """What is known of a dead job, with its runs if this server remembers them."""
    if ended is None:
        return detail
    remembered = ended_detail(ended)
    return replace(detail, runs=remembered.runs, warnings=remembered.warnings, started=remembered.started)
