"""The OpenAPI 3.1 description of the HTTP interface, made of the table that serves it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from txgearman.version import VERSION
from txgearman.web.api.serializers import (
    CONNECTION,
    COUNT,
    DATA_MEMBERS,
    DEAD,
    DEFINITION,
    EVENT,
    FLAG,
    FUNCTION,
    INTEGER_OR_NULL,
    JOB,
    LIMIT_OR_NULL,
    LISTED_JOB,
    LISTED_SCHEDULE,
    NUMBER,
    NUMBER_OR_NULL,
    PRIORITY_NAMES,
    RUN_LIMITS,
    SCHEDULE,
    SERVER,
    STATUS,
    TEXT,
    TEXT_OR_NULL,
    Schema,
    array_schema,
    object_schema,
)
from txgearman.web.http.routing import Parameter, Route


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _change_schema(**properties: Schema) -> Schema:
    """The schema of the body of a PATCH: it has the members that are to change."""
    return {"type": "object", "properties": properties, "additionalProperties": False}


_DURATIONS: Final = ("every", "jitter", "missed_window")

_DEFINED: Final[dict[str, Schema]] = {
    **{name: _or_null(schema) for name, schema in DEFINITION.items()},
    # As in the configuration file: a number, or text such as 90s.
    **{name: {"type": ["number", "string", "null"]} for name in _DURATIONS},
    **dict.fromkeys(DATA_MEMBERS, TEXT_OR_NULL),
}
"""What may be said of a schedule. What is missing or null has its default."""


def _schemas() -> dict[str, Schema]:
    return {
        "Problem": object_schema(type=TEXT, title=TEXT, status={"type": "integer"}, detail=TEXT, code=TEXT),
        "Description": {"type": "object"},
        "Server": SERVER.schema,
        "Function": FUNCTION.schema,
        "Functions": object_schema(
            functions=array_schema(_ref("Function")), total=COUNT, next=INTEGER_OR_NULL
        ),
        "FunctionHistory": object_schema(
            columns=array_schema(TEXT), samples=array_schema(array_schema(NUMBER_OR_NULL)), step=NUMBER
        ),
        "FunctionChange": _change_schema(
            paused=FLAG,
            limits=_change_schema(**dict.fromkeys(PRIORITY_NAMES, LIMIT_OR_NULL)),
            run_limits=_change_schema(**RUN_LIMITS.schema["properties"]),
        ),
        "Job": JOB.schema,
        "DeadJobs": object_schema(jobs=array_schema(DEAD.schema), next=TEXT_OR_NULL),
        "Retried": object_schema(retried=COUNT, skipped=COUNT),
        "Forgotten": object_schema(forgotten=COUNT, skipped=COUNT),
        "ListedJob": LISTED_JOB.schema,
        "Jobs": object_schema(jobs=array_schema(_ref("ListedJob")), next=TEXT_OR_NULL),
        "Accepted": object_schema(handle=TEXT),
        "PendingResult": object_schema(handle=TEXT, state=TEXT),
        "Status": STATUS.schema,
        "Schedule": SCHEDULE.schema,
        "Schedules": object_schema(
            schedules=array_schema(LISTED_SCHEDULE.schema), total=COUNT, next=INTEGER_OR_NULL
        ),
        "ScheduleDefinition": {**_change_schema(**_DEFINED), "required": ["function"]},
        "ScheduleChange": _change_schema(**_DEFINED, paused=FLAG),
        "Ticks": object_schema(ticks=array_schema(NUMBER)),
        "Connection": CONNECTION.schema,
        "Connections": object_schema(connections=array_schema(_ref("Connection")), next=INTEGER_OR_NULL),
        "ConnectionChange": _change_schema(quiet=FLAG),
        "Found": object_schema(
            jobs=array_schema(_ref("ListedJob")),
            functions=array_schema(object_schema(id=TEXT, name=TEXT)),
            total=COUNT,
        ),
        "Activity": object_schema(events=array_schema(EVENT.schema), total=COUNT, next=INTEGER_OR_NULL),
    }


def describe(routes: tuple[Route, ...]) -> dict[str, Any]:
    """The description, as values for JSON."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "txgearman",
            "version": VERSION,
            "description": "Jobs over HTTP, and the views and verbs of an administrator. "
            "Names in paths are percent-encoded bytes. For a function whose name is no segment of a path "
            "(empty, . or ..) ask for /function, with the parameter function, not for /functions/{function}.",
        },
        "servers": [{"url": "/api/v1"}],
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    named = [segment.strip("{}") for segment in route.segments if segment.startswith("{")]
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in named
    ]
    parameters += [_parameter(parameter) for parameter in route.parameters]
    responses = {str(status): _response(status, what) for status, what in route.responses.items()}
    if route.body.value == "bytes":
        responses["200"]["content"]["text/event-stream"] = {"schema": TEXT}
        responses["200"]["content"]["application/x-ndjson"] = {"schema": TEXT}
    refusals = {421, *route.problems}
    if route.parameters or route.body.value == "none":
        refusals.add(400)
    # To look needs a right too where there is an access policy.
    refusals |= {401, 403}
    for status in sorted(refusals):
        responses[str(status)] = _response(status, "Problem")
    operation: dict[str, Any] = {
        "operationId": route.handler.__name__.strip("_"),
        "summary": route.summary,
        "parameters": parameters,
        "responses": responses,
    }
    operation["security"] = [{}, {"token": []}]
    if route.body.value == "json":
        content = {"application/json": {"schema": _ref(route.body_schema)}}
        operation["requestBody"] = {"required": True, "content": content}
    elif route.body.value == "bytes":
        operation["requestBody"] = {
            "required": False,
            "content": {"application/octet-stream": {}, "application/x-ndjson": {}},
        }
    return operation


def _response(status: int, what: str) -> dict[str, Any]:
    response: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    if what == "Problem":
        response["content"] = {"application/problem+json": {"schema": _ref(what)}}
    elif "/" in what:
        response["content"] = {what: {}}
    elif what:
        response["content"] = {"application/json": {"schema": _ref(what)}}
    return response


def _parameter(parameter: Parameter) -> dict[str, Any]:
    kinds: dict[str, dict[str, Any]] = {
        "text": {"type": "string"},
        "flag": {"type": "boolean"},
        "number": {"type": "integer", "minimum": parameter.minimum, "maximum": parameter.maximum},
        "choice": {"enum": list(parameter.choices)},
        "cursor": {"type": "string", "pattern": f"^{parameter.pattern}$"},
    }
    schema = kinds[parameter.kind]
    if parameter.max_length:
        schema["maxLength"] = parameter.max_length
    meaning = parameter.meaning
    if parameter.header is not None:
        meaning += f" The header {parameter.header} says the same."
    return {"name": parameter.name, "in": "query", "description": meaning, "schema": schema}
