"""A progress bar on standard error, and results on standard output, without the one spoiling the other.

Where standard error is no terminal there is no bar. Nothing here knows of jobs.
"""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from twisted.internet.task import LoopingCall

from txgearman.cli.run import write_stderr

_PAUSE: Final = 0.1
"""Seconds between two drawings: often enough to look alive, seldom enough for a slow line."""


class Bar:
    """The bar, between `__enter__` and `__exit__`. `reactor` draws it again and again.

    It is not drawn before the first `set`, nor behind output that stopped in the middle of a line.
    """

    def __init__(self, reactor: Any, name: str, console: Console | None = None) -> None:
        self._console = Console(stderr=True) if console is None else console
        self._output = sys.stdout.buffer
        self._shares_terminal = sys.stdout.isatty()
        self._line_begun = False
        self._wanted = False
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            TimeElapsedColumn(),
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._progress.add_task(name, total=None, note="")
        self._redraw = LoopingCall(self._progress.refresh)
        self._redraw.clock = reactor

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Wipe the bar out, until the next `set`."""
        self._wanted = False
        self._hide()

    def set(self, done: int, total: int | None, note: str = "") -> None:
        """Show `done` of `total`, None for an unknown total, and a note behind it."""
        if not self._console.is_terminal:
            return
        self._progress.update(self._task, completed=done, total=total or None, note=note)
        if not self._wanted:
            self._wanted = True
            self._show()

    def write(self, data: bytes) -> None:
        """Write to standard output. Raises `BrokenPipeError` if nobody reads it any more."""
        if self._shares_terminal:
            self._hide()
        self._output.write(data)
        self._output.flush()
        if data:
            self._line_begun = not data.endswith(b"\n")
        if self._shares_terminal:
            self._show()

    def tell(self, line: str) -> None:
        """Write a line to standard error, above the bar."""
        self._hide()
        write_stderr(line)
        self._show()

    def _show(self) -> None:
        if self._wanted and not self._redraw.running and not (self._shares_terminal and self._line_begun):
            self._progress.start()
            self._redraw.start(_PAUSE)

    def _hide(self) -> None:
        if self._redraw.running:
            self._redraw.stop()
            self._progress.stop()
