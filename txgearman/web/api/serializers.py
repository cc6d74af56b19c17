"""What the server shows, as values for JSON: one table for each view.

A row has the name, the schema and the value of a field. Responses, live documents and the OpenAPI description
are made of the same tables.
"""

from __future__ import annotations

import operator
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from txgearman.access.actor import Actor
from txgearman.broker.dead_job import DeadJob
from txgearman.broker.failures import FailedRun
from txgearman.broker.job_options import NO_OPTIONS, JobOptions
from txgearman.broker.job_states import OUTCOME_NAMES, Priority
from txgearman.broker.policy import MAX_SEPARATOR, MAX_START_RATE, RunRules
from txgearman.broker.schedule import Missed, Overlap, ScheduleDetail
from txgearman.broker.views import FunctionDetail, JobDetail, JobStatus
from txgearman.version import VERSION, build
from txgearman.web.api.totals import ServerView, resident_memory
from txgearman.web.http.encoding import identifier, payload, text
from txgearman.web.interfaces import Connection, Event, Limit, Saved, connection_of

View = TypeVar("View")
Schema = dict[str, Any]
"""A JSON Schema, as values for JSON."""

PREVIEW: Final = 120
"""Bytes of a payload that a list shows."""

MAX_FUNCTIONS: Final = 50
"""Functions of a connection that are named; a worker may have thousands."""

MAX_JOBS: Final = 20
"""Running jobs of a connection that are named."""

MAX_LIMIT: Final = 10**15
"""Jobs: the largest limit of a function that may be set."""

STORED: Final = "stored"
"""The state of a job that is not in memory."""

JOB_STATES: Final = (
    "saving",
    "scheduled",
    "queued",
    STORED,
    "running",
    "retrying",
    "dead",
    "ended",
)

PRIORITY_NAMES: Final = tuple(priority.name.lower() for priority in Priority)


# -- the parts of tables ------------------------------------------------------------------------

COUNT: Final = {"type": "integer", "minimum": 0}
TEXT: Final = {"type": "string"}
FLAG: Final = {"type": "boolean"}
NUMBER: Final = {"type": "number"}
INTEGER_OR_NULL: Final = {"type": ["integer", "null"]}
NUMBER_OR_NULL: Final = {"type": ["number", "null"]}
TEXT_OR_NULL: Final = {"type": ["string", "null"]}
LIMIT_OR_NULL: Final = {"type": ["integer", "null"], "minimum": 1, "maximum": MAX_LIMIT}


def object_schema(**properties: Schema) -> Schema:
    """The schema of an object that has exactly these members."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def array_schema(items: Schema) -> Schema:
    """The schema of an array of `items`."""
    return {"type": "array", "items": items}


def priorities_schema(schema: Schema) -> Schema:
    """The schema of what `by_priority` makes of values that are each as `schema` says."""
    return object_schema(**dict.fromkeys(PRIORITY_NAMES, schema))


def by_priority(values: tuple[Any, ...]) -> dict[str, Any]:
    """Numbers by priority, with the priorities' names."""
    return dict(zip(PRIORITY_NAMES, values, strict=True))


@dataclass(frozen=True, slots=True)
class Field(Generic[View]):
    """A member of an object in JSON.

    Args:
        name: The member's name.
        schema: What its values are.
        value: Gets the value from a view; without it, that is the attribute of the same name.
    """

    name: str
    schema: Schema
    value: Callable[[View], Any] | None = None


class Serializer(Generic[View]):
    """Writes views of one kind as objects for JSON, with these fields in this order."""

    def __init__(self, *fields: Field[View]) -> None:
        self.schema: Final = object_schema(**{field.name: field.schema for field in fields})
        self._values: Final[list[tuple[str, Callable[[View], Any]]]] = [
            (field.name, field.value or operator.attrgetter(field.name)) for field in fields
        ]

    def serialize(self, view: View) -> dict[str, Any]:
        """The object of a view."""
        return {name: value(view) for name, value in self._values}


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


# -- functions ----------------------------------------------------------------------------------

_RATE: Final = NUMBER_OR_NULL | {"exclusiveMinimum": 0, "maximum": MAX_START_RATE}

_BURST: Final = LIMIT_OR_NULL | {"maximum": MAX_START_RATE}
_SEPARATOR: Final = TEXT | {"minLength": 1, "maxLength": MAX_SEPARATOR}

RUN_LIMITS: Final = Serializer[RunRules](
    Field("max_running", LIMIT_OR_NULL, lambda rules: rules.max_running or None),
    Field("start_rate", _RATE, lambda rules: rules.start_rate or None),
    Field("start_burst", _BURST, lambda rules: rules.start_burst or None),
    Field("max_running_per_key", LIMIT_OR_NULL, lambda rules: rules.max_running_per_key or None),
    Field("key_separator", _SEPARATOR, lambda rules: text(rules.key_separator)),
    Field("pause_after", LIMIT_OR_NULL, lambda rules: rules.pause_after or None),
)

FUNCTION: Final = Serializer[FunctionDetail](
    Field("id", TEXT, lambda function: identifier(function.name)),
    Field("name", TEXT, lambda function: text(function.name)),
    Field("total", COUNT),
    Field("queued", priorities_schema(COUNT), lambda function: by_priority(function.queued)),
    Field("away", COUNT, lambda function: function.stored),
    Field("behind", priorities_schema(INTEGER_OR_NULL), lambda function: by_priority(function.stored_after)),
    Field("scheduled", COUNT, lambda function: sum(function.scheduled) - function.retrying),
    Field("retrying", COUNT),
    Field("dead", COUNT),
    Field("running", COUNT),
    Field("workers", COUNT),
    Field("paused", FLAG),
    Field("limits", priorities_schema(LIMIT_OR_NULL), lambda function: by_priority(function.limits)),
    Field("oldest", NUMBER_OR_NULL, lambda function: _rounded(function.oldest)),
    Field("submitted", COUNT),
    Field("completed", COUNT),
    Field("failed", COUNT),
    Field("dropped", COUNT),
    Field("requeued", COUNT, lambda function: function.requeued),
    Field("refused", COUNT),
    Field("run_limits", RUN_LIMITS.schema, lambda function: RUN_LIMITS.serialize(function.runs)),
    Field("blocked", COUNT),
    Field("paused_by_failures", FLAG, lambda function: function.paused_itself),
)


# -- jobs ---------------------------------------------------------------------------------------


def _worker_number(job: JobDetail) -> int | None:
    return None if job.worker is None else connection_of(job.worker).number


def _preview(job: JobDetail) -> str:
    return "" if job.data is None else text(job.data[:PREVIEW])


_HANDLE: Final[Field[JobDetail]] = Field("handle", TEXT, lambda job: text(job.handle))
_FUNCTION: Final[Field[JobDetail]] = Field("function", TEXT, lambda job: text(job.function))
_SECONDS: Final[Field[JobDetail]] = Field("seconds", NUMBER_OR_NULL, lambda job: _rounded(job.seconds))
_NUMERATOR: Final[Field[JobDetail]] = Field("numerator", COUNT, lambda job: job.progress[0])
_DENOMINATOR: Final[Field[JobDetail]] = Field("denominator", COUNT, lambda job: job.progress[1])

_RUN: Final = Serializer[FailedRun](
    Field("started", NUMBER_OR_NULL, lambda run: _rounded(run.started)),
    Field("ended", NUMBER, lambda run: _rounded(run.ended)),
    Field("outcome", {"enum": list(OUTCOME_NAMES.values())}, lambda run: OUTCOME_NAMES[run.outcome]),
    Field("worker", TEXT, lambda run: text(run.worker)),
    Field("error", TEXT, lambda run: text(run.error)),
)

_JOB_FIELDS: Final[tuple[Field[JobDetail], ...]] = (
    _HANDLE,
    _FUNCTION,
    Field("function_id", TEXT, lambda job: identifier(job.function)),
    Field("unique", TEXT, lambda job: text(job.unique)),
    Field("state", {"enum": list(JOB_STATES)}, lambda job: job.shown_state),
    Field("priority", {"enum": list(PRIORITY_NAMES)}, lambda job: PRIORITY_NAMES[job.priority]),
    Field("background", FLAG),
    Field("reducer", TEXT_OR_NULL, lambda job: None if job.reducer is None else text(job.reducer)),
    Field("attempts", COUNT),
    Field("losses", COUNT),
    Field("outcome", {"enum": [*OUTCOME_NAMES.values(), None]}, lambda job: job.outcome_name or None),
    Field("error", TEXT_OR_NULL, lambda job: text(job.error) if job.error else None),
    Field("started", NUMBER_OR_NULL, lambda job: _rounded(job.started)),
    Field("ended", NUMBER_OR_NULL, lambda job: _rounded(job.ended)),
    Field("next_run", NUMBER_OR_NULL, lambda job: _rounded(job.next_run)),
    Field("submitted", NUMBER, lambda job: _rounded(job.submitted)),
    _SECONDS,
    Field("run_in", NUMBER_OR_NULL, lambda job: _rounded(job.run_in)),
    Field("left", NUMBER_OR_NULL, lambda job: _rounded(job.left)),
    _NUMERATOR,
    _DENOMINATOR,
    Field("clients", COUNT),
    Field("worker", INTEGER_OR_NULL, _worker_number),
    Field("size", {**INTEGER_OR_NULL, "minimum": 0}, lambda job: None if job.data is None else len(job.data)),
    Field("preview", TEXT, _preview),
    Field("place", INTEGER_OR_NULL, lambda job: job.position),
)

LISTED_JOB: Final = Serializer[JobDetail](*_JOB_FIELDS)
"""A job in a list, and in a live document: without its runs, whose errors may have 160 KiB."""

_OPTIONS: Final = Serializer[JobOptions](
    Field("expires", NUMBER_OR_NULL),
    Field("attempts", INTEGER_OR_NULL),
    Field("backoff", NUMBER_OR_NULL),
    Field("keep_result", NUMBER_OR_NULL),
    Field("unique_for", NUMBER_OR_NULL),
    Field("traceparent", TEXT_OR_NULL),
)

JOB: Final = Serializer[JobDetail](
    *_JOB_FIELDS,
    Field("last_worker", TEXT, lambda job: text(job.label)),
    Field("runs", array_schema(_RUN.schema), lambda job: [_RUN.serialize(run) for run in job.runs]),
    Field("warnings", array_schema(TEXT), lambda job: [text(warning) for warning in job.warnings]),
    # What was said of this job at its submission, null where what is said of its function holds.
    Field("options", _OPTIONS.schema, lambda job: _OPTIONS.serialize(job.options or NO_OPTIONS)),
)

DEAD: Final = Serializer[DeadJob](
    Field("handle", TEXT, lambda dead: text(dead.handle)),
    Field("function", TEXT, lambda dead: text(dead.function)),
    Field("function_id", TEXT, lambda dead: identifier(dead.function)),
    Field("unique", TEXT, lambda dead: text(dead.unique)),
    Field("priority", {"enum": list(PRIORITY_NAMES)}, lambda dead: PRIORITY_NAMES[dead.priority]),
    Field("outcome", {"enum": list(OUTCOME_NAMES.values())}, lambda dead: OUTCOME_NAMES[dead.outcome]),
    Field("error", TEXT, lambda dead: text(dead.error)),
    Field("attempts", COUNT),
    Field("losses", COUNT),
    Field("worker", TEXT, lambda dead: text(dead.worker)),
    Field("submitted", NUMBER, lambda dead: _rounded(dead.submitted)),
    Field("run_at", NUMBER_OR_NULL, lambda dead: _rounded(dead.run_at)),
    Field("ended", NUMBER, lambda dead: _rounded(dead.ended)),
    Field("size", COUNT),
)

STATUS: Final = Serializer[JobStatus](
    Field("known", FLAG),
    Field("running", FLAG),
    Field("numerator", COUNT),
    Field("denominator", COUNT),
    Field("clients", COUNT),
)


# -- schedules ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ScheduleView:
    """A schedule, and whether the configuration file says what it is."""

    detail: ScheduleDetail
    of_file: bool


DEFINITION: Final[dict[str, Schema]] = {
    "function": TEXT,
    "cron": TEXT_OR_NULL,
    "every": {"type": ["integer", "null"], "minimum": 1},
    "timezone": TEXT,
    "unique": TEXT_OR_NULL,
    "priority": {"enum": list(PRIORITY_NAMES)},
    "jitter": NUMBER,
    "missed": {"enum": [missed.value for missed in Missed]},
    "missed_window": NUMBER,
    "overlap": {"enum": [overlap.value for overlap in Overlap]},
    "enabled": FLAG,
}
"""What `Schedule.definition` returns."""

DATA_MEMBERS: Final = ("data", "data_base64")
"""The payload of a schedule's jobs, as text or in Base64."""


def _defined(name: str) -> Callable[[ScheduleView], Any]:
    return lambda view: view.detail.schedule.definition()[name]


def _last_run(view: ScheduleView) -> dict[str, Any] | None:
    detail = view.detail
    if detail.last_tick is None:
        return None
    return {
        "tick": detail.last_tick,
        "handle": text(detail.last_job),
        "lateness": _rounded(detail.lateness),
    }


def _counts(view: ScheduleView) -> dict[str, int]:
    return {name: getattr(view.detail, name) for name in _TICK_COUNTS}


def _data(view: ScheduleView) -> dict[str, str]:
    shown = payload(view.detail.schedule.data)
    return {("data" if shown["encoding"] == "utf-8" else "data_base64"): shown["data"]}


_TICK_COUNTS: Final = ("ticks", "skipped", "missed", "refused")
_LAST_RUN: Final = object_schema(tick=NUMBER, handle=TEXT, lateness=NUMBER)

_SCHEDULE_FIELDS: Final[tuple[Field[ScheduleView], ...]] = (
    Field("id", TEXT, lambda view: identifier(view.detail.schedule.name)),
    Field("name", TEXT, lambda view: text(view.detail.schedule.name)),
    *[Field(name, schema, _defined(name)) for name, schema in DEFINITION.items()],
    Field("function_id", TEXT, lambda view: identifier(view.detail.schedule.function)),
    Field("size", COUNT, lambda view: len(view.detail.schedule.data)),
    Field("of_file", FLAG),
    Field("state", {"enum": ["active", "paused", "disabled"]}, lambda view: view.detail.state),
    Field("paused", FLAG, lambda view: view.detail.paused),
    Field("next", NUMBER_OR_NULL, lambda view: _rounded(view.detail.next_due)),
    Field("last", {**_LAST_RUN, "type": ["object", "null"]}, _last_run),
    Field("counts", object_schema(**dict.fromkeys(_TICK_COUNTS, COUNT)), _counts),
)

LISTED_SCHEDULE: Final = Serializer[ScheduleView](*_SCHEDULE_FIELDS)
"""A schedule in a list: without the payload of its jobs."""

SCHEDULE: Final = Serializer[ScheduleView](
    *_SCHEDULE_FIELDS,
    Field("data", TEXT_OR_NULL, lambda view: _data(view).get("data")),
    Field("data_base64", TEXT_OR_NULL, lambda view: _data(view).get("data_base64")),
)


# -- connections --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ConnectionView:
    """A connection, and the jobs it works on, or the first of them."""

    connection: Connection
    jobs: list[JobDetail]


def _functions(view: ConnectionView) -> list[str]:
    abilities = view.connection.worker.abilities
    return [text(function.name) for _, function in zip(range(MAX_FUNCTIONS), abilities, strict=False)]


_JOB_OF_CONNECTION: Final = Serializer[JobDetail](_HANDLE, _FUNCTION, _SECONDS, _NUMERATOR, _DENOMINATOR)

CONNECTION: Final = Serializer[ConnectionView](
    Field("number", COUNT, lambda view: view.connection.number),
    Field("host", TEXT, lambda view: view.connection.host),
    Field("id", TEXT, lambda view: text(view.connection.client_id)),
    Field("functions", array_schema(TEXT), _functions),
    Field("functions_total", COUNT, lambda view: len(view.connection.worker.abilities)),
    Field("quiet", FLAG, lambda view: view.connection.worker.quiet),
    Field("state", {"enum": ["awake", "asleep", "woken"]}, lambda view: view.connection.worker.state.value),
    Field(
        "jobs",
        array_schema(_JOB_OF_CONNECTION.schema),
        lambda view: [_JOB_OF_CONNECTION.serialize(job) for job in view.jobs],
    ),
    Field("jobs_total", COUNT, lambda view: len(view.connection.worker.jobs)),
    Field("waits_for", COUNT, lambda view: len(view.connection.client.jobs)),
)


# -- the server ---------------------------------------------------------------------------------


def _store(view: ServerView) -> dict[str, Any] | None:
    saved = None if view.health is None else view.health.saved()
    return None if saved is None else _STORE.serialize(saved)


_STORE: Final = Serializer[Saved](
    Field("available", FLAG),
    Field("saved", COUNT),
    Field("unsaved", COUNT),
    Field("lag", NUMBER, lambda saved: _rounded(saved.lag)),
    Field("commits", COUNT),
    Field("failures", COUNT),
)

_LIMIT: Final = Serializer[Limit](
    Field("name", TEXT), Field("limit", NUMBER), Field("used", COUNT), Field("refused", COUNT)
)

SERVER: Final = Serializer[ServerView](
    Field("version", TEXT, lambda _view: VERSION),
    Field("build", TEXT, lambda _view: build()),
    Field("host", TEXT, lambda _view: platform.node()),
    Field("pid", COUNT, lambda _view: os.getpid()),
    Field("memory", INTEGER_OR_NULL, lambda _view: resident_memory()),
    Field("total", COUNT, lambda view: view.gearman.inspection.total),
    Field("queued", priorities_schema(COUNT), lambda view: by_priority(tuple(view.totals.queued))),
    Field("scheduled", COUNT, lambda view: view.totals.scheduled),
    Field("retrying", COUNT, lambda view: view.totals.retrying),
    Field("dead", COUNT, lambda view: view.count_dead()),
    Field("dead_evicted", COUNT, lambda view: view.gearman.dead_jobs.evicted),
    Field("running", COUNT, lambda view: view.totals.running),
    Field("submitted", COUNT, lambda view: view.totals.submitted),
    Field("completed", COUNT, lambda view: view.totals.completed),
    Field("failed", COUNT, lambda view: view.totals.failed),
    Field("dropped", COUNT, lambda view: view.totals.dropped),
    Field("requeued", COUNT, lambda view: view.totals.requeued),
    Field("functions", COUNT, lambda view: view.totals.functions),
    Field("paused", COUNT, lambda view: view.totals.paused),
    Field("connections", COUNT, lambda view: len(view.gearman.connections)),
    Field("workers", COUNT, lambda view: view.count_workers()),
    Field("store", {**_STORE.schema, "type": ["object", "null"]}, _store),
    Field(
        "limits",
        array_schema(_LIMIT.schema),
        lambda view: [_LIMIT.serialize(limit) for limit in view.gearman.limits()],
    ),
    Field("problems", array_schema(TEXT), lambda view: [] if view.health is None else view.health.problems()),
)


# -- activity -----------------------------------------------------------------------------------

ACTOR: Final = Serializer[Actor](
    Field("address", TEXT),
    Field("client_id", TEXT),
    Field("certificate", TEXT),
    Field("user", INTEGER_OR_NULL),
    Field("rules", array_schema(TEXT), lambda actor: list(actor.rules)),
    Field("web_token", FLAG),
)

EVENT: Final = Serializer[Event](
    Field("number", COUNT),
    Field("time", NUMBER, lambda event: _rounded(event.time)),
    Field(
        "actor",
        {"anyOf": [ACTOR.schema, {"type": "null"}]},
        lambda event: None if event.actor is None else ACTOR.serialize(event.actor),
    ),
    Field("via", TEXT),
    Field("action", TEXT),
    Field("target", TEXT, lambda event: text(event.target)),
    Field("target_id", TEXT, lambda event: identifier(event.target)),
    Field("detail", TEXT),
    Field("jobs", INTEGER_OR_NULL),
)


def event_text(event: Event) -> str:
    """All texts of an event, to search in."""
    actor = event.actor
    who = () if actor is None else (actor.address, actor.client_id, actor.certificate, *actor.rules)
    return " ".join([event.action, text(event.target), event.detail, event.via, *who])
