"""Waiting for what goes on whether anybody waits or not. No I/O."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred


def also(deferred: Deferred[Any]) -> Deferred[None]:
    """A Deferred that fires when `deferred` does, which must not fail. To cancel it ends only itself."""
    waiter: Deferred[None] = Deferred()
    # One that was cancelled ignores the one call that still comes.
    deferred.addCallback(lambda _: waiter.callback(None))
    return waiter
