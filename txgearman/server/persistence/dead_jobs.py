"""The dead jobs in a store: the broker's `DeadJobStore`, and forgetting the oldest where there are too
many."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from txgearman.broker.dead_job import DeadCursor, DeadFilter, DeadJob, DeadPage
from txgearman.errors import LookupFailed, Refused
from txgearman.server.persistence.thread import InThread, log_defect
from txgearman.store.contract import DeadCount, Store, StoredJob

if TYPE_CHECKING:
    from txgearman.broker.store_answers import StoreAnswers

EVICTION_INTERVAL: Final = 60.0
"""Seconds between two looks at how many dead jobs there are, whatever happens."""

EVICTION_SHARE: Final = 20
"""Also after so many deaths as are this part of those that may be kept: a twentieth more than allowed at
most."""

EVICTED_AT_ONCE: Final = 1000
"""Dead jobs that are deleted in one transaction."""

_log = Logger()


class StoredDeadJobs:
    """The dead jobs in `store`, which is used through `in_thread`.

    Args:
        store: The store.
        reactor: What makes timers.
        in_thread: Calls a function with arguments in the store's thread, in order, and returns a Deferred.
    """

    def __init__(self, store: Store, reactor: Any, in_thread: InThread) -> None:
        self._store = store
        self._reactor = reactor
        self._in_thread = in_thread
        self._answers: StoreAnswers | None = None
        self._max_jobs, self._max_bytes, self._max_age = 0, 0, 0.0
        self._counts: dict[bytes, int] = {}
        self._deaths = 0
        self._evicted = 0
        self._looking: LoopingCall | None = None

    def limit(self, max_jobs: int, max_bytes: int, max_age: float) -> None:
        """Keep so many from now on: jobs, bytes of their data, and seconds since their end."""
        self._max_jobs, self._max_bytes, self._max_age = max_jobs, max_bytes, max_age

    def begin(self, answers: StoreAnswers) -> None:
        """Count the dead jobs, and look at them from now on."""
        self._answers = answers
        self._counted(self._store.dead_counts())
        self._looking = LoopingCall(self._look)
        self._looking.clock = self._reactor
        self._looking.start(EVICTION_INTERVAL, now=False).addErrback(log_defect)

    def stop(self) -> None:
        """Look at them no more."""
        if self._looking is not None and self._looking.running:
            self._looking.stop()

    def died(self, dead: DeadJob) -> None:
        """A job has died, and will be stored as dead."""
        self._counts[dead.function] = self._counts.get(dead.function, 0) + 1
        self._deaths += 1
        if self._deaths > max(100, self._max_jobs // EVICTION_SHARE):
            self._deaths = 0
            # Behind the transaction that stores it.
            self._reactor.callLater(1, self._look)

    def _look(self) -> None:
        if self._looking is None or not self._looking.running:
            return
        ended_before = time.time() - self._max_age
        limits = self._max_jobs, self._max_bytes, ended_before
        self._in_thread(self._store.evict_dead, *limits, EVICTED_AT_ONCE).addCallbacks(
            self._looked, self._failed
        ).addErrback(log_defect)

    def _looked(self, evicted: int) -> None:
        self._evicted += evicted
        if evicted == EVICTED_AT_ONCE:
            self._look()
            return
        if evicted:
            _log.info("{count} dead jobs were forgotten: the oldest, as --dead-jobs says", count=evicted)
        self._in_thread(self._store.dead_counts).addCallbacks(self._counted, self._failed).addErrback(
            log_defect
        )

    def _counted(self, counts: list[DeadCount]) -> None:
        self._counts = {count.function: count.jobs for count in counts}

    def _failed(self, failure: Failure) -> None:
        # The writer says what is wrong with the store; the next look will be as good.
        _log.debug("The dead jobs could not be looked at: {error}", error=failure.value)

    # -- DeadJobStore -----------------------------------------------------------------------------

    def page(
        self,
        wanted: DeadFilter,
        before: DeadCursor | None,
        limit: int,
        with_data: bool,
        tell: Callable[[DeadPage | Refused], None],
    ) -> None:
        self._ask(tell, self._store.dead, wanted, before, limit, with_data)

    def find(self, number: int, tell: Callable[[DeadJob | Refused | None], None]) -> None:
        self._ask(tell, self._store.find_dead, number)

    def retry(self, number: int, tell: Callable[[StoredJob | Refused | None], None]) -> None:
        assert self._answers is not None

        def retried(stored: StoredJob | Refused | None) -> None:
            if isinstance(stored, StoredJob):
                self._forgotten(stored.function, 1)
            tell(stored)

        self._ask(retried, self._store.retry_dead, number, self._answers.reserve(1))

    def forget(self, numbers: Sequence[int], tell: Callable[[int | Refused], None]) -> None:
        def forgotten(count: int | Refused) -> None:
            if not isinstance(count, Refused) and count:
                self._in_thread(self._store.dead_counts).addCallbacks(self._counted, self._failed)
            tell(count)

        self._ask(forgotten, self._store.forget_dead, list(numbers))

    def counts(self) -> dict[bytes, int]:
        return dict(self._counts)

    @property
    def evicted(self) -> int:
        return self._evicted

    def _forgotten(self, function: bytes, count: int) -> None:
        left = self._counts.get(function, 0) - count
        if left > 0:
            self._counts[function] = left
        else:
            self._counts.pop(function, None)

    def _ask(self, tell: Callable[[Any], None], ask: Callable[..., object], *arguments: Any) -> None:
        """Hand what the store answers to `tell`, or the refusal that it raises, or what prevents that."""

        def not_answered(failure: Failure) -> None:
            if isinstance(failure.value, Refused):
                tell(failure.value)
                return
            _log.warn("The dead jobs cannot be reached: {error}", error=failure.value)
            tell(LookupFailed())

        self._in_thread(ask, *arguments).addCallbacks(tell, not_answered).addErrback(log_defect)
