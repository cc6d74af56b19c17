"""What limits the runs of one function: how many at a time, how many of a key, how many begin in a second."""

from __future__ import annotations

from typing import Generic

from txgearman.broker.keyed_queue import J, KeyedQueue
from txgearman.broker.numbers import UNLIMITED_COUNT
from txgearman.broker.policy import RunRules
from txgearman.broker.rate import Rate
from txgearman.broker.slots import Slots


class RunLimits(Generic[J]):
    """The limits of one function, and how they stand. `Throttle` keeps them up to date.

    `by_key_alone` says that there is no limit but that of the keys, on this server alone. `free` is how many
    more jobs may run, whatever waits, and `offered` how many waiting jobs may begin that workers were woken
    for, or need not be. `failed_in_row` counts the runs that failed since one was completed. `due` is when
    the rate lets one more begin for which workers are to be woken then, by the monotonic clock, None if
    nothing waits for that. `counted` are the runs that were found so far while those of each key are counted,
    None when they are known; no job begins meanwhile. `paused_itself` says that the function is paused as too
    many runs failed.

    Args:
        rules: What the operator says.
        slots: Those of `max_running` if several servers have them together.
        queue: The function's queued jobs if its runs are limited by key.
    """

    __slots__ = (
        "by_key_alone",
        "counted",
        "due",
        "failed_in_row",
        "free",
        "max_running",
        "offered",
        "paused_itself",
        "queue",
        "rate",
        "rules",
        "slots",
    )

    def __init__(self, rules: RunRules, slots: Slots | None, queue: KeyedQueue[J] | None) -> None:
        self.rules = rules
        self.max_running = rules.max_running or UNLIMITED_COUNT
        self.rate = Rate(rules.start_rate, rules.start_burst) if rules.start_rate else None
        self.slots = slots
        self.queue = queue
        self.by_key_alone = (
            queue is not None and slots is None and not (rules.max_running or rules.start_rate)
        )
        self.counted: dict[J, None] | None = None
        self.free = self.max_running
        self.offered = 0
        self.failed_in_row = 0
        self.paused_itself = False
        self.due: float | None = None

    def forgive(self) -> None:
        """Forget the failures: somebody has resumed the function."""
        self.failed_in_row = 0
        self.paused_itself = False
