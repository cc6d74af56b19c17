"""The memory of a process that the server has to itself: when the garbage collector looks, and giving back.

Nothing of the server's own should need the collector: what ends is freed by its reference counts. That it
looks when memory grows makes a mistake here, or in a plugin, cost minutes and not the process.

An embedded server leaves both alone, as they belong to the whole process.
"""

from __future__ import annotations

import ctypes
import gc
import os
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any, ClassVar, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

LOOK_INTERVAL: Final = 1.0
"""Seconds between two looks at how many jobs and objects there are."""

OBJECTS_OF_JOB: Final = 4
"""Objects of the kind that the garbage collector looks through that are allowed for each job. One has itself,
and three with a client who waits for it."""

OBJECTS_OF_FUNCTION: Final = 20
"""The same for each function: 18 of its own, and one for the first workers that register it."""

MOST_OTHERS: Final = 100_000
"""Objects that may have been made since the collector looked, and are still there, beside those of jobs and
functions. As garbage they would be some 10 MB. To look through so many takes 10 ms."""

MEMORY_OF_JOB: Final = 1024
"""Bytes of memory that are allowed for each job: without its data it takes 450. A deep queue of small jobs
must not have the collector look, which takes half a second at a million of them."""

MOST_GROWTH: Final = 64 * 1024 * 1024
"""Bytes by which memory may grow beyond what jobs and the send budget explain, before the collector looks."""

GROWTH_SHARE: Final = 0.5
"""The same as a part of what the last look left, where that is more. While memory grows, as with large jobs,
looks become rarer, and all of them together take as long as three of the last one."""

PAUSE_SHARE: Final = 100
"""A look for memory's sake comes at the earliest when this many times as long has passed as the last one
took: it costs one per cent of the time at most."""

MOST_KEPT: Final = 16 * 1024 * 1024
"""Bytes of freed memory that the C library may keep beyond what it kept when it gave back last. A thousand
TLS connections leave 44 MiB behind."""

KEPT_LOOKS: Final = 10
"""Looks in a row that have to find so many. What is given back and needed again costs a page fault for each
4 KiB, so only what is not needed soon is given back."""

DEEP: Final = 50_000
"""Jobs from which a queue is deep enough to give back memory after it, some 20 MiB."""

SHALLOW: Final = 8
"""Memory is given back when there are this many times fewer jobs than there were."""


def tune_collector() -> None:
    """Leave it to a `MemoryService` when the garbage collector looks.

    By itself it does when enough objects were made that are still there, which are the jobs of a growing
    queue, and it walks them all for nothing: jobs and connections are freed by their reference counts. What
    is left for the collector are tracebacks and what the web side leaves behind. With Python's defaults a
    submit took twice as long, with thresholds of (10,000, 10) an eighth longer.
    """
    gc.collect()
    gc.freeze()
    gc.disable()


def made_since() -> int:
    """How many objects more there are than when the garbage collector looked last."""
    return gc.get_count()[0]


def resident() -> int:
    """Bytes of memory that the process occupies; 0 where the system does not tell as Linux does."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


@cache
def _c_library() -> ctypes.CDLL:
    """Once: each one has classes of its own, which only the collector frees."""
    return ctypes.CDLL(None)


def give_back() -> None:
    """Let the C library return freed memory to the system; nothing where it cannot, as it is not glibc."""
    with suppress(AttributeError, OSError, TypeError):
        _c_library().malloc_trim(0)


class _MallInfo2(ctypes.Structure):
    """``struct mallinfo2`` of glibc: see mallinfo(3)."""

    _fields_: ClassVar = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


def handed_out() -> int:
    """Bytes that the C library has handed out and that were not freed; 0 where it does not tell, as glibc
    does from 2.33 on.

    It takes 2 µs, and 50 ms where half a million freed pieces lie between others.
    """
    try:
        mallinfo2 = _c_library().mallinfo2
    except (AttributeError, OSError, TypeError):
        return 0
    mallinfo2.restype = _MallInfo2
    info = mallinfo2()
    return int(info.uordblks + info.hblkhd)


class MemoryService(Service):
    """Gives memory back to the system when a deep queue has drained, and when much else was freed. Has the
    garbage collector look when there are more new objects, or is more memory, than jobs and functions
    explain.

    glibc keeps the memory otherwise: of 90 MiB for 200,000 jobs, 20 stayed. `jobs` says how many jobs are in
    memory and `functions` how many functions there are, `objects` how many new objects there are, `memory`
    how many bytes the process occupies, `counted` how many of them are counted elsewhere and `used` how many
    the C library has handed out; `reactor` calls back; `release` is what gives back, `collect` has the
    collector look, and `clock` says in seconds how long that took.
    """

    def __init__(
        self,
        jobs: Callable[[], int],
        reactor: Any,
        release: Callable[[], object] = give_back,
        objects: Callable[[], int] = made_since,
        collect: Callable[[], object] = gc.collect,
        memory: Callable[[], int] = resident,
        counted: Callable[[], int] = int,
        clock: Callable[[], float] = time.monotonic,
        functions: Callable[[], int] = int,
        used: Callable[[], int] = handed_out,
    ) -> None:
        self._jobs = jobs
        self._functions = functions
        self._release = release
        self._objects = objects
        self._collect = collect
        self._memory = memory
        self._counted = counted
        self._clock = clock
        self._used = used
        # What the last look left, beyond what is explained; None before there is anything to compare with.
        self._left: int | None = None
        self._not_before = 0.0
        # The least that was kept since memory was given back; None before there is anything to compare with.
        self._least_kept: int | None = None
        self._much_kept = 0
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
        jobs = self._jobs()
        explained = OBJECTS_OF_JOB * jobs + OBJECTS_OF_FUNCTION * self._functions()
        if self._objects() > MOST_OTHERS + explained:
            self._collect()
        self._look_at_memory(jobs)
        self._look_at_kept(jobs)
        self._most = max(self._most, jobs)
        drained = self._most >= DEEP and jobs * SHALLOW <= self._most
        if drained or (self._rest and not jobs):
            self._most = jobs
            # What is left lies between what was freed, so there is more to give back when it has gone.
            self._rest = jobs > 0
            if jobs < DEEP:
                # This empties Python's lists of free objects too: those lie all over the memory, and kept
                # 5 MiB after 200,000 jobs.
                self._collect()
            self._release()

    def _look_at_memory(self, jobs: int) -> None:
        """Have the collector look if memory has grown by more than is explained."""
        unexplained = self._unexplained(jobs)
        if self._left is None or unexplained < self._left:
            self._left = unexplained
        if unexplained - self._left <= max(MOST_GROWTH, GROWTH_SHARE * self._left):
            return
        begun = self._clock()
        if begun < self._not_before:
            return
        self._collect()
        self._release()
        self._pause(begun)
        self._left = self._unexplained(jobs)

    def _look_at_kept(self, jobs: int) -> None:
        """Give back memory if much was freed and is not needed again.

        How much there is does not tell: it is the same before and after connections have left.
        """
        begun = self._clock()
        if begun < self._not_before:
            return
        kept = self._kept(jobs)
        if self._least_kept is None or kept < self._least_kept:
            self._least_kept = kept
        self._much_kept = self._much_kept + 1 if kept - self._least_kept > MOST_KEPT else 0
        if self._much_kept >= KEPT_LOOKS:
            self._release()
            self._least_kept = self._kept(jobs)
            self._much_kept = 0
        self._pause(begun)

    def _kept(self, jobs: int) -> int:
        """Bytes that are occupied and not handed out. Python's own memory for small objects is among them,
        which is most of a job."""
        return self._memory() - self._used() - MEMORY_OF_JOB * jobs

    def _pause(self, begun: float) -> None:
        ended = self._clock()
        self._not_before = ended + PAUSE_SHARE * (ended - begun)

    def _unexplained(self, jobs: int) -> int:
        return max(0, self._memory() - self._counted() - MEMORY_OF_JOB * jobs)
