"""Results that wait to be written: of jobs that are done, until they are in the store.

In an outage of the store they gather, and are bounded together. No I/O and no timers here: the writer has
them.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from txgearman.broker.kept_result import KeptResult
from txgearman.server.persistence.pending import Pending

MAX_RESULTS: Final = 2000
"""Results that are written in one transaction."""

MAX_RESULT_BATCH_BYTES: Final = 8 * 1024 * 1024
"""Bytes of them in one transaction, by `KeptResult.weight`, one result excepted: as many as of new jobs."""


class PendingResult(NamedTuple):
    """The result of a job.

    Attributes:
        result: The result.
        ended: When the job ended, by the monotonic clock; -inf where nobody knows.
    """

    result: KeptResult
    ended: float


class PendingResults(Pending[PendingResult]):
    """The results that wait, and those of the transaction in flight."""

    def __init__(self) -> None:
        super().__init__()
        # Bytes of those that wait.
        self._size = 0

    def add(self, pending: PendingResult, max_bytes: int | None = None) -> list[PendingResult]:
        """Let a result wait.

        Args:
            pending: The result.
            max_bytes: How many bytes may wait, by `KeptResult.weight`; None for no limit.

        Returns:
            Those that may not wait any more: the oldest.
        """
        self._waiting[pending.result.number] = pending
        self._size += pending.result.weight
        dropped: list[PendingResult] = []
        while max_bytes is not None and self._size > max_bytes:
            dropped.append(self._pop(next(iter(self._waiting))))
        return dropped

    def take(self) -> dict[int, PendingResult]:
        """Put those that came first into the transaction that begins.

        Returns:
            These results, by job number.
        """
        size = 0
        first: list[int] = []
        for number, pending in self._waiting.items():
            size += pending.result.weight
            if len(first) == MAX_RESULTS or (first and size > MAX_RESULT_BATCH_BYTES):
                break
            first.append(number)
        self._in_flight = {number: self._pop(number) for number in first}
        return self._in_flight

    def not_written(self) -> None:
        """The transaction failed: its results wait again, ahead of the others."""
        self._size += sum(pending.result.weight for pending in self._in_flight.values())
        self._waiting = {**self._in_flight, **self._waiting}
        self._in_flight = {}

    def clear(self) -> None:
        """Let none wait any more."""
        self._waiting = {}
        self._size = 0

    def _pop(self, number: int) -> PendingResult:
        pending = self._waiting.pop(number)
        self._size -= pending.result.weight
        return pending
