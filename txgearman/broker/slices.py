"""Work over many things, cut into slices, so that a peer that leaves much behind holds up nobody else."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Final

from txgearman.broker.timer import Timer

SLICE: Final = 1000
"""Things that are seen to in one go: jobs that their client or worker has left, functions that a worker had
registered. Jobs that waited take 1.2 milliseconds, those that ran 2.7, functions 0.6."""


class Slices:
    """Tasks that are under way. Each is an iterator, which does its next thing when it is asked for.

    They take turns, so that a small one is done soon however much another has to do. `size` is how many
    things a slice has. As long as there are tasks, the alarm of `timer` rings at once.
    """

    __slots__ = ("_tasks", "_timer", "size")

    def __init__(self, timer: Timer) -> None:
        self._timer = timer
        self.size = SLICE
        self._tasks: deque[Iterator[object]] = deque()

    def __len__(self) -> int:
        return len(self._tasks)

    def begin(self, task: Iterator[object]) -> None:
        """Do the first slice of a task; what is left is done by `go_on`."""
        done = 0
        for _ in islice(task, self.size):
            done += 1
        if done == self.size:
            self._tasks.append(task)
        if self._tasks:
            self._timer.ring_at(self._timer.clock())

    def go_on(self) -> None:
        """Do the next slice of one task."""
        if self._tasks:
            self.begin(self._tasks.popleft())
