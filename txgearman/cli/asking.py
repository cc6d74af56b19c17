"""What the commands do that ask servers, or tell them what to do: each server at the same time.

A server that does not answer is told of in a line of its own and does not hold up the others.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred, gatherResults

from txgearman.cli.connecting import check_servers, connected
from txgearman.cli.exit_codes import ExitCode, InvalidArgument, NotFound, error_line, exit_code_of
from txgearman.cli.run import CommandContext, Main, print_message
from txgearman.cli.tables import Cell, show, show_json
from txgearman.client import Admin, JobStatus
from txgearman.errors import AdminError, GearmanError
from txgearman.wire.limits import MAX_HANDLE

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Answers(Generic[_T]):
    """What the servers answered, by address, and the exit code: OK, or that of the first error."""

    by_server: dict[str, _T]
    code: ExitCode


async def ask_all(
    context: CommandContext, servers: Sequence[str], ask: Callable[[str], Awaitable[_T]]
) -> Answers[_T]:
    """Ask each server. Errors are told; a server with one has no answer."""

    async def one(server: str) -> _T | GearmanError:
        try:
            return await ask(server)
        except GearmanError as error:
            return error

    check_servers(context.reactor, servers)
    servers = list(dict.fromkeys(servers))
    asked = [Deferred.fromCoroutine(one(server)) for server in servers]
    answers: list[_T | GearmanError] = await gatherResults(asked)
    good: dict[str, _T] = {}
    code = ExitCode.OK
    for server, answer in zip(servers, answers, strict=True):
        if not isinstance(answer, GearmanError):
            good[server] = answer
        else:
            line = error_line(answer)
            print_message(line if line.startswith(server) else f"{server}: {line}")
            code = code or exit_code_of(answer)
    return Answers(good, code)


def _with_admin(
    context: CommandContext, timeout: float, ask: Callable[[Admin], Awaitable[_T]]
) -> Callable[[str], Awaitable[_T]]:
    """Asks on an admin connection of its own."""

    async def asking(server: str) -> _T:
        async with Admin(context.reactor, server, timeout=timeout) as admin:
            return await ask(admin)

    return asking


def _write(
    servers: Sequence[str],
    as_json: bool,
    columns: Sequence[str],
    rows: list[list[Any]],
) -> None:
    """Write rows whose first cell is the server. People see that only where there is more than one."""
    if as_json:
        show_json(columns, rows)
        return
    first = 0 if len(set(servers)) > 1 else 1
    cells: list[list[Cell]] = [
        [" ".join(cell) if isinstance(cell, tuple) else cell for cell in row[first:]] for row in rows
    ]
    show([title.replace("_", " ").capitalize() for title in columns[first:]], cells)


# -- looking ------------------------------------------------------------------------------------


def status(servers: Sequence[str], timeout: float, as_json: bool, functions: Sequence[str]) -> Main:
    """The functions named, or all. Raises `NotFound` for one that no server has."""

    async def main(context: CommandContext) -> int:
        answers = await ask_all(context, servers, _with_admin(context, timeout, lambda admin: admin.status()))
        rows = [
            [server, one.function, one.queued, one.running, one.workers]
            for server, answer in answers.by_server.items()
            for one in sorted(answer, key=lambda status: status.function)
            if not functions or one.function in functions
        ]
        if answers.by_server and (rows or as_json or not functions):
            _write(servers, as_json, ["server", "function", "queued", "running", "workers"], rows)
        unknown = [name for name in functions if name not in {row[1] for row in rows}]
        for name in unknown if answers.by_server else ():
            print_message(f"no server knows the function {name}")
        return answers.code or (ExitCode.REFUSED if unknown else ExitCode.OK)

    return main


def workers(servers: Sequence[str], timeout: float, as_json: bool, everyone: bool) -> Main:
    """The connections with functions, or all."""

    async def main(context: CommandContext) -> int:
        answers = await ask_all(
            context, servers, _with_admin(context, timeout, lambda admin: admin.workers())
        )
        rows = [
            [server, one.number, one.host, one.client_id, one.functions]
            for server, answer in answers.by_server.items()
            for one in answer
            if everyone or one.functions
        ]
        if answers.by_server:
            _write(servers, as_json, ["server", "number", "host", "client_id", "functions"], rows)
        return answers.code

    return main


def jobs(servers: Sequence[str], timeout: float, as_json: bool) -> Main:
    """All jobs."""

    async def main(context: CommandContext) -> int:
        answers = await ask_all(context, servers, _with_admin(context, timeout, lambda admin: admin.jobs()))
        rows = [
            [server, one.handle, one.background, one.retries, one.ignored]
            for server, answer in answers.by_server.items()
            for one in answer
        ]
        if answers.by_server:
            _write(servers, as_json, ["server", "handle", "background", "retries", "ignored"], rows)
        return answers.code

    return main


def job_states(servers: Sequence[str], timeout: float, as_json: bool, handles: Sequence[str]) -> Main:
    """The state of each job at the server that knows it."""

    async def main(context: CommandContext) -> int:
        async def states(server: str) -> list[JobStatus]:
            async with connected(context.reactor, [server], timeout) as client:
                return [await client.status(handle, timeout) for handle in handles]

        _check_handles(handles)
        answers = await ask_all(context, servers, states)
        rows = []
        code: int = answers.code
        for index, handle in enumerate(handles):
            known = [(server, states[index]) for server, states in answers.by_server.items()]
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
            if not known and answers.by_server:
                print_message(_unknown(handle))
                code = code or ExitCode.REFUSED
        if rows or as_json:
            _write(servers, as_json, ["server", "handle", "state", "numerator", "denominator"], rows)
        return code

    return main


def ping(servers: Sequence[str], timeout: float, as_json: bool) -> Main:
    """The time of one echo on a connection that is there already."""

    async def main(context: CommandContext) -> int:
        async def echo(server: str) -> float:
            async with connected(context.reactor, [server], timeout) as client:
                begin = context.reactor.seconds()
                await client.echo(b"ping", timeout)
                return float(context.reactor.seconds() - begin)

        answers = await ask_all(context, servers, echo)
        if as_json:
            rows = [[server, round(seconds, 6)] for server, seconds in answers.by_server.items()]
            show_json(["server", "seconds"], rows)
        else:
            for server, seconds in answers.by_server.items():
                print(f"{server} answered in {seconds * 1000:.1f} ms")
        return answers.code

    return main


def version(servers: Sequence[str], timeout: float, as_json: bool) -> Main:
    """What the servers call themselves."""

    async def main(context: CommandContext) -> int:
        answers = await ask_all(
            context, servers, _with_admin(context, timeout, lambda admin: admin.version())
        )
        if answers.by_server:
            rows = [[server, found] for server, found in answers.by_server.items()]
            if as_json or len(set(servers)) > 1:
                _write(servers, as_json, ["server", "version"], rows)
            else:
                print(rows[0][1])
        return answers.code

    return main


# -- telling ------------------------------------------------------------------------------------


def cancel(servers: Sequence[str], timeout: float, handles: Sequence[str]) -> Main:
    """Cancel each job at the server that knows it."""

    async def main(context: CommandContext) -> int:
        _check_handles(handles)
        code: int = ExitCode.OK
        for handle in handles:
            answers = await ask_all(context, servers, _with_admin(context, timeout, partial(_cancel, handle)))
            if any(answers.by_server.values()):
                print(f"{handle} cancelled")
                continue
            if answers.by_server:
                print_message(_unknown(handle))
            code = code or answers.code or ExitCode.REFUSED
        return code

    return main


async def _cancel(handle: str, admin: Admin) -> bool:
    """Whether the server knew the job."""
    try:
        await admin.cancel(handle)
    except AdminError as error:
        if not error.text.startswith("UNKNOWN_JOB"):
            raise
        return False
    return True


def maxqueue(servers: Sequence[str], timeout: float, function: str, limits: Sequence[int | None]) -> Main:
    """Limit a function. gearmand ignores that, and says OK, while it does not know the function."""

    async def main(context: CommandContext) -> int:
        async def limit(admin: Admin) -> None:
            try:
                limited = admin.set_max_queue(function, *limits)
            except ValueError as error:
                raise InvalidArgument(str(error)) from error
            await limited
            if function not in {status.function for status in await admin.status()}:
                raise NotFound(f"the server does not know the function {function}, so it cannot be limited")

        return (await ask_all(context, servers, _with_admin(context, timeout, limit))).code

    return main


def shutdown(servers: Sequence[str], timeout: float, graceful: bool) -> Main:
    """Stop the servers."""

    async def main(context: CommandContext) -> int:
        ask = _with_admin(context, timeout, lambda admin: admin.shutdown(graceful))
        return (await ask_all(context, servers, ask)).code

    return main


def _check_handles(handles: Sequence[str]) -> None:
    for handle in handles:
        if not handle or not handle.isprintable() or " " in handle or len(handle.encode()) > MAX_HANDLE:
            raise InvalidArgument(f"{handle!r} is no handle of a job")


def _unknown(handle: str) -> str:
    return f"no server knows the job {handle}; it has ended, or never was"
