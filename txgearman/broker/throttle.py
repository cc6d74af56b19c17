"""Lets functions with limits of their runs run as many jobs as they may, and wakes workers when they may run
more.

A function that may run no more jobs for now looks empty: nobody gets a job of it, no sleeper is woken for
it, and a worker that asks to sleep sleeps. Once a slot is free again, or the rate lets a job begin, it looks
as it did, and as many sleepers are woken as jobs may begin. Within a turn that waits for the turn's end: a
worker that reports a job done mostly asks for the next one with the same write, and then nobody else is to be
woken.

Functions without limits cost the test of an attribute in each verb.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import heappop, heappush
from typing import Final

from txgearman.broker.entities import Function, Job
from txgearman.broker.functions import Functions
from txgearman.broker.interfaces import PauseListener
from txgearman.broker.job_states import JobState
from txgearman.broker.keyed_queue import KeyedQueue
from txgearman.broker.policy import NO_RUN_RULES, FunctionRules, Policy, RunRules
from txgearman.broker.setting_kinds import PAUSED, RUN_KINDS, value_of_runs, with_value
from txgearman.broker.slices import SLICE, Slices
from txgearman.broker.slots import Slots
from txgearman.broker.timer import LONGEST_NAP, Timer
from txgearman.broker.waking import Waking

Changed = tuple[Function, FunctionRules]
"""A function whose rules have changed, and the new ones."""

Jobs = Callable[[], Iterator[Job]]
"""Walks the jobs in memory."""

NOTED_AT_ONCE: Final = 100
"""Jobs that are moved to a queue by key between two looks at how many of them may begin."""

_RUNNING: Final = JobState.RUNNING

OWN_LIMIT: Final = b""
"""The key that stands for a function's own limit, as for `SlotSource`."""


class Throttle:
    """The limits of runs of all functions. `changed` are the functions that may run more jobs than they could
    when this turn began; `settle` sees to them at its end.

    Args:
        functions: All functions.
        waking: Wakes workers.
        slices: Where long work is done.
        timer: The clocks and the alarm.
        pause_listener: Is told of functions that are paused by themselves.
    """

    __slots__ = (
        "_due",
        "_functions",
        "_number",
        "_pause_listener",
        "_slices",
        "_timer",
        "_waking",
        "changed",
    )

    def __init__(
        self,
        functions: Functions,
        waking: Waking,
        slices: Slices,
        timer: Timer,
        pause_listener: PauseListener | None,
    ) -> None:
        self._slices = slices
        self._functions = functions
        self._waking = waking
        self._timer = timer
        self._pause_listener = pause_listener
        self.changed: dict[Function, None] = {}
        # A heap of when functions may begin one more job, by their rate. The numbers tell equal times apart.
        self._due: list[tuple[float, int, Function]] = []
        self._number = 0

    # -- the steps of a job ---------------------------------------------------------------------

    def enqueue(self, job: Job) -> None:
        """Put a job into the queue of a function with limits."""
        function = job.function
        function.push_limited(job)
        function.list_priority_ready(job.priority)
        self.note(function)

    def started(self, function: Function) -> None:
        """A worker has got a job of a function with limits."""
        limits = function.run_limits
        if limits is not None:
            queue = limits.queue
            if limits.by_key_alone and queue is not None and queue.runnable <= limits.offered:
                # What `note` would do, in nearly all cases where nothing else is limited.
                limits.offered = queue.runnable
                return
            if limits.rate is not None:
                limits.rate.count(self._timer.clock())
            self.note(function)

    def ended(self, job: Job) -> None:
        """A job that ran, or that a worker was about to get, runs no more: its slot is free."""
        limits = job.function.run_limits
        if limits is not None:
            if limits.counted is not None:
                limits.counted.pop(job, None)
            elif limits.queue is not None:
                limits.queue.ran(job.unique)
            self.note(job.function)

    def completed(self, job: Job) -> None:
        """A job is done: its slot is free."""
        limits = job.function.run_limits
        if limits is not None:
            limits.failed_in_row = 0
        self.ended(job)

    def failed(self, function: Function) -> None:
        """A run of a function with limits has failed. Too many in a row pause it."""
        limits = function.run_limits
        if limits is None:
            return
        limits.failed_in_row += 1
        if limits.rules.pause_after and limits.failed_in_row >= limits.rules.pause_after:
            failures, limits.failed_in_row = limits.failed_in_row, 0
            if not function.paused:
                limits.paused_itself = function.pinned = True
                function.pause()
                self.paused(function)
                if self._functions.setting_store is not None:
                    self._functions.setting_store.changed(function.name, PAUSED, True)
                if self._pause_listener is not None:
                    self._pause_listener.paused(function.name, failures)

    # -- how many may begin ---------------------------------------------------------------------

    def note(self, function: Function) -> None:
        """What a function has waiting, running or free may have changed: let workers see that, and wake those
        that more jobs may begin for."""
        limits = function.run_limits
        if limits is None:
            return
        running = function.running
        waiting = sum(function.waiting) if limits.queue is None else limits.queue.runnable
        if function.dispatch_suspended:
            waiting = 0
        free = limits.max_running - running
        if limits.slots is not None:
            needed = waiting if function.workers else 0
            free = min(free, limits.slots.balance(limits.max_running, running, needed))
        if limits.counted is not None:
            free = 0
        limits.free = free
        startable = min(waiting, free)
        throttled = free <= 0
        if limits.rate is not None:
            now = self._timer.clock()
            available = limits.rate.available(now)
            throttled = throttled or available <= 0
            if startable > available:
                startable = available
                # A full bucket gets no fuller: what changes it is a job that begins.
                if available < limits.rate.burst:
                    # With a very small rate that is later than any clock gets.
                    self._await(function, min(limits.rate.next_at(), now + LONGEST_NAP))
        if throttled is not function.throttled:
            function.throttle(throttled)
        if startable <= limits.offered:
            limits.offered = max(0, startable)
        elif self._timer.turn_wall_time is not None:
            self.changed[function] = None
        else:
            more = startable - limits.offered
            limits.offered = startable
            self._wake(function, more)

    def settle(self) -> None:
        """The turn has ended: wake workers for what may begin still."""
        changed, self.changed = self.changed, {}
        for function in changed:
            self.note(function)

    def _wake(self, function: Function, jobs: int) -> None:
        for _ in range(jobs):
            if not function.resting:
                break
            self._waking.wake(function)

    def _await(self, function: Function, when: float) -> None:
        """Look again at a function when its rate lets one more job begin."""
        limits = function.run_limits
        if limits is not None and (limits.due is None or when < limits.due):
            limits.due = when
            self._number += 1
            heappush(self._due, (when, self._number, function))
            self._timer.ring_at(when)

    def tick(self, now: float) -> None:
        """Let the jobs begin whose rate allows it at `now`, and have the alarm ring for the next."""
        for _ in range(SLICE):
            if not self._due or self._due[0][0] > now:
                break
            when, _, function = heappop(self._due)
            limits = function.run_limits
            if limits is not None and limits.due == when:
                limits.due = None
                self.note(function)
        if self._due:
            self._timer.ring_at(self._due[0][0])

    # -- the operator ---------------------------------------------------------------------------

    def limit(self, function: Function, rules: RunRules, jobs: Jobs) -> None:
        """Let other limits hold for a function. Nothing that runs is stopped.

        Where it comes to be limited by key, its runs are counted and its queued jobs are moved in slices. No
        job begins until the runs are counted, and none before it is moved.
        """
        if self._limit(function, rules):
            self._slices.begin(self._fill([function], jobs))

    def _limit(self, function: Function, rules: RunRules) -> bool:
        """Let other limits hold for a function. Returns whether `_fill` is to follow. This may walk its keys,
        and its queued jobs where it was limited by key before."""
        before = function.run_limits
        queue = function.keyed_queue
        if rules == (NO_RUN_RULES if before is None else before.rules):
            return False
        self._functions.limit_runs(function, rules)
        limits = function.run_limits
        if limits is not None:
            self.note(function)
        elif not function.dispatch_suspended:
            self._wake(function, sum(function.waiting))
        return (
            function.keyed_queue is not queue
            and limits is not None
            and (function.moved is not None or limits.counted is not None)
        )

    def _fill(self, functions: Sequence[Function], jobs: Jobs) -> Iterator[None]:
        """Count the runs of functions that have come to be limited by key, and move their queued jobs, one at
        a time."""
        queues = {function: function.keyed_queue for function in functions}
        counting = [function.run_limits for function in functions]
        if any(limits is not None and limits.counted is not None for limits in counting):
            for job in jobs():
                if job.state is _RUNNING and job.function in queues:
                    limits = job.function.run_limits
                    if limits is not None and limits.counted is not None:
                        limits.counted[job] = None
                yield
        for function, queue in queues.items():
            limits = function.run_limits
            if limits is None or queue is None or not _has(function, queue):
                # The limit is another by now, or none.
                continue
            if limits.counted is not None:
                queue.count_running(limits.counted)
                limits.counted = None
            self.note(function)
            moved = 0
            while _has(function, queue) and function.move_next():
                moved += 1
                if moved % NOTED_AT_ONCE == 0:
                    self.note(function)
                yield
            self.note(function)

    def obey(self, changed: Iterable[Changed], before: Policy, jobs: Jobs) -> None:
        """Obey the rules of another policy that have changed. A limit of runs that is the same in both is
        left alone, so that one stays that an administrator has set."""
        filled = []
        for function, its_rules in changed:
            old, new = before.rules_for(function.name).runs, its_rules.runs
            if new != old:
                limits = function.run_limits
                rules = NO_RUN_RULES if limits is None else limits.rules
                for kind in RUN_KINDS:
                    value = value_of_runs(new, kind)
                    if value != value_of_runs(old, kind):
                        rules = with_value(rules, kind, value)
                if self._limit(function, rules):
                    filled.append(function)
        if filled:
            self._slices.begin(self._fill(filled, jobs))

    def paused(self, function: Function) -> None:
        """A function was paused: give back the slots that its waiting jobs had."""
        limits = function.run_limits
        if limits is not None:
            if limits.queue is not None:
                limits.queue.suspend(True)
            self.note(function)

    def workers_changed(self, function: Function) -> None:
        """The first worker of a function with limits has come, or the last one is gone: without a worker no
        slot is of use here, and another server may have it."""
        limits = function.run_limits
        if limits is not None and self._functions.slot_source is not None:
            if limits.queue is not None:
                limits.queue.suspend(function.dispatch_suspended or not function.workers)
            self.note(function)

    def resume_dispatch(self, function: Function) -> None:
        """Let workers have a function's jobs again, and wake as many as there are jobs for."""
        function.resume_dispatch()
        function.list_all_ready()
        limits = function.run_limits
        if limits is None:
            self._wake(function, sum(function.waiting))
        else:
            limits.offered = 0
            if limits.queue is not None:
                limits.queue.suspend(not function.workers)
            self.note(function)

    # -- slots of several servers ---------------------------------------------------------------

    def slot_gained(self, name: bytes, key: bytes) -> None:
        """One more slot is this server's."""
        function = self._functions.by_name.get(name)
        slots = None if function is None else _slots_of(function, key)
        if function is None or slots is None:
            if self._functions.slot_source is not None:
                self._functions.slot_source.release(name, key)
            return
        slots.gained()
        self._slots_changed(function, key)

    def slot_wanted(self, name: bytes, key: bytes) -> None:
        """Another server wants a slot."""
        function = self._functions.by_name.get(name)
        slots = None if function is None else _slots_of(function, key)
        if function is not None and slots is not None:
            slots.owed += 1
            self._slots_changed(function, key)

    def slots_lost(self) -> None:
        """No slot is this server's any more. This walks all functions and keys."""
        for function in list(self._functions.by_name.values()):
            limits = function.run_limits
            if limits is not None:
                if limits.queue is not None:
                    limits.queue.slots_lost()
                if limits.slots is not None:
                    limits.slots.lost()
                self.note(function)

    def _slots_changed(self, function: Function, key: bytes) -> None:
        queue = function.keyed_queue
        if key != OWN_LIMIT and queue is not None:
            queue.settle(key)
        self.note(function)


def _slots_of(function: Function, key: bytes) -> Slots | None:
    limits = function.run_limits
    if limits is None:
        return None
    if key == OWN_LIMIT:
        return limits.slots
    return None if limits.queue is None else limits.queue.slots_of(key)


def _has(function: Function, queue: KeyedQueue[Job] | None) -> bool:
    """Whether a function still has `queue`. A function of its own: in a loop mypyc takes for granted that the
    attribute is not None, as it was when it was compared last."""
    return function.keyed_queue is queue
