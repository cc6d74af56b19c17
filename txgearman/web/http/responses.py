"""Responses as bytes: JSON, and problem documents for what went wrong (RFC 9457)."""

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
    """A request is refused.

    Args:
        status: HTTP's status.
        code: A word for programs, which stays the same.
        detail: A sentence for people.
        headers: Headers of the response, beside those of every problem.
    """

    def __init__(self, status: int, code: str, detail: str, headers: tuple[tuple[bytes, bytes], ...] = ()):
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = headers

    @property
    def phrase(self) -> str:
        """HTTP's reason phrase for the status."""
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
    """A whole response. `headers` are sent beside those that every response has."""

    body: bytes
    content_type: bytes = JSON
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = field(default=())

    def header_lines(self) -> bytes:
        """The headers, with those of the body.

        Returns:
            The lines, each with its end. Values have none within: they may have words of a peer.
        """
        lines = b"".join(
            [b"%b: %b\r\n" % (name, b" ".join(value.splitlines())) for name, value in self.headers]
        )
        if self.status == HTTPStatus.NO_CONTENT:
            return lines
        return b"%bContent-Type: %b\r\nContent-Length: %d\r\n" % (lines, self.content_type, len(self.body))

    def send(self, request: Request, size: int | None = None) -> bytes:
        """Set the status and the headers.

        Args:
            request: The request to respond to.
            size: The length of the body, if it does not come from here.

        Returns:
            The body, for the caller to write.
        """
        request.setResponseCode(self.status)
        for name, value in self.headers:
            request.setHeader(name, value)
        if self.status != HTTPStatus.NO_CONTENT:
            request.setHeader(b"Content-Type", self.content_type)
            request.setHeader(b"Content-Length", b"%d" % (len(self.body) if size is None else size))
        return self.body


_encoder: Final = json.JSONEncoder(separators=(",", ":"))


def to_json(value: Any) -> bytes:
    """Encode a value as JSON, in ASCII and without spaces."""
    return _encoder.encode(value).encode("ascii")


class ProblemResource(Resource):
    """Responds to every request with one problem."""

    isLeaf = True

    def __init__(self, problem: HTTPProblem) -> None:
        super().__init__()
        self._problem = problem

    def render(self, request: Request) -> bytes:
        return self._problem.response().send(request)


class Branch(Resource):
    """A resource with children only: its own path, and unknown ones below, are problem documents."""

    def getChild(self, path: bytes, request: Request) -> Resource:
        return ProblemResource(not_found())

    def render(self, request: Request) -> bytes:
        return not_found().response().send(request)


def not_found() -> HTTPProblem:
    """There is nothing at this path."""
    return HTTPProblem(404, "not-found", "There is nothing at this path.")


def no_content() -> Response:
    """The response to a change that leaves nothing to show."""
    return Response(b"", status=204)
