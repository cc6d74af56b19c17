"""What ``txgearman jobs`` does: list the jobs of servers, or tell the state of some.

How several servers are asked is in `asking`; ``--watch`` is in `job_watch`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from txgearman.cli.asking import (
    NEEDS_TXGEARMAN,
    ask_servers,
    check_handles,
    lacks_command,
    print_rows,
    unknown_job,
    with_admin,
)
from txgearman.cli.connections import connected
from txgearman.cli.exit_codes import ExitCode, InvalidArgument, NotFound
from txgearman.cli.run import CommandContext, Main, print_message
from txgearman.cli.tables import duration_text
from txgearman.client import Admin, JobEntry, JobStatus, JobSummary
from txgearman.errors import AdminError

_COLUMNS: Final = (
    "server",
    "handle",
    "function",
    "state",
    "age",
    "attempts",
    "unique",
    "priority",
    "size",
    "background",
    "losses",
    "numerator",
    "denominator",
    "worker",
)
SHOWN_COLUMNS: Final = _COLUMNS[:9]
"""What is shown to people: more does not fit a terminal."""


_FEW_COLUMNS: Final = ("server", "handle", "state", "background", "losses")
"""What is shown where all jobs are gearmand's, which tells no more."""


@dataclass(frozen=True, slots=True)
class JobQuery:
    """Which jobs are listed. None and an empty text are any.

    Attributes:
        function: Their function.
        states: Their states.
        unique: Their unique.
        older_than: Seconds since their submit at least.
    """

    function: str | None = None
    states: tuple[str, ...] = ()
    unique: str | None = None
    older_than: float | None = None

    async def ask(self, admin: Admin) -> list[list[Any]]:
        """Ask a server for the jobs.

        Args:
            admin: The server's admin client.

        Returns:
            The columns of each job, without that of the server.

        Raises:
            InvalidArgument: A name cannot be sent.
            NotFound: The server cannot look for jobs, and something is looked for.
            AdminError: The server refuses.
        """
        try:
            asked = admin.find_jobs(
                function=None if self.function is None else _bytes(self.function),
                states=self.states,
                unique=None if self.unique is None else _bytes(self.unique),
                older_than=self.older_than,
            )
        except ValueError as error:
            raise InvalidArgument(str(error)) from error
        try:
            return [_row(job) for job in await asked]
        except AdminError as error:
            if not lacks_command(error):
                raise
        if self != JobQuery():
            raise NotFound(f"this server cannot look for jobs, only list all: {NEEDS_TXGEARMAN}")
        return [_few_columns(entry) for entry in await admin.jobs()]


def _bytes(text: str) -> bytes:
    """A name from the command line, which may have bytes that are not UTF-8."""
    return text.encode("utf-8", "surrogateescape")


def _row(job: JobSummary) -> list[Any]:
    values = {name: getattr(job, name) for name in _COLUMNS[1:]}
    values.update(unique=job.unique or None, worker=job.worker or None)
    return [*values.values()]


def _few_columns(entry: JobEntry) -> list[Any]:
    """What gearmand tells of a job."""
    values: dict[str, Any] = dict.fromkeys(_COLUMNS[1:])
    values.update(handle=entry.handle, background=entry.background, losses=entry.losses)
    if entry.ignored:
        values["state"] = "cancelled"
    return [*values.values()]


def _print_jobs(servers: Sequence[str], as_json: bool, rows: list[list[Any]]) -> None:
    """Print jobs, whose first column is their server."""
    if as_json:
        print_rows(servers, True, _COLUMNS, rows)
    else:
        columns = SHOWN_COLUMNS if any(row[2] is not None for row in rows) or not rows else _FEW_COLUMNS
        print_rows(servers, False, columns, [shown_row(row, columns) for row in rows])


def shown_row(row: list[Any], columns: Sequence[str] = SHOWN_COLUMNS) -> list[Any]:
    """The columns of a job that people see, with its age as a duration."""
    values = dict(zip(_COLUMNS, row, strict=True))
    if values["age"] is not None:
        values["age"] = duration_text(values["age"])
    return [values[name] for name in columns]


def list_jobs(servers: Sequence[str], timeout: float, as_json: bool, query: JobQuery) -> Main:
    """Print the jobs that are looked for."""

    async def main(context: CommandContext) -> int:
        replies = await ask_servers(context, servers, with_admin(context, timeout, query.ask))
        if replies.by_server:
            rows = [[server, *row] for server, reply in replies.by_server.items() for row in reply]
            _print_jobs(servers, as_json, rows)
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
