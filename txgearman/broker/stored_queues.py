"""The stored tails of the queues: how many jobs they have, and when the next come into memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from txgearman.broker.entities import Function, Job
from txgearman.broker.functions import Functions
from txgearman.broker.interfaces import JobStore, StoredPage
from txgearman.broker.job_states import PRIORITIES, JobState, Outcome
from txgearman.broker.keyed_queue import KeyedQueue
from txgearman.broker.stored_job import StoredJob
from txgearman.broker.stored_queue import StoredQueue
from txgearman.errors import Refused

READY_AHEAD: Final = 100
"""Jobs of different keys that may run and are in memory, below which more are fetched although memory has its
share: what is there is of keys that are full. As many as workers are likely to take until more have come."""

STUBS_AT_ONCE: Final = 100
"""Blocked jobs that are fetched in one go while there is room for them, as they are often of one key."""

_QUEUED: Final = JobState.QUEUED
_TAKEN_OVER: Final = int(Outcome.TAKEN_OVER)


class StoredQueues:
    """The parts of the queues that are in the store alone: `jobs` is how many jobs they have in all.

    `job_store` brings those jobs. It is None without a store, and from when the server ends. `revive` makes a
    live job of a stored one; `Lifecycle` sets it.
    """

    __slots__ = ("_functions", "job_store", "jobs", "revive")

    def __init__(self, functions: Functions, job_store: JobStore | None) -> None:
        self._functions = functions
        self.job_store = job_store
        self.jobs = 0
        self.revive: Callable[[Function, StoredJob], object] = _revive_nothing

    @property
    def may_have_stored_jobs(self) -> bool:
        """Whether there may be jobs that only the store knows."""
        return self.jobs > 0 or (self.job_store is not None and self.job_store.shared)

    def is_deep(self, function: Function, priority: int, position: int, unique: bytes) -> bool:
        """Whether a job that comes now, with this position, is to be in the store alone."""
        stored_queue = function.stored_queue
        if stored_queue is not None and stored_queue.jobs[priority]:
            # One that overtook others on the way here would be missed by the next fetch.
            return position > stored_queue.position[priority]
        has_room = function.waiting[priority] < self._functions.policy.in_memory
        keyed_queue = function.keyed_queue
        if keyed_queue is None or function.moved is not None:
            return not has_room
        if not keyed_queue.keeps(unique, priority, has_room):
            return True
        return not has_room and keyed_queue.ready(priority) >= self._ready_ahead

    @property
    def _ready_ahead(self) -> int:
        """`READY_AHEAD`, but no more than half of what may be in memory."""
        return min(READY_AHEAD, self._functions.policy.in_memory // 2)

    def restore(self, function: Function, priority: int, jobs: int) -> None:
        """Know that so many jobs are stored, and have the first of them fetched."""
        self.jobs += jobs
        stored_queue = function.begin_stored_queue()
        stored_queue.jobs[priority] += jobs
        self.fetch_ahead(function, stored_queue, priority)

    def count(self, function: Function, priority: int, position: int, unique: bytes) -> None:
        """One more job is in the stored queue, or is blocked ahead of it."""
        stored_queue = function.begin_stored_queue()
        keyed_queue = function.keyed_queue
        if (
            keyed_queue is not None
            and function.moved is None
            and not stored_queue.jobs[priority]
            and not keyed_queue.keeps(unique, priority, False)
        ):
            self._add_stub(function, stored_queue, keyed_queue, unique, priority, position)
            return
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
        if function is None or stored_queue is None or self.job_store is None:
            return False
        priority, position = stored.priority, stored.position
        is_behind = stored_queue.jobs[priority] and position > stored_queue.position[priority]
        if not (is_behind or _has_stub(function, stored)):
            return False
        return self.job_store.owns(stored)

    def take(self, stored: StoredJob) -> bool:
        """Take a job out of its stored queue. Returns false if it is in none."""
        if not self.contains(stored):
            return False
        function = self._functions.by_name[stored.function]
        stored_queue, keyed_queue = function.stored_queue, function.keyed_queue
        assert stored_queue is not None
        if keyed_queue is not None and _has_stub(function, stored):
            self._remove_stub(stored_queue, keyed_queue, stored)
            keyed_queue.settle(keyed_queue.key_of(stored.unique))
        else:
            stored_queue.jobs[stored.priority] -= 1
            self.jobs -= 1
        return True

    def lose(self, function: Function, stored_queue: StoredQueue[Job], priority: int) -> None:
        """The jobs of a stored queue are not this server's any more."""
        jobs, stored_queue.jobs[priority] = stored_queue.jobs[priority], 0
        self._lose(function, jobs)
        self._functions.note_idle(function)

    def fetch_ahead(self, function: Function, stored_queue: StoredQueue[Job], priority: int) -> None:
        """Have jobs of a stored queue fetched if memory runs short of them, or it is their turn."""
        keyed_queue = function.keyed_queue
        if keyed_queue is not None and keyed_queue.needs:
            self._fetch_blocked(function, keyed_queue)
        if not stored_queue.jobs[priority] or stored_queue.fetching[priority] or self.job_store is None:
            return
        last = stored_queue.last[priority]
        is_short = function.waiting[priority] <= self._functions.policy.in_memory // 2 or (
            keyed_queue is not None
            and function.moved is None
            and keyed_queue.ready(priority) <= self._ready_ahead
        )
        if is_short or last is None or last.state is not _QUEUED:
            stored_queue.fetching[priority] = True
            self.job_store.fetch(function.name, priority, stored_queue.position[priority])

    # -- jobs that are blocked ------------------------------------------------------------------

    def pass_over(self, function: Function, stored_queue: StoredQueue[Job], stored: StoredJob) -> bool:
        """Leave a job that was fetched to the store if its key is full and memory too. Returns whether it
        is left there."""
        keyed_queue = function.keyed_queue
        if keyed_queue is None:
            return False
        has_room = function.waiting[stored.priority] < self._functions.policy.in_memory
        if keyed_queue.keeps(stored.unique, stored.priority, has_room):
            return False
        self._add_stub(function, stored_queue, keyed_queue, stored.unique, stored.priority, stored.position)
        return True

    def lose_blocked(self, function: Function, stored_queue: StoredQueue[Job]) -> None:
        """The jobs that are blocked in the store alone are not this server's any more."""
        for priority, jobs in enumerate(stored_queue.blocked):
            self._lose(function, jobs)
            stored_queue.blocked[priority] = 0
        if function.keyed_queue is not None:
            function.keyed_queue.forget_stubs()

    def _add_stub(
        self,
        function: Function,
        stored_queue: StoredQueue[Job],
        keyed_queue: KeyedQueue[Job],
        unique: bytes,
        priority: int,
        position: int,
    ) -> None:
        stored_queue.blocked[priority] += 1
        self.jobs += 1
        keyed_queue.add_stub(unique, priority, position)
        if keyed_queue.needs:
            self._fetch_blocked(function, keyed_queue)

    def _remove_stub(
        self, stored_queue: StoredQueue[Job], keyed_queue: KeyedQueue[Job], stored: StoredJob
    ) -> None:
        keyed_queue.remove_stub(keyed_queue.key_of(stored.unique), stored.priority, stored.position)
        stored_queue.blocked[stored.priority] -= 1
        self.jobs -= 1

    def _fetch_blocked(self, function: Function, keyed_queue: KeyedQueue[Job]) -> None:
        """Fetch the next job of each key that has none in memory any more."""
        job_store = self.job_store
        if job_store is None:
            return
        needs, keyed_queue.needs = keyed_queue.needs, {}
        for name in needs:
            stub = keyed_queue.next_stub(name)
            if stub is not None:
                priority, position = stub
                has_room = function.waiting[priority] < self._functions.policy.in_memory
                limit = STUBS_AT_ONCE if has_room else 1
                arrival = _Arrival(self, function, keyed_queue, name, priority, position)
                job_store.page(function.name, priority, position - 1, limit, arrival.arrived)

    def arrived(self, arrival: _Arrival, page: StoredPage | Refused) -> None:
        """The store has brought the next job of a key, and some of those behind it, or could not."""
        function, keyed_queue, name = arrival.function, arrival.keyed_queue, arrival.name
        stored_queue = function.stored_queue
        if function.keyed_queue is not keyed_queue or stored_queue is None:
            # The limit is another by now, or none.
            return
        keyed_queue.stub_fetched(name)
        if isinstance(page, Refused):
            # It is asked again by the next grab, or by `fetch_again`.
            keyed_queue.settle(name)
            return
        jobs = page.jobs
        is_there = bool(jobs) and jobs[0].position == arrival.position
        if not is_there and keyed_queue.remove_stub(name, arrival.priority, arrival.position):
            # Somebody has changed the store behind our back.
            stored_queue.blocked[arrival.priority] -= 1
            self._lose(function, 1)
        for stored in jobs:
            has_room = function.waiting[stored.priority] < self._functions.policy.in_memory
            if (has_room or stored.position == arrival.position) and keyed_queue.is_next(
                stored.unique, stored.priority, stored.position
            ):
                self._remove_stub(stored_queue, keyed_queue, stored)
                self.revive(function, stored)
                keyed_queue.settle(keyed_queue.key_of(stored.unique))
        keyed_queue.settle(name)
        self._functions.note_idle(function)
        if keyed_queue.needs:
            self._fetch_blocked(function, keyed_queue)

    def _lose(self, function: Function, jobs: int) -> None:
        function.ended += jobs
        function.uncompleted[_TAKEN_OVER] += jobs
        self.jobs -= jobs

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


class _Arrival:
    """The next job of a key is under way: `arrived` is to be told of what the store says."""

    __slots__ = ("_stored_queues", "function", "keyed_queue", "name", "position", "priority")

    def __init__(
        self,
        stored_queues: StoredQueues,
        function: Function,
        keyed_queue: KeyedQueue[Job],
        name: bytes,
        priority: int,
        position: int,
    ) -> None:
        self._stored_queues = stored_queues
        self.function = function
        self.keyed_queue = keyed_queue
        self.name = name
        self.priority = priority
        self.position = position

    def arrived(self, page: StoredPage | Refused) -> None:
        """The store has answered."""
        self._stored_queues.arrived(self, page)


def _has_stub(function: Function, stored: StoredJob) -> bool:
    keyed_queue = function.keyed_queue
    return keyed_queue is not None and keyed_queue.has_stub(stored.unique, stored.priority, stored.position)


def _revive_nothing(*_: object) -> None:
    raise AssertionError("nobody has said how a job is made live")
