"""The slots of one limit that this server has, where the limit holds for several servers together."""

from __future__ import annotations

from typing import Protocol


class SlotSource(Protocol):
    """Slots of the limits that hold for all servers of a shared store together.

    A slot is the right to run one job: of a function, with an empty `key`, or of one key of a function. A
    server runs no more jobs than it has slots. `StoreAnswers.slot_gained`, `slot_wanted` and `slots_lost` say
    what becomes of them. What these calls bring about is told later, never from inside the call.
    """

    def want(self, function: bytes, key: bytes) -> None:
        """Jobs wait for a slot. Said once, until a slot is gained, or `unwant`, or all slots are lost.

        Args:
            function: The function of the jobs.
            key: Their key, empty for the function's own limit.
        """

    def unwant(self, function: bytes, key: bytes) -> None:
        """Nothing waits for a slot any more.

        One that is gained all the same is given back at once.

        Args:
            function: As said to `want`.
            key: As said to `want`.
        """

    def release(self, function: bytes, key: bytes) -> None:
        """Give back one slot that is free here.

        Args:
            function: The function of the slot.
            key: Its key, empty for the function's own limit.
        """


class Slots:
    """`held` are the slots that this server has, those of running jobs included; `wanted` says that the
    source was asked for one more, and `owed` how many others wait for.

    Args:
        source: Where slots come from.
        function: The function that the limit is for.
        key: The key that it is for, empty for the whole function.
    """

    __slots__ = ("_function", "_key", "_source", "held", "owed", "wanted")

    def __init__(self, source: SlotSource, function: bytes, key: bytes) -> None:
        self._source = source
        self._function = function
        self._key = key
        self.held = 0
        self.owed = 0
        self.wanted = False

    @property
    def idle(self) -> bool:
        """Whether there is nothing to remember."""
        return not (self.held or self.wanted)

    def balance(self, limit: int, running: int, waiting: int) -> int:
        """Ask for a slot if one is missing, and give back those that nothing here needs.

        Args:
            limit: How many slots there may be, on all servers together.
            running: How many jobs run here.
            waiting: How many jobs wait here for a slot.

        Returns:
            How many more jobs may run here; negative if more run than there are slots.
        """
        free = self.held - running
        left_over = min(free, max(free - waiting, self.owed, self.held - limit))
        for _ in range(left_over):
            self._source.release(self._function, self._key)
        if left_over > 0:
            free -= left_over
            self.held -= left_over
            self.owed = max(0, self.owed - left_over)
        self.owed = min(self.owed, self.held)
        missing = waiting > 0 and free <= 0 and self.held < limit
        if missing != self.wanted:
            self.wanted = missing
            if missing:
                self._source.want(self._function, self._key)
            else:
                self._source.unwant(self._function, self._key)
        return free

    def gained(self) -> None:
        """There is one more. `balance` is to follow."""
        self.held += 1
        self.wanted = False

    def lost(self) -> None:
        """All are gone. `balance` is to follow, and asks anew."""
        self.held = self.owed = 0
        self.wanted = False
