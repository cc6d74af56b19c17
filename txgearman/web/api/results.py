"""Results of background jobs over HTTP: waiting for them, and the response to each state."""

from __future__ import annotations

from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from txgearman.broker.result_lookup import FoundResult, ResultState
from txgearman.errors import Refused
from txgearman.web.api.clients import OCTETS, refusal
from txgearman.web.http.encoding import text
from txgearman.web.http.responses import HTTPProblem, Response, to_json
from txgearman.web.interfaces import Results

MAX_WAIT: Final = 3600
"""Seconds that a request may wait for a result. Proxies end a silent request long before."""


async def wait_for_result(
    results: Results, handle: bytes, seconds: float, reactor: IReactorTime
) -> FoundResult | None:
    """Wait for the result of a job that is pending.

    Args:
        results: The server's results.
        handle: The job's handle.
        seconds: How long to wait.
        reactor: The clock.

    Returns:
        What is known of the result when the job is not pending any more; None if the time is over before.

    Raises:
        HTTPProblem: Too many wait.
    """
    told: Deferred[FoundResult | None] = Deferred()
    try:
        wait = results.wait(handle, told.callback)
    except Refused as error:
        raise refusal(error) from error
    limit = reactor.callLater(seconds, told.callback, None)
    try:
        return await told
    finally:
        # The client may have gone.
        wait.cancel()
        if limit.active():
            limit.cancel()


def answer_with(handle: bytes, found: FoundResult) -> Response:
    """Make the response.

    Args:
        handle: The job's handle.
        found: What is known of its result.

    Returns:
        The result, or the state of a job that is pending.

    Raises:
        HTTPProblem: There is no result, and will not be one.
    """
    reason = found.reason
    match found.state:
        case ResultState.COMPLETED:
            return Response(found.data, OCTETS, headers=((b"Content-Disposition", b"attachment"),))
        case ResultState.PENDING:
            return Response(to_json({"handle": text(handle), "state": reason}), status=202)
        case ResultState.FAILED:
            said = f" The worker said: {text(found.data)}" if found.data else ""
            raise HTTPProblem(502, f"job-{reason}", f"The job has no result, it ended as {reason}.{said}")
        case ResultState.TOO_LARGE:
            raise HTTPProblem(
                502, "result-too-large", "The job was completed, but its result was too large to be kept."
            )
        case ResultState.GONE if reason == "completed":
            raise HTTPProblem(410, "result-gone", "The job was completed, and its result is not kept.")
        case ResultState.GONE:
            raise HTTPProblem(410, f"job-{reason}", f"The job has no result, it ended as {reason}.")
    raise HTTPProblem(404, "no-such-job", "The server knows of no job with this handle, and of no result.")
