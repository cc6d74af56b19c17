"""A worker's jobs by their function."""

from __future__ import annotations

from typing import Final, Generic, Protocol, TypeVar

_SLACK: Final = 64
"""Handles of jobs that have ended that are never worth a clean-up."""


class RunningJob(Protocol):
    """What the index needs of a job."""

    handle: bytes

    @property
    def function(self) -> object:
        """What the job is of."""


J = TypeVar("J", bound=RunningJob)


class RunningByFunction(Generic[J]):
    """Finds a worker's jobs of one function without walking the others.

    Few ask: a worker that unregisters a function while it has jobs. So the index is not told of each job
    that is given and ends, which would cost every job something. It catches up when it is asked: new jobs
    are the last of the worker's dictionary, and handles of jobs that have ended find nothing there. Each job
    is caught up with once, so asking is O(1) over time, beside what is found.
    """

    __slots__ = ("_handles", "_known")

    def __init__(self) -> None:
        self._handles: dict[object, dict[bytes, None]] = {}
        self._known: set[bytes] = set()

    def take(self, function: object, jobs: dict[bytes, J]) -> list[J]:
        """Take the jobs of `function` out of `jobs`, all that the worker has, in the order in which it got
        them."""
        self._catch_up(jobs)
        handles = self._handles.pop(function, {})
        self._known.difference_update(handles)
        return [jobs.pop(handle) for handle in handles if handle in jobs]

    def forget(self, job: J) -> None:
        """The worker has lost a job, and may get it again."""
        if job.handle in self._known:
            self._known.remove(job.handle)
            del self._handles[job.function][job.handle]

    def _catch_up(self, jobs: dict[bytes, J]) -> None:
        if len(self._known) > 2 * len(jobs) + _SLACK:
            self._known.clear()
            self._handles.clear()
        new = []
        for handle, job in reversed(jobs.items()):
            if handle in self._known:
                break
            new.append((handle, job.function))
        for handle, function in reversed(new):
            self._known.add(handle)
            self._handles.setdefault(function, {})[handle] = None
