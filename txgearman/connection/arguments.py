"""Callers' arguments, checked and encoded for the wire. No I/O.

A caller's mistake raises here, at the call, so that no bad packet reaches a server.
"""

from __future__ import annotations

import math

from txgearman.wire.limits import MAX_FUNCTION


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
        raise ValueError(f"{what} must not contain NUL: {value!r}")
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


def check_timeout(timeout: float | None) -> None:
    """Raise `ValueError` unless `timeout` is None or a finite number of seconds, 0 or more."""
    if timeout is not None and not (math.isfinite(timeout) and timeout >= 0):
        raise ValueError(f"the timeout must be None or a finite number of seconds, 0 or more: {timeout!r}")
