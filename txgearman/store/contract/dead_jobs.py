"""Dead jobs, which belong to no server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from txgearman.broker.dead_job import DeadCursor, DeadFilter, DeadJob, DeadPage
from txgearman.broker.stored_job import StoredJob

MAX_EXAMINED: Final = 2000
"""Dead jobs that are looked at for one page of a search, so that one that finds little does not hold up the
writes."""

MAX_EXAMINED_BYTES: Final = 16 * 1024 * 1024
"""Bytes of them, by `DeadJob.weight`, for a page of a search or one with data; but one job at least."""


class DeadCount(NamedTuple):
    """The dead jobs of a function.

    Attributes:
        function: The function's name.
        jobs: How many there are.
        weight: The sum of their `DeadJob.weight`.
    """

    function: bytes
    jobs: int
    weight: int


class DeadJobTable(Protocol):
    """The dead jobs. `Store.write` makes them."""

    def page(self, wanted: DeadFilter, before: DeadCursor | None, limit: int, with_data: bool) -> DeadPage:
        """Read dead jobs, those that ended last first.

        Args:
            wanted: Which ones.
            before: The cursor after which the page begins, None for the first page.
            limit: How many jobs to read at most. A search looks at `MAX_EXAMINED` at most, and a search or a
                page with data at `MAX_EXAMINED_BYTES`. So a page may be short or empty and not be the last.
            with_data: Whether the jobs are to have their data.

        Returns:
            The page.
        """

    def find(self, number: int) -> DeadJob | None:
        """Find a dead job by its number.

        Args:
            number: The number of its handle.

        Returns:
            The job with its data; None if there is none.
        """

    def retry(self, number: int, position: int, submitted: float) -> StoredJob | None:
        """Make a dead job a live one of this server, without attempts and losses.

        Of several servers that do this with one job at the same time one succeeds. If the answer to a call is
        lost, the next one with the same position returns the same job.

        Args:
            number: The job's number.
            position: Its new position, which no other job ever has.
            submitted: The time from which its age counts now, in seconds since the epoch.

        Returns:
            The job; None if there is no dead job with this number.

        Raises:
            UniqueInUse: There is a stored job with its function and unique. It stays dead.
        """

    def forget(self, numbers: Sequence[int]) -> int:
        """Delete dead jobs.

        Args:
            numbers: The numbers of their handles.

        Returns:
            How many of them there were.
        """

    def counts(self) -> list[DeadCount]:
        """Count the dead jobs.

        Returns:
            The counts of the functions that have some.
        """

    def evict(self, max_jobs: int, max_bytes: int, ended_before: float, limit: int) -> int:
        """Delete the dead jobs that ended first, until the others are within the limits.

        Args:
            max_jobs: How many may stay.
            max_bytes: How many bytes they may have by `DeadJob.weight`.
            ended_before: In seconds since the epoch; those that ended before are deleted in any case.
            limit: How many jobs to delete at most.

        Returns:
            How many were deleted; `limit` if there may be more.
        """
