"""The part of one function's queues that is in the store alone."""

from __future__ import annotations

import operator
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

    `blocked` counts the jobs that are ahead of that and in the store alone all the same, as their key is
    full: `KeyedQueue` has their stubs. `refetch` says that what is under way is out of date.
    """

    __slots__ = ("blocked", "fetching", "jobs", "last", "position", "refetch")

    def __init__(self) -> None:
        self.jobs = [0] * PRIORITIES
        self.position = [-1] * PRIORITIES
        self.fetching = [False] * PRIORITIES
        self.last: list[J | None] = [None] * PRIORITIES
        self.blocked = [0] * PRIORITIES
        self.refetch = [False] * PRIORITIES

    @property
    def alone(self) -> list[int]:
        """How many jobs are in the store alone, by priority."""
        return list(map(operator.add, self.jobs, self.blocked))

    def after(self, priority: int) -> int | None:
        """The position that those of a priority are greater than, None if there are none. Jobs in memory may
        be greater too."""
        if self.blocked[priority]:
            return 0
        return self.position[priority] if self.jobs[priority] else None

    def take_back(self, priority: int, position: int) -> None:
        """The blocked jobs are not known any more: begin anew at the first of them, which has this
        position."""
        self.jobs[priority] += self.blocked[priority]
        self.blocked[priority] = 0
        self.position[priority] = min(self.position[priority], position - 1)
        self.last[priority] = None
        self.refetch[priority] = self.fetching[priority]


NO_STORED_QUEUE: Final[StoredQueue[Any]] = StoredQueue()
"""That of a function without one. Never changed."""
