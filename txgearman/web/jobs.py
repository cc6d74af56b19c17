"""Jobs over HTTP: a request as a client of the broker. What paths there are is in `api`."""

from __future__ import annotations

import json
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure
from twisted.web.server import Request

from txgearman.broker.entities import Client
from txgearman.broker.numbers import leading_number
from txgearman.errors import (
    ArgumentTooLarge,
    InvalidArgument,
    JobNotFound,
    QueueFull,
    RateExceeded,
    Refused,
)
from txgearman.web.answers import Answer, HTTPProblem, to_json
from txgearman.web.body import PIECE, budget_of, queue_of, send_body, send_queue
from txgearman.web.shapes import identifier, text
from txgearman.web.sources import Jobs
from txgearman.web.stream import EventStream

OCTETS: Final = b"application/octet-stream"

_STATUSES: Final[tuple[tuple[type[Refused], int], ...]] = (
    (JobNotFound, 404),
    (ArgumentTooLarge, 400),
    (InvalidArgument, 400),
    (QueueFull, 429),
    (RateExceeded, 429),
)
"""HTTP's status for a refusal of the broker; 503 for any other."""


def refusal(error: Refused) -> HTTPProblem:
    """The problem that a refusal of the broker is to an HTTP client."""
    status = next((status for kind, status in _STATUSES if isinstance(error, kind)), 503)
    return HTTPProblem(status, error.code.decode("ascii").lower().replace("_", "-"), error.text + ".")


class HTTPClient:
    """The end of a client that is one request (`ClientConnection`).

    What the broker tells is noted, and passed on when the broker is done with its decision: an answer that
    ends lets the next request of its connection in, which may be a submit.
    """

    def __init__(self, broker: Jobs, request: Request, reactor: IReactorTime) -> None:
        self.client = Client(self)
        self._broker = broker
        self._request = request
        self._reactor = reactor
        self._notes: list[tuple[str, Any]] = []
        self._call: IDelayedCall | None = None
        self._limit: IDelayedCall | None = None
        self._over = False

    def fail_after(self, seconds: float) -> None:
        """Answer that it took too long, and leave the job, if it has not ended by then."""
        self._limit = self._reactor.callLater(seconds, self._took_too_long)

    def leave(self) -> None:
        """The peer is gone, or need not hear more."""
        if not self._over:
            self._over = True
            for call in (self._call, self._limit):
                if call is not None and call.active():
                    call.cancel()
            self._notes.clear()
            self._broker.leave_client(self.client)
            # They refer to this end, and it to them.
            self._call = self._limit = None
            del self.client

    def _note(self, what: str, value: Any) -> None:
        if self._over:
            return
        self._notes.append((what, value))
        if self._call is None:
            self._call = self._reactor.callLater(0, self._pass_on)

    def _pass_on(self) -> None:
        self._call = None
        notes, self._notes = self._notes, []
        for what, value in notes:
            if not self._over:
                getattr(self, f"_tell_{what}")(value)

    def _took_too_long(self) -> None:
        self._answer(HTTPProblem(504, "timed-out", "The job did not end within the time given.").answer())

    def _answer(self, answer: Answer) -> None:
        """Send a whole answer, the last thing that is done."""
        self.leave()
        send_body(self._request, answer.send(self._request), self._reactor)

    # -- the broker's news (ClientConnection) ----------------------------------------------------------

    def created(self, handle: bytes) -> None:
        self._note("created", handle)

    def saving(self) -> object:
        return self

    def saved(self, place: Any, handle: bytes) -> None:
        self._note("created", handle)

    def refused(self, place: Any, refusal: Refused) -> None:
        self._note("refused", refusal)

    def data(self, handle: bytes, data: bytes) -> None:
        self._note("data", data)

    def warning(self, handle: bytes, data: bytes) -> None:
        self._note("warning", data)

    def status(self, handle: bytes, numerator: bytes, denominator: bytes) -> None:
        self._note("status", (leading_number(numerator), leading_number(denominator)))

    def completed(self, handle: bytes, data: bytes) -> None:
        self._note("completed", data)

    def failed(self, handle: bytes) -> None:
        self._note("failed", None)

    def exception(self, handle: bytes, data: bytes) -> None:
        self._note("exception", data)


class WholeAnswer(HTTPClient):
    """A request that is answered once, with the job's handle or with its result.

    The parts of a result that the worker sent ahead of its end come first in the body; more than
    `max_data` bytes of them are not kept. They are not joined: a part that many wait for is held once.
    """

    def __init__(
        self, broker: Jobs, request: Request, reactor: IReactorTime, background: bool, max_data: int
    ) -> None:
        super().__init__(broker, request, reactor)
        self._background = background
        self._max_data = max_data
        self._handle = b""
        self._budget = budget_of(request)
        self._result = queue_of(request)
        request.notifyFinish().addErrback(self._gone)

    def _answer(self, answer: Answer) -> None:
        self._result.clear()
        super()._answer(answer)

    def _gone(self, _reason: Failure) -> None:
        self._result.clear()
        self.leave()

    def _headers(self, command: bytes) -> tuple[tuple[bytes, bytes], ...]:
        return ((b"X-Gearman-Job-Handle", self._handle), (b"X-Gearman-Command", command))

    def _tell_created(self, handle: bytes) -> None:
        self._handle = handle
        if self._background:
            headers = (*self._headers(b"JOB_CREATED"), (b"Location", b"/api/v1/jobs/" + _in_path(handle)))
            self._answer(Answer(to_json({"handle": text(handle)}), status=202, headers=headers))

    def _tell_refused(self, error: Refused) -> None:
        self._answer(refusal(error).answer())

    def _tell_data(self, data: bytes) -> None:
        self._result.append(data)
        self._budget.enforce()
        if self._result.size > self._max_data:
            self._answer(
                HTTPProblem(
                    502, "result-too-large", f"The result has more than {self._max_data} bytes."
                ).answer()
            )

    def _tell_warning(self, data: bytes) -> None:
        """There is no place for it in a whole answer."""

    def _tell_status(self, _numbers: tuple[int, int]) -> None:
        """Nor for that."""

    def _tell_completed(self, data: bytes) -> None:
        self._result.append(data)
        self.leave()
        result = self._result
        answer = Answer(b"", OCTETS, headers=self._headers(b"WORK_COMPLETE"))
        answer.send(self._request, result.size)
        if result.size <= PIECE:
            send_body(self._request, result.take(PIECE), self._reactor)
        else:
            send_queue(self._request, result, self._reactor)

    def _tell_failed(self, _nothing: None) -> None:
        headers = self._headers(b"WORK_FAIL")
        self._answer(HTTPProblem(502, "job-failed", "The job failed.", headers).answer())

    def _tell_exception(self, data: bytes) -> None:
        headers = self._headers(b"WORK_EXCEPTION")
        detail = f"The worker's function raised: {text(data[:1000])}"
        self._answer(HTTPProblem(502, "job-raised", detail, headers).answer())


class StreamedAnswer(HTTPClient):
    """A request that is answered with all news of its job as server-sent events."""

    def __init__(self, broker: Jobs, request: Request, reactor: IReactorTime) -> None:
        super().__init__(broker, request, reactor)
        self._stream: EventStream | None = None

    def begin(self) -> EventStream:
        """Send the head of the answer; from then on problems are events."""
        if self._stream is None:
            self._stream = EventStream(self._request, self._reactor, self.leave)
        return self._stream

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

    def _tell_created(self, handle: bytes) -> None:
        self.begin().send("created", {"handle": text(handle)})

    def _tell_refused(self, error: Refused) -> None:
        self._end("refused", json.loads(refusal(error).answer().body))

    def _tell_data(self, data: bytes) -> None:
        self.begin().send_payload("data", data)

    def _tell_warning(self, data: bytes) -> None:
        self.begin().send_payload("warning", data)

    def _tell_status(self, numbers: tuple[int, int]) -> None:
        self.begin().send("status", {"numerator": numbers[0], "denominator": numbers[1]})

    def _tell_completed(self, data: bytes) -> None:
        self._end_with("complete", data)

    def _tell_failed(self, _nothing: None) -> None:
        self._end("fail", {})

    def _tell_exception(self, data: bytes) -> None:
        self._end_with("exception", data)


def _in_path(handle: bytes) -> bytes:
    return identifier(handle).encode("ascii")
