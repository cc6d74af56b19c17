"""The verbs of the job server: every decision about jobs, clients and workers is made here.

Each verb is O(1) at any depth of the queues and number of workers, O(log n) where time or turns order
things; `txgearman.broker.waking` says what many functions and kinds of workers cost. What a peer leaves
behind, which may be any number of things, is seen to in slices (`txgearman.broker.slices`). A verb that
refuses raises `Refused` and has changed nothing. What must leave goes through `txgearman.broker.interfaces`.

Behaviour is that of gearmand 2. Where it is not, docs/protocol.rst says so and why; the comments here
name what matters to the code beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from txgearman.broker.entities import (
    MAX_COALESCED,
    AbilitySet,
    Client,
    Function,
    Job,
    Worker,
)
from txgearman.broker.functions import Functions
from txgearman.broker.interfaces import (
    Alarm,
    DeadJobStore,
    DeathListener,
    JobStore,
    JobTrace,
    PauseListener,
    ResultStore,
    SlotSource,
)
from txgearman.broker.job_options import JobOptions
from txgearman.broker.job_states import JobState, Outcome, Priority, WorkerState
from txgearman.broker.kept_unique import UNIQUE_IS_DATA
from txgearman.broker.lifecycle import Lifecycle
from txgearman.broker.limits import Limits
from txgearman.broker.numbers import leading_number
from txgearman.broker.policy import WAKE_PATIENCE, Policy
from txgearman.broker.running_by_function import RunningByFunction
from txgearman.broker.slices import SLICE, Slices
from txgearman.broker.stopping import ABANDONED, TIMED_OUT, stop_run
from txgearman.broker.stored_job import StoredJob
from txgearman.broker.stored_queues import StoredQueues
from txgearman.broker.throttle import Throttle
from txgearman.broker.timer import Timer
from txgearman.broker.waking import Waking
from txgearman.errors import CoalescedTooOften, JobNotFound, NotSaved, Refused

if TYPE_CHECKING:
    from txgearman.broker.interfaces import Found

# Names local to the module: an enum's member costs two look-ups each time on the hot path.
_SAVING: Final = JobState.SAVING
_QUEUED: Final = JobState.QUEUED
_RUNNING: Final = JobState.RUNNING
_AWAKE: Final = WorkerState.AWAKE
_ASLEEP: Final = WorkerState.ASLEEP
_WOKEN: Final = WorkerState.WOKEN
_NORMAL: Final = int(Priority.NORMAL)
_FAILED: Final = int(Outcome.FAILED)
_RAISED: Final = int(Outcome.RAISED)
_TIMED_OUT: Final = int(Outcome.TIMED_OUT)
_ABANDONED: Final = int(Outcome.ABANDONED)


def _no_jitter() -> float:
    return 0.5


class Broker:
    """The jobs, and who may have them.

    Calls between `begin_turn` and `end_turn` share one reading of the clocks; `in_turn` says whether one is
    under way.

    `lease_expires_at` is what `StoreAnswers.extend_lease` said, by the monotonic clock. None without a lease;
    test it first to skip the property call of `lease_expired`.

    The parts are for the modules above this one: `functions`, `life` (the jobs in memory), `stored_queues`
    (those in the store alone), `limits`, `throttle`, `waking`, `timer` and `slices`.

    Args:
        policy: The operator's choices.
        clock: Gives monotonic seconds.
        wall_clock: Gives seconds since the epoch.
        alarm: Is asked to call `tick`.
        measured_functions: How many functions at most have measures of their own. With 0 no times are taken.
        job_store: Makes background jobs durable before their clients are told of them. Without one they are
            in memory alone.
        last_number: The handles of new jobs are numbered from the number behind this one.
        trace: Is told of the steps of every job.
        chance: Gives random numbers from 0 to 1, for the jitter of backoffs. By default there is none.
        death_listener: Is told of each job that dies.
        dead_job_store: Keeps the dead jobs. By default memory does.
        result_store: Keeps the results of background jobs. By default memory does.
        slot_source: Has the slots of limits of runs. Without one the limits are for this server alone.
        pause_listener: Is told of each function that is paused by itself.
    """

    # More attributes than Python keeps quickly in an instance's dictionary: each look-up would search it.
    __slots__ = (
        "_functions",
        "_handles",
        "_kept_uniques",
        "_leaving",
        "_measures_times",
        "_uniques",
        "functions",
        "in_turn",
        "lease_expires_at",
        "life",
        "limits",
        "slices",
        "stored_queues",
        "throttle",
        "timer",
        "waking",
    )

    def __init__(
        self,
        policy: Policy,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        alarm: Alarm,
        measured_functions: int = 0,
        job_store: JobStore | None = None,
        last_number: int = 0,
        trace: JobTrace | None = None,
        chance: Callable[[], float] = _no_jitter,
        death_listener: DeathListener | None = None,
        dead_job_store: DeadJobStore | None = None,
        result_store: ResultStore | None = None,
        slot_source: SlotSource | None = None,
        pause_listener: PauseListener | None = None,
    ) -> None:
        self.timer = Timer(clock, wall_clock, alarm)
        self.slices = Slices(self.timer)
        self.functions = Functions(policy, measured_functions, slot_source)
        self.limits = Limits(policy.max_jobs, self.timer)
        self.waking = Waking(self.functions, self.slices, self.timer)
        self.throttle = Throttle(self.functions, self.waking, self.timer, pause_listener)
        self.stored_queues = StoredQueues(self.functions, job_store)
        self.life = Lifecycle(
            policy,
            self.functions,
            self.stored_queues,
            self.waking,
            self.throttle,
            self.timer,
            job_store,
            last_number,
            trace,
            chance,
            death_listener,
            dead_job_store,
            result_store,
        )
        # What nearly every call needs, without the way to it.
        self._functions = self.functions.by_name
        self._handles = self.life.handles
        self._uniques = self.life.duplicates.by_unique
        self._kept_uniques = self.life.kept_uniques.by_function
        # Clients that are gone and whose jobs are not all seen to.
        self._leaving = 0
        self.lease_expires_at: float | None = None
        self.in_turn = False
        self._measures_times = measured_functions > 0

    def begin_turn(self) -> None:
        """Take what follows, until `end_turn`, for one moment.

        To ask for the time of each job was a thirtieth of a submit, and each kept 32 bytes for it.
        """
        self.in_turn = True
        self.timer.turn_wall_time = self.timer.wall_clock()
        if self._measures_times:
            self.timer.turn_time = self.timer.clock()

    def end_turn(self) -> None:
        """Time passes again."""
        self.in_turn = False
        self.timer.turn_time = self.timer.turn_wall_time = None
        if self.throttle.changed:
            self.throttle.settle()

    def submit(  # noqa: PLR0912 (the calls that its branches save are a thirtieth of it)
        self,
        client: Client,
        function_name: bytes,
        unique: bytes,
        data: bytes,
        priority: int = _NORMAL,
        background: bool = False,
        reducer: bytes | None = None,
        run_at: float | None = None,
        options: JobOptions | None = None,
        reply: Any = None,
    ) -> None:
        """Accept a job, or attach `client` to the live job of the same function and unique.

        A job that is attached to keeps its data, priority and options, and is refused by no limit of the
        function or the server. The client is told by `ClientConnection.created`; of a background job, where
        there is a store, by `ClientConnection.saving` and what follows it.

        Args:
            client: Who submits. It waits for the job unless that is `background`.
            function_name: The function that is to run; one that does not exist is made.
            unique: The key that makes two jobs of a function the same one. Empty for a job of its own, ``-``
                to compare the data.
            data: The payload.
            priority: One of `Priority`, as a plain int.
            background: Whether the job goes on without a client.
            reducer: What SUBMIT_REDUCE_JOB names for the worker.
            run_at: Seconds since the epoch before which no worker gets the job; None for at once.
            options: What is said of this job alone; None for nothing.
            reply: For the broker itself: what `ClientConnection.saving` returned, if the client was told so
                already.

        Raises:
            QueueFull: The function or the server has as many jobs, or the server as many functions, as it
                may.
            CoalescedTooOften: The client waits for this job `MAX_COALESCED` times already.
            RateExceeded: New jobs of the function come faster than its limit.
            ShuttingDown: The server drains.
            TooManyUniques: The unique is to be kept, and the server keeps as many as it may.
            UniqueKept: The client wants to wait for a job that was completed before, whose unique is kept.
            NotSaved: A background job cannot be made durable, or the one to attach to may be another server's
                by now.
        """
        function = self._functions.get(function_name)
        if function is None:
            # First: refused jobs must not fill memory with functions either.
            self.limits.check_open(self.total)
            function = self.functions.new(function_name)
        # Where a unique that no job has is put: with this nearly every submit is spared two calls.
        free: dict[bytes, Any] | None = None
        if unique:
            table = self._uniques.table(unique)
            if unique not in table and unique != UNIQUE_IS_DATA:
                free = table
            elif (duplicate := self.life.duplicates.find(function, unique, data)) is not None:
                self._attach(client, duplicate, background, reply)
                function.coalesced += 1
                return
            if (
                self._kept_uniques
                and function_name in self._kept_uniques
                and self.life.kept_uniques.answer(client, function_name, unique, data, background, reply)
            ):
                function.coalesced += 1
                return
            if (
                reply is None
                and not background
                and self.stored_queues.jobs
                and function.stored_queue is not None
            ):
                self._seek_stored_duplicate(
                    client, function_name, unique, data, priority, reducer, run_at, options
                )
                return
            if options is not None or function.unique_for is not None:
                options = self.life.kept_uniques.admit(options, function.unique_for)
        if function.limited:
            self.limits.admit(function, priority, self.total)
        job_store = self.life.job_store if background else None
        if job_store is not None:
            job_store.check(data)
        handle = self._handles.next()
        submitted = self.timer.turn_wall_time
        if submitted is None:
            submitted = self.timer.wall_clock()
        job = Job(handle, function, unique, data, priority, background, reducer, submitted, run_at, options)
        self._handles.newest[handle] = job
        function.submitted += 1
        self.life.live += 1
        if unique:
            if free is not None:
                free[unique] = job
            else:
                self.life.duplicates.add(job)
        if job_store is not None:
            job.state = _SAVING
            self._save(client, job, job_store)
            return
        if not background:
            job.watch(client, handle)
            client.jobs[handle] = job
        if reply is None:
            client.connection.created(handle)
        else:
            client.connection.resolve_created(reply, handle)
        if run_at is None or not self.life.schedule(job, run_at):
            self.life.enqueue(job)

    def watch(self, client: Client, handle: bytes) -> None:
        """Let `client` wait for a job that it did not submit and does not wait for already: it hears of it
        from now on.

        Args:
            client: Who waits.
            handle: The job, by any of its handles.

        Raises:
            JobNotFound: There is no such job in memory.
        """
        job = self._handles.get(handle)
        if job is None:
            raise JobNotFound
        job.watch(client, job.handle)
        client.jobs[job.handle] = job

    def leave_client(self, client: Client) -> None:
        """The client's connection is gone.

        A waiting job that nobody else wants goes with it. gearmand keeps such a job until a worker comes by,
        and gives its handle to new clients of the same unique, who then wait for ever. It also discards
        background jobs whose last *waiting* client leaves.

        Very many jobs are discarded in slices, and count as waiting until then. No worker gets one meanwhile.

        Args:
            client: Who is gone. Nothing is told to it from now on.
        """
        client.coalesced.clear()
        client.gone = True
        if client.jobs:
            self._leaving += 1
            self.slices.begin(self._leave_jobs(client))

    def _leave_jobs(self, client: Client) -> Iterator[None]:
        for handle in list(client.jobs):
            job = client.jobs.pop(handle, None)
            # It may have ended meanwhile.
            if job is not None:
                del job.watchers[client, handle]
                if handle != job.handle:
                    self._handles.remove(handle)
                if not (job.watchers or job.background or job.saving):
                    self.life.abandon(job, _ABANDONED, ABANDONED)
            yield
        self._leaving -= 1

    @property
    def lease_expired(self) -> bool:
        """Whether no job may be given to a worker, as the time of `extend_lease` has passed."""
        return self.lease_expires_at is not None and self.timer.clock() >= self.lease_expires_at

    def may_have_lost(self, worker: Worker) -> bool:
        """Whether a stored job of this worker may be another server's by now.

        Args:
            worker: Whose running jobs are looked at.

        Returns:
            True if the lease has expired and one of the jobs is stored.
        """
        return self.lease_expired and any(job.stored for job in worker.jobs.values())

    def can_do(self, worker: Worker, function_name: bytes, timeout: float | None = None) -> None:
        """Register a function for a worker.

        Registering twice changes the timeout and counts once. gearmand counts and lists a worker as often as
        it registers.

        Args:
            worker: Who can do it.
            function_name: The function; one that does not exist is made.
            timeout: Seconds after which a job that this worker got is given to another. None leaves that to
                the function's own limit.

        Raises:
            TooManyFunctions: The function would be one more than the server may have.
        """
        function = self._functions.get(function_name)
        if function is None:
            function = self.functions.new(function_name)
        if function not in worker.abilities:
            function.workers += 1
            if function.workers == 1 and function.run_limits is not None:
                self.throttle.workers_changed(function)
            own_set = self.waking.change_abilities(worker)
            if own_set is not None:
                own_set.add(function)
        worker.abilities[function] = timeout

    def cant_do(self, worker: Worker, function_name: bytes, reason: bytes | None = None) -> None:
        """Unregister a function. The worker's jobs of that function are given to others.

        Args:
            worker: Who can no longer do it.
            function_name: The function. One that the worker never registered is passed over.
            reason: What the worker is told of those jobs, one of the reasons of `stopping`; None if it asked
                for this itself, and is told nothing.
        """
        function = self._functions.get(function_name)
        if function is None or function not in worker.abilities:
            return
        own_set = self.waking.change_abilities(worker)
        if own_set is not None:
            own_set.remove(function)
        del worker.abilities[function]
        self._lose_worker(function)
        if len(worker.jobs) > self.waking.free_walk:
            if worker.by_function is None:
                worker.by_function = RunningByFunction()
            jobs = worker.by_function.take(function, worker.jobs)
        else:
            jobs = [job for job in worker.jobs.values() if job.function is function]
            for job in jobs:
                del worker.jobs[job.handle]
        if jobs:
            self.slices.begin(self.life.take_back_all(worker, jobs, reason))

    def reset_abilities(self, worker: Worker) -> None:
        """Unregister all functions. The worker's jobs are given to others.

        Args:
            worker: Whose functions and jobs these are.
        """
        self.waking.dissolve(self.waking.look_again(worker))
        self._unregister_all(worker)

    def grab(self, worker: Worker) -> Job | None:  # noqa: PLR0912 (as `submit`: no calls)
        """Give the worker the job that is next for it.

        Args:
            worker: Who asks. It counts as awake from now on.

        Returns:
            The job, which is running now; None if there is none for this worker.
        """
        if self.lease_expires_at is not None and self.lease_expired:
            self.functions.suspend_dispatch()
        ability_set = worker.ability_set
        if ability_set is None:
            ability_set = self.waking.join_set(worker)
        job = ability_set.next()
        if job is not None and (self._leaving or job.expiry is not None):
            job = self._skip_unwanted(ability_set, job)
        if worker.state is not _AWAKE:
            self.waking.note_awake(worker, job)
        if job is None:
            return None
        function = job.function
        if function.stored_queue is not None:
            self.stored_queues.fetch_ahead(function, function.stored_queue, job.priority)
        function.running += 1
        if function.run_limits is not None:
            self.throttle.started(function)
        meter = function.meter
        if meter is not None:
            now = self.timer.turn_time
            if now is None:
                now = self.timer.clock()
            times = meter.waited
            time = now - job.since
            if times.low < time <= times.high:
                times.hits += 1
                times.sum += time
            else:
                times.add(time)
            job.since = now
        started = self.timer.turn_wall_time
        job.started = self.timer.wall_clock() if started is None else started
        job.state = _RUNNING
        job.worker = worker
        worker.jobs[job.handle] = job
        if self.life.trace is not None:
            self.life.trace.started(job)
        timeout = worker.abilities[function]
        limit = function.time_limit
        if limit is not None and (timeout is None or limit < timeout):
            timeout = limit
        if timeout is not None or function.heartbeat is not None:
            self.life.watch_run(job, timeout)
        return job

    def sleep(self, worker: Worker) -> None:
        """Let the worker sleep until it is woken, which is at once if there is a job for it.

        Args:
            worker: Who sleeps. It is told by `WorkerConnection.wake`.
        """
        ability_set = worker.ability_set
        if ability_set is None:
            ability_set = self.waking.join_set(worker)
        if ability_set.has_job():
            if worker.state is _ASLEEP:
                self.waking.note_awake(worker, None)
            worker.connection.wake()
        elif worker.state is not _ASLEEP:
            if worker.state is _WOKEN:
                self.waking.note_awake(worker, None)
            worker.state = _ASLEEP
            if ability_set.kind is None:
                ability_set = self.waking.share_own_set(worker, ability_set)
            ability_set.put_to_sleep(worker)

    def report_data(self, worker: Worker, handle: bytes, data: bytes) -> int:
        """Pass part of a result to the job's clients.

        Args:
            worker: Who reports.
            handle: The job that it runs.
            data: The part.

        Returns:
            How many times the report was told, once for each handle of each client.

        Raises:
            JobNotFound: The job is not with this worker.
        """
        watchers = self._reported(worker, handle, "Job does not exist on server")
        job = worker.jobs.get(handle)
        if job is not None and (job.function.keep_results is not None or job.options is not None):
            self.life.collect_result(job, data)
        for client, name in watchers:
            client.connection.data(name, data)
        return len(watchers)

    def report_warning(self, worker: Worker, handle: bytes, data: bytes) -> int:
        """Pass a warning to the job's clients.

        Args:
            worker: Who reports.
            handle: The job that it runs.
            data: The warning.

        Returns:
            How many times the report was told, as for `report_data`.

        Raises:
            JobNotFound: The job is not with this worker.
        """
        watchers = self._reported(worker, handle, "Job does not exist on server")
        job = worker.jobs.get(handle)
        if job is not None:
            self.life.note_warning(job, data)
        for client, name in watchers:
            client.connection.warning(name, data)
        return len(watchers)

    def report_status(self, worker: Worker, handle: bytes, numerator: bytes, denominator: bytes) -> int:
        """Pass the progress of a job to its clients, and note it for status requests.

        Args:
            worker: Who reports.
            handle: The job that it runs.
            numerator: How much is done, as decimal text. Clients get the text as it is. Answers to status
                requests have the number that it begins with.
            denominator: How much there is to do, in the same way.

        Returns:
            How many times the report was told, as for `report_data`.

        Raises:
            JobNotFound: The job is not with this worker.
        """
        watchers = self._reported(worker, handle, "Job given in work result not found")
        job = worker.jobs.get(handle)
        if job is not None:
            job.progress = leading_number(numerator), leading_number(denominator)
        for client, name in watchers:
            client.connection.status(name, numerator, denominator)
        return len(watchers)

    def complete(self, worker: Worker, handle: bytes, data: bytes) -> int:
        """End a job that is done.

        Args:
            worker: Who reports.
            handle: The job that it ran.
            data: The result.

        Returns:
            How many times the report was told, as for `report_data`.

        Raises:
            JobNotFound: The job is not with this worker.
        """
        watchers = self._completed(worker, handle, "Job given in work result not found", data)
        for client, name in watchers:
            client.connection.completed(name, data)
        return len(watchers)

    def fail(self, worker: Worker, handle: bytes) -> int:
        """End a run that failed: the job is retried, or ends.

        Args:
            worker: Who reports.
            handle: The job that it ran.

        Returns:
            How many times the report was told, as for `report_data`.

        Raises:
            JobNotFound: The job is not with this worker.
        """
        watchers = self._run_failed(worker, handle, "Job given in work result not found", _FAILED, b"")
        for client, name in watchers:
            client.connection.failed(name)
        return len(watchers)

    def exception(self, worker: Worker, handle: bytes, data: bytes) -> int:
        """End a run whose function raised: the job is retried, or ends.

        Args:
            worker: Who reports.
            handle: The job that it ran.
            data: What the worker sends of the exception.

        Returns:
            How many times the report was told, as for `report_data`.

        Raises:
            JobNotFound: The job is not with this worker.
        """
        text = "An exception was received for a job that does not exist"
        watchers = self._run_failed(worker, handle, text, _RAISED, data)
        for client, name in watchers:
            client.connection.exception(name, data)
        return len(watchers)

    def leave_worker(self, worker: Worker) -> None:
        """The worker's connection is gone: its jobs are given to others.

        Args:
            worker: Who is gone.
        """
        self.waking.dissolve(self.waking.leave_set(worker))
        self._unregister_all(worker)

    def cancel(self, handle: bytes, force: bool = False) -> None:
        """End a job. Its clients are told that it failed.

        The job is gone at once. gearmand only flags it, and counts it until a worker comes by. The worker of
        a running job is told if it has asked for that; what it reports is dropped.

        Args:
            handle: The job, by any of its handles.
            force: Whether the connection of a worker is ended that cannot be told. Its other jobs are given
                to others.

        Raises:
            JobNotFound: There is no such job in memory.
        """
        job = self._handles.get(handle)
        if job is None:
            raise JobNotFound
        self.life.cancel(job, force)

    @property
    def total(self) -> int:
        """How many jobs there are, scheduled and running ones included."""
        return self.life.live + self.stored_queues.jobs

    def tick(self) -> None:
        """Do what is due, in slices where that is much, and set the alarm for what is next."""
        self.timer.rings_at = None
        now = self.timer.clock()
        self.slices.go_on()
        for _ in range(SLICE):
            job = self.life.epochs.pop_due(self.timer.wall_clock())
            if job is None:
                break
            self.life.due(job)
        for _ in range(SLICE):
            job = self.life.expiries.pop_due(self.timer.wall_clock())
            if job is None:
                break
            self.life.expire(job)
        for _ in range(SLICE):
            job = self.life.timeouts.pop_due(now)
            if job is None:
                break
            if not self.life.still_runs(job, now):
                self._time_out(job, now)
        self.throttle.tick(now)
        self.waking.replace_late(now)
        if self.slices:
            self.timer.ring_at(now)
        if self.waking.woken:
            self.timer.ring_at(next(iter(self.waking.woken.values())) + WAKE_PATIENCE)
        timeout = self.life.timeouts.next()
        if timeout is not None:
            self.timer.ring_at(timeout)
        for deadlines in (self.life.epochs, self.life.expiries):
            when = deadlines.next()
            if when is not None:
                self.timer.ring_at_wall_time(when)

    def _time_out(self, job: Job, now: float) -> None:
        """A job has run for longer than its time limit. That is a lost worker, and a failed run where it is
        said how many of these there may be. Or its worker is silent, which is a lost one always."""
        deadline, job.deadline = job.deadline, None
        assert deadline is not None
        if deadline.heartbeat is not None and now < deadline.heartbeat.limit:
            self.life.take_from_silent(job)
            return
        stop_run(job, TIMED_OUT)
        if self.life.retry_policy_of(job) is None:
            self.life.take_back(job)
            return
        error = b"The time limit of the run has passed"
        for client, name in self.life.fail_run(job, _TIMED_OUT, error):
            client.connection.failed(name)

    def _attach(self, client: Client, job: Job, background: bool, reply: Any) -> None:
        """Let `client` be one more submitter of `job`, whose data and priority stay as they are.

        A client that already waits for the job gets one more handle, and each update once under each.
        gearmand gives the same handle again and sends each packet twice, which some clients need to
        finish both of their tasks and others take for a packet about an unknown job.
        """
        if background:
            job_store = self.life.job_store
            if job_store is not None and not job.stored:
                if job.saving is None:
                    job_store.check(job.data)
                self._save(client, job, job_store)
                return
            if self.lease_expired:
                # Another server may have taken it over, and have ended it.
                raise NotSaved
            job.background = True
            client.connection.created(job.handle)
            return
        handle = job.handle
        if handle in client.jobs:
            submits = client.coalesced.get(handle, 1)
            if submits >= MAX_COALESCED:
                raise CoalescedTooOften(MAX_COALESCED)
            client.coalesced[handle] = submits + 1
            handle = self._handles.next()
            self._handles.newest[handle] = job
        job.watch(client, handle)
        client.jobs[handle] = job
        if reply is None:
            client.connection.created(handle)
        else:
            client.connection.resolve_created(reply, handle)

    def _save(self, client: Client, job: Job, job_store: JobStore) -> None:
        """Let `client` be told of a background job as soon as that is durable."""
        if job.saving is None:
            job.saving = []
            job_store.save(job)
        job.saving.append((client, client.connection.created_later()))

    def _seek_stored_duplicate(
        self,
        client: Client,
        function_name: bytes,
        unique: bytes,
        data: bytes,
        priority: int,
        reducer: bytes | None,
        run_at: float | None,
        options: JobOptions | None,
    ) -> None:
        """Submit a foreground job that may be the same as one of the stored_queue."""
        assert self.life.job_store is not None
        reply = client.connection.created_later()

        def found(stored: Found) -> None:
            if client.gone:
                return
            if (
                isinstance(stored, StoredJob)
                and self._handles.get(stored.handle) is None
                and self.stored_queues.take(stored)
            ):
                self.life.revive(self._functions[function_name], stored)
            try:
                if isinstance(stored, Refused):
                    raise stored
                self.submit(
                    client, function_name, unique, data, priority, False, reducer, run_at, options, reply
                )
            except Refused as refusal:
                client.connection.resolve_refused(reply, refusal)

        self.life.job_store.find_duplicate(function_name, unique, data, found)

    def _skip_unwanted(self, ability_set: AbilitySet, job: Job) -> Job | None:
        """The first job that somebody wants and that is not too old, of `job`, which `ability_set` has given,
        and those behind it.

        None after a slice of others, as if there were none: a worker that then sleeps is woken at once.
        """
        for left in range(self.slices.size - 1, -1, -1):
            if not (job.background or job.saving) and all(client.gone for client, _ in job.watchers):
                self.life.discard(job, _ABANDONED, in_queue=False)
            elif job.expiry is None or not self.life.expire_late(job):
                return job
            function = job.function
            if function.run_limits is not None:
                self.throttle.ended(job)
            if function.stored_queue is not None:
                self.stored_queues.fetch_ahead(function, function.stored_queue, job.priority)
            following = ability_set.next() if left else None
            if following is None:
                break
            job = following
        return None

    def _reported(self, worker: Worker, handle: bytes, text: str) -> Collection[tuple[Client, bytes]]:
        """Who waits for the worker's job. Raises `JobNotFound` with `text` if it is not its job."""
        job = worker.jobs.get(handle)
        if job is not None:
            if job.deadline is not None:
                self.life.heard_of(job)
            return job.watchers
        self._not_reported(worker, handle, text)
        return ()

    def _run_failed(
        self, worker: Worker, handle: bytes, text: str, outcome: int, error: bytes
    ) -> Collection[tuple[Client, bytes]]:
        """The run of the worker's job has failed; returns who is told, and raises as `_reported` does."""
        job = self.note_failed_run(worker, handle, text)
        return () if job is None else self.life.fail_run(job, outcome, error)

    def note_failed_run(self, worker: Worker, handle: bytes, text: str) -> Job | None:
        """The worker says that a run has ended, and not by completing the job: take its time.

        Args:
            worker: Who reports.
            handle: The job that it ran.
            text: What the error says.

        Returns:
            The job, for `life` to decide what becomes of it. None if its end is known.

        Raises:
            JobNotFound: The job is not with this worker.
        """
        job = worker.jobs.get(handle)
        if job is None:
            self._not_reported(worker, handle, text)
            return None
        worker.ended = handle
        meter = job.function.meter
        if meter is not None:
            meter.ran.add(self.timer.clock() - job.since)
        return job

    def _completed(
        self, worker: Worker, handle: bytes, text: str, data: bytes
    ) -> Collection[tuple[Client, bytes]]:
        """End the worker's job, which is done; returns and raises as `_reported` does."""
        job = worker.jobs.pop(handle, None)
        if job is not None:
            worker.ended = handle
            if self.life.trace is not None:
                self.life.trace.ending(job, None)
            function = job.function
            function.running -= 1
            if function.run_limits is not None:
                self.throttle.completed(job)
            meter = function.meter
            if meter is not None:
                now = self.timer.turn_time
                if now is None:
                    now = self.timer.clock()
                times = meter.ran
                time = now - job.since
                if times.low < time <= times.high:
                    times.hits += 1
                    times.sum += time
                else:
                    times.add(time)
            return self.life.end(job, None, data)
        self._not_reported(worker, handle, text)
        return ()

    def _not_reported(self, worker: Worker, handle: bytes, text: str) -> None:
        """The worker reports on a job that is not its own. Raises `JobNotFound` with `text`.

        Unless it has just ended that job itself, or the job was cancelled under its hands: Perl's worker
        sends WORK_FAIL behind its WORK_EXCEPTION, others end a job twice too, and an ERROR kills them.
        """
        if handle != worker.ended and (worker.cancelled is None or handle not in worker.cancelled):
            raise JobNotFound(text)

    def _unregister_all(self, worker: Worker) -> None:
        abilities, worker.abilities = worker.abilities, {}
        jobs, worker.jobs = worker.jobs, {}
        worker.by_function = None
        if abilities:
            self.slices.begin(self._unregister(abilities))
        if jobs:
            self.slices.begin(self.life.take_back_all(worker, jobs.values()))

    def _unregister(self, abilities: Iterable[Function]) -> Iterator[None]:
        for function in abilities:
            self._lose_worker(function)
            yield

    def _lose_worker(self, function: Function) -> None:
        function.workers -= 1
        if not function.workers and function.run_limits is not None:
            self.throttle.workers_changed(function)
        self.functions.note_idle(function)
