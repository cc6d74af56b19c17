"""The steps of a job's life.

Two stand elsewhere, in `Broker`, as they are its hot path: a worker gets the job, and a worker ends it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final

from txgearman.broker.dead_job import MAX_ERROR, DeadJob
from txgearman.broker.dead_jobs import DeadJobs
from txgearman.broker.deadlines import Deadlines
from txgearman.broker.entities import NO_PROGRESS, NOBODY, Client, Function, Job, Worker
from txgearman.broker.failures import FailedRun, Failures
from txgearman.broker.functions import Functions
from txgearman.broker.handles import Handles, number_of
from txgearman.broker.history import History
from txgearman.broker.interfaces import DeadJobStore, DeathListener, JobStore, JobTrace
from txgearman.broker.job_states import FAILURES, PRIORITIES, JobState, Outcome
from txgearman.broker.policy import UNLIMITED, Policy, levels_of
from txgearman.broker.retries import RetryPolicy
from txgearman.broker.stored_job import StoredJob
from txgearman.broker.stored_queues import StoredQueues
from txgearman.broker.throttle import Throttle
from txgearman.broker.timer import Timer
from txgearman.broker.uniques import Duplicates
from txgearman.broker.waking import Waking

# Names local to the module: an enum's member costs two look-ups each time on the hot path.
_SAVING: Final = JobState.SAVING
_QUEUED: Final = JobState.QUEUED
_RUNNING: Final = JobState.RUNNING
_SCHEDULED: Final = JobState.SCHEDULED
_RETRYING: Final = JobState.RETRYING
_GONE: Final = JobState.GONE
_LOST: Final = int(Outcome.LOST)
_ABANDONED: Final = int(Outcome.ABANDONED)
_EXPIRED: Final = int(Outcome.EXPIRED)


class Lifecycle:
    """The jobs in memory, by handle and by unique, and the steps of their lives.

    `live` counts them. `job_store` is told of what becomes of stored ones, and `trace`, if anybody traces
    jobs, of every step. `timeouts` has when jobs are taken from their workers; by the wall clock `epochs` has
    when scheduled jobs and retries are queued, and `expiries` when jobs that wait expire. `history` remembers
    the jobs that ended, None where it is off. `dead_job_store` keeps the dead ones: `dead_jobs` in memory
    where it is no other; `keeps_dead` says whether they are kept at all, and `death_listener` is told of
    each. `chance` gives random numbers from 0 to 1, for the jitter of backoffs.
    """

    __slots__ = (
        "_chance",
        "_functions",
        "_level_of",
        "_stored_queues",
        "_throttle",
        "_timer",
        "_waking",
        "dead_job_store",
        "dead_jobs",
        "death_listener",
        "duplicates",
        "epochs",
        "expiries",
        "handles",
        "history",
        "job_store",
        "keeps_dead",
        "live",
        "timeouts",
        "trace",
    )

    def __init__(
        self,
        policy: Policy,
        functions: Functions,
        stored_queues: StoredQueues,
        waking: Waking,
        throttle: Throttle,
        timer: Timer,
        job_store: JobStore | None,
        last_number: int,
        trace: JobTrace | None,
        chance: Callable[[], float],
        death_listener: DeathListener | None,
        dead_job_store: DeadJobStore | None,
    ) -> None:
        self._functions = functions
        self._stored_queues = stored_queues
        stored_queues.revive = self.revive
        self._waking = waking
        self._throttle = throttle
        self._timer = timer
        self.job_store = job_store
        self.trace = trace
        self._chance = chance
        self.death_listener = death_listener
        self.live = 0
        self.handles = Handles(policy.handle_prefix, last_number)
        self.duplicates = Duplicates()
        self.timeouts = Deadlines()
        self.epochs = Deadlines()
        self.expiries = Deadlines()
        self.dead_jobs = DeadJobs(policy.dead_jobs, policy.dead_bytes, policy.dead_age, timer.wall_clock)
        self.dead_job_store: DeadJobStore = dead_job_store or self.dead_jobs
        self.history: History | None = None
        self.keeps_dead = False
        self.change_policy(policy)
        # The index in the levels of an ability set of each priority.
        self._level_of = tuple(
            next(index for index, level in enumerate(levels_of(policy)) if priority in level)
            for priority in range(PRIORITIES)
        )

    def change_policy(self, policy: Policy) -> None:
        """Remember as many ended and dead jobs as a new policy says."""
        self.keeps_dead = policy.dead_jobs > 0
        self.dead_jobs.limit(policy.dead_jobs, policy.dead_bytes, policy.dead_age)
        if not policy.history:
            self.history = None
        elif self.history is None:
            self.history = History(policy.history, policy.history_bytes)
        else:
            self.history.limit(policy.history, policy.history_bytes)

    def let_in(self, job: Job) -> None:
        """Queue a job, at its time if it has one."""
        failures = job.failures
        if failures is not None and failures.retry_at is not None:
            self._await_retry(job, failures)
            return
        job.state = _QUEUED
        if job.run_at is None or not self.schedule(job, job.run_at):
            self.enqueue(job)

    def schedule(self, job: Job, run_at: float) -> bool:
        """Let a job wait for its time. Returns false if that has come."""
        if run_at <= self._timer.wall_clock():
            return False
        job.state = _SCHEDULED
        job.function.scheduled[job.priority] += 1
        job.deadline = self.epochs.add(run_at, job)
        self._timer.ring_at_wall_time(run_at)
        return True

    def enqueue(self, job: Job) -> None:
        """Put a job into its queue, and wake workers for it."""
        if self.trace is not None:
            self.trace.queueing(job)
        function = job.function
        if function.expires is not None and not self._limit_age(job, function.expires):
            return
        if function.meter is not None:
            now = self._timer.turn_time
            job.since = self._timer.clock() if now is None else now
        if function.run_limits is not None:
            self._throttle.enqueue(job)
            return
        function.push(job)
        level = self._level_of[job.priority]
        unready = function.unready[level]
        if unready and not function.dispatch_suspended:
            for ability_set, slot in unready.items():
                ability_set.list_ready(level, slot)
            unready.clear()
        if function.resting:
            self._waking.wake(function)

    def revive(self, function: Function, stored: StoredJob) -> Job:
        """Make a live job of a stored one."""
        job = Job(
            stored.handle,
            function,
            stored.unique,
            stored.data,
            stored.priority,
            True,
            stored.reducer,
            stored.submitted,
            stored.run_at,
        )
        job.losses = stored.losses
        if stored.attempts:
            job.failures = Failures(stored.attempts, stored.outcome or 0, stored.error or b"")
            job.failures.retry_at = stored.retry_at
        job.stored = True
        self.live += 1
        self.handles.put(stored.handle, job)
        if stored.unique and self.duplicates.find(function, stored.unique, stored.data) is None:
            self.duplicates.add(job)
        self.let_in(job)
        if function.meter is not None and job.state is _QUEUED and not job.losses:
            # It waits since it was submitted, or since its time, wherever it was.
            job.since -= max(0.0, self._timer.wall_clock() - max(stored.submitted, stored.run_at or 0.0))
        return job

    def revive_dead(self, stored: StoredJob) -> None:
        """Make a live job of one that was dead. It comes last in its queue, and counts as a new one: the time
        that it waits, and its age for `FunctionRules.expires`, begin now."""
        function = self._functions.restored(stored.function)
        function.submitted += 1
        stored = stored._replace(submitted=self._timer.wall_clock())
        if self.job_store is None:
            self.revive(function, stored).stored = False
        elif self._stored_queues.is_deep(function, stored.priority, stored.position, stored.unique):
            self._stored_queues.count(function, stored.priority, stored.position, stored.unique)
        else:
            self.revive(function, stored)

    def take_back(self, job: Job) -> None:
        """The job's worker is gone or too slow: give the job to another, behind those that wait."""
        worker = job.worker
        assert worker is not None, "only a running job can be taken back"
        allowed = job.function.job_retries
        if allowed is None:
            allowed = self._functions.policy.job_retries
        job.losses += 1
        exhausted = allowed != UNLIMITED and job.losses >= max(allowed, 1)
        if exhausted and job.function.run_limits is not None:
            self._throttle.failed(job.function)
        if exhausted or not (job.background or job.watchers or job.saving):
            self.give_up(job, _LOST if exhausted else _ABANDONED)
            return
        self._take_from_worker(job, worker)
        if job.stored and self.job_store is not None:
            self.job_store.lost(job)
        job.function.requeued += 1
        job.state = _QUEUED
        self.enqueue(job)

    def _take_from_worker(self, job: Job, worker: Worker) -> None:
        """The job is with its worker no more, and will be with another."""
        # It is not there where the worker has ended it, or has lost all of its jobs, or all of the function.
        worker.jobs.pop(job.handle, None)
        if worker.by_function is not None:
            worker.by_function.forget(job)
        if job.deadline is not None:
            self._forget_deadline(job)
        job.worker = None
        job.progress = NO_PROGRESS
        job.function.running -= 1
        if job.function.run_limits is not None:
            self._throttle.ended(job)

    # -- failed runs ----------------------------------------------------------------------------

    def fail_run(self, job: Job, outcome: int, error: bytes) -> Collection[tuple[Client, bytes]]:
        """A run of a job has failed: it is retried after a backoff, or it ends.

        Args:
            job: The job, which is running.
            outcome: How the run ended: one of the outcomes that are failures.
            error: What the worker said of it; cut at `MAX_ERROR` bytes.

        Returns:
            Who waited for the job and is to be told that it failed.
        """
        retry = job.function.retry
        if job.function.run_limits is not None:
            self._throttle.failed(job.function)
        wanted = job.background or bool(job.saving)
        if wanted or retry is not None or self.history is not None:
            failures = self._note_failure(job, outcome, error)
            if (
                retry is not None
                and failures.attempts < retry.attempts
                and (wanted or (retry.online and job.watchers))
            ):
                return self._retry(job, failures, retry)
        return self.discard(job, outcome)

    def _note_failure(self, job: Job, outcome: int, error: bytes) -> Failures:
        failures = job.failures
        if failures is None:
            failures = job.failures = Failures()
        error = error[:MAX_ERROR]
        worker = _last_worker(job)
        now = self._timer.wall_clock()
        failures.attempts += 1
        failures.outcome = outcome
        failures.error = error
        failures.worker = worker
        failures.runs.append(FailedRun(job.started, now, outcome, worker, error))
        return failures

    def note_warning(self, job: Job, warning: bytes) -> None:
        """Remember what a worker warned of, where anybody may ask for it after the job's end."""
        if self.history is not None or job.background:
            if job.failures is None:
                job.failures = Failures()
            job.failures.warnings.append(warning[:MAX_ERROR])

    def _retry(self, job: Job, failures: Failures, retry: RetryPolicy) -> Collection[tuple[Client, bytes]]:
        """Let a job whose run failed wait for its backoff; returns who waits for it no more."""
        if self.trace is not None:
            self.trace.failing(job, failures.outcome)
        worker = job.worker
        assert worker is not None, "only a running job can fail"
        self._take_from_worker(job, worker)
        delay = retry.delay(failures.attempts, self._chance())
        failures.retry_at = self._timer.wall_clock() + delay
        if job.stored and self.job_store is not None:
            self.job_store.retrying(job)
        watchers: Collection[tuple[Client, bytes]] = ()
        if retry.online:
            for client, name in job.watchers:
                client.connection.retrying(name, failures.attempts, delay)
        else:
            watchers = self._dismiss_watchers(job)
        self._await_retry(job, failures)
        return watchers

    def _await_retry(self, job: Job, failures: Failures) -> None:
        """Queue a job when its backoff is over."""
        when = failures.retry_at
        assert when is not None
        function = job.function
        job.state = _RETRYING
        function.scheduled[job.priority] += 1
        function.retrying += 1
        if function.expires is not None and not self._limit_age(job, function.expires):
            return
        # Also where that is over: one way for all, and a worker that fails at once does not run in circles.
        job.deadline = self.epochs.add(when, job)
        self._timer.ring_at_wall_time(when)

    def due(self, job: Job) -> None:
        """The time of a scheduled job has come, or a backoff is over: queue it."""
        job.deadline = None
        job.function.scheduled[job.priority] -= 1
        if job.state is _RETRYING:
            job.function.retrying -= 1
            if job.failures is not None:
                job.failures.retry_at = None
        job.state = _QUEUED
        self.enqueue(job)

    def retry_now(self, job: Job) -> None:
        """End the backoff of a job that waits for its retry."""
        if job.deadline is not None:
            self._forget_deadline(job)
        self.due(job)

    # -- expiry ---------------------------------------------------------------------------------

    def _limit_age(self, job: Job, expires: float) -> bool:
        """Let a job that waits end when it is too old for a run. Returns false if it is, and has ended."""
        if job.expiry is None:
            when = (job.submitted if job.run_at is None else job.run_at) + expires
            if when <= self._timer.wall_clock():
                if job.state is _QUEUED:
                    # It is in no queue yet.
                    job.state = _SAVING
                self.expire(job)
                return False
            job.expiry = self.expiries.add(when, job)
            self._timer.ring_at_wall_time(when)
        return True

    def expire(self, job: Job) -> None:
        """No run of the job may begin any more. One that had failed before is dead."""
        job.expiry = None
        failures = job.failures
        self.give_up(job, failures.outcome if failures is not None and failures.attempts else _EXPIRED)

    def expire_late(self, job: Job) -> bool:
        """A worker is about to get a job that may expire. Returns whether it is too old, and has ended."""
        assert job.expiry is not None
        self.expiries.cancel(job.expiry)
        late = job.expiry.when <= self._timer.wall_clock()
        job.expiry = None
        if late:
            # It is in no queue any more.
            job.state = _SAVING
            self.expire(job)
        return late

    # -- the end --------------------------------------------------------------------------------

    def take_back_all(self, worker: Worker, jobs: Iterable[Job]) -> Iterator[None]:
        """Take jobs back that were taken out of `Worker.jobs`, one at a time."""
        for job in jobs:
            # Meanwhile it may have been cancelled, or have timed out, and even this worker may have it again.
            if job.state is _RUNNING and job.worker is worker and job.handle not in worker.jobs:
                self.take_back(job)
            yield

    def give_up(self, job: Job, ending: int) -> None:
        """End a job that was not completed, and tell who waits for it that it failed."""
        for client, name in self.discard(job, ending):
            client.connection.failed(name)

    def discard(self, job: Job, ending: int) -> Collection[tuple[Client, bytes]]:
        """End a job in whatever state it is; returns who waited for it."""
        if self.trace is not None:
            self.trace.ending(job, ending)
        job.function.uncompleted[ending] += 1
        if job.state is _RUNNING:
            assert job.worker is not None
            job.worker.jobs.pop(job.handle, None)
            job.function.running -= 1
            if job.function.run_limits is not None:
                self._throttle.ended(job)
        queued = job.state is _QUEUED
        if job.state is _SCHEDULED or job.state is _RETRYING:
            job.function.scheduled[job.priority] -= 1
            job.function.retrying -= job.state is _RETRYING
        watchers = self.end(job, ending)
        if queued:
            function = job.function
            function.dropped(job)
            if function.run_limits is not None:
                self._throttle.note(function)
            if function.stored_queue is not None:
                self._stored_queues.fetch_ahead(function, function.stored_queue, job.priority)
        # A job that its worker ends leaves it with a worker. Here that need not be so.
        self._functions.note_idle(job.function)
        return watchers

    def end(self, job: Job, ending: int | None = None) -> Collection[tuple[Client, bytes]]:
        """Forget a job, but for its worker and queue, which the caller sees to; returns who waited for it.

        Here is decided what is kept of it: its place in the history, and the whole job if it is dead.
        """
        job.function.ended += 1
        self.live -= 1
        if self.history is not None:
            worker = job.worker
            label = _last_worker(job) if worker is None else worker.connection.label
            now = self._timer.turn_wall_time
            if now is None:
                now = self._timer.wall_clock()
            job.end = label, now, ending
            if ending is None and job.failures is None:
                self.history.plain.append(job)
            else:
                self.history.add_other(job)
        if ending is not None and ending in FAILURES and self.keeps_dead and (job.background or job.saving):
            self._bury(job, ending)
        elif job.stored and self.job_store is not None:
            self.job_store.remove(number_of(job.handle))
        if job.deadline is not None:
            self._forget_deadline(job)
        if job.expiry is not None:
            self.expiries.cancel(job.expiry)
            job.expiry = None
        job.state = _GONE
        job.worker = None
        if job.unique:
            self.duplicates.remove(job)
        self.handles.remove(job.handle)
        # The object may stay in its queue, and in the history, for long.
        job.data = b""
        return self._dismiss_watchers(job) if job.watchers else NOBODY

    def _dismiss_watchers(self, job: Job) -> Collection[tuple[Client, bytes]]:
        """Let nobody wait for a job any more; returns who did."""
        watchers = job.watchers
        for client, name in watchers:
            del client.jobs[name]
            if name != job.handle:
                self.handles.remove(name)
                client.coalesced.pop(job.handle, None)
        job.watchers = NOBODY
        return watchers

    def _bury(self, job: Job, ending: int) -> None:
        """Keep a job that has just died."""
        failures = job.failures
        dead = DeadJob(
            number=number_of(job.handle),
            handle=job.handle,
            function=job.function.name,
            unique=job.unique,
            data=job.data,
            priority=job.priority,
            reducer=job.reducer,
            submitted=job.submitted,
            run_at=job.run_at,
            ended=self._timer.wall_clock(),
            attempts=0 if failures is None else failures.attempts,
            losses=job.losses,
            outcome=ending,
            error=b"" if failures is None else failures.error,
            worker=_last_worker(job),
            size=len(job.data),
        )
        if job.saving:
            # It is buried once it is stored: nobody was told of it yet.
            if failures is None:
                failures = job.failures = Failures()
            failures.dead = dead
        elif not job.stored or self.job_store is None:
            self.dead_jobs.add(dead)
        else:
            self.job_store.died(dead.number, dead)
        if self.death_listener is not None:
            self.death_listener.died(dead)

    def _forget_deadline(self, job: Job) -> None:
        assert job.deadline is not None
        (self.timeouts if job.state is _RUNNING else self.epochs).cancel(job.deadline)
        job.deadline = None


def _last_worker(job: Job) -> bytes:
    """The label of the worker that has a job, or else of the one that failed it last; empty if unknown."""
    if job.worker is not None:
        return job.worker.connection.label
    return b"" if job.failures is None else job.failures.worker
