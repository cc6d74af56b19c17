"""What becomes of a submitted request: how the news of it change it.

News come in the background thread and wait in an inbox; requests change only when they are taken out, in the
thread of whoever waits. What is waited for, and which server is asked, is decided elsewhere.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from txgearman.blocking.background_thread import BackgroundThread
from txgearman.blocking.connection import GearmanConnection
from txgearman.blocking.constants import (
    JOB_COMPLETE,
    JOB_CREATED,
    JOB_FAILED,
    JOB_PENDING,
    JOB_UNKNOWN,
)
from txgearman.blocking.data_encoder import text_of
from txgearman.blocking.inbox import KEPT_BYTES, Inbox
from txgearman.blocking.job import GearmanJobRequest
from txgearman.blocking.name import Name
from txgearman.errors import UpdatesLost

_log = logging.getLogger(__name__)

Key = tuple[GearmanConnection, str]
"""A job: the connection to its server, and its handle there."""


class Ledger:
    """What the requests of one client have in common: the jobs that run, and errors not raised yet.

    `running` counts the requests that wait for each job. `followers` are requests that asked for the status
    of one that another request has submitted. Changed while events of the inbox are applied.
    """

    def __init__(self) -> None:
        self.running: dict[Key, int] = {}
        self.followers: dict[Key, GearmanJobRequest] = {}
        self._failed: weakref.WeakSet[GearmanJobRequest] = weakref.WeakSet()

    def begin(self, key: Key) -> None:
        """One request more waits for a job."""
        self.running[key] = self.running.get(key, 0) + 1

    def end(self, key: Key) -> None:
        """One request less waits for a job; behind the last nobody follows it."""
        self.running[key] -= 1
        if not self.running[key]:
            del self.running[key]
            self.followers.pop(key, None)

    def follow(self, key: Key, request: GearmanJobRequest) -> None:
        """A request asks for the status of a job: of several the newest gets the updates too."""
        if request._submission is not None:
            self.followers.pop(key, None)
        elif self.running.get(key):
            self.followers[key] = request

    def set_error(self, request: GearmanJobRequest, error: Exception) -> None:
        """Let the next wait for a request raise an error."""
        request._error = error
        self._failed.add(request)

    def raise_errors(self, requests: Iterable[GearmanJobRequest] | None = None) -> None:
        """Raise the first error that came up for one of `requests`, or for any, once."""
        for failed in list(self._failed):
            if requests is None or failed in requests:
                self._failed.discard(failed)
                error, failed._error = failed._error, None
                if error is not None:
                    raise error


class Submission:
    """One request as it was submitted once: the `Listener` to its news.

    The listener's methods are called in the background thread and only put those with an underscore, which
    change requests, into the inbox. `decode` makes values of what workers send; `on_refused` is called with
    the code and the text of a refusal. `thread` is the background thread.
    """

    def __init__(
        self,
        request: GearmanJobRequest,
        connection: GearmanConnection,
        thread: BackgroundThread,
        inbox: Inbox,
        ledger: Ledger,
        decode: Callable[[bytes], Any],
        on_refused: Callable[[str, str], object],
    ) -> None:
        self.thread = thread
        self._inbox = inbox
        self._ledger = ledger
        self._decode_data = decode
        self._on_refused = on_refused
        self._request = request
        self._connection = connection
        self._key: Key | None = None

    def accepted(self, handle: bytes) -> None:
        self._inbox.post(partial(self._accepted, Name.of(handle)))

    def refused(self, code: str, text: str) -> None:
        self._inbox.post(partial(self._refused, code, text))

    def lost(self, why: str, sent: bool) -> None:
        self._inbox.post(partial(self._lost, why, sent))

    def closed(self) -> None:
        self._inbox.post(self._closed)

    def data(self, data: bytes) -> None:
        self._offer(partial(self._data, data), len(data))

    def warning(self, data: bytes) -> None:
        self._offer(partial(self._warning, data), len(data))

    def status(self, numerator: int, denominator: int) -> None:
        self._offer(partial(self._status, numerator, denominator), 0)

    def completed(self, result: bytes) -> None:
        self._inbox.post(partial(self._completed, result))

    def failed(self, exception: bytes | None) -> None:
        self._inbox.post(partial(self._failed, exception))

    def _offer(self, event: Callable[[], object], size: int) -> None:
        if not self._inbox.offer(event, size):
            self._inbox.post(self._spilled)

    # -- in the thread of whoever waits ---------------------------------------------------------

    def thread_ended(self) -> None:
        """The background thread has ended, or is the parent's: no news will come."""
        if self._request._submission is self and self._request.state in (JOB_PENDING, JOB_CREATED):
            if self._request.background and self._request.state == JOB_CREATED:
                return
            self._lost("its background thread has ended", sent=True)

    def _targets(self) -> list[GearmanJobRequest]:
        """The requests that this news are for: the own, and one that asked for the job's status."""
        own = [self._request] if self._request._submission is self else []
        follower = None if self._key is None else self._ledger.followers.get(self._key)
        return own if follower is None else [*own, follower]

    def _accepted(self, handle: str) -> None:
        self._connection.connected = True
        if not self._request.background:
            self._key = (self._connection, handle)
            self._ledger.begin(self._key)
        if self._request._submission is self:
            self._request.job.handle = handle
            self._request.state = JOB_CREATED

    def _refused(self, code: str, text: str) -> None:
        for request in self._targets():
            request.state = JOB_FAILED
            request.exception = f"{code}: {text}"
        self._on_refused(code, text)

    def _lost(self, why: str, sent: bool) -> None:
        self._connection.connected = False
        if not sent and self._request._submission is self:
            # It was taken for connected, and was not: that was no attempt.
            self._request.connection_attempts -= 1
        _log.warning("Lost %r: %s", self._request, why)
        for request in self._targets():
            request.state = JOB_UNKNOWN
        self._end()

    def _closed(self) -> None:
        # What the program has closed itself tells it nothing new of the job.
        for request in self._targets():
            request._closed = True
        self._end()

    def _data(self, data: bytes) -> None:
        for request in self._targets():
            self._decode(request, data, request.data_updates.append)

    def _warning(self, data: bytes) -> None:
        for request in self._targets():
            self._decode(request, data, request.warning_updates.append)

    def _status(self, numerator: int, denominator: int) -> None:
        assert self._key is not None
        for request in self._targets():
            request.status = status_of(self._key[1], True, True, numerator, denominator)

    def _completed(self, result: bytes) -> None:
        for request in self._targets():
            request.state = JOB_COMPLETE
            self._decode(request, result, partial(setattr, request, "result"))
        self._end()

    def _failed(self, exception: bytes | None) -> None:
        for request in self._targets():
            request.state = JOB_FAILED
            if exception is not None:
                request.exception = self._exception(exception)
        self._end()

    def _spilled(self) -> None:
        for request in self._targets():
            self._ledger.set_error(
                request, UpdatesLost(f"more than {KEPT_BYTES} bytes of updates waited to be taken")
            )

    def _end(self) -> None:
        if self._key is not None:
            self._ledger.end(self._key)
            self._key = None

    def _decode(self, request: GearmanJobRequest, data: bytes, take: Callable[[Any], object]) -> None:
        try:
            take(self._decode_data(data))
        except Exception as error:
            request.state = JOB_FAILED
            self._ledger.set_error(request, error)

    def _exception(self, exception: bytes) -> Any:
        """What a worker sent of an exception; a worker in another language may not use the encoder."""
        try:
            return self._decode_data(exception)
        except Exception:
            return text_of(exception)


def status_of(handle: str, known: bool, running: bool, numerator: int, denominator: int) -> dict[str, Any]:
    """What a request's `status` is, told now."""
    return {
        "handle": handle,
        "known": known,
        "running": running,
        "numerator": numerator,
        "denominator": denominator,
        "time_received": time.time(),
    }
