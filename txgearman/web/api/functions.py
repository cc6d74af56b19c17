"""Functions over HTTP: lists, pauses, limits. The paths are in `routes`."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from txgearman.broker.job_states import PRIORITIES
from txgearman.broker.policy import MAX_SEPARATOR, MAX_START_RATE, RunRules
from txgearman.broker.views import FunctionView
from txgearman.errors import FunctionInUse, FunctionNotFound, Refused
from txgearman.web.api.clients import refusal
from txgearman.web.api.function_history import FunctionHistory, as_json
from txgearman.web.api.job_search import compile_search
from txgearman.web.api.serializers import FUNCTION, MAX_LIMIT, PRIORITY_NAMES, RUN_LIMITS
from txgearman.web.http.responses import HTTPProblem, Response, no_content, to_json
from txgearman.web.http.routing import Call
from txgearman.web.interfaces import Gearman
from txgearman.web.slices import iterate_in_slices

_NUMBERS: Final = tuple(name for name in RUN_LIMITS.schema["properties"] if name != "key_separator")


class FunctionEndpoints:
    """The endpoints about functions; the table says what each is for."""

    def __init__(self, gearman: Gearman, history: FunctionHistory, reactor: IReactorTime) -> None:
        self._gearman = gearman
        self._history = history
        self._reactor = reactor

    async def functions(self, call: Call) -> Response:
        """A page of functions by name."""
        cursor, limit = call.arguments["after"], call.arguments["limit"]
        matches = compile_search(call.arguments["search"].lower())
        inspection = self._gearman.inspection
        names: list[bytes] = []

        def take(functions: list[FunctionView]) -> None:
            names.extend(view.name for view in functions if matches(view.name.lower()))

        await iterate_in_slices(inspection.functions(), take, self._reactor)
        names.sort()
        shown = []
        for name in names[cursor : cursor + limit]:
            # One may have gone meanwhile.
            with suppress(FunctionNotFound):
                shown.append(FUNCTION.serialize(inspection.function_detail(name)))
        next_cursor = cursor + limit if cursor + limit < len(names) else None
        return Response(to_json({"functions": shown, "total": len(names), "next": next_cursor}))

    def function(self, call: Call) -> Response:
        """One function."""
        try:
            return Response(
                to_json(FUNCTION.serialize(self._gearman.inspection.function_detail(call.ids[0])))
            )
        except FunctionNotFound as error:
            raise no_function() from error

    def history(self, call: Call) -> Response:
        """The past of a function."""
        name = call.ids[0]
        try:
            self._gearman.inspection.function_detail(name)
        except FunctionNotFound as error:
            raise no_function() from error
        coarse = call.arguments["span"] == "day"
        return Response(to_json(as_json(self._history.samples(name, coarse), coarse)))

    async def change_function(self, call: Call) -> Response:
        """Pause or resume a function, or set its limits of jobs and of runs, and show it."""
        name, administration = call.ids[0], self._gearman.administration
        wish = call.json({"paused": bool, "limits": dict, "run_limits": dict})
        limits = None if "limits" not in wish else _limits(wish["limits"])
        try:
            function = self._gearman.inspection.function_detail(name)
            runs = None if "run_limits" not in wish else _run_limits(function.runs, wish["run_limits"])
            if runs is not None:
                administration.limit_runs(name, runs)
            if limits is not None:
                administration.set_limits(name, limits)
            if "paused" in wish:
                (administration.pause_function if wish["paused"] else administration.resume_function)(name)
        except FunctionNotFound as error:
            raise no_function() from error
        except Refused as error:
            raise refusal(error) from error
        await self._stored()
        return self.function(call)

    async def _stored(self) -> None:
        """Wait until what was set is durable. Raises `HTTPProblem` if it cannot be stored now."""
        stored: Deferred[Refused | None] = Deferred()
        self._gearman.administration.when_stored(stored.callback)
        problem = await stored
        if problem is not None:
            raise refusal(problem)

    async def drop(self, call: Call) -> Response:
        """Forget a function that has no workers and no jobs."""
        try:
            self._gearman.administration.drop_function(call.ids[0])
        except FunctionNotFound as error:
            raise no_function() from error
        except FunctionInUse as error:
            raise HTTPProblem(409, "function-in-use", "The function has workers or jobs.") from error
        await self._stored()
        return no_content()


def _limits(wish: dict[str, Any]) -> tuple[int | None, ...]:
    """The limits by priority of a JSON object; a priority that it does not name has none."""
    for name, limit in wish.items():
        # In JSON 7.0 is a whole number too.
        is_number = type(limit) in (int, float) and limit % 1 == 0 and 0 < limit <= MAX_LIMIT
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


def _run_limits(rules: RunRules, wish: dict[str, Any]) -> RunRules:
    """The rules with what a JSON object says of them; what it does not name stays."""
    values: dict[str, Any] = {}
    for name, value in wish.items():
        if name == "key_separator":
            # Half of a surrogate pair is no character.
            separator = value.encode("utf-8", "replace") if type(value) is str else b""
            is_right = separator.decode() == value and 0 < len(value) <= MAX_SEPARATOR
            values[name] = separator
        else:
            whole = name != "start_rate"
            most = MAX_START_RATE if name.startswith("start_") else MAX_LIMIT
            is_number = type(value) in (int, float) and 0 < value <= most
            is_right = name in RUN_LIMITS.schema["properties"] and (
                value is None or (is_number and (not whole or value % 1 == 0))
            )
            values[name] = 0 if value is None or not is_right else int(value) if whole else float(value)
        if not is_right:
            raise HTTPProblem(
                400,
                "bad-member",
                f"Limits of runs are numbers above 0, or null for none, for {', '.join(_NUMBERS)}, and a "
                f"key_separator of 1 to {MAX_SEPARATOR} characters.",
            )
    return replace(rules, **values)


def no_function() -> HTTPProblem:
    """The function that a path names is not known."""
    return HTTPProblem(404, "no-such-function", "The server has no function with this name.")
