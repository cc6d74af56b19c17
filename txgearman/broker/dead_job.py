"""A dead job: one that failed, and is kept with its data so that somebody can run it again."""

from __future__ import annotations

from typing import Final, NamedTuple

MAX_ERROR = 8 * 1024
"""Bytes of an error text that are kept: a deep traceback has some thousand."""


OVERHEAD: Final = 512
"""Bytes that a dead job counts beside its data, unique and error: its objects or its row, and where it is
listed."""


class DeadJob(NamedTuple):
    """A background job that ended as failed, raised, timed-out or lost.

    `number` is the one that its handle ends with; no two jobs of a store have the same. `submitted`, `run_at`
    and `ended` are seconds since the epoch. `attempts` counts the runs that failed, `losses` the workers that
    went away with the job. `outcome` is one of `Outcome` as a plain int. `error` is what the worker said of
    the last failure, at most `MAX_ERROR` bytes, and `worker` which worker had it last, both empty if unknown.
    `attributes` are its encoded `JobOptions`, None for none, which count as nothing beside `OVERHEAD`.
    `data` may be left out of lists, and is None then; `size` is its length in bytes all the same.
    """

    number: int
    handle: bytes
    function: bytes
    unique: bytes
    data: bytes | None
    priority: int
    reducer: bytes | None
    submitted: float
    run_at: float | None
    ended: float
    attempts: int
    losses: int
    outcome: int
    error: bytes
    worker: bytes
    size: int
    attributes: bytes | None = None

    @property
    def weight(self) -> int:
        """The bytes that it counts for in a limit of bytes."""
        return OVERHEAD + self.size + len(self.unique) + len(self.error)


class DeadFilter(NamedTuple):
    """Which dead jobs are looked for.

    `function` is the function's name, None for all. `search` is looked for in function, unique, handle, error
    and data, as bytes and case-sensitive; empty for all.
    """

    function: bytes | None = None
    search: bytes = b""

    def matches(self, job: DeadJob) -> bool:
        """Whether a dead job is one of those."""
        if self.function is not None and job.function != self.function:
            return False
        if not self.search:
            return True
        return any(
            self.search in text for text in (job.function, job.unique, job.handle, job.error, job.data or b"")
        )


class DeadCursor(NamedTuple):
    """Where a page of dead jobs ends: the next one begins with those that ended before. Newest come first."""

    ended: float
    number: int


class DeadPage(NamedTuple):
    """Some dead jobs, the one that ended last first. `next` is the cursor of the next page, None for none. A
    page may be short, or empty, and not be the last, as only some jobs are looked at for each."""

    jobs: list[DeadJob]
    next: DeadCursor | None
