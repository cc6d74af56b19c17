"""Running one command on the reactor: its start, signals, log and end. What commands do is elsewhere."""

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

from txgearman.cli.exit_codes import ExitCode, error_text, exit_code_of, printable

_SIGNALS: Final = {signal.SIGINT: ExitCode.INTERRUPTED, signal.SIGTERM: ExitCode.TERMINATED}


@dataclass(slots=True)
class CommandContext:
    """What a running command may use.

    Attributes:
        reactor: The reactor.
        on_interrupt: Called in the reactor on the first SIGINT or SIGTERM. Without one the command is
            cancelled.
        kill_hooks: Called on a second signal, before it ends the process at once.
    """

    reactor: Any
    on_interrupt: Callable[[], object] | None = None
    kill_hooks: list[Callable[[], object]] = field(default_factory=list)


Main = Callable[[CommandContext], Coroutine[Any, Any, int]]
"""The work of a command: a coroutine function that returns the exit code."""


def print_message(line: str) -> None:
    """Write one line to standard error."""
    write_stderr(f"txgearman: {printable(line)}")


def write_stderr(text: str) -> None:
    """Write to standard error. Errors are ignored: it may be a full disk, or closed."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def run(main: Main, *, verbose: bool = False, warnings: bool = False) -> int:
    """Run a command on the reactor. Its error, and critical log events, are printed in one line each.

    Args:
        main: The command.
        verbose: Whether to print information from the log too, and tracebacks.
        warnings: Whether to print warnings from the log too.

    Returns:
        The exit code.
    """
    from twisted.internet import reactor as installed

    reactor: Any = installed
    level = LogLevel.info if verbose else LogLevel.warn if warnings else LogLevel.critical
    _begin_logging(level, verbose)
    runner = _CommandRunner(CommandContext(reactor), main, verbose)
    reactor.callWhenRunning(runner.start)
    reactor.run()
    return runner.code


async def run_command(main: Main, context: CommandContext, verbose: bool = False) -> int:
    """Run a command, and print its error.

    Args:
        main: The command.
        context: What it may use.
        verbose: Whether to print tracebacks.

    Returns:
        The exit code.

    Raises:
        CancelledError: The command was cancelled. It raises nothing else.
    """
    try:
        code = await main(context)
        sys.stdout.flush()
    except CancelledError:
        raise
    except BrokenPipeError:
        _discard_output()
        return ExitCode.BROKEN_PIPE
    except Exception as error:
        write_stderr(f"txgearman: {error_text(error)}")
        if verbose or exit_code_of(error) is ExitCode.DEFECT:
            write_stderr("".join(traceback.format_exception(error)).rstrip())
        if isinstance(error, OSError):
            _discard_output()
        return exit_code_of(error)
    return code


def _discard_output() -> None:
    """Discard what is buffered for standard output. The interpreter would fail to write it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _CommandRunner:
    """Runs one command, from its start to its exit code."""

    def __init__(self, context: CommandContext, main: Main, verbose: bool) -> None:
        # Until the command ends.
        self.code: int = ExitCode.DEFECT
        self._context = context
        self._main = main
        self._verbose = verbose
        self._running: Deferred[int] | None = None
        self._signal: signal.Signals | None = None

    def start(self) -> None:
        # They replace the reactor's own handlers, which it has installed by now.
        for number in _SIGNALS:
            signal.signal(number, self._on_signal)
        self._running = Deferred.fromCoroutine(run_command(self._main, self._context, self._verbose))
        self._running.addCallbacks(self._ended, self._cancelled)
        self._running.addBoth(lambda _: self._context.reactor.stop())

    def _ended(self, code: int) -> None:
        self.code = code

    def _cancelled(self, failure: Failure) -> None:
        if not isinstance(failure.value, CancelledError):
            failure.raiseException()
        self.code = ExitCode.INTERRUPTED if self._signal is None else _SIGNALS[self._signal]

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        received = signal.Signals(number)
        if self._signal is not None:
            for hook in self._context.kill_hooks:
                hook()
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._signal = received
        self._context.reactor.callFromThread(self._interrupt)

    def _interrupt(self) -> None:
        if self._context.on_interrupt is not None:
            self._context.on_interrupt()
        elif self._running is not None:
            self._running.cancel()


def _begin_logging(level: Any, tracebacks: bool) -> None:
    @implementer(ILogObserver)
    def print_event(event: LogEvent) -> None:
        text = formatEvent(event)
        failure = event.get("log_failure")
        if failure is not None and tracebacks:
            print_message(text)
            write_stderr(failure.getTraceback())
        elif failure is not None:
            print_message(f"{text}: {failure.type.__name__}: {failure.getErrorMessage()}")
        else:
            print_message(text)

    observer = FilteringLogObserver(print_event, [LogLevelFilterPredicate(level)])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False, discardBuffer=True)
