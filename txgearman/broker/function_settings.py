"""What administrators set for functions, over what the operator's file says of them: pauses and limits.

Whether a setting or the file holds, where both say something, is decided by whoever keeps the settings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from txgearman.broker.entities import Function
from txgearman.broker.job_states import PRIORITIES
from txgearman.broker.policy import NO_RUN_RULES, RunRules
from txgearman.broker.setting_kinds import (
    MAX_QUEUE,
    MAX_RATE,
    PAUSED,
    RUN_KINDS,
    SettingValue,
    value_of,
    value_of_runs,
    with_value,
)

if TYPE_CHECKING:
    from txgearman.broker.broker import Broker


class FunctionSettings:
    """Changes settings of functions. It has no state of its own.

    Args:
        broker: Whose functions these are.
    """

    __slots__ = ("_broker", "_functions")

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._functions = broker.functions

    def change(self, function: Function, kind: str, value: SettingValue) -> None:
        """Let a function have a setting that an administrator has made, which is kept if there is a store.

        Args:
            function: The function.
            kind: One of `KINDS`.
            value: What `is_valid`.
        """
        function.pinned = True
        self._obey(function, kind, value)
        self._keep(function, kind, value)

    def change_runs(self, function: Function, rules: RunRules) -> None:
        """Let a function have other limits of runs, of which those are kept that change.

        Args:
            function: The function.
            rules: The limits.
        """
        function.pinned = True
        before = _runs_of(function)
        # All of them at once: in between more could run than may.
        self._limit_runs(function, rules)
        for kind in RUN_KINDS:
            value = value_of_runs(rules, kind)
            if value != value_of_runs(before, kind):
                self._keep(function, kind, value)

    def restore(self, name: bytes, kind: str, value: SettingValue) -> None:
        """Let a function have a setting that was made before, or on another server.

        Args:
            name: The function; one that does not exist is made.
            kind: One of `KINDS`.
            value: What `is_valid`.
        """
        function = self._functions.restored(name)
        function.pinned = True
        self._obey(function, kind, value)

    def reset(self, name: bytes, kind: str) -> None:
        """Let a function have again what the operator's file says.

        Args:
            name: The function. One that does not exist is passed over.
            kind: One of `KINDS`.
        """
        function = self._functions.by_name.get(name)
        if function is not None:
            self._obey(function, kind, self.by_rules(name, kind))

    def by_rules(self, name: bytes, kind: str) -> SettingValue:
        """What the operator's file says of a function.

        Args:
            name: The function.
            kind: One of `KINDS`.

        Returns:
            The value.
        """
        return value_of(self._functions.policy.rules_for(name), kind)

    def _obey(self, function: Function, kind: str, value: SettingValue) -> None:
        if kind == PAUSED:
            self._pause(function, bool(value))
        elif kind == MAX_QUEUE:
            assert isinstance(value, list)
            function.limit_queue(tuple([None if each is None else int(each) for each in value]))
        elif kind == MAX_RATE:
            assert isinstance(value, list)
            per_second, burst = value
            function.limit_rate(float(per_second or 0), int(burst or 0))
        else:
            self._limit_runs(function, with_value(_runs_of(function), kind, value))

    def _limit_runs(self, function: Function, rules: RunRules) -> None:
        self._broker.throttle.limit(function, rules, self._broker.life.jobs)
        # What was blocked in the store alone may run now.
        if function.stored_queue is not None:
            for priority in range(PRIORITIES):
                self._broker.stored_queues.fetch_ahead(function, function.stored_queue, priority)

    def _keep(self, function: Function, kind: str, value: SettingValue) -> None:
        setting_store = self._functions.setting_store
        if setting_store is not None:
            setting_store.changed(function.name, kind, value)

    def _pause(self, function: Function, paused: bool) -> None:
        # Draining pauses all functions, and ends with the server.
        if self._functions.draining:
            return
        if paused:
            function.pause()
            self._broker.throttle.paused(function)
            return
        function.paused = False
        if function.run_limits is not None:
            function.run_limits.forgive()
        if not self._functions.dispatch_suspended:
            self._broker.throttle.resume_dispatch(function)


def _runs_of(function: Function) -> RunRules:
    limits = function.run_limits
    return NO_RUN_RULES if limits is None else limits.rules
