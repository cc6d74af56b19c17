"""Callers' arguments made ready for the wire, or refused. No I/O.

A mistake of the caller raises here, at the call, so that a server never meets a bad packet.
"""

from __future__ import annotations

import math

from txgearman.wire.limits import MAX_FUNCTION


def name_bytes(value: str | bytes, what: str, limit: int) -> bytes:
    """The name `value` as bytes; a str is encoded as UTF-8.

    `what` is what to call it in messages, `limit` the most bytes it may have. Raises `TypeError` for
    anything but str and bytes, and `ValueError` for a NUL or too many bytes.
    """
    if isinstance(value, str):
        value = value.encode()
    elif not isinstance(value, bytes):
        raise TypeError(f"{what} must be str or bytes, not {type(value).__name__}")
    if len(value) > limit:
        raise ValueError(f"{what} has {len(value)} bytes, at most {limit} are allowed")
    if b"\0" in value:
        raise ValueError(f"{what} must not contain NUL: {value!r}")
    return value


def function_bytes(function: str | bytes) -> bytes:
    """The name of a function as bytes. Raises as `name_bytes` does, and `ValueError` for an empty one."""
    name = name_bytes(function, "the function's name", MAX_FUNCTION)
    if not name:
        raise ValueError("the function's name must not be empty")
    return name


def data_bytes(value: bytes, what: str) -> bytes:
    """`value`, if it is bytes. Raises `TypeError` if not: a str has no encoding that could be guessed."""
    if not isinstance(value, bytes):
        raise TypeError(f"{what} must be bytes, not {type(value).__name__}")
    return value


def body_of(fields: tuple[bytes, ...], limit: int) -> bytes:
    """The body of a packet with these fields, which the callers above have checked.

    Raises `ValueError` if it has more than `limit` bytes.
    """
    body = b"\0".join(fields)
    if len(body) > limit:
        raise ValueError(f"the packet would have {len(body)} bytes, at most {limit} are allowed")
    return body


def check_timeout(timeout: float | None) -> None:
    """Raise `ValueError` unless `timeout` is None or a finite number of seconds, 0 or more."""
    if timeout is not None and not (math.isfinite(timeout) and timeout >= 0):
        raise ValueError(f"the timeout must be None or a finite number of seconds, 0 or more: {timeout!r}")
