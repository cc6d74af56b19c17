"""What the commands for failed jobs do: list dead jobs, run them again, forget them, show one job.

How several servers are asked is in `asking`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txgearman.cli.asking import (
    UNKNOWN_COMMANDS,
    ask_admins,
    check_handles,
    print_rows,
    unknown_job,
)
from txgearman.cli.exit_codes import ExitCode, InvalidArgument, printable
from txgearman.cli.run import CommandContext, Main, print_message
from txgearman.cli.tables import JsonArray, local_time, text_or_base64
from txgearman.client import Admin, BulkResult, DeadJobEntry, JobInfo
from txgearman.connection.arguments import function_bytes
from txgearman.errors import AdminError, GearmanError
from txgearman.wire.names import unescape

COMMANDS_AHEAD: Final = 16
"""Admin commands that are sent ahead of their replies. With one at a time ten thousand jobs would take ten
thousand round trips; with many their data would fill the memory."""

SHOWN_DATA: Final = 2000
"""Characters of a payload that are shown to people."""

_NO_DEAD_JOBS: Final = "this server has no dead jobs"

_T = TypeVar("_T")
_Item = TypeVar("_Item")


# -- showing ------------------------------------------------------------------------------------


def dead(servers: Sequence[str], timeout: float, as_json: bool, function: str | None, search: str) -> Main:
    """Print the dead jobs of a function, or of all, that have a text somewhere.

    Args:
        servers: The servers.
        timeout: Seconds that each reply may take.
        as_json: Whether to write all that is known of each job, with its data.
        function: The function; None for all.
        search: A text in the job's handle, function, unique, error or data; empty for all jobs.

    Returns:
        What the command does.
    """

    async def main(context: CommandContext) -> int:
        array = JsonArray()
        rows: list[list[Any]] = []

        async def show(server: str, admin: Admin) -> None:
            async for entry, info in _found(admin, name, search, as_json):
                if as_json and info is not None:
                    array.write(_as_json(server, info))
                elif not as_json:
                    rows.append(_row(server, entry))

        name = None if function is None else _function_name(function)
        replies = await ask_admins(context, servers, timeout, show, _NO_DEAD_JOBS)
        if as_json and (replies.by_server or not array.is_empty):
            array.close()
        elif not as_json and replies.by_server:
            columns = ["server", "handle", "function", "unique", "ended", "attempts", "outcome", "error"]
            print_rows(servers, False, columns, rows)
        return replies.code

    return main


async def _found(
    admin: Admin, function: bytes | None, search: str, with_info: bool
) -> AsyncIterator[tuple[DeadJobEntry, JobInfo | None]]:
    """The dead jobs of a server that are looked for. The second is None where it is not needed."""
    entries = await admin.dead(function)
    if not with_info and not search:
        for entry in entries:
            yield entry, None
        return
    async for entry, reply in _each(entries, lambda entry: admin.job(entry.handle)):
        info = _unless_unknown(reply)
        # One that somebody has retried or forgotten meanwhile is not dead any more.
        if info is not None and info.state == "dead" and _has_text(info, search):
            yield entry, info


def _has_text(info: JobInfo, search: str) -> bool:
    names = (info.handle, info.function, info.unique)
    data = search.encode("utf-8", "surrogateescape")
    return any(search in name for name in names) or data in info.error or data in (info.data or b"")


def _row(server: str, entry: DeadJobEntry) -> list[Any]:
    return [
        server,
        entry.handle,
        entry.function,
        entry.unique or None,
        local_time(entry.ended),
        entry.attempts,
        entry.outcome,
        entry.error or None,
    ]


def job(servers: Sequence[str], timeout: float, as_json: bool, handle: str) -> Main:
    """Print all that is known of a job at the servers that know it."""

    async def main(context: CommandContext) -> int:
        async def look_up(_server: str, admin: Admin) -> JobInfo | None:
            try:
                return await admin.job(handle)
            except AdminError as error:
                return _unless_unknown(error)

        check_handles([handle])
        message = "this server does not show single jobs; try txgearman jobs"
        replies = await ask_admins(context, servers, timeout, look_up, message)
        known = {server: info for server, info in replies.by_server.items() if info is not None}
        if as_json and replies.by_server:
            array = JsonArray()
            for server, info in known.items():
                array.write(_as_json(server, info))
            array.close()
        else:
            several = len(set(servers)) > 1
            for number, (server, info) in enumerate(known.items()):
                print(("\n" if number else "") + _as_text(server if several else None, info))
        if not known and replies.by_server:
            print_message(unknown_job(handle))
        return replies.code or (ExitCode.OK if known else ExitCode.REFUSED)

    return main


def _as_json(server: str, info: JobInfo) -> dict[str, object]:
    return {
        "server": server,
        "handle": info.handle,
        "function": info.function,
        "unique": info.unique,
        "state": info.state,
        "priority": info.priority,
        "background": info.background,
        "attempts": info.attempts,
        "losses": info.losses,
        "submitted": info.submitted,
        "started": info.started,
        "ended": info.ended,
        "next_run": info.next_run,
        "outcome": info.outcome,
        "worker": info.worker,
        "run_at": info.run_at,
        "expires": info.expires,
        "max_attempts": info.max_attempts,
        "backoff": info.backoff,
        "keep_result": info.keep_result,
        "unique_for": info.unique_for,
        "traceparent": info.traceparent,
        **text_or_base64("error", info.error),
        **({"data": None} if info.data is None else text_or_base64("data", info.data)),
    }


def _as_text(server: str | None, info: JobInfo) -> str:
    """A line for each value that is known; the lines of an error or payload stand below one another."""
    values = {
        "Server": server,
        "Handle": info.handle,
        "Function": info.function,
        "Unique": info.unique,
        "State": info.state,
        "Outcome": info.outcome,
        "Priority": info.priority,
        "Background": "yes" if info.background else "no",
        "Failed runs": f"{info.attempts}" + (f" of {info.max_attempts}" if info.max_attempts else ""),
        "Losses": f"{info.losses}",
        "Submitted": local_time(info.submitted),
        "Started": local_time(info.started),
        "Ended": local_time(info.ended),
        "Next run": local_time(info.next_run),
        "Worker": info.worker,
        "Run at": local_time(info.run_at),
        "Expires": _expiry_text(info),
        "Backoff": _seconds_text(info.backoff),
        "Keep result": _seconds_text(info.keep_result),
        "Unique for": _seconds_text(info.unique_for),
        "Traceparent": info.traceparent,
        "Error": info.error.decode("utf-8", "backslashreplace"),
        "Data": None if info.data is None else _shown_data(info.data),
    }
    width = max(map(len, values)) + 2
    lines = []
    for name, value in values.items():
        if value:
            first, *others = value.split("\n")
            lines.append(name.ljust(width) + printable(first))
            lines += [" " * width + printable(other) for other in others]
    return "\n".join(lines)


def _expiry_text(info: JobInfo) -> str | None:
    if info.expires is None:
        return None
    if not info.expires:
        return "never"
    return local_time((info.submitted if info.run_at is None else info.run_at) + info.expires)


def _seconds_text(seconds: float | None) -> str | None:
    """A duration as options have it; None for None."""
    return None if seconds is None else f"{seconds:g}s"


def _shown_data(data: bytes) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return f"[{len(data)} B that are no text; --json shows them]"
    if len(text) <= SHOWN_DATA:
        return text
    return f"{text[:SHOWN_DATA]}\n[the beginning of {len(data)} B; --json shows all]"


# -- retrying and forgetting --------------------------------------------------------------------


def retry(servers: Sequence[str], timeout: float, handles: Sequence[str]) -> Main:
    """Run the job of each handle again, at the server where it is dead or waits for its next attempt."""
    return _each_handle(servers, timeout, handles, Admin.retry, "retried")


def forget(servers: Sequence[str], timeout: float, handles: Sequence[str]) -> Main:
    """Delete the dead job of each handle."""
    return _each_handle(servers, timeout, handles, Admin.forget, "forgotten")


def retry_all(servers: Sequence[str], timeout: float, function: str | None) -> Main:
    """Run all dead jobs of a function again, or those of all functions."""
    return _each_function(servers, timeout, function, Admin.retry_dead, "retried")


def forget_all(servers: Sequence[str], timeout: float, function: str | None) -> Main:
    """Delete all dead jobs of a function, or those of all functions."""
    return _each_function(servers, timeout, function, Admin.forget_dead, "forgotten")


def _each_handle(
    servers: Sequence[str],
    timeout: float,
    handles: Sequence[str],
    verb: Callable[[Admin, str], Deferred[None]],
    done: str,
) -> Main:
    """Do something with the job of each handle, and print for each what became of it.

    One job may be with several servers that share a store, and one of them does it.
    """

    async def main(context: CommandContext) -> int:
        async def tell(_server: str, admin: Admin) -> dict[str, AdminError | None]:
            replies = _each(dict.fromkeys(handles), partial(verb, admin))
            return {handle: reply async for handle, reply in replies}

        check_handles(handles)
        replies = await ask_admins(context, servers, timeout, tell, _NO_DEAD_JOBS)
        if not replies.by_server:
            return replies.code
        code = ExitCode.OK
        for handle in dict.fromkeys(handles):
            refusals = [reply[handle] for reply in replies.by_server.values()]
            if None in refusals:
                print(f"{handle} {done}")
            else:
                print_message(_why_not(handle, [refusal for refusal in refusals if refusal is not None]))
                code = replies.code or ExitCode.REFUSED
        return code

    return main


def _why_not(handle: str, refusals: Sequence[AdminError]) -> str:
    for refusal in refusals:
        if refusal.text.startswith("UNIQUE_IN_USE"):
            return f"{handle} stays dead: another job of its function has its unique now"
        if not _says_unknown(refusal):
            return f"{handle}: {refusal}"
    return f"no server has a dead job {handle}"


def _each_function(
    servers: Sequence[str],
    timeout: float,
    function: str | None,
    verb: Callable[[Admin, bytes], Deferred[BulkResult]],
    done: str,
) -> Main:
    """Do something with all dead jobs of a function, or of all functions, and print how many those are, and
    how many were skipped."""

    async def main(context: CommandContext) -> int:
        async def tell(_server: str, admin: Admin) -> BulkResult:
            names = {name} if name is not None else _functions_of(await admin.dead())
            results = [await verb(admin, each) for each in sorted(names)]
            return BulkResult(sum(each.done for each in results), sum(each.skipped for each in results))

        name = None if function is None else _function_name(function)
        replies = await ask_admins(context, servers, timeout, tell, _NO_DEAD_JOBS)
        for server, result in replies.by_server.items():
            where = f"{server}: " if len(set(servers)) > 1 else ""
            skipped = f", {result.skipped} skipped" if result.skipped else ""
            print(f"{where}{result.done} {'job' if result.done == 1 else 'jobs'} {done}{skipped}")
        return replies.code

    return main


def _functions_of(entries: Iterable[DeadJobEntry]) -> set[bytes]:
    r"""The functions of dead jobs. Replies show bytes that are not UTF-8 as ``\xff``, which may also be what
    the function is called. All functions are meant, so one too many does no harm."""
    shown = {entry.function.encode() for entry in entries}
    return shown | {unescape(name) for name in shown}


# -- asking -------------------------------------------------------------------------------------


async def _each(
    items: Iterable[_Item], send: Callable[[_Item], Deferred[_T]]
) -> AsyncIterator[tuple[_Item, _T | AdminError]]:
    """Send a command for each item, some of them ahead of the replies. Yields each item with its reply or
    refusal, in their order, and raises other errors, and the refusal of a server that does not know the
    command."""
    pending: deque[tuple[_Item, Deferred[_T | GearmanError]]] = deque()

    async def next_reply() -> tuple[_Item, _T | AdminError]:
        item, deferred = pending.popleft()
        reply = await deferred
        if not isinstance(reply, GearmanError):
            return item, reply
        if isinstance(reply, AdminError) and not reply.text.startswith(UNKNOWN_COMMANDS):
            return item, reply
        raise reply

    for item in items:
        pending.append((item, send(item).addErrback(_as_value)))
        if len(pending) == COMMANDS_AHEAD:
            yield await next_reply()
    while pending:
        yield await next_reply()


def _as_value(failure: Failure) -> GearmanError:
    """An error as a value: nobody may wait for the later replies once an earlier one has failed."""
    if not isinstance(failure.value, GearmanError):
        failure.raiseException()
    return failure.value


def _unless_unknown(reply: JobInfo | AdminError) -> JobInfo | None:
    """What is known of a job, None for nothing. Raises any other refusal."""
    if isinstance(reply, JobInfo):
        return reply
    if not _says_unknown(reply):
        raise reply
    return None


def _says_unknown(refusal: AdminError) -> bool:
    return refusal.text.startswith("UNKNOWN_JOB")


def _function_name(text: str) -> bytes:
    """The name of a function, from an argument. Raises `InvalidArgument`."""
    try:
        return function_bytes(text.encode("utf-8", "surrogateescape"))
    except ValueError as error:
        raise InvalidArgument(str(error)) from error
