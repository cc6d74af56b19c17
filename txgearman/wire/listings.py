"""The lists that only this package's server has, in reply to admin commands: from lines of text to values. No
I/O.

A row has its columns between tabs, and names are escaped. Further columns are ignored, as a newer server may
say more. What does not have this form raises `BrokenStream`. gearmand's own lists are in `replies`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from txgearman.errors import BrokenStream
from txgearman.wire.names import text_of, unescape

_WHOLE: Final = re.compile(rb"[0-9]{1,20}\Z")
_DECIMAL: Final = re.compile(rb"[0-9]{1,20}(?:\.[0-9]{1,20})?(?:e[+-]?[0-9]{1,3})?\Z")


@dataclass(frozen=True, slots=True)
class FunctionInfo:
    """One function in the reply to ``show functions``. Counts from `submitted` on are since it was made.

    Attributes:
        function: Its name.
        state: ``active``, ``paused`` by an administrator, or ``paused-by-failures`` by its ``pause-after``.
        oldest: Seconds that the oldest job has waited which is next of its priority; None without one.
        queued: Jobs that wait for a worker.
        scheduled: Jobs that wait for their time.
        retrying: Jobs that wait for their next attempt.
        running: Jobs that a worker has.
        dead: Jobs that failed and are kept.
        workers: How many connections offer it.
        blocked: Those of the queued jobs that its limits hold back.
        submitted: Jobs that were taken in.
        completed: Jobs that were completed.
        failed: Jobs that failed for good.
        dropped: Jobs that ended in any other way, such as cancelled ones.
        requeued: How often a job went back to its queue.
        refused: Jobs that a limit refused.
    """

    function: str
    state: str
    oldest: float | None
    queued: int
    scheduled: int
    retrying: int
    running: int
    dead: int
    workers: int
    blocked: int
    submitted: int
    completed: int
    failed: int
    dropped: int
    requeued: int
    refused: int

    @property
    def waiting(self) -> int:
        """Jobs that no worker has, whatever they wait for."""
        return self.queued + self.scheduled + self.retrying

    @property
    def ended(self) -> int:
        """Jobs that have ended, however."""
        return self.completed + self.failed + self.dropped


@dataclass(frozen=True, slots=True)
class JobSummary:
    """One job in the reply to ``jobs``.

    Attributes:
        handle: The job's handle.
        function: The name of its function.
        unique: Its unique, empty without one.
        state: ``saving``, ``scheduled``, ``queued``, ``stored`` outside the server's memory, ``running`` or
            ``retrying``.
        priority: ``high``, ``normal`` or ``low``.
        background: Whether it is an offline job.
        attempts: How many runs failed.
        losses: How many workers went away with it.
        age: Seconds since it was submitted.
        size: Bytes of its payload; None where another server has it.
        numerator: How much its worker says is done.
        denominator: Of how much; 0 where it has not said.
        worker: Which worker has it, empty without one.
    """

    handle: str
    function: str
    unique: str
    state: str
    priority: str
    background: bool
    attempts: int
    losses: int
    age: float
    size: int | None
    numerator: int
    denominator: int
    worker: str


@dataclass(frozen=True, slots=True)
class ConnectionInfo:
    """One connection in the reply to ``show connections``.

    Attributes:
        number: The server's number for it.
        host: The peer's address.
        client_id: What the peer calls itself.
        functions: How many functions it offers.
        running: How many jobs it has.
        quiet: Whether it is given no more jobs.
        age: Seconds since it was made.
    """

    number: int
    host: str
    client_id: str
    functions: int
    running: int
    quiet: bool
    age: float


@dataclass(frozen=True, slots=True)
class ServerLimit:
    """One row of the reply to ``show limits``.

    Attributes:
        name: The limit.
        limit: Its value in bytes, seconds or things, as the name says. 0 is no limit, but nothing is allowed
            by 0 of ``max-kept-uniques``, ``max-schedules`` and ``results-bytes``.
        used: How much of it is used; 0 for ``handshake-timeout`` and ``max-packet``.
        refused: How often it said no.
    """

    name: str
    limit: float
    used: int
    refused: int


@dataclass(frozen=True, slots=True)
class FunctionLimits:
    """One row of the reply to ``show function limits``. A limit of 0 is none.

    Attributes:
        function: The name of the function.
        max_queue_high: Jobs that it may have when one of high priority is let in.
        max_queue_normal: The same for normal priority.
        max_queue_low: The same for low priority.
        max_rate: New jobs a second.
        rate_burst: How many of these may come at once.
        refused: Jobs that these limits refused.
        max_running: Jobs that may run at once.
        start_rate: Jobs that may begin to run in a second.
        start_burst: How many of these may begin at once.
        max_running_per_key: Jobs of one key that may run at once.
        key_separator: What ends the key in a unique.
        pause_after: Failed runs in a row that pause the function.
    """

    function: str
    max_queue_high: int
    max_queue_normal: int
    max_queue_low: int
    max_rate: float
    rate_burst: int
    refused: int
    max_running: int
    start_rate: float
    start_burst: int
    max_running_per_key: int
    key_separator: str
    pause_after: int


def function_infos(lines: Sequence[bytes], escaped: bool = False) -> tuple[FunctionInfo, ...]:
    """Read the rows of ``show functions``.

    Args:
        lines: The rows.
        escaped: Whether the server escapes names.

    Returns:
        The functions, in the order of the rows.

    Raises:
        BrokenStream: A row has another form.
    """
    found = []
    for line in lines:
        name, state, oldest, *counts = _columns(line, 16)
        found.append(
            FunctionInfo(
                _name(name, escaped),
                text_of(state),
                None if oldest == b"-" else _decimal(oldest, line),
                *[_whole(count, line) for count in counts],
            )
        )
    return tuple(found)


def job_summaries(lines: Sequence[bytes], escaped: bool = False) -> tuple[JobSummary, ...]:
    """Read the rows of ``jobs``.

    Args:
        lines: The rows.
        escaped: Whether the server escapes names.

    Returns:
        The jobs, in the order of the rows.

    Raises:
        BrokenStream: A row has another form.
    """
    return tuple([_job_summary(line, escaped) for line in lines])


def _job_summary(line: bytes, escaped: bool) -> JobSummary:
    columns = _columns(line, 13)
    handle, function, unique, state, priority, background, attempts, losses, age, size, *rest = columns
    numerator, denominator, worker = rest
    return JobSummary(
        handle=_name(handle, escaped),
        function=_name(function, escaped),
        unique=_name(unique, escaped),
        state=text_of(state),
        priority=text_of(priority),
        background=bool(_whole(background, line)),
        attempts=_whole(attempts, line),
        losses=_whole(losses, line),
        age=_decimal(age, line),
        size=None if size == b"-" else _whole(size, line),
        numerator=_whole(numerator, line),
        denominator=_whole(denominator, line),
        worker=_name(worker, escaped),
    )


def connection_infos(lines: Sequence[bytes], escaped: bool = False) -> tuple[ConnectionInfo, ...]:
    """Read the rows of ``show connections``.

    Args:
        lines: The rows.
        escaped: Whether the server escapes names.

    Returns:
        The connections, in the order of the rows.

    Raises:
        BrokenStream: A row has another form.
    """
    found = []
    for line in lines:
        number, host, client_id, functions, running, quiet, age = _columns(line, 7)
        found.append(
            ConnectionInfo(
                _whole(number, line),
                _name(host, escaped),
                _name(client_id, escaped),
                _whole(functions, line),
                _whole(running, line),
                bool(_whole(quiet, line)),
                _decimal(age, line),
            )
        )
    return tuple(found)


def server_limits(lines: Sequence[bytes], escaped: bool = False) -> tuple[ServerLimit, ...]:
    """Read the rows of ``show limits``.

    Args:
        lines: The rows.
        escaped: Whether the server escapes names.

    Returns:
        The limits, in the order of the rows.

    Raises:
        BrokenStream: A row has another form.
    """
    found = []
    for line in lines:
        name, limit, used, refused = _columns(line, 4)
        found.append(
            ServerLimit(
                _name(name, escaped), _decimal(limit, line), _whole(used, line), _whole(refused, line)
            )
        )
    return tuple(found)


def function_limits(lines: Sequence[bytes], escaped: bool = False) -> tuple[FunctionLimits, ...]:
    """Read the rows of ``show function limits``.

    Args:
        lines: The rows.
        escaped: Whether the server escapes names.

    Returns:
        The functions, in the order of the rows.

    Raises:
        BrokenStream: A row has another form.
    """
    return tuple([_function_limits(line, escaped) for line in lines])


def _function_limits(line: bytes, escaped: bool) -> FunctionLimits:
    name, *columns = _columns(line, 13)
    high, normal, low, rate, burst, refused, running, starts, start_burst, per_key, separator, after = columns
    return FunctionLimits(
        function=_name(name, escaped),
        max_queue_high=_whole(high, line),
        max_queue_normal=_whole(normal, line),
        max_queue_low=_whole(low, line),
        max_rate=_decimal(rate, line),
        rate_burst=_whole(burst, line),
        refused=_whole(refused, line),
        max_running=_whole(running, line),
        start_rate=_decimal(starts, line),
        start_burst=_whole(start_burst, line),
        max_running_per_key=_whole(per_key, line),
        key_separator=_name(separator, escaped),
        pause_after=_whole(after, line),
    )


def _columns(line: bytes, count: int) -> list[bytes]:
    """The first so many columns of a row."""
    columns = line.split(b"\t")
    if len(columns) < count:
        raise _broken(line)
    return columns[:count]


def _name(shown: bytes, escaped: bool) -> str:
    return text_of(unescape(shown) if escaped else shown)


def _whole(text: bytes, line: bytes) -> int:
    if not _WHOLE.match(text):
        raise _broken(line)
    return int(text)


def _decimal(text: bytes, line: bytes) -> float:
    if not _DECIMAL.match(text):
        raise _broken(line)
    return float(text)


def _broken(line: bytes) -> BrokenStream:
    return BrokenStream(b"", f"a row of a list cannot be understood: {line[:200]!r}")
