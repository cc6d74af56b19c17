"""The blows of a run, as its judge asks for them: what took jobs from a server, what kept it from writing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tests.chaos.history import ENDS, OUTAGES, Blow, History, Kind

REMOVAL_WINDOW: Final = 2.0
"""Seconds between a report that the server has handled and its death, within which the job may run again:
the server gathers removals for a twentieth of a second, and then a commit takes what it takes on a busy
machine."""

RECOVERY: Final = 10.0
"""Seconds that a server may take to find that its store is back: it looks every five seconds at least."""


class Blows:
    """The blows of a run."""

    def __init__(self, history: History) -> None:
        self._history = history

    def fatal(self, server: int, since: float, until: float) -> Iterator[Blow]:
        """What took a server's jobs from it between two times: its death, or the end of its lease."""
        for blow in self._history.blows:
            if (
                blow.concerns(server)
                and blow.begin <= until
                and blow.over >= since
                and self._is_fatal(blow, server)
            ):
                yield blow

    def is_explained(self, loss: Blow) -> bool:
        """Whether a lease was lost because of a blow, and not because the machine was too busy."""
        return any(
            blow.kind is not Kind.LEASE
            for blow in self.fatal(loss.server or 0, loss.begin - self._history.lease, loss.over)
        )

    def _is_fatal(self, blow: Blow, server: int) -> bool:
        if blow.kind in (Kind.KILL, Kind.POWER, Kind.LEASE):
            return True
        if blow.kind is Kind.STOP:
            # What it could not write when it was told to end it cannot write later.
            return any(
                outage.kind in OUTAGES
                and outage.concerns(blow.server or 0)
                and outage.begin <= blow.begin <= outage.over
                for outage in self._history.blows
            )
        lease = self._history.lease
        # A lease is renewed a few times within its length: half of it may be left when the silence begins.
        return bool(lease) and self._silence(blow, server) >= lease / 2

    def _silence(self, blow: Blow, server: int) -> float:
        """How long a server did not reach its database around a blow: so many may follow each other that it
        cannot renew its lease in between."""
        silences = [each for each in self._history.blows if each.concerns(server) and _is_silent(each)]
        if blow not in silences:
            return 0.0
        begin, end = blow.begin, blow.over
        for each in sorted(silences, key=lambda each: each.begin):
            if each.begin <= end + self._history.lease / 2:
                end = max(end, each.over)
        for each in sorted(silences, key=lambda each: -each.over):
            if each.over >= begin - self._history.lease / 2:
                begin = min(begin, each.begin)
        return end - begin

    def outages(self, server: int, when: float) -> Iterator[Blow]:
        """What kept a server from writing at that time, or shortly before."""
        for blow in self._history.blows:
            if blow.kind in OUTAGES and blow.concerns(server) and blow.begin <= when <= blow.over + RECOVERY:
                yield blow

    def waited(self, server: int, done: float, blow: Blow) -> bool:
        """Whether what a server knew at `done` waited to be written until a blow: because of an outage, or as
        its transactions take long. The second is so where a submit that was sent before has no answer yet:
        what comes later is never written in an earlier transaction."""
        return any(done <= outage.over + RECOVERY for outage in self.outages(server, blow.begin)) or any(
            submission.server == server
            and submission.sent <= done
            and (submission.answered is None or submission.answered > blow.begin)
            and not self._fell_between(server, submission.sent, blow)
            for submission in self._history.submissions.values()
        )

    def _fell_between(self, server: int, since: float, blow: Blow) -> bool:
        """Whether a server ended between a time and a blow: then nobody waits for an answer any more."""
        return any(
            other.kind in ENDS and other.concerns(server) and since <= other.over and other.begin < blow.begin
            for other in self._history.blows
        )

    def unwritten(self, server: int, done: float, since: float, until: float) -> bool:
        """Whether a server may have fallen in a time before the commit of what it knew at `done`."""
        return any(
            blow.begin - done <= REMOVAL_WINDOW or self.waited(server, done, blow)
            for blow in self.fatal(server, since, until)
        )


def _is_silent(blow: Blow) -> bool:
    """Whether a server that was struck so says nothing to its database, and goes on afterwards."""
    return blow.kind is Kind.PAUSE or blow.kind in OUTAGES
