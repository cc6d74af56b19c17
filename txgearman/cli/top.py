"""What ``txgearman top`` does: look at the servers again and again, and draw what is seen.

What is drawn is in `board`, what is known in `trend`, the keys in `screen`.
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

from txgearman.cli.board import ORDERS, ServerState, board
from txgearman.cli.connecting import check_servers
from txgearman.cli.exit_codes import ExitCode, error_line
from txgearman.cli.run import CommandContext, Main
from txgearman.cli.screen import Keys
from txgearman.cli.trend import Counts, Trend
from txgearman.client import Admin
from txgearman.errors import GearmanError


class Top:
    """The state of the display. `console` is where it is drawn."""

    def __init__(self, reactor: Any, servers: Sequence[str], timeout: float, console: Console) -> None:
        self.quit: Deferred[int] = Deferred()
        """Fires when the person wants no more."""
        self.on_change: Callable[[], object] = bool
        """Called when a key has changed the picture."""
        self._reactor = reactor
        self._console = console
        self._admins = {server: Admin(reactor, server, timeout=timeout) for server in dict.fromkeys(servers)}
        self._states = [ServerState(server, "connecting") for server in self._admins]
        self._trend = Trend()
        self._order = 0

    def press(self, key: str) -> None:
        """A key was pressed."""
        if key in {"q", "Q"}:
            self.leave()
        elif key in {"s", "S"}:
            self._order = (self._order + 1) % len(ORDERS)
            self.on_change()

    def leave(self) -> None:
        """End it."""
        if not self.quit.called:
            self.quit.callback(ExitCode.OK)

    def fail(self, failure: Failure) -> None:
        """End it with an error."""
        if not self.quit.called:
            self.quit.errback(failure)

    async def look(self) -> None:
        """Ask all servers once. A server that does not answer is shown as such."""
        looks = [Deferred.fromCoroutine(self._ask(*item)) for item in self._admins.items()]
        answers = await gatherResults(looks)
        self._states = [state for state, _ in answers]
        counts = [count for _, counts in answers for count in counts]
        self._trend.add(self._reactor.seconds(), counts)

    async def close(self) -> None:
        """Close the connections."""
        await gatherResults([admin.close() for admin in self._admins.values()])

    def picture(self) -> Any:
        """What is to be seen now."""
        order = ORDERS[self._order]
        clock = datetime.now().astimezone().strftime("%H:%M:%S")
        plain = not self._console.encoding.startswith("utf")
        lines = self._trend.lines(order.key)
        return board(self._states, lines, order, clock, self._console.size, plain)

    async def _ask(self, server: str, admin: Admin) -> tuple[ServerState, list[Counts]]:
        try:
            version, statuses = await admin.version(), await admin.status()
        except GearmanError as error:
            return ServerState(server, "", error_line(error)), []
        counts = [Counts(one.function, one.queued, one.running, one.workers) for one in statuses]
        return ServerState(server, version), counts


def watch(servers: Sequence[str], timeout: float, interval: float) -> Main:
    """Draw the servers' state each `interval` seconds until the person quits."""

    async def main(context: CommandContext) -> int:
        check_servers(context.reactor, servers)
        console = Console()
        top = Top(context.reactor, servers, timeout, console)
        with (
            Live(console=console, screen=True, auto_refresh=False) as live,
            Keys(context.reactor, sys.stdin.fileno(), top.press, top.leave) as keys,
        ):
            context.kill_hooks.append(keys.restore)

            def draw() -> None:
                live.update(top.picture(), refresh=True)

            async def look() -> None:
                await top.look()
                draw()

            top.on_change = draw
            draw()
            looking = LoopingCall(lambda: Deferred.fromCoroutine(look()))
            looking.clock = context.reactor
            looking.start(interval).addErrback(top.fail)
            try:
                return await top.quit
            finally:
                if looking.running:
                    looking.stop()
                await top.close()

    return main
