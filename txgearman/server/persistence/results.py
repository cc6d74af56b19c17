"""The results in a store: the broker's `ResultStore`, and the eviction of the oldest."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from txgearman.broker.kept_result import KeptResult, ResultCounts
from txgearman.errors import LookupFailed, StoreError
from txgearman.server.persistence.thread import EndWriter, InThread, ask_store, log_defect
from txgearman.store.contract.results import Evicted, ResultTable

if TYPE_CHECKING:
    from txgearman.errors import Refused

EVICTION_INTERVAL: Final = 60.0
"""Seconds between two evictions, whatever happens."""

EVICTION_SHARE: Final = 20
"""There is one too after so many bytes of results as are this part of those that are kept. So a twentieth is
too many at most, and an eviction, which counts all, is rare."""

MIN_BYTES: Final = 1024 * 1024
"""Bytes of results between two evictions at least, where few are kept."""

EVICTED_AT_ONCE: Final = 1000
"""Results that are deleted in one transaction. What else is to be written comes in between."""

_log = Logger()


class StoredResults:
    """The results in a store, which belong to no server: each answers for all.

    What is asked sees all jobs that were done before.

    Args:
        table: The results of the store, used through `in_thread`.
        reactor: What makes timers.
        in_thread: Calls a function with arguments in the store's thread, in order, and returns a Deferred.
        wall_clock: Gives seconds since the epoch.
        writer: What writes results.
        unwritten: The numbers of jobs that are done, and whose results are not written yet.

    Attributes:
        max_bytes: How many bytes are kept at most, by `KeptResult.weight`; None for no limit.
    """

    def __init__(
        self,
        table: ResultTable,
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
        self.max_bytes: int | None = None
        self._counts = ResultCounts(0, 0)
        self._new_bytes = 0
        self._expired = 0
        self._evicted = 0
        self._evicting = False
        self._timer = LoopingCall(self._evict)
        self._timer.clock = reactor

    def limit(self, max_bytes: int) -> None:
        """Set what is kept from now on.

        Args:
            max_bytes: How many bytes, by `KeptResult.weight`.
        """
        self.max_bytes = max_bytes
        if self._timer.running:
            self._evict()

    def load(self) -> None:
        """Count the results. Blocks, and is for the start."""
        self._counts = self._table.counts()

    def begin(self) -> None:
        """Evict and count results from now on."""
        self._timer.start(EVICTION_INTERVAL, now=False).addErrback(log_defect)

    def stop(self) -> None:
        """Evict no more."""
        if self._timer.running:
            self._timer.stop()

    def completed(self, result: KeptResult) -> None:
        """Count a result, which will be written.

        Args:
            result: The result.
        """
        results, weight = self._counts
        self._counts = ResultCounts(results + 1, weight + result.weight)
        self._new_bytes += result.weight
        if self.max_bytes is not None and self._new_bytes > max(MIN_BYTES, self.max_bytes // EVICTION_SHARE):
            self._writer.when_ends_are_written(self._evict)

    def dropped(self) -> None:
        """A result was not written, as too many bytes of results waited for the store."""
        self._evicted += 1

    # -- eviction ---------------------------------------------------------------------------------

    def _evict(self) -> None:
        if not (self._evicting or not self._timer.running):
            self._evicting = True
            self._new_bytes = 0
            Deferred.fromCoroutine(self._evict_all()).addErrback(log_defect)

    async def _evict_all(self) -> None:
        try:
            while self.max_bytes is not None:
                done: Evicted = await self._in_thread(
                    self._table.evict, self.max_bytes, self._wall_clock(), EVICTED_AT_ONCE
                )
                self._expired += done.expired
                self._evicted += done.evicted
                if done.evicted:
                    _log.info(
                        "{count} results are deleted: the oldest, as --results-bytes says", count=done.evicted
                    )
                if max(done) < EVICTED_AT_ONCE:
                    break
            self._counts = await self._in_thread(self._table.counts)
        except StoreError as error:
            # The writer tells the operator what is wrong with the store; the next time will do.
            _log.debug("Results could not be evicted: {error}", error=error)
        finally:
            self._evicting = False

    # -- ResultStore ------------------------------------------------------------------------------

    def find(self, number: int, tell: Callable[[KeptResult | Refused | None], None]) -> None:
        def go_on() -> None:
            if number not in self._unwritten:
                ask_store(self._in_thread, tell, self._table.find, number, self._wall_clock())
            elif self._writer.outage is None:
                # There were more than one transaction takes.
                self._writer.when_ends_are_written(go_on)
            else:
                tell(LookupFailed())

        self._writer.when_ends_are_written(go_on)

    def counts(self) -> ResultCounts:
        return self._counts

    @property
    def expired(self) -> int:
        return self._expired

    @property
    def evicted(self) -> int:
        return self._evicted
