"""Draws the rooms of the package and which of them import which, as they are: SVG, made of the code.

The rows are the layers of the import contract in pyproject.toml. An arrow that others imply is left out: who
imports a room also has what that imports.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Final

PACKAGE: Final = "txgearman"
CONTRACT: Final = "Arrows point one way"
BOX, HEIGHT, GAP, ROW, MARGIN = 112, 34, 16, 84, 10
"""Lengths in pixels."""


def layers(checkout: Path) -> list[list[str]]:
    """The rooms in their layers, the highest first, as the import contract of a checkout has them."""
    settings = tomllib.loads((checkout / "pyproject.toml").read_text())
    contracts = settings["tool"]["importlinter"]["contracts"]
    (contract,) = [each for each in contracts if each["name"] == CONTRACT]
    return [
        [room.strip().removeprefix(f"{PACKAGE}.") for room in layer.split("|")]
        for layer in contract["layers"]
    ]


def imports(checkout: Path, rooms: set[str]) -> dict[str, set[str]]:
    """Which rooms each room imports itself."""
    found: dict[str, set[str]] = {room: set() for room in rooms}
    for path in (checkout / PACKAGE).rglob("*.py"):
        module = path.relative_to(checkout / PACKAGE).with_suffix("").parts
        if module[0] in rooms:
            named = {name.split(".")[1] for name in _imported(ast.parse(path.read_text()))}
            found[module[0]] |= (named & rooms) - {module[0]}
    return found


def _imported(tree: ast.AST) -> Iterator[str]:
    """The modules below the package that a module imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name for name in names if name.startswith(f"{PACKAGE}."))


def direct(arrows: dict[str, set[str]]) -> set[tuple[str, str]]:
    """The arrows that no way over other rooms implies."""

    def below(room: str) -> set[str]:
        return arrows[room].union(*(below(each) for each in arrows[room]))

    return {
        (room, target)
        for room, targets in arrows.items()
        for target in targets
        if not any(target in below(other) for other in targets - {target})
    }


def drawing(checkout: Path) -> str:
    """The picture, as an SVG element."""
    rows = layers(checkout)
    width = 2 * MARGIN + max(map(len, rows)) * (BOX + GAP) - GAP
    places = {
        room: ((width - len(row) * (BOX + GAP) + GAP) / 2 + index * (BOX + GAP), MARGIN + level * ROW)
        for level, row in enumerate(rows)
        for index, room in enumerate(row)
    }
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {len(rows) * ROW}" role="img" '
        'aria-label="The rooms of the package and their imports" style="max-width:100%;color:inherit">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0 8 4 0 8z" fill="currentColor"/></marker></defs>',
    ]
    for room, target in sorted(direct(imports(checkout, set(places)))):
        (x, y), (to_x, to_y) = places[room], places[target]
        parts.append(
            f'<line x1="{x + BOX / 2:g}" y1="{y + HEIGHT:g}" x2="{to_x + BOX / 2:g}" y2="{to_y:g}" '
            'stroke="currentColor" stroke-opacity="0.45" marker-end="url(#tip)"/>'
        )
    for room, (x, y) in places.items():
        parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{BOX}" height="{HEIGHT}" rx="5" fill="var(--color-background-'
            'secondary, #eee)" stroke="currentColor"/>'
            f'<text x="{x + BOX / 2:g}" y="{y + HEIGHT / 2 + 5:g}" text-anchor="middle" font-size="14" '
            f'fill="currentColor">{escape(room)}</text>'
        )
    return "\n".join([*parts, "</svg>"])
