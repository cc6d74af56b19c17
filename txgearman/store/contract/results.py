"""Results of jobs, which belong to no server."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from txgearman.broker.kept_result import KeptResult, ResultCounts


class Evicted(NamedTuple):
    """What `ResultTable.evict` deleted.

    Attributes:
        expired: How many results whose time was over.
        evicted: How many others.
    """

    expired: int
    evicted: int


class ResultTable(Protocol):
    """The results that are kept. `Store.write` keeps them."""

    def find(self, number: int, now: float) -> KeptResult | None:
        """Find the result of a job.

        Args:
            number: The number of its handle.
            now: In seconds since the epoch. A result that expires until then is not found.

        Returns:
            The result with its data; None if there is none.
        """

    def counts(self) -> ResultCounts:
        """Count the results.

        Returns:
            How many there are, and how many bytes they count for.
        """

    def evict(self, max_bytes: int, now: float, limit: int) -> Evicted:
        """Delete the results that have expired, and then those of the jobs that ended first, until the others
        are within the limit.

        Args:
            max_bytes: How many bytes may stay, by `KeptResult.weight`.
            now: In seconds since the epoch. Results that expire until then have expired.
            limit: How many results of each kind to delete at most.

        Returns:
            How many were deleted; `limit` where there may be more.
        """
