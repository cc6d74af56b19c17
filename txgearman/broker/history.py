"""The history: what became of the jobs that ended last."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from txgearman.broker.entities import Job

OVERHEAD: Final = 600
"""Bytes that a remembered job counts beside its texts: the job's object and its entry here."""


class EndedJob(NamedTuple):
    """A job that has ended.

    `job` still has what it had at its end, without its data; of its failed runs `Job.failures` knows.
    `worker` is what had it last, empty if none had. `ended` is in seconds since the epoch. `outcome` is one
    of `Outcome` as a plain int, None for a completed job. `size` is what it counts for in bytes.
    """

    job: Job
    worker: bytes
    ended: float
    outcome: int | None
    size: int


class History:
    """The jobs that ended last: at most `max_jobs` of them, with at most so many bytes.

    There is no index: one would cost each job that ends more than a look-up, of which there are few, costs in
    all. So to look one up walks the history.
    """

    __slots__ = ("_entries", "_max_jobs", "_max_size", "size")

    def __init__(self, max_jobs: int, max_size: int) -> None:
        self._max_jobs = max_jobs
        self._max_size = max_size
        self._entries: deque[EndedJob] = deque()
        self.size = 0

    def __len__(self) -> int:
        return len(self._entries)

    def limit(self, max_jobs: int, max_size: int) -> None:
        """Remember so many from now on."""
        self._max_jobs, self._max_size = max_jobs, max_size
        self._evict()

    def add(self, job: Job, worker: bytes, ended: float, outcome: int | None) -> None:
        """Remember a job that ends."""
        size = OVERHEAD + len(job.unique)
        if job.failures is not None:
            size += job.failures.size
        # Past the constructor, which a named tuple has in Python.
        self._entries.append(tuple.__new__(EndedJob, (job, worker, ended, outcome, size)))
        self.size += size
        if self.size > self._max_size or len(self._entries) > self._max_jobs:
            self._evict()

    def _evict(self) -> None:
        entries = self._entries
        while entries and (len(entries) > self._max_jobs or self.size > self._max_size):
            self.size -= entries.popleft().size

    def get(self, handle: bytes) -> EndedJob | None:
        """The job with this handle, if it ended not too long ago: as it ended last, where it was dead and ran
        again."""
        for entry in reversed(self._entries):
            if entry.job.handle == handle:
                return entry
        return None
