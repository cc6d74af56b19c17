"""Finding jobs wherever they are: in memory, in a stored queue, or with another server on the same store."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from txgearman.broker.handles import number_of
from txgearman.broker.inspection import Inspection
from txgearman.broker.job_states import Outcome
from txgearman.broker.stored_job import StoredJob
from txgearman.broker.views import STORED, JobDetail, JobPage, JobStatus, stored_detail
from txgearman.errors import JobNotFound, Refused

if TYPE_CHECKING:
    from txgearman.broker.broker import Broker
    from txgearman.broker.interfaces import Found, StoredPage, Tell

_CANCELLED: Final = int(Outcome.CANCELLED)


class StoredJobSearch:
    """Look-ups that ask the store, and answer later. It has no state of its own."""

    __slots__ = ("_broker", "_functions", "_inspection", "_life", "_stored_queues")

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._functions = broker.functions
        self._life = broker.life
        self._stored_queues = broker.stored_queues
        self._inspection = Inspection(broker)

    def seek_status(self, handle: bytes, tell: Callable[[JobStatus | Refused], None]) -> None:
        """Tell the status of the job with this handle, wherever it is. Only where `may_have_stored_jobs` is
        true."""

        def found(stored: Found) -> None:
            # It may have come into memory meanwhile.
            status = self._inspection.status(handle)
            if isinstance(stored, Refused) and not status.known:
                tell(stored)
            elif isinstance(stored, StoredJob) and stored.handle == handle and not status.known:
                tell(STORED)
            else:
                tell(status)

        self._seek(handle, found)

    def seek_job(self, handle: bytes, tell: Callable[[JobDetail | Refused], None]) -> None:
        """As `job_detail`, for a job wherever it is. Only where `may_have_stored_jobs` is true."""

        def found(stored: Found) -> None:
            job = self._life.handles.get(handle)
            if job is not None:
                tell(self._inspection.detail_of(job))
            elif isinstance(stored, StoredJob) and stored.handle == handle:
                if self._stored_queues.contains(stored):
                    # Once more, with its data.
                    self._page(stored.function, stored.priority, stored.position - 1, 1, whole)
                else:
                    tell(stored_detail(stored, False))
            else:
                tell(stored if isinstance(stored, Refused) else JobNotFound())

        def whole(page: JobPage | Refused) -> None:
            if isinstance(page, Refused):
                tell(page)
            elif page.jobs and page.jobs[0].handle == handle:
                tell(page.jobs[0])
            else:
                # It has ended meanwhile.
                tell(JobNotFound())

        self._seek(handle, found)

    def seek_page(
        self, name: bytes, priority: int, cursor: int, limit: int, tell: Callable[[JobPage | Refused], None]
    ) -> None:
        """Tell of jobs of a function and priority that are not in memory, in the order of their queue, at
        most so many, and of fewer where they are large: the first of them with 0 for `cursor`, then those
        after the place that the page before gave. What has come into memory meanwhile is told of as it is
        there. Raises `FunctionNotFound`."""
        stored_queue = self._functions.find(name).stored_queue
        after = cursor or (None if stored_queue is None else stored_queue.after(priority))
        if stored_queue is None or after is None:
            tell(JobPage((), None))
        else:
            self._page(name, priority, after, limit, tell)

    def _page(
        self, name: bytes, priority: int, cursor: int, limit: int, tell: Callable[[JobPage | Refused], None]
    ) -> None:
        if self._life.job_store is None:
            tell(JobPage((), None))
            return

        def found(page: StoredPage | Refused) -> None:
            if isinstance(page, Refused):
                tell(page)
                return
            details = []
            for stored in page.jobs:
                job = self._life.handles.get(stored.handle)
                if job is not None:
                    details.append(self._inspection.detail_of(job))
                elif self._stored_queues.contains(stored):
                    details.append(stored_detail(stored, True))
            tell(JobPage(tuple(details), page.next))

        self._life.job_store.page(name, priority, cursor, limit, found)

    def seek_status_by_unique(self, unique: bytes, tell: Callable[[JobStatus | Refused], None]) -> None:
        """Tell the status of the newest job with this unique, wherever it is. Only where
        `may_have_stored_jobs` is true."""
        assert self._life.job_store is not None

        def found(stored: Found) -> None:
            status = self._inspection.status_by_unique(unique)
            if status.known or stored is None:
                tell(status)
            else:
                tell(stored if isinstance(stored, Refused) else STORED)

        self._life.job_store.find_unique(unique, found)

    def seek_and_cancel(
        self, handle: bytes, tell: Callable[[Refused | None], None], force: bool = False
    ) -> None:
        """As `Broker.cancel`, for a job wherever it is. Only where `may_have_stored_jobs` is true."""

        def found(stored: Found) -> None:
            if self._life.handles.get(handle) is not None:
                self._broker.cancel(handle, force)
                tell(None)
            elif (
                isinstance(stored, StoredJob) and stored.handle == handle and self._stored_queues.take(stored)
            ):
                assert self._life.job_store is not None
                self._life.job_store.remove(stored.number)
                function = self._functions.by_name[stored.function]
                function.uncompleted[_CANCELLED] += 1
                function.ended += 1
                self._functions.note_idle(function)
                tell(None)
            else:
                tell(stored if isinstance(stored, Refused) else JobNotFound())

        self._seek(handle, found)

    def _seek(self, handle: bytes, found: Tell) -> None:
        assert self._life.job_store is not None
        try:
            number = number_of(handle)
        except ValueError:
            number = -1
        self._life.job_store.find(number, found)
