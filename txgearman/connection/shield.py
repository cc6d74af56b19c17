"""Keeping what several callers wait for from being cancelled by one of them. No I/O."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred


def shield(deferred: Deferred[Any]) -> Deferred[None]:
    """A Deferred for one of several callers; cancelling it cancels nothing else, as with `asyncio.shield`.

    Args:
        deferred: What the callers wait for. It must not fail.

    Returns:
        A new Deferred that fires after `deferred`.
    """
    waiter: Deferred[None] = Deferred()
    # A cancelled Deferred ignores the one call that still comes.
    deferred.addCallback(lambda _: waiter.callback(None))
    return waiter
