"""A progress bar on standard error, and results on standard output, also where both are the same terminal.

There is no bar where standard error is not a terminal. Nothing here knows of jobs.
"""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from twisted.internet.task import LoopingCall

from txgearman.cli.run import write_stderr

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

_ONLY_TASK: Final[TaskID] = 0  # type: ignore[assignment]
"""Which of the tasks of `rich` the bar is."""

_REFRESH_SECONDS: Final = 0.1
"""Seconds between two drawings: short enough to look alive, long enough for a slow line."""


class ProgressBar:
    """A progress bar that is redrawn by the reactor, until `close` or `__exit__`.

    It is not drawn before the first `set`, nor after output that has not ended its line.

    Args:
        reactor: Redraws it.
        name: The text before the bar.
        console: Where it is drawn; standard error by default.
    """

    def __init__(self, reactor: Any, name: str, console: Console | None = None) -> None:
        self._output = sys.stdout.buffer
        self._output_on_terminal = sys.stdout.isatty()
        self._mid_line = False
        self._visible = False
        is_terminal = sys.stderr.isatty() if console is None else console.is_terminal
        self._progress = _progress(name, console) if is_terminal else None
        self._redraw = LoopingCall(self._refresh)
        self._redraw.clock = reactor

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the bar. Output on a terminal gets the line end that it lacks: the shell's prompt would
        stand after it otherwise."""
        self.close()
        if self._output_on_terminal and self._mid_line:
            self.write(b"\n")

    def close(self) -> None:
        """Remove the bar until the next `set`."""
        self._visible = False
        self._hide()

    def set(self, done: int, total: int | None, note: str = "") -> None:
        """Show the bar.

        Args:
            done: How much is done.
            total: Of how much; None if that is not known.
            note: A text after the bar.
        """
        if self._progress is None:
            return
        self._progress.update(_ONLY_TASK, completed=done, total=total or None, note=note)
        if not self._visible:
            self._visible = True
            self._show()

    def write(self, data: bytes) -> None:
        """Write to standard output. Raises `BrokenPipeError` if that has no reader any more."""
        if self._output_on_terminal:
            self._hide()
        self._output.write(data)
        self._output.flush()
        if data:
            self._mid_line = not data.endswith(b"\n")
        if self._output_on_terminal:
            self._show()

    def write_above(self, line: str) -> None:
        """Write a line to standard error, above the bar."""
        self._hide()
        write_stderr(line)
        self._show()

    def _show(self) -> None:
        if self._progress is None or not self._visible or self._redraw.running:
            return
        if not (self._output_on_terminal and self._mid_line):
            self._progress.start()
            self._redraw.start(_REFRESH_SECONDS)

    def _hide(self) -> None:
        if self._progress is not None and self._redraw.running:
            self._redraw.stop()
            self._progress.stop()

    def _refresh(self) -> None:
        if self._progress is not None:
            self._progress.refresh()


def _progress(name: str, console: Console | None) -> Progress:
    """What draws the bar. Only where there is a terminal is `rich` imported, which takes its time."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        TimeElapsedColumn(),
        console=Console(stderr=True) if console is None else console,
        auto_refresh=False,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    progress.add_task(name, total=None, note="")
    return progress
