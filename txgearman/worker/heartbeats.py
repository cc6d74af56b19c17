"""Telling a server of the jobs that still run, by one timer for a connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txgearman.wire.codec import frame
from txgearman.wire.packets import REQUEST, WORK_HEARTBEAT
from txgearman.worker.job import Job

PER_HEARTBEAT: Final = 3
"""How often a job is told of in the time in which the server must hear of it. Two may be late."""

MIN_INTERVAL: Final = 0.1
"""Seconds between two heartbeats of a job, whatever a server asks for: its packets must not become a load."""


class Heartbeats:
    """The jobs of a connection that its server wants to hear of.

    A job that ends before it is to be told of, as most do, costs an entry of a dictionary.

    Args:
        clock: Runs the timer.
        write: Sends bytes to the server.
    """

    def __init__(self, clock: IReactorTime, write: Callable[[bytes], object]) -> None:
        self._clock = clock
        self._write = write
        # When each is told of next, and how long after that again; both in seconds of the clock.
        self._jobs: dict[Job, tuple[float, float]] = {}
        self._timer: IDelayedCall | None = None

    def begin(self, job: Job, seconds: float) -> None:
        """A job begins to run, and the server takes it back once it has heard nothing of it for so long."""
        interval = max(seconds / PER_HEARTBEAT, MIN_INTERVAL)
        when = self._clock.seconds() + interval
        self._jobs[job] = when, interval
        if self._timer is None or self._timer.getTime() > when:
            self._set_timer(when)

    def end(self, job: Job) -> None:
        """A job is over."""
        self._jobs.pop(job, None)

    def stop(self) -> None:
        """The connection is gone, and all jobs with it."""
        self._jobs.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._clock.callLater(max(0.0, when - self._clock.seconds()), self._tell)

    def _tell(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        packets = []
        for job, (when, interval) in self._jobs.items():
            if when <= now:
                packets.append(frame(REQUEST, WORK_HEARTBEAT, job.handle))
                self._jobs[job] = now + interval, interval
        if self._jobs:
            self._set_timer(min(when for when, _ in self._jobs.values()))
        if packets:
            self._write(b"".join(packets))
