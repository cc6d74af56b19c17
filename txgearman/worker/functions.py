"""The functions that a worker offers: calling one, and what comes of the call. No I/O."""

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
from txgearman.errors import ProcessDied, RaisedInProcess, TimeLimitExceeded
from txgearman.worker.job import Job

Callback = Callable[[Job], Any]
"""What can be registered: it takes a `Job` and returns the result, bytes or what the worker's codec takes,
or a Deferred or coroutine of it. None is an empty result, for other codecs than ``bytes`` and ``text`` what
they make of None. In a thread or process it returns the result itself."""

LONGEST_TIMEOUT: Final = 2**31 - 1
"""Milliseconds of a function's time limit, about 24 days: what a signed 32-bit number holds."""

EXCEPTION_BYTES: Final = 64 * 1024
"""Bytes of the text of an exception that are sent; what is behind is cut off. The text can hold all of
the job's data, and whoever reads it wants to know what happened."""


class Place(Enum):
    """Where a function runs."""

    REACTOR = "reactor"
    THREAD = "thread"
    PROCESS = "process"


@dataclass(frozen=True, slots=True)
class Function:
    """A function under its `name`, bytes.

    `run` is called with a `Job`, and returns or fires with what `encode` makes a payload of. `decode`
    makes the job's data of the payload, None leaves the bytes. `timeout` is the server's time limit in
    milliseconds, `time_limit` the worker's own in seconds; None for none.
    """

    name: bytes
    run: Callable[[Job], object]
    encode: Callable[[object], bytes]
    decode: Callable[[bytes], object] | None
    timeout: int | None
    time_limit: float | None


def is_async(callback: Callable[..., object]) -> bool:
    """Whether it is a coroutine function, or an object that is called like one."""
    return inspect.iscoroutinefunction(callback) or inspect.iscoroutinefunction(
        getattr(callback, "__call__", None)  # noqa: B004 (an object may have an async one)
    )


def milliseconds(timeout: float | None) -> int | None:
    """A function's time limit in seconds as milliseconds, rounded up.

    Raises `ValueError` unless it is None, or above 0 and not above `LONGEST_TIMEOUT`.
    """
    check_time_limit(timeout)
    return None if timeout is None else math.ceil(timeout * 1000)


def check_time_limit(seconds: float | None) -> None:
    """Raise `ValueError` unless it is None, or above 0 and not above `LONGEST_TIMEOUT`."""
    if seconds is not None and not (is_time(seconds) and 0 < seconds <= LONGEST_TIMEOUT / 1000):
        raise ValueError(f"a time limit lies between 0 and {LONGEST_TIMEOUT / 1000} seconds: {seconds!r}")


def call(function: Function, job: Job, clock: IReactorTime) -> object:
    """Call the function within its time limit.

    Returns a Deferred where it returns one or a coroutine, else what it returns. If the time is over, that
    is cancelled and the Deferred fails with `TimeLimitExceeded`.
    """
    outcome = function.run(job)
    if type(outcome) is bytes:
        # Most are, and it takes long to find that something is no coroutine.
        return outcome
    if isinstance(outcome, Coroutine):
        outcome = Deferred.fromCoroutine(outcome)
    if function.time_limit is not None and isinstance(outcome, Deferred) and not outcome.called:
        return _within(clock, function.time_limit, outcome, job)
    return outcome


def _within(clock: IReactorTime, seconds: float, outcome: Deferred[Any], job: Job) -> Deferred[Any]:
    """`outcome`, or the failure `TimeLimitExceeded`, behind which `job` lingers until `outcome` has fired."""
    limited: Deferred[Any] = Deferred(lambda _: outcome.cancel())
    ended: Deferred[None] = Deferred()

    def expire() -> None:
        outcome.cancel()
        if not ended.called and job._lingers is None:
            job._lingers = ended
        limited.errback(Failure(TimeLimitExceeded(seconds)))

    def end(result: Any) -> None:
        ended.callback(None)
        if timer.active():
            timer.cancel()
            limited.callback(result)

    timer = clock.callLater(seconds, expire)
    outcome.addBoth(end)
    return limited


# -- results ------------------------------------------------------------------------------------


def result_encoder(codec: Codec, function: bytes) -> Callable[[object], bytes]:
    """What makes the payload of a result of the function `function`: by `codec`.

    The codec raises what it likes for a result it cannot encode; that of bytes raises `TypeError`.
    """
    if codec is not BYTES:
        return lambda result: b"" if result is None and codec is TEXT else encoded(codec, result)

    def as_they_are(result: object) -> bytes:
        if isinstance(result, bytes):
            return result
        return result_bytes(result, function)

    return as_they_are


def result_bytes(result: object, function: bytes) -> bytes:
    """What a function returned, or its Deferred fired with, as the job's result. Raises `TypeError`."""
    if isinstance(result, bytes):
        return result
    if result is None:
        return b""
    name = function.decode("utf-8", "backslashreplace")
    raise TypeError(f"the function {name} must return bytes or None, not {type(result).__name__}")


# -- exceptions ---------------------------------------------------------------------------------


def exception_text(error: BaseException) -> bytes:
    """What the submitter is told of an exception: ``TypeName: message`` in UTF-8."""
    return cut_text(_summary(error))


def exception_traceback(failure: Failure) -> bytes:
    """What the submitter is told of an exception if it is to see the traceback: that, behind the text."""
    error = failure.value
    assert error is not None
    if isinstance(error, TimeLimitExceeded | ProcessDied):
        # Nobody raised them.
        return exception_text(error)
    trace = error.traceback if isinstance(error, RaisedInProcess) else failure.getTraceback()
    return cut_text(f"{_summary(error)}\n{trace}")


def _summary(error: BaseException) -> str:
    if isinstance(error, RaisedInProcess):
        return error.text
    message = safe_str(error)
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def cut_text(text: str) -> bytes:
    """`text` in UTF-8, cut at `EXCEPTION_BYTES` and not in the middle of a character."""
    encoded_text = text.encode("utf-8", "backslashreplace")[:EXCEPTION_BYTES]
    if len(encoded_text) == EXCEPTION_BYTES:
        return encoded_text.decode("utf-8", "ignore").encode()
    return encoded_text
