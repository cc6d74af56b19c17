"""The HTTP interface for programs: a table of paths, and a few lines for each."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from txgearman.broker.states import PRIORITIES, JobState
from txgearman.broker.views import FunctionView, JobDetail
from txgearman.errors import FunctionInUse, FunctionNotFound, JobNotFound, Refused
from txgearman.web.answers import Answer, Branch, HTTPProblem, to_json
from txgearman.web.guard import Guard, Right
from txgearman.web.jobs import OCTETS, HTTPClient, StreamedAnswer, WholeAnswer, refusal
from txgearman.web.live import SORTS, Live
from txgearman.web.looking import (
    LARGEST_NUMBER,
    Place,
    Wanted,
    cancel_all,
    find_jobs,
    finder,
    jobs_of,
    running_jobs,
)
from txgearman.web.openapi import describe
from txgearman.web.overview import server_shape, totals_of
from txgearman.web.routes import Body, Call, Parameter, Route, Routes, given
from txgearman.web.settings import WebSettings
from txgearman.web.shapes import (
    MOST_JOBS,
    PRIORITY_NAMES,
    STORED,
    connection_shape,
    function_shape,
    job_shape,
)
from txgearman.web.sources import Connection, Gearman, Vitals
from txgearman.web.stream import EVENT_STREAM, send_stream_head
from txgearman.web.walking import walk

PAGE: Final = 50
"""Rows of a list if nothing is said."""

LARGEST_PAGE: Final = 500

LONGEST_WAIT: Final = 7 * 86400
"""Seconds that a request may wait for its job's end."""

LATEST_TIME: Final = 253402300799
"""Seconds since the epoch up to which a job may be scheduled: the end of the year 9999."""

LARGEST_LIMIT: Final = 10**15


def _submit_parameters(settings: WebSettings) -> tuple[Parameter, ...]:
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
            longest=settings.max_unique,
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
            high=LATEST_TIME,
            header="X-Gearman-Run-At",
        ),
        Parameter(
            "timeout",
            "number",
            "Seconds to wait for the result. Without it there is no limit.",
            low=1,
            high=LONGEST_WAIT,
            header="X-Gearman-Timeout",
        ),
    )


_AFTER: Final = Parameter(
    "after", "number", "Begin behind this place: `next` of the page before.", 0, high=LARGEST_NUMBER
)
_LIMIT: Final = Parameter("limit", "number", "How many rows at most.", PAGE, low=1, high=LARGEST_PAGE)
_PLACE: Final = Parameter("after", "place", "Begin behind this place: `next` of the page before.", Place())
_STATE: Final = Parameter(
    "state",
    "choice",
    "Only jobs in this state. Of the queued ones those are `stored` that are not in memory.",
    choices=("scheduled", "queued", "running", STORED),
)


class Api(Branch):
    """``/api``, with its versions below. `routes` are those of version 1."""

    def __init__(
        self,
        gearman: Gearman,
        vitals: Vitals | None,
        settings: WebSettings,
        guard: Guard,
        live: Live,
        reactor: IReactorTime,
    ) -> None:
        super().__init__()
        self._gearman = gearman
        self._settings = settings
        self._guard = guard
        self._live = live
        self._vitals = vitals
        self._reactor = reactor
        self.routes = self._make_routes()
        self.description = describe(self.routes)
        self.putChild(b"v1", Routes(self.routes, guard, reactor))

    def _make_routes(self) -> tuple[Route, ...]:
        search = Parameter(
            "search",
            "text",
            "Only those that contain this: names without case, jobs as bytes.",
            b"",
            longest=1024,
        )
        views = ("overview", "functions", "function", "jobs", "connections")
        roles = Parameter("role", "choice", "Only workers, or only others.", choices=("worker", "client"))
        return (
            Route(
                "GET", "/openapi.json", Right.VIEW, self._openapi, "This description.", {200: "Description"}
            ),
            Route("GET", "/server", Right.VIEW, self._server, "The server and its totals.", {200: "Server"}),
            Route(
                "GET",
                "/functions",
                Right.VIEW,
                self._functions,
                "Functions by name.",
                {200: "Functions"},
                (400,),
                (
                    search,
                    Parameter("after", "number", "How many to leave out.", 0, high=LARGEST_NUMBER),
                    _LIMIT,
                ),
            ),
            Route(
                "GET",
                "/functions/{function}",
                Right.VIEW,
                self._function,
                "A function.",
                {200: "Function"},
                (404,),
            ),
            Route(
                "PATCH",
                "/functions/{function}",
                Right.MANAGE,
                self._change_function,
                "Pause or resume a function, or set its limits of jobs.",
                {200: "Function"},
                (400, 404, 413),
                body=Body.JSON,
                body_schema="FunctionChange",
            ),
            Route(
                "DELETE",
                "/functions/{function}",
                Right.MANAGE,
                self._drop,
                "Forget a function that has no workers and no jobs.",
                {204: ""},
                (404, 409),
            ),
            Route(
                "GET",
                "/functions/{function}/jobs",
                Right.VIEW,
                self._jobs,
                "Jobs of a function: those in memory in the order they came, then those that only the store "
                "has. A page may be short and not be the last.",
                {200: "Jobs"},
                (400, 404, 503),
                (_STATE, search, _PLACE, _LIMIT),
            ),
            Route(
                "POST",
                "/functions/{function}/jobs",
                Right.SUBMIT,
                self._submit,
                "Submit a job. The body is its data, whatever its type. "
                "Accept text/event-stream to get what the worker sends while it runs.",
                {200: OCTETS.decode(), 202: "Accepted"},
                (400, 413, 429, 502, 503, 504),
                _submit_parameters(self._settings),
                Body.BYTES,
            ),
            Route(
                "DELETE",
                "/functions/{function}/jobs",
                Right.MANAGE,
                self._cancel_all,
                "Cancel all jobs that the function has now; answered when that is done.",
                {204: ""},
                (404,),
            ),
            Route("GET", "/jobs/{handle}", Right.VIEW, self._job, "A job.", {200: "Job"}, (404,)),
            Route(
                "DELETE",
                "/jobs/{handle}",
                Right.MANAGE,
                self._cancel,
                "Cancel a job; those who wait for it are told that it failed.",
                {204: ""},
                (404,),
            ),
            Route(
                "GET",
                "/jobs/{handle}/data",
                Right.VIEW,
                self._data,
                "A job's data, or a part of it.",
                {200: OCTETS.decode()},
                (400, 404, 409, 503),
                (
                    Parameter("offset", "number", "Bytes to leave out.", 0, high=LARGEST_NUMBER),
                    Parameter("length", "number", "How many bytes at most.", low=1, high=LARGEST_NUMBER),
                ),
            ),
            Route(
                "GET",
                "/jobs/{handle}/events",
                Right.VIEW,
                self._watch,
                "What a job's worker sends from now on, as server-sent events.",
                {200: EVENT_STREAM.decode()},
                (404,),
            ),
            Route(
                "GET",
                "/status",
                Right.VIEW,
                self._status,
                "The status of the newest job with a unique, whatever its function.",
                {200: "Status"},
                (400,),
                (Parameter("unique", "text", "The unique.", b"", longest=self._settings.max_unique),),
            ),
            Route(
                "GET",
                "/connections",
                Right.VIEW,
                self._connections,
                "Connections in the order they came.",
                {200: "Connections"},
                (400,),
                (
                    roles,
                    _AFTER,
                    _LIMIT,
                ),
            ),
            Route(
                "GET",
                "/live",
                Right.VIEW,
                self._watch_all,
                "What the dashboard shows: a document, and then once a second what has changed in it, as "
                "server-sent events with JSON merge patches.",
                {200: EVENT_STREAM.decode()},
                (400,),
                (
                    Parameter("view", "choice", "What to show.", "overview", choices=views),
                    Parameter("span", "choice", "Of the overview.", "minutes", choices=("minutes", "day")),
                    Parameter("sort", "choice", "The order of functions.", "name", choices=tuple(SORTS)),
                    Parameter("function", "text", "The function to show.", b""),
                    Parameter(
                        "handles", "text", "The jobs to show, with commas between.", b"", longest=16384
                    ),
                    search,
                    roles,
                    _AFTER,
                ),
            ),
            Route(
                "GET",
                "/connections/{number}",
                Right.VIEW,
                self._connection,
                "A connection.",
                {200: "Connection"},
                (404,),
            ),
            Route(
                "PATCH",
                "/connections/{number}",
                Right.MANAGE,
                self._change_connection,
                "Give a worker no more jobs, or again some.",
                {200: "Connection"},
                (400, 404, 413),
                body=Body.JSON,
                body_schema="ConnectionChange",
            ),
        )

    # -- the server -----------------------------------------------------------------------------

    def _openapi(self, _call: Call) -> Answer:
        return Answer(to_json(self.description))

    async def _server(self, _call: Call) -> Answer:
        totals = await totals_of(self._gearman, self._reactor)
        return Answer(to_json(server_shape(self._gearman, totals, self._vitals)))

    def _watch_all(self, call: Call) -> None:
        if call.is_head:
            send_stream_head(call.request)
            return
        settings = self._settings
        rights = {
            "manage": self._guard.allows(call.request, Right.MANAGE),
            "read_only": settings.read_only,
            "token": self._guard.knows_tokens,
        }
        self._live.view(call.request, call.given, rights)

    # -- functions ------------------------------------------------------------------------------

    async def _functions(self, call: Call) -> Answer:
        search, after, limit = call.given["search"].lower(), call.given["after"], call.given["limit"]
        has = finder(search)
        inspection = self._gearman.inspection
        names: list[bytes] = []

        def see(functions: list[FunctionView]) -> None:
            names.extend(view.name for view in functions if has(view.name.lower()))

        await walk(inspection.functions(), see, self._reactor)
        names.sort()
        shown = []
        for name in names[after : after + limit]:
            # One may have gone meanwhile.
            with suppress(FunctionNotFound):
                shown.append(function_shape(inspection.function_detail(name)))
        more = after + limit < len(names)
        return Answer(
            to_json({"functions": shown, "total": len(names), "next": after + limit if more else None})
        )

    def _function(self, call: Call) -> Answer:
        try:
            return Answer(to_json(function_shape(self._gearman.inspection.function_detail(call.ids[0]))))
        except FunctionNotFound as error:
            raise _no_function() from error

    def _change_function(self, call: Call) -> Answer:
        name, administration = call.ids[0], self._gearman.administration
        wish = call.json({"paused": bool, "limits": dict})
        limits = None if "limits" not in wish else _limits(wish["limits"])
        try:
            self._gearman.inspection.function_detail(name)
            if limits is not None:
                administration.set_limits(name, limits)
            if "paused" in wish:
                (administration.pause_function if wish["paused"] else administration.resume_function)(name)
        except FunctionNotFound as error:
            raise _no_function() from error
        except Refused as error:
            raise refusal(error) from error
        return self._function(call)

    def _drop(self, call: Call) -> Answer:
        try:
            self._gearman.administration.drop_function(call.ids[0])
        except FunctionNotFound as error:
            raise _no_function() from error
        except FunctionInUse as error:
            raise HTTPProblem(409, "function-in-use", "The function has workers or jobs.") from error
        return _done()

    # -- jobs -----------------------------------------------------------------------------------

    async def _jobs(self, call: Call) -> Answer:
        name = call.ids[0]
        self._function(call)
        state = call.given["state"]
        wanted = Wanted(name, state, call.given["search"])
        try:
            if state == JobState.RUNNING.value:
                found = await running_jobs(
                    self._gearman, self._reactor, wanted, call.given["after"], call.given["limit"]
                )
            else:
                found = await find_jobs(
                    self._gearman, self._reactor, wanted, call.given["after"], call.given["limit"]
                )
        except Refused as error:
            raise refusal(error) from error
        place = None if found.next is None else str(found.next)
        return Answer(to_json({"jobs": [job_shape(job) for job in found.jobs], "next": place}))

    def _submit(self, call: Call) -> None:
        accept = call.request.getHeader(b"Accept") or b""
        submit(
            self._gearman,
            call,
            self._reactor,
            self._settings,
            self._guard,
            call.ids[0],
            streamed=EVENT_STREAM in accept,
        )

    async def _cancel_all(self, call: Call) -> Answer:
        try:
            await cancel_all(self._gearman, self._reactor, call.ids[0])
        except FunctionNotFound as error:
            raise _no_function() from error
        return _done()

    async def _job(self, call: Call) -> Answer:
        return Answer(to_json(job_shape(await self._find_job(call))))

    async def _cancel(self, call: Call) -> Answer:
        handle = call.ids[0]
        try:
            self._gearman.broker.cancel(handle)
        except JobNotFound:
            await self._seek(self._gearman.search.seek_and_cancel, handle)
        return _done()

    async def _data(self, call: Call) -> Answer:
        data = (await self._find_job(call)).data
        if data is None:
            raise HTTPProblem(409, "elsewhere", "Another server on the same store has this job.")
        offset, length = call.given["offset"], call.given["length"]
        part = data[offset:] if length is None else data[offset : offset + length]
        return Answer(part, OCTETS, headers=((b"Content-Disposition", b"attachment"),))

    def _watch(self, call: Call) -> None:
        broker = self._gearman.broker
        try:
            handle = self._gearman.inspection.job_detail(call.ids[0]).handle
        except JobNotFound as error:
            raise _no_job() from error
        if call.is_head:
            send_stream_head(call.request)
            return
        end = StreamedAnswer(broker, call.request, self._reactor)
        end.begin()
        broker.watch(end.client, handle)

    def _status(self, call: Call) -> Answer:
        status = self._gearman.inspection.status_by_unique(call.given["unique"])
        return Answer(
            to_json(
                {
                    "known": status.known,
                    "running": status.running,
                    "numerator": status.numerator,
                    "denominator": status.denominator,
                    "clients": status.clients,
                }
            )
        )

    async def _find_job(self, call: Call) -> JobDetail:
        """The job that the path names, wherever it is."""
        handle = call.ids[0]
        try:
            return self._gearman.inspection.job_detail(handle)
        except JobNotFound:
            detail: JobDetail = await self._seek(self._gearman.search.seek_job, handle)
            return detail

    async def _seek(self, verb: Callable[[bytes, Callable[[Any], None]], None], handle: bytes) -> Any:
        """What a verb tells of a job that is not in memory. Raises `HTTPProblem`."""
        if not self._gearman.inspection.may_have_stored_jobs:
            raise _no_job()
        told: Deferred[Any] = Deferred()
        verb(handle, told.callback)
        found = await told
        if isinstance(found, JobNotFound):
            raise _no_job()
        if isinstance(found, Refused):
            raise refusal(found)
        return found

    # -- connections ----------------------------------------------------------------------------

    def _connections(self, call: Call) -> Answer:
        role, after, limit = call.given["role"], call.given["after"], call.given["limit"]
        found = []
        # In a dictionary they are in the order they came.
        for number, connection in self._gearman.connections.items():
            if number > after and (role is None or (role == "worker") == bool(connection.worker.abilities)):
                found.append(connection)
                if len(found) > limit:
                    break
        more = len(found) > limit
        shown = [self._connection_shape(connection) for connection in found[:limit]]
        return Answer(to_json({"connections": shown, "next": found[limit - 1].number if more else None}))

    def _connection(self, call: Call) -> Answer:
        return Answer(to_json(self._connection_shape(self._find_connection(call))))

    def _change_connection(self, call: Call) -> Answer:
        connection = self._find_connection(call)
        wish = call.json({"quiet": bool})
        if "quiet" in wish:
            self._gearman.administration.quiet(connection.worker, wish["quiet"])
        return self._connection(call)

    def _connection_shape(self, connection: Connection) -> dict[str, Any]:
        return connection_shape(connection, jobs_of(self._gearman.inspection, connection, MOST_JOBS))

    def _find_connection(self, call: Call) -> Connection:
        number = call.ids[0]
        connection = None
        if number.isdigit() and len(number) < 20:
            connection = self._gearman.connections.get(int(number))
        if connection is None:
            raise HTTPProblem(404, "no-such-connection", "There is no connection with this number.")
        return connection


def submit(
    gearman: Gearman,
    call: Call,
    reactor: IReactorTime,
    settings: WebSettings,
    guard: Guard,
    function: bytes,
    streamed: bool = False,
) -> None:
    """Submit the job that a request is, and see to its answer. Raises `HTTPProblem`."""
    how = call.given
    background = how["background"]
    if len(function) > settings.max_function:
        raise HTTPProblem(
            400, "argument-too-large", f"A function's name has at most {settings.max_function} bytes."
        )
    if b"\0" in function or b"\0" in how["unique"]:
        raise HTTPProblem(400, "bad-name", "Names of functions and uniques have no NUL.")
    guard.check_submit(call.request, function)
    end: HTTPClient
    if streamed and not background:
        end = StreamedAnswer(gearman.broker, call.request, reactor)
    else:
        end = WholeAnswer(gearman.broker, call.request, reactor, background, settings.max_data)
    priority = PRIORITY_NAMES.index(how["priority"])
    try:
        gearman.broker.submit(
            end.client, function, how["unique"], call.body(), priority, background, None, how["run_at"]
        )
    except Refused as error:
        end.leave()
        raise refusal(error) from error
    if isinstance(end, StreamedAnswer):
        end.begin()
    if how["timeout"] is not None and not background:
        end.fail_after(how["timeout"])


class GearmandStyle(Resource):
    """A submit as gearmand's HTTP takes it: the path is the function, headers say how, and a job without
    X-Gearman-Unique is the same as one with the same data."""

    isLeaf = True

    def __init__(
        self, function: bytes, gearman: Gearman, settings: WebSettings, guard: Guard, reactor: IReactorTime
    ) -> None:
        super().__init__()
        self._function = function
        self._gearman = gearman
        self._settings = settings
        self._guard = guard
        self._reactor = reactor

    def render(self, request: Request) -> Any:
        try:
            self._guard.check(request, Right.SUBMIT)
            how = given(request, _submit_parameters(self._settings))
            if request.getHeader(b"X-Gearman-Unique") is None and b"unique" not in request.args:
                how["unique"] = b"-"
            call = Call(request, (), how)
            submit(self._gearman, call, self._reactor, self._settings, self._guard, self._function)
        except HTTPProblem as problem:
            return problem.answer().send(request)
        return NOT_DONE_YET


def _limits(wish: dict[str, Any]) -> tuple[int | None, ...]:
    """The limits by priority of a JSON object; a priority that it does not name has none."""
    for name, limit in wish.items():
        # In JSON 7.0 is a whole number too.
        is_number = type(limit) in (int, float) and limit % 1 == 0 and 0 < limit <= LARGEST_LIMIT
        if name not in PRIORITY_NAMES or not (limit is None or is_number):
            raise HTTPProblem(
                400,
                "bad-member",
                f"Limits are whole numbers from 1, or null for none, for {', '.join(PRIORITY_NAMES)}.",
            )
    asked = [wish.get(name) for name in PRIORITY_NAMES]
    limits = tuple(None if limit is None else int(limit) for limit in asked)
    assert len(limits) == PRIORITIES
    return limits


def _no_job() -> HTTPProblem:
    return HTTPProblem(404, "no-such-job", "The server has no job with this handle.")


def _no_function() -> HTTPProblem:
    return HTTPProblem(404, "no-such-function", "The server has no function with this name.")


def _done() -> Answer:
    return Answer(b"", status=204)
