"""Schedules over HTTP: lists, changes, runs, previews. The paths are in `routes`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from twisted.internet.defer import Deferred

from txgearman.broker.schedule import Schedule, ScheduleDetail
from txgearman.errors import Refused, ScheduleNotFound
from txgearman.web.api.clients import refusal
from txgearman.web.api.job_search import compile_search
from txgearman.web.api.serializers import (
    DATA_MEMBERS,
    DEFINITION,
    LISTED_SCHEDULE,
    SCHEDULE,
    ScheduleView,
)
from txgearman.web.http.encoding import text
from txgearman.web.http.guard import Guard
from txgearman.web.http.responses import HTTPProblem, Response, no_content, to_json
from txgearman.web.http.routing import Call
from txgearman.web.interfaces import Gearman, Scheduling

MAX_PREVIEW: Final = 100
"""Ticks that are shown ahead. To find ten of a schedule that ticks every four years takes 15 milliseconds."""

DEFAULT_PREVIEW: Final = 10


class ScheduleEndpoints:
    """The endpoints about schedules; the table of routes says what each is for."""

    def __init__(self, gearman: Gearman, guard: Guard) -> None:
        self._gearman = gearman
        self._guard = guard

    @property
    def _scheduling(self) -> Scheduling:
        return self._gearman.scheduling

    def schedules(self, call: Call) -> Response:
        """A page of schedules by name."""
        cursor, limit = call.arguments["after"], call.arguments["limit"]
        matches = compile_search(call.arguments["search"].lower())
        found = [name for name in self._scheduling.schedules.names() if matches(name.lower())]
        shown = [LISTED_SCHEDULE.serialize(self._view(name)) for name in found[cursor : cursor + limit]]
        next_cursor = cursor + limit if cursor + limit < len(found) else None
        return Response(to_json({"schedules": shown, "total": len(found), "next": next_cursor}))

    def schedule(self, call: Call) -> Response:
        """One schedule."""
        try:
            return Response(to_json(SCHEDULE.serialize(self._view(call.ids[0]))))
        except ScheduleNotFound as error:
            raise refusal(error) from error

    async def put_schedule(self, call: Call) -> Response:
        """Add a schedule, in place of one of its name."""
        schedule = self._read(call, call.ids[0], call.json(_members()))
        await _answer(self._scheduling.put(schedule))
        return self.schedule(call)

    async def change_schedule(self, call: Call) -> Response:
        """Change what the body has of a schedule, and show it."""
        wish = call.json({**_members(), "paused": bool})
        name, paused = call.ids[0], wish.pop("paused", None)
        self._detail(name)

        def changed(current: Schedule) -> Schedule:
            members = {**_without_other_time(current.definition(), wish), **wish}
            schedule = self._read(call, name, members)
            return schedule if wish.keys() & DATA_MEMBERS else replace(schedule, data=current.data)

        if wish:
            await _answer(self._scheduling.change(name, changed))
        if paused is not None:
            await _answer(self._scheduling.pause(name, paused))
        return self.schedule(call)

    async def remove_schedule(self, call: Call) -> Response:
        """Remove a schedule."""
        await _answer(self._scheduling.remove(call.ids[0]))
        return no_content()

    async def run_schedule(self, call: Call) -> Response:
        """Submit a job of a schedule now."""
        handle = await _answer(self._scheduling.run(call.ids[0]))
        call.effect.jobs = 1
        return Response(to_json({"handle": text(handle)}), status=202)

    def preview_schedule(self, call: Call) -> Response:
        """The next ticks of a schedule that is not added."""
        schedule = self._read(call, call.ids[0], call.json(_members()))
        ticks = self._scheduling.schedules.preview(schedule, call.arguments["limit"])
        return Response(to_json({"ticks": [round(tick, 3) for tick in ticks]}))

    def _read(self, call: Call, name: bytes, members: Mapping[str, Any]) -> Schedule:
        """The schedule that a request describes, whose sender may submit its jobs."""
        try:
            schedule = self._scheduling.read(name, members)
        except ValueError as error:
            raise HTTPProblem(400, "bad-schedule", f"{error}.") from None
        self._guard.check_submit(call.request, schedule.function)
        return schedule

    def _view(self, name: bytes) -> ScheduleView:
        return ScheduleView(self._scheduling.schedules.detail(name), self._scheduling.is_of_file(name))

    def _detail(self, name: bytes) -> ScheduleDetail:
        try:
            return self._scheduling.schedules.detail(name)
        except ScheduleNotFound as error:
            raise refusal(error) from error


def _members() -> dict[str, type]:
    """What a body may say of a schedule. The server checks the values."""
    return dict.fromkeys((*DEFINITION, *DATA_MEMBERS), object)


def _without_other_time(definition: dict[str, Any], wish: Mapping[str, Any]) -> dict[str, Any]:
    """A definition that is to be changed: without ``cron`` if ``every`` is wished for, and the reverse."""
    for name, other in (("cron", "every"), ("every", "cron")):
        if wish.get(name) is not None:
            definition[other] = None
    return definition


async def _answer(asked: Deferred[Any]) -> Any:
    """What a verb returns. Raises `HTTPProblem` for a refusal."""
    try:
        return await asked
    except Refused as error:
        raise refusal(error) from error
