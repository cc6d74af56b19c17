"""Requests as clients of the broker: what becomes of a job, as one response or as events.

Which paths there are is in `routes`.
"""

from __future__ import annotations

import json
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from txgearman.broker.entities import Client
from txgearman.broker.numbers import leading_number
from txgearman.errors import (
    ArgumentTooLarge,
    InvalidArgument,
    JobNotFound,
    QueueFull,
    RateExceeded,
    Refused,
    ScheduleConflict,
    ScheduleNotFound,
    ScheduleOfFile,
    SchedulesUnsaved,
    TooManySchedules,
    UniqueKept,
)
from txgearman.web.http.body import PIECE, budget_of, queue_of, send_queue
from txgearman.web.http.encoding import identifier, text
from txgearman.web.http.request import LimitedRequest
from txgearman.web.http.responses import HTTPProblem, Response
from txgearman.web.http.stream import EventStream
from txgearman.web.interfaces import Jobs

OCTETS: Final = b"application/octet-stream"

_STATUSES: Final[tuple[tuple[type[Refused], int], ...]] = (
    (JobNotFound, 404),
    (ArgumentTooLarge, 400),
    (InvalidArgument, 400),
    (UniqueKept, 409),
    (QueueFull, 429),
    (RateExceeded, 429),
    (ScheduleNotFound, 404),
    (ScheduleConflict, 409),
    (ScheduleOfFile, 409),
    (SchedulesUnsaved, 409),
    (TooManySchedules, 429),
)
"""HTTP's status for a refusal of the broker; 503 for any other."""


def refusal(error: Refused) -> HTTPProblem:
    """The HTTP problem that tells of a refusal of the broker."""
    status = next((status for kind, status in _STATUSES if isinstance(error, kind)), 503)
    return HTTPProblem(status, error.code.decode("ascii").lower().replace("_", "-"), error.text + ".")


class HTTPClientConnection:
    """The broker's `ClientConnection` for one request.

    What the broker tells is queued, and delivered when it has made its decision: a complete response lets in
    the next request of its connection, which may be a submit. That is when the submit has returned, and
    after it in the reactor's next turn.

    Args:
        broker: The broker to leave.
        request: The request, whose response is sent.
        reactor: The clock.
    """

    def __init__(self, broker: Jobs, request: LimitedRequest, reactor: IReactorTime) -> None:
        self.client = Client(self)
        self._broker = broker
        self._request = request
        self._reactor = reactor
        self._news: list[tuple[str, Any]] = []
        self._is_submitting = True
        self._call: IDelayedCall | None = None
        self._limit: IDelayedCall | None = None
        self._over = False

    def submitted(self) -> None:
        """The broker's `submit` has returned: deliver what it has told."""
        self._is_submitting = False
        if self._news:
            self._deliver()

    def time_out_after(self, seconds: float) -> None:
        """Answer that it took too long, and leave the job, unless it has ended within these `seconds`."""
        if not self._over:
            self._limit = self._reactor.callLater(seconds, self._took_too_long)

    def leave(self) -> None:
        """Tell the broker that this client has gone: its peer has, or needs to hear no more."""
        if not self._over:
            self._over = True
            for call in (self._call, self._limit):
                if call is not None and call.active():
                    call.cancel()
            self._news.clear()
            self._broker.leave_client(self.client)
            # They refer to this connection, and it to them.
            self._call = self._limit = None
            del self.client

    def _enqueue(self, what: str, value: Any) -> None:
        if self._over:
            return
        self._news.append((what, value))
        if self._call is None and not self._is_submitting:
            self._call = self._reactor.callLater(0, self._deliver)

    def _deliver(self) -> None:
        self._call = None
        news, self._news = self._news, []
        for what, value in news:
            if not self._over:
                getattr(self, f"_on_{what}")(value)

    def _took_too_long(self) -> None:
        self._respond(HTTPProblem(504, "timed-out", "The job did not end within the time given.").response())

    def _respond(self, response: Response) -> None:
        """Send a whole response, and leave."""
        self.leave()
        self._request.respond(response)

    # -- the broker's calls (ClientConnection) ----------------------------------------------------------

    def created(self, handle: bytes) -> None:
        self._enqueue("created", handle)

    def created_later(self) -> object:
        return self

    def resolve_created(self, reply: Any, handle: bytes) -> None:
        self._enqueue("created", handle)

    def resolve_refused(self, reply: Any, refusal: Refused) -> None:
        self._enqueue("refused", refusal)

    def data(self, handle: bytes, data: bytes) -> None:
        self._enqueue("data", data)

    def warning(self, handle: bytes, data: bytes) -> None:
        self._enqueue("warning", data)

    def status(self, handle: bytes, numerator: bytes, denominator: bytes) -> None:
        self._enqueue("status", (leading_number(numerator), leading_number(denominator)))

    def completed(self, handle: bytes, data: bytes) -> None:
        self._enqueue("completed", data)

    def failed(self, handle: bytes) -> None:
        self._enqueue("failed", None)

    def retrying(self, handle: bytes, attempts: int, delay: float) -> None:
        self._enqueue("retrying", (attempts, delay))

    def exception(self, handle: bytes, data: bytes) -> None:
        self._enqueue("exception", data)


class WholeResponse(HTTPClientConnection):
    """A request with one response: the job's handle, or its result.

    Parts of the result that the worker sent before its end come first in the body. They are not joined, so
    that a part that many clients wait for is in memory once.

    Args:
        broker: The broker to leave.
        request: The request, whose response is sent.
        reactor: The clock.
        background: Whether the handle is the response.
        max_data: Bytes that the result may have.
    """

    def __init__(
        self, broker: Jobs, request: LimitedRequest, reactor: IReactorTime, background: bool, max_data: int
    ) -> None:
        super().__init__(broker, request, reactor)
        self._background = background
        self._max_data = max_data
        self._handle = b""
        self._result = queue_of(request)

    def submitted(self) -> None:
        super().submitted()
        # Most background jobs are answered by now.
        if not self._over:
            self._request.notifyFinish().addErrback(self._gone)

    def _respond(self, response: Response) -> None:
        if self._result:
            self._result.clear()
        super()._respond(response)

    def _gone(self, _reason: Failure) -> None:
        self._result.clear()
        self.leave()

    def _headers(self, command: bytes) -> tuple[tuple[bytes, bytes], ...]:
        return ((b"X-Gearman-Job-Handle", self._handle), (b"X-Gearman-Command", command))

    def _on_created(self, handle: bytes) -> None:
        self._handle = handle
        if self._background:
            headers = (*self._headers(b"JOB_CREATED"), (b"Location", b"/api/v1/jobs/" + _in_path(handle)))
            self._respond(Response(handle_document(handle), status=202, headers=headers))

    def _on_refused(self, error: Refused) -> None:
        self._respond(refusal(error).response())

    def _on_data(self, data: bytes) -> None:
        self._result.append(data)
        budget_of(self._request).enforce()
        if self._result.size > self._max_data:
            self._respond(
                HTTPProblem(
                    502, "result-too-large", f"The result has more than {self._max_data} bytes."
                ).response()
            )

    def _on_warning(self, data: bytes) -> None:
        """A whole response has no place for warnings."""

    def _on_status(self, _numbers: tuple[int, int]) -> None:
        """A whole response has no place for progress."""

    def _on_retrying(self, _numbers: tuple[int, float]) -> None:
        """A whole response waits for the end. What a failed run sent of its result is not part of it."""
        self._result.clear()

    def _on_completed(self, data: bytes) -> None:
        self._result.append(data)
        self.leave()
        result = self._result
        headers = self._headers(b"WORK_COMPLETE")
        if result.size <= PIECE:
            self._request.respond(Response(result.take(PIECE), OCTETS, headers=headers))
        else:
            Response(b"", OCTETS, headers=headers).send(self._request, result.size)
            send_queue(self._request, result, self._reactor)

    def _on_failed(self, _nothing: None) -> None:
        headers = self._headers(b"WORK_FAIL")
        self._respond(HTTPProblem(502, "job-failed", "The job failed.", headers).response())

    def _on_exception(self, data: bytes) -> None:
        headers = self._headers(b"WORK_EXCEPTION")
        detail = f"The worker's function raised: {text(data[:1000])}"
        self._respond(HTTPProblem(502, "job-raised", detail, headers).response())


class StreamedResponse(HTTPClientConnection):
    """A request whose response is all news of its job, as server-sent events."""

    def __init__(self, broker: Jobs, request: LimitedRequest, reactor: IReactorTime) -> None:
        super().__init__(broker, request, reactor)
        self._stream: EventStream | None = None

    def begin(self) -> EventStream:
        """Send the head of the response, once. From then on problems are events."""
        if self._stream is None:
            self._stream = EventStream(self._request, self._reactor, self.leave)
        return self._stream

    def submitted(self) -> None:
        self.begin()
        super().submitted()

    def _end(self, event: str, value: Any) -> None:
        stream = self.begin()
        stream.send(event, value)
        self.leave()
        stream.end()

    def _end_with(self, event: str, data: bytes) -> None:
        stream = self.begin()
        stream.send_payload(event, data)
        self.leave()
        stream.end()

    def _took_too_long(self) -> None:
        self._end("timeout", {})

    def _on_created(self, handle: bytes) -> None:
        self.begin().send("created", {"handle": text(handle)})

    def _on_refused(self, error: Refused) -> None:
        self._end("refused", json.loads(refusal(error).response().body))

    def _on_data(self, data: bytes) -> None:
        self.begin().send_payload("data", data)

    def _on_warning(self, data: bytes) -> None:
        self.begin().send_payload("warning", data)

    def _on_status(self, numbers: tuple[int, int]) -> None:
        self.begin().send("status", {"numerator": numbers[0], "denominator": numbers[1]})

    def _on_retrying(self, numbers: tuple[int, float]) -> None:
        self.begin().send("retry", {"attempts": numbers[0], "in": numbers[1]})

    def _on_completed(self, data: bytes) -> None:
        self._end_with("complete", data)

    def _on_failed(self, _nothing: None) -> None:
        self._end("fail", {})

    def _on_exception(self, data: bytes) -> None:
        self._end_with("exception", data)


def handle_document(handle: bytes) -> bytes:
    """What a job that was accepted is answered with, as JSON; quicker than by `to_json`."""
    return b'{"handle":%b}' % json.dumps(text(handle)).encode("ascii")


def _in_path(handle: bytes) -> bytes:
    return identifier(handle).encode("ascii")
