"""The stored tails of the queues: how many jobs they have, and when the next come into memory."""

from __future__ import annotations

from typing import Final

from txgearman.broker.entities import Function, Job
from txgearman.broker.functions import Functions
from txgearman.broker.interfaces import JobStore
from txgearman.broker.job_states import PRIORITIES, JobState, Outcome
from txgearman.broker.stored_job import StoredJob
from txgearman.broker.stored_queue import StoredQueue

_QUEUED: Final = JobState.QUEUED
_TAKEN_OVER: Final = int(Outcome.TAKEN_OVER)


class StoredQueues:
    """The parts of the queues that are in the store alone: `jobs` is how many jobs they have in all.

    `job_store` brings those jobs. It is None without a store, and from when the server ends.
    """

    __slots__ = ("_functions", "job_store", "jobs")

    def __init__(self, functions: Functions, job_store: JobStore | None) -> None:
        self._functions = functions
        self.job_store = job_store
        self.jobs = 0

    @property
    def may_have_stored_jobs(self) -> bool:
        """Whether there may be jobs that only the store knows."""
        return self.jobs > 0 or (self.job_store is not None and self.job_store.shared)

    def is_deep(self, function: Function, priority: int, position: int) -> bool:
        """Whether a job that comes now, with this position, is to be in the store alone."""
        stored_queue = function.stored_queue
        if stored_queue is not None and stored_queue.jobs[priority]:
            # One that overtook others on the way here would be missed by the next fetch.
            return position > stored_queue.position[priority]
        return function.waiting[priority] >= self._functions.policy.in_memory

    def restore(self, function: Function, priority: int, jobs: int) -> None:
        """Know that so many jobs are stored, and have the first of them fetched."""
        self.jobs += jobs
        stored_queue = function.stored_queue = function.stored_queue or StoredQueue[Job]()
        stored_queue.jobs[priority] += jobs
        self.fetch_ahead(function, stored_queue, priority)

    def count(self, function: Function, priority: int, position: int) -> None:
        """One more job is in the stored queue."""
        stored_queue = function.stored_queue = function.stored_queue or StoredQueue[Job]()
        if not stored_queue.jobs[priority]:
            stored_queue.position[priority] = position - 1
            stored_queue.last[priority] = function.last(priority)
        stored_queue.jobs[priority] += 1
        self.jobs += 1
        self.fetch_ahead(function, stored_queue, priority)

    def contains(self, stored: StoredJob) -> bool:
        """Whether this job is in a stored queue."""
        function = self._functions.by_name.get(stored.function)
        stored_queue = None if function is None else function.stored_queue
        if (
            stored_queue is None
            or not stored_queue.jobs[stored.priority]
            or stored.position <= stored_queue.position[stored.priority]
        ):
            return False
        return self.job_store is not None and self.job_store.owns(stored)

    def take(self, stored: StoredJob) -> bool:
        """Take a job out of its stored queue. Returns false if it is in none."""
        if not self.contains(stored):
            return False
        stored_queue = self._functions.by_name[stored.function].stored_queue
        assert stored_queue is not None
        stored_queue.jobs[stored.priority] -= 1
        self.jobs -= 1
        return True

    def lose(self, function: Function, stored_queue: StoredQueue[Job], priority: int) -> None:
        """The jobs of a stored queue are not this server's any more."""
        jobs, stored_queue.jobs[priority] = stored_queue.jobs[priority], 0
        function.ended += jobs
        function.uncompleted[_TAKEN_OVER] += jobs
        self.jobs -= jobs
        self._functions.note_idle(function)

    def fetch_ahead(self, function: Function, stored_queue: StoredQueue[Job], priority: int) -> None:
        """Have jobs of a stored queue fetched if memory runs short of them, or it is their turn."""
        if not stored_queue.jobs[priority] or stored_queue.fetching[priority] or self.job_store is None:
            return
        last = stored_queue.last[priority]
        is_short = function.waiting[priority] <= self._functions.policy.in_memory // 2
        if is_short or last is None or last.state is not _QUEUED:
            stored_queue.fetching[priority] = True
            self.job_store.fetch(function.name, priority, stored_queue.position[priority])

    def not_fetched(self, function_name: bytes, priority: int) -> None:
        """The store could not fetch jobs. It is asked again by the next grab, or by `fetch_again`."""
        function = self._functions.by_name.get(function_name)
        if function is not None and function.stored_queue is not None:
            function.stored_queue.fetching[priority] = False

    def fetch_again(self) -> None:
        """The store can fetch jobs again. This walks all functions."""
        for function in self._functions.by_name.values():
            if function.stored_queue is not None:
                for priority in range(PRIORITIES):
                    self.fetch_ahead(function, function.stored_queue, priority)
