"""The HTTP interface for programs: one table of paths, with their parameters, rights and endpoints."""

from __future__ import annotations

from typing import Final

from twisted.internet.interfaces import IReactorTime

from txgearman.web.api.activity import BY, ActivityEndpoints
from txgearman.web.api.clients import OCTETS
from txgearman.web.api.connections import ConnectionEndpoints
from txgearman.web.api.dead_jobs import (
    CURSOR_PATTERN,
    MAX_PER_SECOND,
    DeadJobEndpoints,
    read_dead_cursor,
)
from txgearman.web.api.function_history import FunctionHistory
from txgearman.web.api.functions import FunctionEndpoints
from txgearman.web.api.job_search import MAX_NUMBER, JobCursor
from txgearman.web.api.jobs import JobEndpoints
from txgearman.web.api.live import SORTS, LiveDocuments
from txgearman.web.api.openapi import describe
from txgearman.web.api.results import MAX_WAIT as MAX_RESULT_WAIT
from txgearman.web.api.schedules import DEFAULT_PREVIEW, MAX_PREVIEW, ScheduleEndpoints
from txgearman.web.api.search import SearchEndpoints
from txgearman.web.api.serializers import STORED
from txgearman.web.api.server import ServerEndpoints
from txgearman.web.api.submission import submit_parameters
from txgearman.web.http.guard import Guard, WebRight
from txgearman.web.http.responses import Branch, Response, to_json
from txgearman.web.http.routing import Body, Call, Handler, Parameter, Route, Routes
from txgearman.web.http.stream import EVENT_STREAM
from txgearman.web.interfaces import Gearman, ServerHealth
from txgearman.web.settings import WebSettings

DEFAULT_PAGE: Final = 50
"""Rows of a list if nothing is said."""

MAX_PAGE: Final = 500

_CURSOR: Final = Parameter(
    "after", "number", "Begin after this place: `next` of the page before.", 0, maximum=MAX_NUMBER
)
_LIMIT: Final = Parameter(
    "limit", "number", "How many rows at most.", DEFAULT_PAGE, minimum=1, maximum=MAX_PAGE
)
_JOB_CURSOR: Final = Parameter(
    "after",
    "cursor",
    "Begin after this place: `next` of the page before.",
    JobCursor(),
    read_cursor=JobCursor.parse,
    pattern="(stored-[0-2]-)?[0-9]{1,19}",
)
_DEAD_CURSOR: Final = Parameter(
    "after",
    "cursor",
    "Begin after this place: `next` of the page before.",
    None,
    read_cursor=read_dead_cursor,
    pattern=CURSOR_PATTERN,
)
_DEAD_FUNCTION: Final = Parameter("function", "text", "Only those of this function.")
_SPAN: Final = Parameter(
    "span", "choice", "The last minutes, or the last day.", "minutes", choices=("minutes", "day")
)
_DEAD_SEARCH: Final = Parameter(
    "search",
    "text",
    "Only those that contain these bytes in function, unique, handle, error or data.",
    b"",
    max_length=1024,
)
_FORCE: Final = Parameter(
    "force",
    "flag",
    "End the connection of a worker that runs the job and cannot be told. Its other jobs go to others.",
    False,
)
_PER_SECOND: Final = Parameter(
    "per_second",
    "number",
    "How many a second at most, so that they do not drown what they need.",
    minimum=1,
    maximum=MAX_PER_SECOND,
)
_STATE: Final = Parameter(
    "state",
    "choice",
    "Only jobs in this state. Of the queued ones those are `stored` that are not in memory.",
    choices=("scheduled", "queued", "running", "retrying", STORED),
)
_ROLE: Final = Parameter("role", "choice", "Only workers, or only others.", choices=("worker", "client"))
_SEARCH: Final = Parameter(
    "search", "text", "Only those that contain this: names without case, jobs as bytes.", b"", max_length=1024
)
_VIEWS: Final = (
    "overview",
    "functions",
    "function",
    "jobs",
    "dead",
    "schedules",
    "connections",
    "activity",
)


class Api(Branch):
    """``/api``, with its versions below. `routes` are those of version 1."""

    def __init__(
        self,
        gearman: Gearman,
        health: ServerHealth | None,
        settings: WebSettings,
        guard: Guard,
        live: LiveDocuments,
        history: FunctionHistory,
        reactor: IReactorTime,
    ) -> None:
        super().__init__()
        self._live = live
        self.routes = make_routes(
            self._openapi,
            ServerEndpoints(gearman, health, settings, guard, live, reactor),
            FunctionEndpoints(gearman, history, reactor),
            JobEndpoints(gearman, settings, guard, reactor),
            ConnectionEndpoints(gearman),
            DeadJobEndpoints(gearman, reactor),
            ScheduleEndpoints(gearman, guard),
            ActivityEndpoints(gearman),
            SearchEndpoints(gearman, reactor),
            settings,
        )
        self.description = describe(self.routes)
        routes = Routes(self.routes, guard, reactor, gearman.activity)
        gearman.access_listeners.append(routes.access_changed)
        self.putChild(b"v1", routes)

    def _openapi(self, _call: Call) -> Response:
        return Response(to_json(self.description))


def make_routes(
    openapi: Handler,
    server: ServerEndpoints,
    functions: FunctionEndpoints,
    jobs: JobEndpoints,
    connections: ConnectionEndpoints,
    dead_jobs: DeadJobEndpoints,
    schedules: ScheduleEndpoints,
    activity: ActivityEndpoints,
    search: SearchEndpoints,
    settings: WebSettings,
) -> tuple[Route, ...]:
    """Every path of version 1, in the order of the description."""
    return (
        Route("GET", "/openapi.json", WebRight.VIEW, openapi, "This description.", {200: "Description"}),
        Route("GET", "/server", WebRight.VIEW, server.server, "The server and its totals.", {200: "Server"}),
        Route(
            "GET",
            "/functions",
            WebRight.VIEW,
            functions.functions,
            "Functions by name.",
            {200: "Functions"},
            (400,),
            (
                _SEARCH,
                Parameter("after", "number", "How many to leave out.", 0, maximum=MAX_NUMBER),
                _LIMIT,
            ),
        ),
        Route(
            "GET",
            "/functions/{function}",
            WebRight.VIEW,
            functions.function,
            "A function.",
            {200: "Function"},
            (404,),
        ),
        Route(
            "PATCH",
            "/functions/{function}",
            WebRight.MANAGE,
            functions.change_function,
            "Pause or resume a function, or set its limits of jobs or of runs.",
            {200: "Function"},
            (400, 404, 413, 503),
            body=Body.JSON,
            body_schema="FunctionChange",
            action="change function",
        ),
        Route(
            "DELETE",
            "/functions/{function}",
            WebRight.MANAGE,
            functions.drop,
            "Forget a function that has no workers and no jobs.",
            {204: ""},
            (404, 409, 503),
            action="drop function",
        ),
        Route(
            "GET",
            "/functions/{function}/history",
            WebRight.VIEW,
            functions.history,
            "Jobs a second of a function, and how long they waited and ran, over the last minutes or the "
            "last day.",
            {200: "FunctionHistory"},
            (400, 404),
            (_SPAN,),
        ),
        Route(
            "GET",
            "/functions/{function}/jobs",
            WebRight.VIEW,
            jobs.jobs,
            "Jobs of a function: those in memory in the order they came, then those that only the store "
            "has. A page may be short and not be the last.",
            {200: "Jobs"},
            (400, 404, 503),
            (_STATE, _SEARCH, _JOB_CURSOR, _LIMIT),
        ),
        Route(
            "POST",
            "/functions/{function}/jobs",
            WebRight.SUBMIT,
            jobs.submit,
            "Submit a job. The body is its data, whatever its type. "
            "Accept text/event-stream to get what the worker sends while it runs. "
            "A body of application/x-ndjson is very many background jobs, one in each line.",
            {200: OCTETS.decode(), 202: "Accepted"},
            (400, 409, 413, 429, 502, 503, 504),
            submit_parameters(settings),
            Body.BYTES,
        ),
        Route(
            "DELETE",
            "/functions/{function}/jobs",
            WebRight.MANAGE,
            jobs.cancel_all,
            "Cancel all jobs that the function has now; answered when that is done.",
            {204: ""},
            (404,),
            action="cancel jobs",
        ),
        Route(
            "GET",
            "/jobs/{handle}",
            WebRight.VIEW,
            jobs.job,
            "A job: live, dead, or ended not long ago.",
            {200: "Job"},
            (404, 503),
        ),
        Route(
            "DELETE",
            "/jobs/{handle}",
            WebRight.MANAGE,
            jobs.cancel,
            "Cancel a job; those who wait for it are told that it failed. Forget a dead one.",
            {204: ""},
            (400, 404, 503),
            (_FORCE,),
            action="cancel job",
        ),
        Route(
            "POST",
            "/jobs/{handle}/retry",
            WebRight.MANAGE,
            dead_jobs.retry,
            "Run a dead job again, or one that waits for its retry at once.",
            {204: ""},
            (404, 409, 429, 503),
            action="retry job",
        ),
        Route(
            "GET",
            "/retrying",
            WebRight.VIEW,
            jobs.retrying,
            "Jobs of all functions that wait for a retry, in the order they came. A page may be short and "
            "not be the last.",
            {200: "Jobs"},
            (400,),
            (_SEARCH, _CURSOR, _LIMIT),
        ),
        Route(
            "GET",
            "/dead",
            WebRight.VIEW,
            dead_jobs.dead,
            "Dead jobs, those that died last first. With a search a page may be short and not be the last.",
            {200: "DeadJobs"},
            (400, 503),
            (
                _DEAD_FUNCTION,
                _DEAD_SEARCH,
                _DEAD_CURSOR,
                _LIMIT,
            ),
        ),
        Route(
            "DELETE",
            "/dead",
            WebRight.MANAGE,
            dead_jobs.forget_all,
            "Forget all dead jobs, or those that are looked for.",
            {200: "Forgotten"},
            (400, 503),
            (_DEAD_FUNCTION, _DEAD_SEARCH),
            action="forget dead",
        ),
        Route(
            "POST",
            "/dead/retry",
            WebRight.MANAGE,
            dead_jobs.retry_all,
            "Run all dead jobs again, or those that are looked for, but for those that cannot be; answered "
            "when that is done.",
            {200: "Retried"},
            (400, 503),
            (_DEAD_FUNCTION, _DEAD_SEARCH, _PER_SECOND),
            action="retry dead",
        ),
        Route(
            "POST",
            "/functions/{function}/dead/retry",
            WebRight.MANAGE,
            dead_jobs.retry_dead,
            "Run all dead jobs of a function again, but for those that cannot be; answered when it is done.",
            {200: "Retried"},
            (400, 503),
            (_DEAD_SEARCH, _PER_SECOND),
            action="retry dead",
        ),
        Route(
            "DELETE",
            "/functions/{function}/dead",
            WebRight.MANAGE,
            dead_jobs.forget_dead,
            "Forget all dead jobs of a function.",
            {200: "Forgotten"},
            (400, 503),
            (_DEAD_SEARCH,),
            action="forget dead",
        ),
        Route(
            "GET",
            "/schedules",
            WebRight.VIEW,
            schedules.schedules,
            "Recurring jobs by name.",
            {200: "Schedules"},
            (400,),
            (
                _SEARCH,
                Parameter("after", "number", "How many to leave out.", 0, maximum=MAX_NUMBER),
                _LIMIT,
            ),
        ),
        Route(
            "GET",
            "/schedules/{schedule}",
            WebRight.VIEW,
            schedules.schedule,
            "A recurring job.",
            {200: "Schedule"},
            (404,),
        ),
        Route(
            "PUT",
            "/schedules/{schedule}",
            WebRight.SCHEDULE,
            schedules.put_schedule,
            "Add a recurring job, or replace one; answered when it is saved.",
            {200: "Schedule"},
            (400, 409, 413, 429, 503),
            body=Body.JSON,
            body_schema="ScheduleDefinition",
            action="create schedule",
        ),
        Route(
            "PATCH",
            "/schedules/{schedule}",
            WebRight.SCHEDULE,
            schedules.change_schedule,
            "Pause or resume a recurring job, or change what it is; answered when that is saved.",
            {200: "Schedule"},
            (400, 404, 409, 413, 503),
            body=Body.JSON,
            body_schema="ScheduleChange",
            action="change schedule",
        ),
        Route(
            "DELETE",
            "/schedules/{schedule}",
            WebRight.SCHEDULE,
            schedules.remove_schedule,
            "Remove a recurring job; answered when that is saved.",
            {204: ""},
            (404, 409, 503),
            action="drop schedule",
        ),
        Route(
            "POST",
            "/schedules/{schedule}/run",
            WebRight.SCHEDULE,
            schedules.run_schedule,
            "Submit a recurring job now, also if it is paused.",
            {202: "Accepted"},
            (404, 429, 503),
            action="run schedule",
        ),
        Route(
            "POST",
            "/schedules/{schedule}/preview",
            WebRight.SCHEDULE,
            schedules.preview_schedule,
            "When a recurring job of this name would come next, in seconds since 1970. It is not added.",
            {200: "Ticks"},
            (400, 413),
            (
                Parameter(
                    "limit",
                    "number",
                    "How many ticks at most.",
                    DEFAULT_PREVIEW,
                    minimum=1,
                    maximum=MAX_PREVIEW,
                ),
            ),
            body=Body.JSON,
            body_schema="ScheduleDefinition",
            action="",
        ),
        Route(
            "GET",
            "/jobs/{handle}/data",
            WebRight.VIEW,
            jobs.data,
            "A job's data, or a part of it.",
            {200: OCTETS.decode()},
            (400, 404, 409, 503),
            (
                Parameter("offset", "number", "Bytes to leave out.", 0, maximum=MAX_NUMBER),
                Parameter("length", "number", "How many bytes at most.", minimum=1, maximum=MAX_NUMBER),
            ),
        ),
        Route(
            "GET",
            "/jobs/{handle}/result",
            WebRight.VIEW,
            jobs.result,
            "The result of a background job whose function keeps results.",
            {200: OCTETS.decode(), 202: "PendingResult"},
            (400, 404, 410, 502, 503),
            (
                Parameter(
                    "wait",
                    "number",
                    "Seconds to wait for the result of a job that has not ended; then its state is answered.",
                    0,
                    maximum=MAX_RESULT_WAIT,
                ),
            ),
        ),
        Route(
            "GET",
            "/jobs/{handle}/events",
            WebRight.VIEW,
            jobs.watch,
            "What a job's worker sends from now on, as server-sent events.",
            {200: EVENT_STREAM.decode()},
            (404,),
        ),
        Route(
            "GET",
            "/status",
            WebRight.VIEW,
            jobs.status,
            "The status of the newest job with a unique, whatever its function.",
            {200: "Status"},
            (400,),
            (Parameter("unique", "text", "The unique.", b"", max_length=settings.max_unique),),
        ),
        Route(
            "GET",
            "/connections",
            WebRight.VIEW,
            connections.connections,
            "Connections in the order they came.",
            {200: "Connections"},
            (400,),
            (
                _ROLE,
                _CURSOR,
                _LIMIT,
            ),
        ),
        Route(
            "GET",
            "/search",
            WebRight.VIEW,
            search.find,
            "What a text leads to: the job with this handle, the newest live one with this unique, and "
            "functions that have it in their names.",
            {200: "Found"},
            (400, 503),
            (Parameter("text", "text", "What to look for.", b"", max_length=1024),),
        ),
        Route(
            "GET",
            "/activity",
            WebRight.VIEW,
            activity.events,
            "What was done with the server, and what it did by itself: the last events, the newest first.",
            {200: "Activity"},
            (400,),
            (
                Parameter(
                    "by", "choice", "Only what people and programs did, or the server itself.", choices=BY
                ),
                _SEARCH,
                Parameter(
                    "before",
                    "number",
                    "Begin after this event: `next` of the page before.",
                    minimum=1,
                    maximum=MAX_NUMBER,
                ),
                _LIMIT,
            ),
        ),
        Route(
            "GET",
            "/live",
            WebRight.VIEW,
            server.watch_all,
            "What the dashboard shows: a document, and then once a second what has changed in it, as "
            "server-sent events with JSON merge patches.",
            {200: EVENT_STREAM.decode()},
            (400,),
            (
                Parameter("view", "choice", "What to show.", "overview", choices=_VIEWS),
                _SPAN,
                Parameter("sort", "choice", "The order of functions.", "name", choices=tuple(SORTS)),
                Parameter("function", "text", "The function to show.", b""),
                Parameter("handles", "text", "The jobs to show, with commas between.", b"", max_length=16384),
                _SEARCH,
                _ROLE,
                _CURSOR,
            ),
        ),
        Route(
            "GET",
            "/connections/{number}",
            WebRight.VIEW,
            connections.connection,
            "A connection.",
            {200: "Connection"},
            (404,),
        ),
        Route(
            "PATCH",
            "/connections/{number}",
            WebRight.MANAGE,
            connections.change_connection,
            "Give a worker no more jobs, or again some.",
            {200: "Connection"},
            (400, 404, 413),
            body=Body.JSON,
            body_schema="ConnectionChange",
            action="change connection",
        ),
    )
