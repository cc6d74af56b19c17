"""Asking all servers at the same time, and what the commands that do so share.

A server that fails gets a line on standard error. The others are not delayed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, TypeVar

from twisted.internet.defer import Deferred, gatherResults

from txgearman.cli.connections import check_servers
from txgearman.cli.exit_codes import ExitCode, InvalidArgument, NotFound, error_text, exit_code_of
from txgearman.cli.hints import add_hint
from txgearman.cli.run import CommandContext, print_message
from txgearman.cli.tables import Cell, print_json, print_table
from txgearman.client import Admin
from txgearman.errors import AdminError, GearmanError
from txgearman.wire.limits import MAX_HANDLE

UNKNOWN_COMMANDS: Final = (
    "UNKNOWN_COMMAND",
    "UNKNOWN_SHOW_ARGUMENTS",
    "INVALID_ARGUMENTS An incomplete set of arguments",
)
"""What the refusal of a command begins with that the server does not know. The last is gearmand's for
``create`` and ``drop`` of what is no function."""

NEEDS_TXGEARMAN: Final = "gearmand cannot, the server of txgearman can"
"""What is said of a command that the server does not know."""

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
            if lacks_command(error):
                raise NotFound(foreign) from error
            raise

    return await ask_servers(context, servers, ask_server)


def lacks_command(refusal: AdminError) -> bool:
    """Whether a server refuses a command because it does not know it."""
    return refusal.text.startswith(UNKNOWN_COMMANDS)


async def ask_or_fall_back(ask: Callable[[], Awaitable[_T]], fall_back: Callable[[], Awaitable[_T]]) -> _T:
    """Ask a server what gearmand does not know, or else what every server does.

    Args:
        ask: Asks for the first.
        fall_back: Asks for the second where the first is not known, or denied by the server's policy.

    Returns:
        What the server said.
    """
    try:
        return await ask()
    except AdminError as error:
        if not (lacks_command(error) or error.text.startswith("ACCESS_DENIED")):
            raise
    return await fall_back()


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


def check_handles(handles: Sequence[str]) -> None:
    """Raise `InvalidArgument` if one of these cannot be a handle."""
    for handle in handles:
        if not handle or not handle.isprintable() or " " in handle or len(handle.encode()) > MAX_HANDLE:
            raise InvalidArgument(f"{handle!r} is not a job handle")


def unknown_job(handle: str) -> str:
    """The line that is printed for a job that no server knows."""
    return f"no server knows the job {handle}; it has ended, or never was"
