"""Finding the live job that a unique stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from txgearman.broker.function import Function
    from txgearman.broker.job import Job


class Uniques:
    """Live jobs by (key, function), and the newest by key alone. Each call is O(1).

    A key that one function uses, which is nearly every key, costs one dictionary entry.
    """

    __slots__ = ("_jobs",)

    def __init__(self) -> None:
        self._jobs: dict[bytes, Job | dict[Function, Job]] = {}

    def find(self, key: bytes, function: Function) -> Job | None:
        """The live job of `function` with this key."""
        entry = self._jobs.get(key)
        if entry is None:
            return None
        if isinstance(entry, dict):
            return entry.get(function)
        return entry if entry.function is function else None

    def newest(self, key: bytes) -> Job | None:
        """The live job with this key that was added last, whatever its function."""
        entry = self._jobs.get(key)
        if isinstance(entry, dict):
            return entry[next(reversed(entry))]
        return entry

    def add(self, key: bytes, job: Job) -> None:
        """Add a job that `find` does not find yet."""
        entry = self._jobs.setdefault(key, job)
        if entry is not job:
            if isinstance(entry, dict):
                entry[job.function] = job
            else:
                self._jobs[key] = {entry.function: entry, job.function: job}

    def shrink(self) -> None:
        """Give back the memory of a table that was larger once."""
        self._jobs = dict(self._jobs)

    def remove(self, key: bytes, job: Job) -> None:
        """Remove a job that was added."""
        entry = self._jobs[key]
        if entry is job:
            del self._jobs[key]
        elif isinstance(entry, dict):
            del entry[job.function]
            if len(entry) == 1:
                (self._jobs[key],) = entry.values()
