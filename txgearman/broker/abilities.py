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
told to, or found out by, each set once. One walk over a worker's functions is needed when it first grabs
after it has changed them.
"""

from __future__ import annotations

from collections import OrderedDict
from heapq import heappop, heappush, heapreplace
from typing import TYPE_CHECKING

from txgearman.broker.policy import FunctionOrder, Policy

if TYPE_CHECKING:
    from txgearman.broker.function import Function
    from txgearman.broker.job import Job
    from txgearman.broker.peers import Worker

Levels = tuple[tuple[int, ...], ...]


def levels_of(policy: Policy) -> Levels:
    """The priorities that are looked through together, over all functions, level by level."""
    if policy.order is FunctionOrder.PRIORITY:
        return ((0,), (1,), (2,))
    return ((0, 1, 2),)


class AbilitySet:
    """The functions of one kind of worker, ordered by whose turn it is, and the sleepers of that kind."""

    __slots__ = ("_forgotten", "_ready", "_take_turns", "_turn", "_turns", "functions", "members", "sleepers")

    def __init__(self, functions: tuple[Function, ...], policy: Policy) -> None:
        self.functions = functions
        self.members = 0
        # In the order they fell asleep: who slept longest is woken first.
        self.sleepers: OrderedDict[Worker, None] = OrderedDict()
        self._forgotten: list[Function] = list(functions)
        by_priority = policy.order is FunctionOrder.PRIORITY
        self._take_turns = by_priority or policy.round_robin
        # The function that was registered last comes first.
        self._turns = dict(zip(functions, range(0, -len(functions), -1), strict=True))
        self._turn = 0
        # Heaps of (turn, function); turns differ, so functions are never compared. A function's turn
        # may have moved on since its entry was made: next() puts that right when the entry comes up.
        self._ready: tuple[list[tuple[int, Function]], ...] = tuple([] for _ in levels_of(policy))
        for level, heap in enumerate(self._ready):
            for function in functions:
                if function.has_job(level):
                    heappush(heap, (self._turns[function], function))
                else:
                    function.unready[level][self] = None

    def dissolve(self) -> None:
        """No worker is left: make the functions forget this set."""
        for function in self.functions:
            function.resting.pop(self, None)
            for unready in function.unready:
                unready.pop(self, None)

    # -- ready functions ------------------------------------------------------------------------

    def list_ready(self, level: int, function: Function) -> None:
        """List a function again that this set had found without a job at `level`."""
        heappush(self._ready[level], (self._turns[function], function))

    def next(self) -> Job | None:
        """Take the job that is next for a worker of this kind."""
        for level, heap in enumerate(self._ready):
            while heap:
                turn, function = heap[0]
                if turn != self._turns[function]:
                    heapreplace(heap, (self._turns[function], function))
                    continue
                job = function.pop(level)
                if job is not None:
                    if self._take_turns and len(self.functions) > 1:
                        self._turn += 1
                        self._turns[function] = self._turn
                    return job
                heappop(heap)
                function.unready[level][self] = None
        return None

    def has_job(self) -> bool:
        """Whether `next` would give a job."""
        for level, heap in enumerate(self._ready):
            while heap:
                function = heap[0][1]
                if function.has_job(level):
                    return True
                heappop(heap)
                function.unready[level][self] = None
        return False

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
        self._forgotten.append(function)
