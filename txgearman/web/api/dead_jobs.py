"""Dead jobs and retries over HTTP. The paths are in `routes`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from txgearman.broker.dead_job import DeadCursor, DeadFilter, DeadPage
from txgearman.broker.dead_job_administration import Progress
from txgearman.errors import JobNotFound, Refused, UniqueInUse
from txgearman.web.api.clients import refusal
from txgearman.web.api.serializers import DEAD
from txgearman.web.http.responses import HTTPProblem, Response, no_content, to_json
from txgearman.web.http.routing import Call
from txgearman.web.interfaces import Gearman

AT_ONCE: Final = 100
"""Dead jobs that are retried or forgotten in one go, before others have their turn."""

MAX_PER_SECOND: Final = 100_000

CURSOR_PATTERN: Final = r"[0-9]{1,12}(?:\.[0-9]{1,9})?-[0-9]{1,18}"
_CURSOR: Final = re.compile(rb"([0-9]{1,12}(?:\.[0-9]{1,9})?)-([0-9]{1,18})", re.ASCII)


def read_dead_cursor(text: bytes) -> DeadCursor | None:
    """Read a cursor as `_show_cursor` writes it.

    Args:
        text: What a peer sent.

    Returns:
        The cursor, or None if `text` is not one.
    """
    found = _CURSOR.fullmatch(text)
    return None if found is None else DeadCursor(float(found[1]), int(found[2]))


def _show_cursor(cursor: DeadCursor | None) -> str | None:
    return None if cursor is None else f"{cursor.ended!r}-{cursor.number}"


class DeadJobEndpoints:
    """The endpoints about dead jobs; the table of routes says what each is for."""

    def __init__(self, gearman: Gearman, reactor: IReactorTime) -> None:
        self._gearman = gearman
        self._reactor = reactor

    async def dead(self, call: Call) -> Response:
        """A page of the dead jobs."""
        cursor, limit = call.arguments["after"], call.arguments["limit"]
        page: DeadPage = await _answer(self._gearman.dead_jobs.page, _wanted(call), cursor, limit, False)
        jobs = [DEAD.serialize(job) for job in page.jobs]
        return Response(to_json({"jobs": jobs, "next": _show_cursor(page.next)}))

    async def retry(self, call: Call) -> Response:
        """Run a dead job again, or one that waits for its retry at once."""
        await _answer(self._gearman.dead_jobs.retry, call.ids[0])
        call.effect.jobs = 1
        return no_content()

    async def retry_all(self, call: Call) -> Response:
        """Run the dead jobs of all functions again."""
        return await self.retry_dead(call)

    async def forget_all(self, call: Call) -> Response:
        """Forget the dead jobs of all functions."""
        return await self.forget_dead(call)

    async def retry_dead(self, call: Call) -> Response:
        """Run the dead jobs of a function again, so many a second at most."""
        per_second = call.arguments["per_second"]
        at_once = AT_ONCE if per_second is None else max(1, min(AT_ONCE, per_second // 10))
        pause = 0 if per_second is None else at_once / per_second
        verb = self._gearman.dead_jobs.retry_some
        return await self._all(call, verb, at_once, pause, "retried")

    async def forget_dead(self, call: Call) -> Response:
        """Forget the dead jobs of a function."""
        verb = self._gearman.dead_jobs.forget_some
        return await self._all(call, verb, AT_ONCE, 0, "forgotten")

    async def _all(
        self, call: Call, verb: Callable[..., None], at_once: int, pause: float, done: str
    ) -> Response:
        """Call a verb for all those dead jobs that were there when it began."""
        wanted = _wanted(call)
        progress = Progress(0, 0, None)
        count = skipped = 0
        while True:
            progress = await _answer(verb, wanted, progress.next, at_once)
            call.effect.jobs = count = count + progress.done
            skipped += progress.skipped
            if progress.next is None:
                return Response(to_json({done: count, "skipped": skipped}))
            await deferLater(self._reactor, pause, lambda: None)


def _wanted(call: Call) -> DeadFilter:
    """Which dead jobs a request is about: those of the function in its path or its query, if one is there."""
    function = call.ids[0] if call.ids else call.arguments["function"]
    return DeadFilter(function, call.arguments["search"])


async def _answer(verb: Callable[..., None], *arguments: Any) -> Any:
    """What a verb of the broker tells. Raises `HTTPProblem` for a refusal."""
    told: Deferred[Any] = Deferred()
    verb(*arguments, told.callback)
    answer = await told
    if isinstance(answer, JobNotFound):
        raise HTTPProblem(404, "no-such-job", "No dead job has this handle, and none waits for its retry.")
    if isinstance(answer, UniqueInUse):
        raise HTTPProblem(409, "unique-in-use", f"{answer.text}. It stays dead.")
    if isinstance(answer, Refused):
        raise refusal(answer)
    return answer
