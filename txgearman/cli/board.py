"""The picture of `top`: its lines as something that `rich` draws. No terminal, no servers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from txgearman.cli.exit_codes import printable
from txgearman.cli.trend import HISTORY, Line

_BARS: Final = "▁▂▃▄▅▆▇█"
_PLAIN_BARS: Final = "_.-=+*#@"
"""For terminals that have no Unicode."""
_FIXED: Final = 5
"""Lines of the picture that are no functions: heading, sums, names of the columns, keys, and one to spare."""

_WIDE: Final = 70
"""Columns of a terminal from which on the queue's history is drawn; below, the names need the room."""


@dataclass(frozen=True, slots=True)
class ServerState:
    """What is said of a server: its address, and its version or what is wrong with it."""

    address: str
    version: str
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """One order of the functions: its name, and the key to sort by."""

    name: str
    key: Callable[[Line], object]


ORDERS: Final = (
    Order("queued", lambda line: -line.queued),
    Order("running", lambda line: -line.running),
    Order("workers", lambda line: -line.workers),
    Order("change", lambda line: -abs(line.rate or 0)),
    Order("function", lambda line: line.function),
)
"""What the key ``s`` goes through."""


def board(
    servers: Sequence[ServerState],
    lines: Sequence[Line],
    order: Order,
    clock: str,
    size: tuple[int, int],
    plain: bool,
) -> RenderableType:
    """The picture for a terminal of `size`, its columns and lines; `plain` without Unicode.

    Functions that find no room are counted at the end.
    """
    width, height = size
    room = max(1, height - _FIXED - len(servers) + 1)
    shown, hidden = lines[:room], lines[room:]
    parts: list[RenderableType] = [
        *map(_server, servers),
        _sums(lines, clock),
        Text(),
        _table(shown, width, plain),
    ]
    left = f"{len(hidden)} more functions   " if hidden else ""
    parts.append(Text(f"{left}q quit   s sort (by {order.name})", style="dim", no_wrap=True))
    return Group(*parts)


def _server(state: ServerState) -> Text:
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(f"{printable(state.address)}  ", style="bold")
    if state.error is None:
        return text.append(printable(state.version))
    return text.append(printable(state.error), style="bold red")


def _sums(lines: Sequence[Line], clock: str) -> Text:
    queued, running = sum(line.queued for line in lines), sum(line.running for line in lines)
    return Text(
        f"{clock}   {len(lines)} functions   {queued} queued   {running} running",
        no_wrap=True,
        overflow="ellipsis",
    )


def _table(lines: Sequence[Line], width: int, plain: bool) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="reverse", expand=True)
    table.add_column("Function", ratio=1, no_wrap=True, overflow="ellipsis")
    for name in ("Queued", "Running", "Workers", "Jobs/s"):
        table.add_column(name, justify="right", no_wrap=True)
    history = width >= _WIDE
    if history:
        table.add_column("Queue", width=HISTORY, no_wrap=True)
    for line in lines:
        cells = [
            Text(printable(line.function)),
            Text(str(line.queued), style="bold yellow" if line.queued else "dim"),
            Text(str(line.running), style="bold green" if line.running else "dim"),
            # Jobs that nobody will run are what a person looks for here.
            Text(str(line.workers), style="bold red" if line.queued and not line.workers else ""),
            Text(_rate(line.rate)),
        ]
        table.add_row(*cells, *[Text(_history(line.history, plain), style="cyan")] * history)
    return table


def _rate(rate: float | None) -> str:
    if rate is None:
        return "-"
    return "0" if abs(rate) < 0.05 else f"{rate:+.1f}" if abs(rate) < 100 else f"{rate:+.0f}"


def _history(queued: Sequence[int], plain: bool) -> str:
    bars = _PLAIN_BARS if plain else _BARS
    most = max(queued, default=0)
    if not most:
        return bars[0] * len(queued)
    return "".join(bars[number * (len(bars) - 1) // most] for number in queued)
