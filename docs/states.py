"""Draws the states of a job and of a worker as SVG, made of the broker's tables: an extension of Sphinx.

A state is a box, in a column of its own. An event is a line from the state that it finds to the one that it
leaves behind. Events between the same two states share a line.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from html import escape
from typing import Any, Final

from docutils import nodes
from docutils.parsers.rst import Directive

from txgearman.broker.job_states import JOB_TRANSITIONS, WORKER_TRANSITIONS

COLUMN, BOX, HEIGHT, ROW, LINE, MARGIN = 200, 92, 30, 20, 15, 8
"""Lengths in pixels."""

TABLES: Final[Mapping[str, Mapping[tuple[Enum, Enum], Enum]]] = {
    "job": JOB_TRANSITIONS,  # type: ignore[dict-item]
    "worker": WORKER_TRANSITIONS,  # type: ignore[dict-item]
}


def drawing(what: str) -> str:
    """The diagram of a job's states, or of a worker's, as an SVG element."""
    table = TABLES[what]
    states = list(type(next(iter(table.values()))))
    centre = {state: MARGIN + BOX / 2 + index * COLUMN for index, state in enumerate(states)}
    events: dict[tuple[Enum, Enum], list[str]] = {}
    for (state, event), following in table.items():
        events.setdefault((state, following), []).append(str(event.value))
    parts = []
    y = MARGIN + HEIGHT + ROW
    for (state, following), names in events.items():
        start, end = centre[state], centre[following]
        for name in names:
            parts.append(
                f'<text x="{(start + end) / 2:g}" y="{y + LINE - 4:g}" text-anchor="middle" font-size="12" '
                f'fill="currentColor">{escape(name)}</text>'
            )
            y += LINE
        parts.append(
            f'<line x1="{start:g}" y1="{y:g}" x2="{end:g}" y2="{y:g}" stroke="currentColor" '
            f'marker-end="url(#{what}-tip)"/><circle cx="{start:g}" cy="{y:g}" r="2.5" fill="currentColor"/>'
        )
        y += ROW
    width = 2 * MARGIN + BOX + (len(states) - 1) * COLUMN
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y:g}" role="img" '
        f'aria-label="The states of a {what}" style="max-width:100%;color:inherit">',
        f'<defs><marker id="{what}-tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
        'orient="auto"><path d="M0 0 8 4 0 8z" fill="currentColor"/></marker></defs>',
    ]
    for state, x in centre.items():
        head.append(
            f'<line x1="{x:g}" y1="{MARGIN + HEIGHT}" x2="{x:g}" y2="{y - ROW + 6:g}" '
            'stroke="currentColor" stroke-opacity="0.3" stroke-dasharray="3 3"/>'
            f'<rect x="{x - BOX / 2:g}" y="{MARGIN}" width="{BOX}" height="{HEIGHT}" rx="5" fill='
            '"var(--color-background-secondary, #eee)" stroke="currentColor"/>'
            f'<text x="{x:g}" y="{MARGIN + HEIGHT / 2 + 5:g}" text-anchor="middle" font-size="14" '
            f'fill="currentColor">{escape(str(state.value))}</text>'
        )
    return "\n".join([*head, *parts, "</svg>"])


class States(Directive):
    """The diagram of the states of a ``job`` or of a ``worker``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        return [nodes.raw("", drawing(self.arguments[0]), format="html")]


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("states", States)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
