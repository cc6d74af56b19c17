"""Tells a web server of each job that dies: in batches, in order, again and again until it takes them.

Nothing of HTTP is here; `HTTPPoster` sends what this makes. The service alone loads both.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from txgearman.access.patterns import shown
from txgearman.broker.dead_job import DeadJob
from txgearman.broker.retries import RetryPolicy
from txgearman.server.monitoring.rate_limited_log import RateLimitedLog
from txgearman.web.api.serializers import DEAD
from txgearman.web.http.responses import to_json
from txgearman.web.interfaces import WebhookCounts

MAX_WAITING: Final = 10_000
"""Dead jobs that wait for the web server; as many are kept with a store. The oldest are dropped first."""

MAX_WAITING_BYTES: Final = 16 * 1024 * 1024
"""Bytes that these take, without the jobs' data: 2,000 of them with the longest errors."""

BATCH_DELAY: Final = 1.0
"""Seconds from a death until it is sent, when none is being sent. What dies meanwhile goes along: when a
deployment is broken very much dies at once."""

BATCH_JOBS: Final = 100
"""Dead jobs in one request: two milliseconds' work."""

BATCH_BYTES: Final = 128 * 1024
"""Bytes of dead jobs after which a request takes no more of them. As JSON these are at most six times as
many, but for the last job."""

BACKOFF: Final = RetryPolicy(backoff=1.0, factor=2.0, backoff_max=60.0, jitter=0.5)
"""The wait after a request that failed: a second, and twice as long each time, up to a minute. The jitter
keeps servers that wait for one web server from coming together."""

STOP_TIMEOUT: Final = 3.0
"""Seconds that what waits has to be taken when the service stops, as for traces: with the default of
``--drain-timeout`` less than what ``docker stop`` waits."""

LOG_INTERVAL: Final = 60.0
"""Seconds between two lines of the log about the same trouble."""

_log = Logger()


class Poster(Protocol):
    """What sends a request, once.

    Attributes:
        origin: Where to, as far as it may be shown.
    """

    origin: str

    def post(self, body: bytes) -> Deferred[None]:
        """Send a request.

        Args:
            body: JSON.

        Returns:
            Fires when it was taken, and fails otherwise, in a bounded time. It may be cancelled.
        """


class DeathWebhook:
    """A `DeathListener` of the broker's that tells a web server.

    There is one request at a time, and what it is about waits until it was taken. So the web server hears of
    deaths in order, of each at least once, and of some twice where its answer was lost.

    Args:
        reactor: Makes timers.
        poster: What sends the requests.
        server: The name of this server, for the web server.
        chance: Gives random numbers from 0 to 1.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        poster: Poster,
        server: str,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._reactor = reactor
        self._poster = poster
        self._server = server
        self._chance = chance
        # The oldest first. Those before them are in `_batch` while there is a request about them.
        self._queue: deque[DeadJob] = deque()
        self._batch: list[DeadJob] = []
        self._bytes = 0
        self._request: Deferred[None] | None = None
        self._timer: IDelayedCall | None = None
        self._stopping: Deferred[None] | None = None
        self._failed_in_a_row = 0
        self._delivered = self._failures = self._dropped = 0
        self._log_failure, self._log_dropped = (
            RateLimitedLog(
                LogLevel.warn, f"Dead-job webhook {{origin}}: {text}", reactor.seconds, LOG_INTERVAL
            )
            for text in (
                "{why}. {waiting} dead jobs wait; next try in {seconds:.0f} seconds",
                "dead jobs are dropped untold, the oldest first, as too many wait",
            )
        )

    @property
    def counts(self) -> WebhookCounts:
        """What has become of the deaths so far."""
        return WebhookCounts(self._delivered, self._failures, self._dropped, self._waiting)

    @property
    def _waiting(self) -> int:
        return len(self._queue) + len(self._batch)

    def use(self, poster: Poster) -> None:
        """Send to another place from now on, at once what waits.

        Args:
            poster: What sends the requests.
        """
        self._poster = poster
        self._failed_in_a_row = 0
        self._hasten()

    def stop(self) -> Deferred[None]:
        """Send what waits now, whatever the backoff. Deaths may come again after that.

        Returns:
            Fires when all was taken, at the latest after `STOP_TIMEOUT`; what is left is dropped then.
        """
        if not self._waiting:
            return succeed(None)
        stopping = self._stopping = Deferred()
        deadline = self._reactor.callLater(STOP_TIMEOUT, self.close)

        def stopped(_none: None) -> None:
            if deadline.active():
                deadline.cancel()

        self._failed_in_a_row = 0
        self._hasten()
        return stopping.addCallback(stopped)

    def close(self) -> None:
        """Drop what waits, and send nothing."""
        request, self._request = self._request, None
        if request is not None:
            # It may turn out to have been taken.
            request.cancel()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if left := self._waiting:
            self._dropped += left
            self._queue.clear()
            self._batch = []
            self._bytes = 0
            _log.warn(
                "Dead-job webhook {origin}: it was not told of {left} dead jobs",
                origin=self._poster.origin,
                left=left,
            )
        self._check_stopped()

    # -- the broker's DeathListener ---------------------------------------------------------------

    def died(self, dead: DeadJob) -> None:
        dead = dead._replace(data=None)
        self._queue.append(dead)
        self._bytes += _held(dead)
        self._enforce_limits()
        self._send_in(BATCH_DELAY)

    def _enforce_limits(self) -> None:
        # Those of a request that is under way go only when it has failed.
        while self._queue and (self._waiting > MAX_WAITING or self._bytes > MAX_WAITING_BYTES):
            self._bytes -= _held(self._queue.popleft())
            self._dropped += 1
            self._log_dropped.happened(origin=self._poster.origin)

    # -- sending ----------------------------------------------------------------------------------

    def _send_in(self, delay: float) -> None:
        if self._request is None and self._timer is None:
            self._timer = self._reactor.callLater(delay, self._send)

    def _hasten(self) -> None:
        """Send now what was to be sent later."""
        if self._timer is not None:
            self._timer.reset(0)

    def _send(self) -> None:
        self._timer = None
        self._batch = self._take_batch()
        body = to_json({"server": self._server, "jobs": [DEAD.serialize(dead) for dead in self._batch]})
        self._request = maybeDeferred(self._poster.post, body)
        self._request.addCallbacks(self._taken, self._failed).addErrback(_log_defect)

    def _take_batch(self) -> list[DeadJob]:
        """Take the oldest out of the queue, as many as one request may have."""
        batch: list[DeadJob] = []
        size = 0
        while self._queue and len(batch) < BATCH_JOBS and size < BATCH_BYTES:
            dead = self._queue.popleft()
            size += _held(dead)
            batch.append(dead)
        return batch

    def _taken(self, _none: None) -> None:
        self._request = None
        self._failed_in_a_row = 0
        self._delivered += len(self._batch)
        self._bytes -= sum(map(_held, self._batch))
        self._batch = []
        if self._queue:
            self._send_in(0)
        else:
            self._check_stopped()

    def _failed(self, failure: Failure) -> None:
        if self._request is None:
            # It was cancelled, by `close`.
            return
        self._request = None
        self._failures += 1
        self._failed_in_a_row += 1
        self._queue.extendleft(reversed(self._batch))
        self._batch = []
        self._enforce_limits()
        seconds = BACKOFF.delay(self._failed_in_a_row, self._chance())
        self._log_failure.happened(
            origin=self._poster.origin, why=_reason(failure), waiting=len(self._queue), seconds=seconds
        )
        self._send_in(seconds)

    def _check_stopped(self) -> None:
        stopping, self._stopping = self._stopping, None
        if stopping is not None:
            stopping.callback(None)


def _held(dead: DeadJob) -> int:
    """Bytes that a dead job takes without its data."""
    return dead.weight - dead.size


def _reason(failure: Failure) -> str:
    """Why a request failed, for the log."""
    # Twisted's HTTP client has a list of failures there, of which the last is the cause.
    reasons = getattr(failure.value, "reasons", None)
    cause = reasons[-1] if reasons else failure
    # Twisted's texts are sentences.
    return shown((cause.getErrorMessage().rstrip(".") or type(cause.value).__name__).encode())


def _log_defect(failure: Failure) -> None:
    _log.failure("The dead-job webhook has failed; this is a defect", failure)
