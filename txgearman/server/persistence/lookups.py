"""What the broker reads of the store: the next jobs of a queue, and single jobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.logger import Logger
from twisted.python.failure import Failure

from txgearman.broker.interfaces import StoredPage
from txgearman.broker.stored_job import StoredJob
from txgearman.errors import LookupFailed, StoreError
from txgearman.server.persistence.pending_changes import MAX_BATCH_BYTES, MAX_BATCH_JOBS
from txgearman.server.persistence.thread import InThread, log_defect
from txgearman.store.contract import Store

if TYPE_CHECKING:
    from txgearman.broker.interfaces import Tell, TellPage
    from txgearman.broker.store_answers import StoreAnswers

INITIAL_FETCH_LIMIT: Final = 100
"""Jobs that are fetched at first, when their size is not known yet."""

_log = Logger()


class LookupHolder(Protocol):
    """What the lookups tell: the writer."""

    def store_answered(self) -> None:
        """The store works."""

    def store_failed(self, failure: Failure) -> None:
        """The store does not work.

        Args:
            failure: What it raised.
        """


class StoreLookups:
    """Reads jobs in the store's thread. Jobs that have ended, and are not removed yet, are left out.

    Args:
        store: The store.
        in_thread: Calls a function with arguments in the store's thread, in order, and returns a Deferred.
        has_ended: Says whether a job has ended, by its number, though it may still be in the store.
        holder: Is told whether the store works.
    """

    def __init__(
        self, store: Store, in_thread: InThread, has_ended: Callable[[int], bool], holder: LookupHolder
    ) -> None:
        self._store = store
        self._in_thread = in_thread
        self._has_ended = has_ended
        self._holder = holder
        self._answers: StoreAnswers | None = None
        self._fetch_limit = INITIAL_FETCH_LIMIT

    def begin(self, answers: StoreAnswers) -> None:
        """Tell the broker of the jobs of its queues from now on.

        Args:
            answers: What is told.
        """
        self._answers = answers

    def fetch(self, function: bytes, priority: int, cursor: int) -> None:
        """Do what `JobStore.fetch` says."""
        limit = self._fetch_limit
        self._in_thread(self._store.fetch, function, priority, cursor, limit).addCallbacks(
            self._fetched,
            self._not_fetched,
            callbackArgs=(function, priority, limit),
            errbackArgs=(function, priority),
        ).addErrback(log_defect)

    def page(self, function: bytes, priority: int, cursor: int, limit: int, tell: TellPage) -> None:
        """Do what `JobStore.page` says."""
        limit = min(limit, self._fetch_limit)

        def found(jobs: list[StoredJob]) -> None:
            there = [job for job in jobs if not self._has_ended(job.number)]
            tell(StoredPage(there, jobs[-1].position if len(jobs) == limit else None))

        self._ask(found, tell, self._store.fetch, function, priority, cursor, limit)

    def find(self, tell: Tell, ask: Callable[..., StoredJob | None], *arguments: Any) -> None:
        """Do what `JobStore.find` says, and those beside it, by a method of the store."""

        def found(job: StoredJob | None) -> None:
            tell(None if job is None or self._has_ended(job.number) else job)

        self._ask(found, tell, ask, *arguments)

    def _fetched(self, jobs: list[StoredJob], function: bytes, priority: int, limit: int) -> None:
        assert self._answers is not None
        if jobs:
            size = sum(len(job.data) for job in jobs) // len(jobs)
            self._fetch_limit = max(1, min(MAX_BATCH_JOBS, MAX_BATCH_BYTES // (size + 1)))
        self._holder.store_answered()
        there = [job for job in jobs if not self._has_ended(job.number)]
        self._answers.fetched(function, priority, there, len(jobs) < limit)

    def _not_fetched(self, failure: Failure, function: bytes, priority: int) -> None:
        assert self._answers is not None
        self._answers.not_fetched(function, priority)
        self._holder.store_failed(failure)

    def _ask(
        self,
        found: Callable[[Any], None],
        tell: Callable[[Any], None],
        ask: Callable[..., object],
        *arguments: Any,
    ) -> None:
        """Hand what the store answers to `found`, or what prevents that to `tell`."""

        def answered(answer: Any) -> None:
            found(answer)
            self._holder.store_answered()

        def not_answered(failure: Failure) -> None:
            tell(LookupFailed())
            if isinstance(failure.value, StoreError):
                self._holder.store_failed(failure)
            else:
                # A defect in one lookup is no reason to refuse everybody's jobs.
                _log.failure("The store failed", failure)

        self._in_thread(ask, *arguments).addCallbacks(answered, not_answered).addErrback(log_defect)
