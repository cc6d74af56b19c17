"""Retries: how often a failed job is run again, and the backoff before each run."""

from __future__ import annotations

import math
from dataclasses import dataclass

DEFAULT_BACKOFF = 15.0
"""Seconds before the first retry, as with Sidekiq and Faktory: long enough for a dependency to restart."""

DEFAULT_BACKOFF_FACTOR = 2.0
"""Each backoff is twice the one before, as with most job systems."""

DEFAULT_BACKOFF_MAX = 3600.0
"""Seconds: an operator who has mended something need not wait for more than an hour."""

DEFAULT_JITTER = 0.1
"""The part by which a backoff is made longer or shorter at random, as with River, so that jobs that failed
together do not run together again."""

WORKER_ATTEMPTS = 25
"""Attempts of a job whose worker asks for a retry, where nothing is said of its function: the worker's word
is enough, and is no endless loop. As many as Sidekiq's and Faktory's retries."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """What becomes of a run that failed.

    Attributes:
        attempts: How many runs may fail. With 1 no job is retried.
        backoff: Seconds that a job waits before its first retry.
        factor: Each further backoff is so many times the one before.
        backoff_max: Seconds; no backoff is longer, apart from its jitter.
        jitter: The part, from 0 to 1, by which each backoff is made longer or shorter at random.
        online: Whether clients that wait for the result go on waiting while the job is retried. Otherwise
            they are told of the first failure.
    """

    attempts: int = 1
    backoff: float = DEFAULT_BACKOFF
    factor: float = DEFAULT_BACKOFF_FACTOR
    backoff_max: float = DEFAULT_BACKOFF_MAX
    jitter: float = DEFAULT_JITTER
    online: bool = False

    def delay(self, attempts: int, chance: float) -> float:
        """The backoff of a job.

        Args:
            attempts: How many of its runs have failed; 0 counts as 1.
            chance: A random number from 0 to 1, which decides the jitter; 0.5 is none.

        Returns:
            Seconds until it is run again.
        """
        if self.backoff == 0.0:
            return 0.0
        try:
            growth = math.pow(self.factor, max(attempts, 1) - 1)
        except OverflowError:
            growth = math.inf
        return min(self.backoff_max, self.backoff * growth) * (1.0 + self.jitter * (2.0 * chance - 1.0))
