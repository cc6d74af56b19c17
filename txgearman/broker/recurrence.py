"""When something that recurs is due next. Pure: time zones come in, and no clock is read."""

from __future__ import annotations

import re
from datetime import UTC, datetime, tzinfo
from math import floor
from typing import Any, Final, Protocol

MAX_CRON: Final = 256
"""Characters of a cron expression. One that lists every minute of the hour has 170."""

MIN_EVERY: Final = 1.0
"""Seconds between two ticks at least, as the ticks of a schedule are told apart by whole seconds."""

_NICKNAMES: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

_FIELDS: Final = ("minute", "hour", "day of month", "month", "day of week")

# CronSim's names of the fields in its errors.
_ITS_FIELDS: Final = ("minute", "hour", "day-of-month", "month", "day-of-week")

_ATTEMPTS: Final = 4
"""Times of CronSim that are looked at for one that is later than the time asked for. Where an hour repeats it
gives the first of two equal wall times, which may be past."""


class Recurrence(Protocol):
    """Ticks in time. Two of the same `text` and zone tick at the same times, on every server.

    Attributes:
        text: What the operator wrote.
    """

    text: str

    def next_after(self, when: float) -> float | None:
        """The first tick that is later than a time.

        Args:
            when: Seconds since the epoch.

        Returns:
            Whole seconds since the epoch; None if there is none within fifty years.
        """


class Every:
    """Ticks at the multiples of so many seconds since 1970, so that all servers agree.

    Args:
        seconds: A whole number of seconds.
        text: What the operator wrote.

    Raises:
        ValueError: The number is not whole, or less than `MIN_EVERY`.
    """

    __slots__ = ("seconds", "text")

    def __init__(self, seconds: float, text: str) -> None:
        if seconds < MIN_EVERY or seconds != floor(seconds):
            raise ValueError(f"must be a whole number of seconds, {MIN_EVERY:g} or more")
        self.seconds = floor(seconds)
        self.text = text

    def next_after(self, when: float) -> float | None:
        return float((floor(when / self.seconds) + 1) * self.seconds)


class Cron:
    """Ticks of a cron expression of five fields in a time zone.

    Days of month and of week that are both given mean either, as with cron; where one begins with a star both
    must fit, as with Debian's cron. Its rules for clock changes hold too: a fixed time in an hour that is
    skipped ticks once, right after that hour, and one in an hour that repeats ticks once. What begins with a
    star in its minutes or hours goes on as time goes.

    Args:
        text: Five fields, or a nickname such as ``@daily``.
        zone: The time zone.

    Raises:
        ValueError: The expression cannot be, or never ticks. The text goes on after the expression's name.
        ImportError: The package for cron expressions is not installed.
    """

    __slots__ = ("_expected", "_expression", "_ticks", "_zone", "text")

    def __init__(self, text: str, zone: tzinfo = UTC) -> None:
        self.text = text
        self._zone = zone
        self._expression = _expression(text)
        # Ticks that follow the last answer: one after the other is ten times as fast as each anew.
        self._ticks: Any = None
        self._expected: float | None = None
        if self.next_after(0.0) is None:
            raise ValueError("never comes")

    def next_after(self, when: float) -> float | None:
        if self._expected != when:
            self._ticks = _cronsim().CronSim(self._expression, datetime.fromtimestamp(when, self._zone))
        for _ in range(_ATTEMPTS):
            try:
                tick = next(self._ticks).timestamp()
            except StopIteration:
                break
            if tick > when:
                earlier = self._passed_over(when, tick)
                self._expected = tick if earlier is None else None
                return float(tick if earlier is None else earlier)
        self._expected = None
        return None

    def _passed_over(self, when: float, tick: float) -> float | None:
        """The first tick between two times that CronSim passes over: it goes from hour to hour, and some
        zones change their clocks by half an hour."""
        if self._ticks.fixup_tz is not None:
            # The hours of fixed times are those of the wall clock.
            return None
        before = self._offset(when)
        if not (self._offset(tick) - before) % 3600:
            return None
        low, high = floor(when / 60), floor(tick / 60)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._offset(middle * 60) == before else (low, middle)
        for minute in range(high, min(high + 60, floor(tick / 60))):
            if minute * 60 > when and self._fits(datetime.fromtimestamp(minute * 60, self._zone)):
                return minute * 60.0
        return None

    def _offset(self, when: float) -> float:
        """Seconds by which the zone is ahead of UTC."""
        offset = datetime.fromtimestamp(when, self._zone).utcoffset()
        return 0.0 if offset is None else offset.total_seconds()

    def _fits(self, wall: datetime) -> bool:
        its = self._ticks
        return (
            wall.minute in its.minutes
            and wall.hour in its.hours
            and wall.month in its.months
            and its.match_day(wall.date())
        )


def _cronsim() -> Any:
    """The package that reads cron expressions. It is optional, and nobody needs it who has no schedules."""
    from cronsim import cronsim

    return cronsim


def _expression(text: str) -> str:
    """The five fields of a cron expression, checked. Raises `ValueError`."""
    if len(text) > MAX_CRON:
        raise ValueError(f"must have at most {MAX_CRON} characters")
    written = text.strip().lower()
    if written.startswith("@"):
        if written not in _NICKNAMES:
            raise ValueError(f"has no nickname {written!r}; there are {', '.join(sorted(_NICKNAMES))}")
        return _NICKNAMES[written]
    fields = text.split()
    if len(fields) != len(_FIELDS):
        raise ValueError(f"must have five fields ({', '.join(_FIELDS)}), not {len(fields)}")
    # Other programs' extensions: which of them a reader knows is not to be guessed.
    day, weekday = fields[2].upper(), fields[4].upper()
    if "L" in day or "W" in day or "#" in weekday or re.search(r"\dL", weekday):
        raise ValueError("cannot have L, W or #")
    cronsim = _cronsim()
    try:
        cronsim.CronSim(text, datetime.fromtimestamp(0, UTC))
    except cronsim.CronSimError as error:
        raise ValueError(_wrong_field(str(error), fields)) from None
    return text


def _wrong_field(error: str, fields: list[str]) -> str:
    """CronSim's error in words of our own."""
    name = error.removeprefix("Bad ").lower()
    if name in _ITS_FIELDS:
        index = _ITS_FIELDS.index(name)
        return f"has a {_FIELDS[index]} that cannot be: {fields[index]!r}"
    return f"cannot be read: {error}"
