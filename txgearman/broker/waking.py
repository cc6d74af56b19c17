"""Which workers share an ability set, who of them sleeps, and who is woken for a job.

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

from collections.abc import Iterator
from typing import Final

from txgearman.broker.entities import AbilitySet, Function, Job, Worker
from txgearman.broker.functions import Functions
from txgearman.broker.job_states import WorkerState
from txgearman.broker.kind import Kind
from txgearman.broker.policy import WAKE_PATIENCE
from txgearman.broker.slices import Slices
from txgearman.broker.timer import Timer

FREE_WALK: Final = 64
"""Functions that may be walked for any packet of a worker: 50 microseconds to make a set of them. Nearly all
workers have fewer."""

WALK_PER_PACKET: Final = 2
"""Functions that a packet pays for which changes a worker's functions or lets the worker sleep: about what
the packet costs itself. So who registers n functions has paid for two walks over them: to find the set that
others have, and to make one of its own when it leaves them. Nobody saves up for more than these two."""

# Names local to the module: an enum's member costs two look-ups each time on the hot path.
_AWAKE: Final = WorkerState.AWAKE
_ASLEEP: Final = WorkerState.ASLEEP
_WOKEN: Final = WorkerState.WOKEN


class Waking:
    """The workers' ability sets, and their sleep.

    `ability_sets` are those that workers share, by the kind of worker. `woken` has the workers that were
    woken and have not grabbed since, with the time of that, the oldest first. `free_walk` is how many
    functions may be walked for any packet.
    """

    __slots__ = ("_functions", "_slices", "_timer", "ability_sets", "free_walk", "woken")

    def __init__(self, functions: Functions, slices: Slices, timer: Timer) -> None:
        self._functions = functions
        self._slices = slices
        self._timer = timer
        self.ability_sets: dict[Kind[Function], AbilitySet] = {}
        self.woken: dict[Worker, float] = {}
        self.free_walk = FREE_WALK

    def join_set(self, worker: Worker) -> AbilitySet:
        own_set, worker.own_set = worker.own_set, None
        # To a quiet worker it seems that it knows no function.
        functions = 0 if worker.quiet else len(worker.abilities)
        if own_set is not None and not self._may_walk(worker, functions):
            ability_set = own_set
        else:
            kind = Kind(tuple(worker.abilities) if functions else ())
            shared = self.ability_sets.get(kind)
            if shared is None:
                ability_set = (
                    AbilitySet(kind.functions, self._functions.policy) if own_set is None else own_set
                )
                self._share_set(ability_set, kind)
            else:
                ability_set = shared
                self.dissolve(own_set)
        ability_set.members += 1
        worker.ability_set = ability_set
        return ability_set

    def _share_set(self, ability_set: AbilitySet, kind: Kind[Function]) -> None:
        """Let workers of this kind find a set."""
        self.ability_sets[kind] = ability_set
        ability_set.kind = kind

    def share_own_set(self, worker: Worker, own_set: AbilitySet) -> AbilitySet:
        """The worker falls asleep: if it has paid for the walk, let others share its set, or let it share
        that of others. Returns the set that it is in then."""
        self._pay_walk(worker)
        if not self._may_walk(worker, len(worker.abilities)):
            return own_set
        kind = Kind(tuple(worker.abilities))
        shared = self.ability_sets.get(kind)
        if shared is None:
            self._share_set(own_set, kind)
            return own_set
        shared.members += 1
        worker.ability_set = shared
        self.dissolve(own_set)
        return shared

    def _pay_walk(self, worker: Worker) -> None:
        """A packet of the worker has come that lets it walk its functions, now or later."""
        worker.walks = min(worker.walks, WALK_PER_PACKET * len(worker.abilities)) + WALK_PER_PACKET

    def _may_walk(self, worker: Worker, functions: int) -> bool:
        """Whether the worker's packets have paid for a walk over so many functions."""
        if functions <= self.free_walk:
            return True
        if functions > worker.walks:
            return False
        worker.walks -= functions
        return True

    def change_abilities(self, worker: Worker) -> AbilitySet | None:
        """The worker is about to register or unregister a function. Returns its own set, to be changed in
        place, if it has many functions."""
        self._pay_walk(worker)
        own_set = self.look_again(worker)
        if worker.quiet or len(worker.abilities) <= self.free_walk:
            self.dissolve(own_set)
            return None
        if own_set is None:
            # It has just come to have many, or has paid for this walk before it shared the set of others.
            own_set = AbilitySet(tuple(worker.abilities), self._functions.policy)
        worker.own_set = own_set
        return own_set

    def look_again(self, worker: Worker) -> AbilitySet | None:
        """The worker's functions are about to change: if it sleeps, it is woken to look again. Returns what
        `leave_set` does.

        gearmand leaves a worker asleep that registers a function which has jobs waiting.
        """
        asleep = worker.state is _ASLEEP
        left = self.leave_set(worker)
        if asleep:
            worker.state = _WOKEN
            worker.connection.wake()
        return left

    def leave_set(self, worker: Worker) -> AbilitySet | None:
        """Be in no set. Returns the one that was the worker's own, if there was one: nobody finds it any
        more."""
        left, worker.own_set = worker.own_set, None
        ability_set = worker.ability_set
        if ability_set is None:
            return left
        if worker.state is not _AWAKE:
            self.note_awake(worker, None)
        worker.ability_set = None
        ability_set.members -= 1
        if ability_set.members:
            return None
        if ability_set.kind is not None:
            del self.ability_sets[ability_set.kind]
            ability_set.kind = None
        return ability_set

    def dissolve(self, left: AbilitySet | None) -> None:
        """Make the functions forget a set that nobody is in any more."""
        if left is not None:
            self._slices.begin(_dissolving(left))

    def wake(self, function: Function) -> None:
        """A job of `function` was queued: wake as many sleepers as the policy says.

        Waking one for each job, and not all of them, keeps a thousand sleepers from racing for one
        job. That is safe because a woken worker that does something else passes the wake-up on
        (`note_awake`), and one that does nothing is replaced (`replace_late`).
        """
        if function.dispatch_suspended or function.throttled:
            return
        wanted = self._functions.policy.wakeup
        now = self._timer.clock()
        resting = function.resting
        while resting:
            ability_set = next(iter(resting))
            sleepers = ability_set.sleepers
            while sleepers:
                worker, _ = sleepers.popitem(last=False)
                worker.state = _WOKEN
                worker.woken_for = function
                self.woken[worker] = now
                worker.connection.wake()
                wanted -= 1
                if not wanted:
                    if len(resting) > 1:
                        # The next job is for another kind of worker.
                        resting[ability_set] = resting.pop(ability_set)
                    self._timer.ring_at(now + WAKE_PATIENCE)
                    return
            del resting[ability_set]
            ability_set.out_of_sleepers(function)
        if self.woken:
            self._timer.ring_at(now + WAKE_PATIENCE)

    def note_awake(self, worker: Worker, job: Job | None) -> None:
        """The worker is awake, and has been given `job`.

        If that is not of the function it was woken for, somebody else must see to that one.
        """
        if worker.state is _ASLEEP:
            assert worker.ability_set is not None
            worker.ability_set.sleepers.pop(worker, None)
        worker.state = _AWAKE
        function = worker.woken_for
        if function is not None:
            worker.woken_for = None
            self.woken.pop(worker, None)
            if (job is None or job.function is not function) and function.has_startable:
                self.wake(function)

    def replace_late(self, now: float) -> None:
        """Wake others for workers that were woken and have not come in time."""
        while self.woken:
            worker, when = next(iter(self.woken.items()))
            if when + WAKE_PATIENCE > now:
                break
            del self.woken[worker]
            function = worker.woken_for
            worker.woken_for = None
            if function is not None and function.has_startable:
                self.wake(function)


def _dissolving(ability_set: AbilitySet) -> Iterator[None]:
    """Make the functions forget a set, one at a time."""
    while ability_set.dissolve(1):
        yield
