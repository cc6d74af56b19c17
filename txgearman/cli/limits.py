"""What ``txgearman limits`` and ``maxqueue`` do: show the limits of servers and functions, and set these.

How several servers are asked is in `asking`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from txgearman.cli.asking import (
    NEEDS_TXGEARMAN,
    ask_admins,
    ask_servers,
    lacks_command,
    print_rows,
    with_admin,
)
from txgearman.cli.exit_codes import InvalidArgument, NotFound
from txgearman.cli.run import CommandContext, Main
from txgearman.cli.tables import Cell, JsonArray, size_text
from txgearman.client import Admin
from txgearman.errors import AdminError
from txgearman.wire.listings import FunctionLimits, ServerLimit

_FOREIGN: Final = f"this server shows no limits, and sets only that of maxqueue: {NEEDS_TXGEARMAN}"

_FUNCTION_COLUMNS: Final = (
    "server",
    "function",
    "max_queue",
    "max_rate",
    "max_running",
    "start_rate",
    "per_key",
    "pause_after",
    "refused",
)

_OF_BYTES: Final = frozenset(
    ("max-packet", "max-unfinished-total", "max-unsent", "max-unsent-total", "results-bytes")
)

_ZERO_IS_ZERO: Final = frozenset(("max-kept-uniques", "max-schedules", "results-bytes"))
"""Limits of the server of which 0 allows nothing; of the others it is no limit."""


@dataclass(frozen=True, slots=True)
class LimitChanges:
    """What is to be changed. None is left as it is; a limit of 0 is none.

    Attributes:
        none: Whether all limits of the function are removed first.
        max_queue: Limits of jobs: one, or three by priority.
        max_rate: New jobs a second.
        rate_burst: How many of these may come at once.
        runs: The limits of its runs, by the names of the settings.
    """

    none: bool
    max_queue: tuple[int | None, ...] | None
    max_rate: float | None
    rate_burst: int | None
    runs: Mapping[str, Any]

    @property
    def is_any(self) -> bool:
        """Whether anything is to be changed."""
        return self != LimitChanges(False, None, None, None, dict.fromkeys(self.runs))

    async def apply(self, admin: Admin, function: bytes) -> None:
        """Change the limits of a function. Raises `AdminError`, and `ValueError` for what cannot be sent."""
        if self.none:
            await admin.set_max_queue(function)
            await admin.set_max_rate(function)
            await admin.limit_runs(function)
        if self.max_queue is not None:
            await admin.set_max_queue(function, *self.max_queue)
        if self.max_rate is not None:
            await admin.set_max_rate(function, self.max_rate, self.rate_burst or 0)
        for setting, value in self.runs.items():
            if value is not None:
                await admin.limit_runs(function, setting, value)


def limits(
    servers: Sequence[str], timeout: float, as_json: bool, function: str | None, changes: LimitChanges
) -> Main:
    """Change the limits of a function, and print them; without a function all limits."""

    async def main(context: CommandContext) -> int:
        async def ask(_server: str, admin: Admin) -> tuple[Sequence[ServerLimit], Sequence[FunctionLimits]]:
            if function is None:
                return await admin.limits(), await admin.function_limits()
            name = function.encode("utf-8", "surrogateescape")
            try:
                await changes.apply(admin, name)
            except ValueError as error:
                raise InvalidArgument(str(error)) from error
            return (), [each for each in await admin.function_limits() if each.function == function]

        replies = await ask_admins(context, servers, timeout, ask, _FOREIGN)
        if as_json:
            array = JsonArray()
            for server, (of_server, of_functions) in replies.by_server.items():
                array.write(_as_json(server, function, of_server, of_functions))
            array.close()
            return replies.code
        if function is None and replies.by_server:
            rows = [
                [server, each.name, *_limit_and_use(each), each.refused]
                for server, (of_server, _) in replies.by_server.items()
                for each in of_server
            ]
            print_rows(servers, False, ["server", "limit", "value", "used", "refused"], rows)
            print()
        rows = [
            _function_row(server, each)
            for server, (_, of_functions) in replies.by_server.items()
            for each in of_functions
        ]
        if rows or (function is None and replies.by_server):
            print_rows(servers, False, _FUNCTION_COLUMNS, rows)
        elif replies.by_server:
            print(f"{function} has no limits")
        return replies.code

    return main


def _as_json(
    server: str,
    function: str | None,
    of_server: Sequence[ServerLimit],
    of_functions: Sequence[FunctionLimits],
) -> dict[str, Any]:
    shown: dict[str, Any] = {"server": server}
    if function is None:
        shown["limits"] = [_members(each) for each in of_server]
    shown["functions"] = [_members(each) for each in of_functions]
    return shown


def _members(row: ServerLimit | FunctionLimits) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__slots__}


def _limit_and_use(row: ServerLimit) -> tuple[Cell, Cell]:
    """How much is allowed and how much of that is used, with units."""
    if row.name == "handshake-timeout":
        return f"{row.limit:g}s", None
    if not row.limit and row.name not in _ZERO_IS_ZERO:
        limit: Cell = "no limit"
    elif row.name in _OF_BYTES:
        limit = size_text(row.limit)
    else:
        limit = int(row.limit)
    if row.name == "max-packet":
        return limit, None
    return limit, size_text(row.used) if row.name in _OF_BYTES else row.used


def _function_row(server: str, limits: FunctionLimits) -> list[Any]:
    queue = (limits.max_queue_high, limits.max_queue_normal, limits.max_queue_low)
    return [
        server,
        limits.function,
        _queue_text(queue),
        _rate_text(limits.max_rate, limits.rate_burst),
        limits.max_running or None,
        _rate_text(limits.start_rate, limits.start_burst),
        f"{limits.max_running_per_key} by {limits.key_separator}" if limits.max_running_per_key else None,
        limits.pause_after or None,
        limits.refused,
    ]


def _queue_text(limits: Sequence[int]) -> str | None:
    if not any(limits):
        return None
    return f"{limits[0]}" if len(set(limits)) == 1 else "/".join([f"{each or '-'}" for each in limits])


def _rate_text(rate: float, burst: int) -> str | None:
    if not rate:
        return None
    return f"{rate:g}/s" + (f", {burst} at once" if burst else "")


def maxqueue(servers: Sequence[str], timeout: float, function: str, limits: Sequence[int | None]) -> Main:
    """Limit the jobs of a function, and print the limit.

    gearmand says OK but ignores this while it does not know the function.
    """

    async def main(context: CommandContext) -> int:
        async def limit(admin: Admin) -> str:
            try:
                limited = admin.set_max_queue(function, *limits)
            except ValueError as error:
                raise InvalidArgument(str(error)) from error
            await limited
            if function not in {status.function for status in await admin.status()}:
                raise NotFound(f"the server does not know the function {function}, so it cannot be limited")
            return await _limit_text(admin, function, limits)

        replies = await ask_servers(context, servers, with_admin(context, timeout, limit))
        for server, text in replies.by_server.items():
            print(f"{server}: {text}" if len(set(servers)) > 1 else text)
        return replies.code

    return main


async def _limit_text(admin: Admin, function: str, limits: Sequence[int | None]) -> str:
    """The limit as the server shows it, or as it was set where the server shows none."""
    try:
        for each in await admin.function_limits():
            if each.function == function:
                limits = (each.max_queue_high, each.max_queue_normal, each.max_queue_low)
    except AdminError as error:
        if not (lacks_command(error) or error.text.startswith("ACCESS_DENIED")):
            raise
    if not any(limits):
        return f"{function} has no limit of its jobs"
    if len(set(limits)) == 1:
        return f"{function} has at most {limits[0]} {'job' if limits[0] == 1 else 'jobs'}"
    high, normal, low = (limit or "any number" for limit in limits)
    return f"{function} has at most {high} jobs of high, {normal} of normal and {low} of low priority"
