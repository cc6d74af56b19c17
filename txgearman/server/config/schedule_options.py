"""What an operator may say of a schedule: ``[schedules.NAME]`` of the configuration file."""

from __future__ import annotations

import os
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, tzinfo
from enum import Enum
from typing import Any, Final

from txgearman.broker.job_states import Priority
from txgearman.broker.recurrence import Cron, Every, Recurrence
from txgearman.broker.schedule import DEFAULT_MISSED_WINDOW, MAX_WINDOW, Missed, Overlap, Schedule
from txgearman.server.config.function_options import MAX_TIME_LIMIT, check_function_name
from txgearman.server.config.option_kinds import (
    FLAG,
    PATH,
    SECONDS,
    TEXT,
    option,
    options_of,
    show_value,
    verify,
)
from txgearman.wire.limits import MAX_UNIQUE

MAX_NAME: Final = MAX_UNIQUE - len(":253402300799")
"""Bytes of a schedule's name, so that name and tick make a unique."""

MAX_SCHEDULES: Final = 1000
"""Schedules that there may be unless the operator says otherwise. Each is looked at where the clock was set
back."""

MOST_SCHEDULES: Final = 100_000
"""Schedules that an operator can allow: with one tick a minute each as many jobs as a server takes."""

MAX_DATA: Final = 16 * 1024 * 1024
"""Bytes of a schedule's data. It is in memory once, and in each of its jobs."""

MAX_ADDED_DATA: Final = 64 * 1024
"""Bytes of the data of a schedule that is added while the server runs, as many as HTTP takes. Each server of
a database reads them all when one is changed: 64 MB of a thousand schedules."""

_PRIORITIES: Final = {priority.name.lower(): int(priority) for priority in Priority}


class Weekdays(Enum):
    """What the numbers of SUBMIT_JOB_SCHED's days of the week mean."""

    MONDAY_0 = "monday-0"
    """0 is Monday and 6 Sunday, as the protocol document has it."""
    SUNDAY_0 = "sunday-0"
    """0 and 7 are Sunday, as cron has it."""


def zone_of(name: str) -> tzinfo:
    """The time zone of this name.

    It is read anew each time: a reload is to know new rules of the zone.

    Args:
        name: A name of the IANA's database, such as ``Europe/Berlin``.

    Returns:
        The zone.

    Raises:
        ValueError: There is none of this name. The text goes on after the option's name.
    """
    if name.upper() == "UTC":
        return UTC
    # Not at the top: a server without schedules does without.
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

    try:
        return ZoneInfo.no_cache(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        if not available_timezones():
            raise ValueError(
                "cannot be found, as this system has no time zones: pip install tzdata"
            ) from None
        raise ValueError(f"must be a time zone such as 'Europe/Berlin', not {name!r}") from None


def cron_of(text: str, zone: tzinfo = UTC) -> Cron:
    """The ticks of a cron expression.

    Args:
        text: The expression.
        zone: Its time zone.

    Returns:
        The ticks.

    Raises:
        ValueError: The expression cannot be, or the package for it is missing. The text goes on after the
            option's name.
    """
    try:
        return Cron(text, zone)
    except ImportError as error:
        raise ValueError(f"needs a package: pip install 'txgearman[schedules]' ({error})") from None


def check_schedule_name(name: str) -> None:
    """Check the name of a schedule.

    Args:
        name: The name.

    Raises:
        ValueError: It cannot be one.
    """
    if not 0 < len(name.encode()) <= MAX_NAME:
        raise ValueError(f"the name of a schedule has 1 to {MAX_NAME} bytes")
    if any(character.isspace() or not character.isprintable() for character in name):
        raise ValueError(f"the name of a schedule has no spaces and no control characters: {name!r}")


def _check_cron(text: str) -> None:
    cron_of(text)


def _check_every(seconds: float) -> None:
    Every(seconds, "")


def _check_zone(name: str) -> None:
    zone_of(name)


def _check_function(name: str) -> None:
    if not name:
        raise ValueError("must be said: what the jobs are to run")
    check_function_name(name)
    if "*" in name:
        raise ValueError("must be the name of one function, without a star")


def _check_priority(text: str) -> None:
    if text not in _PRIORITIES:
        raise ValueError(f"must be {', '.join(_PRIORITIES)}, not {text!r}")


def _check_unique(text: str) -> None:
    if len(text.encode()) > MAX_UNIQUE:
        raise ValueError(f"must have at most {MAX_UNIQUE} bytes")


@dataclass(frozen=True, slots=True)
class ScheduleSettings:
    """The settings of a schedule.

    Attributes:
        function: The function that its jobs run.
        cron: Five fields that say when, or a nickname such as ``@daily``.
        every: Seconds between two jobs.
        timezone: The time zone of `cron`.
        data: The payload of each job, as text.
        data_file: The file that has it.
        unique: The unique of its jobs.
        priority: Their priority.
        jitter: Seconds over which they are spread.
        missed: What becomes of missed ticks.
        missed_window: Seconds after which a missed tick has no job.
        overlap: What becomes of a tick while the job of the one before lives.
        enabled: Whether it ticks.

    Raises:
        ValueError: A value cannot be.
    """

    function: str = option("", "The function that the jobs run.", kind=TEXT, check=_check_function)
    cron: str | None = option(
        None,
        "When: minute, hour, day of month, month, day of week, with names, lists, ranges and steps as cron "
        "has them, or ``@hourly``, ``@daily``, ``@weekly``, ``@monthly``, ``@yearly``.",
        kind=TEXT,
        check=_check_cron,
    )
    every: float | None = option(
        None,
        "In place of ``cron``: whole seconds between two jobs. They come at the multiples since 1970, UTC.",
        kind=SECONDS,
        most=MAX_TIME_LIMIT,
        check=_check_every,
    )
    timezone: str = option("UTC", "The time zone of ``cron``, by its IANA name.", check=_check_zone)
    data: str | None = option(None, "The payload of each job, as text.", kind=TEXT)
    data_file: str | None = option(
        None,
        "The file that has the payload, in place of ``data``. It is read at the start and by a reload.",
        kind=PATH,
    )
    unique: str | None = option(
        None,
        "The unique of the jobs. By default the schedule's name; the name and the tick with ``overlap`` as "
        "``queue``, as ticks would be coalesced otherwise.",
        kind=TEXT,
        check=_check_unique,
    )
    priority: str = option("normal", "``high``, ``normal`` or ``low``.", check=_check_priority)
    jitter: float = option(
        0.0,
        "Seconds over which the jobs are spread: each comes so much later at most, by a part that is the "
        "same for a tick on all servers.",
        least=0,
        most=86_400,
    )
    missed: Missed = option(
        Missed.ONE,
        "What becomes of ticks that the server was not there for: ``skip`` them, run ``one`` job for all, or "
        "``all`` of them.",
    )
    missed_window: float = option(
        DEFAULT_MISSED_WINDOW,
        "Seconds: a tick that was missed longer ago has no job in any case.",
        least=0,
        most=MAX_WINDOW,
    )
    overlap: Overlap = option(
        Overlap.SKIP,
        "What becomes of a tick while the job of the one before lives, retries included: ``skip`` it, or "
        "``queue`` its job all the same.",
    )
    enabled: bool = option(True, "Whether there are any jobs.", kind=FLAG)

    def __post_init__(self) -> None:
        # As text too, which is how people write them.
        object.__setattr__(self, "missed", Missed(self.missed))
        object.__setattr__(self, "overlap", Overlap(self.overlap))
        verify(self)
        if (self.cron is None) == (self.every is None):
            raise ValueError("one of cron and every must be said, and not both")
        if self.data is not None and self.data_file is not None:
            raise ValueError("only one of data and data-file can be said")

    def schedule(self, name: str) -> Schedule:
        """The schedule that this describes.

        Args:
            name: What it is called.

        Returns:
            The schedule, with the contents of `data_file`.

        Raises:
            ValueError: The name cannot be one, or the file cannot be read.
        """
        check_schedule_name(name)
        recurrence: Recurrence
        if self.cron is not None:
            recurrence = cron_of(self.cron, zone_of(self.timezone))
        else:
            assert self.every is not None
            recurrence = Every(self.every, f"every {self.every:g}s")
        return Schedule(
            name=name.encode(),
            function=self.function.encode(),
            recurrence=recurrence,
            timezone=self.timezone,
            data=self._payload(),
            unique=None if self.unique is None else self.unique.encode(),
            priority=_PRIORITIES[self.priority],
            jitter=self.jitter,
            missed=self.missed,
            missed_window=self.missed_window,
            overlap=self.overlap,
            enabled=self.enabled,
        )

    def _payload(self) -> bytes:
        if self.data_file is None:
            return (self.data or "").encode()
        try:
            with open(self.data_file, "rb") as file:
                payload = file.read(MAX_DATA + 1)
        except OSError as error:
            raise ValueError(f"data-file {os.path.basename(self.data_file)}: {error.strerror}") from None
        if len(payload) > MAX_DATA:
            raise ValueError(f"data-file must have at most {MAX_DATA} bytes")
        return payload


_DEFINED: Final = {
    each.attribute: each
    for each in options_of(ScheduleSettings)
    if each.attribute not in ("data", "data_file")
}


def data_of(members: dict[str, Any]) -> bytes | None:
    """Take the payload out of what somebody wrote of a schedule.

    Args:
        members: What was written. ``data`` has the payload as text, ``data_base64`` in Base64.

    Returns:
        The payload; None if nothing was said of it.

    Raises:
        ValueError: It is there twice, or is not what it should be.
    """
    text, encoded = members.pop("data", None), members.pop("data_base64", None)
    if text is None and encoded is None:
        return None
    if text is not None and encoded is not None:
        raise ValueError("only one of data and data_base64 can be said")
    said = encoded if text is None else text
    if not isinstance(said, str):
        raise ValueError("data and data_base64 are texts")
    try:
        return said.encode() if encoded is None else b64decode(said, validate=True)
    except ValueError:
        raise ValueError("the data of a schedule cannot be read") from None


def _check_text(key: str, text: str) -> None:
    """Check a text of JSON, which may have halves of surrogate pairs. Raises `ValueError`."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{key} has half of a surrogate pair") from None


def schedule_of(name: str, definition: Mapping[str, Any], data: bytes) -> Schedule:
    """The schedule that a definition describes, as it is added while the server runs.

    Args:
        name: What it is called.
        definition: The settings but for the data, as values of JSON, by their names with underscores. What is
            missing or None has its default.
        data: The payload of each job.

    Returns:
        The schedule.

    Raises:
        ValueError: It cannot be one.
    """
    values = {}
    for key, value in definition.items():
        each = _DEFINED.get(key)
        if each is None:
            raise ValueError(f"a schedule has no {show_value(key)}; it has {', '.join(_DEFINED)}")
        if isinstance(value, str) and not value.isascii():
            _check_text(key, value)
        if value is not None:
            values[key] = each.of_toml(value)
    if len(data) > MAX_ADDED_DATA:
        raise ValueError(f"data must have at most {MAX_ADDED_DATA} bytes")
    return replace(ScheduleSettings(**values).schedule(name), data=data)
