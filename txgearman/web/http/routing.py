"""From a request to its handler: paths, parameters, rights, bodies. No response is made here.

The routes themselves are in `api.routes`, which also describes the interface to the world, see `api.openapi`.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from txgearman.access.actor import Actor
from txgearman.access.patterns import shown
from txgearman.web.http.body import cut_off
from txgearman.web.http.guard import Guard, WebRight
from txgearman.web.http.request import LimitedRequest
from txgearman.web.http.responses import HTTPProblem, Response, not_found
from txgearman.web.interfaces import Activity

MAX_JSON: Final = 64 * 1024
"""Bytes that a body of JSON has at most. A useful one has some hundred; nobody else is served while it is
parsed."""


MAX_SAID: Final = 200
"""Bytes of a body or of a parameter that the log of actions shows."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a request's query, or of its header `header`.

    `kind` says how it is written: ``text`` (any bytes), ``flag`` (true or false), ``number`` (a whole one,
    from `low` to `high`), ``choice`` (one of `choices`), ``cursor`` (the `next` of a page, read by
    `read_cursor`, which returns None for anything else, and described by `pattern`). `default` is its value
    when it is not given.
    """

    name: str
    kind: str
    meaning: str
    default: Any = None
    choices: tuple[str, ...] = ()
    minimum: int = 0
    maximum: int = 0
    max_length: int = 0
    header: str | None = None
    read_cursor: Callable[[bytes], Any] | None = None
    pattern: str = ""

    def parse(self, value: bytes) -> Any:
        """Parse and check a value.

        Args:
            value: The value as it came.

        Returns:
            The value, of the type that `kind` says.

        Raises:
            HTTPProblem: The value is not allowed.
        """
        return getattr(self, f"_{self.kind}")(value)

    def _text(self, value: bytes) -> bytes:
        if self.max_length and len(value) > self.max_length:
            raise self._bad(f"has at most {self.max_length} bytes")
        return value

    def _flag(self, value: bytes) -> bool:
        if value not in (b"true", b"false"):
            raise self._bad("is true or false")
        return value == b"true"

    def _number(self, value: bytes) -> int:
        # int() would take underscores, spaces and digits of other scripts too.
        if value.isdigit() and len(value) <= 20 and self.minimum <= int(value) <= self.maximum:
            return int(value)
        raise self._bad(f"is a whole number from {self.minimum} to {self.maximum}")

    def _cursor(self, value: bytes) -> Any:
        assert self.read_cursor is not None
        cursor = self.read_cursor(value)
        if cursor is None:
            raise self._bad("is what a page has for `next`")
        return cursor

    def _choice(self, value: bytes) -> str:
        text = value.decode("ascii", "replace")
        if text not in self.choices:
            raise self._bad("is one of " + ", ".join(self.choices))
        return text

    def _bad(self, rule: str) -> HTTPProblem:
        return HTTPProblem(400, "bad-parameter", f"The parameter {self.name} {rule}.")


class Parameters:
    """All parameters that a kind of request may have.

    Args:
        parameters: The parameters.
    """

    def __init__(self, parameters: tuple[Parameter, ...]) -> None:
        self._by_name = {parameter.name.encode(): parameter for parameter in parameters}
        # As the names of a request's headers come, in their canonical form.
        self._by_header = {
            parameter.header.title().encode(): parameter for parameter in parameters if parameter.header
        }
        self._defaults = {parameter.name: parameter.default for parameter in parameters}

    def parse(self, request: LimitedRequest) -> dict[str, Any]:
        """Parse the arguments of a request. The query comes before the headers.

        Args:
            request: The request.

        Returns:
            A value for each parameter, by name; the default where none came.

        Raises:
            HTTPProblem: A parameter is unknown, is there twice, or has a value that is not allowed.
        """
        values = self._defaults.copy()
        for name in self._by_header.keys() & request.headers.keys():
            parameter = self._by_header[name]
            if parameter.name.encode() not in request.args:
                values[parameter.name] = parameter.parse(request.headers[name])
        for name, given in request.args.items():
            known = self._by_name.get(name)
            if known is None:
                raise HTTPProblem(400, "unknown-parameter", f"There is no parameter {shown(name)}.")
            if len(given) > 1:
                raise HTTPProblem(400, "bad-parameter", f"The parameter {known.name} is given twice.")
            values[known.name] = known.parse(given[0])
        return values

    def given(self, arguments: dict[str, Any]) -> list[tuple[str, Any]]:
        """The arguments that say more than the defaults do.

        Args:
            arguments: What `parse` returned.

        Returns:
            Their names and values.
        """
        return [(name, value) for name, value in arguments.items() if value != self._defaults[name]]


class Body(Enum):
    """What the body of a request is."""

    NONE = "none"
    BYTES = "bytes"
    JSON = "json"


@dataclass(slots=True)
class Effect:
    """What a request has changed so far, for the log of actions.

    Args:
        jobs: How many jobs; None where it is not about jobs.
        body: What its body says, as text.
    """

    jobs: int | None = None
    body: str = ""


@dataclass(slots=True)
class Call:
    """A request on its way to its handler.

    `ids` are the names in its path, as bytes. `arguments` are the values of its parameters, by name.
    `effect` is what the handler has done.
    """

    request: LimitedRequest
    ids: tuple[bytes, ...]
    arguments: dict[str, Any]
    effect: Effect = field(default_factory=Effect)

    @property
    def is_head(self) -> bool:
        """Whether only the head of the response is asked for."""
        return bool(self.request.method == b"HEAD")

    def json(self, known: dict[str, type]) -> dict[str, Any]:
        """Parse the body as a JSON object.

        Args:
            known: The members that it may have, with their types.

        Returns:
            The members that it has.

        Raises:
            HTTPProblem: The body is too large, is no JSON object, or has other members.
        """
        body = self.body()
        self.effect.body = body[:MAX_SAID].decode("utf-8", "backslashreplace")
        if len(body) > MAX_JSON:
            raise HTTPProblem(413, "too-large", f"A body of JSON has at most {MAX_JSON} bytes.")
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            raise HTTPProblem(400, "bad-json", "The body is not JSON.") from None
        if not isinstance(value, dict):
            raise HTTPProblem(400, "bad-json", "The body is not a JSON object.")
        for name, member in value.items():
            if name not in known or not isinstance(member, known[name]):
                raise HTTPProblem(
                    400, "bad-member", f"The body may have: {', '.join(known)}, of their types."
                )
        return value

    def body(self) -> bytes:
        """Take the body out of the request. Call it once: the body is not kept."""
        content, self.request.content = self.request.content, None
        return bytes(content.getvalue())


Handler = Callable[[Call], "Response | Awaitable[Response | None] | None"]


@dataclass(frozen=True, slots=True)
class Route:
    """A method at a path, and its handler. A route for GET serves HEAD, too.

    Args:
        method: HTTP's method.
        path: The path. A segment in braces stands for any segment.
        right: What the sender must be allowed to do.
        handler: Returns the `Response`, an awaitable of it, or None if it responds by itself.
        summary: What it does, for the description.
        responses: Successful responses: the status, and the name of a schema of `openapi` or a media type.
        problems: Statuses of problems that are specific to this route.
        parameters: All parameters that a request may have.
        body: What the body is.
        body_schema: The name of the schema of a body of JSON.
        action: What it does, as the log of actions calls it. Empty where it changes nothing; None for views
            and submits.
    """

    method: str
    path: str
    right: WebRight
    handler: Handler
    summary: str
    responses: dict[int, str]
    problems: tuple[int, ...] = ()
    parameters: tuple[Parameter, ...] = field(default=())
    body: Body = Body.NONE
    body_schema: str = ""
    action: str | None = None

    arguments: Parameters = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.action is None and self.right not in (WebRight.VIEW, WebRight.SUBMIT):
            raise ValueError(
                f"{self.method} {self.path} needs a name for the log of actions, or an empty one"
            )
        object.__setattr__(self, "arguments", Parameters(self.parameters))

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods of requests that it serves."""
        return ("GET", "HEAD") if self.method == "GET" else (self.method,)

    @property
    def segments(self) -> tuple[str, ...]:
        """The parts of the path."""
        return tuple(self.path.strip("/").split("/"))

    @property
    def pattern(self) -> tuple[bytes, ...]:
        """The parts of the path as they come in a request, but for those at `any_at`."""
        return tuple(part.encode() for part in self.segments)

    @property
    def any_at(self) -> tuple[int, ...]:
        """Which parts of the path stand for any."""
        return tuple(place for place, part in enumerate(self.segments) if part.startswith("{"))


HTTP_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


class Routes(Resource):
    """The resource below which all `routes` are. Their paths are relative to it."""

    isLeaf = True

    def __init__(
        self, routes: tuple[Route, ...], guard: Guard, reactor: IReactorTime, activity: Activity
    ) -> None:
        super().__init__()
        self.routes = routes
        # By the number of parts of their paths, and which of these stand for any; then by the others.
        self._paths: dict[int, dict[tuple[int, ...], dict[tuple[bytes, ...], dict[bytes, Route]]]] = {}
        for route in routes:
            paths = self._paths.setdefault(len(route.segments), {})
            methods = paths.setdefault(route.any_at, {}).setdefault(_fixed(route.pattern, route.any_at), {})
            for method in route.methods:
                methods[method.encode()] = route
        self._guard = guard
        self._reactor = reactor
        self._activity = activity
        # Requests that are answered later, but for submits: what was submitted is its sender's.
        self._under_way: dict[LimitedRequest, WebRight] = {}

    def access_changed(self) -> None:
        """There is another access policy: end the connections of requests that it does not allow."""
        for request, right in list(self._under_way.items()):
            if not self._guard.allows(request, right):
                cut_off(request)

    def render(self, request: LimitedRequest) -> Any:
        try:
            route, ids = self._find(request)
            self._guard.check(request, route.right)
            call = Call(request, ids, route.arguments.parse(request))
            # Once the sender has gone nobody knows who it was.
            actor = self._guard.actor_of(request) if route.action else None
            response = route.handler(call)
        except HTTPProblem as problem:
            return problem.response().send(request)
        if not isinstance(response, Response) and route.right is not WebRight.SUBMIT:
            self._watch(request, route.right)
        if response is None:
            return NOT_DONE_YET
        if isinstance(response, Response):
            self._note(route, call, actor, is_done=True)
            request.respond(response)
            return NOT_DONE_YET
        self._send_later(request, self._noted(route, call, actor, response))
        return NOT_DONE_YET

    def _watch(self, request: LimitedRequest, right: WebRight) -> None:
        """Remember a request that is not answered yet, until it is."""
        if request.finished or request._disconnected:
            return
        self._under_way[request] = right
        request.notifyFinish().addBoth(lambda _: self._under_way.pop(request, None))

    async def _noted(
        self, route: Route, call: Call, actor: Actor | None, response: Awaitable[Response | None]
    ) -> Response | None:
        """What a handler responds later, once what it has changed is in the log of actions."""
        is_done = False
        try:
            result = await response
            is_done = True
            return result
        finally:
            self._note(route, call, actor, is_done)

    def _note(self, route: Route, call: Call, actor: Actor | None, is_done: bool) -> None:
        """Log what a request has changed, whichever it is: all of it, or a part if it was not done."""
        if actor is None or not route.action or not (is_done or call.effect.jobs):
            return
        said = [f"{name} {_said(value)}" for name, value in route.arguments.given(call.arguments)]
        said += [call.effect.body] if call.effect.body else []
        said += [] if is_done else ["not to its end"]
        self._activity.acted(
            actor,
            "http",
            route.action,
            call.ids[0] if call.ids else b"",
            ", ".join(said),
            call.effect.jobs,
        )

    def _find(self, request: LimitedRequest) -> tuple[Route, tuple[bytes, ...]]:
        path = _path_of(request)
        allowed: list[bytes] = []
        for any_at, paths in self._paths.get(len(path), {}).items():
            methods = paths.get(_fixed(path, any_at))
            if methods is None:
                continue
            route = methods.get(request.method)
            if route is not None:
                return route, tuple([path[place] for place in any_at])
            allowed += methods
        if not allowed:
            raise not_found()
        text = b", ".join(allowed)
        raise HTTPProblem(405, "wrong-method", f"At this path there is {text.decode()}.", ((b"Allow", text),))

    def _send_later(self, request: LimitedRequest, response: Awaitable[Response | None]) -> None:
        gone = False

        def lost(_reason: Failure) -> None:
            nonlocal gone
            gone = True
            waiting.cancel()

        def done(result: Any) -> None:
            if gone:
                if isinstance(result, Failure):
                    result.trap(CancelledError)
                return
            if isinstance(result, Failure):
                if not isinstance(result.value, HTTPProblem):
                    request.processingFailed(result)
                    return
                result = result.value.response()
            if result is not None:
                request.respond(result)

        request.notifyFinish().addErrback(lost)

        async def wait() -> Response | None:
            return await response

        waiting = Deferred.fromCoroutine(wait())
        waiting.addBoth(done)


def _said(value: Any) -> str:
    return value[:MAX_SAID].decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _path_of(request: LimitedRequest) -> list[bytes]:
    """The path of a request. ``/function…?function=NAME`` has the name in its query: browsers take ``.`` and
    ``..`` out of paths, and proxies drop empty segments or refuse ``%2F``."""
    path: list[bytes] = request.postpath or []
    if path[:1] != [b"function"] or len(request.args.get(b"function", ())) != 1:
        return path
    return [b"functions", *request.args.pop(b"function"), *path[1:]]


def _fixed(path: Sequence[bytes], any_at: tuple[int, ...]) -> tuple[bytes, ...]:
    """The parts of a path but for those that stand for any."""
    return tuple([part for place, part in enumerate(path) if place not in any_at])
