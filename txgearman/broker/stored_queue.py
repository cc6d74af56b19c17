"""Jobs that are not in memory: the tail of a deep queue, which only the job_store has. Data, no behaviour."""

from __future__ import annotations

from typing import Final

from txgearman.broker.job import PRIORITIES, Job


class StoredQueue:
    """The tail of a function's queues, by priority.

    `jobs` counts the jobs in it, `behind` is the place of the last job ahead of it, `fetching` says that its
    first jobs are under way into memory. `last` is what was last in its queue when the stored_queue began, or
    when jobs of it came into memory: the next come when that has been given out, however many foreground jobs
    have come to memory since. In a priority with a stored_queue every job that comes goes behind it, so that
    the job_store's order is the order in which they come.
    """

    __slots__ = ("behind", "fetching", "jobs", "last")

    def __init__(self) -> None:
        self.jobs = [0] * PRIORITIES
        self.behind = [-1] * PRIORITIES
        self.fetching = [False] * PRIORITIES
        self.last: list[Job | None] = [None] * PRIORITIES


NO_STORED_QUEUE: Final = StoredQueue()
"""That of a function without one. Never changed."""
