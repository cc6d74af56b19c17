"""Finding a peer that vanished: an answer that is due, or to an echo now and then, must come in time.

For client and worker alike: `PacketProtocol` drives a `Heartbeat` of its own when it is given a `Check`.
Nothing is sent or closed here, that is for the callables it is given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txgearman.connection.arguments import is_time

CHECK_INTERVAL: Final = 30.0
"""Seconds of silence before a server is asked for a sign of life. Shorter than the time after which
common NAT devices and firewalls forget a silent connection, 60 seconds at the least."""

CHECK_TIMEOUT: Final = 10.0
"""Seconds a server may take to give it. A server that answers admin commands slower than this is of no
use to anyone; a connection that is given up is made again."""

PROGRESS: Final = 512
"""Bytes that must reach the peer within that time to count as a transfer that goes on: about the smallest
segment of TCP. The system of a peer that hangs takes the echo's few bytes too."""


@dataclass(frozen=True, slots=True)
class Check:
    """After `interval` seconds without a byte from the peer an echo is asked for, and the connection is
    given up when no byte comes within `timeout` seconds more. It is given up too when an answer is due and
    no byte comes for `timeout` seconds. Both are more than 0.
    """

    interval: float = CHECK_INTERVAL
    timeout: float = CHECK_TIMEOUT


def check_from(interval: float | None, timeout: float | None) -> Check | None:
    """The `Check` that the options ``check_interval`` and ``check_timeout`` mean; None where either is
    None or 0, which turns the check off. Raises `ValueError` for anything else that is not `is_time`.
    """
    for seconds in (interval, timeout):
        if seconds is not None and not is_time(seconds):
            raise ValueError(f"check times must be None or numbers of seconds from 0 on: {seconds!r}")
    return Check(interval, timeout) if interval and timeout else None


class Heartbeat:
    """Watches one connection from `start` to `stop`, with a single timer of `clock`.

    The owner calls `hear` whenever bytes come, be it in the middle of a packet, so that a long transfer is
    life. `delivered` tells how many bytes have reached the peer so far: while `PROGRESS`
    more come in time, a long transfer to the peer is life too. `ask` shall send something that the peer
    answers; `owed` tells whether an answer of the peer is due; `give_up` shall abort the connection, and is
    told why.
    """

    __slots__ = (
        "_ask",
        "_awaiting",
        "_before",
        "_check",
        "_clock",
        "_delivered",
        "_give_up",
        "_heard",
        "_heard_at",
        "_owed",
        "_timer",
    )

    def __init__(
        self,
        clock: IReactorTime,
        check: Check,
        ask: Callable[[], object],
        owed: Callable[[], bool],
        delivered: Callable[[], int],
        give_up: Callable[[str], object],
    ) -> None:
        self._heard = False
        self._heard_at = 0.0
        self._awaiting = False
        self._clock = clock
        self._check = check
        self._ask = ask
        self._owed = owed
        self._delivered = delivered
        self._give_up = give_up
        self._before = 0
        self._timer: IDelayedCall | None = None

    def start(self) -> None:
        """Begin to watch."""
        self._heard_at = self._clock.seconds()
        self._timer = self._clock.callLater(self._check.interval, self._look)

    def hear(self, now: float) -> None:
        """Bytes came from the peer, at `now`."""
        self._heard = True
        self._heard_at = now

    def expect(self) -> None:
        """An answer of the peer is due from now on. Called for each, it costs nothing."""
        if not self._awaiting and self._timer is not None:
            self._timer.cancel()
            self._await_answer()

    def stop(self) -> None:
        """Watch no more. Can be called at any time, and again."""
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _look(self) -> None:
        """Be silent for the rest of the interval since the last byte, or ask."""
        self._awaiting = False
        rest = self._heard_at + self._check.interval - self._clock.seconds()
        if rest > 0:
            self._timer = self._clock.callLater(rest, self._look)
            return
        self._await_answer()
        self._ask()

    def _await_answer(self) -> None:
        self._awaiting = True
        self._heard = False
        self._before = self._delivered()
        self._timer = self._clock.callLater(self._check.timeout, self._expire)

    def _expire(self) -> None:
        # Not now: if something held up the reactor, the answer may lie unread in the socket. The next
        # call comes behind one round of reading.
        self._timer = self._clock.callLater(0, self._judge)

    def _judge(self) -> None:
        if self._heard and not self._owed():
            self._look()
        elif self._heard or self._delivered() - self._before >= PROGRESS:
            self._await_answer()
        else:
            self._timer = None
            self._give_up(f"the server did not answer within {self._check.timeout:g} seconds")
