"""The admin commands about schedules. Which words they take and which right they need is in `commands`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred

from txgearman.access.patterns import quoted
from txgearman.broker.schedule import ScheduleDetail
from txgearman.errors import AccessDenied, InvalidArgument, Refused
from txgearman.server.admin.answers import END, OK, Changed, Later, refusal_line
from txgearman.server.schedules.replies import when_done
from txgearman.wire.names import escape, unescape

if TYPE_CHECKING:
    from txgearman.server.interfaces import Peer

_NEVER: Final = b"-"


def show_schedules(peer: Peer) -> Iterator[bytes]:
    """``show schedules``: each schedule, with name, function, when, time zone, state, when it is due next,
    its last tick, and how many ticks had a job, were skipped, missed, refused."""
    for detail in peer.server.scheduling.schedules:
        yield _line(detail)
    yield END


def _line(detail: ScheduleDetail) -> bytes:
    schedule = detail.schedule
    names = (schedule.name, schedule.function, schedule.recurrence.text.encode(), schedule.timezone.encode())
    counts = (detail.ticks, detail.skipped, detail.missed, detail.refused)
    return (
        b"\t".join(
            [
                *map(escape, names),
                detail.state.encode(),
                _time(detail.next_due),
                _time(detail.last_tick),
                *[b"%d" % count for count in counts],
            ]
        )
        + b"\n"
    )


def _time(seconds: float | None) -> bytes:
    if seconds is None:
        return _NEVER
    return b"%d" % seconds if seconds == int(seconds) else b"%.3f" % seconds


def create_schedule(peer: Peer, words: list[bytes]) -> Later:
    """``create schedule NAME DEFINITION``: the definition is JSON, written as one word."""
    try:
        members = json.loads(unescape(words[3]))
        if not isinstance(members, dict):
            raise ValueError("the definition of a schedule is a JSON object")
        schedule = peer.server.scheduling.read(unescape(words[2]), members)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(str(error)) from None
    if peer.access is not None and not peer.rights.may_submit[schedule.function]:
        what = f"submit jobs of {quoted(schedule.function)}"
        peer.note_denied(what)
        raise AccessDenied(f"You may not {what}")
    return _when_done(lambda: peer.server.scheduling.put(schedule))


def drop_schedule(peer: Peer, words: list[bytes]) -> Later:
    """``drop schedule NAME``."""
    return remove_schedule(peer, unescape(words[2]))


def remove_schedule(peer: Peer, name: bytes) -> Later:
    """Remove a schedule, and answer when that is done."""
    return _when_done(lambda: peer.server.scheduling.remove(name))


def pause_schedule(peer: Peer, words: list[bytes]) -> Later:
    """``pause schedule NAME``."""
    return _when_done(lambda: peer.server.scheduling.pause(unescape(words[2])))


def resume_schedule(peer: Peer, words: list[bytes]) -> Later:
    """``resume schedule NAME``."""
    return _when_done(lambda: peer.server.scheduling.pause(unescape(words[2]), False))


def run_schedule(peer: Peer, words: list[bytes]) -> Later:
    """``run schedule NAME``: the answer has the handle of the job."""
    return _when_done(lambda: peer.server.scheduling.run(unescape(words[2])))


def _when_done(verb: Callable[[], Deferred[Any]]) -> Later:
    """Answer when a verb is done: ``OK``, with what it returns after that."""
    return Later(when_done(verb), _answer)


def _answer(answer: bytes | Refused | None) -> bytes | Changed:
    if isinstance(answer, Refused):
        return refusal_line(answer)
    # A handle is that of the job that was submitted.
    return OK if answer is None else Changed(b"OK %b\r\n" % answer, 1)
