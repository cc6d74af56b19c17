"""Which connection of a worker asks for the next job, and when all of them sleep. No I/O.

A worker has one `Turns` for all its connections. They ask one after the other, and only while there is room
for a job. A connection asks for one job, and for more at once as its server gives it one after the other: a
request that waits for the answer to the one before costs a round trip. A connection whose server has none is
left out for `ASK_AGAIN` seconds; when none is left that may have jobs, all that have none are put to sleep,
until their servers wake them. To sleep is to promise to come at once, so a worker does not do it while other
servers keep it busy.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final, Protocol

from twisted.internet.interfaces import IReactorTime

ASK_AGAIN: Final = 0.05
"""Seconds after which a server that had no job is asked again, while others have some. To ask costs a round
trip, so not ahead of every job; a job waits at most so long, and for those that run, to get its turn."""

AT_ONCE: Final = 16
"""Jobs that a connection asks for at once, at most. Four times as many small jobs get done with these as with
one; more bring little, and leave less to other workers."""


class Limit:
    """How many jobs may run; `free` is how many more."""

    __slots__ = ("free",)

    def __init__(self, most: int) -> None:
        self.free = most


class State(Enum):
    """What a connection is doing, apart from the jobs that run."""

    READY = auto()
    """Its server may have jobs, and it may ask for one more."""
    ASKING = auto()
    """It has asked for as many jobs as it may at once; their places are taken."""
    EMPTY = auto()
    """Its server had no job, and was not told that the connection sleeps."""
    ASLEEP = auto()
    """Its server will wake it."""
    BACKING_OFF = auto()
    """Too many wakeups were spurious; it will be ready after a backoff. Also a connection that left."""


READY: Final = State.READY
"""Looking up a member of an enumeration takes long in Python 3.11, and there are several for each job."""

ASKING: Final = State.ASKING
"""As `READY`."""


class Asker(Protocol):
    """A connection.

    `limits` are all limits that its jobs count for, `emptied_at` is when it became empty, `asked` the
    number of jobs it has asked for without an answer yet, and `in_a_row` how many it was given one after
    the other, counted up to `AT_ONCE`.
    """

    state: State
    limits: tuple[Limit, ...]
    emptied_at: float
    asked: int
    in_a_row: int

    def ask(self) -> None:
        """Ask for a job; all of the above is as it should be."""
        ...

    def sleep(self) -> None:
        """Tell the server to wake this connection."""
        ...


class Turns:
    """The connections of a worker. `closed` says that no more jobs are taken."""

    def __init__(self, clock: IReactorTime) -> None:
        self.closed = False
        self._clock = clock
        self._askers: list[Asker] = []  # whoever asked last is the last

    def join(self, asker: Asker) -> None:
        """A new connection, which is ready. Its first turn is up to the caller."""
        self._askers.append(asker)

    def leave(self, asker: Asker) -> None:
        """A connection has ended; what it asked for does not come."""
        self._askers.remove(asker)
        for _ in range(asker.asked):
            release(asker)
        asker.asked = 0
        asker.state = State.BACKING_OFF

    def turn(self, speaker: Asker | None = None) -> int:
        """Let connections ask for jobs whose turn it is, as many as there is room for.

        `speaker` is a connection that is about to write and will ask in the same write: returns how often it
        has to.
        """
        if self.closed:
            return 0
        askers = self._askers
        # Nearly all workers have one connection, and this is called for each of their jobs.
        if len(askers) == 1 and askers[0] is speaker:
            asks = 0
            while speaker.state is READY and has_room(speaker):
                take(speaker)
                asks += 1
            if speaker.state is State.EMPTY:
                speaker.sleep()
            return asks
        return self._go_round(speaker)

    def pass_on(self, asker: Asker) -> int:
        """A job of `asker` has ended, which is about to write: as `turn` with it as the speaker."""
        release(asker)
        return self.turn(asker)

    def _go_round(self, speaker: Asker | None) -> int:
        askers = self._askers
        asks = 0
        # Otherwise, where an answer takes longer than that, two without jobs would be asked for ever.
        again = any(asker.state is READY and has_room(asker) for asker in askers)
        while asking := [one for one in askers if self._may_have_jobs(one, again) and has_room(one)]:
            for asker in asking:
                if not has_room(asker):
                    continue
                take(asker)
                askers.remove(asker)
                askers.append(asker)
                if asker is speaker:
                    asks += 1
                else:
                    asker.ask()
        if not any(asker.asked for asker in askers):
            self._sleep()
        return asks

    def _may_have_jobs(self, asker: Asker, again: bool) -> bool:
        """Whether to ask; one that had none may be asked again if `again` is true."""
        if asker.state is State.EMPTY:
            return again and self._clock.seconds() - asker.emptied_at >= ASK_AGAIN
        return asker.state is READY

    def _sleep(self) -> None:
        """No server has a job that could run. One without room is left out: it is busy, not asleep."""
        for asker in self._askers:
            if asker.state is State.EMPTY and has_room(asker):
                asker.sleep()


def has_room(asker: Asker) -> bool:
    """Whether one more job of this connection may run."""
    for limit in asker.limits:  # noqa: SIM110 (this is called for each job, and all() is slower)
        if limit.free <= 0:
            return False
    return True


def take(asker: Asker) -> None:
    """The connection asks for a job: keep its place."""
    asker.asked += 1
    asker.state = ASKING if asker.asked >= asker.in_a_row else READY
    occupy(asker)


def given(asker: Asker) -> None:
    """The connection was given a job: it has a place, if it was asked for."""
    if not asker.asked:
        occupy(asker)
        return
    asker.asked -= 1
    asker.state = READY
    if asker.in_a_row < AT_ONCE:
        asker.in_a_row += 1


def denied(asker: Asker, now: float) -> None:
    """The connection asked for a job, and its server has none."""
    asker.asked -= 1
    asker.in_a_row = 0
    # There may be one for what it asked for behind that.
    asker.state = ASKING if asker.asked else State.EMPTY
    asker.emptied_at = now
    release(asker)


def occupy(asker: Asker) -> None:
    """One more place is taken."""
    for limit in asker.limits:
        limit.free -= 1


def release(asker: Asker) -> None:
    """A job of the connection has ended, or did not come."""
    for limit in asker.limits:
        limit.free += 1
