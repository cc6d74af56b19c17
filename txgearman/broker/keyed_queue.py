"""The queued jobs of a function whose runs are limited by key: who is next, passing over keys that are full.

Jobs of one customer have uniques that begin alike. The part up to the separator is their key, and only so
many jobs of one key run at a time. However many jobs of a full key wait ahead, the next one of another key is
found in O(log n): each key waits by itself, and is listed for the workers by its first job alone,
as long as it has a slot free.

With a store a blocked job may be there alone, however many there are: of such a job the key has the position,
its stub, so that the jobs of other keys behind it are found. Once the jobs of the key in memory are used up,
the next is fetched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from heapq import heapify, heappop, heappush
from typing import Final, Generic, Protocol, TypeVar

from txgearman.broker.job_states import PRIORITIES, JobState
from txgearman.broker.kept_unique import UNIQUE_IS_DATA
from txgearman.broker.slots import Slots, SlotSource
from txgearman.broker.stubs import Stubs

_QUEUED: Final = JobState.QUEUED

_SLACK: Final = 64
"""Entries of what has gone that are never worth a clean-up."""

_UNLISTED: Final = -1

_NUMBER_BITS: Final = 50
"""Bits of a job's number: a million jobs a second for 35 years."""

NO_KEY: Final = b""
"""What stands for the jobs without a key, whose number nothing limits."""


class QueuedJob(Protocol):
    """What the queue needs of a job."""

    unique: bytes
    priority: int
    state: JobState


J = TypeVar("J", bound=QueuedJob)


class Waiting(Generic[J]):
    """A job that waits, and the `next` one. `order` is made of the priority and of a number in the order
    in which the jobs came."""

    __slots__ = ("job", "next", "order")

    def __init__(self, order: int, job: J) -> None:
        self.order = order
        self.job = job
        self.next: Waiting[J] | None = None


class Key(Generic[J]):
    """The jobs of one key.

    `running` counts those that run, `queued` those that wait. The latter are a chain from `first` on, in
    their order; jobs that have ended may be in it, which `gone` counts, but not at its head. A chain, and no
    heap: a heap would fetch several jobs into the processor's cache for one that is taken. `ready` is how
    many of them may run now, and `listed` the order of the first, by which workers find the key, or
    `_UNLISTED`. `slots` are those of several servers together, None where there is one.
    """

    __slots__ = ("_last", "first", "gone", "listed", "name", "queued", "ready", "running", "slots")

    def __init__(self, name: bytes, slots: Slots | None) -> None:
        self.name = name
        self.running = 0
        self.queued = 0
        self.gone = 0
        self.first: Waiting[J] | None = None
        # The last of each priority, behind which the next comes.
        self._last: list[Waiting[J] | None] = [None] * PRIORITIES
        self.ready = 0
        self.listed = _UNLISTED
        self.slots = slots

    def push(self, order: int, job: J) -> None:
        """Put a job behind the others of its priority."""
        waiting = Waiting(order, job)
        last = self._last
        priority = at = order >> _NUMBER_BITS
        while at >= 0 and last[at] is None:
            at -= 1
        ahead = last[at] if at >= 0 else None
        if ahead is None:
            waiting.next, self.first = self.first, waiting
        else:
            waiting.next, ahead.next = ahead.next, waiting
        last[priority] = waiting
        self.queued += 1

    def pop(self) -> J:
        """Take the first job, which must be there."""
        first = self.first
        assert first is not None
        self.queued -= 1
        self._remove_first(first)
        if self.gone:
            self._trim()
        return first.job

    def dropped(self) -> None:
        """One of the jobs has just ended. It stays in the chain until it comes up, or until such jobs are
        the majority."""
        self.queued -= 1
        self.gone += 1
        self._trim()
        if self.gone > _SLACK and self.gone > self.queued:
            waiting = self.live()
            self.first, self._last = None, [None] * PRIORITIES
            self.queued = self.gone = 0
            for each in waiting:
                self.push(each.order, each.job)

    def live(self) -> list[Waiting[J]]:
        """The jobs that wait, in their order. This walks them."""
        waiting = []
        each = self.first
        while each is not None:
            if each.job.state is _QUEUED:
                waiting.append(each)
            each = each.next
        return waiting

    def _trim(self) -> None:
        while (first := self.first) is not None and first.job.state is not _QUEUED:
            self._remove_first(first)
            self.gone -= 1

    def _remove_first(self, first: Waiting[J]) -> None:
        self.first = first.next
        last, priority = self._last, first.order >> _NUMBER_BITS
        if last[priority] is first:
            last[priority] = None


class KeyedQueue(Generic[J]):
    """The queue of one function, of all priorities.

    `runnable` is how many jobs may run now. `last` has by priority the job that was put there last of those
    that could run. `needs` are the keys whose next job is to be fetched from the store. While it is
    `suspended` the jobs that wait here need no slots of those that several servers share.

    Args:
        function: The function's name, for `slot_source`.
        limit: How many jobs of a key may run at a time.
        separator: What the key ends at.
        slot_source: Where slots come from if the limit holds for several servers.
        list_ready: Makes workers look again at a priority where there is a job now, and may have been none.
    """

    __slots__ = (
        "_function",
        "_heads",
        "_keys",
        "_limit",
        "_list_ready",
        "_listed",
        "_number",
        "_separator",
        "_slot_source",
        "_stubs",
        "_unkeyed",
        "last",
        "needs",
        "runnable",
        "suspended",
    )

    def __init__(
        self,
        function: bytes,
        limit: int,
        separator: bytes,
        slot_source: SlotSource | None,
        list_ready: Callable[[int], None],
    ) -> None:
        self._function = function
        self._limit = limit
        self._separator = separator
        self._slot_source = slot_source
        self._list_ready = list_ready
        self._number = 0
        self.runnable = 0
        self.suspended = False
        self.last: list[J | None] = [None] * PRIORITIES
        # By priority, the jobs without a key that wait.
        self._unkeyed = [0] * PRIORITIES
        self._stubs: dict[bytes, Stubs] = {}
        self.needs: dict[bytes, None] = {}
        # Keys with jobs or slots; all others are forgotten.
        self._keys: dict[bytes, Key[J]] = {}
        # By priority: the keys that have a slot for their first job, by its order, and a heap of the orders.
        # One stays in the heap until it comes up, or until such ones are the majority.
        self._listed: tuple[dict[int, Key[J]], ...] = tuple({} for _ in range(PRIORITIES))
        self._heads: tuple[list[int], ...] = tuple([] for _ in range(PRIORITIES))

    def __len__(self) -> int:
        return len(self._keys)

    def key_of(self, unique: bytes) -> bytes:
        """The key of a job; `NO_KEY` if it has none. ``-`` says that its data are its unique, which nobody
        chooses to group jobs by, and of a unique that begins with the separator the key is empty."""
        if unique == UNIQUE_IS_DATA:
            return NO_KEY
        return unique.partition(self._separator)[0] if self._separator in unique else unique

    def _key(self, unique: bytes) -> Key[J]:
        name = self.key_of(unique)
        key = self._keys.get(name)
        if key is None:
            slots = None
            if name and self._slot_source is not None:
                slots = Slots(self._slot_source, self._function, name)
            key = self._keys[name] = Key(name, slots)
        return key

    def count_running(self, running: Iterable[J]) -> None:
        """Know of the function's jobs that run when the limit begins to hold, ahead of those that wait."""
        for job in running:
            self._key(job.unique).running += 1

    def empty(self) -> list[J]:
        """The queued jobs; those of each priority are in the order in which they came. Slots are given back:
        the queue is of no use then."""
        waiting = [each for key in self._keys.values() for each in key.live()]
        for key in self._keys.values():
            if key.slots is not None:
                key.slots.balance(0, 0, 0)
        waiting.sort(key=_order_of)
        return [each.job for each in waiting]

    def change_limit(self, limit: int) -> None:
        """Let another number of jobs of each key run. This walks the keys."""
        self._limit = limit
        for key in list(self._keys.values()):
            self._settle(key)

    def push(self, job: J) -> None:
        """Put a job behind the others of its priority."""
        key = self._key(job.unique)
        self._number += 1
        if not key.name:
            self._unkeyed[job.priority] += 1
        key.push(job.priority << _NUMBER_BITS | self._number, job)
        ready = key.ready
        self._settle(key)
        if key.ready > ready:
            self.last[job.priority] = job

    def pop(self, priorities: tuple[int, ...]) -> J | None:
        """Take the job that is next of the first of these priorities that has one. It counts as running."""
        for priority in priorities:
            listed = self._listed[priority]
            if listed:
                heap = self._heads[priority]
                key = listed.pop(heappop(heap), None)
                while key is None:
                    key = listed.pop(heappop(heap), None)
                key.listed = _UNLISTED
                job = key.pop()
                if not key.name:
                    self._unkeyed[priority] -= 1
                key.running += 1
                if key.running >= self._limit and key.slots is None and key.name and not self._stubs:
                    # What `_settle` would do, in nearly all cases.
                    self.runnable -= key.ready
                    key.ready = 0
                else:
                    self._settle(key)
                return job
        return None

    def has_job(self, priorities: tuple[int, ...]) -> bool:
        """Whether `pop` would give a job."""
        return any(self._listed[priority] for priority in priorities)

    def heads(self) -> Iterator[J]:
        """The job that is next of each priority that has one."""
        for listed, heap in zip(self._listed, self._heads, strict=True):
            while heap and heap[0] not in listed:
                heappop(heap)
            first = listed[heap[0]].first if heap else None
            if first is not None:
                yield first.job

    def dropped(self, job: J) -> None:
        """A queued job has just ended."""
        key = self._key(job.unique)
        if not key.name:
            self._unkeyed[job.priority] -= 1
        key.dropped()
        self._settle(key)

    def ran(self, unique: bytes) -> None:
        """A job that `pop` gave runs no more, or never did."""
        key = self._key(unique)
        key.running -= 1
        self._settle(key)

    def _settle(self, key: Key[J]) -> None:
        """The jobs or slots of a key have changed: list it by its first job if that may run, and forget it
        if it has nothing."""
        waiting = queued = key.queued
        if self._stubs and (stubs := self._stubs.get(key.name)) is not None:
            waiting += len(stubs)
            queued = self._settle_stubs(key, stubs, queued)
        if not key.name:
            ready = queued
        else:
            free = self._limit - key.running
            if key.slots is not None:
                free = min(
                    free, key.slots.balance(self._limit, key.running, 0 if self.suspended else waiting)
                )
            ready = min(queued, max(0, free))
        self.runnable += ready - key.ready
        key.ready = ready
        listed = key.listed
        if ready and key.first is not None:
            order = key.first.order
            if listed != order:
                if listed != _UNLISTED:
                    self._unlist(listed)
                key.listed = order
                priority = order >> _NUMBER_BITS
                listed_keys = self._listed[priority]
                was_empty = not listed_keys
                listed_keys[order] = key
                heappush(self._heads[priority], order)
                if was_empty:
                    self._list_ready(priority)
        elif listed != _UNLISTED:
            self._unlist(listed)
            key.listed = _UNLISTED
        if not (waiting or key.running) and (key.slots is None or key.slots.idle):
            del self._keys[key.name]

    # -- jobs in the store alone ----------------------------------------------------------------

    def keeps(self, unique: bytes, priority: int, has_room: bool) -> bool:
        """Whether a stored job that comes is to be in memory, and not only its stub.

        If there is no room, the first job of a key is, and one that comes ahead of that. So a key's next job
        is at hand, and no more than that is in memory of each key.
        """
        name = self.key_of(unique)
        stubs = self._stubs.get(name)
        if stubs is not None and stubs.count(priority):
            # It would overtake them.
            return False
        if has_room or not name:
            return True
        key = self._keys.get(name)
        return key is None or key.first is None or priority < key.first.order >> _NUMBER_BITS

    def add_stub(self, unique: bytes, priority: int, position: int) -> None:
        """A job is in the store alone."""
        key = self._key(unique)
        stubs = self._stubs.get(key.name)
        if stubs is None:
            stubs = self._stubs[key.name] = Stubs()
        stubs.add(priority, position)
        self._settle(key)

    def has_stub(self, unique: bytes, priority: int, position: int) -> bool:
        """Whether a job is in the store alone."""
        stubs = self._stubs.get(self.key_of(unique))
        return stubs is not None and stubs.contains(priority, position)

    def is_next(self, unique: bytes, priority: int, position: int) -> bool:
        """Whether a job is the first of its key and priority in the store alone."""
        stubs = self._stubs.get(self.key_of(unique))
        return stubs is not None and stubs.least(priority) == position

    def remove_stub(self, name: bytes, priority: int, position: int) -> bool:
        """A job of a key is not in the store alone any more. Returns false if it was not.

        `settle` is to follow, once it is in memory if it comes there.
        """
        stubs = self._stubs.get(name)
        if stubs is None or not stubs.remove(priority, position):
            return False
        if not len(stubs):
            del self._stubs[name]
            self.needs.pop(name, None)
        return True

    def next_stub(self, name: bytes) -> tuple[int, int] | None:
        """Begin to fetch the next job of a key: its priority and position, None if none is to be fetched."""
        stubs = self._stubs.get(name)
        if stubs is None or stubs.fetching:
            return None
        stubs.fetching = True
        return stubs.first()

    def stub_fetched(self, name: bytes) -> None:
        """What `next_stub` began has ended, in whatever way."""
        stubs = self._stubs.get(name)
        if stubs is not None:
            stubs.fetching = False

    def ready(self, priority: int) -> int:
        """How many jobs of a priority may run, of a key at most one."""
        listed = len(self._listed[priority])
        return listed if not self._unkeyed[priority] else listed + self._unkeyed[priority] - 1

    def least_stub(self, priority: int) -> int | None:
        """The first position of a priority in the store alone. This walks the keys."""
        found = [least for stubs in self._stubs.values() if (least := stubs.least(priority)) is not None]
        return min(found, default=None)

    def forget_stubs(self) -> None:
        """No job is in the store alone any more. This walks the keys."""
        names = list(self._stubs)
        self._stubs.clear()
        self.needs.clear()
        for name in names:
            self.settle(name)

    def _settle_stubs(self, key: Key[J], stubs: Stubs, queued: int) -> int:
        """How many jobs of a key could run if it had slots: none while one comes from the store that is ahead
        of those in memory."""
        priority, _ = stubs.first()
        is_ahead = key.first is None or priority < key.first.order >> _NUMBER_BITS
        if is_ahead and not stubs.fetching:
            self.needs[key.name] = None
        return 0 if is_ahead else queued

    def _unlist(self, order: int) -> None:
        listed, heap = self._listed[order >> _NUMBER_BITS], self._heads[order >> _NUMBER_BITS]
        del listed[order]
        if len(heap) > 2 * len(listed) + _SLACK:
            heap[:] = listed
            heapify(heap)

    # -- slots of several servers ---------------------------------------------------------------

    def slots_of(self, name: bytes) -> Slots | None:
        """The slots of a key, None if it is forgotten."""
        key = self._keys.get(name)
        return None if key is None else key.slots

    def settle(self, name: bytes) -> None:
        """The slots of a key have changed, or what it has in the store alone."""
        key = self._keys.get(name)
        if key is not None:
            self._settle(key)

    def suspend(self, suspended: bool) -> None:
        """Set `suspended`. With slots this walks the keys."""
        if suspended != self.suspended:
            self.suspended = suspended
            if self._slot_source is not None:
                for key in list(self._keys.values()):
                    self._settle(key)

    def slots_lost(self) -> None:
        """The slots of all keys are gone. This walks them."""
        for key in list(self._keys.values()):
            if key.slots is not None:
                key.slots.lost()
                self._settle(key)


def _order_of(waiting: Waiting[J]) -> int:
    return waiting.order
