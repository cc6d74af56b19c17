"""Waiting for results: who is told when a job has ended that may be with another server.

Jobs of this server tell of their end themselves, if their function keeps results. All others are looked at
from time to time: those of other servers on the same database, those that were not in memory when they were
cancelled, and those of functions that keep nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txgearman.broker.result_lookup import NO_RESULT, FoundResult, ResultLookup, ResultState
from txgearman.errors import Refused, TooManyWaits

if TYPE_CHECKING:
    from txgearman.broker.broker import Broker
    from txgearman.broker.kept_result import ResultCounts

    Tell = Callable[[FoundResult], None]

POLL_INTERVAL: Final = 1.0
"""Seconds between two rounds of looking at jobs that do not tell of their end."""

POLLS_AT_ONCE: Final = 100
"""Jobs that are looked at in one round, those first that were not for longest. So the store is asked for a
hundred jobs a second at most, however many wait."""

MAX_WAITS_OF_ONE: Final = 1000
"""Waits of one connection, so that no client takes all of them."""

MAX_WAITS: Final = 10_000
"""Waits of all clients together, those over HTTP included. With all of them a job of another server is looked
at every hundred seconds."""


class ResultWait:
    """One wait for a result, which ends with the call of `tell` or by `cancel`."""

    __slots__ = ("_waits", "handle", "owner", "tell")

    def __init__(self, waits: ResultWaits, handle: bytes, tell: Tell, owner: int | None) -> None:
        self._waits = waits
        self.handle = handle
        self.owner = owner
        self.tell: Tell | None = tell

    def cancel(self) -> None:
        """Wait no more. Nothing happens if the wait has ended."""
        if self.tell is not None:
            self.tell = None
            self._waits.remove(self)


class ResultWaits:
    """The look-ups of results of one server, and the waits for them.

    Args:
        reactor: What makes timers.
        broker: Returns the broker, which is replaced when the server starts or stops.
    """

    def __init__(self, reactor: IReactorTime, broker: Callable[[], Broker]) -> None:
        self._reactor = reactor
        self._broker = broker
        # By handle, that which was not looked at for longest first. All waits may be for one handle: each is
        # found at once.
        self._waits: dict[bytes, dict[ResultWait, None]] = {}
        self._count = 0
        # By the number of the connection that waits.
        self._by_owner: dict[int, set[ResultWait]] = {}
        self._poll_call: IDelayedCall | None = None

    def __len__(self) -> int:
        return self._count

    def find(self, handle: bytes, tell: Callable[[FoundResult | Refused], None]) -> None:
        """Find the result of a job, as it is now.

        Args:
            handle: The job's handle.
            tell: Called with what is known of it, or with what prevents the look-up.
        """
        ResultLookup(self._broker()).find(handle, tell)

    def wait(self, handle: bytes, tell: Tell, owner: int | None = None) -> ResultWait:
        """Wait for the result of a job that is pending.

        Args:
            handle: The job's handle.
            tell: Called when it is not pending any more, never from inside this call.
            owner: The number of the connection that waits, for `leave` and `deny`.

        Returns:
            The wait.

        Raises:
            TooManyWaits: There are `MAX_WAITS`, or `MAX_WAITS_OF_ONE` of this connection.
        """
        if self._count >= MAX_WAITS:
            raise TooManyWaits(MAX_WAITS)
        wait = ResultWait(self, handle, tell, owner)
        if owner is not None:
            owned = self._by_owner.setdefault(owner, set())
            if len(owned) >= MAX_WAITS_OF_ONE:
                raise TooManyWaits(MAX_WAITS_OF_ONE)
            owned.add(wait)
        self._waits.setdefault(handle, {})[wait] = None
        self._count += 1
        if self._poll_call is None:
            self._poll_call = self._reactor.callLater(POLL_INTERVAL, self._poll)
        return wait

    def remove(self, wait: ResultWait) -> None:
        """Forget a wait that was cancelled."""
        if wait.owner is not None:
            owned = self._by_owner[wait.owner]
            owned.remove(wait)
            if not owned:
                del self._by_owner[wait.owner]
        waits = self._waits[wait.handle]
        del waits[wait]
        self._count -= 1
        if not waits:
            del self._waits[wait.handle]
            if not self._waits and self._poll_call is not None:
                self._poll_call.cancel()
                self._poll_call = None

    def leave(self, owner: int) -> None:
        """A connection is gone.

        Args:
            owner: Its number.
        """
        for wait in list(self._by_owner.get(owner, ())):
            wait.cancel()

    def deny(self, owner: int) -> None:
        """A connection may not see results any more: to it they are unknown.

        Args:
            owner: Its number.
        """
        for wait in list(self._by_owner.get(owner, ())):
            tell = wait.tell
            wait.cancel()
            if tell is not None:
                tell(NO_RESULT)

    def job_ended(self, handle: bytes) -> None:
        """A job has just ended.

        Args:
            handle: The job's handle.
        """
        if handle in self._waits:
            # Not from here: the broker is in the middle of something.
            self._reactor.callLater(0, self._look, handle)

    def _poll(self) -> None:
        self._poll_call = None
        for handle in list(self._waits)[:POLLS_AT_ONCE]:
            waits = self._waits.pop(handle, None)
            if waits is not None:
                self._waits[handle] = waits
                self._look(handle)
        if self._waits:
            self._poll_call = self._reactor.callLater(POLL_INTERVAL, self._poll)

    def _look(self, handle: bytes) -> None:
        def found(result: FoundResult | Refused) -> None:
            # Where the store does not answer now it may in the next round.
            if isinstance(result, Refused) or result.state is ResultState.PENDING:
                return
            for wait in list(self._waits.get(handle, ())):
                tell = wait.tell
                wait.cancel()
                if tell is not None:
                    tell(result)

        if handle in self._waits:
            self.find(handle, found)

    # -- what an operator may know ------------------------------------------------------------------

    def counts(self) -> ResultCounts:
        """Count the results that are kept. With several servers on a database this may be a minute old.

        Returns:
            How many there are, and how many bytes they count for.
        """
        return self._broker().ended_jobs.result_store.counts()

    @property
    def expired(self) -> int:
        """How many results this server has forgotten as their time was over."""
        return self._broker().ended_jobs.result_store.expired

    @property
    def evicted(self) -> int:
        """How many results this server has forgotten before that, as all together were too large."""
        return self._broker().ended_jobs.result_store.evicted

    @property
    def too_large(self) -> int:
        """How many results this server could not keep as a whole."""
        return self._broker().ended_jobs.results.too_large
