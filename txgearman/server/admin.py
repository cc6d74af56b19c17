"""The admin commands: text lines in, lines of gearmand's formats out."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from txgearman.access import Right
from txgearman.broker.job import PRIORITIES
from txgearman.errors import GearmanError, Refused
from txgearman.version import VERSION
from txgearman.wire.limits import MAX_FUNCTION, MAX_WORDS

if TYPE_CHECKING:
    from txgearman.server.protocol import GearmanServerProtocol as Peer

Answer = Callable[["Peer", list[bytes]], bytes]

OK: Final = b"OK\r\n"
_END: Final = b".\n"
_LINE_BREAKERS: Final = {ord("\t"): r"\t", ord("\r"): r"\r", ord("\n"): r"\n", ord(" "): r"\x20"}


class _Denied(GearmanError):
    """An admin command is answered with an ERR line; the message is all behind ``ERR ``."""


def answer_line(peer: Peer, line: bytes) -> None:
    """Answer one admin line, given without its line end."""
    words = [word for index, word in enumerate(line.split(b" ")) if word or not index]
    try:
        if len(words) > MAX_WORDS:
            raise _Denied(f"TOO_MANY_ARGS A+command+has+at+most+{MAX_WORDS}+words")
        right, answer = _find(_ANSWERS, words)
        if peer.access is not None:
            _check(peer, words[0], right)
        reply = answer(peer, words)
        if reply:
            peer.send(reply)
    except _Denied as error:
        peer.send(b"ERR %b\r\n" % str(error).encode("utf-8", "surrogateescape"))


def _check(peer: Peer, command: bytes, right: Right) -> None:
    """Ask the access policy. Raises `_Denied`."""
    if not peer.rights.may_command(_text(command.lower()), right):
        peer.note_denied(f"use the admin command {command!a}")
        raise _Denied(f"ACCESS_DENIED You+may+not+use+this+command+{_text(command)}")


def _find(table: dict[bytes, tuple[int, Right, Answer]], words: list[bytes]) -> tuple[Right, Answer]:
    name = words[0].lower()
    entry = table.get(name)
    if entry is None or (name in _SILENTLY_UNKNOWN and len(words) < entry[0]):
        # gearmand puts no space ahead of the word either.
        raise _Denied(f"UNKNOWN_COMMAND Unknown+server+command{_text(words[0])}")
    if len(words) < entry[0]:
        raise _incomplete(words)
    return entry[1:]


def _incomplete(words: list[bytes]) -> _Denied:
    return _Denied(
        "INVALID_ARGUMENTS An+incomplete+set+of+arguments+was+sent+to+this+command+" + _text(words[0])
    )


def _text(word: bytes) -> str:
    return word.decode("utf-8", "surrogateescape")


def _shown(name: bytes) -> bytes:
    """A name from a client in a line of ours: it must not break the line.

    gearmand prints tabs and line ends in names as they are.
    """
    if name.isalnum():
        return name
    return _text(name).translate(_LINE_BREAKERS).encode("utf-8", "surrogateescape")


# -- the server ---------------------------------------------------------------------------------


def _version(_peer: Peer, _words: list[bytes]) -> bytes:
    return b"OK txgearman-%b\n" % VERSION.encode()


def _verbose(_peer: Peer, _words: list[bytes]) -> bytes:
    return b"OK INFO\n"


def _getpid(_peer: Peer, _words: list[bytes]) -> bytes:
    return b"OK %d\n" % os.getpid()


def _shutdown(peer: Peer, words: list[bytes]) -> bytes:
    if peer.access is None and not peer.is_local:
        raise _Denied("NOT_ALLOWED shutdown+is+for+connections+from+this+machine")
    if len(words) > 1 and words[1].lower() != b"graceful":
        raise _Denied("INVALID_ARGUMENTS shutdown+or+shutdown+graceful")
    peer.factory.shut_down(graceful=len(words) > 1)
    return OK


# -- functions ----------------------------------------------------------------------------------


def _status(peer: Peer, _words: list[bytes]) -> bytes:
    lines = [
        b"%b\t%d\t%d\t%d\n" % (_shown(view.name), view.total, view.running, view.workers)
        for view in peer.broker.functions()
    ]
    return b"".join([*lines, _END])


def _prioritystatus(peer: Peer, _words: list[bytes]) -> bytes:
    lines = [
        b"%b\t%b\t%d\n" % (_shown(view.name), b"\t".join([b"%d" % n for n in view.waiting]), view.workers)
        for view in peer.broker.functions()
    ]
    return b"".join([*lines, _END])


def _create(peer: Peer, words: list[bytes]) -> bytes:
    _check_is_function(words)
    # gearmand cuts the last letter off the name where the line ends in LF alone.
    peer.broker.create_function(_function_name(words[2]))
    return OK


def _drop(peer: Peer, words: list[bytes]) -> bytes:
    _check_is_function(words)
    try:
        # gearmand finds the function whatever the case of its name, here alone.
        peer.broker.drop_function(words[2])
    except Refused as error:
        raise _Denied(error.text) from None
    return OK


def _check_is_function(words: list[bytes]) -> None:
    if words[1].lower() != b"function":
        raise _incomplete(words)


def _function_name(word: bytes) -> bytes:
    if len(word) > MAX_FUNCTION:
        raise _Denied(f"ARGUMENT_TOO_LARGE A+function+name+has+at+most+{MAX_FUNCTION}+bytes")
    return word


def _maxqueue(peer: Peer, words: list[bytes]) -> bytes:
    """``maxqueue f``, ``maxqueue f n``, ``maxqueue f high normal low``.

    As with gearmand no number, 0, a negative number and what is no number mean no limit, one number
    is for all priorities, and of two the second is for normal and low has none.
    """
    numbers = [_limit(word) for word in words[2:]]
    if len(numbers) == 1:
        numbers *= PRIORITIES
    limits = (numbers + [None] * PRIORITIES)[:PRIORITIES]
    peer.broker.set_limits(_function_name(words[1]), tuple(limits))
    return OK


def _limit(word: bytes) -> int | None:
    return int(word) or None if word.isdigit() and len(word) < 20 else None


# -- jobs and workers ---------------------------------------------------------------------------


def _show(peer: Peer, words: list[bytes]) -> bytes:
    shown = [word.lower() for word in words[1:]]
    if shown == [b"jobs"]:
        # The third column, "ignore", is for gearmand's jobs that are cancelled and still there.
        lines = [
            b"%b\t%d\t0\t%d\n" % (view.handle, view.attempts, view.background) for view in peer.broker.jobs()
        ]
    elif shown == [b"unique", b"jobs"]:
        lines = [b"%b\n" % _shown(view.unique) for view in peer.broker.jobs()]
    else:
        raise _Denied("UNKNOWN_SHOW_ARGUMENTS")
    return b"".join([*lines, _END])


def _cancel(peer: Peer, words: list[bytes]) -> bytes:
    if words[1].lower() != b"job":
        raise _Denied("UNKNOWN_ERROR")
    try:
        peer.broker.cancel(words[2])
    except Refused:
        if not peer.broker.far:
            raise _Denied("UNKNOWN_JOB") from None
        peer.send_later(
            partial(peer.broker.seek_and_cancel, words[2]),
            lambda refusal: OK if refusal is None else b"ERR UNKNOWN_JOB\r\n",
        )
        return b""
    return OK


def _workers(peer: Peer, _words: list[bytes]) -> bytes:
    """All connections. The first column is gearmand's file descriptor; here it counts connections."""
    lines = []
    for connection in peer.factory.connections.values():
        functions = [b" " + _shown(function.name) for function in reversed(connection.worker.abilities)]
        head = b"%d %b %b :" % (connection.number, connection.host.encode(), _shown(connection.client_id))
        lines.append(b"".join([head, *functions, b"\n"]))
    return b"".join([*lines, _END])


_SILENTLY_UNKNOWN: Final = frozenset({b"show", b"cancel"})
"""Commands that gearmand calls unknown, and not incomplete, when words are missing."""

_ANSWERS: Final[dict[bytes, tuple[int, Right, Answer]]] = {
    b"version": (1, Right.VIEW, _version),
    b"verbose": (1, Right.VIEW, _verbose),
    b"getpid": (1, Right.VIEW, _getpid),
    b"shutdown": (1, Right.SHUTDOWN, _shutdown),
    b"status": (1, Right.VIEW, _status),
    b"prioritystatus": (1, Right.VIEW, _prioritystatus),
    b"workers": (1, Right.VIEW, _workers),
    b"show": (2, Right.VIEW, _show),
    b"cancel": (3, Right.MANAGE, _cancel),
    b"create": (3, Right.MANAGE, _create),
    b"drop": (3, Right.MANAGE, _drop),
    b"maxqueue": (2, Right.MANAGE, _maxqueue),
}
"""How many words each command needs, itself among them, the right it needs, and what answers it."""

COMMAND_NAMES: Final = frozenset(name.decode() for name in _ANSWERS)
"""All admin commands."""
