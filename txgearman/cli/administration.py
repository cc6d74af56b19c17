"""What the commands for servers do: ask all servers at the same time, or tell them what to do.

A server that fails gets a line on standard error. The others are not delayed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, TypeVar

from twisted.internet.defer import Deferred, gatherResults

from txgearman.cli.connections import check_servers, connected
from txgearman.cli.exit_codes import ExitCode, InvalidArgument, NotFound, error_text, exit_code_of
from txgearman.cli.hints import add_hint
from txgearman.cli.run import CommandContext, Main, print_message
from txgearman.cli.tables import Cell, print_json, print_table
from txgearman.client import Admin, JobStatus
from txgearman.errors import AdminError, GearmanError
from txgearman.wire.limits import MAX_HANDLE

UNKNOWN_COMMANDS: Final = (
    "UNKNOWN_COMMAND",
    "UNKNOWN_SHOW_ARGUMENTS",
    "INVALID_ARGUMENTS An incomplete set of arguments",
)
"""What the refusal of a command begins with that the server does not know. The last is gearmand's for
``create`` and ``drop`` of what is no function."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ServerReplies(Generic[_T]):
    """The replies of several servers.

    Attributes:
        by_server: The replies by address, without those of servers that failed.
        code: OK, or the exit code of the first error.
    """

    by_server: dict[str, _T]
    code: ExitCode


async def ask_servers(
    context: CommandContext, servers: Sequence[str], ask: Callable[[str], Awaitable[_T]]
) -> ServerReplies[_T]:
    """Ask each server, and print the errors of those that fail."""

    async def ask_or_error(server: str) -> _T | GearmanError:
        try:
            return await ask(server)
        except GearmanError as error:
            add_hint(error, server)
            return error

    check_servers(context.reactor, servers)
    servers = list(dict.fromkeys(servers))
    requests = [Deferred.fromCoroutine(ask_or_error(server)) for server in servers]
    replies: list[_T | GearmanError] = await gatherResults(requests)
    good: dict[str, _T] = {}
    code = ExitCode.OK
    for server, reply in zip(servers, replies, strict=True):
        if not isinstance(reply, GearmanError):
            good[server] = reply
        else:
            line = error_text(reply)
            print_message(line if line.startswith(server) else f"{server}: {line}")
            code = code or exit_code_of(reply)
    return ServerReplies(good, code)


def with_admin(
    context: CommandContext, timeout: float, ask: Callable[[Admin], Awaitable[_T]]
) -> Callable[[str], Awaitable[_T]]:
    """Make a function that calls `ask` with a new admin client of a server."""

    async def ask_server(server: str) -> _T:
        async with Admin(context.reactor, server, timeout=timeout) as admin:
            return await ask(admin)

    return ask_server


async def ask_admins(
    context: CommandContext,
    servers: Sequence[str],
    timeout: float,
    ask: Callable[[str, Admin], Awaitable[_T]],
    foreign: str,
) -> ServerReplies[_T]:
    """Ask each server, with a new admin client, what gearmand does not know.

    Args:
        context: What the command runs in.
        servers: The servers.
        timeout: Seconds that each reply may take.
        ask: Asks the server that it is given.
        foreign: The error for a server that does not know the command.

    Returns:
        The replies.
    """

    async def ask_server(server: str) -> _T:
        try:
            return await with_admin(context, timeout, partial(ask, server))(server)
        except AdminError as error:
            if error.text.startswith(UNKNOWN_COMMANDS):
                raise NotFound(foreign) from error
            raise

    return await ask_servers(context, servers, ask_server)


def print_rows(
    servers: Sequence[str],
    as_json: bool,
    columns: Sequence[str],
    rows: list[list[Any]],
) -> None:
    """Print rows whose first cell is the server. A table of one server omits that cell."""
    if as_json:
        print_json(columns, rows)
        return
    first = 0 if len(set(servers)) > 1 else 1
    cells: list[list[Cell]] = [
        [" ".join(cell) if isinstance(cell, tuple) else cell for cell in row[first:]] for row in rows
    ]
    print_table([title.replace("_", " ").capitalize() for title in columns[first:]], cells)


# -- asking -------------------------------------------------------------------------------------


def status(servers: Sequence[str], timeout: float, as_json: bool, functions: Sequence[str]) -> Main:
    """Print the named functions, or all. One that no server knows makes the exit code REFUSED."""

    async def main(context: CommandContext) -> int:
        replies = await ask_servers(
            context, servers, with_admin(context, timeout, lambda admin: admin.status())
        )
        rows = [
            [server, status.function, status.queued, status.running, status.workers]
            for server, reply in replies.by_server.items()
            for status in sorted(reply, key=lambda status: status.function)
            if not functions or status.function in functions
        ]
        if replies.by_server and (rows or as_json or not functions):
            print_rows(servers, as_json, ["server", "function", "queued", "running", "workers"], rows)
        unknown = [name for name in functions if name not in {row[1] for row in rows}]
        for name in unknown if replies.by_server else ():
            print_message(f"no server knows the function {name}")
        return replies.code or (ExitCode.REFUSED if unknown else ExitCode.OK)

    return main


def workers(servers: Sequence[str], timeout: float, as_json: bool, all_connections: bool) -> Main:
    """Print the connections that offer functions, or all connections."""

    async def main(context: CommandContext) -> int:
        replies = await ask_servers(
            context, servers, with_admin(context, timeout, lambda admin: admin.workers())
        )
        rows = [
            [server, peer.number, peer.host, peer.client_id, peer.functions]
            for server, reply in replies.by_server.items()
            for peer in reply
            if all_connections or peer.functions
        ]
        if replies.by_server:
            print_rows(servers, as_json, ["server", "number", "host", "client_id", "functions"], rows)
        return replies.code

    return main


def jobs(servers: Sequence[str], timeout: float, as_json: bool) -> Main:
    """Print all jobs."""

    async def main(context: CommandContext) -> int:
        replies = await ask_servers(
            context, servers, with_admin(context, timeout, lambda admin: admin.jobs())
        )
        rows = [
            [server, job.handle, job.background, job.losses, job.ignored]
            for server, reply in replies.by_server.items()
            for job in reply
        ]
        if replies.by_server:
            print_rows(servers, as_json, ["server", "handle", "background", "losses", "ignored"], rows)
        return replies.code

    return main


def job_states(servers: Sequence[str], timeout: float, as_json: bool, handles: Sequence[str]) -> Main:
    """Print the state of each job at the server that knows it."""

    async def main(context: CommandContext) -> int:
        async def states(server: str) -> list[JobStatus]:
            async with connected(context.reactor, [server], timeout) as client:
                return [await client.status(handle, timeout) for handle in handles]

        check_handles(handles)
        replies = await ask_servers(context, servers, states)
        rows = []
        code: int = replies.code
        for index, handle in enumerate(handles):
            known = [(server, states[index]) for server, states in replies.by_server.items()]
            known = [(server, state) for server, state in known if state.known]
            rows += [
                [
                    server,
                    handle,
                    "running" if state.running else "waiting",
                    state.numerator,
                    state.denominator,
                ]
                for server, state in known
            ]
            if not known and replies.by_server:
                print_message(unknown_job(handle))
                code = code or ExitCode.REFUSED
        if rows or as_json:
            print_rows(servers, as_json, ["server", "handle", "state", "numerator", "denominator"], rows)
        return code

    return main


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


# -- telling ------------------------------------------------------------------------------------


def cancel(servers: Sequence[str], timeout: float, handles: Sequence[str], force: bool) -> Main:
    """Cancel each job at the server that knows it."""

    async def main(context: CommandContext) -> int:
        check_handles(handles)
        code: int = ExitCode.OK
        for handle in handles:
            replies = await ask_servers(
                context, servers, with_admin(context, timeout, partial(_cancel, handle, force))
            )
            if any(replies.by_server.values()):
                print(f"{handle} cancelled")
                continue
            if replies.by_server:
                print_message(unknown_job(handle))
            code = code or replies.code or ExitCode.REFUSED
        return code

    return main


async def _cancel(handle: str, force: bool, admin: Admin) -> bool:
    """Cancel a job. Returns whether the server knew it."""
    try:
        await admin.cancel(handle, force)
    except AdminError as error:
        if not error.text.startswith("UNKNOWN_JOB"):
            raise
        return False
    return True


def maxqueue(servers: Sequence[str], timeout: float, function: str, limits: Sequence[int | None]) -> Main:
    """Limit the jobs of a function. gearmand says OK but ignores this while it does not know the function."""

    async def main(context: CommandContext) -> int:
        async def limit(admin: Admin) -> None:
            try:
                limited = admin.set_max_queue(function, *limits)
            except ValueError as error:
                raise InvalidArgument(str(error)) from error
            await limited
            if function not in {status.function for status in await admin.status()}:
                raise NotFound(f"the server does not know the function {function}, so it cannot be limited")

        return (await ask_servers(context, servers, with_admin(context, timeout, limit))).code

    return main


def shutdown(servers: Sequence[str], timeout: float, graceful: bool) -> Main:
    """Stop the servers."""

    async def main(context: CommandContext) -> int:
        ask = with_admin(context, timeout, lambda admin: admin.shutdown(graceful))
        return (await ask_servers(context, servers, ask)).code

    return main


def check_handles(handles: Sequence[str]) -> None:
    """Raise `InvalidArgument` if one of these cannot be a handle."""
    for handle in handles:
        if not handle or not handle.isprintable() or " " in handle or len(handle.encode()) > MAX_HANDLE:
            raise InvalidArgument(f"{handle!r} is not a job handle")


def unknown_job(handle: str) -> str:
    """The line that is printed for a job that no server knows."""
    return f"no server knows the job {handle}; it has ended, or never was"
