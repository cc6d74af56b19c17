"""The admin commands about jobs."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from twisted.internet.defer import Deferred

from txgearman.access.policy import Right
from txgearman.broker.inspection import Inspection
from txgearman.broker.job_lookup import JobLookup
from txgearman.broker.job_options import NO_OPTIONS
from txgearman.broker.job_states import Priority
from txgearman.broker.stored_job_search import StoredJobSearch
from txgearman.broker.views import JobDetail
from txgearman.errors import JobNotFound, Refused
from txgearman.server.admin.answers import (
    END,
    OK,
    UNKNOWN_JOB,
    Changed,
    Denied,
    Later,
    check_right,
    refusal_line,
)
from txgearman.server.admin.schedules import remove_schedule
from txgearman.server.interfaces import Held, ListPieces
from txgearman.wire.names import escape

if TYPE_CHECKING:
    from txgearman.server.interfaces import Peer

DATA_PIECE: Final = 24 * 1024
"""Bytes of a payload that become base64 at a time, in one turn. A multiple of three: the pieces join without
padding."""


def show_jobs(peer: Peer) -> Iterator[bytes]:
    """``show jobs``: handle, lost workers, 0, whether it is a background job."""
    # The third column, "ignore", is for gearmand's jobs that are cancelled and still there.
    for view in Inspection(peer.broker).jobs():
        yield b"%b\t%d\t0\t%d\n" % (view.handle, view.losses, view.background)
    yield END


def show_unique_jobs(peer: Peer) -> Iterator[bytes]:
    """``show unique jobs``: the unique of each job."""
    for view in Inspection(peer.broker).jobs():
        yield b"%b\n" % escape(view.unique)
    yield END


def cancel_job(peer: Peer, words: list[bytes]) -> Changed | Later:
    """``cancel job HANDLE``, ``cancel job HANDLE force``."""
    force = len(words) == 4
    # gearmand says this of words too many, too.
    if words[1].lower() != b"job" or (force and words[3].lower() != b"force"):
        raise Denied("UNKNOWN_ERROR")
    try:
        peer.broker.cancel(words[2], force)
    except Refused:
        schedule = peer.server.scheduling.named(words[2])
        if schedule is not None:
            if peer.access is not None:
                check_right(peer, b"cancel schedule", Right.SCHEDULE)
            return remove_schedule(peer, schedule)
        if not Inspection(peer.broker).may_have_stored_jobs:
            raise Denied("UNKNOWN_JOB") from None
        return Later(
            partial(StoredJobSearch(peer.broker).seek_and_cancel, words[2], force=force),
            lambda refusal: Changed(OK, 1) if refusal is None else UNKNOWN_JOB,
        )
    return Changed(OK, 1)


def show_job(peer: Peer, handle: bytes) -> ListPieces:
    """``show job HANDLE``: what is known of it, as lines of name, TAB, value. Data and errors are base64."""
    asked: Deferred[JobDetail | Refused] = Deferred()
    JobLookup(peer.broker).find(handle, asked.callback)
    yield asked
    job = cast(JobDetail | Refused, asked.result)
    if isinstance(job, JobDetail):
        yield from _job_lines(job)
    elif isinstance(job, JobNotFound):
        yield UNKNOWN_JOB
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
        "run_at": job.run_at,
    }
    options = NO_OPTIONS if job.options is None else job.options
    for name in ("expires", "backoff", "keep_result", "unique_for"):
        values[name] = getattr(options, name)
    # `attempts` counts the runs that failed.
    values["max_attempts"] = options.attempts
    values["traceparent"] = None if options.traceparent is None else options.traceparent.encode()
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
    yield END


def _value(value: bytes | float) -> bytes:
    if isinstance(value, bytes):
        return value
    return b"%d" % value if value == int(value) else b"%.3f" % value
