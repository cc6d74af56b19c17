"""Answers to what a peer asks of the schedules, which wait until it is durable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txgearman.errors import Refused


def when_done(verb: Callable[[], Deferred[Any]]) -> Callable[[Callable[[Any], None]], None]:
    """Wait for a verb of `Scheduling`.

    Args:
        verb: The verb.

    Returns:
        What `Peer.reply_later` takes: it calls the verb, and tells what that returns, or why it is refused.
    """

    def ask(tell: Callable[[Any], None]) -> None:
        def refused(failure: Failure) -> None:
            if not isinstance(failure.value, Refused):
                failure.raiseException()
            tell(failure.value)

        verb().addCallbacks(tell, refused)

    return ask
