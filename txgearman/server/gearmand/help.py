"""What ``txgearmand --help`` says."""

from __future__ import annotations

import shutil
import textwrap
from typing import Final

from txgearman.server.gearmand.options import OPTIONS, SECTIONS, Effect, GearmandOption

INDENT: Final = 34
"""Columns ahead of what an option means."""

NARROWEST: Final = 60
WIDEST: Final = 110
"""Columns of the text, whatever the terminal has."""

_INTRO: Final = (
    "A Gearman job server behind gearmand's command line. Options are those of gearmand 1.1.20 and 2.0, and "
    "mean what they mean in 1.1.20 unless it is said otherwise."
)


def help_text(columns: int | None = None) -> str:
    """The text of ``--help``.

    Args:
        columns: The width of the terminal; None to ask it.

    Returns:
        The text, with a line end.
    """
    width = shutil.get_terminal_size().columns if columns is None else columns
    width = min(max(width, NARROWEST), WIDEST)
    lines = ["Usage: txgearmand [options]", "", *textwrap.wrap(_INTRO, width)]
    for section in SECTIONS:
        lines += ["", f"{section}:"]
        for option in OPTIONS:
            if option.section == section and not option.hidden and option.effect is not Effect.ELSEWHERE:
                lines += _described(option, width)
    return "\n".join(lines) + "\n"


def _described(option: GearmandOption, width: int) -> list[str]:
    short = f"-{option.short}, " if option.short else "    "
    name = f"  {short}--{option.name}" + ("" if option.value is None else f" {option.value}")
    meaning = textwrap.wrap(option.meaning, width - INDENT)
    first = name.ljust(INDENT) + meaning[0] if len(name) < INDENT else name
    rest = meaning[1:] if len(name) < INDENT else meaning
    return [first, *(" " * INDENT + line for line in rest)]
