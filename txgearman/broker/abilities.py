"""Which of a worker's functions is next, and who of its peers sleeps.

Workers that registered the same functions in the same order share one `AbilitySet`. It must never
walk its functions, nor a function its sets: a worker may know thousands of functions, and a function
thousands of workers. So each side keeps a list of the other that may be out of date in one direction
only, and whoever is misled by a stale entry removes it and leaves a note to be listed again:

* A set lists a function as ready, at a level, as long as nobody found it without a job there. Finding
  it so removes it from `AbilitySet._ready` and notes the set in `Function.unready`; the next job pays
  for listing it again.
* A function lists a set in `Function.resting` as long as nobody found it without a sleeper. Finding it
  so removes it and notes the function in `AbilitySet._forgotten`; the next sleeper pays.

So both are O(1) over time at any number of functions and workers, but for the heap's O(log n) over the
functions of one set, and for a factor of the number of *kinds* of workers a function has: an event is
told to, or found out by, each set once.

To find the set of a worker's functions, or to make one, walks them all. A worker with up to `FREE_WALK`
functions does so when it first grabs after it has changed them. One with more has a set of its own, which
grows and shrinks with each change, by O(log n); the walk that lets it share the set of others, or others
share its own, it pays for: each change and each falling asleep is worth `WALK_PER_PACKET` functions. So no
packet costs more, over time, than its share, whatever a worker has registered.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Sequence
from heapq import heapify, heappop, heappush, heapreplace
from typing import TYPE_CHECKING, Final

from txgearman.broker.policy import FunctionOrder, Policy

if TYPE_CHECKING:
    from txgearman.broker.function import Function
    from txgearman.broker.job import Job
    from txgearman.broker.peers import Worker

FREE_WALK: Final = 64
"""Functions that may be walked for any packet of a worker: 50 microseconds to make a set of them. Nearly all
workers have fewer."""

WALK_PER_PACKET: Final = 2
"""Functions that a packet pays for which changes a worker's functions or lets the worker sleep: about what
the packet costs itself. So who registers n functions has paid for two walks over them: to find the set that
others have, and to make one of its own when it leaves them. Nobody saves up for more than these two."""

_REMOVED: Final = sys.maxsize
"""The turn of a function that its set has no more."""

_SLACK: Final = 64
"""Entries of removed functions that are never worth a clean-up."""

Levels = tuple[tuple[int, ...], ...]


def levels_of(policy: Policy) -> Levels:
    """The priorities that are looked through together, over all functions, level by level."""
    if policy.order is FunctionOrder.PRIORITY:
        return ((0,), (1,), (2,))
    return ((0, 1, 2),)


class Kind:
    """Functions in the order in which workers registered them, as the key of their set. To make one walks
    them; to find it again does not."""

    __slots__ = ("_hash", "functions")

    def __init__(self, functions: tuple[Function, ...]) -> None:
        self.functions = functions
        self._hash = hash(functions)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Kind) and self.functions == other.functions


class Slot:
    """A function in one set. The one with the smallest `turn` is next, if it has a job."""

    __slots__ = ("function", "turn")

    def __init__(self, function: Function, turn: int) -> None:
        self.function = function
        self.turn = turn


class AbilitySet:
    """The functions of one kind of worker, ordered by whose turn it is, and the sleepers of that kind.

    `functions` must be in the order in which they were registered. `kind` is what the set is found by; None
    while it is one worker's own, and found by nobody.
    """

    __slots__ = (
        "_first",
        "_forgotten",
        "_ready",
        "_removed",
        "_slots",
        "_take_turns",
        "_turn",
        "kind",
        "members",
        "sleepers",
    )

    def __init__(self, functions: Sequence[Function], policy: Policy) -> None:
        self.kind: Kind | None = None
        self.members = 0
        # In the order they fell asleep: who slept longest is woken first.
        self.sleepers: OrderedDict[Worker, None] = OrderedDict()
        by_priority = policy.order is FunctionOrder.PRIORITY
        self._take_turns = by_priority or policy.round_robin
        # The function that was registered last comes first: those that come get lower turns than all others,
        # those that were served higher ones.
        self._first = -len(functions)
        self._turn = 0
        slots = [Slot(function, -place) for place, function in enumerate(functions, 1)]
        self._slots = dict(zip(functions, slots, strict=True))
        self._forgotten: dict[Function, None] = dict.fromkeys(functions)
        # Heaps of (turn, slot); turns differ, so slots are never compared. A function's turn may have moved
        # on since its entry was made, or the function been removed: next() puts that right when the entry
        # comes up.
        self._ready: tuple[list[tuple[int, Slot]], ...] = tuple([] for _ in levels_of(policy))
        # How many entries there may be of functions that were removed.
        self._removed = 0
        slots.reverse()
        for level, heap in enumerate(self._ready):
            for slot in slots:
                if slot.function.has_job(level):
                    # In the order of the turns: it is a heap as it is.
                    heap.append((slot.turn, slot))
                else:
                    slot.function.unready[level][self] = slot

    @property
    def functions(self) -> list[Function]:
        """All functions. This walks them."""
        return list(self._slots)

    def add(self, function: Function) -> None:
        """Take in a function, as the one that was registered last."""
        self._first -= 1
        slot = self._slots[function] = Slot(function, self._first)
        self._forgotten[function] = None
        for level, heap in enumerate(self._ready):
            if function.has_job(level):
                heappush(heap, (slot.turn, slot))
            else:
                function.unready[level][self] = slot

    def remove(self, function: Function) -> None:
        """Leave a function out."""
        slot = self._slots.pop(function)
        slot.turn = _REMOVED
        self._forgotten.pop(function, None)
        function.resting.pop(self, None)
        for unready in function.unready:
            if unready.pop(self, None) is None:
                self._removed += 1
        if self._removed > _SLACK and self._removed > len(self._slots):
            for heap in self._ready:
                heap[:] = [entry for entry in heap if entry[1].turn != _REMOVED]
                heapify(heap)
            self._removed = 0

    def dissolve(self, most: int) -> int:
        """No worker is left: make the functions forget this set, at most so many. How many are left."""
        slots = self._slots
        for _ in range(min(most, len(slots))):
            function, _slot = slots.popitem()
            function.resting.pop(self, None)
            for unready in function.unready:
                unready.pop(self, None)
        return len(slots)

    # -- ready functions ------------------------------------------------------------------------

    def list_ready(self, level: int, slot: Slot) -> None:
        """List a function again that this set had found without a job at `level`."""
        heappush(self._ready[level], (slot.turn, slot))

    def next(self) -> Job | None:
        """Take the job that is next for a worker of this kind."""
        for level, heap in enumerate(self._ready):
            while heap:
                turn, slot = heap[0]
                if turn != slot.turn:
                    if slot.turn != _REMOVED:
                        heapreplace(heap, (slot.turn, slot))
                    else:
                        self._drop_removed(heap)
                    continue
                job = slot.function.pop(level)
                if job is not None:
                    if self._take_turns and len(self._slots) > 1:
                        self._turn += 1
                        slot.turn = self._turn
                    return job
                heappop(heap)
                slot.function.unready[level][self] = slot
        return None

    def has_job(self) -> bool:
        """Whether `next` would give a job."""
        for level, heap in enumerate(self._ready):
            while heap:
                slot = heap[0][1]
                if slot.turn == _REMOVED:
                    self._drop_removed(heap)
                    continue
                if slot.function.has_job(level):
                    return True
                heappop(heap)
                slot.function.unready[level][self] = slot
        return False

    def _drop_removed(self, heap: list[tuple[int, Slot]]) -> None:
        """The entry of a function that was removed has come up."""
        heappop(heap)
        self._removed -= 1

    # -- sleepers -------------------------------------------------------------------------------

    def put_to_sleep(self, worker: Worker) -> None:
        """Add a sleeper."""
        if self._forgotten:
            for function in self._forgotten:
                function.resting[self] = None
            self._forgotten.clear()
        self.sleepers[worker] = None

    def out_of_sleepers(self, function: Function) -> None:
        """A function found no sleeper here and has removed this set from its `resting`."""
        if function in self._slots:
            self._forgotten[function] = None
