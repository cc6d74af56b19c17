"""The HTTP interface for programs: a table of paths, and a few lines for each."""

from __future__ import annotations

from txgearman.version import VERSION
from txgearman.web.answers import Answer, Branch, to_json
from txgearman.web.guard import Guard, Right
from txgearman.web.routes import Call, Route, Routes
from txgearman.web.sources import Gearman


class Api(Branch):
    """``/api``, with its versions below."""

    def __init__(self, gearman: Gearman, guard: Guard) -> None:
        super().__init__()
        self._gearman = gearman
        self.routes = (
            Route("GET", "/server", Right.VIEW, self._server, "The server and its totals.", {200: "Server"}),
        )
        self.putChild(b"v1", Routes(self.routes, guard))

    def _server(self, _call: Call) -> Answer:
        functions = list(self._gearman.broker.functions())
        return Answer(
            to_json(
                {
                    "version": VERSION,
                    "jobs": self._gearman.broker.total,
                    "running": sum(view.running for view in functions),
                    "functions": len(functions),
                    "connections": len(self._gearman.connections),
                }
            )
        )
