"""The history: what became of the jobs that ended last."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from txgearman.broker.entities import Job

PLAIN_SIZE: Final = 800
"""Bytes that a remembered job counts beside its failures: its object, handle, and the longest unique."""


class EndedJob(NamedTuple):
    """A job that has ended.

    `job` still has what it had at its end, without its data; of its failed runs `Job.failures` knows.
    `worker` is what had it last, empty if none had. `ended` is in seconds since the epoch. `outcome` is one
    of `Outcome` as a plain int, None for a completed job.
    """

    job: Job
    worker: bytes
    ended: float
    outcome: int | None


class History:
    """The jobs that ended last: at most `max_jobs` plain ones and as many others, with at most so many bytes.

    Jobs that were completed and had no failed run, in `plain`, count for `PLAIN_SIZE` each, so that a bounded
    deque forgets them by itself. All others may have long texts, and half of the bytes is for them.

    A plain one is what an `EndedJob` has ahead of its outcome. Whoever knows that a job is one may append it.

    There is no index: one would cost each job that ends more than a look-up, of which there are few, costs in
    all. So to look one up walks the history.
    """

    __slots__ = ("_max_others", "_max_others_size", "_others", "_others_size", "plain")

    def __init__(self, max_jobs: int, max_size: int) -> None:
        self._others: deque[EndedJob] = deque()
        self._others_size = 0
        self.plain: deque[tuple[Job, bytes, float]] = deque()
        self.limit(max_jobs, max_size)

    def __len__(self) -> int:
        return len(self.plain) + len(self._others)

    @property
    def size(self) -> int:
        """The bytes that it counts for."""
        return len(self.plain) * PLAIN_SIZE + self._others_size

    def limit(self, max_jobs: int, max_size: int) -> None:
        """Remember so many from now on."""
        self._max_others, self._max_others_size = max_jobs, max_size // 2
        self.plain = deque(self.plain, maxlen=min(max_jobs, max_size // 2 // PLAIN_SIZE))
        self._evict()

    def add(self, ended: EndedJob) -> None:
        """Remember a job."""
        if ended.outcome is None and ended.job.failures is None:
            self.plain.append((ended.job, ended.worker, ended.ended))
            return
        self._others.append(ended)
        self._others_size += _size(ended.job)
        self._evict()

    def _evict(self) -> None:
        others = self._others
        while others and (len(others) > self._max_others or self._others_size > self._max_others_size):
            self._others_size -= _size(others.popleft().job)

    def get(self, handle: bytes) -> EndedJob | None:
        """The job with this handle, if it ended not too long ago: as it ended last, where it was dead and ran
        again."""
        # A job that was completed at once never ran again, so what is known of it otherwise came before.
        for job, worker, ended in reversed(self.plain):
            if job.handle == handle:
                return EndedJob(job, worker, ended, None)
        return next((ended for ended in reversed(self._others) if ended.job.handle == handle), None)


def last_worker(job: Job) -> bytes:
    """The label of the worker that has a job, or else of the one that failed it last; empty if unknown."""
    if job.worker is not None:
        return job.worker.connection.label
    return b"" if job.failures is None else job.failures.worker


def _size(job: Job) -> int:
    """The bytes that a job with failures counts for. They do not change any more."""
    return PLAIN_SIZE + (0 if job.failures is None else job.failures.size)
