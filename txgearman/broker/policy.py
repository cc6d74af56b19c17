"""What an operator may choose about scheduling. Data only."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum
from typing import Final

from txgearman.access.patterns import matches
from txgearman.broker.retries import (
    DEFAULT_BACKOFF,
    DEFAULT_BACKOFF_FACTOR,
    DEFAULT_BACKOFF_MAX,
    DEFAULT_JITTER,
    WORKER_ATTEMPTS,
    RetryPolicy,
)

WAKE_PATIENCE: Final = 0.2
"""Seconds after which a woken worker that has not grabbed counts as not coming, and another is woken
for its job: longer than a round trip to a far worker, short enough that a job does not seem to hang."""

UNLIMITED: Final = -1

DEFAULT_DEAD_JOBS_IN_MEMORY: Final = 1000
"""Dead jobs where no store keeps them: enough to see what goes wrong."""

DEFAULT_DEAD_BYTES_IN_MEMORY: Final = 16 * 1024 * 1024
"""Bytes of these."""

DEFAULT_DEAD_AGE: Final = 180 * 86_400.0
"""Seconds: half a year, as with Sidekiq and Faktory."""

DEFAULT_HISTORY: Final = 5000
"""Ended jobs that are remembered: the last minutes of a busy server, the last days of a quiet one."""

DEFAULT_HISTORY_BYTES: Final = 8 * 1024 * 1024
"""Bytes of these."""

DEFAULT_RESULTS_BYTES_IN_MEMORY: Final = 16 * 1024 * 1024
"""Bytes of kept results where no store keeps them: as many as dead jobs take."""


DEFAULT_KEPT_UNIQUES: Final = 100_000
"""Uniques of completed jobs: one a second for a day. Each takes half a kilobyte."""


class FunctionOrder(Enum):
    """Which of a worker's functions is served first."""

    PRIORITY = "priority"
    """The highest priority over all of the worker's functions, which take turns within a priority:
    gearmand since 2.0."""
    REGISTRATION = "registration"
    """The function that the worker registered last, then the one before it, and so on; priority only
    within a function: gearmand 1.1. libgearman registers a worker's functions from last to first, so that
    its users see them served in the order in which they added them."""


KEY_SEPARATOR: Final = b":"
"""What a key ends at in a unique, where nothing else is said: that of Redis and of many URLs and names."""

MAX_SEPARATOR: Final = 16
"""Characters that may separate a key from the rest of a unique: such separators are short."""

MAX_START_RATE: Final = 1_000_000_000
"""Jobs a second, and at once: more than any server gives out, and little enough to be added up exactly."""


@dataclass(frozen=True, slots=True)
class RunRules:
    """What limits the runs of one function. 0 is no limit.

    Attributes:
        max_running: As that of `FunctionRules`.
        start_rate: As that of `FunctionRules`.
        start_burst: As that of `FunctionRules`.
        max_running_per_key: As that of `FunctionRules`.
        key_separator: As that of `FunctionRules`.
        pause_after: As that of `FunctionRules`.
    """

    max_running: int = 0
    start_rate: float = 0.0
    start_burst: int = 0
    max_running_per_key: int = 0
    key_separator: bytes = KEY_SEPARATOR
    pause_after: int = 0


NO_RUN_RULES: Final = RunRules()


@dataclass(frozen=True, slots=True)
class FunctionRules:
    """What holds for the jobs of one function; None where nothing is said.

    Attributes:
        limits: How many jobs the function may have when one more is let in, by the priority of that one
            (high, normal, low). None is no limit.
        time_limit: Seconds after which a running job is given to another worker; 0 is no limit. A shorter
            limit that the worker has set itself holds.
        job_retries: As `Policy.job_retries`.
        submit_rate: As that of `Policy`.
        submit_burst: As that of `Policy`.
        attempts: As that of `Policy`.
        backoff: As that of `Policy`.
        backoff_factor: As that of `Policy`.
        backoff_max: As that of `Policy`.
        jitter: As that of `Policy`.
        retry_online: Whether clients that wait for a result go on waiting while the job is retried.
        expires: Seconds from the job's submission, or its `run_at`, after which no run of it begins; 0 is
            never.
        heartbeat: As that of `Policy`.
        unique_for: Seconds for which the unique of a completed job is kept; 0 is not at all.
        keep_results: Seconds for which the results of background jobs are kept; 0 keeps none.
        max_running: How many jobs of the function may run at a time; 0 is no limit.
        start_rate: How many of its jobs may begin to run in a second; 0 is no limit.
        start_burst: How many of them may begin at once; 0 is as many as the rate.
        max_running_per_key: How many jobs with the same key may run at a time; 0 is no limit. The key is the
            unique up to the first `key_separator`, or all of it.
        key_separator: What the key ends at.
        pause_after: The function is paused when so many of its runs have failed in a row; 0 is never.
    """

    limits: tuple[int | None, ...] | None = None
    time_limit: float | None = None
    job_retries: int | None = None
    submit_rate: float | None = None
    submit_burst: int | None = None
    attempts: int | None = None
    backoff: float | None = None
    backoff_factor: float | None = None
    backoff_max: float | None = None
    jitter: float | None = None
    retry_online: bool | None = None
    expires: float | None = None
    heartbeat: float | None = None
    unique_for: float | None = None
    keep_results: float | None = None
    max_running: int | None = None
    start_rate: float | None = None
    start_burst: int | None = None
    max_running_per_key: int | None = None
    key_separator: bytes | None = None
    pause_after: int | None = None

    @property
    def runs(self) -> RunRules:
        """The part that limits the function's runs."""
        return RunRules(
            self.max_running or 0,
            self.start_rate or 0.0,
            self.start_burst or 0,
            self.max_running_per_key or 0,
            self.key_separator or KEY_SEPARATOR,
            self.pause_after or 0,
        )


NO_RULES: Final = FunctionRules()


@dataclass(frozen=True, slots=True)
class Policy:
    """The settings of a `Broker`.

    Attributes:
        handle_prefix: What job handles begin with, ahead of a colon and a number.
        job_retries: How many workers may lose a job before it fails. 0 and 1 are the same, as with gearmand,
            and `UNLIMITED` never gives up.
        wakeup: How many sleeping workers are woken for a job; 0 wakes all.
        order: Which of a worker's functions is served first.
        round_robin: With `FunctionOrder.REGISTRATION`, let functions take turns. With
            `FunctionOrder.PRIORITY` they always do.
        max_jobs: How many jobs there may be in all, running ones included; 0 is no limit.
        max_functions: How many functions there may be; 0 is no limit. Above half of that, unused functions
            are forgotten.
        submit_rate: How many new jobs a second each function takes; 0 is no limit.
        submit_burst: How many of them may come at once; 0 is as many as the rate.
        in_memory: How many waiting jobs of a function and priority are in memory when a store has them too.
            Those behind are fetched when their turn comes.
        attempts: How many runs of a job may fail. None where nothing is said: then it is 1, and a time limit
            that passes counts as a lost worker.
        backoff: Seconds that a job waits before its first retry.
        backoff_factor: Each further backoff is so many times the one before.
        backoff_max: Seconds; no backoff is longer, apart from its jitter.
        jitter: The part, from 0 to 1, by which each backoff is longer or shorter at random.
        heartbeat: Seconds without a word of its worker after which a running job is given to another; 0 is
            never.
        dead_jobs: How many dead jobs memory keeps where there is no store; 0 keeps none, in a store neither.
        dead_bytes: How many bytes they have at most, by `DeadJob.weight`.
        dead_age: Seconds for which they are kept.
        history: How many ended jobs are remembered; 0 is none.
        history_bytes: How many bytes that takes at most.
        max_kept_uniques: How many uniques of completed jobs are kept at most.
        results_bytes: How many bytes kept results take in memory at most, and beside them what running jobs
            have sent of theirs.
        functions: Rules by the name of a function, or a pattern of names.
        defaults: What holds for a function where `functions` says nothing.
    """

    handle_prefix: bytes = b"H:txgearman"
    job_retries: int = UNLIMITED
    wakeup: int = 1
    order: FunctionOrder = FunctionOrder.PRIORITY
    round_robin: bool = False
    max_jobs: int = 0
    max_functions: int = 0
    submit_rate: float = 0.0
    submit_burst: int = 0
    in_memory: int = 20_000
    attempts: int | None = None
    backoff: float = DEFAULT_BACKOFF
    backoff_factor: float = DEFAULT_BACKOFF_FACTOR
    backoff_max: float = DEFAULT_BACKOFF_MAX
    jitter: float = DEFAULT_JITTER
    heartbeat: float = 0.0
    dead_jobs: int = DEFAULT_DEAD_JOBS_IN_MEMORY
    dead_bytes: int = DEFAULT_DEAD_BYTES_IN_MEMORY
    dead_age: float = DEFAULT_DEAD_AGE
    history: int = DEFAULT_HISTORY
    history_bytes: int = DEFAULT_HISTORY_BYTES
    max_kept_uniques: int = DEFAULT_KEPT_UNIQUES
    results_bytes: int = DEFAULT_RESULTS_BYTES_IN_MEMORY
    functions: tuple[tuple[bytes, FunctionRules], ...] = ()
    defaults: FunctionRules = NO_RULES

    def rules_for(self, name: bytes) -> FunctionRules:
        """The rules of one function.

        Args:
            name: The function.

        Returns:
            The rules. Each is the one that is said for the name itself, or else the first that is said for a
            pattern which fits the name.
        """
        fitting = [rules for pattern, rules in self.functions if pattern == name]
        fitting += [rules for pattern, rules in self.functions if pattern != name and matches(pattern, name)]
        if self.submit_rate:
            fitting.append(FunctionRules(submit_rate=self.submit_rate, submit_burst=self.submit_burst))
        if self.heartbeat:
            fitting.append(FunctionRules(heartbeat=self.heartbeat))
        if self.defaults != NO_RULES:
            fitting.append(self.defaults)
        if not fitting:
            return NO_RULES
        values = {
            each.name: next((v for rules in fitting if (v := getattr(rules, each.name)) is not None), None)
            for each in fields(FunctionRules)
        }
        return FunctionRules(**values)

    def retry_policy(self, rules: FunctionRules) -> RetryPolicy | None:
        """What becomes of failed runs of a function.

        Args:
            rules: The function's rules.

        Returns:
            The policy. None where nothing is said of that: the job fails then, and a time limit that passes
            is a lost worker.
        """
        attempts = self.attempts if rules.attempts is None else rules.attempts
        return None if attempts is None else self._retry_policy(rules, attempts)

    def worker_retry_policy(self, rules: FunctionRules) -> RetryPolicy:
        """What becomes of runs whose worker asks for a retry.

        Args:
            rules: The function's rules.

        Returns:
            As `retry_policy`, and with `WORKER_ATTEMPTS` where nothing is said.
        """
        return self.retry_policy(rules) or self._retry_policy(rules, WORKER_ATTEMPTS)

    def _retry_policy(self, rules: FunctionRules, attempts: int) -> RetryPolicy:
        return RetryPolicy(
            attempts=attempts,
            backoff=self.backoff if rules.backoff is None else rules.backoff,
            factor=self.backoff_factor if rules.backoff_factor is None else rules.backoff_factor,
            backoff_max=self.backoff_max if rules.backoff_max is None else rules.backoff_max,
            jitter=self.jitter if rules.jitter is None else rules.jitter,
            online=bool(rules.retry_online),
        )


Levels = tuple[tuple[int, ...], ...]


def levels_of(policy: Policy) -> Levels:
    """The priorities that are looked through together, over all functions, level by level: each is a level of
    its own, or all are one.

    Args:
        policy: Says in which order functions are served.

    Returns:
        The levels, the first one first.
    """
    if policy.order is FunctionOrder.PRIORITY:
        return ((0,), (1,), (2,))
    return ((0, 1, 2),)
