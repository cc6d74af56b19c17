"""What an operator may choose, checked. Data only."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from typing import Final

from txgearman.broker.policy import UNLIMITED, FunctionOrder, Policy
from txgearman.keepalive import MAX_KEEPALIVE, Keepalive
from txgearman.wire.limits import MAX_HANDLE, MAX_PACKET

DEFAULT_ENDPOINT: Final = "tcp:4730:interface=127.0.0.1"
"""Where the server listens if nothing is said: Gearman's port, for this machine only."""

MAX_PREFIX: Final = MAX_HANDLE - len(":18446744073709551615")
"""Bytes of a handle's prefix, so that no handle exceeds what clients accept."""

SMALLEST_MAX_PACKET: Final = 1024
_LARGEST_MAX_PACKET: Final = 0xFFFFFFFF


def default_handle_prefix() -> str:
    """``H:`` and the name of this machine, as gearmand has it."""
    name = "".join(
        letter if letter.isascii() and letter.isprintable() and letter != " " else "_"
        for letter in platform.node()
    )
    return f"H:{name or 'localhost'}"[:MAX_PREFIX]


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a server; raises `ValueError` for a value that cannot be.

    `listen` are Twisted server endpoint descriptions. `job_retries`, `wakeup`, `order`, `round_robin`
    and `handle_prefix` are those of `Policy`. `max_packet` is the largest body of a packet in bytes.
    `exceptions` sends WORK_EXCEPTION also to clients that did not ask for it.
    """

    listen: tuple[str, ...] = (DEFAULT_ENDPOINT,)
    job_retries: int = UNLIMITED
    wakeup: int = 1
    order: FunctionOrder = FunctionOrder.PRIORITY
    round_robin: bool = False
    handle_prefix: str = field(default_factory=default_handle_prefix)
    max_packet: int = MAX_PACKET
    exceptions: bool = False
    keepalive: Keepalive = field(default_factory=Keepalive)

    def __post_init__(self) -> None:
        if self.job_retries < UNLIMITED:
            raise ValueError(f"job retries must be {UNLIMITED} (no limit) or more, not {self.job_retries}")
        if self.wakeup < 0:
            raise ValueError(f"worker wakeup must be 0 (all) or more, not {self.wakeup}")
        if not SMALLEST_MAX_PACKET <= self.max_packet <= _LARGEST_MAX_PACKET:
            raise ValueError(
                f"the packet limit must be {SMALLEST_MAX_PACKET} to {_LARGEST_MAX_PACKET} bytes, "
                f"not {self.max_packet}"
            )
        prefix = self.handle_prefix
        if not prefix or not prefix.isascii() or not prefix.isprintable() or " " in prefix:
            raise ValueError(f"the handle prefix must be printable ASCII without spaces, not {prefix!r}")
        if len(prefix) > MAX_PREFIX:
            raise ValueError(f"the handle prefix must have at most {MAX_PREFIX} bytes, not {len(prefix)}")
        for name in ("idle", "interval", "count"):
            value, largest = getattr(self.keepalive, name), getattr(MAX_KEEPALIVE, name)
            if not 0 <= value <= largest:
                raise ValueError(f"keepalive {name} must be 0 (the system's own) to {largest}, not {value}")

    @property
    def policy(self) -> Policy:
        """The part that is the broker's."""
        return Policy(
            handle_prefix=self.handle_prefix.encode("ascii"),
            job_retries=self.job_retries,
            wakeup=self.wakeup,
            order=self.order,
            round_robin=self.round_robin,
        )
