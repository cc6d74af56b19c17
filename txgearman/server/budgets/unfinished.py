"""What was read and is not whole yet: the beginnings of packets, and of the bodies of HTTP requests.

Each is bounded by itself. Here they are counted together, so that many connections that each send the
beginning of something large cannot fill memory. Nothing that came whole is ever counted. No I/O.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final, Protocol

from twisted.logger import LogLevel

from txgearman.server.monitoring.rate_limited_log import RateLimitedLog

COUNTED_FROM: Final = 16 * 1024
"""Bytes of one unfinished packet from which it is counted. What is below, each connection may hold beside:
less than its socket's buffers hold in the kernel. So nothing is counted on the way of small packets."""

TOO_MUCH: Final = b"TOO_MUCH_UNFINISHED"
"""The code of the ERROR for a packet that has to make room."""


class Holder(Protocol):
    """Whose packet or request it is."""

    @property
    def described(self) -> str:
        """Who that is, for the log."""

    def give_up_unfinished(self, why: str) -> None:
        """Let go of what has come, tell the peer `why`, and end its connection."""


class Unfinished:
    """Counts the bytes of what is not whole, in all.

    `limit` is how many there may be, `sys.maxsize` for no limit; `total` is how many there are, and
    `refused` counts what had to make room. `clock` gives monotonic seconds.

    Above the limit that makes room which began first. A peer that sends on at an honest speed is done before
    the others; one that stands still, or sends a byte now and then, becomes the oldest.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.limit = sys.maxsize
        self.total = 0
        self.refused = 0
        # The one that began first is the first.
        self._sizes: dict[Holder, int] = {}
        self._tell = RateLimitedLog(
            LogLevel.warn,
            "{who} dropped with {size} bytes of what is not whole: there are more than {limit} such bytes "
            "(max-unfinished-total)",
            clock,
        )

    def note(self, holder: Holder, size: int) -> None:
        """Of something of this holder so many bytes have come; 0 when it is whole, or gone."""
        sizes = self._sizes
        self.total += size - sizes.get(holder, 0)
        if not size:
            sizes.pop(holder, None)
            return
        sizes[holder] = size
        while self.total > self.limit:
            oldest = next(iter(sizes))
            size = sizes.pop(oldest)
            self.total -= size
            self.refused += 1
            self._tell.happened(who=oldest.described, size=size, limit=self.limit)
            oldest.give_up_unfinished(
                f"More than {self.limit} bytes have come of what is not whole, and this began first"
            )
