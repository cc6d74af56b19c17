"""Which connections are let in: how many there may be, in all and of one address. No I/O but telling one
that it is refused.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Final

from twisted.internet.interfaces import IAddress, ISSLTransport
from twisted.internet.protocol import Protocol
from twisted.logger import Logger, LogLevel

from txgearman.server.config.settings import FILES_KEPT
from txgearman.wire.codec import frame
from txgearman.wire.packets import ERROR, RESPONSE

TELL_EVERY: Final = 10.0
"""Seconds between two lines in the log about connections refused for the same reason."""

TOO_MANY: Final = b"TOO_MANY_CONNECTIONS"
"""The code of the ERROR for a connection that is refused."""

_log = Logger()


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


class Seldom:
    """Logs that something happened, and how often, at most once in `every` seconds.

    `clock` gives monotonic seconds.
    """

    def __init__(
        self, level: LogLevel, text: str, clock: Callable[[], float], every: float = TELL_EVERY
    ) -> None:
        self._level = level
        self._text = text
        self._clock = clock
        self._every = every
        self._told: float | None = None
        self._count = 0

    def happened(self, **fields: object) -> None:
        """It happened once more; `fields` are those of the text."""
        self._count += 1
        now = self._clock()
        if self._told is None or now - self._told >= self._every:
            more = "; {count} since the last such line" if self._count > 1 else ""
            _log.emit(self._level, self._text + more, count=self._count, **fields)
            self._told, self._count = now, 0


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
        self._of: Counter[str] = Counter()
        refused = "Connection from {host} refused: there are {limit} "
        self._tell_refused = Seldom(LogLevel.warn, f"{refused}({option})", clock)
        self._tell_refused_per_address = Seldom(
            LogLevel.warn, f"{refused}of its address ({option}-per-address)", clock
        )

        self._tell_late = Seldom(
            LogLevel.warn, "Connection from {host} dropped: its request did not arrive in time", clock
        )

    def refuse(self, address: IAddress | None) -> str:
        """Why a connection of this address must stay outside although there is room; empty if it need not."""
        origin = origin_of(address)
        if origin is None or self._of[origin] < self.limit_per_address:
            return ""
        self.refused_per_address += 1
        self._tell_refused_per_address.happened(host=origin, limit=self.limit_per_address)
        return f"There are {self.limit_per_address} connections of this address, as many as may be"

    def refuse_for_all(self, address: IAddress | None) -> str:
        """What to say to one for which there is no room."""
        self.refused += 1
        self._tell_refused.happened(host=getattr(address, "host", "unix"), limit=self.limit)
        return f"There are {self.limit} connections, as many as may be"

    def entered(self, address: IAddress | None) -> None:
        """There is one connection more of this address."""
        self.count += 1
        origin = origin_of(address)
        if origin is not None:
            self._of[origin] += 1

    def left(self, address: IAddress | None) -> None:
        """There is one less."""
        self.count -= 1
        origin = origin_of(address)
        if origin is not None:
            self._of[origin] -= 1
            if not self._of[origin]:
                del self._of[origin]

    def note_late(self, address: IAddress | None) -> None:
        """One was ended because its request did not arrive in time."""
        self._tell_late.happened(host=getattr(address, "host", "unix"))

    @property
    def most_of_an_address(self) -> int:
        """How many connections the address has that has most. This walks all addresses."""
        return max(self._of.values(), default=0)


class Refusal(Protocol):
    """A connection that is told why it is refused, and ended."""

    def __init__(self, why: str) -> None:
        self._why = why

    def connectionMade(self) -> None:
        assert self.transport is not None
        if ISSLTransport.providedBy(self.transport):
            # It would take a whole handshake to tell it.
            self.transport.abortConnection()
            return
        self.transport.write(frame(RESPONSE, ERROR, b"%b\0%b" % (TOO_MANY, self._why.encode())))
        self.transport.loseConnection()
