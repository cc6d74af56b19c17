"""Which connections are let in: how many there may be, in all and of one address. No I/O."""

from __future__ import annotations

import sys
from collections.abc import Callable
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Final

from twisted.internet.interfaces import IAddress
from twisted.logger import LogLevel

from txgearman.net.refusal import RefusedConnection
from txgearman.server.config.options import FILES_KEPT
from txgearman.server.monitoring.rate_limited_log import RateLimitedLog
from txgearman.wire.codec import frame
from txgearman.wire.packets import ERROR, RESPONSE

TOO_MANY: Final = b"TOO_MANY_CONNECTIONS"
"""The code of the ERROR for a connection that is refused."""


def files_for_connections(others: int = 0) -> int:
    """How many connections the limit of open files leaves room for, beside `others` of another kind."""
    try:
        import resource
    except ImportError:  # not on Windows, which has no such limit
        return sys.maxsize
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return sys.maxsize
    return int(max(1, files - max(FILES_KEPT + others, files // 10)))


def origin_of(address: IAddress | None) -> str | None:
    """Whose connections are counted together: those of an IPv4 address, or of an IPv6 network of 64 bits,
    which is what one customer gets. None for what has no address, such as a UNIX socket."""
    host = getattr(address, "host", None)
    if not isinstance(host, str) or ":" not in host:
        return host
    try:
        ip = ip_address(host)
    except ValueError:
        return host
    if not isinstance(ip, IPv6Address):
        return host
    return str(ip.ipv4_mapped or IPv6Network((int(ip) >> 64 << 64, 64)))


class Admission:
    """Counts connections, and says who must stay outside.

    `limit` is for all connections, `limit_per_address` for those of one address; `sys.maxsize` is no limit.
    `count` is how many there are; `refused` and `refused_per_address` count those that met the limits.
    `option` is the name of the option that is the limit for all. `clock` gives monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float], option: str = "max-connections") -> None:
        self.limit = sys.maxsize
        self.limit_per_address = sys.maxsize
        self.count = 0
        self.refused = 0
        self.refused_per_address = 0
        self._of: dict[str, int] = {}
        refused = "Connection from {host} refused: there are {limit} "
        self._log_refused = RateLimitedLog(LogLevel.warn, f"{refused}({option})", clock)
        self._log_refused_per_address = RateLimitedLog(
            LogLevel.warn, f"{refused}of its address ({option}-per-address)", clock
        )

        self._log_late = RateLimitedLog(
            LogLevel.warn, "Connection from {host} dropped: its request did not arrive in time", clock
        )

    def refuse(self, address: IAddress | None) -> str:
        """Why a connection of this address must stay outside although there is room; empty if it need not."""
        if self.limit_per_address == sys.maxsize:
            return ""
        origin = origin_of(address)
        if origin is None or self._of.get(origin, 0) < self.limit_per_address:
            return ""
        self.refused_per_address += 1
        self._log_refused_per_address.happened(host=origin, limit=self.limit_per_address)
        return f"There are {self.limit_per_address} connections of this address, as many as may be"

    def refuse_for_all(self, address: IAddress | None) -> str:
        """What to say to one for which there is no room."""
        self.refused += 1
        self._log_refused.happened(host=getattr(address, "host", "unix"), limit=self.limit)
        return f"There are {self.limit} connections, as many as may be"

    def entered(self, address: IAddress | None) -> None:
        """There is one connection more of this address."""
        self.count += 1
        origin = origin_of(address)
        if origin is not None:
            self._of[origin] = self._of.get(origin, 0) + 1

    def left(self, address: IAddress | None) -> None:
        """There is one less."""
        self.count -= 1
        origin = origin_of(address)
        if origin is not None:
            left = self._of[origin] - 1
            if left:
                self._of[origin] = left
            else:
                del self._of[origin]

    def note_late(self, address: IAddress | None) -> None:
        """One was ended because its request did not arrive in time."""
        self._log_late.happened(host=getattr(address, "host", "unix"))

    @property
    def most_of_an_address(self) -> int:
        """How many connections the address has that has most. This walks all addresses."""
        return max(self._of.values(), default=0)


def refusal(why: str) -> RefusedConnection:
    """A connection that is sent an ERROR, which says `why` it is refused."""
    return RefusedConnection(frame(RESPONSE, ERROR, b"%b\0%b" % (TOO_MANY, why.encode())))
