"""What the commands for schedules do: list, add, remove, pause, resume and run them.

How several servers are asked is in `asking`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred

from txgearman.cli.asking import UNKNOWN_COMMANDS, ask_admins, print_rows
from txgearman.cli.exit_codes import ExitCode, InvalidArgument
from txgearman.cli.run import CommandContext, Main, print_message
from txgearman.cli.tables import local_time
from txgearman.client import Admin, ScheduleStatus
from txgearman.errors import AdminError

FOREIGN: Final = "this server has no schedules"

_COLUMNS: Final = (
    "server",
    "name",
    "function",
    "when",
    "timezone",
    "state",
    "next",
    "last",
    "ticks",
    "skipped",
    "missed",
    "refused",
)


def show(servers: Sequence[str], timeout: float, as_json: bool) -> Main:
    """Print the schedules of each server."""

    async def main(context: CommandContext) -> int:
        replies = await ask_admins(
            context, servers, timeout, lambda _server, admin: admin.schedules(), FOREIGN
        )
        rows = [
            _row(server, status, as_json) for server, reply in replies.by_server.items() for status in reply
        ]
        if replies.by_server:
            print_rows(servers, as_json, _COLUMNS, rows)
        return replies.code

    return main


def _row(server: str, status: ScheduleStatus, as_json: bool) -> list[Any]:
    values = {name: getattr(status, name) for name in _COLUMNS[1:]}
    if not as_json:
        values.update(next=local_time(status.next), last=local_time(status.last))
    return [server, *values.values()]


def add(
    servers: Sequence[str], timeout: float, name: str, definition: Mapping[str, Any], data: bytes
) -> Main:
    """Let each server have a schedule, in place of one of its name.

    Args:
        servers: The servers.
        timeout: Seconds that each reply may take.
        name: What the schedule is called.
        definition: The settings that were said, by their names with underscores.
        data: The payload of each job.

    Returns:
        What the command does.
    """
    said = {key: value for key, value in definition.items() if value is not None}

    async def main(context: CommandContext) -> int:
        async def tell(_server: str, admin: Admin) -> None:
            try:
                added = admin.create_schedule(name, said, data)
            except ValueError as error:
                raise InvalidArgument(str(error)) from error
            await added

        replies = await ask_admins(context, servers, timeout, tell, FOREIGN)
        if replies.by_server:
            print(f"{name} added")
        return replies.code

    return main


def remove(servers: Sequence[str], timeout: float, names: Sequence[str]) -> Main:
    """Remove schedules."""
    return _each_name(servers, timeout, names, Admin.drop_schedule, "removed")


def pause(servers: Sequence[str], timeout: float, names: Sequence[str]) -> Main:
    """Let schedules rest."""
    return _each_name(servers, timeout, names, Admin.pause_schedule, "paused")


def resume(servers: Sequence[str], timeout: float, names: Sequence[str]) -> Main:
    """Let schedules go on."""
    return _each_name(servers, timeout, names, Admin.resume_schedule, "resumed")


def run_now(servers: Sequence[str], timeout: float, name: str) -> Main:
    """Submit a job of a schedule at the first of the servers that does it, and print its handle.

    Servers that share a database have the same schedules: with each of them there would be several jobs.
    """

    async def main(context: CommandContext) -> int:
        code = ExitCode.OK
        for server in dict.fromkeys(servers):
            replies = await ask_admins(
                context,
                [server],
                timeout,
                lambda _server, admin: _with_name(admin.run_schedule, name),
                FOREIGN,
            )
            if replies.by_server:
                print(replies.by_server[server])
                return ExitCode.OK
            code = code or replies.code
        return code

    return main


def _each_name(
    servers: Sequence[str],
    timeout: float,
    names: Sequence[str],
    verb: Callable[[Admin, str], Deferred[None]],
    done: str,
) -> Main:
    """Do something with each schedule, and print for each what became of it.

    One schedule may be with several servers that share a database, and it is enough that one of them does it.
    """

    async def main(context: CommandContext) -> int:
        async def tell(_server: str, admin: Admin) -> dict[str, AdminError | None]:
            return {name: await _refusal(_with_name(lambda each: verb(admin, each), name)) for name in names}

        replies = await ask_admins(context, servers, timeout, tell, FOREIGN)
        if not replies.by_server:
            return replies.code
        code = ExitCode.OK
        for name in dict.fromkeys(names):
            refusals = [reply[name] for reply in replies.by_server.values()]
            if None in refusals:
                print(f"{name} {done}")
            else:
                print_message(f"{name}: {refusals[0]}")
                code = replies.code or ExitCode.REFUSED
        return code

    return main


def _with_name(verb: Callable[[str], Deferred[Any]], name: str) -> Deferred[Any]:
    """Call a verb with a name from an argument. Raises `InvalidArgument`."""
    try:
        return verb(name)
    except ValueError as error:
        raise InvalidArgument(str(error)) from error


async def _refusal(asked: Deferred[None]) -> AdminError | None:
    try:
        await asked
    except AdminError as error:
        if error.text.startswith(UNKNOWN_COMMANDS):
            raise
        return error
    return None
