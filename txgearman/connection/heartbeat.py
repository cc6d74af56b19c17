"""Heartbeats: a connection whose peer does not answer a request, or a probe, in time is aborted.

`PacketProtocol` drives a `Heartbeat` for client and worker. It sends and closes nothing itself, but calls
what it is given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txgearman.connection.arguments import is_time

CHECK_INTERVAL: Final = 30.0
"""Default of ``check_interval``: seconds of silence before a server is probed. Common NAT devices and
firewalls forget a silent connection after 60 seconds or more."""

CHECK_TIMEOUT: Final = 10.0
"""Default of ``check_timeout``: seconds that a server may take to answer. A server that needs longer for
admin commands is of no use to anyone, and an aborted connection is made again."""

MIN_PROGRESS_BYTES: Final = 512
"""Bytes that must reach the peer within the timeout for a transfer to count as alive: about the smallest TCP
segment. Fewer prove nothing, as the system of a hung peer accepts the probe's few bytes too."""


@dataclass(frozen=True, slots=True)
class LivenessCheck:
    """When a peer is probed, and when it counts as dead.

    Attributes:
        interval: Seconds without a byte from the peer before it is probed; more than 0.
        timeout: Seconds without a byte, while the peer owes a reply to a probe or a request, after which the
            connection is aborted; more than 0.
    """

    interval: float = CHECK_INTERVAL
    timeout: float = CHECK_TIMEOUT


def liveness_check_from(interval: float | None, timeout: float | None) -> LivenessCheck | None:
    """The check that the options ``check_interval`` and ``check_timeout`` mean.

    Args:
        interval: Seconds. None and 0 turn the check off.
        timeout: Seconds. None and 0 turn the check off.

    Returns:
        The check, or None if it is turned off.

    Raises:
        ValueError: One of them is no `is_time`.
    """
    for seconds in (interval, timeout):
        if seconds is not None and not is_time(seconds):
            raise ValueError(f"check times must be None or numbers of seconds from 0 on: {seconds!r}")
    return LivenessCheck(interval, timeout) if interval and timeout else None


class Heartbeat:
    """Watches one connection from `start` to `stop`, with a single timer.

    A long transfer counts as life in both directions: from the peer, as the owner calls `note_data` for bytes
    in the middle of a packet too; to the peer, while `MIN_PROGRESS_BYTES` more are delivered in time.

    Args:
        clock: Has the timer.
        check: When to probe and when to abort.
        send_probe: Sends something that the peer answers.
        reply_pending: Whether the peer owes a reply.
        delivered: How many bytes have reached the peer so far.
        abort: Aborts the connection; it is told why.
    """

    __slots__ = (
        "_abort",
        "_awaiting_reply",
        "_check",
        "_clock",
        "_delivered",
        "_delivered_before",
        "_heard",
        "_heard_at",
        "_reply_pending",
        "_send_probe",
        "_timer",
    )

    def __init__(
        self,
        clock: IReactorTime,
        check: LivenessCheck,
        send_probe: Callable[[], object],
        reply_pending: Callable[[], bool],
        delivered: Callable[[], int],
        abort: Callable[[str], object],
    ) -> None:
        self._heard = False
        self._heard_at = 0.0
        self._awaiting_reply = False
        self._clock = clock
        self._check = check
        self._send_probe = send_probe
        self._reply_pending = reply_pending
        self._delivered = delivered
        self._abort = abort
        self._delivered_before = 0
        self._timer: IDelayedCall | None = None

    def start(self) -> None:
        """Begin to watch."""
        self._heard_at = self._clock.seconds()
        self._timer = self._clock.callLater(self._check.interval, self._check_idle)

    def note_data(self, now: float) -> None:
        """Bytes came from the peer at `now`, in seconds of the clock."""
        self._heard = True
        self._heard_at = now

    def expect_reply(self) -> None:
        """The peer owes a reply from now on. Cheap enough to be called for each."""
        if not self._awaiting_reply and self._timer is not None:
            self._timer.cancel()
            self._await_reply()

    def stop(self) -> None:
        """Stop watching. Can be called at any time, and again."""
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _check_idle(self) -> None:
        """Probe the peer, or wait for the rest of the interval since its last byte."""
        self._awaiting_reply = False
        rest = self._heard_at + self._check.interval - self._clock.seconds()
        if rest > 0:
            self._timer = self._clock.callLater(rest, self._check_idle)
            return
        self._await_reply()
        self._send_probe()

    def _await_reply(self) -> None:
        self._awaiting_reply = True
        self._heard = False
        self._delivered_before = self._delivered()
        self._timer = self._clock.callLater(self._check.timeout, self._expire)

    def _expire(self) -> None:
        # If something held up the reactor, the reply may lie unread in the socket. The next call comes after
        # one round of reading.
        self._timer = self._clock.callLater(0, self._decide)

    def _decide(self) -> None:
        if self._heard and not self._reply_pending():
            self._check_idle()
        elif self._heard or self._delivered() - self._delivered_before >= MIN_PROGRESS_BYTES:
            self._await_reply()
        else:
            self._timer = None
            self._abort(f"the server did not answer within {self._check.timeout:g} seconds")
