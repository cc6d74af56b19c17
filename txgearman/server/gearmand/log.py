"""Where the log goes that gearmand's options ask for."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any, Final

from twisted.logger import FileLogObserver, ILogObserver, LogPublisher, formatEventAsClassicLogText
from twisted.python.logfile import LogFile

from txgearman.server.gearmand.options import NO_LOG, STDERR
from txgearman.server.process.logs import Threshold, filtered, syslog_observer

PREFIX: Final = "gearmand"
"""What syslog has ahead of the process id, as gearmand says it: filters look for that."""

_MODE: Final = 0o644


class GearmandLog:
    """The log.

    A file that cannot be opened is no reason not to start: the log goes to the standard error then, as with
    gearmand.

    Args:
        log_file: The path of the file, or `STDERR` or `NO_LOG`.
        syslog: Whether syslog has the log too.

    Attributes:
        file: The file, None if there is none.
    """

    def __init__(self, log_file: str, syslog: bool) -> None:
        self.file: LogFile | None = None
        self._observers: list[Any] = []
        if log_file == STDERR:
            self._write_to(sys.stderr)
        elif log_file != NO_LOG:
            self._open(os.path.abspath(log_file))
        if syslog:
            self._observers.append(syslog_observer(PREFIX))

    def _open(self, path: str) -> None:
        try:
            # It is rotated by logrotate, which says SIGHUP, and not by itself.
            self.file = LogFile.fromFullPath(path, rotateLength=None, defaultMode=_MODE)
        except OSError as error:
            print(
                f'txgearmand: Could not open log file "{path}", switching to stderr. ({error.strerror})',
                file=sys.stderr,
                flush=True,
            )
            self._write_to(sys.stderr)
        else:
            self._write_to(self.file)

    def _write_to(self, file: Any) -> None:
        self._observers.append(FileLogObserver(file, formatEventAsClassicLogText))

    def observer(self, threshold: Threshold) -> ILogObserver:
        """What writes the events that `threshold` lets through."""
        return filtered(LogPublisher(*self._observers), threshold)

    def reopen(self) -> None:
        """Open the file of this name, which may be another one since. If that fails, the old one stays."""
        if self.file is None:
            return
        with contextlib.suppress(OSError):
            # The old one is closed first.
            open(self.file.path, "ab").close()
            self.file.reopen()
