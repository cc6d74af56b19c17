"""The start of the process under twistd: going to the background, and telling whoever started the server how
that went. Nothing of Gearman.

twistd's own way to the background is not used. Its parent process waits for a word of the child on a pipe
whose writing end it holds open itself. So a child that ends without that word, by `SystemExit` or a signal,
leaves it waiting for ever, and the pid file stays. Of an error it shows 98 bytes, in two lines.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import sys
from collections.abc import MutableMapping
from types import TracebackType
from typing import Any, Final, NoReturn

from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IReactorDaemonize
from twisted.logger import ILogObserver, LogEvent, Logger, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from txgearman.errors import StoreError

UMASK: Final = 0o077
"""What twistd sets in the background, unless it is told otherwise: files are for their owner alone."""

LAST_MOMENTS: Final = 5.0
"""Seconds that the parent waits for the end of a child that has said why it ends. So nothing is left of it
when the parent ends; one that hangs in its last moments holds nobody up."""

SERVES: Final = b"\0"
"""What a child says that serves; anything else is the reason for which it does not."""

EXPECTED: Final = (OSError, ValueError, StoreError, CannotListenError)
"""Errors that are no defect: their text says enough, and no traceback is logged."""

_LONGEST_WORD: Final = 4096
"""Bytes of a reason: what Linux writes to a pipe in one piece, PIPE_BUF."""

_log = Logger()


def reason_of(error: BaseException) -> str:
    """Why something failed, in one line."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    text = str(error) if isinstance(error, EXPECTED) and str(error) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())


@implementer(ILogObserver)
class Startup:
    """One start of the process, from the service's making to the first turn of the reactor.

    `twistd` are the options of twistd, or of another program that runs services. A start that fails, wherever
    that is, ends with exit code 1, with one line on the standard error of whoever started the server, and
    without a pid file.
    """

    def __init__(self, twistd: MutableMapping[str, Any]) -> None:
        self._twistd = twistd
        self._background = "nodaemon" in twistd and not twistd["nodaemon"] and hasattr(os, "fork")
        self._status: int | None = None
        self._entered = False
        self._has_pid_file = False
        self._over = False
        self._last = ""

    def begin(self) -> None:
        """Watch over the start from now on."""
        self._hook, sys.excepthook = sys.excepthook, self._raised
        atexit.register(self._exited)
        globalLogPublisher.addObserver(self)

    def take_over(self) -> None:
        """Keep twistd from going to the background by itself, once nobody needs to know any more whether it
        would. Raises `OSError` if there can be no pid file, for which twistd would log a traceback."""
        if not self._twistd.get("chroot"):
            self._write_pid_file()
        if self._background:
            self._twistd["nodaemon"] = True
            if self._twistd["umask"] is None:
                self._twistd["umask"] = UMASK

    def enter(self, reactor: Any) -> None:
        """The environment is set up, and the first service is about to start: go to the background, if that
        is wanted. Only the process there returns from this."""
        self._entered = True
        self._has_pid_file = bool(self._twistd.get("pidfile"))
        if self._background:
            self._daemonize(reactor)
            self._twistd["nodaemon"] = False

    def succeeded(self) -> None:
        """The server serves."""
        if not self._over:
            self._end()
            if self._status is not None:
                self._tell(SERVES)
                os.close(self._status)

    def __call__(self, event: LogEvent) -> None:
        """Observe the log: where twistd ends the process by itself, its last event says why."""
        self._last = formatEvent(event) or self._last

    def _end(self) -> None:
        self._over = True
        sys.excepthook = self._hook
        atexit.unregister(self._exited)
        globalLogPublisher.removeObserver(self)

    # -- failing ------------------------------------------------------------------------------------

    def _raised(
        self, kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        """What nobody caught ends the process."""
        reason = reason_of(error)
        if isinstance(error, EXPECTED):
            if self._entered:
                _log.critical("The server cannot start: {reason}", reason=reason)
        elif self._entered:
            failure = Failure(error, kind, traceback)  # type: ignore[no-untyped-call]
            _log.failure("The server cannot start: {reason}", failure, reason=reason)
        else:
            # There is no log yet that could have the traceback.
            self._hook(kind, error, traceback)
        self._fail(reason)

    def _exited(self) -> None:
        """The process ends without having served."""
        self._fail(self._last or "the process ended before it served")

    def _fail(self, reason: str) -> None:
        self._end()
        self._remove_pid_file()
        if self._status is None:
            _write_error(reason)
        else:
            # The pipe is left open to the end of the process, for which the parent waits.
            self._tell(" ".join(reason.split()).encode("utf-8", "backslashreplace"))

    def _tell(self, word: bytes) -> None:
        assert self._status is not None
        with contextlib.suppress(OSError):  # The parent is gone.
            os.write(self._status, word[:_LONGEST_WORD])

    def _write_pid_file(self) -> None:
        path = self._twistd.get("pidfile")
        if path:
            with open(path, "w") as file:
                file.write(f"{os.getpid()}")
            self._has_pid_file = True

    def _remove_pid_file(self) -> None:
        if self._has_pid_file:
            with contextlib.suppress(OSError):
                os.unlink(self._twistd["pidfile"])

    # -- going to the background --------------------------------------------------------------------

    def _daemonize(self, reactor: Any) -> None:
        """Fork twice, so that the server is nobody's child and leads no session. The parent waits here."""
        if IReactorDaemonize.providedBy(reactor):
            reactor.beforeDaemonize()
        reading, writing = os.pipe()
        if os.fork():
            os.close(writing)
            self._wait(reading)
        os.close(reading)
        self._status = writing
        os.setsid()
        if os.fork():
            os._exit(0)
        null = os.open(os.devnull, os.O_RDWR)
        for standard in range(3):
            os.dup2(null, standard)
        os.close(null)
        if IReactorDaemonize.providedBy(reactor):
            reactor.afterDaemonize()
        self._write_pid_file()

    def _wait(self, reading: int) -> NoReturn:
        """Wait until the child serves or has ended, and end as it does."""
        said = b""
        try:
            while select.select([reading], [], [], LAST_MOMENTS if said else None)[0]:
                part = os.read(reading, _LONGEST_WORD)
                said += part
                if said == SERVES:
                    os._exit(0)
                if not part:
                    break
            _write_error(said.decode(errors="replace") or "the server was ended before it served")
            # The child cannot, if it was killed or has given up the right to.
            self._remove_pid_file()
        finally:
            os._exit(1)


def _write_error(line: str) -> None:
    """Write a line to the standard error that the process was started with; twistd has put its log there."""
    if sys.__stderr__ is not None:
        with contextlib.suppress(OSError, ValueError):  # It is closed.
            print(" ".join(line.split()), file=sys.__stderr__, flush=True)
