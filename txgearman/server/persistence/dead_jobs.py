"""The dead jobs in a store: the broker's `DeadJobStore`, and the eviction of the oldest."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from txgearman.broker.dead_job import DeadCursor, DeadFilter, DeadJob, DeadPage
from txgearman.broker.stored_job import StoredJob
from txgearman.errors import LeaseLost, LookupFailed, Refused
from txgearman.server.persistence.thread import EndWriter, InThread, ask_store, log_defect, tell_failure
from txgearman.store.contract.dead_jobs import DeadCount, DeadJobTable

if TYPE_CHECKING:
    from txgearman.broker.store_answers import StoreAnswers

EVICTION_INTERVAL: Final = 60.0
"""Seconds between two evictions, whatever happens."""

EVICTION_SHARE: Final = 20
"""There is one too after so many deaths as are this part of those that are kept. So a twentieth is too many
at most, and an eviction, which counts all, is rare."""

MIN_DEATHS: Final = 100
"""Deaths between two evictions at least, where few are kept."""

EVICTED_AT_ONCE: Final = 1000
"""Dead jobs that are deleted in one transaction. What else is to be written comes in between."""

_log = Logger()


class StoredDeadJobs:
    """The dead jobs in a store. `load` and `begin` come first.

    What is asked sees all deaths that came before. Dead jobs are evicted once `limit` has said which.

    Args:
        table: The dead jobs of the store, used through `in_thread`.
        reactor: What makes timers.
        in_thread: Calls a function with arguments in the store's thread, in order, and returns a Deferred.
        wall_clock: Gives seconds since the epoch.
        writer: What writes deaths.
        unwritten: The numbers of jobs that are dead and not written as such yet.
    """

    def __init__(
        self,
        table: DeadJobTable,
        reactor: Any,
        in_thread: InThread,
        wall_clock: Callable[[], float],
        writer: EndWriter,
        unwritten: Container[int],
    ) -> None:
        self._table = table
        self._in_thread = in_thread
        self._wall_clock = wall_clock
        self._writer = writer
        self._unwritten = unwritten
        self._answers: StoreAnswers | None = None
        self._limits: tuple[int, int, float] | None = None
        self._counts: dict[bytes, int] = {}
        self._deaths = 0
        self._evicted = 0
        self._evicting = False
        self._timer = LoopingCall(self._evict)
        self._timer.clock = reactor
        # The positions of jobs of which nobody knows whether they were made live.
        self._unconfirmed: dict[int, int] = {}

    def limit(self, max_jobs: int, max_bytes: int, max_age: float) -> None:
        """Set what is kept from now on.

        Args:
            max_jobs: How many jobs.
            max_bytes: How many bytes of them, by `DeadJob.weight`.
            max_age: For how many seconds after their end.
        """
        self._limits = max_jobs, max_bytes, max_age
        if self._timer.running:
            self._evict()

    def load(self) -> None:
        """Count the dead jobs. Blocks, and is for the start."""
        self._counted(self._table.counts())

    def begin(self, answers: StoreAnswers) -> None:
        """Evict and count dead jobs from now on.

        Args:
            answers: What is told of a job that turns out to have been made live.
        """
        self._answers = answers
        self._timer.start(EVICTION_INTERVAL, now=False).addErrback(log_defect)

    def stop(self) -> None:
        """Evict no more."""
        if self._timer.running:
            self._timer.stop()

    def died(self, dead: DeadJob) -> None:
        """Count a job that has died; its death will be written.

        Args:
            dead: The job.
        """
        self._counts[dead.function] = self._counts.get(dead.function, 0) + 1
        self._deaths += 1
        if self._limits is not None and self._deaths > max(MIN_DEATHS, self._limits[0] // EVICTION_SHARE):
            self._deaths = 0
            self._writer.when_ends_are_written(self._evict)

    def disowned(self) -> None:
        """The lease was lost: what may have been made live is another server's."""
        self._unconfirmed.clear()

    # -- eviction ---------------------------------------------------------------------------------

    def _evict(self) -> None:
        if self._evicting or not self._timer.running:
            return
        self._evicting = True
        self._confirm()
        if self._limits is None:
            self._count()
            return
        max_jobs, max_bytes, max_age = self._limits
        ended_before = self._wall_clock() - max_age
        self._in_thread(self._table.evict, max_jobs, max_bytes, ended_before, EVICTED_AT_ONCE).addCallbacks(
            self._have_evicted, self._failed
        ).addErrback(log_defect)

    def _have_evicted(self, evicted: int) -> None:
        self._evicted += evicted
        if evicted:
            _log.info(
                "{count} dead jobs are deleted: the oldest, as --dead-jobs, --dead-bytes and --dead-age say",
                count=evicted,
            )
        if evicted == EVICTED_AT_ONCE:
            self._evicting = False
            self._evict()
        else:
            self._count()

    def _count(self) -> None:
        self._in_thread(self._table.counts).addCallbacks(self._counted, self._failed).addErrback(log_defect)

    def _counted(self, counts: list[DeadCount]) -> None:
        self._evicting = False
        self._counts = {count.function: count.jobs for count in counts}

    def _failed(self, failure: Failure) -> None:
        # The writer tells the operator what is wrong with the store; the next time will do.
        self._evicting = False
        _log.debug("Dead jobs could not be evicted: {error}", error=failure.value)

    def _confirm(self) -> None:
        """Learn what became of jobs that were to be made live when the store failed."""
        unconfirmed, self._unconfirmed = self._unconfirmed, {}
        for number, position in unconfirmed.items():
            self._revive(number, position, self._restore)

    def _restore(self, stored: StoredJob | Refused | None) -> None:
        assert self._answers is not None
        if isinstance(stored, StoredJob):
            self._answers.restore(stored)

    # -- DeadJobStore -----------------------------------------------------------------------------

    def page(
        self,
        wanted: DeadFilter,
        before: DeadCursor | None,
        limit: int,
        with_data: bool,
        tell: Callable[[DeadPage | Refused], None],
    ) -> None:
        self._ask(tell, self._table.page, wanted, before, limit, with_data)

    def find(self, number: int, tell: Callable[[DeadJob | Refused | None], None]) -> None:
        self._ask(tell, self._table.find, number)

    def retry(self, number: int, tell: Callable[[StoredJob | Refused | None], None]) -> None:
        def retry() -> None:
            if number in self._unwritten:
                # Its death may have been committed and would be written again, over the job that lives.
                tell(LookupFailed())
                return
            assert self._answers is not None
            if number not in self._unconfirmed:
                self._unconfirmed[number] = self._answers.reserve(1)
            self._revive(number, self._unconfirmed.pop(number), tell)

        self._writer.when_ends_are_written(retry)

    def forget(self, numbers: Sequence[int], tell: Callable[[int | Refused], None]) -> None:
        def forgotten(count: int | Refused) -> None:
            if count and not isinstance(count, Refused):
                self._count()
            tell(count)

        self._ask(forgotten, self._table.forget, list(numbers))

    def counts(self) -> Mapping[bytes, int]:
        return self._counts

    @property
    def evicted(self) -> int:
        return self._evicted

    def _revive(self, number: int, position: int, tell: Callable[[StoredJob | Refused | None], None]) -> None:
        def revived(stored: StoredJob | None) -> None:
            if stored is not None:
                left = self._counts.pop(stored.function, 0) - 1
                if left > 0:
                    self._counts[stored.function] = left
            tell(stored)

        def not_revived(failure: Failure) -> None:
            if not isinstance(failure.value, (Refused, LeaseLost)):
                self._unconfirmed[number] = position
            tell_failure(failure, tell)

        self._in_thread(self._table.retry, number, position, self._wall_clock()).addCallbacks(
            revived, not_revived
        ).addErrback(log_defect)

    def _ask(self, tell: Callable[[Any], None], ask: Callable[..., object], *arguments: Any) -> None:
        """Hand what the store answers to `tell`, or why it does not."""

        def go_on() -> None:
            ask_store(self._in_thread, tell, ask, *arguments)

        self._writer.when_ends_are_written(go_on)
