"""The server's replies to admin commands: from lines of text to values. No I/O.

They are read as gearmand and this package's server write them. A list's replies end with a line of one
dot; all others are one line, and a refusal is one line that begins with ``ERR``.

gearmand prints names as they are, and a name may hold what ends a line, a word or a list. So a list is read
when its whole reply is there, and the last line is the end; where a reply ends, its receiver must know by
other means. Where rows have numbers, a line that is no row is part of a name with a line feed. Nobody can
tell a line feed in a unique from two uniques, or a space in a function of ``workers`` from two functions.

This package's server escapes names (`txgearman.wire.names`); `escaped` says that it wrote the lines. Names
and handles are str, for people and JSON: UTF-8, with bytes that are none as ``\\xff``.

What does not have the form of such a reply raises `BrokenStream`.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from txgearman.errors import AdminError, BrokenStream
from txgearman.wire.names import text_of, unescape

END: Final = b"."
"""The line after the last of a list."""

ESCAPING: Final = "txgearman-"
"""What the version of a server begins with that escapes names."""

_REFUSAL: Final = re.compile(rb"ERR(?: ([A-Za-z_]+(?: .*)?))?\Z", re.DOTALL)
_NUMBER: Final = re.compile(rb"-?[0-9]{1,20}\Z")
_DECIMAL: Final = re.compile(rb"-?[0-9]{1,20}(?:\.[0-9]{1,20})?\Z")
_CONNECTION: Final = re.compile(rb"[0-9]{1,20} (?:[^ ]* .*? :(?: |\Z)|[^ ]*[.:][^ ]* )")
"""What a row of ``workers`` begins with: the connection's number, host, client id and a colon. Where the id
holds a line feed the first two must do, if the host looks like an address."""


@dataclass(frozen=True, slots=True)
class FunctionStatus:
    """One function in the reply to ``status``.

    Attributes:
        function: Its name.
        total: How many jobs it has.
        running: How many of them a worker has.
        workers: How many connections offer it.
    """

    function: str
    total: int
    running: int
    workers: int

    @property
    def queued(self) -> int:
        """Jobs that no worker has."""
        return self.total - self.running


@dataclass(frozen=True, slots=True)
class PriorityStatus:
    """One function in the reply to ``prioritystatus``.

    Attributes:
        function: Its name.
        high: Waiting jobs of high priority.
        normal: Waiting jobs of normal priority.
        low: Waiting jobs of low priority.
        workers: How many connections offer it.
    """

    function: str
    high: int
    normal: int
    low: int
    workers: int


@dataclass(frozen=True, slots=True)
class ConnectionStatus:
    """One connection in the reply to ``workers``, which lists clients too: those without functions.

    Attributes:
        number: The server's number for it.
        host: The peer's address.
        client_id: What the peer calls itself, ``-`` where it has not said.
        functions: What it has registered.
    """

    number: int
    host: str
    client_id: str
    functions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class JobEntry:
    """One job in the reply to ``show jobs``.

    Attributes:
        handle: The job.
        losses: How many workers went away with it.
        ignored: Whether nobody waits for it any more.
        background: Whether it is an offline job.
    """

    handle: str
    losses: int
    ignored: bool
    background: bool


@dataclass(frozen=True, slots=True)
class DeadJobEntry:
    """One dead job in the reply to ``show dead``.

    Attributes:
        handle: The job's handle.
        function: The name of its function.
        unique: Its unique, empty without one.
        ended: When it died, in seconds since 1970.
        attempts: How many runs failed.
        outcome: How the last one ended: ``failed``, ``raised``, ``timed-out`` or ``lost``.
        error: The first line of what the worker said about that, empty if it said nothing.
    """

    handle: str
    function: str
    unique: str
    ended: int
    attempts: int
    outcome: str
    error: str


@dataclass(frozen=True, slots=True)
class BulkResult:
    """The reply to a command on all dead jobs of a function.

    Attributes:
        done: How many jobs it was done with.
        skipped: How many stay dead, as another job has their unique or a limit refuses them, and how many
            somebody else was faster with.
    """

    done: int
    skipped: int


@dataclass(frozen=True, slots=True)
class ScheduleStatus:
    """One schedule in the reply to ``show schedules``. Times are seconds since 1970.

    Attributes:
        name: What it is called.
        function: The function that its jobs run.
        when: Its cron expression, or ``every`` and the seconds.
        timezone: The time zone of the expression.
        state: ``active``, ``paused`` by an administrator, or ``disabled`` by its definition.
        next: When its next job is due; None if never, or while it is not active.
        last: Its last tick that had a job of this server; None without one.
        ticks: How many had a job of this server since its start.
        skipped: How many had none, as the job of the one before was alive.
        missed: How many had none, as the server was not there in time.
        refused: How many had none, as the job was refused.
    """

    name: str
    function: str
    when: str
    timezone: str
    state: str
    next: float | None
    last: float | None
    ticks: int
    skipped: int
    missed: int
    refused: int


@dataclass(frozen=True, slots=True)
class JobInfo:
    """What the reply to ``show job`` tells of one job, whatever has become of it.

    Times are seconds since 1970. What does not apply or is not known is None.

    Attributes:
        handle: The job's handle.
        function: The name of its function.
        unique: Its unique, empty without one.
        state: ``saving``, ``scheduled``, ``queued``, ``stored``, ``running``, ``retrying``, ``dead`` or
            ``ended``.
        priority: ``high``, ``normal`` or ``low``.
        background: Whether it is an offline job.
        attempts: How many runs failed.
        losses: How many workers went away with it.
        submitted: When it came.
        started: When its last run began.
        ended: When it ended.
        next_run: When it is queued next.
        outcome: How it ended, or its last failed run.
        worker: Which worker had it last.
        error: What that worker said of the failure, empty if nothing.
        data: The payload. The server has none of a job that has ended and is not dead.
        run_at: The time that it was submitted for. This and the next ones are what was said of this job.
        expires: Seconds after that or its submission after which no run begins; 0 is never.
        max_attempts: How many runs may fail.
        backoff: Seconds before the first retry.
        keep_result: Seconds for which its result is kept; 0 is not at all.
        unique_for: Seconds for which its unique is kept once it is completed; 0 is not at all.
        traceparent: The span that it belongs to.
    """

    handle: str
    function: str
    unique: str
    state: str
    priority: str
    background: bool
    attempts: int
    losses: int
    submitted: float
    started: float | None = None
    ended: float | None = None
    next_run: float | None = None
    outcome: str | None = None
    worker: str | None = None
    error: bytes = b""
    data: bytes | None = None
    run_at: float | None = None
    expires: float | None = None
    max_attempts: int | None = None
    backoff: float | None = None
    keep_result: float | None = None
    unique_for: float | None = None
    traceparent: str | None = None


def refusal(line: bytes) -> str | None:
    """Read an ERR line.

    Args:
        line: Any line.

    Returns:
        What it says after ``ERR``, with its plus signs as spaces; None for any other line.
    """
    match = _REFUSAL.match(line)
    return None if match is None else text_of(match[1] or b"unknown error").replace("+", " ")


def rows(lines: Sequence[bytes]) -> list[bytes]:
    """The rows of a list.

    Args:
        lines: All lines of the reply to its command.

    Returns:
        The lines ahead of the end.

    Raises:
        AdminError: The reply is a refusal.
        BrokenStream: The last line is not the end of a list.
    """
    if len(lines) == 1:
        _check_refusal(lines[0].removesuffix(b"\r"))
    end = lines[-1] if lines else b""
    if end == END + b"\r":
        return [line.removesuffix(b"\r") for line in lines[:-1]]
    if end != END:
        raise _broken(end)
    return list(lines[:-1])


def said(line: bytes) -> str:
    """Read a one-line reply that is a text.

    Args:
        line: The reply.

    Returns:
        What it says after ``OK``, which old servers leave out; empty for OK alone.

    Raises:
        AdminError: The reply is a refusal.
    """
    _check_refusal(line)
    return text_of(b"" if line == b"OK" else line.removeprefix(b"OK "))


def number(line: bytes) -> int:
    """Read a one-line reply that is a number.

    Args:
        line: The reply.

    Returns:
        The number.

    Raises:
        AdminError: The reply is a refusal.
        BrokenStream: The reply is no number.
    """
    _check_refusal(line)
    return _number(line.removeprefix(b"OK "), line)


def bulk_result(line: bytes) -> BulkResult:
    """Read the reply to a command on many jobs: ``OK N``, or ``OK N skipped M``.

    Args:
        line: The reply.

    Returns:
        What it says.

    Raises:
        AdminError: The reply is a refusal.
        BrokenStream: The reply is anything else.
    """
    _check_refusal(line)
    done, _, skipped = line.removeprefix(b"OK ").partition(b" skipped ")
    return BulkResult(_number(done, line), _number(skipped, line) if skipped else 0)


def done(line: bytes) -> None:
    """Read a one-line reply that is ``OK``.

    Args:
        line: The reply.

    Raises:
        AdminError: The reply is a refusal.
        BrokenStream: The reply is anything else.
    """
    _check_refusal(line)
    if line != b"OK":
        raise _broken(line)


def _check_refusal(line: bytes) -> None:
    refused = refusal(line)
    if refused is not None:
        raise AdminError(refused)


def function_statuses(lines: Sequence[bytes], escaped: bool = False) -> tuple[FunctionStatus, ...]:
    """Read the rows of ``status``.

    Args:
        lines: The rows.
        escaped: Whether the server escapes names.

    Returns:
        The functions, in the order of the rows.

    Raises:
        BrokenStream: A row has another form.
    """
    return tuple([FunctionStatus(_name(name, escaped), *numbers) for name, numbers in _table(lines, 3)])


def priority_statuses(lines: Sequence[bytes], escaped: bool = False) -> tuple[PriorityStatus, ...]:
    """Read the rows of ``prioritystatus``.

    Args:
        lines: The rows.
        escaped: Whether the server escapes names.

    Returns:
        The functions, in the order of the rows.

    Raises:
        BrokenStream: A row has another form.
    """
    return tuple([PriorityStatus(_name(name, escaped), *numbers) for name, numbers in _table(lines, 4)])


def job_entries(lines: Sequence[bytes], escaped: bool = False) -> tuple[JobEntry, ...]:
    """Read the rows of ``show jobs``.

    Args:
        lines: The rows.
        escaped: Whether the server escapes names.

    Returns:
        The jobs, in the order of the rows.

    Raises:
        BrokenStream: A row has another form.
    """
    return tuple(
        [
            JobEntry(_name(handle, escaped), losses, bool(ignored), bool(background))
            for handle, (losses, ignored, background) in _table(lines, 3)
        ]
    )


def dead_job_entries(lines: Sequence[bytes], escaped: bool = False) -> tuple[DeadJobEntry, ...]:
    """Read the rows of ``show dead``.

    Args:
        lines: The rows.
        escaped: Whether the server escapes names.

    Returns:
        The dead jobs, in the order of the rows.

    Raises:
        BrokenStream: A row has another form.
    """
    return tuple([_dead_job_entry(line, escaped) for line in lines])


def schedule_statuses(lines: Sequence[bytes], escaped: bool = False) -> tuple[ScheduleStatus, ...]:
    """Read the rows of ``show schedules``.

    Args:
        lines: The rows.
        escaped: Whether the server escapes names.

    Returns:
        The schedules, in the order of the rows.

    Raises:
        BrokenStream: A row has another form.
    """
    return tuple([_schedule_status(line, escaped) for line in lines])


def job_info(lines: Sequence[bytes], escaped: bool = False) -> JobInfo:
    """Read the rows of ``show job``: a name and its value, between them a tab. Unknown names are ignored, as
    a newer server may say more.

    Args:
        lines: The rows.
        escaped: Whether the server escapes names.

    Returns:
        What they tell of the job.

    Raises:
        BrokenStream: A row has another form, or one that has to be there is missing.
    """
    values = dict([_name_and_value(line) for line in lines])

    def text(name: bytes) -> str | None:
        value = values.get(name)
        return None if value is None else _name(value, escaped)

    def seconds(name: bytes) -> float | None:
        value = values.get(name)
        return None if value is None else _seconds(value)

    try:
        return JobInfo(
            handle=_name(values[b"handle"], escaped),
            function=_name(values[b"function"], escaped),
            unique=_name(values[b"unique"], escaped),
            state=text_of(values[b"state"]),
            priority=text_of(values[b"priority"]),
            background=bool(_number(values[b"background"], values[b"background"])),
            attempts=_number(values[b"attempts"], values[b"attempts"]),
            losses=_number(values[b"losses"], values[b"losses"]),
            submitted=_seconds(values[b"submitted"]),
            started=seconds(b"started"),
            ended=seconds(b"ended"),
            next_run=seconds(b"next_run"),
            outcome=text(b"outcome"),
            worker=text(b"worker"),
            error=_base64(values.get(b"error", b"")),
            data=_base64(values[b"data"]) if b"data" in values else None,
            run_at=seconds(b"run_at"),
            expires=seconds(b"expires"),
            max_attempts=_number(attempts, attempts) if (attempts := values.get(b"max_attempts")) else None,
            backoff=seconds(b"backoff"),
            keep_result=seconds(b"keep_result"),
            unique_for=seconds(b"unique_for"),
            traceparent=text(b"traceparent"),
        )
    except KeyError as missing:
        raise BrokenStream(b"", f"the reply to show job lacks {missing.args[0]!r}") from None


def uniques(lines: Sequence[bytes], escaped: bool = False) -> tuple[str, ...]:
    """Read the rows of ``show unique jobs``.

    Args:
        lines: The rows.
        escaped: Whether the server escapes names.

    Returns:
        The uniques, an empty one for each job without a unique.
    """
    return tuple([_name(line, escaped) for line in lines])


def connection_statuses(lines: Sequence[bytes], escaped: bool = False) -> tuple[ConnectionStatus, ...]:
    """Read the rows of ``workers``: number, host, client id, a colon, and functions, between spaces.

    Args:
        lines: The rows.
        escaped: Whether the server escapes names.

    Returns:
        The connections, in the order of the rows.

    Raises:
        BrokenStream: A row has another form.
    """
    found: list[list[bytes]] = []
    for line in lines:
        if _CONNECTION.match(line) or not found:
            found.append([line])
        else:
            found[-1].append(line)
    return tuple([_connection(b"\n".join(row), escaped) for row in found])


def _table(lines: Sequence[bytes], width: int) -> Iterator[tuple[bytes, list[int]]]:
    """A name and so many numbers of each row, between tabs."""
    begun: list[bytes] = []
    for line in lines:
        name, *columns = line.rsplit(b"\t", width)
        if len(columns) < width or not all(map(_NUMBER.match, columns)):
            begun.append(line)
            continue
        if begun:
            name = b"\n".join([*begun, name])
            begun = []
        yield name, [int(column) for column in columns]
    if begun:
        raise _broken(begun[0])


def _dead_job_entry(line: bytes, escaped: bool) -> DeadJobEntry:
    columns = line.split(b"\t")
    if len(columns) != 7:
        raise _broken(line)
    handle, function, unique, ended, attempts, outcome, error = columns
    return DeadJobEntry(
        _name(handle, escaped),
        _name(function, escaped),
        _name(unique, escaped),
        _number(ended, line),
        _number(attempts, line),
        text_of(outcome),
        _name(error, escaped),
    )


def _schedule_status(line: bytes, escaped: bool) -> ScheduleStatus:
    columns = line.split(b"\t")
    if len(columns) != 11:
        raise _broken(line)
    name, function, when, timezone, state, next_due, last, *counts = columns
    return ScheduleStatus(
        _name(name, escaped),
        _name(function, escaped),
        _name(when, escaped),
        _name(timezone, escaped),
        text_of(state),
        None if next_due == b"-" else _seconds(next_due),
        None if last == b"-" else _seconds(last),
        *[_number(count, line) for count in counts],
    )


def _name_and_value(line: bytes) -> tuple[bytes, bytes]:
    name, tab, value = line.partition(b"\t")
    if not tab:
        raise _broken(line)
    return name, value


def _connection(row: bytes, escaped: bool) -> ConnectionStatus:
    words = row.split(b" ")
    try:
        # A client id may have spaces and be a colon itself; a host may be two of them.
        colon = words.index(b":", 3)
    except ValueError:
        raise _broken(row) from None
    functions = words[colon + 1 :]
    return ConnectionStatus(
        _number(words[0], row),
        _name(words[1], escaped),
        _name(b" ".join(words[2:colon]), escaped),
        # Of other servers an empty word may be no more than a second space.
        tuple([_name(function, escaped) for function in functions if function or escaped]),
    )


def _number(text: bytes, line: bytes) -> int:
    if not _NUMBER.match(text):
        raise _broken(line)
    return int(text)


def _seconds(text: bytes) -> float:
    if not _DECIMAL.match(text):
        raise _broken(text)
    return float(text)


def _base64(text: bytes) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError:
        raise _broken(text) from None


def _name(shown: bytes, escaped: bool) -> str:
    return text_of(unescape(shown) if escaped else shown)


def _broken(line: bytes) -> BrokenStream:
    return BrokenStream(b"", f"a reply to an admin command cannot be understood: {line[:200]!r}")
