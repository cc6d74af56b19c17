"""Draws something on the whole terminal again and again, until the person quits."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final

from rich.console import Console
from rich.live import Live
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from txgearman.cli.exit_codes import ExitCode
from txgearman.cli.keyboard import Keyboard
from txgearman.cli.run import CommandContext

QUIT_KEYS: Final = frozenset("qQ")


async def draw_until_quit(
    context: CommandContext,
    interval: float,
    refresh: Callable[[], Awaitable[None]],
    render: Callable[[], Any],
    console: Console,
    on_key: Callable[[str], bool] = lambda _key: False,
) -> ExitCode:
    """Draw, and draw again every `interval` seconds, until the person presses ``q`` or Ctrl-C.

    Args:
        context: What the command runs in.
        interval: Seconds between two looks.
        refresh: Looks anew. What it raises ends this.
        render: Makes what `rich` draws.
        console: The terminal.
        on_key: Is told of any other key. Returns whether to draw anew.

    Returns:
        The exit code.
    """
    quit_: Deferred[ExitCode] = Deferred()

    def leave() -> None:
        if not quit_.called:
            quit_.callback(ExitCode.OK)

    def key_pressed(key: str) -> None:
        if key in QUIT_KEYS:
            leave()
        elif on_key(key):
            draw()

    def draw() -> None:
        live.update(render(), refresh=True)

    async def look() -> None:
        await refresh()
        draw()

    with (
        Live(console=console, screen=True, auto_refresh=False) as live,
        Keyboard(context.reactor, sys.stdin.fileno(), key_pressed, leave) as keyboard,
    ):
        context.kill_hooks.append(keyboard.restore)
        draw()
        looking = LoopingCall(lambda: Deferred.fromCoroutine(look()))
        looking.clock = context.reactor
        looking.start(interval).addErrback(lambda failure: None if quit_.called else quit_.errback(failure))
        try:
            return await quit_
        finally:
            if looking.running:
                looking.stop()
