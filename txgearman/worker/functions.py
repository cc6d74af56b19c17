"""The functions of a worker: calling one, and encoding what comes of the call. No I/O."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.python.reflect import safe_str

from txgearman.codecs import BYTES, TEXT, Codec, encoded
from txgearman.connection.arguments import is_time
from txgearman.errors import FailJob, ProcessDied, RaisedInProcess, TimeLimitExceeded
from txgearman.worker.job import Job

Callback = Callable[[Job], Any]
"""A function that can be registered. It takes a `Job`, and returns the result: bytes, or what the worker's
codec takes, or a Deferred or coroutine of it. None is an empty result with the codecs ``bytes`` and ``text``;
other codecs encode it. In a thread or process the function must return the result itself."""

MAX_TIMEOUT_MS: Final = 2**31 - 1
"""Milliseconds of a function's time limit, about 24 days: the largest signed 32-bit number."""

EXCEPTION_BYTES: Final = 64 * 1024
"""Bytes of the text of an exception that are sent; the rest is cut off. The text can hold all of the job's
data, and its reader wants to know what happened."""


class Executor(Enum):
    """Where a function runs."""

    REACTOR = "reactor"
    THREAD = "thread"
    PROCESS = "process"


@dataclass(frozen=True, slots=True)
class Function:
    """A function of a worker.

    Attributes:
        name: Its name.
        run: Called with a `Job`; returns, or fires with, what `encode` takes.
        encode: Makes the payload of a result.
        decode: Makes the job's data of its payload; None leaves the bytes.
        timeout: The time limit that the server is told, in milliseconds; None for none.
        time_limit: The worker's own time limit in seconds; None for none.
    """

    name: bytes
    run: Callable[[Job], object]
    encode: Callable[[object], bytes]
    decode: Callable[[bytes], object] | None
    timeout: int | None
    time_limit: float | None


def is_coroutine_function(callback: Callable[..., object]) -> bool:
    """Whether it is a coroutine function, or an object that is called like one."""
    return inspect.iscoroutinefunction(callback) or inspect.iscoroutinefunction(
        getattr(callback, "__call__", None)  # noqa: B004 (an object may have an async one)
    )


def milliseconds(timeout: float | None) -> int | None:
    """A time limit in seconds as milliseconds, rounded up. Raises as `check_time_limit` does."""
    check_time_limit(timeout)
    return None if timeout is None else math.ceil(timeout * 1000)


def check_time_limit(seconds: float | None) -> None:
    """Raise `ValueError` unless the limit is None, or above 0 and not above `MAX_TIMEOUT_MS`."""
    if seconds is not None and not (is_time(seconds) and 0 < seconds <= MAX_TIMEOUT_MS / 1000):
        raise ValueError(f"a time limit lies between 0 and {MAX_TIMEOUT_MS / 1000} seconds: {seconds!r}")


def call(function: Function, job: Job, clock: IReactorTime) -> object:
    """Call a function within its time limit.

    Args:
        function: The function.
        job: Its argument.
        clock: Times the limit.

    Returns:
        What the function returned; for a Deferred or coroutine a Deferred. If the time is over that is
        cancelled, and the Deferred fails with `TimeLimitExceeded`.
    """
    outcome = function.run(job)
    if type(outcome) is bytes:
        # Most outcomes are bytes, and it takes long to find that something is no coroutine.
        return outcome
    if isinstance(outcome, Coroutine):
        outcome = Deferred.fromCoroutine(outcome)
    if function.time_limit is not None and isinstance(outcome, Deferred) and not outcome.called:
        return _with_time_limit(clock, function.time_limit, outcome, job)
    return outcome


def _with_time_limit(clock: IReactorTime, seconds: float, outcome: Deferred[Any], job: Job) -> Deferred[Any]:
    """`outcome`, or `TimeLimitExceeded`. The job holds its slot until `outcome` has fired, also after that
    error, and after a cancellation that the function does not obey at once."""
    ended: Deferred[None] = Deferred()

    def cancel() -> None:
        outcome.cancel()
        if not ended.called and job._slot_held_until is None:
            job._slot_held_until = ended

    def cancelled(_limited: Deferred[Any]) -> None:
        timer.cancel()
        cancel()

    def expire() -> None:
        cancel()
        limited.errback(Failure(TimeLimitExceeded(seconds)))

    def end(result: Any) -> None:
        ended.callback(None)
        if timer.active():
            timer.cancel()
            limited.callback(result)

    limited: Deferred[Any] = Deferred(cancelled)
    timer = clock.callLater(seconds, expire)
    outcome.addBoth(end)
    return limited


# -- results ------------------------------------------------------------------------------------


def result_encoder(codec: Codec, function: bytes) -> Callable[[object], bytes]:
    """A callable that makes the payload of a result.

    Args:
        codec: Encodes the result. It may raise anything for a result that it cannot encode; that of bytes
            raises `TypeError`.
        function: The name of the function, for error texts.

    Returns:
        The callable.
    """
    if codec is not BYTES:
        return lambda result: b"" if result is None and codec is TEXT else encoded(codec, result)

    def as_they_are(result: object) -> bytes:
        if isinstance(result, bytes):
            return result
        return result_bytes(result, function)

    return as_they_are


def result_bytes(result: object, function: bytes) -> bytes:
    """The payload of a result without a codec. Raises `TypeError` for anything but bytes and None."""
    if isinstance(result, bytes):
        return result
    if result is None:
        return b""
    name = function.decode("utf-8", "backslashreplace")
    raise TypeError(f"the function {name} must return bytes or None, not {type(result).__name__}")


# -- exceptions ---------------------------------------------------------------------------------


class ExceptionReport(FailJob):
    """What a program says itself of an exception, as `data`: it is reported as one that a function raised."""


def exception_text(error: BaseException) -> bytes:
    """What the submitter is told of an exception: ``TypeName: message`` in UTF-8."""
    return truncate_utf8(_summary(error))


def exception_traceback(failure: Failure) -> bytes:
    """What the submitter is told of an exception if it may see the traceback: the text, and then that."""
    error = failure.value
    assert error is not None
    if isinstance(error, TimeLimitExceeded | ProcessDied):
        # No code raised them.
        return exception_text(error)
    trace = error.traceback if isinstance(error, RaisedInProcess) else failure.getTraceback()
    return truncate_utf8(f"{_summary(error)}\n{trace}")


def _summary(error: BaseException) -> str:
    if isinstance(error, RaisedInProcess):
        return error.text
    message = safe_str(error)
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def truncate_utf8(text: str) -> bytes:
    """`text` in UTF-8, cut at `EXCEPTION_BYTES` but not within a character."""
    encoded_text = text.encode("utf-8", "backslashreplace")[:EXCEPTION_BYTES]
    if len(encoded_text) == EXCEPTION_BYTES:
        return encoded_text.decode("utf-8", "ignore").encode()
    return encoded_text
