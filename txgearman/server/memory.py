"""The memory of a process that the server has to itself: few looks by the collector, and giving back.

An embedded server leaves both alone, as they belong to the whole process.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

GC_THRESHOLDS: Final = (10_000, 10, 100_000)
"""For `gc.set_threshold`: objects made and not freed before the youngest are looked through, how often
that before the middle-aged, how often that before all."""

LOOK_INTERVAL: Final = 1.0
"""Seconds between two looks at how many jobs there are."""

DEEP: Final = 50_000
"""Jobs from which a queue is deep enough to give back memory behind it, some 20 MiB."""

SHALLOW: Final = 8
"""Memory is given back when there are this many times fewer jobs than there were."""


def tune_collector() -> None:
    """Let the garbage collector look rarely: a job is a few objects that live as long as it waits.

    With Python's defaults it walks all of them again and again as a queue grows. Jobs and connections
    are freed by their reference counts; what is left for the collector is the odd traceback.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def give_back() -> None:
    """Let the C library return freed memory to the system; nothing where it cannot, as it is not glibc."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        return


class MemoryService(Service):
    """Gives memory back to the system when a deep queue has drained.

    glibc keeps it otherwise: of 90 MiB for 200,000 jobs, 20 stayed. `total` says how many jobs there
    are; `reactor` calls back; `release` is what gives back.
    """

    def __init__(
        self, total: Callable[[], int], reactor: Any, release: Callable[[], None] = give_back
    ) -> None:
        self._total = total
        self._release = release
        self._most = 0
        self._rest = False
        self._looks = LoopingCall(self._look)
        self._looks.clock = reactor

    def startService(self) -> None:
        super().startService()
        self._looks.start(LOOK_INTERVAL, now=False)

    def stopService(self) -> Deferred[None] | None:
        if self._looks.running:
            self._looks.stop()
        return super().stopService()  # type: ignore[no-any-return]

    def _look(self) -> None:
        total = self._total()
        self._most = max(self._most, total)
        drained = self._most >= DEEP and total * SHALLOW <= self._most
        if drained or (self._rest and not total):
            self._most = total
            # What is left lies between what was freed, so there is more to give back when it has gone.
            self._rest = total > 0
            self._release()
