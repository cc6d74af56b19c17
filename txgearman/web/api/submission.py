"""A job submitted over HTTP: its parameters, and the path as gearmand has it. Answers are in `clients`."""

from __future__ import annotations

from operator import itemgetter
from typing import Any, Final, NamedTuple

from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from txgearman.broker.job_options import NO_OPTIONS, JobOptions, traceparent_from
from txgearman.errors import Refused
from txgearman.job_limits import MAX_ATTEMPTS, MAX_SECONDS
from txgearman.web.api.clients import HTTPClientConnection, StreamedResponse, WholeResponse, refusal
from txgearman.web.api.serializers import PRIORITY_NAMES
from txgearman.web.http.guard import Guard, WebRight
from txgearman.web.http.request import LimitedRequest
from txgearman.web.http.responses import HTTPProblem
from txgearman.web.http.routing import Call, Parameter, Parameters
from txgearman.web.interfaces import Gearman
from txgearman.web.settings import WebSettings

MAX_WAIT: Final = 7 * 86400
"""Seconds that a request may wait for its job's end."""

MAX_TIME: Final = 253402300799
"""Seconds since the epoch up to which a job may be scheduled: the end of the year 9999."""


def submit_parameters(settings: WebSettings) -> tuple[Parameter, ...]:
    """The parameters of a submit."""
    return (
        Parameter(
            "background",
            "flag",
            "Do not wait for the result: answer when the job is accepted.",
            False,
            header="X-Gearman-Background",
        ),
        Parameter(
            "unique",
            "text",
            "The job is the same as a live one of its function with this unique.",
            b"",
            max_length=settings.max_unique,
            header="X-Gearman-Unique",
        ),
        Parameter(
            "priority",
            "choice",
            "The job's priority.",
            "normal",
            choices=PRIORITY_NAMES,
            header="X-Gearman-Priority",
        ),
        Parameter(
            "run_at",
            "number",
            "Hold the job until this time, in seconds since 1970.",
            maximum=MAX_TIME,
            header="X-Gearman-Run-At",
        ),
        Parameter(
            "expires",
            "number",
            "Begin no run of the job so many seconds after its submit, or after `run_at`; 0 is never. "
            "Without it what is set for the function holds, as for the next four.",
            maximum=MAX_SECONDS,
            header="X-Gearman-Expires",
        ),
        Parameter(
            "attempts",
            "number",
            "How many runs of the job may fail. A request that waits for the result waits for all of them.",
            minimum=1,
            maximum=MAX_ATTEMPTS,
            header="X-Gearman-Attempts",
        ),
        Parameter(
            "backoff",
            "number",
            "Seconds that the job waits before its first retry.",
            maximum=MAX_SECONDS,
            header="X-Gearman-Backoff",
        ),
        Parameter(
            "keep_result",
            "number",
            "Seconds for which the result of a background job is kept, see `GET /jobs/{handle}/result`.",
            maximum=MAX_SECONDS,
            header="X-Gearman-Keep-Result",
        ),
        Parameter(
            "unique_for",
            "number",
            "Seconds for which the unique is kept once the job is completed: a submit with it is answered "
            "with this job and does not run.",
            maximum=MAX_SECONDS,
            header="X-Gearman-Unique-For",
        ),
        Parameter(
            "traceparent",
            "text",
            "The span that the job belongs to, as the W3C writes it. One that is malformed is ignored.",
            b"",
            header="traceparent",
        ),
        Parameter(
            "timeout",
            "number",
            "Seconds to wait for the result. Without it there is no limit.",
            minimum=1,
            maximum=MAX_WAIT,
            header="X-Gearman-Timeout",
        ),
    )


def submit(
    gearman: Gearman,
    call: Call,
    reactor: IReactorTime,
    settings: WebSettings,
    guard: Guard,
    function: bytes,
    streamed: bool = False,
) -> None:
    """Submit the job that a request is, and see to its response.

    Args:
        gearman: The server.
        call: The request, with the arguments of `submit_parameters`.
        reactor: The clock.
        settings: What the web side may do.
        guard: Who may submit.
        function: The name of the job's function.
        streamed: Whether the response to a foreground job is server-sent events.

    Raises:
        HTTPProblem: The job is not accepted.
    """
    arguments = call.arguments
    background = arguments["background"]
    check_function(call.request, function, settings, guard)
    said = said_by(arguments)
    connection: HTTPClientConnection
    if streamed and not background:
        connection = StreamedResponse(gearman.broker, call.request, reactor)
    else:
        connection = WholeResponse(gearman.broker, call.request, reactor, background, settings.max_data)
    try:
        gearman.broker.submit(
            connection.client,
            function,
            said.unique,
            call.body(),
            said.priority,
            background,
            None,
            said.run_at,
            said.options,
        )
    except Refused as error:
        connection.leave()
        raise refusal(error) from error
    connection.submitted()
    if arguments["timeout"] is not None and not background:
        connection.time_out_after(arguments["timeout"])


def check_function(request: Request, function: bytes, settings: WebSettings, guard: Guard) -> None:
    """Check the function that a request submits to.

    Args:
        request: The request.
        function: The function's name.
        settings: What the web side may do.
        guard: Who may submit.

    Raises:
        HTTPProblem: The name is none, or its jobs may not be submitted by the sender.
    """
    if len(function) > settings.max_function:
        raise HTTPProblem(
            400, "argument-too-large", f"A function's name has at most {settings.max_function} bytes."
        )
    _check_name(function)
    guard.check_submit(request, function)


def _check_name(name: bytes) -> None:
    if b"\0" in name:
        raise HTTPProblem(400, "bad-name", "Names of functions and uniques have no NUL.")


_NUMBERS: Final = ("expires", "attempts", "backoff", "keep_result", "unique_for")
"""The options that are numbers, None where nothing is said."""

_numbers_of: Final = itemgetter(*_NUMBERS)
_NO_NUMBERS: Final = (None,) * len(_NUMBERS)
_PRIORITIES: Final = {name: number for number, name in enumerate(PRIORITY_NAMES)}


class Said(NamedTuple):
    """What is said of a job beside its function and its data, as the broker takes it."""

    unique: bytes
    priority: int
    run_at: int | None
    options: JobOptions | None


def said_by(arguments: dict[str, Any]) -> Said:
    """What the arguments of `submit_parameters` say of a job.

    Args:
        arguments: The values, by name.

    Returns:
        The same for the broker.

    Raises:
        HTTPProblem: The unique is none.
    """
    _check_name(arguments["unique"])
    options = None
    traceparent, numbers = arguments["traceparent"], _numbers_of(arguments)
    # Most jobs have none, and need not make any for that.
    if traceparent or numbers != _NO_NUMBERS:
        options = JobOptions(
            **dict(zip(_NUMBERS, numbers, strict=True)),
            traceparent=traceparent_from(traceparent.decode("ascii", "replace")),
        )
    return Said(
        arguments["unique"],
        _PRIORITIES[arguments["priority"]],
        arguments["run_at"],
        None if options == NO_OPTIONS else options,
    )


class GearmandStyle(Resource):
    """A submit as gearmand's HTTP takes it.

    The path is the function, headers are the parameters. A job without X-Gearman-Unique is coalesced with one
    that has the same data.
    """

    isLeaf = True

    def __init__(
        self,
        function: bytes,
        gearman: Gearman,
        parameters: Parameters,
        settings: WebSettings,
        guard: Guard,
        reactor: IReactorTime,
    ) -> None:
        super().__init__()
        self._function = function
        self._gearman = gearman
        self._parameters = parameters
        self._settings = settings
        self._guard = guard
        self._reactor = reactor

    def render(self, request: LimitedRequest) -> Any:
        try:
            self._guard.check(request, WebRight.SUBMIT)
            arguments = self._parameters.parse(request)
            if request.getHeader(b"X-Gearman-Unique") is None and b"unique" not in request.args:
                arguments["unique"] = b"-"
            call = Call(request, (), arguments)
            submit(self._gearman, call, self._reactor, self._settings, self._guard, self._function)
        except HTTPProblem as problem:
            return problem.response().send(request)
        return NOT_DONE_YET
