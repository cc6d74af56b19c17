"""What ``txgearman top`` does: ask the servers at an interval, and draw their functions.

Drawing is in `top_view`, the history of the functions in `trend`, and the keys in `keyboard`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.live import Live
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from txgearman.cli.connections import check_servers
from txgearman.cli.exit_codes import ExitCode, error_text
from txgearman.cli.keyboard import Keyboard
from txgearman.cli.run import CommandContext, Main
from txgearman.cli.top_view import SORT_ORDERS, ServerState, render
from txgearman.cli.trend import FunctionCounts, Trend
from txgearman.client import Admin
from txgearman.errors import GearmanError


class Top:
    """The state of the display.

    Args:
        reactor: The reactor.
        servers: The servers' endpoints.
        timeout: Seconds that a server may take to answer.
        console: Where it is drawn.

    Attributes:
        quit: Fires with the exit code when the person quits.
        on_change: Called when a key has changed what is shown.
    """

    def __init__(self, reactor: Any, servers: Sequence[str], timeout: float, console: Console) -> None:
        self.quit: Deferred[int] = Deferred()
        self.on_change: Callable[[], object] = bool
        self._reactor = reactor
        self._console = console
        self._admins = {server: Admin(reactor, server, timeout=timeout) for server in dict.fromkeys(servers)}
        self._states = [ServerState(server, "connecting") for server in self._admins]
        self._trend = Trend()
        self._order = 0

    def key_pressed(self, key: str) -> None:
        """Handle a key: ``q`` quits, ``s`` changes the order."""
        if key in {"q", "Q"}:
            self.leave()
        elif key in {"s", "S"}:
            self._order = (self._order + 1) % len(SORT_ORDERS)
            self.on_change()

    def leave(self) -> None:
        """Quit."""
        if not self.quit.called:
            self.quit.callback(ExitCode.OK)

    def fail(self, failure: Failure) -> None:
        """Quit with an error."""
        if not self.quit.called:
            self.quit.errback(failure)

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
            version, statuses = await admin.version(), await admin.status()
        except GearmanError as error:
            return ServerState(server, "", error_text(error)), []
        counts = [
            FunctionCounts(status.function, status.queued, status.running, status.workers)
            for status in statuses
        ]
        return ServerState(server, version), counts


def watch(servers: Sequence[str], timeout: float, interval: float) -> Main:
    """Draw the servers' functions every `interval` seconds until the person quits."""

    async def main(context: CommandContext) -> int:
        check_servers(context.reactor, servers)
        console = Console()
        top = Top(context.reactor, servers, timeout, console)
        with (
            Live(console=console, screen=True, auto_refresh=False) as live,
            Keyboard(context.reactor, sys.stdin.fileno(), top.key_pressed, top.leave) as keyboard,
        ):
            context.kill_hooks.append(keyboard.restore)

            def draw() -> None:
                live.update(top.render(), refresh=True)

            async def refresh() -> None:
                await top.refresh()
                draw()

            top.on_change = draw
            draw()
            refreshing = LoopingCall(lambda: Deferred.fromCoroutine(refresh()))
            refreshing.clock = context.reactor
            refreshing.start(interval).addErrback(top.fail)
            try:
                return await top.quit
            finally:
                if refreshing.running:
                    refreshing.stop()
                await top.close()

    return main
