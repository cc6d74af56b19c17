"""Submitted requests: the events of their jobs, and how each changes its request.

The background thread puts the events into the queue. A thread that waits takes them out and processes them;
requests change only then. What it waits for, and which server gets a job, is decided in `client`.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, Protocol

from txgearman.blocking.background_thread import BackgroundThread
from txgearman.blocking.connection import GearmanConnection, NewJob, SubmissionListener
from txgearman.blocking.constants import (
    JOB_COMPLETE,
    JOB_CREATED,
    JOB_FAILED,
    JOB_PENDING,
    JOB_UNKNOWN,
)
from txgearman.blocking.data_encoder import text_of
from txgearman.blocking.deadline import Deadline
from txgearman.blocking.event_queue import MAX_QUEUED_BYTES, EventQueue
from txgearman.blocking.job import GearmanJobRequest
from txgearman.blocking.name import Name
from txgearman.blocking.reactor_loan import LOAN_SECONDS
from txgearman.client.submission import Priority, priority_from
from txgearman.errors import ShuttingDown, UpdatesLost

_log = logging.getLogger(__name__)

AnyPriority = Priority | str | None
"""A priority: one of the PRIORITY constants, or of `txgearman.client.Priority`, or its text."""

SHUTTING_DOWN: Final = ShuttingDown.code.decode()
"""The code of the refusal by a server that is about to end."""

# The attribute of an enumeration takes longer to look up.
_NORMAL: Final = Priority.NORMAL

OUTBOX_JOBS: Final = 100
"""Jobs that are sent together at most. The server begins with them while packets are made of others."""

JobKey = tuple[GearmanConnection, str]
"""Identifies a job: the connection to its server, and its handle there."""


class PendingRequests:
    """The requests of one client whose jobs have not ended, and errors to be raised.

    Jobs and subscribers are changed only while the queue's `processing_lock` is held.

    Attributes:
        waiting: The submissions that wait for each job.
        subscribers: The requests that get the updates of a job that another request has submitted.
    """

    def __init__(self) -> None:
        self.waiting: dict[JobKey, set[Submission]] = {}
        self.subscribers: dict[JobKey, GearmanJobRequest] = {}
        self._with_errors: weakref.WeakSet[GearmanJobRequest] = weakref.WeakSet()
        # False says that there are none, faster than the set does.
        self._has_errors = False

    def add(self, key: JobKey, submission: Submission) -> None:
        """A submission waits for a job."""
        self.waiting.setdefault(key, set()).add(submission)

    def remove(self, key: JobKey, submission: Submission) -> None:
        """A submission waits for its job no longer. With the last one the job's subscriber is dropped too."""
        waiting = self.waiting.get(key, set())
        waiting.discard(submission)
        if not waiting:
            self.subscribers.pop(key, None)
            self.waiting.pop(key, None)

    def subscribe(self, key: JobKey, request: GearmanJobRequest) -> None:
        """A request asks for the status of a job. The newest that does gets the job's updates too."""
        if request._submission is not None:
            self.subscribers.pop(key, None)
        elif self.waiting.get(key):
            self.subscribers[key] = request

    def set_error(self, request: GearmanJobRequest, error: Exception) -> None:
        """Let the next wait for a request raise `error`."""
        request._error = error
        self._with_errors.add(request)
        self._has_errors = True

    def raise_errors(self, requests: Iterable[GearmanJobRequest] | None = None) -> None:
        """Raise one error of `requests`, or of any request, and forget it."""
        if not self._has_errors:
            return
        self._has_errors = False
        for request in list(self._with_errors):
            if requests is None or request in requests:
                self._with_errors.discard(request)
                error, request._error = request._error, None
                if error is not None:
                    self._has_errors = True
                    raise error
            else:
                self._has_errors = True


class Submitter(Protocol):
    """What a submission needs of its client.

    Attributes:
        connection_list: The servers. A job goes to another one if a server refuses it because it is shutting
            down.
        _event_queue: The client's queue.
        _pending: The client's pending requests.
    """

    connection_list: list[GearmanConnection]
    _event_queue: EventQueue
    _pending: PendingRequests

    def decode_data(self, data: bytes) -> Any:
        """Make a value of what a worker has sent."""

    def on_gearman_error(self, error_code: str, error_text: str) -> object:
        """The server has refused the job."""


class Submission(SubmissionListener):
    """One attempt to submit a request.

    The public methods run in the background thread, and only put the private ones into the queue. Those
    change the request. They are idempotent, as one that was interrupted by a signal's handler is called once
    more; only data and warnings may be added twice then.

    Args:
        request: The request.
        connection: The connection to its server.
        thread: The background thread.
        submitter: The client.
    """

    _key: JobKey | None = None
    _ended = False
    _refusal = ("", "")
    _refusal_reported = False
    _uncounted = False

    def __init__(
        self,
        request: GearmanJobRequest,
        connection: GearmanConnection,
        thread: BackgroundThread,
        submitter: Submitter,
    ) -> None:
        self.thread = thread
        self._submitter = submitter
        self._request = request
        self._connection = connection

    def accepted(self, handle: bytes) -> None:
        loan, name = self.thread.loan, Name.of(handle)
        # A borrower waits for this itself. It runs no code of the program before it gives the loan back.
        if not (loan.taken and self._submitter._event_queue.process_now(self._accepted, name)):
            loan.offer_soon()
            self._submitter._event_queue.put(partial(self._accepted, name))

    def refused(self, code: str, text: str) -> None:
        self._submitter._event_queue.put(partial(self._refused, code, text))

    def lost(self, why: str, sent: bool) -> None:
        self._submitter._event_queue.put(partial(self._lost, why, sent))

    def closed(self) -> None:
        self._submitter._event_queue.put(self._closed)

    def data(self, data: bytes) -> None:
        self._offer(partial(self._data, data), len(data))

    def warning(self, data: bytes) -> None:
        self._offer(partial(self._warning, data), len(data))

    def status(self, numerator: int, denominator: int) -> None:
        self._offer(partial(self._status, numerator, denominator), 0)

    def completed(self, result: bytes) -> None:
        self.thread.loan.offer_soon()
        self._submitter._event_queue.put(partial(self._completed, result))

    def failed(self, exception: bytes | None) -> None:
        self.thread.loan.offer_soon()
        self._submitter._event_queue.put(partial(self._failed, exception))

    def _offer(self, event: Callable[[], object], size: int) -> None:
        if not self._submitter._event_queue.offer(event, size):
            self._submitter._event_queue.put(self._overflowed)

    # -- in the thread that waits ---------------------------------------------------------------

    def thread_ended(self) -> None:
        """The background thread has ended, or is the parent process's: no event will come."""
        if self._request._submission is self and self._request.state in (JOB_PENDING, JOB_CREATED):
            if self._request.background and self._request.state == JOB_CREATED:
                return
            self._lost("its background thread has ended", sent=True)

    def _targets(self) -> list[GearmanJobRequest]:
        """The requests that an event changes: this one, and the job's subscriber."""
        own = [self._request] if self._request._submission is self else []
        subscriber = None if self._key is None else self._submitter._pending.subscribers.get(self._key)
        return own if subscriber is None else [*own, subscriber]

    def _accepted(self, handle: str) -> None:
        # First, and without a call in between: a signal's handler that uses the client may process the end of
        # the job in the middle of this.
        request = self._request
        if request._submission is self and request.state == JOB_PENDING:
            request.state = JOB_CREATED
            request.gearman_job.handle = handle
        self._connection.connected = True
        if not self._request.background and not self._ended:
            self._key = (self._connection, handle)
            self._submitter._pending.add(self._key, self)

    def _refused(self, code: str, text: str) -> None:
        self._refusal = code, text
        if code == SHUTTING_DOWN and self._request._submission is self:
            declined_by = {*self._request._declined_by, self._connection}
            self._request._declined_by = declined_by
            if not declined_by.issuperset(self._submitter.connection_list):
                self._uncount_attempt()
                self._request.state = JOB_UNKNOWN
                return
        self.give_up()

    def _uncount_attempt(self) -> None:
        """The job did not come to a server that would have run it: that does not count as an attempt."""
        if not self._uncounted:
            self._uncounted = True
            self._request.connection_attempts -= 1

    def give_up(self) -> None:
        """The refusal is the outcome: no other server can be asked."""
        code, text = self._refusal
        for request in self._targets():
            request.state = JOB_FAILED
            request.exception = f"{code}: {text}"
        if not self._refusal_reported:
            self._refusal_reported = True
            self._submitter.on_gearman_error(code, text)

    def _lost(self, why: str, sent: bool) -> None:
        self._connection.connected = False
        if not sent and self._request._submission is self:
            # The connection was lost before, unnoticed.
            self._uncount_attempt()
        _log.warning("Lost %r: %s", self._request, why)
        for request in self._targets():
            request.state = JOB_UNKNOWN
        self._end()

    def _closed(self) -> None:
        # The program closed the connection, so the state of the job is not changed to lost.
        for request in self._targets():
            request._connection_closed = True
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

    def _overflowed(self) -> None:
        for request in self._targets():
            self._submitter._pending.set_error(
                request, UpdatesLost(f"more than {MAX_QUEUED_BYTES} bytes of updates waited to be taken")
            )

    def _end(self) -> None:
        self._ended = True
        if self._key is not None:
            self._submitter._pending.remove(self._key, self)
            self._key = None

    def _decode(self, request: GearmanJobRequest, data: bytes, take: Callable[[Any], object]) -> None:
        try:
            take(self._submitter.decode_data(data))
        except Exception as error:
            request.state = JOB_FAILED
            self._submitter._pending.set_error(request, error)

    def _exception(self, exception: bytes) -> Any:
        """The exception that a worker sent: decoded, or as text, as the worker may not use the encoder."""
        try:
            return self._submitter.decode_data(exception)
        except Exception:
            return text_of(exception)


class Outbox:
    """Jobs that one call submits to the same server, sent in one write.

    In a ``with`` block jobs wait for its end, and for no more than `OUTBOX_JOBS`. The block also reads the
    answer, if this thread is alone and can do so. Outside of one each job is sent at once.
    """

    def __init__(self) -> None:
        self._deadlines: list[Deadline] = []
        self._connection: GearmanConnection | None = None
        self._jobs: list[NewJob] = []

    def waiting_for_answers(self, deadline: Deadline) -> Outbox:
        """For a ``with`` block of a call that waits for answers, until the deadline."""
        self._deadlines.append(deadline)
        return self

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_error: object) -> None:
        self._flush(self._deadlines.pop().within(LOAN_SECONDS))

    def send(self, connection: GearmanConnection, job: NewJob) -> None:
        """Send a job.

        Args:
            connection: The connection to its server.
            job: The job.
        """
        if connection is not self._connection:
            self._flush()
            self._connection = connection
        self._jobs.append(job)
        if not self._deadlines or len(self._jobs) >= OUTBOX_JOBS:
            self._flush()

    def _flush(self, seconds: float = 0.0) -> None:
        jobs, self._jobs = self._jobs, []
        if jobs and self._connection is not None:
            self._connection.submit(jobs, seconds)


def status_of(handle: str, known: bool, running: bool, numerator: int, denominator: int) -> dict[str, Any]:
    """The `status` of a request, received now."""
    return {
        "handle": handle,
        "known": known,
        "running": running,
        "numerator": numerator,
        "denominator": denominator,
        "time_received": time.time(),
    }


def priority_of(priority: AnyPriority) -> Priority:
    """The priority that a caller means. `TypeError` and `ValueError` are raised as by `priority_from`."""
    return _NORMAL if priority is None else priority_from(priority)
