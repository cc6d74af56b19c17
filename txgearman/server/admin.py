"""The admin commands: text lines in, lines of gearmand's formats out."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from txgearman.access.patterns import MAX_SHOWN, quoted, shown
from txgearman.access.policy import ADMIN_COMMANDS, Right
from txgearman.broker.administration import Administration
from txgearman.broker.dead_job import DeadCursor, DeadFilter, DeadJob, DeadPage
from txgearman.broker.dead_job_administration import DeadJobAdministration, Progress
from txgearman.broker.inspection import Inspection
from txgearman.broker.job_lookup import JobLookup
from txgearman.broker.job_states import OUTCOME_NAMES, PRIORITIES, Priority
from txgearman.broker.policy import NO_RUN_RULES
from txgearman.broker.stored_job_search import StoredJobSearch
from txgearman.broker.views import JobDetail
from txgearman.errors import BrokenStream, GearmanError, JobNotFound, Refused, UniqueInUse
from txgearman.server.config.function_options import MAX_RATE
from txgearman.server.config.process_options import Level
from txgearman.server.config.run_limit_options import with_run_limit
from txgearman.server.interfaces import Held, ListPieces
from txgearman.server.monitoring.limits import limits_of
from txgearman.server.schedule_lines import (
    create_schedule,
    drop_schedule,
    pause_schedule,
    refusal_line,
    remove_schedule,
    resume_schedule,
    run_schedule,
    schedule_lines,
)
from txgearman.version import VERSION
from txgearman.wire.limits import MAX_FUNCTION, MAX_WORDS
from txgearman.wire.names import escape, escape_word, unescape

if TYPE_CHECKING:
    from txgearman.server.interfaces import Peer

Answer = Callable[["Peer", list[bytes]], "bytes | ListPieces"]
"""A whole answer, or its pieces where it may be long."""

FUNCTIONS_OF_A_PIECE: Final = 100
"""Functions of a worker that are one piece of ``workers``: one connection may have any number of them."""

DEAD_PAGE: Final = 200
"""Dead jobs that are read, retried or forgotten in one go."""

DATA_PIECE: Final = 24 * 1024
"""Bytes of a payload that become base64 at a time, in one turn. A multiple of three: the pieces join without
padding."""

MAX_ERROR_LINE: Final = 200
"""Bytes of the first line of an error in a list."""

SomeDead = Callable[[DeadFilter, "DeadCursor | None", int, Callable[["Progress | Refused"], None]], None]
"""A verb on some dead jobs: which, behind which cursor, how many at most, and who is told."""

OneDead = Callable[[bytes, Callable[["Refused | None"], None]], None]
"""A verb on the dead job with a handle, and who is told."""

_log = Logger()

OK: Final = b"OK\r\n"
_UNKNOWN_JOB: Final = b"ERR UNKNOWN_JOB\r\n"
_LEVELS: Final = {level.value.encode(): level for level in Level}
_END: Final = b".\n"


class _Denied(GearmanError):
    """An admin command is answered with an ERR line; the message is all behind ``ERR ``."""


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

    A web page can let a browser send nearly anything to this port, but only behind the head of an HTTP
    request. As a method can be called anything, a first line with the word ``HTTP/…`` is no command either,
    ``status / HTTP/1.1`` for example.
    """
    words = _words(line)
    if any(word[:5].upper() == b"HTTP/" for word in words[1:]):
        refusal = _Denied("UNKNOWN_COMMAND This+port+speaks+Gearman+and+not+HTTP")
        raise ForeignPeer("the peer speaks HTTP, which is not spoken here", _error_line(refusal))
    command = _ANSWERS.get(words[0].lower())
    if command is None:
        refusal = _unknown(words[0])
        raise ForeignPeer(f"the first line is no admin command: {quoted(line)}", _error_line(refusal))
    return len(words) >= command.least


def answer_line(peer: Peer, line: bytes) -> None:
    """Answer one admin line, given without its line end."""
    words = _words(line)
    try:
        if len(words) > MAX_WORDS:
            raise _Denied(f"TOO_MANY_ARGS A+command+has+at+most+{MAX_WORDS}+words")
        if b"\0" in line:
            # gearmand reads each word up to its NUL, and so drops another function than was said.
            raise _Denied("INVALID_ARGUMENTS A+command+must+not+contain+NUL")
        right, make_answer = _find(words)
        if peer.access is not None:
            # Rules that name `drop` are about functions: no rule names `drop schedule`.
            of_functions = right is Right.SCHEDULE and words[0].lower() in _OF_SCHEDULES
            _check(peer, b" ".join(words[:2]) if of_functions else words[0], right)
        answer = make_answer(peer, words)
        if right is not Right.VIEW:
            _log.info(
                "{host} ({client_id}) said {command}",
                host=peer.host,
                client_id=ascii(peer.client_id),
                command=shown(line),
            )
    except _Denied as error:
        answer = _error_line(error)
    except Refused as error:
        answer = refusal_line(error)
    if not isinstance(answer, bytes):
        peer.send_list(answer)
    elif answer:
        peer.send(answer)


def _words(line: bytes) -> list[bytes]:
    """The words of a line as gearmand has them: several spaces count as one, those at the end are followed by
    an empty word."""
    words = line.split(b" ")
    last = len(words) - 1
    return [word for index, word in enumerate(words) if word or index in (0, last)]


def _error_line(refusal: _Denied) -> bytes:
    return b"ERR %b\r\n" % str(refusal).encode("utf-8", "surrogateescape")


def _check(peer: Peer, command: bytes, right: Right) -> None:
    """Ask the access policy. Raises `_Denied`."""
    if not peer.rights.may_command(_text(command.lower()), right):
        peer.note_denied(f"use the admin command {quoted(command)}")
        raise _Denied(f"ACCESS_DENIED You+may+not+use+this+command+{_echoed(command)}")


def _find(words: list[bytes]) -> tuple[Right, Answer]:
    """What answers a command, and the right it needs. Raises `_Denied`."""
    name = words[0].lower()
    of_schedules = _OF_SCHEDULES.get(name)
    if of_schedules is not None and len(words) > 1 and words[1].lower() == b"schedule":
        if len(words) != of_schedules.least:
            raise _incomplete(words)
        return Right.SCHEDULE, of_schedules.answer
    command = _ANSWERS.get(name)
    if command is None or (name in _SILENTLY_UNKNOWN and len(words) < command.least):
        raise _unknown(words[0])
    if len(words) < command.least:
        raise _incomplete(words)
    if command.most is not None and len(words) > command.most:
        # A line with a word too many is a mistake, and must change nothing.
        raise _Denied("UNKNOWN_ERROR") if name == b"cancel" else _incomplete(words)
    return ADMIN_COMMANDS[name.decode()], command.answer


def _unknown(word: bytes) -> _Denied:
    # gearmand puts no space ahead of the word either.
    return _Denied(f"UNKNOWN_COMMAND Unknown+server+command{_echoed(word)}")


def _incomplete(words: list[bytes]) -> _Denied:
    """gearmand says this of words too many, too."""
    return _Denied(
        f"INVALID_ARGUMENTS An+incomplete+set+of+arguments+was+sent+to+this+command+{_echoed(words[0])}"
    )


def _text(word: bytes) -> str:
    return word.decode("utf-8", "surrogateescape")


def _echoed(word: bytes) -> str:
    """A word of the peer's in an answer to it, escaped, and cut where it is long."""
    return _text(escape_word(word[:MAX_SHOWN]))


# -- the server ---------------------------------------------------------------------------------


def _version(_peer: Peer, _words: list[bytes]) -> bytes:
    return b"OK txgearman-%b\n" % VERSION.encode()


def _verbose(peer: Peer, words: list[bytes]) -> bytes:
    """``verbose`` as gearmand has it, whatever follows; ``verbose LEVEL`` for peers on this machine."""
    threshold = peer.server.threshold
    level = _LEVELS.get(words[1].lower()) if len(words) > 1 else None
    if level is not None:
        if len(words) > 2:
            raise _Denied("INVALID_ARGUMENTS verbose+or+verbose+LEVEL")
        if peer.access is not None:
            _check(peer, words[0], Right.MANAGE)
        elif not peer.is_local:
            raise _Denied("NOT_ALLOWED verbose+LEVEL+is+for+connections+from+this+machine")
        if threshold is None:
            raise _Denied("NOT_ALLOWED The+level+of+the+log+is+not+up+to+this+server")
        threshold.override(level)
    return b"OK %b\n" % (Level.INFO if threshold is None else threshold.current).value.upper().encode()


def _getpid(_peer: Peer, _words: list[bytes]) -> bytes:
    return b"OK %d\n" % os.getpid()


def _shutdown(peer: Peer, words: list[bytes]) -> bytes:
    if peer.access is None and not peer.is_local:
        raise _Denied("NOT_ALLOWED shutdown+is+for+connections+from+this+machine")
    if len(words) > 2 or (len(words) > 1 and words[1].lower() != b"graceful"):
        raise _Denied("INVALID_ARGUMENTS shutdown+or+shutdown+graceful")
    peer.server.shut_down(graceful=len(words) > 1)
    return OK


# -- functions ----------------------------------------------------------------------------------


def _status(peer: Peer, _words: list[bytes]) -> Iterator[bytes]:
    for view in Inspection(peer.broker).functions():
        yield b"%b\t%d\t%d\t%d\n" % (escape(view.name), view.total, view.running, view.workers)
    yield _END


def _prioritystatus(peer: Peer, _words: list[bytes]) -> Iterator[bytes]:
    for view in Inspection(peer.broker).functions():
        waiting = b"\t".join([b"%d" % count for count in view.waiting])
        yield b"%b\t%b\t%d\n" % (escape(view.name), waiting, view.workers)
    yield _END


def _create(peer: Peer, words: list[bytes]) -> bytes:
    _check_is_function(words)
    # gearmand cuts the last letter off the name where the line ends in LF alone.
    Administration(peer.broker).create_function(_function_name(words, 2))
    return OK


def _drop(peer: Peer, words: list[bytes]) -> bytes:
    _check_is_function(words)
    try:
        # gearmand finds the function whatever the case of its name, here alone.
        Administration(peer.broker).drop_function(words[2])
    except Refused as error:
        raise _Denied(error.text) from None
    return OK


def _check_is_function(words: list[bytes]) -> None:
    if words[1].lower() != b"function":
        raise _incomplete(words)


def _function_name(words: list[bytes], place: int) -> bytes:
    """The name of a function that is made if it does not exist. gearmand makes one without a name of a line
    that ends there with a space."""
    name = words[place]
    if not name:
        raise _incomplete(words)
    if len(name) > MAX_FUNCTION:
        raise _Denied(f"ARGUMENT_TOO_LARGE A+function+name+has+at+most+{MAX_FUNCTION}+bytes")
    return name


def _maxqueue(peer: Peer, words: list[bytes]) -> bytes:
    """``maxqueue f``, ``maxqueue f n``, ``maxqueue f high normal low``.

    As with gearmand no number, 0, a negative number and what is no number mean no limit, one number
    is for all priorities, and of two the second is for normal and low has none.
    """
    if not words[-1]:
        # To gearmand the empty word behind a last space is a number that means no limit.
        raise _incomplete(words)
    numbers = [_limit(word) for word in words[2:]]
    if len(numbers) == 1:
        numbers *= PRIORITIES
    limits = (numbers + [None] * PRIORITIES)[:PRIORITIES]
    Administration(peer.broker).set_limits(_function_name(words, 1), tuple(limits))
    return OK


def _maxrate(peer: Peer, words: list[bytes]) -> bytes:
    """``maxrate f``, ``maxrate f jobs-a-second``, ``maxrate f jobs-a-second burst``."""
    try:
        rate = float(words[2]) + 0.0 if len(words) > 2 else 0.0  # -0 becomes 0
        burst = int(words[3]) if len(words) > 3 else 0
    except ValueError:
        raise _Denied("INVALID_ARGUMENTS A+rate+and+a+burst+are+numbers") from None
    if not (0 <= rate <= MAX_RATE and 0 <= burst <= MAX_RATE):
        raise _Denied(f"INVALID_ARGUMENTS A+rate+and+a+burst+are+0+to+{MAX_RATE}")
    Administration(peer.broker).set_rate(_function_name(words, 1), rate, burst)
    return OK


def _limit_runs(peer: Peer, words: list[bytes]) -> bytes:
    """``limit f``, which ends all limits of its runs, or ``limit f max-running n``, and so on."""
    name = _function_name(words, 1)
    if len(words) == 3:
        raise _incomplete(words)
    rules = NO_RUN_RULES
    if len(words) > 2:
        function = peer.broker.functions.by_name.get(name)
        if function is not None and function.run_limits is not None:
            rules = function.run_limits.rules
        try:
            rules = with_run_limit(rules, words[2].decode(), unescape(words[3]).decode())
        except ValueError as error:
            reason = ascii(str(error))[1:-1].replace(" ", "+")
            raise _Denied(f"INVALID_ARGUMENTS {reason}") from None
    Administration(peer.broker).limit_runs(name, rules)
    return OK


def _limit(word: bytes) -> int | None:
    return int(word) or None if word.isdigit() and len(word) < 20 else None


# -- jobs and workers ---------------------------------------------------------------------------


def _show(peer: Peer, words: list[bytes]) -> ListPieces:
    if words[1].lower() == b"job" and len(words) == 3:
        return _show_job(peer, unescape(words[2]))
    if words[1].lower() == b"dead" and len(words) < 4:
        return _show_dead(peer, DeadFilter(unescape(words[2]) if len(words) > 2 else None))
    show = _SHOWN.get(b" ".join(words[1:]).lower())
    if show is None:
        raise _Denied("UNKNOWN_SHOW_ARGUMENTS")
    return show(peer)


def _show_jobs(peer: Peer) -> Iterator[bytes]:
    # The third column, "ignore", is for gearmand's jobs that are cancelled and still there.
    for view in Inspection(peer.broker).jobs():
        yield b"%b\t%d\t0\t%d\n" % (view.handle, view.losses, view.background)
    yield _END


def _show_unique_jobs(peer: Peer) -> Iterator[bytes]:
    for view in Inspection(peer.broker).jobs():
        yield b"%b\n" % escape(view.unique)
    yield _END


def _show_limits(peer: Peer) -> Iterator[bytes]:
    """Each limit of the server: what it is, how much of it is used, and how often it said no."""
    for row in limits_of(peer.server):
        limit = b"%d" % row.limit if row.limit == int(row.limit) else b"%g" % row.limit
        yield b"%b\t%b\t%d\t%d\n" % (row.name.encode(), limit, row.used, row.refused)
    yield _END


def _show_function_limits(peer: Peer) -> Iterator[bytes]:
    """The limits of each function that has some, 0 for none, and how many jobs they refused."""
    for view in Inspection(peer.broker).limits():
        queued = b"\t".join([b"%d" % (limit or 0) for limit in view.queued])
        rate = b"%g\t%d" % (view.per_second, view.burst)
        runs = view.runs
        starts = b"%d\t%g\t%d" % (runs.max_running, runs.start_rate, runs.start_burst)
        keys = b"%d\t%b" % (runs.max_running_per_key, escape(runs.key_separator))
        columns = escape(view.name), queued, rate, view.refused, starts, keys, runs.pause_after
        yield b"%b\t%b\t%b\t%d\t%b\t%b\t%d\n" % columns
    yield _END


def _show_store(peer: Peer) -> Iterator[bytes]:
    """What keeps the jobs, and how that goes."""
    store_writer = peer.server.store_writer
    if store_writer is None:
        yield b"state\tnone\n"
    else:
        outage = store_writer.outage
        yield b"state\t%b\n" % (
            b"available" if outage is None else b"unavailable: " + escape(" ".join(outage.split()).encode())
        )
        counts = (
            (b"saved", store_writer.stored),
            (b"commits", store_writer.commits),
            (b"waiting", store_writer.waiting),
            (b"unremoved", store_writer.unremoved),
            (b"taken-over", store_writer.lease.taken_over),
            (b"done-twice", store_writer.rerun_elsewhere),
            (b"late-duplicates", store_writer.late_duplicates),
        )
        for name, count in counts:
            yield b"%b\t%d\n" % (name, count)
    yield _END


_SHOWN: Final = {
    b"jobs": _show_jobs,
    b"unique jobs": _show_unique_jobs,
    b"limits": _show_limits,
    b"store": _show_store,
    b"function limits": _show_function_limits,
    b"schedules": schedule_lines,
}


def _cancel(peer: Peer, words: list[bytes]) -> bytes:
    """``cancel job HANDLE``, ``cancel job HANDLE force``."""
    force = len(words) == 4
    # gearmand says this of words too many, too.
    if words[1].lower() != b"job" or (force and words[3].lower() != b"force"):
        raise _Denied("UNKNOWN_ERROR")
    try:
        peer.broker.cancel(words[2], force)
    except Refused:
        schedule = peer.server.scheduling.named(words[2])
        if schedule is not None:
            if peer.access is not None:
                _check(peer, b"cancel schedule", Right.SCHEDULE)
            return remove_schedule(peer, schedule)
        if not Inspection(peer.broker).may_have_stored_jobs:
            raise _Denied("UNKNOWN_JOB") from None
        peer.reply_later(
            partial(StoredJobSearch(peer.broker).seek_and_cancel, words[2], force=force),
            lambda refusal: OK if refusal is None else _UNKNOWN_JOB,
        )
        return b""
    return OK


def _show_job(peer: Peer, handle: bytes) -> ListPieces:
    """All that is known of a job: lines of name, TAB, value. Data and errors are in base64."""
    asked: Deferred[JobDetail | Refused] = Deferred()
    JobLookup(peer.broker).find(handle, asked.callback)
    yield asked
    job = cast(JobDetail | Refused, asked.result)
    if isinstance(job, JobDetail):
        yield from _job_lines(job)
    elif isinstance(job, JobNotFound):
        yield _UNKNOWN_JOB
    else:
        yield refusal_line(job)


def _job_lines(job: JobDetail) -> ListPieces:
    values: dict[str, bytes | float | None] = {
        "handle": escape(job.handle),
        "function": escape(job.function),
        "unique": escape(job.unique),
        "state": job.shown_state.encode(),
        "priority": Priority(job.priority).name.lower().encode(),
        "background": int(job.background),
        "attempts": job.attempts,
        "losses": job.losses,
        "submitted": job.submitted,
        "started": job.started,
        "ended": job.ended,
        "next_run": job.next_run,
        "outcome": job.outcome_name.encode() or None,
        "worker": escape(job.label) or None,
        "error": b64encode(job.error) or None,
    }
    yield b"".join(
        [b"%b\t%b\n" % (name.encode(), _value(value)) for name, value in values.items() if value is not None]
    )
    if job.data is not None:
        # Only the peer holds it where the job is in the store, or ends meanwhile.
        yield Held(job.data)
        yield b"data\t"
        view = memoryview(job.data)
        for start in range(0, len(view), DATA_PIECE):
            yield b64encode(view[start : start + DATA_PIECE])
        yield b"\n"
    yield _END


def _value(value: bytes | float) -> bytes:
    if isinstance(value, bytes):
        return value
    return b"%d" % value if value == int(value) else b"%.3f" % value


def _show_dead(peer: Peer, wanted: DeadFilter) -> ListPieces:
    """Dead jobs, those that died last first: handle, function, unique, end, attempts, outcome, error."""
    dead_jobs = DeadJobAdministration(peer.broker)
    cursor: DeadCursor | None = None
    is_begun = False
    while True:
        asked: Deferred[DeadPage | Refused] = Deferred()
        dead_jobs.page(wanted, cursor, DEAD_PAGE, False, asked.callback)
        yield asked
        page = cast(DeadPage | Refused, asked.result)
        if isinstance(page, Refused):
            yield refusal_line(page)
            if is_begun:
                # The reader looks for the end of the list, and must not take this for whole.
                peer.close()
            return
        for dead in page.jobs:
            is_begun = True
            yield _dead_line(dead)
        if page.next is None:
            break
        cursor = page.next
    yield _END


def _dead_line(dead: DeadJob) -> bytes:
    names = b"%b\t%b\t%b" % (escape(dead.handle), escape(dead.function), escape(dead.unique))
    first_line = escape(dead.error.split(b"\n", 1)[0][:MAX_ERROR_LINE])
    outcome = OUTCOME_NAMES[dead.outcome].encode()
    return b"%b\t%d\t%d\t%b\t%b\n" % (names, dead.ended, dead.attempts, outcome, first_line)


def _done_line(refusal: Refused | None) -> bytes:
    """The answer to a verb on one job."""
    if refusal is None:
        return OK
    if isinstance(refusal, JobNotFound):
        return _UNKNOWN_JOB
    if isinstance(refusal, UniqueInUse):
        return b"ERR UNIQUE_IN_USE\r\n"
    return refusal_line(refusal)


def _retry(peer: Peer, words: list[bytes]) -> bytes:
    """``retry job HANDLE``, ``retry dead FUNCTION``."""
    dead_jobs = DeadJobAdministration(peer.broker)
    return _one_or_all(peer, words, dead_jobs.retry, dead_jobs.retry_some)


def _forget(peer: Peer, words: list[bytes]) -> bytes:
    """``forget job HANDLE``, ``forget dead FUNCTION``."""
    dead_jobs = DeadJobAdministration(peer.broker)
    return _one_or_all(peer, words, dead_jobs.forget, dead_jobs.forget_some)


def _one_or_all(peer: Peer, words: list[bytes], one: OneDead, some: SomeDead) -> bytes:
    """Call a verb for the job, or for all dead jobs of the function, that the last word names."""
    kind, name = words[1].lower(), unescape(words[2])
    if kind == b"job":
        peer.reply_later(partial(one, name), _done_line)
    elif kind == b"dead":
        peer.reply_later(partial(_do_with_dead, peer, DeadFilter(name), some), lambda answer: answer)
    else:
        raise _incomplete(words)
    return b""


def _do_with_dead(peer: Peer, wanted: DeadFilter, verb: SomeDead, tell: Callable[[bytes], None]) -> None:
    """Call a verb for all dead jobs of a function, a page in each turn of the reactor."""
    done = skipped = 0

    def progressed(progress: Progress | Refused) -> None:
        nonlocal done, skipped
        if isinstance(progress, Refused):
            tell(refusal_line(progress))
            return
        done += progress.done
        skipped += progress.skipped
        if progress.next is None:
            tell(b"OK %d skipped %d\r\n" % (done, skipped) if skipped else b"OK %d\r\n" % done)
        else:
            peer.server.reactor.callLater(0, verb, wanted, progress.next, DEAD_PAGE, progressed)

    verb(wanted, None, DEAD_PAGE, progressed)


def _kill(peer: Peer, words: list[bytes]) -> bytes:
    """``kill job HANDLE``: a job that waits for its retry is dead."""
    if words[1].lower() != b"job":
        raise _incomplete(words)
    try:
        DeadJobAdministration(peer.broker).kill(unescape(words[2]))
    except JobNotFound:
        raise _Denied("UNKNOWN_JOB") from None
    return OK


def _workers(peer: Peer, _words: list[bytes]) -> Iterator[bytes]:
    """All connections. The first column is gearmand's file descriptor; here it counts connections."""
    for connection in list(peer.server.connections.values()):
        if connection.number not in peer.server.connections:
            # Gone since the list began.
            continue
        host, client_id = escape_word(connection.host.encode()), escape_word(connection.client_id)
        functions = reversed(list(connection.worker.abilities))
        piece = [b"%d %b %b :" % (connection.number, host, client_id)]
        while some := list(islice(functions, FUNCTIONS_OF_A_PIECE)):
            piece += [b" " + escape_word(function.name) for function in some]
            if len(some) == FUNCTIONS_OF_A_PIECE:
                yield b"".join(piece)
                piece = []
        piece.append(b"\n")
        yield b"".join(piece)
    yield _END


_SILENTLY_UNKNOWN: Final = frozenset({b"show", b"cancel"})
"""Commands that gearmand calls unknown, and not incomplete, when words are missing."""


class _Command(NamedTuple):
    """How many words a command needs, itself among them, and how many it takes, None where all further ones
    are ignored, as gearmand does; and what answers it."""

    least: int
    most: int | None
    answer: Answer


def _of_schedules(answer: Answer) -> Answer:
    """A command that there is for schedules alone."""

    def answer_schedule(peer: Peer, words: list[bytes]) -> bytes | ListPieces:
        if words[1].lower() != b"schedule":
            raise _incomplete(words)
        return answer(peer, words)

    return answer_schedule


_OF_SCHEDULES: Final[dict[bytes, _Command]] = {
    b"create": _Command(4, 4, create_schedule),
    b"drop": _Command(3, 3, drop_schedule),
}
"""Commands for functions that are something else for schedules, and need another right."""

_ANSWERS: Final[dict[bytes, _Command]] = {
    b"version": _Command(1, None, _version),
    b"verbose": _Command(1, None, _verbose),
    b"getpid": _Command(1, None, _getpid),
    b"shutdown": _Command(1, None, _shutdown),
    b"status": _Command(1, None, _status),
    b"prioritystatus": _Command(1, None, _prioritystatus),
    b"workers": _Command(1, None, _workers),
    b"show": _Command(2, None, _show),
    b"cancel": _Command(3, 4, _cancel),
    b"retry": _Command(3, 3, _retry),
    b"forget": _Command(3, 3, _forget),
    b"kill": _Command(3, 3, _kill),
    b"create": _Command(3, 3, _create),
    b"drop": _Command(3, 3, _drop),
    b"maxqueue": _Command(2, 5, _maxqueue),
    b"maxrate": _Command(2, 4, _maxrate),
    b"limit": _Command(2, 4, _limit_runs),
    b"pause": _Command(3, 3, _of_schedules(pause_schedule)),
    b"resume": _Command(3, 3, _of_schedules(resume_schedule)),
    b"run": _Command(3, 3, _of_schedules(run_schedule)),
}
