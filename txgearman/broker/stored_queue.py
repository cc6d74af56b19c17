"""The part of one function's queues that is in the store alone."""

from __future__ import annotations

from typing import Any, Final, Generic

from txgearman.broker.job_states import PRIORITIES
from txgearman.broker.keyed_queue import J


class StoredQueue(Generic[J]):
    """The tail of a function's queues, by priority.

    `jobs` counts the jobs in it, `position` is that of the last job ahead of it, `fetching` says that its
    first jobs are under way into memory. `last` is what was last in its queue when the stored_queue began, or
    when jobs of it came into memory: the next come when that has been given out, however many foreground jobs
    have come to memory since. In a priority with a stored_queue every job that comes goes behind it, so that
    the store's order is the order in which they come.
    """

    __slots__ = ("fetching", "jobs", "last", "position")

    def __init__(self) -> None:
        self.jobs = [0] * PRIORITIES
        self.position = [-1] * PRIORITIES
        self.fetching = [False] * PRIORITIES
        self.last: list[J | None] = [None] * PRIORITIES


NO_STORED_QUEUE: Final[StoredQueue[Any]] = StoredQueue()
"""That of a function without one. Never changed."""
