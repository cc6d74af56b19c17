"""The admin command ``jobs``: all that a list shows of each job, of those that are looked for.

``show jobs`` is gearmand's, and has no room for more.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from txgearman.broker.entities import Job
from txgearman.broker.inspection import Inspection
from txgearman.broker.job_states import PRIORITIES, JobState, Priority
from txgearman.broker.stored_job_search import StoredJobSearch
from txgearman.broker.views import JobDetail, JobPage
from txgearman.errors import FunctionNotFound, Refused
from txgearman.server.admin.answers import END, Denied, refusal_line
from txgearman.wire.names import escape, unescape

if TYPE_CHECKING:
    from txgearman.server.interfaces import ListPieces, Peer

PAGE: Final = 200
"""Jobs that are looked up in one go."""

STATES: Final = (
    *(state.value for state in JobState if state is not JobState.GONE),
    "stored",
)
"""The states that a job in this list may have."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which jobs are looked for. None is any.

    `submitted_before` is in seconds since the epoch.
    """

    function: bytes | None = None
    states: frozenset[str] | None = None
    unique: bytes | None = None
    submitted_before: float = math.inf

    def __call__(self, job: Job) -> bool:
        """Whether a job in memory is one."""
        return (
            (self.function is None or job.function.name == self.function)
            and (self.states is None or job.state.value in self.states)
            and (self.unique is None or job.unique == self.unique)
            and job.submitted < self.submitted_before
        )

    @property
    def may_be_stored(self) -> bool:
        """Whether jobs that only the store has may be some. Users take these for queued ones, too."""
        return self.states is None or not self.states.isdisjoint(("stored", JobState.QUEUED.value))

    def is_stored(self, job: JobDetail) -> bool:
        """Whether a job that the store has is one. What came into memory meanwhile is listed already, or was
        not there when the list began."""
        return (
            job.state is None
            and (self.unique is None or job.unique == self.unique)
            and job.submitted < self.submitted_before
        )


def list_jobs(peer: Peer, words: list[bytes]) -> ListPieces:
    """``jobs``, with any of ``function=NAME``, ``state=STATE,STATE``, ``unique=KEY``, ``older-than=SECONDS``.

    Jobs in memory come in the order of their submits; then, by function and priority, those that only the
    store has. Dead jobs are no part of it.
    """
    now = peer.broker.timer.wall_clock()
    return _list(peer, _parse(words[1:], now), now)


def _parse(words: list[bytes], now: float) -> _Wanted:
    """What the words look for. Raises `Denied`."""
    values: dict[bytes, bytes] = {}
    for word in words:
        name, equals, value = word.partition(b"=")
        if not equals or name.lower() in values:
            raise _wrong(f"not+a+filter+or+one+twice:+{name.decode('utf-8', 'replace')!a}")
        values[name.lower()] = unescape(value)
    function = values.pop(b"function", None)
    unique = values.pop(b"unique", None)
    states = values.pop(b"state", None)
    older_than = values.pop(b"older-than", None)
    if values:
        raise _wrong("filters+are+function,+state,+unique+and+older-than")
    return _Wanted(function, _parse_states(states), unique, _parse_time(older_than, now))


def _parse_states(value: bytes | None) -> frozenset[str] | None:
    if value is None:
        return None
    states = frozenset(value.decode("utf-8", "replace").lower().split(","))
    if not states <= set(STATES):
        raise _wrong(f"states+are+{',+'.join(STATES)}")
    return states


def _parse_time(older_than: bytes | None, now: float) -> float:
    if older_than is None:
        return math.inf
    try:
        seconds = float(older_than)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= 0):
        raise _wrong("older-than+is+a+number+of+seconds")
    return now - seconds


def _wrong(why: str) -> Denied:
    return Denied(f"INVALID_ARGUMENTS {why}")


def _list(peer: Peer, wanted: _Wanted, now: float) -> ListPieces:
    inspection = Inspection(peer.broker)
    cursor: int | None = 0
    while cursor is not None:
        page = inspection.job_page(cursor, PAGE, wanted)
        for job in page.jobs:
            yield _line(job, now)
        cursor = page.next
        if cursor is not None:
            # A page looks at some thousand jobs, and may have found none: others first.
            yield deferLater(peer.server.reactor, 0)
    if wanted.may_be_stored and inspection.may_have_stored_jobs:
        for name in _functions_with_stored_jobs(inspection, wanted):
            for priority in range(PRIORITIES):
                if not (yield from _stored(peer, wanted, name, priority, now)):
                    # The reader looks for the end of the list, and must not take this for whole.
                    peer.close()
                    return
    yield END


def _functions_with_stored_jobs(inspection: Inspection, wanted: _Wanted) -> list[bytes]:
    return [
        view.name
        for view in inspection.function_details()
        if view.stored and wanted.function in (None, view.name)
    ]


def _stored(
    peer: Peer, wanted: _Wanted, name: bytes, priority: int, now: float
) -> Generator[bytes | Deferred[Any], None, bool]:
    """The jobs of a function and priority that only the store has. Returns whether these are all."""
    search = StoredJobSearch(peer.broker)
    cursor: int | None = 0
    while cursor is not None:
        asked: Deferred[JobPage | Refused] = Deferred()
        try:
            search.seek_page(name, priority, cursor, PAGE, asked.callback)
        except FunctionNotFound:
            # It was dropped meanwhile.
            return True
        yield asked
        page = cast(JobPage | Refused, asked.result)
        if isinstance(page, Refused):
            yield refusal_line(page)
            return False
        for job in page.jobs:
            if wanted.is_stored(job):
                yield _line(job, now)
        cursor = page.next
    return True


def _line(job: JobDetail, now: float) -> bytes:
    names = b"%b\t%b\t%b" % (escape(job.handle), escape(job.function), escape(job.unique))
    kind = b"%b\t%b\t%d" % (
        job.shown_state.encode(),
        Priority(job.priority).name.lower().encode(),
        job.background,
    )
    counts = b"%d\t%d\t%.3f" % (job.attempts, job.losses, max(now - job.submitted, 0.0))
    size = b"-" if job.data is None else b"%d" % len(job.data)
    progress = b"%d\t%d" % job.progress
    return b"%b\t%b\t%b\t%b\t%b\t%b\n" % (names, kind, counts, size, progress, escape(job.label))
