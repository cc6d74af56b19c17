"""All functions: finding and making them, how many there may be, and what holds for every one of them."""

from __future__ import annotations

from collections import OrderedDict

from txgearman.broker.entities import Function, Job
from txgearman.broker.interfaces import SettingStore
from txgearman.broker.job_states import PRIORITIES
from txgearman.broker.keyed_queue import KeyedQueue
from txgearman.broker.meters import Meters
from txgearman.broker.numbers import UNLIMITED_COUNT
from txgearman.broker.policy import NO_RUN_RULES, FunctionRules, Policy, RunRules, levels_of
from txgearman.broker.run_limits import RunLimits
from txgearman.broker.setting_kinds import KINDS, value_of
from txgearman.broker.slots import Slots, SlotSource
from txgearman.errors import FunctionInUse, FunctionNotFound, TooManyFunctions


class Functions:
    """The functions by name. A new one gets its rules from `policy`, and its meter from `meters`.

    `max_functions` is how many there may be, `refused` how many were refused for that. `server_limited` says
    that the server limits its jobs over all functions, `draining` that it gives out no more jobs because it
    ends, `dispatch_suspended` that it gives out none for now because its lease has expired. `slot_source` has
    the slots of limits that hold for several servers together, None where there is one. `setting_store` keeps
    what administrators set, if there is one.
    """

    __slots__ = (
        "_idle",
        "_levels",
        "_traced",
        "by_name",
        "dispatch_suspended",
        "draining",
        "max_functions",
        "meters",
        "policy",
        "refused",
        "server_limited",
        "setting_store",
        "slot_source",
    )

    def __init__(
        self,
        policy: Policy,
        measured_functions: int,
        slot_source: SlotSource | None = None,
        traced: bool = False,
    ) -> None:
        self._traced = traced
        self.slot_source = slot_source
        self.by_name: dict[bytes, Function] = {}
        self.meters = Meters(measured_functions)
        self.refused = 0
        self.draining = False
        self.dispatch_suspended = False
        self.setting_store: SettingStore | None = None
        self._levels = levels_of(policy)
        # Functions that were idle when they were noted, that which was noted last being the last.
        self._idle: OrderedDict[Function, None] = OrderedDict()
        self._take_limits(policy)

    def _take_limits(self, policy: Policy) -> None:
        self.policy = policy
        self.max_functions = policy.max_functions or UNLIMITED_COUNT
        self.server_limited = bool(policy.max_jobs)

    def new(self, name: bytes) -> Function:
        """Make a function. Raises `TooManyFunctions`."""
        if len(self.by_name) >= self.max_functions:
            self.refused += 1
            raise TooManyFunctions(self.max_functions)
        self._forget_idle()
        return self._make(name)

    def restored(self, name: bytes) -> Function:
        """The function of a job that the store has, which is not to be lost for a limit."""
        return self.by_name.get(name) or self._make(name)

    def _make(self, name: bytes) -> Function:
        rules = self.policy.rules_for(name)
        function = Function(
            name, self._levels, rules, self.meters.new(), self.policy.retry_policy(rules), self._traced
        )
        self.by_name[name] = function
        self._idle[function] = None
        self.limit_runs(function, rules.runs)
        function.limit_by_server(self.server_limited or self.draining)
        if self.draining:
            # Another server's jobs may still be taken over.
            function.pause()
        if self.dispatch_suspended:
            function.suspend_dispatch()
        return function

    def note_idle(self, function: Function) -> None:
        """A function may have become idle: nobody has used it for less long than it."""
        if function.idle:
            self._idle[function] = None
            self._idle.move_to_end(function)
            self._forget_idle()

    def _forget_idle(self) -> None:
        """While there are more than half of the functions that may be, forget those that are idle, the one
        first that is so for longest."""
        while self._idle and len(self.by_name) > self.max_functions // 2:
            function, _ = self._idle.popitem(last=False)
            # It may have come to be used since, or have been dropped.
            if function.idle and self.by_name.get(function.name) is function:
                del self.by_name[function.name]
                self.meters.move_to_others(function)

    def drop(self, name: bytes) -> None:
        """Forget a function. Raises `FunctionNotFound`, and `FunctionInUse` while it has workers or jobs.

        gearmand does not look at queued jobs and leaves them unreachable, with dangling pointers.
        """
        function = self.by_name.get(name)
        if function is None:
            raise FunctionNotFound
        if function.workers or function.total:
            raise FunctionInUse
        del self.by_name[name]
        self._idle.pop(function, None)
        self.meters.forget(function)
        if self.setting_store is not None:
            self.setting_store.dropped(name)

    def find(self, name: bytes) -> Function:
        function = self.by_name.get(name)
        if function is None:
            raise FunctionNotFound
        return function

    def change_policy(self, policy: Policy) -> list[tuple[Function, FunctionRules]]:
        """Obey another policy, but for its limits of runs. This walks all functions.

        Rules that are the same in both policies are left alone. The functions with others are returned.
        """
        before = self.policy
        # All rules are made before the first function obeys: an error here has changed nothing.
        all_rules = [
            (function, before.rules_for(function.name), policy.rules_for(function.name))
            for function in self.by_name.values()
        ]
        self._take_limits(policy)
        self._forget_idle()
        self._limit_all(self.server_limited or self.draining)
        for function, old, rules in all_rules:
            if rules != old:
                function.obey(rules, old)
                self._overrule(function, old, rules)
            # Made of the defaults too, which may have changed where a function's own rules have not.
            function.retry = policy.retry_policy(rules)
        return [(function, rules) for function, old, rules in all_rules if rules != old]

    def _overrule(self, function: Function, old: FunctionRules, rules: FunctionRules) -> None:
        """What rules say anew holds over what an administrator has set."""
        if self.setting_store is not None:
            for kind in KINDS:
                if value_of(old, kind) != value_of(rules, kind):
                    self.setting_store.overruled(function.name, kind)

    def limit_runs(self, function: Function, rules: RunRules) -> None:
        """Let other limits of runs hold for a function. `Throttle` is to note it, and to count the runs and
        to move the queued jobs where the function comes to be limited by key."""
        before = function.run_limits
        if rules == (NO_RUN_RULES if before is None else before.rules):
            return
        queue = None if before is None else before.queue
        slots = None if before is None else before.slots
        if not rules.max_running_per_key:
            queue = None
        elif before is not None and queue is not None and before.rules.key_separator == rules.key_separator:
            queue.change_limit(rules.max_running_per_key)
        else:
            queue = KeyedQueue[Job](
                function.name,
                rules.max_running_per_key,
                rules.key_separator,
                self.slot_source,
                function.list_priority_ready,
            )
            queue.suspended = function.dispatch_suspended or not function.workers
        if slots is not None and not rules.max_running:
            slots.balance(0, 0, 0)
            slots = None
        elif slots is None and rules.max_running and self.slot_source is not None:
            slots = Slots(self.slot_source, function.name, b"")
        limits = RunLimits(rules, slots, queue) if rules != NO_RUN_RULES else None
        if before is not None and limits is not None:
            limits.offered = before.offered
            limits.failed_in_row = before.failed_in_row
            limits.counted = before.counted if queue is before.queue else None
            limits.paused_itself = before.paused_itself
        if queue is function.keyed_queue:
            function.limit_runs(limits)
            return
        _forget_blocked(function)
        function.leave_keyed_queue()
        if limits is not None and queue is not None and function.running:
            limits.counted = {}
        function.limit_runs(limits)

    def _limit_all(self, limited: bool) -> None:
        for function in self.by_name.values():
            function.limit_by_server(limited)

    def drain(self) -> None:
        """Refuse new jobs and give out none, in all functions."""
        self.draining = True
        self._limit_all(True)
        for function in self.by_name.values():
            function.pause()

    def suspend_dispatch(self) -> None:
        """Give out no jobs, in all functions."""
        if not self.dispatch_suspended:
            self.dispatch_suspended = True
            for function in self.by_name.values():
                function.suspend_dispatch()


def _forget_blocked(function: Function) -> None:
    """Let the jobs be fetched once more that are in the store alone as their key is full."""
    if function.keyed_queue is not None and function.stored_queue is not None:
        for priority in range(PRIORITIES):
            least = function.keyed_queue.least_stub(priority)
            if least is not None:
                function.stored_queue.take_back(priority, least)
