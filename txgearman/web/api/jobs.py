"""Jobs over HTTP: lists, submits, data, events. The paths are in `routes`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from txgearman.broker.job_states import JobState
from txgearman.broker.result_lookup import FoundResult, ResultState
from txgearman.broker.views import JobDetail
from txgearman.errors import FunctionNotFound, JobNotFound, Refused
from txgearman.web.api.bulk import LINES, submit_lines
from txgearman.web.api.clients import OCTETS, StreamedResponse, refusal
from txgearman.web.api.functions import no_function
from txgearman.web.api.job_search import (
    FoundJobs,
    JobCursor,
    JobFilter,
    cancel_jobs,
    find_jobs,
    find_running_jobs,
)
from txgearman.web.api.results import answer_with, wait_for_result
from txgearman.web.api.serializers import JOB, LISTED_JOB, STATUS
from txgearman.web.api.submission import submit
from txgearman.web.http.guard import Guard
from txgearman.web.http.responses import HTTPProblem, Response, no_content, to_json
from txgearman.web.http.routing import Call
from txgearman.web.http.stream import EVENT_STREAM, send_stream_head
from txgearman.web.interfaces import Gearman
from txgearman.web.settings import WebSettings


class JobEndpoints:
    """The endpoints about jobs; the table says what each is for."""

    def __init__(self, gearman: Gearman, settings: WebSettings, guard: Guard, reactor: IReactorTime) -> None:
        self._gearman = gearman
        self._settings = settings
        self._guard = guard
        self._reactor = reactor

    async def jobs(self, call: Call) -> Response:
        """A page of the jobs of a function."""
        name = call.ids[0]
        state = call.arguments["state"]
        job_filter = JobFilter(name, state, call.arguments["search"])
        cursor, limit = call.arguments["after"], call.arguments["limit"]
        try:
            self._gearman.inspection.function_detail(name)
            if state == JobState.RUNNING.value:
                found = await find_running_jobs(self._gearman, self._reactor, job_filter, cursor, limit)
            else:
                found = await find_jobs(self._gearman, self._reactor, job_filter, cursor, limit)
        except FunctionNotFound as error:
            raise no_function() from error
        except Refused as error:
            raise refusal(error) from error
        return _page(found)

    async def retrying(self, call: Call) -> Response:
        """A page of the jobs of all functions that wait for a retry."""
        job_filter = JobFilter(None, JobState.RETRYING.value, call.arguments["search"])
        cursor, limit = JobCursor(call.arguments["after"]), call.arguments["limit"]
        return _page(await find_jobs(self._gearman, self._reactor, job_filter, cursor, limit))

    def submit(self, call: Call) -> None:
        """Submit a job, or very many."""
        content_type = call.request.getHeader(b"Content-Type") or b""
        if content_type.partition(b";")[0].strip().lower() == LINES:
            submit_lines(self._gearman, call, self._reactor, self._settings, self._guard, call.ids[0])
            return
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

    async def cancel_all(self, call: Call) -> Response:
        """Cancel all jobs of a function."""

        def cancelled(count: int) -> None:
            call.effect.jobs = (call.effect.jobs or 0) + count

        try:
            await cancel_jobs(self._gearman, self._reactor, call.ids[0], cancelled)
        except FunctionNotFound as error:
            raise no_function() from error
        return no_content()

    async def job(self, call: Call) -> Response:
        """One job."""
        return Response(to_json(JOB.serialize(await self._find_job(call))))

    async def cancel(self, call: Call) -> Response:
        """Cancel a job, or forget a dead one."""
        handle, force = call.ids[0], call.arguments["force"]
        try:
            self._gearman.broker.cancel(handle, force)
        except JobNotFound:
            if not self._gearman.inspection.may_have_stored_jobs:
                await self._ask(self._gearman.dead_jobs.forget, handle)
                call.effect.jobs = 1
                return no_content()
            try:
                await self._ask(partial(self._gearman.search.seek_and_cancel, force=force), handle)
            except HTTPProblem as problem:
                if problem.status != 404:
                    raise
                await self._ask(self._gearman.dead_jobs.forget, handle)
        call.effect.jobs = 1
        return no_content()

    async def data(self, call: Call) -> Response:
        """A job's data, or a part of it."""
        detail = await self._find_job(call)
        data = detail.data
        if data is None and detail.state is JobState.GONE:
            raise HTTPProblem(404, "data-gone", "The job has ended, and its data is not kept.")
        if data is None:
            raise HTTPProblem(409, "elsewhere", "Another server on the same store has this job.")
        offset, length = call.arguments["offset"], call.arguments["length"]
        part = data[offset:] if length is None else data[offset : offset + length]
        return Response(part, OCTETS, headers=((b"Content-Disposition", b"attachment"),))

    async def result(self, call: Call) -> Response:
        """The result of a background job, if it is kept."""
        handle = call.ids[0]
        results = self._gearman.results
        found: FoundResult = await self._ask(results.find, handle)
        seconds = call.arguments["wait"]
        if found.state is ResultState.PENDING and seconds:
            ended = await wait_for_result(results, handle, seconds, self._reactor)
            found = await self._ask(results.find, handle) if ended is None else ended
        return answer_with(handle, found)

    def watch(self, call: Call) -> None:
        """What a job's worker sends from now on, as events."""
        broker = self._gearman.broker
        try:
            handle = self._gearman.inspection.job_detail(call.ids[0]).handle
        except JobNotFound as error:
            raise _no_job() from error
        if call.is_head:
            send_stream_head(call.request)
            return
        connection = StreamedResponse(broker, call.request, self._reactor)
        connection.begin()
        broker.watch(connection.client, handle)
        connection.submitted()

    def status(self, call: Call) -> Response:
        """The status of the newest job with a unique."""
        status = self._gearman.inspection.status_by_unique(call.arguments["unique"])
        return Response(to_json(STATUS.serialize(status)))

    async def _find_job(self, call: Call) -> JobDetail:
        """The job that the path names, whatever has become of it. Raises `HTTPProblem`."""
        detail: JobDetail = await self._ask(self._gearman.lookup.find, call.ids[0])
        return detail

    async def _ask(self, verb: Callable[[bytes, Callable[[Any], None]], None], handle: bytes) -> Any:
        """What a verb of the broker tells of a job. Raises `HTTPProblem`."""
        told: Deferred[Any] = Deferred()
        verb(handle, told.callback)
        found = await told
        if isinstance(found, JobNotFound):
            raise _no_job()
        if isinstance(found, Refused):
            raise refusal(found)
        return found


def _page(found: FoundJobs) -> Response:
    next_cursor = None if found.next_cursor is None else str(found.next_cursor)
    return Response(to_json({"jobs": [LISTED_JOB.serialize(job) for job in found.jobs], "next": next_cursor}))


def _no_job() -> HTTPProblem:
    return HTTPProblem(404, "no-such-job", "The server has no job with this handle.")
