"""The functions that a worker offers: calling one, and what comes of the call. No I/O."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.python.reflect import safe_str

from txgearman.worker.job import Job

Result = bytes | None
Callback = Callable[[Job], Result | Deferred[bytes] | Deferred[None] | Coroutine[Any, Any, Result]]
"""What can be registered: it takes a `Job` and returns bytes or None, which is an empty result, or a
Deferred or coroutine of these."""

LONGEST_TIMEOUT: Final = 2**31 - 1
"""Milliseconds of a function's time limit, about 24 days: what a signed 32-bit number holds."""

EXCEPTION_BYTES: Final = 64 * 1024
"""Bytes of the text of an exception that are sent; what is behind is cut off. The text can hold all of
the job's data, and whoever reads it wants to know what happened."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function under its `name`, bytes; `timeout` is the time limit in milliseconds or None."""

    name: bytes
    callback: Callback
    timeout: int | None


def milliseconds(timeout: float | None) -> int | None:
    """A function's time limit in seconds as milliseconds, rounded up.

    Raises `ValueError` unless it is None, or above 0 and not above `LONGEST_TIMEOUT`.
    """
    if timeout is None:
        return None
    if not 0 < timeout <= LONGEST_TIMEOUT / 1000:
        raise ValueError(f"a time limit lies between 0 and {LONGEST_TIMEOUT / 1000} seconds: {timeout!r}")
    return math.ceil(timeout * 1000)


def call(function: Function, job: Job) -> object:
    """Call the function: returns a Deferred where it returns one or a coroutine, else what it returns."""
    outcome = function.callback(job)
    if isinstance(outcome, Coroutine):
        return Deferred.fromCoroutine(outcome)
    return outcome


def result_bytes(result: object, function: bytes) -> bytes:
    """What a function returned, or its Deferred fired with, as the job's result. Raises `TypeError`."""
    if isinstance(result, bytes):
        return result
    if result is None:
        return b""
    name = function.decode("utf-8", "backslashreplace")
    raise TypeError(f"the function {name} must return bytes or None, not {type(result).__name__}")


def exception_text(error: BaseException) -> bytes:
    """What the submitter is told of an exception: ``TypeName: message`` in UTF-8."""
    message = safe_str(error)
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    encoded = text.encode("utf-8", "backslashreplace")[:EXCEPTION_BYTES]
    return encoded.decode("utf-8", "ignore").encode() if len(encoded) == EXCEPTION_BYTES else encoded
