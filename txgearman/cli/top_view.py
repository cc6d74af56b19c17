"""The display of `top`, as something that `rich` draws. No terminal, no servers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from txgearman.cli.exit_codes import printable
from txgearman.cli.trend import HISTORY_LENGTH, FunctionRow

_BARS: Final = "▁▂▃▄▅▆▇█"
_PLAIN_BARS: Final = "_.-=+*#@"
"""For terminals without Unicode."""
_FIXED_LINES: Final = 5
"""Lines of the display beside those of functions: a server, totals, column titles, keys, and a spare one."""

_WIDE_COLUMNS: Final = 80
"""A terminal with fewer columns shows no history of the queues: the functions' names need the room."""

_GROWTH_COLUMNS: Final = 60
"""With fewer it does not show how fast they grow either."""


@dataclass(frozen=True, slots=True)
class ServerState:
    """A server's address, and its version or its error."""

    address: str
    version: str
    error: str | None = None


@dataclass(frozen=True, slots=True)
class SortOrder:
    """An order of the functions: its name, and the key to sort by."""

    name: str
    key: Callable[[FunctionRow], object]


SORT_ORDERS: Final = (
    SortOrder("queued", lambda row: -row.queued),
    SortOrder("running", lambda row: -row.running),
    SortOrder("workers", lambda row: -row.workers),
    SortOrder("ended", lambda row: -(row.ended_rate or 0)),
    SortOrder("growth", lambda row: -abs(row.growth or 0)),
    SortOrder("function", lambda row: row.function),
)
"""The orders that the key ``s`` cycles through."""


def render(
    servers: Sequence[ServerState],
    rows: Sequence[FunctionRow],
    order: SortOrder,
    clock: str,
    size: tuple[int, int],
    plain: bool,
) -> RenderableType:
    """Render the display. Functions without room are counted in the last line.

    Args:
        servers: The servers.
        rows: The functions, in their order.
        order: That order.
        clock: The time as text.
        size: The terminal's columns and lines.
        plain: Whether the terminal has no Unicode.

    Returns:
        What `rich` draws.
    """
    width, height = size
    room = max(1, height - _FIXED_LINES - len(servers) + 1)
    shown, hidden = rows[:room], rows[room:]
    parts: list[RenderableType] = [
        *map(_server_line, servers),
        _totals_line(rows, clock),
        Text(),
        _function_table(shown, width, plain),
    ]
    left = f"{len(hidden)} more functions   " if hidden else ""
    parts.append(Text(f"{left}q quit   s sort (by {order.name})", style="dim", no_wrap=True))
    return Group(*parts)


def _server_line(state: ServerState) -> Text:
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(f"{printable(state.address)}  ", style="bold")
    if state.error is None:
        return text.append(printable(state.version))
    return text.append(printable(state.error), style="bold red")


def _totals_line(rows: Sequence[FunctionRow], clock: str) -> Text:
    queued, running = sum(row.queued for row in rows), sum(row.running for row in rows)
    return Text(
        f"{clock}   {len(rows)} functions   {queued} queued   {running} running",
        no_wrap=True,
        overflow="ellipsis",
    )


def _function_table(rows: Sequence[FunctionRow], width: int, plain: bool) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="reverse", expand=True)
    table.add_column("Function", ratio=1, no_wrap=True, overflow="ellipsis")
    numbers = ["Queued", "Running", "Workers", "Ended/s", "Growth/s"][
        : None if width >= _GROWTH_COLUMNS else 4
    ]
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    history = width >= _WIDE_COLUMNS
    if history:
        table.add_column("Queue", width=HISTORY_LENGTH, no_wrap=True)
    for row in rows:
        cells = [
            Text(printable(row.function)),
            Text(str(row.queued), style="bold yellow" if row.queued else "dim"),
            Text(str(row.running), style="bold green" if row.running else "dim"),
            # Jobs without a worker are what a person looks for here.
            Text(str(row.workers), style="bold red" if row.queued and not row.workers else ""),
            Text(_rate_text(row.ended_rate)),
            Text(_rate_text(row.growth, sign="+")),
        ][: len(numbers) + 1]
        table.add_row(*cells, *[Text(_history_bars(row.history, plain), style="cyan")] * history)
    return table


def _rate_text(rate: float | None, sign: str = "") -> str:
    if rate is None:
        return "-"
    if abs(rate) < 0.05:
        return "0"
    return format(rate, f"{sign}.{1 if abs(rate) < 100 else 0}f")


def _history_bars(queued: Sequence[int], plain: bool) -> str:
    bars = _PLAIN_BARS if plain else _BARS
    most = max(queued, default=0)
    if not most:
        return bars[0] * len(queued)
    return "".join(bars[number * (len(bars) - 1) // most] for number in queued)
