"""Parses the values of the command line: servers, times, durations, limits. No I/O."""

from __future__ import annotations

import ipaddress
import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click

PORT: Final = 4730
"""Gearman's port, the default of a server's address."""

ENDPOINT_KINDS: Final = frozenset({"haproxy", "ssl", "tcp", "tls", "unix"})
"""Kinds of Twisted client endpoints. A host with such a name needs ``tcp:`` before it."""

_UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION: Final = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_LONGEST_SECONDS: Final = 100 * 365 * 86400
"""Seconds of the longest duration, a hundred years. With longer ones dates overflow."""


def endpoint_string(text: str) -> str:
    """Make the Twisted endpoint string of a server.

    Args:
        text: ``host``, ``host:port``, or such a string. An IPv6 address with a port has brackets.

    Returns:
        The endpoint string.

    Raises:
        ValueError: The text is none of these.
    """
    text = text.strip()
    prefix, colon, rest = text.partition(":")
    if not text:
        raise ValueError("a server's address must not be empty")
    if colon and prefix in ENDPOINT_KINDS:
        return text
    if _is_ipv6(text):
        return _tcp(text, str(PORT))
    if not colon:
        return _tcp(text, str(PORT))
    bracketed = re.fullmatch(r"\[(.+)\](?::(.*))?", text)
    if bracketed:
        host, port = bracketed.groups()
        if not _is_ipv6(host):
            raise ValueError(f"{host} is not an IPv6 address")
        return _tcp(host, str(PORT) if port is None else port)
    if ":" in rest:
        return text  # a kind of endpoint of a Twisted plugin
    return _tcp(prefix, rest)


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _tcp(host: str, port: str) -> str:
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
        raise ValueError(f"{port!r} is not a port number")
    if not host:
        raise ValueError("the host is missing")
    return f"tcp:{host.replace(':', chr(92) + ':')}:{int(port)}"


def duration_seconds(text: str) -> float:
    """Parse a duration: ``90``, ``1.5``, ``90s``, ``1h30m`` or ``200ms``.

    Args:
        text: The duration.

    Returns:
        Its seconds.

    Raises:
        ValueError: The text is not a duration, or too long a one.
    """
    text = text.strip()
    if _DURATION.fullmatch(text):
        value = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    else:
        try:
            value = float(text)
        except ValueError:
            raise ValueError(f"{text!r} is not a duration; write 90, 1.5, 90s, 1h30m or 200ms") from None
    if not (math.isfinite(value) and 0 <= value <= _LONGEST_SECONDS):
        raise ValueError(f"{text!r} is not a duration from 0 seconds to a hundred years")
    return value


def point_in_time(text: str, now: datetime) -> datetime:
    """Parse a point in time: an ISO 8601 date and time, or ``+`` and a duration.

    Args:
        text: The time. Without a time zone it is in this machine's.
        now: The time that a duration is added to, aware.

    Returns:
        An aware datetime.

    Raises:
        ValueError: The text is neither.
    """
    text = text.strip()
    if text.startswith("+"):
        return now + timedelta(seconds=duration_seconds(text[1:]))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a time; write 2030-12-24T18:00 or +5m") from None
    return moment if moment.tzinfo is not None else moment.astimezone()


class WholeNumber(click.IntRange):
    """A whole number. Errors call it that, and not an integer range."""

    name = "whole number"


class _TextParameter(click.ParamType):  # type: ignore[type-arg]
    """A parameter whose text is parsed by `_value`, which raises `ValueError`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._value(value)
        except (ValueError, OverflowError) as error:
            self.fail(str(error), param, ctx)

    def _value(self, text: str) -> object:
        raise NotImplementedError


class ServerAddress(_TextParameter):
    """The address of a server. The value is a Twisted endpoint string."""

    name = "address"

    def _value(self, text: str) -> str:
        return endpoint_string(text)


class Duration(_TextParameter):
    """A duration of no more than `longest` seconds, and more than 0 unless `allow_zero` says that 0 has a
    meaning. The value is in seconds."""

    name = "duration"

    def __init__(self, allow_zero: bool = False, longest: float = _LONGEST_SECONDS) -> None:
        self._allow_zero = allow_zero
        self._longest = longest

    def _value(self, text: str) -> float:
        value = duration_seconds(text)
        if not (value or self._allow_zero):
            raise ValueError("a duration of 0 leaves no time")
        if value > self._longest:
            raise ValueError(f"{text!r} is longer than {self._longest / 86400:g} days")
        return value


class Moment(_TextParameter):
    """A point in time. The value is an aware datetime."""

    name = "time"

    def _value(self, text: str) -> datetime:
        return point_in_time(text, datetime.now(UTC))


class QueueLimit(_TextParameter):
    """How many jobs a function may have. The value is a number, or None for no limit."""

    name = "limit"

    def _value(self, text: str) -> int | None:
        return _queue_limit(text)


class QueueLimits(_TextParameter):
    """How many jobs a function may have. The value is a tuple of one such limit, or of three by priority."""

    name = "limits"

    def _value(self, text: str) -> tuple[int | None, ...]:
        limits = tuple([_queue_limit(each.strip()) for each in text.split(",")])
        if len(limits) not in {1, 3}:
            raise ValueError("there is one limit, or three: for high, normal and low priority")
        return limits


def _queue_limit(text: str) -> int | None:
    if text.lower() == "none":
        return None
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 2**31):
        raise ValueError(f"{text!r} is not a limit; write a number above 0, or none")
    return int(text)
