"""The admin commands about dead jobs, and about those that are to die."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from twisted.internet.defer import Deferred

from txgearman.broker.dead_job import DeadCursor, DeadFilter, DeadJob, DeadPage
from txgearman.broker.dead_job_administration import DeadJobAdministration, Progress
from txgearman.broker.job_states import OUTCOME_NAMES
from txgearman.errors import JobNotFound, Refused, UniqueInUse
from txgearman.server.admin.answers import (
    END,
    OK,
    UNKNOWN_JOB,
    Changed,
    Denied,
    Later,
    incomplete,
    refusal_line,
)
from txgearman.server.interfaces import ListPieces
from txgearman.wire.names import escape, unescape

if TYPE_CHECKING:
    from txgearman.server.interfaces import Peer

DEAD_PAGE: Final = 200
"""Dead jobs that are read, retried or forgotten in one go."""

MAX_ERROR_LINE: Final = 200
"""Bytes of the first line of an error in a list."""

SomeDead = Callable[[DeadFilter, "DeadCursor | None", int, Callable[["Progress | Refused"], None]], None]
"""A verb on some dead jobs: which, after which cursor, how many at most, and who is told."""

OneDead = Callable[[bytes, Callable[["Refused | None"], None]], None]
"""A verb on the dead job with a handle, and who is told."""


def show_dead(peer: Peer, wanted: DeadFilter) -> ListPieces:
    """``show dead``: dead jobs, those that died last first, with handle, function, unique, end, attempts,
    outcome, error."""
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
    yield END


def _dead_line(dead: DeadJob) -> bytes:
    names = b"%b\t%b\t%b" % (escape(dead.handle), escape(dead.function), escape(dead.unique))
    first_line = escape(dead.error.split(b"\n", 1)[0][:MAX_ERROR_LINE])
    outcome = OUTCOME_NAMES[dead.outcome].encode()
    return b"%b\t%d\t%d\t%b\t%b\n" % (names, dead.ended, dead.attempts, outcome, first_line)


def _done_line(refusal: Refused | None) -> bytes | Changed:
    """The answer to a verb on one job."""
    if refusal is None:
        return Changed(OK, 1)
    if isinstance(refusal, JobNotFound):
        return UNKNOWN_JOB
    if isinstance(refusal, UniqueInUse):
        return b"ERR UNIQUE_IN_USE\r\n"
    return refusal_line(refusal)


def retry_jobs(peer: Peer, words: list[bytes]) -> Later:
    """``retry job HANDLE``, ``retry dead FUNCTION``."""
    dead_jobs = DeadJobAdministration(peer.broker)
    return _one_or_all(peer, words, dead_jobs.retry, dead_jobs.retry_some)


def forget_jobs(peer: Peer, words: list[bytes]) -> Later:
    """``forget job HANDLE``, ``forget dead FUNCTION``."""
    dead_jobs = DeadJobAdministration(peer.broker)
    return _one_or_all(peer, words, dead_jobs.forget, dead_jobs.forget_some)


def _one_or_all(peer: Peer, words: list[bytes], one: OneDead, some: SomeDead) -> Later:
    """Call a verb for the job, or for all dead jobs of the function, that the last word names."""
    kind, name = words[1].lower(), unescape(words[2])
    if kind == b"job":
        return Later(partial(one, name), _done_line)
    if kind == b"dead":
        return Later(partial(_do_with_dead, peer, DeadFilter(name), some), lambda answer: answer)
    raise incomplete(words)


def _do_with_dead(
    peer: Peer, wanted: DeadFilter, verb: SomeDead, tell: Callable[[bytes | Changed], None]
) -> None:
    """Call a verb for all dead jobs of a function, a page in each turn of the reactor."""
    done = skipped = 0

    def progressed(progress: Progress | Refused) -> None:
        nonlocal done, skipped
        if isinstance(progress, Refused):
            line = refusal_line(progress)
            tell(Changed(line, done) if done else line)
            return
        done += progress.done
        skipped += progress.skipped
        if progress.next is None:
            line = b"OK %d skipped %d\r\n" % (done, skipped) if skipped else b"OK %d\r\n" % done
            tell(Changed(line, done))
        else:
            peer.server.reactor.callLater(0, verb, wanted, progress.next, DEAD_PAGE, progressed)

    verb(wanted, None, DEAD_PAGE, progressed)


def kill_job(peer: Peer, words: list[bytes]) -> Changed:
    """``kill job HANDLE``: a job that waits for its retry is dead."""
    if words[1].lower() != b"job":
        raise incomplete(words)
    try:
        DeadJobAdministration(peer.broker).kill(unescape(words[2]))
    except JobNotFound:
        raise Denied("UNKNOWN_JOB") from None
    return Changed(OK, 1)
