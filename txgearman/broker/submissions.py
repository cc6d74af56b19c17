"""Takes jobs in: what a submit is refused for, which jobs it is coalesced with, and the new job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from txgearman.broker.entities import Client, Job
from txgearman.broker.functions import Functions
from txgearman.broker.interfaces import JobStore
from txgearman.broker.job_extras import JobExtras
from txgearman.broker.job_options import JobOptions
from txgearman.broker.job_states import JobState, Priority
from txgearman.broker.kept_unique import UNIQUE_IS_DATA
from txgearman.broker.kept_uniques import KeptUniques
from txgearman.broker.lease import Lease
from txgearman.broker.lifecycle import Lifecycle
from txgearman.broker.limits import Limits
from txgearman.broker.stored_job import StoredJob
from txgearman.broker.stored_queues import StoredQueues
from txgearman.broker.timer import Timer
from txgearman.errors import CoalescedTooOften, JobNotFound, NotSaved, Refused

if TYPE_CHECKING:
    from txgearman.broker.interfaces import Found

MAX_COALESCED: Final = 1000
"""How often one client may wait for one job. It is told each report once for each, so that without a limit a
few bytes of a worker could make millions. Programs join a job by mistake or as tasks of one batch, a few
times."""

# Names local to the module: an enum's member costs two look-ups each time on the hot path.
_SAVING: Final = JobState.SAVING
_NORMAL: Final = int(Priority.NORMAL)


class Submissions:
    """Takes submits.

    Args:
        functions: All functions. A submit makes one that does not exist.
        limits: How many jobs there may be.
        stored_queues: The jobs in the store alone, which submits may be coalesced with.
        life: Queues the new jobs.
        kept_uniques: The uniques of completed jobs.
        lease: Until when the stored jobs are this server's.
        timer: The clocks.
    """

    __slots__ = (
        "_by_name",
        "_functions",
        "_handles",
        "_kept_by_function",
        "_kept_uniques",
        "_lease",
        "_life",
        "_limits",
        "_stored_queues",
        "_timer",
        "_uniques",
    )

    def __init__(
        self,
        functions: Functions,
        limits: Limits,
        stored_queues: StoredQueues,
        life: Lifecycle,
        kept_uniques: KeptUniques,
        lease: Lease,
        timer: Timer,
    ) -> None:
        self._functions = functions
        self._limits = limits
        self._stored_queues = stored_queues
        self._life = life
        self._kept_uniques = kept_uniques
        self._lease = lease
        self._timer = timer
        # What nearly every call needs, without the way to it.
        self._by_name = functions.by_name
        self._handles = life.handles
        self._uniques = life.duplicates.by_unique
        self._kept_by_function = kept_uniques.by_function

    @property
    def total(self) -> int:
        """How many jobs there are, scheduled and running ones included."""
        return self._life.live + self._stored_queues.jobs

    def submit(  # noqa: PLR0912, PLR0915 (the calls that its branches save are a thirtieth of it)
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
        there is a store, by `ClientConnection.created_later` and what follows it.

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
            reply: For the broker itself: what `ClientConnection.created_later` returned, if the client was
                told so already.

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
        function = self._by_name.get(function_name)
        if function is None:
            # First: refused jobs must not fill memory with functions either.
            self._limits.check_open(self.total)
            function = self._functions.new(function_name)
        # Where a unique that no job has is put: with this nearly every submit is spared two calls.
        free: dict[bytes, Any] | None = None
        if unique:
            table = self._uniques.table(unique)
            if unique not in table and unique != UNIQUE_IS_DATA:
                free = table
            elif (duplicate := self._life.duplicates.find(function, unique, data)) is not None:
                self._attach(client, duplicate, background, reply)
                function.coalesced += 1
                return
            if (
                self._kept_by_function
                and function_name in self._kept_by_function
                and self._kept_uniques.answer(client, function_name, unique, data, background, reply)
            ):
                function.coalesced += 1
                return
            if (
                reply is None
                and not background
                and self._stored_queues.jobs
                and function.stored_queue is not None
            ):
                self._seek_stored_duplicate(
                    client, function_name, unique, data, priority, reducer, run_at, options
                )
                return
            if options is not None or function.unique_for is not None:
                options = self._kept_uniques.admit(options, function.unique_for)
        if function.limited:
            self._limits.admit(function, priority, self.total)
        job_store = self._life.job_store if background else None
        if job_store is not None:
            job_store.check(data)
        handle = self._handles.next()
        submitted = self._timer.turn_wall_time
        if submitted is None:
            submitted = self._timer.wall_clock()
        extras = None
        if run_at is not None or options is not None or reducer is not None:
            extras = JobExtras(reducer, run_at, options)
        job = Job(handle, function, unique, data, priority, background, submitted, extras)
        self._handles.newest[handle] = job
        function.submitted += 1
        self._life.live += 1
        if unique:
            if free is not None:
                free[unique] = job
            else:
                self._life.duplicates.add(job)
        if job_store is not None:
            job.state = _SAVING
            self._save(client, job, job_store)
            return
        if not background:
            # As job.watch(), without the call: nobody waits for a new job.
            job.watchers = {(client, handle): None}
            client.jobs[handle] = job
        if reply is None:
            client.connection.created(handle)
        else:
            client.connection.resolve_created(reply, handle)
        if run_at is None or not self._life.schedule(job, run_at):
            self._life.enqueue(job)

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

    def _attach(self, client: Client, job: Job, background: bool, reply: Any) -> None:
        """Let `client` be one more submitter of `job`, whose data and priority stay as they are.

        A client that already waits for the job gets one more handle, and each update once under each.
        gearmand gives the same handle again and sends each packet twice, which some clients need to
        finish both of their tasks and others take for a packet about an unknown job.
        """
        if background:
            job_store = self._life.job_store
            if job_store is not None and not job.stored:
                if job.saving is None:
                    job_store.check(job.data)
                self._save(client, job, job_store)
                return
            if self._lease.expired:
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
        assert self._life.job_store is not None
        reply = client.connection.created_later()

        def found(stored: Found) -> None:
            if client.gone:
                return
            if (
                isinstance(stored, StoredJob)
                and self._handles.get(stored.handle) is None
                and self._stored_queues.take(stored)
            ):
                self._life.revive(self._by_name[function_name], stored)
            try:
                if isinstance(stored, Refused):
                    raise stored
                self.submit(
                    client, function_name, unique, data, priority, False, reducer, run_at, options, reply
                )
            except Refused as refusal:
                client.connection.resolve_refused(reply, refusal)

        self._life.job_store.find_duplicate(function_name, unique, data, found)
