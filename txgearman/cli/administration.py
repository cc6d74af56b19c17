"""What the commands do that ask servers for their functions, connections, version, and an echo.

How several servers are asked is in `asking`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from txgearman.cli.asking import ask_or_fall_back, ask_servers, print_rows, with_admin
from txgearman.cli.connections import connected
from txgearman.cli.exit_codes import ExitCode
from txgearman.cli.run import CommandContext, Main, print_message
from txgearman.cli.tables import print_json
from txgearman.client import Admin, ConnectionInfo

_STATUS_COLUMNS: Final = (
    "server",
    "function",
    "state",
    "queued",
    "scheduled",
    "retrying",
    "running",
    "dead",
    "workers",
)

_WORKER_COLUMNS: Final = ("server", "number", "host", "client_id", "running", "quiet", "functions")

# -- asking -------------------------------------------------------------------------------------


def status(servers: Sequence[str], timeout: float, as_json: bool, functions: Sequence[str]) -> Main:
    """Print the named functions, or all. One that no server knows makes the exit code REFUSED."""

    async def main(context: CommandContext) -> int:
        replies = await ask_servers(
            context,
            servers,
            with_admin(
                context,
                timeout,
                lambda admin: ask_or_fall_back(lambda: _functions(admin), lambda: _few_counts(admin)),
            ),
        )
        rows = [
            [server, *row]
            for server, reply in replies.by_server.items()
            for row in sorted(reply)
            if not functions or row[0] in functions
        ]
        if replies.by_server and (rows or as_json or not functions):
            print_rows(servers, as_json, _STATUS_COLUMNS, rows)
        unknown = [name for name in functions if name not in {row[1] for row in rows}]
        for name in unknown if replies.by_server else ():
            print_message(f"no server knows the function {name}")
        return replies.code or (ExitCode.REFUSED if unknown else ExitCode.OK)

    return main


async def _functions(admin: Admin) -> list[list[Any]]:
    return [[getattr(each, name) for name in _STATUS_COLUMNS[1:]] for each in await admin.functions()]


async def _few_counts(admin: Admin) -> list[list[Any]]:
    """What gearmand tells of each function. Jobs that wait for their time count as queued there."""
    return [
        [each.function, None, each.queued, None, None, each.running, None, each.workers]
        for each in await admin.status()
    ]


def workers(servers: Sequence[str], timeout: float, as_json: bool, all_connections: bool) -> Main:
    """Print the connections that offer functions, or all connections."""

    async def main(context: CommandContext) -> int:
        replies = await ask_servers(context, servers, with_admin(context, timeout, _connections))
        rows = [
            [server, *row]
            for server, reply in replies.by_server.items()
            for row in reply
            if all_connections or row[-1]
        ]
        if replies.by_server:
            print_rows(servers, as_json, _WORKER_COLUMNS, rows)
        return replies.code

    return main


async def _connections(admin: Admin) -> list[list[Any]]:
    """The connections of a server, with how many jobs they run where it tells."""

    async def none() -> tuple[ConnectionInfo, ...]:
        return ()

    known = {each.number: each for each in await ask_or_fall_back(admin.connections, none)}
    rows = []
    for peer in await admin.workers():
        more = known.get(peer.number)
        counts = [None, None] if more is None else [more.running, more.quiet]
        rows.append([peer.number, peer.host, peer.client_id, *counts, peer.functions])
    return rows


def ping(servers: Sequence[str], timeout: float, as_json: bool) -> Main:
    """Print how long each server takes for an echo, without the time to connect."""

    async def main(context: CommandContext) -> int:
        async def echo(server: str) -> float:
            async with connected(context.reactor, [server], timeout) as client:
                begin = context.reactor.seconds()
                await client.echo(b"ping", timeout)
                return float(context.reactor.seconds() - begin)

        replies = await ask_servers(context, servers, echo)
        if as_json:
            rows = [[server, round(seconds, 6)] for server, seconds in replies.by_server.items()]
            print_json(["server", "seconds"], rows)
        else:
            for server, seconds in replies.by_server.items():
                print(f"{server} answered in {seconds * 1000:.1f} ms")
        return replies.code

    return main


def version(servers: Sequence[str], timeout: float, as_json: bool) -> Main:
    """Print the version of each server."""

    async def main(context: CommandContext) -> int:
        replies = await ask_servers(
            context, servers, with_admin(context, timeout, lambda admin: admin.version())
        )
        if replies.by_server:
            rows = [[server, found] for server, found in replies.by_server.items()]
            if as_json or len(set(servers)) > 1:
                print_rows(servers, as_json, ["server", "version"], rows)
            else:
                print(rows[0][1])
        return replies.code

    return main
