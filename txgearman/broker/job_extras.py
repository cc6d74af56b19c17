"""What only some jobs have, apart from what all of them have."""

from __future__ import annotations

from typing import Final

from txgearman.broker.failures import Failures
from txgearman.broker.job_options import JobOptions

NO_PROGRESS: Final[tuple[int, int]] = (0, 0)


class JobExtras:
    """What only some jobs have.

    `reducer` is what SUBMIT_REDUCE_JOB names; `run_at` is when the job is to be queued, in seconds since the
    epoch, None for at once; `options` are what its submit says of it alone, None for nothing; `losses` counts
    the workers that got the job and lost it; `progress` is the numerator and denominator last reported;
    `failures` is what is known of its failed runs, None before the first.
    """

    __slots__ = ("failures", "losses", "options", "progress", "reducer", "run_at")

    def __init__(
        self, reducer: bytes | None = None, run_at: float | None = None, options: JobOptions | None = None
    ) -> None:
        self.reducer = reducer
        self.run_at = run_at
        self.options = options
        self.losses = 0
        self.progress = NO_PROGRESS
        self.failures: Failures | None = None


class ExtensibleJob:
    """A job that may have `extras`. Most have None: so these are smaller, and one test of that spares several
    on their way. The properties show what is there, and what holds for a job without."""

    __slots__ = ("extras",)

    # The job sets it: to call a constructor here too would be a hundredth of a submit.
    extras: JobExtras | None

    def extend(self) -> JobExtras:
        """`extras`, made if there are none."""
        extras = self.extras
        if extras is None:
            extras = self.extras = JobExtras()
        return extras

    def note_failures(self) -> Failures:
        """`failures`, made if there are none."""
        extras = self.extend()
        failures = extras.failures
        if failures is None:
            failures = extras.failures = Failures()
        return failures

    @property
    def reducer(self) -> bytes | None:
        """That of `JobExtras`."""
        return None if self.extras is None else self.extras.reducer

    @property
    def run_at(self) -> float | None:
        """That of `JobExtras`."""
        return None if self.extras is None else self.extras.run_at

    @property
    def options(self) -> JobOptions | None:
        """Those of `JobExtras`."""
        return None if self.extras is None else self.extras.options

    @property
    def losses(self) -> int:
        """Those of `JobExtras`."""
        return 0 if self.extras is None else self.extras.losses

    @property
    def progress(self) -> tuple[int, int]:
        """That of `JobExtras`."""
        return NO_PROGRESS if self.extras is None else self.extras.progress

    @property
    def failures(self) -> Failures | None:
        """Those of `JobExtras`."""
        return None if self.extras is None else self.extras.failures
