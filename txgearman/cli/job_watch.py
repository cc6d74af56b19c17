"""What ``txgearman jobs --watch`` does: draw a list of jobs again and again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from rich.console import Console, Group
from rich.text import Text
from twisted.internet.defer import Deferred, gatherResults

from txgearman.cli.connections import check_servers
from txgearman.cli.exit_codes import InvalidArgument, error_text
from txgearman.cli.jobs import SHOWN_COLUMNS, JobQuery, shown_row
from txgearman.cli.run import CommandContext, Main
from txgearman.cli.tables import table
from txgearman.cli.watching import draw_until_quit
from txgearman.client import Admin
from txgearman.errors import GearmanError

_OTHER_LINES: Final = 5
"""Lines of the display beside those of jobs and errors: the count, titles, keys, and two spare ones."""


class JobWatch:
    """The state of the display of ``jobs --watch``.

    Args:
        context: What the command runs in.
        servers: The servers.
        timeout: Seconds that a server may take to answer.
        query: Which jobs are listed.
        console: Where it is drawn.
    """

    def __init__(
        self,
        context: CommandContext,
        servers: Sequence[str],
        timeout: float,
        query: JobQuery,
        console: Console,
    ) -> None:
        self._query = query
        self._console = console
        self._admins = {
            server: Admin(context.reactor, server, timeout=timeout) for server in dict.fromkeys(servers)
        }
        self._rows: list[list[Any]] = []
        self._errors: list[str] = []

    async def refresh(self) -> None:
        """Ask all servers once. Errors are shown in place of the jobs of their servers."""
        requests = [Deferred.fromCoroutine(self._ask(*item)) for item in self._admins.items()]
        replies = await gatherResults(requests)
        self._rows = [row for rows, _ in replies for row in rows]
        self._errors = [error for _, error in replies if error is not None]

    async def _ask(self, server: str, admin: Admin) -> tuple[list[list[Any]], str | None]:
        try:
            return [[server, *row] for row in await self._query.ask(admin)], None
        except InvalidArgument:
            raise
        except GearmanError as error:
            return [], f"{server}: {error_text(error)}"

    async def close(self) -> None:
        """Close the connections."""
        await gatherResults([admin.close() for admin in self._admins.values()])

    def render(self) -> Any:
        """Render the newest list, as many jobs as the terminal has lines."""
        first = 0 if len(self._admins) > 1 else 1
        room = max(1, self._console.size.height - len(self._errors) - _OTHER_LINES)
        shown, hidden = self._rows[:room], len(self._rows) - room
        titles = [title.capitalize() for title in SHOWN_COLUMNS[first:]]
        more = f"{hidden} more jobs   " if hidden > 0 else ""
        clock = datetime.now().astimezone().strftime("%H:%M:%S")
        return Group(
            *[Text(error, style="bold red", no_wrap=True, overflow="ellipsis") for error in self._errors],
            Text(f"{clock}   {len(self._rows)} jobs"),
            Text(),
            table(titles, [shown_row(row)[first:] for row in shown]),
            Text(f"{more}q quit", style="dim", no_wrap=True),
        )


def watch_jobs(servers: Sequence[str], timeout: float, query: JobQuery, interval: float) -> Main:
    """Draw the jobs that are looked for every `interval` seconds until the person quits."""

    async def main(context: CommandContext) -> int:
        check_servers(context.reactor, servers)
        console = Console()
        watch = JobWatch(context, servers, timeout, query, console)
        try:
            return await draw_until_quit(context, interval, watch.refresh, watch.render, console)
        finally:
            await watch.close()

    return main
