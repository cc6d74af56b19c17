"""Very many background jobs by one request: a line of JSON for each, and an answer for each, in their order.

Nothing waits that is not bounded: lines are read as answers are taken, and those that wait count in the send
budget. What a line may say is what a submit of one job may say (`submission`).
"""

from __future__ import annotations

import base64
import binascii
import json
from codecs import BOM_UTF8
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.python.failure import Failure
from twisted.web.server import Request
from zope.interface import implementer

from txgearman.broker.entities import Client
from txgearman.errors import Refused
from txgearman.web.api.clients import handle_document, refusal
from txgearman.web.api.submission import Said, check_function, said_by, submit_parameters
from txgearman.web.http.body import STALLED, budget_of, cut_off, queue_of
from txgearman.web.http.guard import Guard
from txgearman.web.http.responses import HTTPProblem, to_json
from txgearman.web.http.routing import Call, Parameter
from txgearman.web.interfaces import Gearman, Jobs
from txgearman.web.settings import WebSettings

LINES: Final = b"application/x-ndjson"

SLICE_LINES: Final = 500
"""Lines that are submitted in one turn of the reactor: 5 ms of work."""

SLICE_BYTES: Final = 256 * 1024
"""Bytes of lines after which a turn takes no further one. A longer line is taken alone."""

MAX_UNANSWERED: Final = 20_000
"""Jobs that may wait for the store at a time: more than one of its transactions has. Each takes half a
kilobyte of memory."""

_decode: Final = json.JSONDecoder().raw_decode
_WHITE_SPACE: Final = " \t\r\n"
"""What JSON has around values (RFC 8259, section 2)."""

_TEXT_MEMBERS: Final = ("data", "encoding")
_NOT_OF_A_LINE: Final = ("background", "timeout")
"""Parameters of a request that waits for the result of its one job."""


def submit_lines(
    gearman: Gearman, call: Call, reactor: IReactorTime, settings: WebSettings, guard: Guard, function: bytes
) -> None:
    """Submit the background jobs that the lines of a request are, and see to its response.

    Args:
        gearman: The server.
        call: The request, with the arguments of `submit_parameters`. They hold for lines that say no other.
        reactor: The clock.
        settings: What the web side may do.
        guard: Who may submit.
        function: The name of the jobs' function.

    Raises:
        HTTPProblem: The request is refused, and no job is submitted.
    """
    check_function(call.request, function, settings, guard)
    parser = LineParser(submit_parameters(settings), call.arguments)
    check = partial(guard.check_submit, call.request, function)
    BulkSubmit(gearman.broker, call, function, parser, check, reactor).begin()


class LineParser:
    """Reads lines: what is said of a job, with `defaults` for what is not.

    Args:
        parameters: What may be said of a job, with its bounds.
        defaults: Their values where a line does not say them.
    """

    def __init__(self, parameters: tuple[Parameter, ...], defaults: dict[str, Any]) -> None:
        self._parameters = {
            parameter.name: parameter for parameter in parameters if parameter.name not in _NOT_OF_A_LINE
        }
        self._defaults = defaults
        self._said = said_by(defaults)

    def parse(self, line: bytes) -> tuple[bytes, Said]:
        """Parse a line.

        Args:
            line: A JSON object. Its member `data` is text, or base64 with `"encoding": "base64"`.

        Returns:
            The job's data, and what is said of the job beside that.

        Raises:
            HTTPProblem: The line is not JSON, or says what it may not.
        """
        try:
            # Quicker than `json.loads`, which looks whether bytes are UTF-16 or UTF-32.
            text = line.decode("utf-8").strip(_WHITE_SPACE)
            members, end = _decode(text)
        except (ValueError, RecursionError):
            raise HTTPProblem(400, "bad-json", "The line is not JSON.") from None
        if end != len(text):
            raise HTTPProblem(400, "bad-json", "The line is not JSON alone.")
        if not isinstance(members, dict):
            raise HTTPProblem(400, "bad-json", "The line is not a JSON object.")
        data = _data_of(members.pop("data", ""), members.pop("encoding", "utf-8"))
        if not members:
            return data, self._said
        arguments = dict(self._defaults)
        for name, value in members.items():
            parameter = self._parameters.get(name)
            if parameter is None:
                known = ", ".join((*_TEXT_MEMBERS, *self._parameters))
                raise HTTPProblem(400, "bad-member", f"A line may have: {known}.")
            arguments[name] = parameter.parse(_parameter_text(parameter, value))
        return data, said_by(arguments)


def _data_of(data: Any, encoding: Any) -> bytes:
    if isinstance(data, str) and encoding == "utf-8":
        return _encoded(data, "bad-data", "The data")
    if isinstance(data, str) and encoding == "base64":
        try:
            return base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError):
            raise HTTPProblem(400, "bad-data", "The data is not base64.") from None
    raise HTTPProblem(400, "bad-data", "The data is text, and its encoding utf-8 or base64.")


def _encoded(text: str, code: str, what: str) -> bytes:
    """Text that JSON has, as UTF-8. `code` and `what` are for the problem that it is none."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise HTTPProblem(400, code, f"{what} has half of a surrogate pair.") from None


def _parameter_text(parameter: Parameter, value: Any) -> bytes:
    """A member's value as the parameter is written in a query."""
    if parameter.kind == "number" and isinstance(value, int) and not isinstance(value, bool):
        return b"%d" % value
    if parameter.kind != "number" and isinstance(value, str):
        return _encoded(value, "bad-parameter", f"The parameter {parameter.name}")
    kind = "a whole number" if parameter.kind == "number" else "text"
    raise HTTPProblem(400, "bad-parameter", f"The parameter {parameter.name} is {kind}.")


class _Answer:
    """An answer that waits for the store; `line` is None until the store has saved the job."""

    __slots__ = ("line",)

    def __init__(self) -> None:
        self.line: bytes | None = None


@implementer(IPushProducer)
class BulkSubmit:
    """A request of many lines, and the broker's `ClientConnection` for all of its jobs.

    Args:
        broker: Takes the jobs.
        call: The request, with its body.
        function: The name of the jobs' function.
        parser: Reads the lines.
        check: Raises `HTTPProblem` if the sender may submit no more: the access policy may change meanwhile.
        reactor: The clock.
    """

    def __init__(
        self,
        broker: Jobs,
        call: Call,
        function: bytes,
        parser: LineParser,
        check: Callable[[], None],
        reactor: IReactorTime,
    ) -> None:
        self.client = Client(self)
        self._broker = broker
        self._request: Request = call.request
        self._function = function
        self._parser = parser
        self._check = check
        self._denial: HTTPProblem | None = None
        self._reactor = reactor
        self._body = call.body()
        # Editors on Windows put a mark there.
        self._read = len(BOM_UTF8) if self._body.startswith(BOM_UTF8) else 0
        self._budget = budget_of(call.request)
        # The lines that wait; what is in `_body` counts as long as it does.
        self._waiting = queue_of(call.request)
        self._waiting.append(self._body)
        self._waiting.skip(self._read)
        # In the order of the lines; as bytes where they did not wait for the store.
        self._answers: deque[bytes | _Answer] = deque()
        self._paused = False
        self._is_over = False
        self._turn: IDelayedCall | None = None
        self._stalled: IDelayedCall | None = None

    def begin(self) -> None:
        """Send the head of the response, and go to work."""
        request = self._request
        request.setResponseCode(200)
        request.setHeader(b"Content-Type", LINES)
        request.setHeader(b"X-Accel-Buffering", b"no")
        request.notifyFinish().addErrback(self._gone)
        request.registerProducer(self, True)
        self._budget.enforce()
        self._go_on()

    # -- reading and submitting -----------------------------------------------------------------

    def _go_on(self) -> None:
        """Submit a slice of lines, and send the answers that are there."""
        self._turn = None
        if not self._can_write():
            return
        try:
            self._check()
        except HTTPProblem as problem:
            self._denial = problem
        begun = self._read
        for _ in range(min(SLICE_LINES, MAX_UNANSWERED - len(self._answers))):
            if self._read - begun >= SLICE_BYTES or not self._submit_next():
                break
        self._waiting.skip(self._read - begun)
        self._flush()

    def _submit_next(self) -> bool:
        """Submit the next line, if there is one. Empty ones have no answer."""
        body = self._body
        while self._read < len(body):
            end = body.find(b"\n", self._read)
            end = len(body) if end < 0 else end
            line = body[self._read : end]
            self._read = end + 1 if end < len(body) else end
            if line and not line.isspace():
                self._submit(line)
                return True
        return False

    def _submit(self, line: bytes) -> None:
        if self._denial is not None:
            self._answers.append(_refused(self._denial))
            return
        try:
            data, said = self._parser.parse(line)
            self._broker.submit(
                self.client,
                self._function,
                said.unique,
                data,
                said.priority,
                True,
                None,
                said.run_at,
                said.options,
            )
        except HTTPProblem as problem:
            self._answers.append(_refused(problem))
        except Refused as error:
            self._answers.append(_refused(refusal(error)))

    # -- answering ------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Send the answers that are there, up to the first that is not, and see what is next."""
        if not self._can_write():
            return
        lines = []
        answers = self._answers
        while answers:
            answer = answers[0]
            line = answer.line if isinstance(answer, _Answer) else answer
            if line is None:
                break
            lines.append(line)
            answers.popleft()
        if lines:
            self._request.write(b"".join(lines))
        if not self._can_write():
            return
        if self._read < len(self._body):
            if self._turn is None and len(self._answers) < MAX_UNANSWERED:
                self._turn = self._reactor.callLater(0, self._go_on)
        elif not self._answers:
            self._stop()
            self._request.unregisterProducer()
            self._request.finish()

    def _can_write(self) -> bool:
        """Whether the peer is there, and takes its answers. To write to it may change both."""
        return not (self._is_over or self._paused)

    def _flush_later(self) -> None:
        if self._turn is None and self._can_write():
            self._turn = self._reactor.callLater(0, self._go_on)

    # -- the end --------------------------------------------------------------------------------

    def _gone(self, _reason: Failure) -> None:
        """The peer has gone: what was accepted stays, and the rest is not submitted."""
        self._stop()

    def _stop(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        for call in (self._turn, self._stalled):
            if call is not None and call.active():
                call.cancel()
        self._turn = self._stalled = None
        self._answers.clear()
        self._waiting.clear()
        self._body = b""
        self._broker.leave_client(self.client)
        # It refers to this connection.
        del self.client

    # -- the transport's calls ------------------------------------------------------------------

    def pauseProducing(self) -> None:
        if not self._paused:
            self._paused = True
            self._stalled = self._reactor.callLater(STALLED, cut_off, self._request)

    def resumeProducing(self) -> None:
        self._paused = False
        if self._stalled is not None and self._stalled.active():
            self._stalled.cancel()
        self._stalled = None
        self._flush_later()

    def stopProducing(self) -> None:
        """The reader is gone; `notifyFinish` says so too."""

    # -- the broker's calls (ClientConnection) ----------------------------------------------------------

    def created(self, handle: bytes) -> None:
        self._answers.append(_accepted(handle))

    def created_later(self) -> _Answer:
        answer = _Answer()
        self._answers.append(answer)
        return answer

    def resolve_created(self, reply: _Answer, handle: bytes) -> None:
        reply.line = _accepted(handle)
        self._flush_later()

    def resolve_refused(self, reply: _Answer, error: Refused) -> None:
        reply.line = _refused(refusal(error))
        self._flush_later()

    def data(self, handle: bytes, data: bytes) -> None:
        """Nothing is told of background jobs, here and below."""

    def warning(self, handle: bytes, data: bytes) -> None: ...

    def status(self, handle: bytes, numerator: bytes, denominator: bytes) -> None: ...

    def completed(self, handle: bytes, data: bytes) -> None: ...

    def failed(self, handle: bytes) -> None: ...

    def retrying(self, handle: bytes, attempts: int, delay: float) -> None: ...

    def exception(self, handle: bytes, data: bytes) -> None: ...


def _accepted(handle: bytes) -> bytes:
    return handle_document(handle) + b"\n"


def _refused(problem: HTTPProblem) -> bytes:
    return to_json({"code": problem.code, "status": problem.status, "detail": problem.detail}) + b"\n"
