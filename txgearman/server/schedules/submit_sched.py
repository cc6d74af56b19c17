"""SUBMIT_JOB_SCHED: what the fields of the packet mean, and what becomes of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred

from txgearman.errors import InvalidArgument, Refused, SchedulesUnsaved
from txgearman.server.config.schedule_options import Weekdays, schedule_of
from txgearman.server.schedules.replies import when_done
from txgearman.wire.codec import encode, frame
from txgearman.wire.packets import ERROR, JOB_CREATED, RESPONSE

if TYPE_CHECKING:
    from txgearman.broker.schedule import Schedule
    from txgearman.server.interfaces import Peer


FIELDS: Final = ("minute", "hour", "day", "month", "weekday")
"""The fields that say when, as the protocol document calls them."""

NAME_PREFIX: Final = "submitted:"
"""What the names of schedules begin with that came by SUBMIT_JOB_SCHED. It has none; a digest follows."""

_DIGEST_LETTERS: Final = 32
_FIELD: Final = re.compile(rb"[0-9A-Za-z*,/-]{1,64}")
_PART: Final = re.compile(r"(\*|[0-9]+(?:-[0-9]+)?)(/[0-9]+)?")


def schedule_of_packet(
    function: bytes, unique: bytes, times: Sequence[bytes], data: bytes, weekdays: Weekdays
) -> Schedule:
    """Make the schedule of a packet.

    Args:
        function: The function that its jobs run.
        unique: The unique of its jobs; empty for that of its own.
        times: The five fields that say when.
        data: The payload of its jobs.
        weekdays: What numbers of days of the week mean.

    Returns:
        The schedule.

    Raises:
        InvalidArgument: It cannot be one. The text names the field.
    """
    fields = [_field(name, value) for name, value in zip(FIELDS, times, strict=True)]
    if weekdays is Weekdays.MONDAY_0:
        fields[-1] = _from_monday(fields[-1])
    # Without a unique it is told from others by all that it is.
    identity = [function, unique] if unique else [function, unique, *times, data]
    digest = sha256(b"\0".join(identity)).hexdigest()[:_DIGEST_LETTERS]
    try:
        definition = {
            "function": function.decode(),
            "cron": " ".join(fields),
            "unique": unique.decode() if unique else None,
        }
    except UnicodeDecodeError:
        raise InvalidArgument("The function and the unique of a schedule must be UTF-8") from None
    try:
        return schedule_of(f"{NAME_PREFIX}{digest}", definition, data)
    except ValueError as error:
        raise InvalidArgument(f"The schedule cannot be: {error}") from None


def _field(name: str, value: bytes) -> str:
    """A field as cron has it."""
    if not value:
        return "*"
    if not _FIELD.fullmatch(value):
        raise InvalidArgument(f"The {name} is empty, * or what cron has there, of at most 64 letters")
    return value.decode("ascii")


def _from_monday(field: str) -> str:
    """A field of days of the week with numbers from Monday as cron writes it. Names stay."""
    return ",".join(map(_part_from_monday, field.split(",")))


def _part_from_monday(part: str) -> str:
    found = _PART.fullmatch(part)
    if found is None or part == "*":
        return part
    days, step = found[1], found[2] or ""
    first, _, last = ("0-6" if days == "*" else days).partition("-")
    if int(first) > 6 or (last and int(last) > 6):
        raise InvalidArgument("The weekday is a number from 0, Monday, to 6, Sunday, or a name")
    if step and not last:
        last = "6"
    return f"{int(first) + 1}" + (f"-{int(last) + 1}" if last else "") + step


def submit_schedule(peer: Peer, schedule: Schedule) -> None:
    """Add a schedule that came by a packet, and answer with its handle when it is durable.

    Args:
        peer: Who sent it.
        schedule: The schedule.
    """

    # It may have gone when this is durable.
    actor = peer.actor

    def put() -> Deferred[bytes]:
        return peer.server.scheduling.put_with_handle(schedule).addCallback(noted)

    def noted(handle: bytes) -> bytes:
        when = schedule.recurrence.text
        peer.server.activity.acted(actor, "packet", "create schedule", schedule.name, when)
        return handle

    peer.reply_later(when_done(put), _answer)


def _answer(answer: bytes | Refused) -> bytes:
    if not isinstance(answer, Refused):
        return encode(RESPONSE, JOB_CREATED, (answer,))
    # As with gearmand, which knows no schedules either.
    code = b"INVALID_COMMAND" if isinstance(answer, SchedulesUnsaved) else answer.code
    return frame(RESPONSE, ERROR, code + b"\0" + answer.text.encode())
