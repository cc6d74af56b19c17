"""``/healthz`` and ``/readyz``, for process supervisors. They report, and decide nothing."""

from __future__ import annotations

from collections.abc import Callable

from twisted.web.resource import Resource
from twisted.web.server import Request

from txgearman.web.http.responses import HTTPProblem, Response, to_json


class HealthResource(Resource):
    """Responds to GET with 200, or with 503 and the reasons that `problems` returns."""

    isLeaf = True

    def __init__(self, problems: Callable[[], list[str]]) -> None:
        super().__init__()
        self._problems = problems

    def render(self, request: Request) -> bytes:
        return self._respond(request).send(request)

    def _respond(self, request: Request) -> Response:
        if request.method not in (b"GET", b"HEAD"):
            problem = HTTPProblem(405, "wrong-method", "This is for GET.", ((b"Allow", b"GET, HEAD"),))
            return problem.response()
        problems = self._problems()
        if problems:
            return HTTPProblem(503, "not-ready", "; ".join(problems)).response()
        return Response(to_json({"status": "ok"}))
