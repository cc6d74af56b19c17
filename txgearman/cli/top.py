"""What ``txgearman top`` does: ask the servers at an interval, and draw their functions.

Drawing is in `top_view` and `watching`, and the history of the functions in `trend`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from twisted.internet.defer import Deferred, gatherResults

from txgearman.cli.asking import ask_or_fall_back
from txgearman.cli.connections import check_servers
from txgearman.cli.exit_codes import error_text
from txgearman.cli.run import CommandContext, Main
from txgearman.cli.top_view import SORT_ORDERS, ServerState, render
from txgearman.cli.trend import FunctionCounts, Trend
from txgearman.cli.watching import draw_until_quit
from txgearman.client import Admin
from txgearman.errors import GearmanError


class Top:
    """The state of the display.

    Args:
        reactor: The reactor.
        servers: The servers' endpoints.
        timeout: Seconds that a server may take to answer.
        console: Where it is drawn.
    """

    def __init__(self, reactor: Any, servers: Sequence[str], timeout: float, console: Console) -> None:
        self._reactor = reactor
        self._console = console
        self._admins = {server: Admin(reactor, server, timeout=timeout) for server in dict.fromkeys(servers)}
        self._states = [ServerState(server, "connecting") for server in self._admins]
        self._trend = Trend()
        self._order = 0

    def key_pressed(self, key: str) -> bool:
        """Handle a key: ``s`` changes the order. Returns whether to draw anew."""
        if key not in {"s", "S"}:
            return False
        self._order = (self._order + 1) % len(SORT_ORDERS)
        return True

    async def refresh(self) -> None:
        """Ask all servers once. The error of a server that does not answer is shown in its place."""
        requests = [Deferred.fromCoroutine(self._ask(*item)) for item in self._admins.items()]
        replies = await gatherResults(requests)
        self._states = [state for state, _ in replies]
        counts = [count for _, counts in replies for count in counts]
        self._trend.add(self._reactor.seconds(), counts)

    async def close(self) -> None:
        """Close the connections."""
        await gatherResults([admin.close() for admin in self._admins.values()])

    def render(self) -> Any:
        """Render the current state."""
        order = SORT_ORDERS[self._order]
        clock = datetime.now().astimezone().strftime("%H:%M:%S")
        plain = not self._console.encoding.startswith("utf")
        rows = self._trend.rows(order.key)
        return render(self._states, rows, order, clock, self._console.size, plain)

    async def _ask(self, server: str, admin: Admin) -> tuple[ServerState, list[FunctionCounts]]:
        try:
            version = await admin.version()
            counts = await ask_or_fall_back(lambda: _counts(admin), lambda: _counts_without_ended(admin))
        except GearmanError as error:
            return ServerState(server, "", error_text(error)), []
        return ServerState(server, version), counts


async def _counts(admin: Admin) -> list[FunctionCounts]:
    return [
        FunctionCounts(each.function, each.waiting, each.running, each.workers, each.ended)
        for each in await admin.functions()
    ]


async def _counts_without_ended(admin: Admin) -> list[FunctionCounts]:
    """gearmand does not count the jobs that have ended."""
    return [
        FunctionCounts(each.function, each.queued, each.running, each.workers, None)
        for each in await admin.status()
    ]


def watch(servers: Sequence[str], timeout: float, interval: float) -> Main:
    """Draw the servers' functions every `interval` seconds until the person quits."""

    async def main(context: CommandContext) -> int:
        check_servers(context.reactor, servers)
        console = Console()
        top = Top(context.reactor, servers, timeout, console)
        try:
            return await draw_until_quit(context, interval, top.refresh, top.render, console, top.key_pressed)
        finally:
            await top.close()

    return main
