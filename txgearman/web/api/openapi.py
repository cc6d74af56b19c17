"""The OpenAPI 3.1 description of the HTTP interface, made of the table that serves it."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from txgearman.version import VERSION

if TYPE_CHECKING:
    from txgearman.web.http.routes import Parameter, Route

_COUNT: Final = {"type": "integer", "minimum": 0}
_TEXT: Final = {"type": "string"}
_FLAG: Final = {"type": "boolean"}
_SECONDS: Final = {"type": ["number", "null"]}
_STATES: Final = {"enum": ["scheduled", "saving", "queued", "running", "stored"]}


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _list_of(name: str) -> dict[str, Any]:
    return {"type": "array", "items": _ref(name)}


def _by_priority(schema: dict[str, Any]) -> dict[str, Any]:
    return _object(high=schema, normal=schema, low=schema)


def _schemas() -> dict[str, Any]:
    limit = {"type": ["integer", "null"], "minimum": 1, "maximum": 10**15}
    following = {"type": ["integer", "null"]}
    progress = {"numerator": _COUNT, "denominator": _COUNT}
    problem = _object(type=_TEXT, title=_TEXT, status={"type": "integer"}, detail=_TEXT, code=_TEXT)
    return {
        "Problem": problem,
        "Description": {"type": "object"},
        "Server": _object(
            version=_TEXT,
            host=_TEXT,
            pid=_COUNT,
            memory={"type": ["integer", "null"]},
            total=_COUNT,
            queued=_by_priority(_COUNT),
            scheduled=_COUNT,
            running=_COUNT,
            submitted=_COUNT,
            completed=_COUNT,
            failed=_COUNT,
            retried=_COUNT,
            functions=_COUNT,
            paused=_COUNT,
            connections=_COUNT,
            workers=_COUNT,
            store={
                **_object(
                    available=_FLAG,
                    saved=_COUNT,
                    unsaved=_COUNT,
                    lag={"type": "number"},
                    commits=_COUNT,
                    failures=_COUNT,
                ),
                "type": ["object", "null"],
            },
            limits={
                "type": "array",
                "items": _object(name=_TEXT, limit={"type": "number"}, used=_COUNT, refused=_COUNT),
            },
            problems={"type": "array", "items": _TEXT},
        ),
        "Function": _object(
            id=_TEXT,
            name=_TEXT,
            total=_COUNT,
            queued=_by_priority(_COUNT),
            away=_COUNT,
            behind=_by_priority({"type": ["integer", "null"]}),
            scheduled=_COUNT,
            running=_COUNT,
            workers=_COUNT,
            paused=_FLAG,
            limits=_by_priority(limit),
            oldest=_SECONDS,
            submitted=_COUNT,
            completed=_COUNT,
            failed=_COUNT,
            retried=_COUNT,
            refused=_COUNT,
        ),
        "Functions": _object(functions=_list_of("Function"), total=_COUNT, next=following),
        "FunctionChange": {
            "type": "object",
            "properties": {
                "paused": _FLAG,
                "limits": {
                    "type": "object",
                    "properties": {"high": limit, "normal": limit, "low": limit},
                    "additionalProperties": False,
                },
            },
            "additionalProperties": False,
        },
        "Job": _object(
            handle=_TEXT,
            function=_TEXT,
            function_id=_TEXT,
            unique=_TEXT,
            state=_STATES,
            priority={"enum": ["high", "normal", "low"]},
            background=_FLAG,
            reducer={"type": ["string", "null"]},
            attempts=_COUNT,
            submitted={"type": "number"},
            seconds=_SECONDS,
            run_in=_SECONDS,
            left=_SECONDS,
            **progress,
            clients=_COUNT,
            worker={"type": ["integer", "null"]},
            size={"type": ["integer", "null"], "minimum": 0},
            preview=_TEXT,
            place={"type": ["integer", "null"]},
        ),
        "Jobs": _object(jobs=_list_of("Job"), next={"type": ["string", "null"]}),
        "Accepted": _object(handle=_TEXT),
        "Status": _object(known=_FLAG, running=_FLAG, **progress, clients=_COUNT),
        "Connection": _object(
            number=_COUNT,
            host=_TEXT,
            id=_TEXT,
            functions={"type": "array", "items": _TEXT},
            functions_total=_COUNT,
            quiet=_FLAG,
            state={"enum": ["awake", "asleep", "woken"]},
            jobs={
                "type": "array",
                "items": _object(handle=_TEXT, function=_TEXT, seconds=_SECONDS, **progress),
            },
            jobs_total=_COUNT,
            waits_for=_COUNT,
        ),
        "Connections": _object(connections=_list_of("Connection"), next=following),
        "ConnectionChange": {
            "type": "object",
            "properties": {"quiet": _FLAG},
            "additionalProperties": False,
        },
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
        responses["200"]["content"]["text/event-stream"] = {"schema": _TEXT}
    refusals = {421, *route.problems}
    if route.parameters or route.body.value == "none":
        refusals.add(400)
    # To look needs a right too where there is an access policy.
    refusals |= {401, 403}
    for status in sorted(refusals):
        responses[str(status)] = _response(status, "Problem")
    operation: dict[str, Any] = {
        "operationId": route.answer.__name__.strip("_"),
        "summary": route.summary,
        "parameters": parameters,
        "responses": responses,
    }
    operation["security"] = [{}, {"token": []}]
    if route.body.value == "json":
        content = {"application/json": {"schema": _ref(route.body_schema)}}
        operation["requestBody"] = {"required": True, "content": content}
    elif route.body.value == "bytes":
        operation["requestBody"] = {"required": False, "content": {"application/octet-stream": {}}}
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
        "number": {"type": "integer", "minimum": parameter.low, "maximum": parameter.high},
        "choice": {"enum": list(parameter.choices)},
        "cursor": {"type": "string", "pattern": "^(stored-[0-2]-)?[0-9]{1,19}$"},
    }
    schema = kinds[parameter.kind]
    if parameter.longest:
        schema["maxLength"] = parameter.longest
    meaning = parameter.meaning
    if parameter.header is not None:
        meaning += f" The header {parameter.header} says the same."
    return {"name": parameter.name, "in": "query", "description": meaning, "schema": schema}
