"""The lease: this server's right to its stored jobs, where several servers share a store.

The lease is renewed in time. When it has expired, others take over the jobs, and this server begins anew as
one without jobs; when another server's lease has expired, this one takes over. What is written, and what
becomes of writes when the lease is lost, is the writer's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from txgearman.net.clocks import monotonic_clock
from txgearman.server.persistence.thread import InThread, log_defect
from txgearman.store.contract import Renewal, Store, StoredJob

if TYPE_CHECKING:
    from txgearman.broker.store_answers import StoreAnswers
    from txgearman.server.persistence.outage import Happened, Outage

NUMBERS_PER_START: Final = 10**13
"""Handles that one start of a server can give. Each start has its own range, so that no handle is ever
given twice; this many last for six years at fifty thousand jobs a second."""

RENEWALS: Final = 3
"""How often a lease is renewed within its duration: so two attempts may fail."""

MAX_TAKEN_OVER: Final = 1000
"""Jobs that are taken over from another server in one transaction."""

_log = Logger()


class LeaseHolder(Protocol):
    """What the lease calls: the writer. None of these may raise."""

    def renewed(self, renewal: Renewal) -> None:
        """The lease was renewed, so the store works.

        Args:
            renewal: What the store says with it.
        """

    def store_failed(self, failure: Failure) -> None:
        """The store has failed, or says that the lease has expired."""

    def lease_lost(self) -> None:
        """The lease has expired: write nothing, as others may have taken over the jobs."""

    def lease_regained(self) -> None:
        """There is a new lease, without jobs: forget what was to be written of the old ones."""

    def taken_over(self, job: StoredJob) -> None:
        """A job of a server whose lease has expired is this one's now."""


class Lease:
    """The lease on `store`, which is used through `in_thread`; but for `open`, which blocks.

    `duration` is its seconds. `is_lost` says that the lease has expired and there is no new one yet.
    `happened` is told of that, and of jobs that were taken over.
    """

    def __init__(
        self,
        store: Store,
        reactor: Any,
        in_thread: InThread,
        outage: Outage,
        holder: LeaseHolder,
        happened: Happened,
    ) -> None:
        self._store = store
        self._reactor = reactor
        self._clock = monotonic_clock(reactor)
        self._in_thread = in_thread
        self._outage = outage
        self._holder = holder
        self._happened = happened
        self._answers: StoreAnswers | None = None
        self._name = ""
        self.duration = 0.0
        self._start = 0
        self._opened_at = 0.0
        self._renewal: LoopingCall | None = None
        self._renewing = False
        self._next_attempt: IDelayedCall | None = None
        self._stopping = False
        self.is_lost = False
        self.taken_over = 0
        # How many of them are not told yet, as more of the same server follow.
        self._untold = 0

    def open(self, name: str, duration: float) -> int:
        """Open the store and get a lease. Blocks.

        Args:
            name: What other servers know this one by.
            duration: Seconds until the lease expires unless it is renewed.

        Returns:
            The last number before the first handle of this start.

        Raises:
            StoreError: The store cannot be used. The text is for the operator.
        """
        self._name, self.duration = name, duration
        self._opened_at = self._clock()
        self._start = self._store.open(name, duration)
        return self._start * NUMBERS_PER_START

    def begin(self, answers: StoreAnswers) -> None:
        """Renew the lease from now on. The broker gives out jobs only while the lease has certainly not
        expired."""
        self._answers = answers
        if self._store.shared:
            answers.extend_lease(self._opened_at + self.duration)
            self._renewal = LoopingCall(self.renew)
            self._renewal.clock = self._reactor
            self._renewal.start(self.duration / RENEWALS).addErrback(log_defect)

    def stop(self) -> None:
        """Stop renewing the lease, and taking over jobs."""
        self._stopping = True
        self._cancel_next_attempt()
        if self._renewal is not None and self._renewal.running:
            self._renewal.stop()

    def owns(self, job: StoredJob) -> bool:
        """Whether the job is this server's."""
        # A job's position is given by the server that saves it or takes it over.
        return not self._store.shared or job.position // NUMBERS_PER_START == self._start

    def renew(self) -> None:
        """Renew the lease, and take over jobs of servers whose lease has expired."""
        if not self._store.shared or self._renewing or self.is_lost or self._stopping:
            return
        self._renewing = True
        # The lease counts from the request, not from the answer: the database may have handled it at once.
        asked_at = self._clock()
        self._in_thread(self._store.renew).addCallbacks(
            self._renewed, self._not_renewed, callbackArgs=(asked_at,)
        ).addErrback(log_defect)

    def lose(self) -> None:
        """The lease has expired, and others may have taken over the jobs: begin as a new server without."""
        if self.is_lost or self._stopping:
            return
        assert self._answers is not None
        self.is_lost = True
        self._holder.lease_lost()
        _log.error(
            "The lease expired: it was not renewed for {seconds:g} seconds, and other servers may have taken "
            "over the background jobs. Check whether this process was paused and whether the database is "
            "slow; a greater --store-lease tolerates longer pauses",
            seconds=self.duration,
        )
        self._happened("lease lost", f"it was not renewed for {self.duration:g} seconds")
        self._answers.extend_lease(self._clock())
        self._open_again()

    def _renewed(self, renewal: Renewal, asked_at: float) -> None:
        assert self._answers is not None
        self._renewing = False
        if not self.is_lost and not self._stopping:
            self._answers.extend_lease(asked_at + self.duration)
            self._holder.renewed(renewal)
            if renewal.has_orphans:
                self._take_over()

    def _not_renewed(self, failure: Failure) -> None:
        self._renewing = False
        self._holder.store_failed(failure)

    def _take_over(self) -> None:
        assert self._answers is not None
        position = self._answers.reserve(MAX_TAKEN_OVER)
        self._in_thread(self._store.take_over, MAX_TAKEN_OVER, position).addCallbacks(
            self._taken_over, self._holder.store_failed
        ).addErrback(log_defect)

    def _taken_over(self, jobs: list[StoredJob]) -> None:
        if self.is_lost or self._stopping:
            return
        for job in jobs:
            self._holder.taken_over(job)
        if jobs:
            self.taken_over += len(jobs)
            _log.info("{count} jobs taken over from a server whose lease expired", count=len(jobs))
        self._untold += len(jobs)
        if len(jobs) == MAX_TAKEN_OVER:
            self._take_over()
        elif self._untold:
            self._happened("take over jobs", "of a server whose lease expired", jobs=self._untold)
            self._untold = 0

    def _open_again(self) -> None:
        self._cancel_next_attempt()
        asked_at = self._clock()
        self._in_thread(self._store.open, self._name, self.duration).addCallbacks(
            self._opened_again, self._not_opened, callbackArgs=(asked_at,)
        ).addErrback(log_defect)

    def _opened_again(self, start: int, asked_at: float) -> None:
        assert self._answers is not None
        self._holder.lease_regained()
        self.is_lost = False
        self._outage.end()
        self._start = start
        self._answers.disown(start * NUMBERS_PER_START)
        self._answers.extend_lease(asked_at + self.duration)
        _log.info("This server has a new lease and takes background jobs again")
        self._happened("new lease")

    def _not_opened(self, failure: Failure) -> None:
        self._outage.begin(failure)
        if not self._stopping:
            self._next_attempt = self._reactor.callLater(self._outage.next_backoff(), self._open_again)

    def _cancel_next_attempt(self) -> None:
        if self._next_attempt is not None and self._next_attempt.active():
            self._next_attempt.cancel()
        self._next_attempt = None
