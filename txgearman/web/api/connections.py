"""Connections over HTTP. The paths are in `routes`."""

from __future__ import annotations

from typing import Any

from txgearman.web.api.job_search import first_jobs_of
from txgearman.web.api.serializers import CONNECTION, MAX_JOBS, ConnectionView
from txgearman.web.http.responses import HTTPProblem, Response, to_json
from txgearman.web.http.routing import Call
from txgearman.web.interfaces import Connection, Gearman


class ConnectionEndpoints:
    """The endpoints about connections; the table says what each is for."""

    def __init__(self, gearman: Gearman) -> None:
        self._gearman = gearman

    def connections(self, call: Call) -> Response:
        """A page of connections."""
        role, cursor, limit = call.arguments["role"], call.arguments["after"], call.arguments["limit"]
        found = []
        # In a dictionary they are in the order they came.
        for number, connection in self._gearman.connections.items():
            if number > cursor and (role is None or (role == "worker") == bool(connection.worker.abilities)):
                found.append(connection)
                if len(found) > limit:
                    break
        more = len(found) > limit
        shown = [self._serialized(connection) for connection in found[:limit]]
        return Response(to_json({"connections": shown, "next": found[limit - 1].number if more else None}))

    def connection(self, call: Call) -> Response:
        """One connection."""
        return Response(to_json(self._serialized(self._find_connection(call))))

    def change_connection(self, call: Call) -> Response:
        """Give a worker no more jobs, or again some, and show its connection."""
        connection = self._find_connection(call)
        wish = call.json({"quiet": bool})
        if "quiet" in wish:
            self._gearman.administration.quiet(connection.worker, wish["quiet"])
        return self.connection(call)

    def _serialized(self, connection: Connection) -> dict[str, Any]:
        jobs = first_jobs_of(self._gearman.inspection, connection, MAX_JOBS)
        return CONNECTION.serialize(ConnectionView(connection, jobs))

    def _find_connection(self, call: Call) -> Connection:
        number = call.ids[0]
        connection = None
        if number.isdigit() and len(number) < 20:
            connection = self._gearman.connections.get(int(number))
        if connection is None:
            raise HTTPProblem(404, "no-such-connection", "There is no connection with this number.")
        return connection
