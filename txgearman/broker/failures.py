"""The failed runs of a job that has not ended, and what its worker said."""

from __future__ import annotations

from typing import Final, NamedTuple

MAX_RUNS: Final = 20
"""Failed runs that are remembered of one job, the latest ones. They are shown; nothing is decided by them."""

MAX_SNOOZES: Final = 1000
"""Runs of one job that its worker may ask not to count. Those after count as attempts, so that no job runs
in circles for ever. A job that looks once a minute whether it can begin may do so for 16 hours."""

RUN_SIZE: Final = 300
"""Bytes that a failed run counts beside its error."""

MAX_WARNINGS: Final = 5
"""Warnings that are remembered of one job, the latest ones."""


class FailedRun(NamedTuple):
    """One run that failed: when it began and ended in seconds since the epoch (`started` None where no times
    are taken), its outcome as a plain int, its worker, and what that said of the failure."""

    started: float | None
    ended: float
    outcome: int
    worker: bytes
    error: bytes


class Failures:
    """What is known of a job's failed runs.

    `attempts` counts the runs that ended in WORK_FAIL, WORK_EXCEPTION or a time limit that counts, and
    `snoozes` those that do not count as their workers asked for that. `outcome` is that of the last one,
    `error` what its worker said, and `worker` which it was. `retry_at` is when the
    job is to be queued again, in seconds since the epoch, None once it has been. `runs` are the latest of
    those runs that this server has seen, and `warnings` what workers have warned of.
    """

    __slots__ = ("attempts", "error", "outcome", "retry_at", "runs", "snoozes", "warnings", "worker")

    def __init__(self, attempts: int = 0, outcome: int = 0, error: bytes = b"") -> None:
        self.attempts = attempts
        self.snoozes = 0
        self.outcome = outcome
        self.error = error
        self.worker = b""
        self.retry_at: float | None = None
        # Not deques: each takes 700 bytes, and a million jobs may wait for their retry.
        self.runs: tuple[FailedRun, ...] = ()
        self.warnings: tuple[bytes, ...] = ()

    def add_run(self, run: FailedRun) -> None:
        """Remember a run beside those before it."""
        self.runs = (*self.runs[1 - MAX_RUNS :], run)

    def add_warning(self, warning: bytes) -> None:
        """Remember a warning beside those before it."""
        self.warnings = (*self.warnings[1 - MAX_WARNINGS :], warning)

    @property
    def ended_runs(self) -> int:
        """How many runs a worker has ended otherwise than by completing the job."""
        return self.attempts + self.snoozes

    @property
    def size(self) -> int:
        """Bytes that its texts have."""
        texts = len(self.error) + sum(map(len, self.warnings))
        return texts + sum(RUN_SIZE + len(run.error) for run in self.runs)
