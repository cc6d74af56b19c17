"""What the broker shows of itself: plain data, made when asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from txgearman.broker.job_options import JobOptions, decode_options
from txgearman.broker.job_states import OUTCOME_NAMES, JobState
from txgearman.broker.kept_result import KeptResult
from txgearman.broker.policy import NO_RUN_RULES, RunRules

if TYPE_CHECKING:
    from txgearman.broker.dead_job import DeadJob
    from txgearman.broker.entities import Worker
    from txgearman.broker.failures import FailedRun
    from txgearman.broker.history import EndedJob
    from txgearman.broker.stored_job import StoredJob


@dataclass(frozen=True, slots=True)
class FunctionView:
    """A function's counters: `total` holds all its jobs, `waiting` the ones not running by priority
    (high, normal, low), scheduled ones among them."""

    name: bytes
    total: int
    running: int
    workers: int
    waiting: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FunctionLimits:
    """What a function takes: `queued` are its limits of jobs by priority, None for no limit; `per_second` new
    jobs with `burst` of them at once, 0 for no limit. `refused` jobs were turned away for either. `runs` are
    the limits of its runs."""

    name: bytes
    queued: tuple[int | None, ...]
    per_second: float
    burst: int
    refused: int
    runs: RunRules = NO_RUN_RULES


@dataclass(frozen=True, slots=True)
class JobView:
    """A job: `losses` workers had and lost it; `background` ones outlive their clients."""

    handle: bytes
    function: bytes
    unique: bytes
    losses: int
    background: bool
    running: bool


@dataclass(frozen=True, slots=True)
class JobStatus:
    """The answer to a request for a job's status; `clients` counts those waiting for it."""

    known: bool = False
    running: bool = False
    numerator: int = 0
    denominator: int = 0
    clients: int = 0


UNKNOWN = JobStatus()
"""The status of a job the server does not have."""

STORED = JobStatus(known=True)
"""The status of a job that is not in memory: it waits its turn, or another server has it, whose worker's
reports are not known here."""


@dataclass(frozen=True, slots=True)
class FunctionDetail:
    """All there is to know of a function.

    `total` are all its jobs; `queued` and `scheduled` are counts by priority; `stored` are those of the
    queued jobs that are not in memory, and `stored_after`, by priority, is the position that theirs are
    greater than, None where there are none; `retrying` are those of the scheduled ones that wait for a
    retry; `dead` are not in `total`; `limits` are those of `Function`, without a limit all None. The counts
    from `submitted` to `refused` are since the function was made: `failed` are the jobs that ended in one of
    `FAILURES`, `dropped` those that ended in any other way without being completed. `oldest` is how
    many seconds the oldest job that is next of its priority has waited, None without one or where no times
    are taken. `runs` are the limits of its runs: `throttled` says that for now they let no job begin, and
    `blocked` counts the queued jobs that they hold back. `paused_itself` says that too many runs failed.
    """

    name: bytes
    total: int
    queued: tuple[int, ...]
    stored: int
    stored_after: tuple[int | None, ...]
    scheduled: tuple[int, ...]
    retrying: int
    dead: int
    running: int
    workers: int
    paused: bool
    limits: tuple[int | None, ...]
    submitted: int
    completed: int
    failed: int
    dropped: int
    requeued: int
    refused: int
    oldest: float | None
    runs: RunRules = NO_RUN_RULES
    throttled: bool = False
    blocked: int = 0
    paused_itself: bool = False


@dataclass(frozen=True, slots=True)
class JobDetail:
    """All there is to know of a job.

    `submitted` is when it came, in seconds since the epoch; `seconds` how long it has been in its queue, or
    with its `worker`, None where no times are taken. `run_in` says in how many seconds a scheduled job is
    due, and `left` in how many a running one is taken from its worker, None without a limit of time.
    `clients` counts those waiting for it. `state` is None for a job that is not in memory: it waits its turn,
    or another server has it. Of one that waits its turn here `position` is where in its queue; what another
    server has has None for that, and for its `data`. `run_at` and `options` are what was said at its
    submission.
    """

    handle: bytes
    function: bytes
    unique: bytes
    data: bytes | None
    priority: int
    background: bool
    reducer: bytes | None
    state: JobState | None
    losses: int
    submitted: float
    progress: tuple[int, int] = (0, 0)
    clients: int = 0
    worker: Worker | None = None
    seconds: float | None = None
    run_in: float | None = None
    left: float | None = None
    position: int | None = None
    attempts: int = 0
    outcome: int | None = None
    error: bytes = b""
    started: float | None = None
    ended: float | None = None
    next_run: float | None = None
    is_dead: bool = False
    label: bytes = b""
    runs: tuple[FailedRun, ...] = ()
    warnings: tuple[bytes, ...] = ()
    run_at: float | None = None
    options: JobOptions | None = None

    @property
    def shown_state(self) -> str:
        """The state as users know it: saving, scheduled, queued, stored, running, retrying, dead or ended."""
        if self.state is None:
            return "stored"
        if self.state is JobState.GONE:
            return "dead" if self.is_dead else "ended"
        return str(self.state.value)

    @property
    def outcome_name(self) -> str:
        """How the job ended, or its last failed run; empty for a job that has neither."""
        if self.outcome is None and self.state is not JobState.GONE:
            return ""
        return OUTCOME_NAMES[self.outcome]


def ended_detail(ended: EndedJob) -> JobDetail:
    """What is remembered of a job that has ended."""
    job, failures = ended.job, ended.job.failures
    return JobDetail(
        handle=job.handle,
        function=job.function.name,
        unique=job.unique,
        data=None,
        priority=job.priority,
        background=job.background,
        reducer=job.reducer,
        state=job.state,
        losses=job.losses,
        submitted=job.submitted,
        attempts=0 if failures is None else failures.attempts,
        outcome=ended.outcome,
        error=b"" if failures is None else failures.error,
        started=job.started,
        ended=ended.ended,
        label=ended.worker,
        run_at=job.run_at,
        options=job.options,
        runs=() if failures is None else failures.runs,
        warnings=() if failures is None else failures.warnings,
    )


def dead_detail(dead: DeadJob) -> JobDetail:
    """What is known of a dead job."""
    return JobDetail(
        handle=dead.handle,
        function=dead.function,
        unique=dead.unique,
        data=dead.data,
        priority=dead.priority,
        background=True,
        reducer=dead.reducer,
        state=JobState.GONE,
        losses=dead.losses,
        submitted=dead.submitted,
        attempts=dead.attempts,
        outcome=dead.outcome,
        error=dead.error,
        ended=dead.ended,
        is_dead=True,
        label=dead.worker,
        run_at=dead.run_at,
        options=decode_options(dead.attributes),
    )


def kept_detail(kept: KeptResult) -> JobDetail:
    """What is known of a job that was completed, and of which only the result is kept."""
    return JobDetail(
        handle=kept.handle,
        function=kept.function,
        unique=kept.unique,
        data=None,
        priority=kept.priority,
        background=True,
        reducer=None,
        state=JobState.GONE,
        losses=kept.losses,
        submitted=kept.submitted,
        attempts=kept.attempts,
        ended=kept.ended,
    )


def stored_detail(stored: StoredJob, is_ours: bool) -> JobDetail:
    """What is to be known of a job that is not in memory."""
    return JobDetail(
        handle=stored.handle,
        function=stored.function,
        unique=stored.unique,
        data=stored.data if is_ours else None,
        priority=stored.priority,
        background=True,
        reducer=stored.reducer,
        state=None,
        losses=stored.losses,
        submitted=stored.submitted,
        position=stored.position if is_ours else None,
        run_at=stored.run_at,
        options=decode_options(stored.attributes),
    )


@dataclass(frozen=True, slots=True)
class JobPage:
    """Some jobs; `next` is what to ask for the jobs after them with, None if there are none: a number where
    jobs are in the order of their handles, a position where in that of their queue."""

    jobs: tuple[JobDetail, ...]
    next: int | None
