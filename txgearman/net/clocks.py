"""A monotonic clock, which steps of the system clock do not distort."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.base import ReactorBase


def monotonic_clock(reactor: Any) -> Callable[[], float]:
    """A clock that goes on as time does, in seconds from a point of its own.

    Twisted's reactors go by the system's clock, which may be set: a lease must not last longer for that.
    Where the system tells it, the time in which the machine slept counts too. What is no reactor but a clock
    for tests is that clock.
    """
    if not isinstance(reactor, ReactorBase):
        clock: Callable[[], float] = reactor.seconds
        return clock
    if hasattr(time, "CLOCK_BOOTTIME"):
        return partial(time.clock_gettime, time.CLOCK_BOOTTIME)
    return time.monotonic
