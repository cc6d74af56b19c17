"""Answers as bytes: JSON, and problem documents for what went wrong (RFC 9457)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from twisted.web.resource import Resource
from twisted.web.server import Request

JSON: Final = b"application/json"
PROBLEM: Final = b"application/problem+json"


class HTTPProblem(Exception):
    """A request is refused: `status` is HTTP's, `code` a word for programs, `detail` a sentence for people.

    `headers` are sent with it.
    """

    def __init__(self, status: int, code: str, detail: str, headers: tuple[tuple[bytes, bytes], ...] = ()):
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = headers

    @property
    def phrase(self) -> str:
        """What HTTP calls the status."""
        return HTTPStatus(self.status).phrase

    def response(self) -> Response:
        """The problem document."""
        document = {
            "type": "about:blank",
            "title": self.phrase,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
        }
        return Response(to_json(document), PROBLEM, self.status, self.headers)


@dataclass(frozen=True, slots=True)
class Response:
    """A whole response: its body, the type of that, HTTP's status, and more headers."""

    body: bytes
    content_type: bytes = JSON
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = field(default=())

    def send(self, request: Request, size: int | None = None) -> bytes:
        """Set what is ahead of the body, which has `size` bytes if it comes from elsewhere; returns the
        body."""
        request.setResponseCode(self.status)
        for name, value in self.headers:
            request.setHeader(name, value)
        if self.status != HTTPStatus.NO_CONTENT:
            request.setHeader(b"Content-Type", self.content_type)
            request.setHeader(b"Content-Length", b"%d" % (len(self.body) if size is None else size))
        return self.body


def to_json(value: Any) -> bytes:
    """`value` as JSON in ASCII."""
    return json.dumps(value, separators=(",", ":")).encode("ascii")


class ProblemResource(Resource):
    """Answers every request with one problem."""

    isLeaf = True

    def __init__(self, problem: HTTPProblem) -> None:
        super().__init__()
        self._problem = problem

    def render(self, request: Request) -> bytes:
        return self._problem.response().send(request)


class Branch(Resource):
    """A resource that only leads to others; the rest is a problem document."""

    def getChild(self, path: bytes, request: Request) -> Resource:
        return ProblemResource(not_found())

    def render(self, request: Request) -> bytes:
        return not_found().response().send(request)


def not_found() -> HTTPProblem:
    """There is nothing at this path."""
    return HTTPProblem(404, "not-found", "There is nothing at this path.")


def no_content() -> Response:
    """It is done, and there is nothing to say."""
    return Response(b"", status=204)
