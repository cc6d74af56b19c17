"""What the store's answers do to the jobs: stored, refused, restored, fetched, taken over, disowned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from txgearman.broker.entities import Job
from txgearman.broker.handles import number_of
from txgearman.broker.job_states import PRIORITIES, JobState, Outcome
from txgearman.broker.kept_result import KeptResult
from txgearman.broker.stopping import ABANDONED, TAKEN_OVER
from txgearman.broker.stored_job import StoredJob
from txgearman.errors import Refused, TickOutdated

if TYPE_CHECKING:
    from txgearman.broker.broker import Broker
    from txgearman.broker.dead_job import DeadJob

_SAVING: Final = JobState.SAVING
_RUNNING: Final = JobState.RUNNING
_GONE: Final = JobState.GONE
_NOT_SAVED: Final = int(Outcome.NOT_SAVED)
_ABANDONED: Final = int(Outcome.ABANDONED)
_TAKEN_OVER: Final = int(Outcome.TAKEN_OVER)


class StoreAnswers:
    """The answers to the calls of `JobStore`, and what the store says by itself. It has no state.

    Args:
        broker: Whose jobs these are.
    """

    __slots__ = ("_broker", "_functions", "_life", "_stored_queues")

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._functions = broker.functions
        self._life = broker.life
        self._stored_queues = broker.stored_queues

    def unsaved_end(self, job: Job) -> KeptResult | DeadJob | None:
        """What is to be kept of a job that ended before its save began.

        Args:
            job: What `JobStore.save` was called with.

        Returns:
            Its result, or the dead job; None for nothing.
        """
        return self._broker.ended_jobs.unsaved_end(job)

    def saved(self, job: Job, with_end: bool = False) -> None:
        """A job that was to be saved is durable: its clients are told, and it waits for a worker.

        Args:
            job: What `JobStore.save` was called with.
            with_end: Whether it had ended before its save began, so that its `unsaved_end` is durable
                instead.
        """
        waiting, job.saving = job.saving or (), None
        job.stored = job.background = True
        for client, reply in waiting:
            client.connection.resolve_created(reply, job.handle)
        if job.state is _SAVING:
            position = number_of(job.handle)
            if (
                (job.extras is None or job.run_at is None)
                and not job.watchers
                and self._stored_queues.is_deep(job.function, job.priority, position, job.unique)
            ):
                self._leave_to_store(job)
            else:
                self._life.let_in(job)
        elif job.state is _GONE:
            # It was done, or cancelled, while it was being saved.
            end = self._broker.ended_jobs.take_unsaved_end(job)
            # A take-over may have brought it back meanwhile, and submits may have been coalesced with it.
            if not with_end and self._life.job_store is not None and not self.is_live(job.handle):
                if isinstance(end, KeptResult):
                    self._life.job_store.completed(end)
                elif end is not None:
                    self._life.job_store.died(end.number, end)
                else:
                    self._life.job_store.remove(number_of(job.handle), just_now=False)
        elif job.failures is not None and job.failures.ended_runs and self._life.job_store is not None:
            # It ran for those who wait for its result, and was saved as a new job.
            self._life.job_store.retrying(job)

    def not_saved(self, job: Job, refusal: Refused) -> None:
        """A job could not be made durable: those who wanted that are refused.

        It goes on for those who wait for its result, if there are any.

        Args:
            job: What `JobStore.save` was called with.
            refusal: What the clients are told.
        """
        waiting, job.saving = job.saving or (), None
        for client, reply in waiting:
            client.connection.resolve_refused(reply, refusal)
        self._stay_online(job)

    def not_saved_yet(self, job: Job, refusal: Refused) -> None:
        """A job could not be made durable for now, and will be: only its first submitter waits for that.

        Args:
            job: What `JobStore.save` was called with.
            refusal: What the clients are told that were coalesced with it.
        """
        waiting = job.saving or []
        job.saving = waiting[:1]
        for client, reply in waiting[1:]:
            client.connection.resolve_refused(reply, refusal)

    def stored_before(self, job: Job, handle: bytes, submits: int) -> bool:
        """A job was not saved, as the store has a duplicate of it.

        Args:
            job: What `JobStore.save` was called with.
            handle: The handle of the duplicate.
            submits: How many submits, from the first one, this answers.

        Returns:
            Whether there are other submits: for them the job is to be saved once more.
        """
        waiting = job.saving or []
        job.saving = waiting[submits:] or None
        for client, reply in waiting[:submits]:
            client.connection.resolve_created(reply, handle)
        return self._is_wanted_still(job)

    def tick_refused(self, job: Job) -> bool:
        """A job of a tick was not saved, as its schedule has changed.

        Args:
            job: What `JobStore.save` was called with.

        Returns:
            Whether there are submits beside that of the tick: for them the job is to be saved once more.
        """
        waiting = job.saving or []
        job.saving = waiting[1:] or None
        for client, reply in waiting[:1]:
            client.connection.resolve_refused(reply, TickOutdated())
        return self._is_wanted_still(job)

    def _is_wanted_still(self, job: Job) -> bool:
        """Whether somebody waits until a job is saved that was not."""
        if job.saving is not None:
            return True
        self._stay_online(job)
        return False

    def _stay_online(self, job: Job) -> None:
        """A job that was not saved goes on for those who wait for its result, if there are any."""
        self._broker.ended_jobs.take_unsaved_end(job)
        if job.state is _SAVING:
            job.background = False
            if job.watchers:
                self._life.let_in(job)
            else:
                self._life.discard(job, _NOT_SAVED)
        elif not (job.background or job.watchers) and job.state is not _GONE:
            self._life.abandon(job, _ABANDONED, ABANDONED)

    def restore(self, stored: StoredJob) -> None:
        """Take in a background job that was saved before.

        One that is here already is this server's again: its worker went on with it when it was disowned.

        Args:
            stored: The job, as the store has it.
        """
        job = self._life.handles.get(stored.handle)
        if job is not None:
            job.stored = job.background = True
            return
        function = self._functions.restored(stored.function)
        function.submitted += 1
        function.restored += 1
        # `JobStore.fetch` brings none that has a time, be it its own or that of a retry.
        has_time = stored.run_at is not None or stored.retry_at is not None
        if not has_time and self._stored_queues.is_deep(
            function, stored.priority, stored.position, stored.unique
        ):
            self._stored_queues.count(function, stored.priority, stored.position, stored.unique)
        else:
            self._life.revive(function, stored)

    def is_live(self, handle: bytes) -> bool:
        """Look for a job that is in memory and has not ended.

        Args:
            handle: The job's handle.

        Returns:
            Whether there is one.
        """
        return self._life.handles.get(handle) is not None

    def is_stored(self, handle: bytes) -> bool:
        """Look for a job that is in memory, and durable as this server's.

        Args:
            handle: The job's handle.

        Returns:
            Whether there is one.
        """
        job = self._life.handles.get(handle)
        return job is not None and job.stored

    def save_again(self, handle: bytes) -> None:
        """Save a job that is in memory and was accepted, and is removed from the store all the same.

        Args:
            handle: The job's handle.
        """
        job = self._life.handles.get(handle)
        if job is not None and self._life.job_store is not None:
            job.background = True
            if job.saving is None:
                # Nobody waits for this.
                job.saving = []
                self._life.job_store.save(job)

    def restore_stored_queue(self, function_name: bytes, priority: int, jobs: int) -> None:
        """Know of jobs that only the store has, and have the first of them fetched.

        Args:
            function_name: The function of the jobs; one that does not exist is made.
            priority: Their priority.
            jobs: How many there are.
        """
        function = self._functions.restored(function_name)
        function.submitted += jobs
        function.restored += jobs
        self._stored_queues.restore(function, priority, jobs)

    def fetched(self, function_name: bytes, priority: int, jobs: Sequence[StoredJob], are_all: bool) -> None:
        """Take in the jobs that `JobStore.fetch` has brought.

        Args:
            function_name: The function of the jobs.
            priority: Their priority.
            jobs: The jobs, in the order of their positions.
            are_all: Whether the store has no more of them.
        """
        function = self._functions.by_name.get(function_name)
        stored_queue = None if function is None else function.stored_queue
        if function is None or stored_queue is None:
            # It was dropped meanwhile, when its last job was cancelled.
            return
        stored_queue.fetching[priority] = False
        if stored_queue.refetch[priority]:
            stored_queue.refetch[priority] = False
            self._stored_queues.fetch_ahead(function, stored_queue, priority)
            return
        for stored in jobs:
            stored_queue.position[priority] = stored.position
            if self._life.handles.get(stored.handle) is None:
                stored_queue.jobs[priority] -= 1
                self._stored_queues.jobs -= 1
                if not self._stored_queues.pass_over(function, stored_queue, stored):
                    self._life.revive(function, stored)
        stored_queue.last[priority] = function.last(priority) if stored_queue.jobs[priority] else None
        if are_all and stored_queue.jobs[priority]:
            # Somebody has changed the store behind our back.
            self._stored_queues.lose(function, stored_queue, priority)
        self._stored_queues.fetch_ahead(function, stored_queue, priority)

    def not_fetched(self, function_name: bytes, priority: int) -> None:
        """The store could not bring jobs. It is asked again by the next grab, or by `fetch_again`.

        Args:
            function_name: The function of the jobs.
            priority: Their priority.
        """
        self._stored_queues.not_fetched(function_name, priority)

    def fetch_again(self) -> None:
        """The store can bring jobs again. This walks all functions."""
        self._stored_queues.fetch_again()

    def _leave_to_store(self, job: Job) -> None:
        """Forget a job that the store has, until its turn comes."""
        job.state = _GONE
        self._life.live -= 1
        if job.unique:
            self._life.duplicates.remove(job)
        self._life.handles.remove(job.handle)
        self._stored_queues.count(job.function, job.priority, number_of(job.handle), job.unique)

    def disown(self, last_number: int) -> None:
        """The stored jobs are another server's now: forget them.

        A worker that has one is told to stop. It goes on where it cannot be told, and where clients here wait
        for the result. If it loses the job then, nobody here gets it. Clients that wait for a job which no
        worker has are told that it failed.

        Args:
            last_number: New handles are numbered from behind this number.
        """
        # Those that are without jobs then may be forgotten.
        for function in list(self._functions.by_name.values()):
            if function.stored_queue is not None:
                self._stored_queues.lose_blocked(function, function.stored_queue)
                for priority in range(PRIORITIES):
                    self._stored_queues.lose(function, function.stored_queue, priority)
        for handle, job in self._life.handles:
            if job.stored and handle == job.handle and job.state is not _GONE:
                job.stored = job.background = False
                if job.state is not _RUNNING:
                    self._life.give_up(job, _TAKEN_OVER)
                elif not job.watchers:
                    self._life.abandon(job, _TAKEN_OVER, TAKEN_OVER)
        self._life.handles.skip_to(last_number)

    def reserve(self, numbers: int) -> int:
        """Set numbers aside that no handle will have.

        Args:
            numbers: How many, consecutive.

        Returns:
            The first of them.
        """
        return self._life.handles.skip(numbers)

    def extend_lease(self, when: float) -> None:
        """Give jobs to workers until a time, and then no more until this says a later one.

        So jobs are given only while it is certain that they are this server's. This may walk all functions.

        Args:
            when: Seconds by the monotonic clock. A time that has passed stops the giving at once.
        """
        self._broker.lease.expires_at = when
        if when <= self._broker.timer.clock():
            self._functions.suspend_dispatch()
        elif self._functions.dispatch_suspended:
            self._functions.dispatch_suspended = False
            for function in self._functions.by_name.values():
                if function.dispatch_suspended and not function.paused:
                    self._broker.throttle.resume_dispatch(function)

    def slot_gained(self, function_name: bytes, key: bytes) -> None:
        """One more job may run here, as `SlotSource.want` asked for.

        A slot of a function that is gone, or that nothing waits for any more, is released at once.

        Args:
            function_name: The function.
            key: The key of its jobs, empty for the function's own limit.
        """
        self._broker.throttle.slot_gained(function_name, key)

    def slot_wanted(self, function_name: bytes, key: bytes) -> None:
        """Another server wants a slot: a free one is released at once, or else the next that becomes free.

        Args:
            function_name: The function.
            key: The key of its jobs, empty for the function's own limit.
        """
        self._broker.throttle.slot_wanted(function_name, key)

    def slot_limits(self, function_name: bytes) -> tuple[int, int]:
        """How many slots there may be on all servers together.

        Args:
            function_name: The function.

        Returns:
            How many of the function, and how many of each key; 0 where there is no limit, or no function.
        """
        function = self._functions.by_name.get(function_name)
        limits = None if function is None else function.run_limits
        return (0, 0) if limits is None else (limits.rules.max_running, limits.rules.max_running_per_key)

    def slots_lost(self) -> None:
        """No slot is this server's any more, as its lease has expired. This walks all functions and keys.

        `SlotSource.want` is said anew, from inside this call, for all that waits.
        """
        self._broker.throttle.slots_lost()

    def detach_store(self) -> None:
        """Tell the store nothing from now on: this server ends, and its stored jobs stay as they are for the
        next one."""
        self._life.job_store = self._stored_queues.job_store = None
        self._functions.setting_store = None
