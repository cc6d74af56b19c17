"""The log of the process: its format, and from which level on it is written. What is logged is said where it
happens.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TextIO, cast

from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    ILogFilterPredicate,
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    PredicateResult,
    formatEvent,
    formatEventAsClassicLogText,
    formatTime,
)
from twisted.python.logfile import LogFile
from zope.interface import implementer

from txgearman.server.config.process_options import Level, LogFormat

SAME_EVERY: Final = 10.0
"""Seconds between two lines of Twisted's about connections for which there was no open file."""

_log = Logger()


_LEGACY: Final = frozenset({"message", "isError", "system", "time", "format", "why", "failure", "logLevel"})
"""What Twisted adds to events for observers of old."""


def json_line(event: LogEvent) -> str:
    """An event as JSON: ``time``, ``level``, ``logger``, ``message``, ``traceback`` if there is one, and
    under ``fields`` what is in the message by name."""
    line: dict[str, Any] = {
        "time": formatTime(event["log_time"]),
        "level": event.get("log_level", LogLevel.info).name,
        "logger": event.get("log_namespace", "-"),
        "message": formatEvent(event),
    }
    fields = {key: _plain(value) for key, value in event.items() if _is_field(key)}
    if fields:
        line["fields"] = fields
    if "log_failure" in event:
        line["traceback"] = event["log_failure"].getTraceback()
    return json.dumps(line) + "\n"


def _is_field(key: str) -> bool:
    return not key.startswith("log_") and key not in _LEGACY


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, str | int | float | None):
        return value
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


@implementer(ILogFilterPredicate)
class Threshold:
    """From which level on events are written. `level` is what the operator chose, and may be overridden for
    a while."""

    def __init__(self, level: Level) -> None:
        self.level = level
        self._override: Level | None = None

    @property
    def current(self) -> Level:
        """The level that holds now."""
        return self.level if self._override is None else self._override

    def override(self, level: Level | None) -> None:
        """Let another level hold from now on; None for the operator's again."""
        self._override = level
        # Written whatever the level is: who looks for lines that are not there finds out here.
        text = "The log is now written from level {threshold} on"
        _log.info(text, threshold=self.current.value, is_always_written=True)

    def toggle_debug(self) -> None:
        """Debugging on, or off again."""
        self.override(None if self.current is Level.DEBUG else Level.DEBUG)

    def __call__(self, event: LogEvent) -> Any:
        """The predicate for `FilteringLogObserver`."""
        enough = event.get("log_level", LogLevel.info) >= LogLevel.lookupByName(self.current.value)
        return PredicateResult.maybe if enough or event.get("is_always_written") else PredicateResult.no


@implementer(ILogFilterPredicate)
class WithoutFiles:
    """A predicate that lets through a line of Twisted's about a connection without a file now and then only:
    there are three for each."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until = -SAME_EVERY

    def __call__(self, event: LogEvent) -> Any:
        """The predicate for `FilteringLogObserver`."""
        if "EMFILE" in str(event.get("log_format")) and event.get("log_level") is LogLevel.info:
            now = self._clock()
            if now < self._until:
                return PredicateResult.no
            self._until = now + SAME_EVERY
        return PredicateResult.maybe


def observer_for(
    twistd: Mapping[str, Any], log_format: LogFormat, threshold: Threshold
) -> ILogObserver | None:
    """What writes the log where the options of twistd say; None if they give an observer of their own."""
    if twistd.get("logger") is not None:
        return None
    if twistd.get("syslog"):
        writer = syslog_observer(twistd.get("prefix") or "")
    else:
        form: Callable[[LogEvent], str | None]
        form = json_line if log_format is LogFormat.JSON else formatEventAsClassicLogText
        writer = FileLogObserver(_file(twistd), form)
    return filtered(writer, threshold)


def filtered(writer: ILogObserver, threshold: Threshold) -> ILogObserver:
    """What writes the events that are to be written, to `writer`."""
    return FilteringLogObserver(writer, [threshold, WithoutFiles()])


def _file(twistd: Mapping[str, Any]) -> TextIO:
    """The file of the log, found as twistd finds it."""
    name, foreground = twistd.get("logfile"), twistd.get("nodaemon")
    if name == "-" or (foreground and not name):
        return sys.stdout
    return cast(TextIO, LogFile.fromFullPath(name or "twistd.log"))


def syslog_observer(prefix: str) -> ILogObserver:
    """What writes events to syslog, with `prefix` ahead of the process id."""
    from twisted.logger import LegacyLogObserverWrapper
    from twisted.python.syslog import SyslogObserver

    observer: Any = SyslogObserver(prefix).emit
    return LegacyLogObserverWrapper(observer)
