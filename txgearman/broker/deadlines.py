"""Things to do at a time, soonest first."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Final

from txgearman.broker.entities import Deadline

if TYPE_CHECKING:
    from txgearman.broker.entities import Job

_SLACK: Final = 64
"""Cancelled entries that are never worth a rebuild."""


class Deadlines:
    """A heap of deadlines. Adding is O(log n), cancelling O(1) over time.

    A cancelled entry stays in the heap until it comes up, or until such entries are the majority and
    the heap is rebuilt: workers that finish long before a limit of hours must not fill memory.
    """

    __slots__ = ("_cancelled", "_heap", "_numbers")

    def __init__(self) -> None:
        self._heap: list[Deadline] = []
        self._numbers = count()
        self._cancelled = 0

    def __len__(self) -> int:
        return len(self._heap) - self._cancelled

    def add(self, when: float, job: Job) -> Deadline:
        """Set a deadline at `when`; equal ones come up in the order they were set."""
        deadline = Deadline(when, next(self._numbers), job)
        heappush(self._heap, deadline)
        return deadline

    def cancel(self, deadline: Deadline) -> None:
        """Forget a deadline that has not come up."""
        deadline.job = None
        self._cancelled += 1
        if self._cancelled > _SLACK and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry.job is not None]
            heapify(self._heap)
            self._cancelled = 0

    def next(self) -> float | None:
        """When the soonest deadline is due."""
        heap = self._heap
        while heap and heap[0].job is None:
            heappop(heap)
            self._cancelled -= 1
        return heap[0].when if heap else None

    def pop_due(self, now: float) -> Job | None:
        """Take out the soonest deadline's job if it is due at `now`."""
        when = self.next()
        if when is None or when > now:
            return None
        return heappop(self._heap).job

    def put_off(self, deadline: Deadline, when: float) -> None:
        """Set a deadline that `pop_due` has taken out to a later time."""
        deadline.when = when
        heappush(self._heap, deadline)
