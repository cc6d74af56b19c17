"""What every measured program has: its arguments, its payload, and the clock. No library is imported here.

One job more than the measured ones is submitted or worked off ahead of the clock, so connecting is not in
the rate.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass, field
from typing import Final, NoReturn

FUNCTION: Final = "bench00000"
"""load.c's, which fills the queues for the workers."""

DATA: Final = b"x" * 64
"""What a job carries, and the result that a worker returns."""

BATCH: Final = 1000
"""Jobs that are submitted at once in the role ``many``, where a library submits so many by one call."""


@dataclass(slots=True)
class Clock:
    """Counts jobs, and the time between the first of them and the last: `jobs` intervals."""

    jobs: int
    counted: int = 0
    _began: tuple[float, float] = field(default=(0.0, 0.0))
    _ended: tuple[float, float] = field(default=(0.0, 0.0))

    @property
    def over(self) -> bool:
        """Whether the last job has been counted."""
        return self.counted > self.jobs

    def start(self) -> None:
        """The next job is the first that is measured."""
        self._began = _now()

    def stop(self) -> None:
        """The last measured job is done."""
        self._ended = _now()

    def count(self) -> None:
        """A worker's function was called: the first call starts the clock, the last stops it."""
        self.counted += 1
        if self.counted == 1:
            self.start()
        elif self.over:
            self.stop()

    def elapsed(self) -> tuple[float, float]:
        """Seconds between start and stop, and CPU seconds of this process in them."""
        return self._ended[0] - self._began[0], self._ended[1] - self._began[1]

    def report(self) -> None:
        """Print what was measured."""
        seconds, cpu = self.elapsed()
        print(json.dumps({"jobs": self.jobs, "seconds": seconds, "cpu": cpu}), flush=True)


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def arguments() -> tuple[str, int, Clock]:
    """Role, port of 127.0.0.1, and a clock for the number of jobs, from the command line."""
    role, port, jobs = sys.argv[1:]
    return role, int(port), Clock(int(jobs))


def end() -> NoReturn:
    """End without waiting for threads that a library leaves behind."""
    sys.stdout.flush()
    os._exit(0)
