"""A run of the reactor for one command: its begin, signals, log and end. What is done in it is not here."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    formatEvent,
    globalLogBeginner,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from txgearman.cli.outcome import Exit, exit_of, line_of, printable

_SIGNALS: Final = {signal.SIGINT: Exit.INTERRUPTED, signal.SIGTERM: Exit.TERMINATED}


@dataclass(slots=True)
class Run:
    """What a command gets to run with.

    `reactor` is the reactor. `interrupted` is called in it on the first SIGINT or SIGTERM; without one the
    command is cancelled. A second signal ends the process at once, after each of `at_once` was called.
    """

    reactor: Any
    interrupted: Callable[[], object] | None = None
    at_once: list[Callable[[], object]] = field(default_factory=list)


Main = Callable[[Run], Coroutine[Any, Any, int]]
"""What a command does: a coroutine function that returns the exit code."""


def say(line: str) -> None:
    """Tell the person one line, on standard error."""
    write_error(f"txgearman: {printable(line)}")


def write_error(text: str) -> None:
    """Write to standard error, which may be a full disk or gone; how the command ends tells the rest."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def run(main: Main, *, verbose: bool = False, warnings: bool = False) -> int:
    """Run `main` on the reactor and return the exit code, the error having been told.

    What is logged as critical, and with `warnings` what is logged as a warning, is told in one line each;
    with `verbose` information is told too, and tracebacks.
    """
    from twisted.internet import reactor as installed

    reactor: Any = installed
    level = LogLevel.info if verbose else LogLevel.warn if warnings else LogLevel.critical
    _begin_logging(level, verbose)
    this = _Running(Run(reactor), main, verbose)
    reactor.callWhenRunning(this.start)
    reactor.run()
    return this.code


async def carry_out(main: Main, its: Run, verbose: bool = False) -> int:
    """The exit code of `main`; an error is told and becomes one. Raises `CancelledError` alone."""
    try:
        code = await main(its)
        sys.stdout.flush()
    except CancelledError:
        raise
    except BrokenPipeError:
        _give_up_output()
        return Exit.BROKEN_PIPE
    except Exception as error:
        say(line_of(error))
        if verbose or exit_of(error) is Exit.DEFECT:
            write_error("".join(traceback.format_exception(error)).rstrip())
        if isinstance(error, OSError):
            _give_up_output()
        return exit_of(error)
    return code


def _give_up_output() -> None:
    """Let what standard output still holds go nowhere: at its end the interpreter would fail to write it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Running:
    """One command that runs, from its start to its exit code."""

    def __init__(self, its: Run, main: Main, verbose: bool) -> None:
        # Until it has another end.
        self.code: int = Exit.DEFECT
        self._its = its
        self._main = main
        self._verbose = verbose
        self._doing: Deferred[int] | None = None
        self._signal: signal.Signals | None = None

    def start(self) -> None:
        # In place of the reactor's own, which it has installed by now.
        for number in _SIGNALS:
            signal.signal(number, self._signalled)
        self._doing = Deferred.fromCoroutine(carry_out(self._main, self._its, self._verbose))
        self._doing.addCallbacks(self._ended, self._cancelled)
        self._doing.addBoth(lambda _: self._its.reactor.stop())

    def _ended(self, code: int) -> None:
        self.code = code

    def _cancelled(self, failure: Failure) -> None:
        if not isinstance(failure.value, CancelledError):
            failure.raiseException()
        self.code = Exit.INTERRUPTED if self._signal is None else _SIGNALS[self._signal]

    def _signalled(self, number: int, _frame: FrameType | None) -> None:
        received = signal.Signals(number)
        if self._signal is not None:
            for last in self._its.at_once:
                last()
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._signal = received
        self._its.reactor.callFromThread(self._interrupt)

    def _interrupt(self) -> None:
        if self._its.interrupted is not None:
            self._its.interrupted()
        elif self._doing is not None:
            self._doing.cancel()


def _begin_logging(level: Any, tracebacks: bool) -> None:
    @implementer(ILogObserver)
    def tell(event: LogEvent) -> None:
        text = formatEvent(event)
        failure = event.get("log_failure")
        if failure is not None and tracebacks:
            say(text)
            write_error(failure.getTraceback())
        elif failure is not None:
            say(f"{text}: {failure.type.__name__}: {failure.getErrorMessage()}")
        else:
            say(text)

    observer = FilteringLogObserver(tell, [LogLevelFilterPredicate(level)])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False, discardBuffer=True)
