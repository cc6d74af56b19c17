"""The history: what became of the jobs that ended last."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from txgearman.broker.entities import Job

OVERHEAD: Final = 600
"""Bytes that a remembered job counts beside its texts: the job's object and its entry here."""


class EndedJob(NamedTuple):
    """A job that has ended.

    `job` still has what it had at its end, without its data; of its failed runs `Job.failures` knows.
    `worker` is what had it last, empty if none had. `ended` is in seconds since the epoch, and `ran` for how
    many seconds its last run took, None where no times are taken or it was not running. `outcome` is one of
    `Ending` as a plain int, None for a completed job.
    """

    job: Job
    worker: bytes
    ended: float
    ran: float | None
    outcome: int | None
    size: int


class History:
    """The jobs that ended last, by handle: at most `max_jobs` of them, with at most so many bytes."""

    __slots__ = ("_bytes", "_entries", "_max_bytes", "_max_jobs")

    def __init__(self, max_jobs: int, max_bytes: int) -> None:
        self._max_jobs = max_jobs
        self._max_bytes = max_bytes
        self._entries: OrderedDict[bytes, EndedJob] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size(self) -> int:
        """How many bytes it takes."""
        return self._bytes

    def limit(self, max_jobs: int, max_bytes: int) -> None:
        """Remember so many from now on."""
        self._max_jobs, self._max_bytes = max_jobs, max_bytes
        self._evict()

    def add(self, job: Job, worker: bytes, ended: float, ran: float | None, outcome: int | None) -> None:
        """Remember a job that ends."""
        size = OVERHEAD + len(job.unique) + len(worker)
        failures = job.failures
        if failures is not None:
            size += len(failures.error) + sum(map(len, failures.warnings))
            size += sum(OVERHEAD // 2 + len(run.error) for run in failures.runs)
        handle = job.handle
        entries = self._entries
        # One that was retried by hand ends twice.
        before = entries.pop(handle, None) if handle in entries else None
        if before is not None:
            self._bytes -= before.size
        entries[handle] = EndedJob(job, worker, ended, ran, outcome, size)
        self._bytes += size
        if len(entries) > self._max_jobs or self._bytes > self._max_bytes:
            self._evict()

    def _evict(self) -> None:
        entries = self._entries
        while entries and (len(entries) > self._max_jobs or self._bytes > self._max_bytes):
            _, entry = entries.popitem(last=False)
            self._bytes -= entry.size

    def get(self, handle: bytes) -> EndedJob | None:
        """The job with this handle, if it ended not too long ago."""
        return self._entries.get(handle)
