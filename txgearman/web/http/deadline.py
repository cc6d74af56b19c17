"""A time limit that is set and lifted for every request. Nothing of HTTP."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Deadline:
    """Calls a function once, when the time is over for which it was set last.

    Setting it again, or lifting it, mostly leaves the reactor's timer as it is, which then looks what holds.
    To make and cancel timers each time took a fifteenth of a request.

    Args:
        reactor: The clock.
    """

    __slots__ = ("_at", "_otherwise", "_reactor", "_timer")

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._at = 0.0
        self._otherwise: Callable[[], object] | None = None
        self._timer: IDelayedCall | None = None

    @property
    def is_set(self) -> bool:
        """Whether time is running."""
        return self._otherwise is not None

    def set(self, seconds: float, otherwise: Callable[[], object]) -> None:
        """Let time run from now on.

        Args:
            seconds: How long.
            otherwise: What to call unless the deadline is set again or lifted by then.
        """
        self._at = self._reactor.seconds() + seconds
        self._otherwise = otherwise
        if self._timer is None:
            self._timer = self._reactor.callLater(seconds, self._look)
        elif self._timer.getTime() > self._at:
            self._timer.reset(seconds)

    def lift(self) -> None:
        """Let no time run."""
        self._otherwise = None

    def close(self) -> None:
        """Let no time run, and give the timer back."""
        self._otherwise = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        otherwise = self._otherwise
        if otherwise is None:
            return
        left = self._at - self._reactor.seconds()
        if left > 0:
            self._timer = self._reactor.callLater(left, self._look)
        else:
            self._otherwise = None
            otherwise()
