"""The admin commands: text lines in, lines of gearmand's formats out.

One table has the words that a command takes and what answers it. The answers are made by the modules beside
this one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from txgearman.access.patterns import quoted
from txgearman.access.policy import ADMIN_COMMANDS, Right
from txgearman.broker.dead_job import DeadFilter
from txgearman.errors import BrokenStream, Refused
from txgearman.server.admin.answers import (
    Changed,
    Denied,
    Later,
    check_right,
    error_line,
    incomplete,
    refusal_line,
    unknown,
)
from txgearman.server.admin.dead_jobs import forget_jobs, kill_job, retry_jobs, show_dead
from txgearman.server.admin.functions import (
    create_function,
    drop_function,
    limit_queue,
    limit_rate,
    limit_runs,
    pause_function,
    resume_function,
    show_function_limits,
    show_functions,
    show_priority_status,
    show_status,
)
from txgearman.server.admin.job_list import list_jobs
from txgearman.server.admin.jobs import cancel_job, show_job, show_jobs, show_unique_jobs
from txgearman.server.admin.schedules import (
    create_schedule,
    drop_schedule,
    pause_schedule,
    resume_schedule,
    run_schedule,
    show_schedules,
)
from txgearman.server.admin.server import (
    quiet_worker,
    reload_configuration,
    set_verbosity,
    show_connections,
    show_limits,
    show_pid,
    show_store,
    show_version,
    show_workers,
    shut_down,
    unquiet_worker,
)
from txgearman.wire.limits import MAX_WORDS
from txgearman.wire.names import unescape

if TYPE_CHECKING:
    from txgearman.access.actor import Actor
    from txgearman.server.interfaces import ListPieces, Peer

Answer = Callable[["Peer", list[bytes]], "bytes | Changed | Later | ListPieces"]
"""A whole answer, its pieces where it may be long, or how to get it. A command that needs another right than
`Right.VIEW` answers ``OK`` only where it has changed something."""


class ForeignPeer(BrokenStream):
    """The first line of a connection shows that its peer does not speak Gearman.

    `answer` is what to tell it ahead of the connection's end.
    """

    def __init__(self, why: str, answer: bytes) -> None:
        super().__init__(b"", why)
        self.answer = answer


def shows_gearman(line: bytes) -> bool:
    """Whether a connection's first line shows that its peer speaks Gearman, by being an admin command.

    One that begins with a command's name and lacks words shows neither that nor the contrary. Raises
    `ForeignPeer` for all others.

    A web page can let a browser send nearly anything to this port, but only after the head of an HTTP
    request. As a method can be called anything, a first line with the word ``HTTP/…`` is no command either,
    ``status / HTTP/1.1`` for example.
    """
    words = _words(line)
    if any(word[:5].upper() == b"HTTP/" for word in words[1:]):
        refusal = Denied("UNKNOWN_COMMAND This+port+speaks+Gearman+and+not+HTTP")
        raise ForeignPeer("the peer speaks HTTP, which is not spoken here", error_line(refusal))
    command = _ANSWERS.get(words[0].lower())
    if command is None:
        refusal = unknown(words[0])
        raise ForeignPeer(f"the first line is no admin command: {quoted(line)}", error_line(refusal))
    return len(words) >= command.least


def answer_line(peer: Peer, line: bytes) -> None:
    """Answer one admin line, given without its line end."""
    words = _words(line)
    try:
        if len(words) > MAX_WORDS:
            raise Denied(f"TOO_MANY_ARGS A+command+has+at+most+{MAX_WORDS}+words")
        if b"\0" in line:
            # gearmand reads each word up to its NUL, and so drops another function than was said.
            raise Denied("INVALID_ARGUMENTS A+command+must+not+contain+NUL")
        name, right, command = _find(words)
        if peer.access is not None:
            check_right(peer, name, right)
        # A command may end this connection, and of one that has ended it is not known who it was.
        actor = None if right is Right.VIEW else peer.actor
        answer = command.answer(peer, words)
    except Denied as error:
        peer.send(error_line(error))
    except Refused as error:
        peer.send(refusal_line(error))
    else:
        _send(peer, answer, partial(_note, peer, command, words, actor))


def _send(
    peer: Peer, answer: bytes | Changed | Later | ListPieces, note: Callable[[bytes | Changed], bytes]
) -> None:
    """Send an answer, at once or when it is known. Each that is no list passes through `note`."""
    if isinstance(answer, Later):
        ask, reply = answer

        def ask_and_note(tell: Callable[[bytes], None]) -> None:
            # Not where the reply is sent: the peer may have gone by then, and what it did is done.
            ask(lambda found: tell(note(reply(found))))

        peer.reply_later(ask_and_note, bytes)
    elif isinstance(answer, bytes | Changed):
        peer.send(note(answer))
    else:
        peer.send_list(answer)


def _note(
    peer: Peer, command: _Command, words: list[bytes], actor: Actor | None, answer: bytes | Changed
) -> bytes:
    """Log what a command has changed, whichever it is: `actor` is None for those that only view, but for what
    they say is `Changed`. Returns the line of the answer."""
    if not isinstance(answer, Changed):
        if actor is None or not answer.startswith(b"OK"):
            return answer
        answer = Changed(answer)
    named = 2 if command.has_kind else 1
    peer.server.activity.acted(
        peer.actor if actor is None else actor,
        "admin",
        _said(words[:named]).lower(),
        unescape(words[named]) if len(words) > named else b"",
        _said(words[named + 1 :]),
        answer.jobs,
    )
    return answer.line


def _said(words: list[bytes]) -> str:
    return b" ".join(words).decode("utf-8", "backslashreplace")


def _words(line: bytes) -> list[bytes]:
    """The words of a line as gearmand has them: several spaces count as one, those at the end are followed by
    an empty word."""
    words = line.split(b" ")
    last = len(words) - 1
    return [word for index, word in enumerate(words) if word or index in (0, last)]


def _find(words: list[bytes]) -> tuple[bytes, Right, _Command]:
    """What answers a command, the right it needs, and the name by which rules allow it. Raises `Denied`."""
    name = words[0].lower()
    named = b" ".join(words[:2]).lower()
    of_kind = _OTHER_KINDS.get(named)
    if of_kind is not None:
        if len(words) != of_kind[1].least:
            raise incomplete(words)
        return named, *of_kind
    command = _ANSWERS.get(name)
    if command is None or (name in _SILENTLY_UNKNOWN and len(words) < command.least):
        raise unknown(words[0])
    if len(words) < command.least:
        raise incomplete(words)
    if command.most is not None and len(words) > command.most:
        # A line with a word too many is a mistake, and must change nothing.
        raise Denied("UNKNOWN_ERROR") if name == b"cancel" else incomplete(words)
    return words[0], ADMIN_COMMANDS[name.decode()], command


_SHOWN: Final = {
    b"jobs": show_jobs,
    b"unique jobs": show_unique_jobs,
    b"limits": show_limits,
    b"connections": show_connections,
    b"functions": show_functions,
    b"store": show_store,
    b"function limits": show_function_limits,
    b"schedules": show_schedules,
}
"""What answers ``show`` and further words."""


def _show(peer: Peer, words: list[bytes]) -> ListPieces:
    if words[1].lower() == b"job" and len(words) == 3:
        return show_job(peer, unescape(words[2]))
    if words[1].lower() == b"dead" and len(words) < 4:
        return show_dead(peer, DeadFilter(unescape(words[2]) if len(words) > 2 else None))
    show = _SHOWN.get(b" ".join(words[1:]).lower())
    if show is None:
        raise Denied("UNKNOWN_SHOW_ARGUMENTS")
    return show(peer)


_SILENTLY_UNKNOWN: Final = frozenset({b"show", b"cancel"})
"""Commands that gearmand calls unknown, and not incomplete, when words are missing."""


class _Command(NamedTuple):
    """How many words a command needs, itself among them, and how many it takes, None where all further ones
    are ignored, as gearmand does; and what answers it. Where it `has_kind`, the second word says of what kind
    the third is, as in ``cancel job``."""

    least: int
    most: int | None
    answer: Answer
    has_kind: bool = False


def _of_schedules(answer: Answer) -> Answer:
    """A command that there is for schedules alone."""

    def answer_schedule(peer: Peer, words: list[bytes]) -> bytes | Changed | Later | ListPieces:
        if words[1].lower() != b"schedule":
            raise incomplete(words)
        return answer(peer, words)

    return answer_schedule


_OTHER_KINDS: Final[dict[bytes, tuple[Right, _Command]]] = {
    b"create schedule": (Right.SCHEDULE, _Command(4, 4, create_schedule, has_kind=True)),
    b"drop schedule": (Right.SCHEDULE, _Command(3, 3, drop_schedule, has_kind=True)),
    b"pause function": (Right.MANAGE, _Command(3, 3, pause_function, has_kind=True)),
    b"resume function": (Right.MANAGE, _Command(3, 3, resume_function, has_kind=True)),
}
"""Commands that need another right for this kind of thing. Rules that name ``drop`` are about functions, and
those that name ``pause`` about schedules: only the right allows these."""

_ANSWERS: Final[dict[bytes, _Command]] = {
    b"version": _Command(1, None, show_version),
    b"verbose": _Command(1, None, set_verbosity),
    b"getpid": _Command(1, None, show_pid),
    b"shutdown": _Command(1, None, shut_down),
    b"status": _Command(1, None, show_status),
    b"prioritystatus": _Command(1, None, show_priority_status),
    b"workers": _Command(1, None, show_workers),
    b"show": _Command(2, None, _show),
    b"jobs": _Command(1, MAX_WORDS, list_jobs),
    b"cancel": _Command(3, 4, cancel_job, has_kind=True),
    b"retry": _Command(3, 3, retry_jobs, has_kind=True),
    b"forget": _Command(3, 3, forget_jobs, has_kind=True),
    b"kill": _Command(3, 3, kill_job, has_kind=True),
    b"create": _Command(3, 3, create_function, has_kind=True),
    b"drop": _Command(3, 3, drop_function, has_kind=True),
    b"maxqueue": _Command(2, 5, limit_queue),
    b"maxrate": _Command(2, 4, limit_rate),
    b"limit": _Command(2, 4, limit_runs),
    b"quiet": _Command(2, 2, quiet_worker),
    b"unquiet": _Command(2, 2, unquiet_worker),
    b"reload": _Command(1, 1, reload_configuration),
    b"pause": _Command(3, 3, _of_schedules(pause_schedule), has_kind=True),
    b"resume": _Command(3, 3, _of_schedules(resume_schedule), has_kind=True),
    b"run": _Command(3, 3, _of_schedules(run_schedule), has_kind=True),
}
