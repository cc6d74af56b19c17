"""The steps of a job's life.

Two stand elsewhere, in `Broker`, as they are its hot path: a worker gets the job, and a worker ends it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from typing import Final

from txgearman.broker.dead_job import MAX_ERROR
from txgearman.broker.deadlines import Deadlines
from txgearman.broker.ended_jobs import EndedJobs
from txgearman.broker.entities import NOBODY, Client, Function, Job, Worker
from txgearman.broker.failures import MAX_SNOOZES, FailedRun, Failures
from txgearman.broker.functions import Functions
from txgearman.broker.handles import Handles, number_of
from txgearman.broker.history import last_worker
from txgearman.broker.interfaces import JobStore, JobTrace
from txgearman.broker.job_extras import NO_PROGRESS, JobExtras
from txgearman.broker.job_options import decode_options
from txgearman.broker.job_states import PRIORITIES, JobState, Outcome
from txgearman.broker.policy import UNLIMITED, Policy, levels_of
from txgearman.broker.results import result_lifetime
from txgearman.broker.retries import RetryPolicy
from txgearman.broker.slices import SLICE
from txgearman.broker.stopping import CANCELLED, stop_run
from txgearman.broker.stored_job import StoredJob
from txgearman.broker.stored_queues import StoredQueues
from txgearman.broker.throttle import Throttle
from txgearman.broker.timer import Timer
from txgearman.broker.uniques import Duplicates
from txgearman.broker.waking import Waking

# Names local to the module: an enum's member costs two look-ups each time on the hot path.
_QUEUED: Final = JobState.QUEUED
_RUNNING: Final = JobState.RUNNING
_SCHEDULED: Final = JobState.SCHEDULED
_RETRYING: Final = JobState.RETRYING
_GONE: Final = JobState.GONE
_FAILED: Final = int(Outcome.FAILED)
_LOST: Final = int(Outcome.LOST)
_CANCELLED: Final = int(Outcome.CANCELLED)
_ABANDONED: Final = int(Outcome.ABANDONED)
_EXPIRED: Final = int(Outcome.EXPIRED)


class Lifecycle:
    """The jobs in memory, by handle and by unique, and the steps of their lives.

    `live` counts them. `job_store` is told of what becomes of stored ones, and `trace`, if anybody traces
    jobs, of every step. `timeouts` has when jobs are taken from their workers; by the wall clock `epochs` has
    when scheduled jobs and retries are queued, and `expiries` when jobs that wait expire. `chance` gives
    random numbers from 0 to 1, for the jitter of backoffs.
    """

    __slots__ = (
        "_chance",
        "_ended_jobs",
        "_functions",
        "_level_of",
        "_stored_queues",
        "_throttle",
        "_timer",
        "_waking",
        "duplicates",
        "epochs",
        "expiries",
        "handles",
        "job_store",
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
        ended_jobs: EndedJobs,
        timeouts: Deadlines[Job],
        job_store: JobStore | None,
        last_number: int,
        trace: JobTrace | None,
        chance: Callable[[], float],
    ) -> None:
        self._functions = functions
        self._stored_queues = stored_queues
        stored_queues.revive = self.revive
        self._waking = waking
        self._throttle = throttle
        self._timer = timer
        self._ended_jobs = ended_jobs
        self.timeouts = timeouts
        self.job_store = job_store
        self.trace = trace
        self._chance = chance
        self.live = 0
        self.handles = Handles(policy.handle_prefix, last_number)
        self.duplicates = Duplicates()
        self.epochs = Deadlines[Job]()
        self.expiries = Deadlines[Job]()
        # The index in the levels of an ability set of each priority.
        self._level_of = tuple(
            next(index for index, level in enumerate(levels_of(policy)) if priority in level)
            for priority in range(PRIORITIES)
        )

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

    def tick(self) -> None:
        """Queue the jobs whose time has come and end those that expire, in slices, and have the alarm ring
        for the next."""
        for _ in range(SLICE):
            job = self.epochs.pop_due(self._timer.wall_clock())
            if job is None:
                break
            self.due(job)
        for _ in range(SLICE):
            job = self.expiries.pop_due(self._timer.wall_clock())
            if job is None:
                break
            self.expire(job)
        for deadlines in (self.epochs, self.expiries):
            when = deadlines.next()
            if when is not None:
                self._timer.ring_at_wall_time(when)

    def enqueue(self, job: Job) -> None:
        """Put a job into its queue, and wake workers for it."""
        function = job.function
        if not function.plain or job.extras is not None:
            if self.trace is not None:
                self.trace.queueing(job)
            if (function.expires is not None or job.options is not None) and not self._limit_age(job):
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

    def jobs(self) -> Iterator[Job]:
        """Walk the jobs in memory. Those that come meanwhile may be left out."""
        for handle, job in self.handles:
            # A job is also found by the handles that it has for repeated submits of one client.
            if handle == job.handle:
                yield job

    def revive(self, function: Function, stored: StoredJob) -> Job:
        """Make a live job of a stored one."""
        job = Job(
            stored.handle,
            function,
            stored.unique,
            stored.data,
            stored.priority,
            True,
            stored.submitted,
            _extras_of(stored),
        )
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
        """Make a live job of one that was dead, as `DeadJobStore.retry` gives it. It comes last in its queue,
        and counts as a new one."""
        function = self._functions.restored(stored.function)
        function.submitted += 1
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
        job.extend().losses += 1
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
        if job.extras is not None:
            job.extras.progress = NO_PROGRESS
        job.function.running -= 1
        if job.function.keep_results is not None or job.extras is not None:
            self._ended_jobs.results.forget(job)
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
        retry = self.retry_policy_of(job)
        if job.function.run_limits is not None:
            self._throttle.failed(job.function)
        wanted = job.background or bool(job.saving)
        if wanted or retry is not None or self._ended_jobs.history is not None:
            failures = self._note_failure(job, outcome, error)
            if (
                retry is not None
                and failures.attempts < retry.attempts
                and (wanted or (retry.online and job.watchers))
            ):
                return self._retry(job, failures, retry, None)
        return self.discard(job, outcome)

    def retry_policy_of(self, job: Job) -> RetryPolicy | None:
        """What becomes of a job's failed runs, by its options or else by its function. None where neither
        says anything of that."""
        function, options = job.function, job.options
        if options is None or (options.attempts is None and options.backoff is None):
            return function.retry
        policy = self._functions.policy
        rules = policy.rules_for(function.name)
        if options.attempts is not None:
            # Who asks for attempts and waits for the result wants to wait for them.
            rules = replace(rules, attempts=options.attempts, retry_online=True)
        if options.backoff is not None:
            rules = replace(rules, backoff=options.backoff)
        return policy.retry_policy(rules)

    def retry_run(
        self, job: Job, error: bytes, delay: float | None, counts: bool
    ) -> Collection[tuple[Client, bytes]]:
        """The worker of a job wants that to be run again, which is done if attempts are left.

        Args:
            job: The job, which is running.
            error: Why; cut at `MAX_ERROR` bytes.
            delay: Seconds until then; None for the backoff of the function.
            counts: Whether the run is an attempt. The first `MAX_SNOOZES` runs that are not are none.

        Returns:
            Who waited for the job and is to be told that it failed.
        """
        policy = self._functions.policy
        retry = self.retry_policy_of(job) or policy.worker_retry_policy(policy.rules_for(job.function.name))
        counts = counts or (job.failures is not None and job.failures.snoozes >= MAX_SNOOZES)
        if counts:
            self._throttle.failed(job.function)
        failures = self._note_failure(job, _FAILED, error, counts)
        if (not counts or failures.attempts < retry.attempts) and (
            job.background or job.saving or (retry.online and job.watchers)
        ):
            return self._retry(job, failures, retry, delay)
        return self.discard(job, _FAILED)

    def reject_run(self, job: Job, error: bytes) -> Collection[tuple[Client, bytes]]:
        """The worker of a job says that no retry can help: the job ends, whatever attempts are left.

        Args:
            job: The job, which is running.
            error: Why; cut at `MAX_ERROR` bytes.

        Returns:
            Who waited for the job and is to be told that it failed.
        """
        self._throttle.failed(job.function)
        self._note_failure(job, _FAILED, error)
        return self.discard(job, _FAILED)

    def _note_failure(self, job: Job, outcome: int, error: bytes, counts: bool = True) -> Failures:
        failures = job.note_failures()
        error = error[:MAX_ERROR]
        worker = last_worker(job)
        now = self._timer.wall_clock()
        if counts:
            failures.attempts += 1
        else:
            failures.snoozes += 1
        failures.outcome = outcome
        failures.error = error
        failures.worker = worker
        failures.add_run(FailedRun(job.started, now, outcome, worker, error))
        return failures

    def collect_result(self, job: Job, part: bytes) -> None:
        """Keep a part of a job's result, if that is wanted."""
        if result_lifetime(job) is not None:
            self._ended_jobs.results.collect(job, part)

    def note_warning(self, job: Job, warning: bytes) -> None:
        """Remember what a worker warned of, where anybody may ask for it after the job's end."""
        if self._ended_jobs.history is not None or job.background:
            job.note_failures().add_warning(warning[:MAX_ERROR])

    def _retry(
        self, job: Job, failures: Failures, retry: RetryPolicy, delay: float | None
    ) -> Collection[tuple[Client, bytes]]:
        """Let a job whose run failed wait for `delay`, or its backoff; returns who waits for it no more."""
        if self.trace is not None:
            self.trace.failing(job, failures.outcome)
        worker = job.worker
        assert worker is not None, "only a running job can fail"
        self._take_from_worker(job, worker)
        if delay is None:
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
        if (function.expires is not None or job.options is not None) and not self._limit_age(job):
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

    def _limit_age(self, job: Job) -> bool:
        """Let a job that waits, and is in no queue yet, end when it is too old for a run. Returns false if it
        is, and has ended."""
        expires = job.function.expires
        if job.options is not None and job.options.expires is not None:
            expires = job.options.expires or None
        if expires is not None and job.expiry is None:
            when = (job.submitted if job.run_at is None else job.run_at) + expires
            if when <= self._timer.wall_clock():
                self.expire(job, in_queue=False)
                return False
            job.expiry = self.expiries.add(when, job)
            self._timer.ring_at_wall_time(when)
        return True

    def expire(self, job: Job, in_queue: bool = True) -> None:
        """No run of the job may begin any more. One that had failed before is dead. `in_queue` is that of
        `discard`."""
        failures = job.failures
        job.expiry = None
        ending = failures.outcome if failures is not None and failures.attempts else _EXPIRED
        self.give_up(job, ending, in_queue)

    def expire_late(self, job: Job) -> bool:
        """A worker is about to get a job that may expire, and was taken out of its queue for that. Returns
        whether it is too old, and has ended."""
        assert job.expiry is not None
        self.expiries.cancel(job.expiry)
        late = job.expiry.when <= self._timer.wall_clock()
        job.expiry = None
        if late:
            self.expire(job, in_queue=False)
        return late

    # -- the end --------------------------------------------------------------------------------

    def cancel(self, job: Job, force: bool) -> None:
        """End a job that an administrator does not want; `force` is that of `Broker.cancel`."""
        worker = job.worker
        is_told = stop_run(job, CANCELLED)
        if worker is not None and not is_told:
            worker.note_cancelled(job.handle)
        self.give_up(job, _CANCELLED)
        if force and worker is not None and not is_told:
            worker.connection.disconnect()

    def abandon(self, job: Job, ending: int, reason: bytes) -> None:
        """End a job that nobody here wants any more. A run goes on where its worker cannot be told."""
        if job.state is not _RUNNING or stop_run(job, reason):
            self.discard(job, ending)

    def take_back_all(
        self, worker: Worker, jobs: Iterable[Job], reason: bytes | None = None
    ) -> Iterator[None]:
        """Take jobs back that were taken out of `Worker.jobs`, one at a time. With a `reason` the worker is
        told to stop."""
        for job in jobs:
            # Meanwhile it may have been cancelled, or have timed out, and even this worker may have it again.
            if job.state is _RUNNING and job.worker is worker and job.handle not in worker.jobs:
                if reason is not None:
                    stop_run(job, reason)
                self.take_back(job)
            yield

    def give_up(self, job: Job, ending: int, in_queue: bool = True) -> None:
        """End a job that was not completed, and tell who waits for it that it failed. `in_queue` is that of
        `discard`."""
        for client, name in self.discard(job, ending, in_queue):
            client.connection.failed(name)

    def discard(self, job: Job, ending: int, in_queue: bool = True) -> Collection[tuple[Client, bytes]]:
        """End a job in whatever state it is.

        Args:
            job: The job.
            ending: How it ends, one of `Outcome`.
            in_queue: Whether one that is queued is in its queue. It is not between its coming or its being
                taken out for a worker, and here.

        Returns:
            Who waited for the job.
        """
        if self.trace is not None:
            self.trace.ending(job, ending)
        job.function.uncompleted[ending] += 1
        if job.state is _RUNNING:
            assert job.worker is not None
            job.worker.jobs.pop(job.handle, None)
            job.function.running -= 1
            if job.function.run_limits is not None:
                self._throttle.ended(job)
        dropped = in_queue and job.state is _QUEUED
        if job.state is _SCHEDULED or job.state is _RETRYING:
            job.function.scheduled[job.priority] -= 1
            job.function.retrying -= job.state is _RETRYING
        watchers = self.end(job, ending)
        if dropped:
            function = job.function
            function.dropped(job)
            if function.run_limits is not None:
                self._throttle.note(function)
            if function.stored_queue is not None:
                self._stored_queues.fetch_ahead(function, function.stored_queue, job.priority)
        # A job that its worker ends leaves it with a worker. Here that need not be so.
        self._functions.note_idle(job.function)
        return watchers

    def end(
        self, job: Job, ending: int | None = None, result: bytes = b""
    ) -> Collection[tuple[Client, bytes]]:
        """Forget a job, but for its worker and queue, which the caller sees to; returns who waited for it.

        `EndedJobs` decides what is kept of it. Of nearly all jobs that is their place in the history alone:
        they are remembered here, without a call. `result` is the last part of the result, if it was
        completed.
        """
        function = job.function
        extras = job.extras
        function.ended += 1
        self.live -= 1
        if ending is None and extras is None and function.keep_results is None:
            history = self._ended_jobs.history
            if history is not None:
                worker = job.worker
                now = self._timer.turn_wall_time
                if now is None:
                    now = self._timer.wall_clock()
                history.plain.append((job, b"" if worker is None else worker.connection.label, now))
            if job.stored and self.job_store is not None:
                self.job_store.remove(number_of(job.handle))
        else:
            self._ended_jobs.keep(job, ending, result, self.job_store)
            if extras is not None:
                extras.options = None
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
        watchers = job.watchers
        if not watchers:
            return NOBODY
        if len(watchers) == 1:
            # As with nearly all jobs that are waited for: this spares a call.
            ((client, name),) = watchers
            if name == job.handle:
                del client.jobs[name]
                job.watchers = NOBODY
                return watchers
        return self._dismiss_watchers(job)

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

    def _forget_deadline(self, job: Job) -> None:
        assert job.deadline is not None
        (self.timeouts if job.state is _RUNNING else self.epochs).cancel(job.deadline)
        job.deadline = None


def _extras_of(stored: StoredJob) -> JobExtras | None:
    """What a stored job has that only some jobs have, None for nothing."""
    options = decode_options(stored.attributes)
    failures: Failures | None = None
    if stored.attempts or stored.retry_at is not None:
        failures = Failures(stored.attempts, stored.outcome or 0, stored.error or b"")
        failures.retry_at = stored.retry_at
        failures.snoozes = stored.snoozes
    if (stored.reducer, stored.run_at, options, failures) == (None,) * 4 and not stored.losses:
        return None
    extras = JobExtras(stored.reducer, stored.run_at, options)
    extras.losses = stored.losses
    extras.failures = failures
    return extras
