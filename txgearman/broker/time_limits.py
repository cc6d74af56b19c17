"""Takes jobs from workers that are too slow or silent: time limits of runs, and heartbeats."""

from __future__ import annotations

from math import inf
from typing import Final

from txgearman.broker.deadlines import Deadlines, Heartbeat
from txgearman.broker.entities import Job
from txgearman.broker.job_states import Outcome
from txgearman.broker.lifecycle import Lifecycle
from txgearman.broker.slices import SLICE
from txgearman.broker.stopping import SILENT, TIMED_OUT, stop_run
from txgearman.broker.timer import Timer

MAX_LATENESS: Final = 1.0
"""Seconds. When a heartbeat comes up later than by this, the server itself has stood still, as a machine that
was suspended: what workers have said meanwhile may be in their sockets still, and each gets its time anew."""

_TIMED_OUT: Final = int(Outcome.TIMED_OUT)


class TimeLimits:
    """The runs that have a time limit or a heartbeat.

    Args:
        deadlines: When each of these is due, by the monotonic clock. `life` cancels those of runs that end.
        life: Takes jobs back, and ends them.
        timer: The clocks and the alarm.
    """

    __slots__ = ("_deadlines", "_life", "_timer")

    def __init__(self, deadlines: Deadlines[Job], life: Lifecycle, timer: Timer) -> None:
        self._deadlines = deadlines
        self._life = life
        self._timer = timer

    def watch(self, job: Job, timeout: float | None) -> None:
        """A run has begun that has a time limit, in seconds, or a heartbeat."""
        now = self._timer.clock()
        limit = inf if timeout is None else now + timeout
        interval = job.function.heartbeat
        heartbeat = None if interval is None else Heartbeat(now, interval, limit)
        when = limit if heartbeat is None else heartbeat.due
        deadline = job.deadline = self._deadlines.add(when, job)
        deadline.heartbeat = heartbeat
        self._timer.ring_at(when)

    def heard_of(self, job: Job) -> None:
        """The worker of a running job has said something of it."""
        if job.deadline is not None and job.deadline.heartbeat is not None:
            now = self._timer.turn_time
            job.deadline.heartbeat.heard = self._timer.clock() if now is None else now

    def tick(self, now: float) -> None:
        """Take the jobs back that are due at `now`, in slices, and have the alarm ring for the next."""
        for _ in range(SLICE):
            job = self._deadlines.pop_due(now)
            if job is None:
                break
            if not self._still_runs(job, now):
                self._time_out(job, now)
        due = self._deadlines.next()
        if due is not None:
            self._timer.ring_at(due)

    def _still_runs(self, job: Job, now: float) -> bool:
        """Whether a job whose deadline has come up may run on, as its worker was heard of meanwhile, or may
        have said something that nobody has read."""
        deadline = job.deadline
        assert deadline is not None
        heartbeat = deadline.heartbeat
        if heartbeat is None:
            return False
        if heartbeat.due <= now:
            if now - heartbeat.due < MAX_LATENESS or heartbeat.limit <= now:
                return False
            heartbeat.heard = now
        self._deadlines.put_off(deadline, heartbeat.due)
        return True

    def _time_out(self, job: Job, now: float) -> None:
        """A job has run for longer than its time limit. That is a lost worker, and a failed run where it is
        said how many of these there may be. Or its worker is silent, which is a lost one always."""
        deadline, job.deadline = job.deadline, None
        assert deadline is not None
        if deadline.heartbeat is not None and now < deadline.heartbeat.limit:
            self._take_from_silent(job)
            return
        stop_run(job, TIMED_OUT)
        if self._life.retry_policy_of(job) is None:
            self._life.take_back(job)
            return
        error = b"The time limit of the run has passed"
        for client, name in self._life.fail_run(job, _TIMED_OUT, error):
            client.connection.failed(name)

    def _take_from_silent(self, job: Job) -> None:
        """The job's worker was not heard of for the time of a heartbeat: give the job to another."""
        worker = job.worker
        assert worker is not None, "only a running job has a heartbeat"
        if not stop_run(job, SILENT):
            # It may come to itself, and is no worse than one that was told.
            worker.note_cancelled(job.handle)
        self._life.take_back(job)
