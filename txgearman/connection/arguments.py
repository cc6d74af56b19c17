"""Callers' arguments, checked and encoded for the wire. No I/O.

A caller's mistake raises here, at the call, so that no bad packet reaches a server.
"""

from __future__ import annotations

from typing import Final

from txgearman.wire.limits import MAX_FUNCTION
from txgearman.wire.names import text_of

LONGEST_TIME: Final = 100 * 365 * 86400
"""Seconds of the longest time limit or pause, a hundred years: whoever says more means none. Clocks and dates
overflow somewhere beyond."""

LARGEST_COUNT: Final = 2**63 - 1
"""The largest number of things, bytes included, where nothing else is said: a 64-bit system counts to it."""

LARGEST_BODY: Final = 2**32 - 1
"""Bytes of a packet's body at most: a header has four bytes for their number."""


def name_bytes(value: str | bytes, what: str, limit: int) -> bytes:
    """A name as bytes.

    Args:
        value: The name; a str is encoded as UTF-8.
        what: What error texts call it.
        limit: The most bytes that it may have.

    Returns:
        The bytes.

    Raises:
        TypeError: It is neither str nor bytes.
        ValueError: It contains NUL, or has too many bytes.
    """
    if isinstance(value, str):
        value = value.encode()
    elif not isinstance(value, bytes):
        raise TypeError(f"{what} must be str or bytes, not {type(value).__name__}")
    if len(value) > limit:
        raise ValueError(f"{what} has {len(value)} bytes, at most {limit} are allowed")
    if b"\0" in value:
        raise ValueError(f"{what} must not contain NUL: {text_of(value)!r}")
    return value


def function_bytes(function: str | bytes) -> bytes:
    """The name of a function as bytes. Raises as `name_bytes` does, and `ValueError` for an empty one."""
    name = name_bytes(function, "the function's name", MAX_FUNCTION)
    if not name:
        raise ValueError("the function's name must not be empty")
    return name


def data_bytes(value: bytes, what: str) -> bytes:
    """`value`, if it is bytes. Raises `TypeError` if not, as the encoding of a str cannot be guessed."""
    if not isinstance(value, bytes):
        raise TypeError(f"{what} must be bytes, not {type(value).__name__}")
    return value


def body_of(fields: tuple[bytes, ...], limit: int) -> bytes:
    """The body of a packet.

    Args:
        fields: Its fields, which the functions above have checked.
        limit: The most bytes that it may have.

    Returns:
        The body.

    Raises:
        ValueError: It has too many bytes.
    """
    body = b"\0".join(fields)
    if len(body) > limit:
        raise ValueError(f"the packet would have {len(body)} bytes, at most {limit} are allowed")
    return body


def is_time(seconds: object) -> bool:
    """Whether `seconds` is a number of seconds that can be waited for: 0 to `LONGEST_TIME`, and no bool."""
    # What is no number compares with none; a whole number may be too large for a float.
    return isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 <= seconds <= LONGEST_TIME


def check_timeout(timeout: float | None) -> None:
    """Raise `ValueError` unless `timeout` is None or `is_time`."""
    if timeout is not None and not is_time(timeout):
        raise ValueError(
            f"the timeout must be None or a number of seconds from 0 to {LONGEST_TIME}: {_shown(timeout)}"
        )


def check_count(value: object, what: str, least: int, most: int = LARGEST_COUNT) -> None:
    """Raise `ValueError` unless `value` is a whole number from `least` to `most`, and no bool.

    `what` is what to call it in messages.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{what} must be a whole number from {least} to {most}: {_shown(value)}")


def _shown(value: object) -> str:
    """A wrong value in a message. Python refuses to write very long numbers, as that takes quadratic time."""
    is_long = isinstance(value, int) and value.bit_length() > 200
    return f"a number of {value.bit_length()} bits" if is_long else repr(value)  # type: ignore[attr-defined]
