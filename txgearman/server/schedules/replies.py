"""Replies to what a peer asks of the schedules, which wait until it is durable."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from twisted.python.failure import Failure

from txgearman.errors import Refused

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from txgearman.server.interfaces import Peer

_T = TypeVar("_T")


def reply_when_done(
    peer: Peer, verb: Callable[[], Deferred[_T]], reply: Callable[[_T | Refused], bytes]
) -> None:
    """Call a verb of `Scheduling`, and reply when it is done or refused.

    Args:
        peer: Who asked.
        verb: Called at once.
        reply: Makes the bytes of the reply.
    """

    def ask(tell: Callable[[_T | Refused], None]) -> None:
        def refused(failure: Failure) -> None:
            if not isinstance(failure.value, Refused):
                failure.raiseException()
            tell(failure.value)

        verb().addCallbacks(tell, refused)

    peer.reply_later(ask, reply)
