"""Results that wait to be written: of jobs that are done, until they are in the store.

In an outage of the store they gather, and are bounded together. No I/O and no timers here: the writer has
them.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from txgearman.broker.kept_result import KeptResult

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


class PendingResults:
    """The results that wait, in the order in which they came, and those of the transaction in flight.

    A job is in it if it is one of either; its length counts those that wait.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, PendingResult] = {}
        self._in_flight: dict[int, PendingResult] = {}
        # Bytes of those that wait.
        self._size = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, number: int) -> bool:
        return number in self._waiting or number in self._in_flight

    @property
    def in_flight(self) -> bool:
        """Whether some are in the transaction in flight."""
        return bool(self._in_flight)

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

    def written(self) -> dict[int, PendingResult]:
        """The transaction took place.

        Returns:
            The results that were in it.
        """
        written, self._in_flight = self._in_flight, {}
        return written

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
