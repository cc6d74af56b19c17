"""What people write on the command line, as values: servers, times, durations, limits. No I/O."""

from __future__ import annotations

import ipaddress
import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click

PORT: Final = 4730
"""Gearman's port, for a server without one."""

ENDPOINTS: Final = frozenset({"haproxy", "ssl", "tcp", "tls", "unix"})
"""What Twisted's client endpoint strings begin with. A host of such a name needs ``tcp:`` ahead of it."""

_UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION: Final = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_LONGEST: Final = 100 * 365 * 86400
"""Seconds of the longest duration, a hundred years: past it dates overflow."""


def endpoint_string(text: str) -> str:
    """The Twisted endpoint string of a server given as ``host``, ``host:port`` or already as such a string.

    A host may be an IPv6 address, in brackets if a port follows. Raises `ValueError`.
    """
    text = text.strip()
    prefix, colon, rest = text.partition(":")
    if not text:
        raise ValueError("a server's address must not be empty")
    if colon and prefix in ENDPOINTS:
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
        return text  # a kind of endpoint that a plugin of Twisted brings
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


def seconds(text: str) -> float:
    """A duration in seconds, of ``90``, ``1.5``, ``90s``, ``1h30m`` or ``200ms``. Raises `ValueError`."""
    text = text.strip()
    if _DURATION.fullmatch(text):
        value = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    else:
        try:
            value = float(text)
        except ValueError:
            raise ValueError(f"{text!r} is no duration; write 90, 1.5, 90s, 1h30m or 200ms") from None
    if not (math.isfinite(value) and 0 <= value <= _LONGEST):
        raise ValueError(f"{text!r} is no duration that can be waited for")
    return value


def point_in_time(text: str, now: datetime) -> datetime:
    """A moment, given as an ISO 8601 date and time or as ``+`` and a duration from `now`, which is aware.

    A date without a time zone is one of this machine's. Raises `ValueError`.
    """
    text = text.strip()
    if text.startswith("+"):
        return now + timedelta(seconds=seconds(text[1:]))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no time; write 2030-12-24T18:00 or +5m") from None
    return moment if moment.tzinfo is not None else moment.astimezone()


class _Converted(click.ParamType):  # type: ignore[type-arg]
    """A parameter whose text `_value` makes a value of, or raises `ValueError`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._value(value)
        except (ValueError, OverflowError) as error:
            self.fail(str(error), param, ctx)

    def _value(self, text: str) -> object:
        raise NotImplementedError


class ServerAddress(_Converted):
    """Where a server is; the value is a Twisted endpoint string."""

    name = "address"

    def _value(self, text: str) -> str:
        return endpoint_string(text)


class Duration(_Converted):
    """A time to wait; the value is in seconds, more than 0."""

    name = "duration"

    def _value(self, text: str) -> float:
        value = seconds(text)
        if not value:
            raise ValueError("a duration of 0 leaves no time")
        return value


class Moment(_Converted):
    """A point in time; the value is an aware datetime."""

    name = "time"

    def _value(self, text: str) -> datetime:
        return point_in_time(text, datetime.now(UTC))


class QueueLimit(_Converted):
    """How many jobs a function may have; the value is a number, or None for no limit."""

    name = "limit"

    def _value(self, text: str) -> int | None:
        if text.lower() == "none":
            return None
        if not (text.isascii() and text.isdigit() and 0 < int(text) < 2**31):
            raise ValueError(f"{text!r} is no limit; write a number above 0, or none")
        return int(text)
