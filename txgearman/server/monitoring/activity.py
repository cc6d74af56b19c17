"""What people have done with the server, and what it did by itself: the log of actions, and the last of them.

Every action that changes something is one line of the log, whichever way it came. Jobs that are submitted and
run are no actions: `Traffic`, meters and traces tell of these.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from twisted.logger import Logger

from txgearman.access.actor import Actor
from txgearman.access.patterns import shown

MAX_EVENTS: Final = 1000
"""Events that are remembered."""

MAX_BYTES: Final = 512 * 1024
"""Bytes that the remembered events count for. With ordinary names a thousand are half of this."""

MAX_TARGET: Final = 512
"""Bytes of a target that are remembered: the longest name of a function."""

MAX_DETAIL: Final = 256
"""Characters of a detail that are remembered."""

EVENT_WEIGHT: Final = 200
"""Bytes that an event counts for beside its texts."""

_log = Logger()


@dataclass(frozen=True, slots=True)
class Event:
    """Something that was done.

    Args:
        number: Counts the events since the server's start, from 1.
        time: When, in seconds since the epoch.
        actor: Who did it; None for the server itself.
        via: Which way it came: ``http``, ``admin`` for an admin line, ``packet``; empty for the server's own.
        action: What was done, such as ``cancel job``.
        target: What it was done to: a handle, or the name of a function or schedule. May be empty.
        detail: More about it, such as the new limit. May be empty.
        jobs: How many jobs it changed; None where it was not about jobs.
    """

    number: int
    time: float
    actor: Actor | None
    via: str
    action: str
    target: bytes
    detail: str
    jobs: int | None

    @property
    def weight(self) -> int:
        """Bytes that it counts for in the limit."""
        size = EVENT_WEIGHT + len(self.target) + len(self.detail) + len(self.action)
        if self.actor is not None:
            names = (self.actor.address, self.actor.client_id, self.actor.certificate, *self.actor.rules)
            size += sum(map(len, names))
        return size


class Activity:
    """Logs actions, and remembers the last `MAX_EVENTS` of them and of the server's own deeds.

    Args:
        wall_clock: Gives seconds since the epoch.
    """

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        self._wall_clock = wall_clock
        self._events: deque[Event] = deque()
        self._size = 0
        self.last_number = 0

    def __len__(self) -> int:
        return len(self._events)

    def newest_first(self) -> Iterator[Event]:
        """Walk the events that are remembered.

        Returns:
            The events. Nothing may be added while they are walked.
        """
        return reversed(self._events)

    def acted(
        self,
        actor: Actor,
        via: str,
        action: str,
        target: bytes = b"",
        detail: str = "",
        jobs: int | None = None,
    ) -> None:
        """Somebody has changed something. It is logged and remembered.

        Args:
            actor: Who.
            via: Which way it came, see `Event`.
            action: What was done.
            target: What it was done to.
            detail: More about it.
            jobs: How many jobs it changed; None where it was not about jobs.
        """
        # Not every format has all of these; JSON has them all.
        fields: dict[str, Any] = {
            "action": action,
            "target": shown(target),
            "detail": shown(detail.encode("utf-8", "backslashreplace")),
            "jobs": jobs,
            "via": via,
            "address": actor.address,
            "client_id": actor.client_id,
            "certificate": actor.certificate,
            "user": actor.user,
            "rules": ", ".join(actor.rules),
            "web_token": actor.web_token,
        }
        _log.info(_line_format(fields), **fields)
        self._remember(actor, via, action, target, detail, jobs)

    def happened(self, action: str, detail: str = "", target: bytes = b"", jobs: int | None = None) -> None:
        """The server has done something by itself. It is remembered; the log is written where it happened.

        Args:
            action: What was done.
            detail: More about it.
            target: What it was done to.
            jobs: How many jobs it changed; None where it was not about jobs.
        """
        self._remember(None, "", action, target, detail, jobs)

    def _remember(
        self, actor: Actor | None, via: str, action: str, target: bytes, detail: str, jobs: int | None
    ) -> None:
        self.last_number += 1
        event = Event(
            self.last_number,
            self._wall_clock(),
            actor,
            via,
            action,
            target[:MAX_TARGET],
            detail[:MAX_DETAIL],
            jobs,
        )
        self._events.append(event)
        self._size += event.weight
        while len(self._events) > MAX_EVENTS or self._size > MAX_BYTES:
            self._size -= self._events.popleft().weight


_PARTS: Final = (
    ("client_id", " ({client_id})"),
    ("certificate", " with a certificate for {certificate}"),
    ("user", " of the user {user}"),
    ("rules", ", by the rules {rules}"),
    ("web_token", ", with the web token"),
)
"""What a line says of the actor where it is known."""


def _line_format(fields: dict[str, Any]) -> str:
    """The format of a line, with those fields that say something."""
    who = "".join([text for name, text in _PARTS if fields[name] not in ("", None, False)])
    on = " {target}" if fields["target"] else ""
    how = " ({detail})" if fields["detail"] else ""
    count = "" if fields["jobs"] is None else "; jobs changed: {jobs}"
    return "Action over {via} by {address}" + who + ": {action}" + on + how + count
