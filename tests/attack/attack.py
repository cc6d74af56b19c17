"""What an attack is: a server's options, what the attacker does, and what that may cost the others."""

from __future__ import annotations

import random
import socket
import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final

from tests.attack.peers import Peer
from tests.processes.servers import HOST

STALL: Final = 0.25
"""Seconds that an echo of an honest peer may take at most. A read gives way after a few milliseconds, so this
is room for dozens of attackers at once. The shortest time-outs that clients are given are a second."""

LEFT: Final = 64
"""MiB more than before that may be there when the attackers have left. Python and the C library keep some of
what was freed for later. A leak leaves several times this at the sizes of these attacks."""

PEAK: Final = 256
"""MiB more than before that may be there meanwhile, where an attack meets no limit of its own."""

LOG_LINES: Final = 50
"""Lines of the log that an attack may cause where it does not say another number."""

LOG_LINE: Final = 2048
"""Bytes of a line of the log. A name has 512 at most, four times as many when it is escaped."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What an attack may cost: `stall` in seconds, `peak` and `left` in MiB above what was there before,
    `log_lines` in number and the longest, `log_line`, in bytes. `refusals` says whether honest jobs may be
    refused, where the attack uses up a limit that is there for all."""

    stall: float = STALL
    peak: int = PEAK
    left: int = LEFT
    log_lines: int = LOG_LINES
    log_line: int = LOG_LINE
    refusals: bool = False


@dataclass(slots=True)
class Target:
    """What the attacker sees of the server, and where it says what should not be.

    `deadline` is when it has to stop, by the monotonic clock; `folder` is its own.
    """

    port: int
    web_port: int
    tls_port: int
    folder: Path
    rng: random.Random
    deadline: float
    faults: list[str] = field(default_factory=list)
    peers: list[Peer] = field(default_factory=list)

    @property
    def unix_path(self) -> Path:
        """Of a UNIX socket, for `Attack.options`."""
        return self.folder / "gearman.sock"

    def connect(self) -> Peer:
        """A connection to the Gearman port, which stays until the attack is over."""
        return self._keep(socket.create_connection((HOST, self.port), timeout=10.0))

    def connect_many(self, number: int) -> list[Peer]:
        """So many of them."""
        return [self.connect() for _ in range(number)]

    def connect_unix(self) -> Peer:
        """The same to the UNIX socket."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(10.0)
        connection.connect(str(self.unix_path))
        return self._keep(connection)

    def connect_web(self) -> Peer:
        """The same to the HTTP port."""
        return self._keep(socket.create_connection((HOST, self.web_port), timeout=10.0))

    def connect_tls(self, context: ssl.SSLContext | None = None) -> Peer:
        """The same to the TLS port, with the handshake done. Raises `OSError` where that fails."""
        if context is None:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        connection = socket.create_connection((HOST, self.tls_port), timeout=10.0)
        return self._keep(context.wrap_socket(connection))

    def connect_silently_to_tls(self) -> Peer:
        """A connection to the TLS port on which nothing was said."""
        return self._keep(socket.create_connection((HOST, self.tls_port), timeout=10.0))

    def _keep(self, connection: socket.socket) -> Peer:
        peer = Peer(connection, self.deadline)
        self.peers.append(peer)
        return peer

    def forget(self, peer: Peer) -> None:
        """Leave with one connection."""
        peer.close()
        self.peers.remove(peer)

    def leave(self) -> None:
        """Leave with all connections."""
        for peer in self.peers:
            peer.close()
        self.peers.clear()

    def fault(self, text: str) -> None:
        """Say that the server did what it should not."""
        self.faults.append(text)

    def expect(self, holds: object, text: str) -> None:
        """A fault unless something holds."""
        if not holds:
            self.fault(text)

    def steps(self, seconds: float = 0.0) -> Iterator[int]:
        """Numbers from 0 on, until the attack's time is over, or `seconds` of it."""
        give_up = min(self.deadline, time.monotonic() + seconds) if seconds else self.deadline
        number = 0
        # A second is left to judge what came.
        while time.monotonic() < give_up - 1.0:
            yield number
            number += 1


class Attack(ABC):
    """One way to harm the others. Subclasses are listed in tests.attack.catalogue."""

    name: ClassVar[str]
    about: ClassVar[str]
    """What the attacker does, in a sentence for the docs."""
    bounds: ClassVar[Bounds] = Bounds()
    web: ClassVar[bool] = False
    """Whether the server has the HTTP port."""
    tls: ClassVar[bool] = False
    """Whether it has the TLS port, which asks for a certificate and does not need one."""
    unix: ClassVar[bool] = False
    """Whether it has the UNIX socket."""

    def options(self, target: Target) -> list[str]:
        """Of ``twistd gearmand``, beside where it listens."""
        return []

    @abstractmethod
    def run(self, target: Target) -> None:
        """Attack: connections of `target` that are left open stay so until the harness has looked.

        May raise `TimeUp` and `OSError`: what an attacker cannot do any more harms nobody.
        """

    def after(self, target: Target) -> None:  # noqa: B027
        """Look at what is left, when all attackers have left. The same may be raised."""
