"""The server's replies to admin commands: from lines of text to values. No I/O.

They are read as gearmand and this package's server write them. A list's replies end with a line of one
dot; all others are one line, and a refusal is one line that begins with ``ERR``. Names and handles are
str, for people and for JSON: UTF-8, with bytes that are none as ``\\xff``.

What does not have the form of such a reply raises `BrokenStream`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from txgearman.errors import BrokenStream

END: Final = b"."
"""The line behind the last of a list."""

# A unique may be any text, so this must look like an error's code and not only begin with ERR.
_REFUSAL: Final = re.compile(
    rb"ERR(?: ([A-Z_]+(?: .*)?|function not found|there are still .*))?\Z", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class FunctionStatus:
    """One function in the reply to ``status``: how many jobs it has, `running` of them with a worker, and
    how many connections offer it.
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
    """One function in the reply to ``prioritystatus``: waiting jobs of each priority, and workers."""

    function: str
    high: int
    normal: int
    low: int
    workers: int


@dataclass(frozen=True, slots=True)
class ConnectionStatus:
    """One connection in the reply to ``workers``, which lists clients too: those without functions.

    `number` is the server's number for it, `client_id` is ``-`` where none was given.
    """

    number: int
    host: str
    client_id: str
    functions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class JobEntry:
    """One job in the reply to ``show jobs``.

    `retries` is how often it was lost with its worker, `ignored` says that nobody waits for it any more,
    `background` that it is an offline job.
    """

    handle: str
    retries: int
    ignored: bool
    background: bool


def refusal(line: bytes) -> str | None:
    """What an ERR line says behind ``ERR``, with its plus signs as spaces; None for any other line."""
    match = _REFUSAL.match(line)
    return None if match is None else _text(match[1] or b"unknown error").replace("+", " ")


def said(line: bytes) -> str:
    """What a one-line reply says behind ``OK``, which old servers leave out; empty for OK alone."""
    return _text(b"" if line == b"OK" else line.removeprefix(b"OK "))


def number(line: bytes) -> int:
    """The number of a one-line reply."""
    return _number(line.removeprefix(b"OK "), line)


def function_statuses(lines: Sequence[bytes]) -> tuple[FunctionStatus, ...]:
    """The rows of ``status``."""
    return tuple(
        FunctionStatus(name, *(_number(text, line) for text in numbers))
        for line in lines
        for name, numbers in [_row(line, 3)]
    )


def priority_statuses(lines: Sequence[bytes]) -> tuple[PriorityStatus, ...]:
    """The rows of ``prioritystatus``."""
    return tuple(
        PriorityStatus(name, *(_number(text, line) for text in numbers))
        for line in lines
        for name, numbers in [_row(line, 4)]
    )


def connection_statuses(lines: Sequence[bytes]) -> tuple[ConnectionStatus, ...]:
    """The rows of ``workers``: number, host, client id, a colon, and functions, between spaces."""
    return tuple(map(_connection, lines))


def job_entries(lines: Sequence[bytes]) -> tuple[JobEntry, ...]:
    """The rows of ``show jobs``."""
    entries = []
    for line in lines:
        handle, numbers = _row(line, 3)
        retries, ignored, background = (_number(text, line) for text in numbers)
        entries.append(JobEntry(handle, retries, bool(ignored), bool(background)))
    return tuple(entries)


def uniques(lines: Sequence[bytes]) -> tuple[str, ...]:
    """The rows of ``show unique jobs``, an empty one for each job without a unique."""
    return tuple(map(_text, lines))


def _row(line: bytes, numbers: int) -> tuple[str, list[bytes]]:
    """A name and so many numbers, between tabs. gearmand prints tabs in names as they are."""
    name, *columns = line.rsplit(b"\t", numbers)
    if len(columns) < numbers:
        raise _broken(line)
    return _text(name), columns


def _connection(line: bytes) -> ConnectionStatus:
    words = line.split(b" ")
    try:
        # A client id may have spaces and be a colon itself; a host may be two of them.
        colon = words.index(b":", 3)
    except ValueError:
        raise _broken(line) from None
    return ConnectionStatus(
        _number(words[0], line),
        _text(words[1]),
        _text(b" ".join(words[2:colon])),
        tuple(_text(word) for word in words[colon + 1 :] if word),
    )


def _number(text: bytes, line: bytes) -> int:
    if not re.fullmatch(rb"-?[0-9]{1,20}", text):
        raise _broken(line)
    return int(text)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def _broken(line: bytes) -> BrokenStream:
    return BrokenStream(b"", f"a reply to an admin command cannot be understood: {line[:200]!r}")
