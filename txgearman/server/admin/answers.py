"""What the answers to admin commands are made of: the lines that many have, and the refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from txgearman.access.patterns import MAX_SHOWN, quoted
from txgearman.access.policy import Right
from txgearman.errors import GearmanError, Refused
from txgearman.wire.names import escape, escape_word

if TYPE_CHECKING:
    from txgearman.server.interfaces import Peer

OK: Final = b"OK\r\n"
"""The line that answers a command which was done."""

UNKNOWN_JOB: Final = b"ERR UNKNOWN_JOB\r\n"
"""The line that answers a command for a job that is not there."""

END: Final = b".\n"
"""The line after the last of a list."""


class Changed(NamedTuple):
    """The answer to an admin line that has changed something.

    Attributes:
        line: The answer.
        jobs: How many jobs were changed; None where it was not about jobs.
    """

    line: bytes
    jobs: int | None = None


class Later(NamedTuple):
    """The answer to an admin line that is not known yet.

    Attributes:
        ask: Is called with the function that takes what was found.
        reply: Makes the answer of what was found.
    """

    ask: Callable[[Callable[[Any], None]], None]
    reply: Callable[[Any], bytes | Changed]


class Denied(GearmanError):
    """An admin command is answered with an ERR line; the message is all after ``ERR ``."""


def error_line(refusal: Denied) -> bytes:
    """The line that answers a command which is denied."""
    return b"ERR %b\r\n" % str(refusal).encode("utf-8", "surrogateescape")


def check_right(peer: Peer, command: bytes, right: Right) -> None:
    """Ask the access policy whether the peer may use a command. Raises `Denied`."""
    if not peer.rights.may_command(_text(command.lower()), right):
        peer.note_denied(f"use the admin command {quoted(command)}")
        raise Denied(f"ACCESS_DENIED You+may+not+use+this+command+{_echoed(command)}")


def unknown(word: bytes) -> Denied:
    """What denies a command that is none."""
    # gearmand puts no space ahead of the word either.
    return Denied(f"UNKNOWN_COMMAND Unknown+server+command{_echoed(word)}")


def incomplete(words: list[bytes]) -> Denied:
    """What denies a command with too few words. gearmand says this of words too many, too."""
    return Denied(
        f"INVALID_ARGUMENTS An+incomplete+set+of+arguments+was+sent+to+this+command+{_echoed(words[0])}"
    )


def _text(word: bytes) -> str:
    return word.decode("utf-8", "surrogateescape")


def _echoed(word: bytes) -> str:
    """A word of the peer's in an answer to it, escaped, and cut where it is long."""
    return _text(escape_word(word[:MAX_SHOWN]))


def refusal_line(refusal: Refused) -> bytes:
    """The answer to a command that the server refuses. What a database says may have several lines."""
    text = escape(" ".join(refusal.text.split()).replace(" ", "+").encode("utf-8", "backslashreplace"))
    return b"ERR %b %b\r\n" % (refusal.code, text)
