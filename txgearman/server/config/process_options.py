"""What an operator may choose for the process of ``twistd gearmand``. Data only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from txgearman.server.config.option_kinds import option, verify


class LogFormat(Enum):
    """How an event is written."""

    TEXT = "text"
    """As twistd writes it."""
    JSON = "json"
    """A JSON object on a line of its own."""


class Level(Enum):
    """How grave an event is, with Twisted's names."""

    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class ProcessSettings:
    """What concerns the whole process, and so only ``twistd gearmand`` and no server inside another program.

    The attributes are named as the options of ``twistd gearmand``, as those of `Settings` are.

    Raises:
        ValueError: A value cannot be.
    """

    file_descriptors: int = option(
        0,
        "How many open files to ask the system for; a connection needs one. 0 is as many as the system "
        "allows. If it refuses, that is logged and the server starts with the old limit.",
        short="f",
        least=0,
    )
    log_format: LogFormat = option(
        LogFormat.TEXT,
        "How the log is written. ``text`` is twistd's own format; ``json`` is a JSON object a line, with "
        "``time``, ``level``, ``logger``, ``message`` and its ``fields``. Where it is written to twistd's "
        "options say.",
    )
    log_level: Level = option(
        Level.INFO,
        "From which level on events are logged: ``debug``, ``info``, ``warn``, ``error`` or ``critical``. "
        "SIGUSR2 turns debugging on and off, and so does ``verbose``.",
        reloadable=True,
    )
    drain_timeout: float = option(
        5.0,
        "Seconds that running jobs have to end after SIGTERM. Meanwhile nobody is let in, no job is taken "
        "and none given to a worker. 0 is to stop at once. A second SIGTERM does so too.",
        reloadable=True,
        least=0,
        most=86400,
    )

    def __post_init__(self) -> None:
        verify(self)
