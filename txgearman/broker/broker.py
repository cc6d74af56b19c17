"""The verbs of the job server: every decision about jobs, clients and workers is made here.

Each verb is O(1) at any depth of the queues and number of workers, O(log n) where time or turns order
things; `txgearman.broker.waking` says what many functions and kinds of workers cost. What a peer leaves
after, which may be any number of things, is seen to in slices (`txgearman.broker.slices`). A verb that
refuses raises `Refused` and has changed nothing. What must leave goes through `txgearman.broker.interfaces`.

Behaviour is that of gearmand 2. Where it is not, docs/protocol.rst says so and why; the comments here
name what matters to the code beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final

from txgearman.broker.deadlines import Deadlines
from txgearman.broker.departures import Departures
from txgearman.broker.ended_jobs import EndedJobs
from txgearman.broker.entities import Client, Function, Job, Worker
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
from txgearman.broker.lease import Lease
from txgearman.broker.lifecycle import Lifecycle
from txgearman.broker.limits import Limits
from txgearman.broker.numbers import leading_number
from txgearman.broker.policy import WAKE_PATIENCE, Policy
from txgearman.broker.running_by_function import RunningByFunction
from txgearman.broker.slices import Slices
from txgearman.broker.stored_queues import StoredQueues
from txgearman.broker.submissions import Submissions
from txgearman.broker.throttle import Throttle
from txgearman.broker.time_limits import TimeLimits
from txgearman.broker.timer import Timer
from txgearman.broker.waking import Waking
from txgearman.errors import JobNotFound

# Names local to the module: an enum's member costs two look-ups each time on the hot path.
_RUNNING: Final = JobState.RUNNING
_AWAKE: Final = WorkerState.AWAKE
_ASLEEP: Final = WorkerState.ASLEEP
_WOKEN: Final = WorkerState.WOKEN
_NORMAL: Final = int(Priority.NORMAL)
_FAILED: Final = int(Outcome.FAILED)
_RAISED: Final = int(Outcome.RAISED)
_ABANDONED: Final = int(Outcome.ABANDONED)


def _no_jitter() -> float:
    return 0.5


class Broker:
    """The jobs, and who may have them.

    Calls between `begin_turn` and `end_turn` share one reading of the clocks; `in_turn` says whether one is
    under way.

    The parts are for the modules above this one: `functions`, `submissions`, `life` (the jobs in memory),
    `stored_queues` (those in the store alone), `departures`, `ended_jobs`, `limits`, `throttle`,
    `time_limits`, `waking`, `lease`, `timer` and `slices`.

    Args:
        policy: The operator's choices.
        clock: Gives monotonic seconds.
        wall_clock: Gives seconds since the epoch.
        alarm: Is asked to call `tick`.
        measured_functions: How many functions at most have measures of their own. With 0 no times are taken.
        job_store: Makes background jobs durable before their clients are told of them. Without one they are
            in memory alone.
        last_number: The handles of new jobs are numbered from the number after this one.
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
        "_measures_times",
        "departures",
        "ended_jobs",
        "functions",
        "in_turn",
        "lease",
        "life",
        "limits",
        "slices",
        "stored_queues",
        "submissions",
        "throttle",
        "time_limits",
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
        self.functions = Functions(policy, measured_functions, slot_source, trace is not None)
        self.limits = Limits(policy.max_jobs, self.timer)
        self.waking = Waking(self.functions, self.slices, self.timer)
        self.throttle = Throttle(self.functions, self.waking, self.slices, self.timer, pause_listener)
        self.stored_queues = StoredQueues(self.functions, job_store)
        self.ended_jobs = EndedJobs(policy, self.timer, death_listener, dead_job_store, result_store)
        timeouts = Deadlines[Job]()
        self.life = Lifecycle(
            policy,
            self.functions,
            self.stored_queues,
            self.waking,
            self.throttle,
            self.timer,
            self.ended_jobs,
            timeouts,
            job_store,
            last_number,
            trace,
            chance,
        )
        self.time_limits = TimeLimits(timeouts, self.life, self.timer)
        self.departures = Departures(self.life, self.throttle, self.stored_queues, self.slices)
        self.lease = Lease(self.timer)
        self.submissions = Submissions(
            self.functions,
            self.limits,
            self.stored_queues,
            self.life,
            self.ended_jobs.kept_uniques,
            self.lease,
            self.timer,
        )
        # What nearly every call needs, without the way to it.
        self._functions = self.functions.by_name
        self._handles = self.life.handles
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

    def submit(
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
    ) -> None:
        """Accept a job, or let `client` wait for the one that it is a duplicate of.

        `Submissions.submit` says more. The server's commands call that itself: the call from here to there
        is a twentieth of the broker's part of a submit.

        Args:
            client: Who submits. It waits for the job unless that is `background`.
            function_name: The function that is to run.
            unique: The key that makes two jobs of a function the same one; empty for none.
            data: The payload.
            priority: One of `Priority`, as a plain int.
            background: Whether the job goes on without a client.
            reducer: What SUBMIT_REDUCE_JOB names for the worker.
            run_at: Seconds since the epoch before which no worker gets the job; None for at once.
            options: What is said of this job alone; None for nothing.
        """
        self.submissions.submit(
            client, function_name, unique, data, priority, background, reducer, run_at, options
        )

    def watch(self, client: Client, handle: bytes) -> None:
        """Let `client` wait for a job that it did not submit. `Submissions.watch` says more.

        Args:
            client: Who waits.
            handle: The job's handle.
        """
        self.submissions.watch(client, handle)

    def leave_client(self, client: Client) -> None:
        """The client's connection is gone.

        A waiting job that nobody else wants goes with it. gearmand keeps such a job until a worker comes by,
        and gives its handle to new clients of the same unique, who then wait for ever. It also discards
        background jobs whose last *waiting* client leaves.

        Very many jobs are discarded in slices, and count as waiting until then. No worker gets one meanwhile.

        Args:
            client: Who is gone. Nothing is told to it from now on.
        """
        self.departures.begin(client)

    def may_have_lost(self, worker: Worker) -> bool:
        """Whether a stored job of this worker may be another server's by now.

        Args:
            worker: Whose running jobs are looked at.

        Returns:
            True if the lease has expired and one of the jobs is stored.
        """
        return self.lease.expired and any(job.stored for job in worker.jobs.values())

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
        if self.lease.expires_at is not None and self.lease.expired:
            self.functions.suspend_dispatch()
        ability_set = worker.ability_set
        if ability_set is None:
            ability_set = self.waking.join_set(worker)
        job = ability_set.next()
        if job is not None and (self.departures.clients or job.expiry is not None):
            job = self.departures.skip_unwanted(ability_set, job)
        if worker.state is not _AWAKE:
            self.waking.note_awake(worker, job)
        if job is None:
            return None
        function = job.function
        function.running += 1
        if not function.plain:
            if function.stored_queue is not None:
                self.stored_queues.fetch_ahead(function, function.stored_queue, job.priority)
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
        timeout = worker.abilities[function]
        if not function.plain or timeout is not None:
            if self.life.trace is not None:
                self.life.trace.started(job)
            limit = function.time_limit
            if limit is not None and (timeout is None or limit < timeout):
                timeout = limit
            if timeout is not None or function.heartbeat is not None:
                self.time_limits.watch(job, timeout)
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
        if job is not None and (job.function.keep_results is not None or job.extras is not None):
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
            job.extend().progress = leading_number(numerator), leading_number(denominator)
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
        job = worker.jobs.pop(handle, None)
        if job is None:
            self._not_reported(worker, handle, "Job given in work result not found")
            return 0
        worker.ended = handle
        function = job.function
        function.running -= 1
        if not function.plain:
            if self.life.trace is not None:
                self.life.trace.ending(job, None)
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
        watchers = self.life.end(job, None, data)
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
        return self.submissions.total

    def tick(self) -> None:
        """Do what is due, in slices where that is much, and set the alarm for what is next."""
        self.timer.rings_at = None
        now = self.timer.clock()
        self.slices.go_on()
        self.life.tick()
        self.time_limits.tick(now)
        self.throttle.tick(now)
        self.waking.replace_late(now)
        if self.slices:
            self.timer.ring_at(now)
        if self.waking.woken:
            self.timer.ring_at(next(iter(self.waking.woken.values())) + WAKE_PATIENCE)

    def _reported(self, worker: Worker, handle: bytes, text: str) -> Collection[tuple[Client, bytes]]:
        """Who waits for the worker's job. Raises `JobNotFound` with `text` if it is not its job."""
        job = worker.jobs.get(handle)
        if job is not None:
            if job.deadline is not None:
                self.time_limits.heard_of(job)
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

    def _not_reported(self, worker: Worker, handle: bytes, text: str) -> None:
        """The worker reports on a job that is not its own. Raises `JobNotFound` with `text`.

        Unless it has just ended that job itself, or the job was cancelled under its hands: Perl's worker
        sends WORK_FAIL after its WORK_EXCEPTION, others end a job twice too, and an ERROR kills them.
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
