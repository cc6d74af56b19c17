"""Slots of limits that hold for all servers together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

MAX_SLOTS: Final = 1000
"""Slots that a server is told of at once, so that neither it nor the database is held up."""


class Slot(NamedTuple):
    """The right of one server to run one job at a time, under a limit that holds for all servers together.

    Attributes:
        function: The function of the job.
        key: The key of the job, empty for the function's own limit.
        number: Tells the slots of one limit apart.
    """

    function: bytes
    key: bytes
    number: int


@dataclass(slots=True)
class SlotChanges:
    """What a server says in `Store.exchange_slots`. It may say the same again where the answer was lost.

    Attributes:
        confirmed: Slots that it was told of.
        released: Slots that it gives back. One that was not confirmed by an earlier call is not given back:
            it is another, which the server was just given.
        unwanted: The limits of which it wants no slot any more, by function and key.
        wanted: The limits of which it wants one more slot, with how many slots there may be.
    """

    confirmed: list[Slot] = field(default_factory=list)
    released: list[Slot] = field(default_factory=list)
    unwanted: set[tuple[bytes, bytes]] = field(default_factory=set)
    wanted: dict[tuple[bytes, bytes], int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.confirmed or self.released or self.unwanted or self.wanted)


class WantedSlots(NamedTuple):
    """Slots of one limit that other servers want.

    Attributes:
        function: The function.
        key: The key, empty for the function's own limit.
        servers: How many servers want one and have fewer than this server.
    """

    function: bytes
    key: bytes
    servers: int
