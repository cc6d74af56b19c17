"""What each job system gives to the comparison: calls of its client. The loops are client.py's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final

EACH: Final = "each"
BULK: Final = "bulk"
CALL: Final = "call"
"""Roles of a client: enqueue one job after the other, or many by one call; or submit one job after the other
and wait for each result."""

RESULT_TIMEOUT: Final = 60
"""Seconds that a client waits for a result."""


@dataclass(frozen=True, slots=True)
class Calls:
    """A client whose calls block.

    `enqueue` takes the payload of a no-op job, `enqueue_many` those of many, where the library has a call for
    that. `call` submits a job and returns its result, which is its payload.
    """

    enqueue: Callable[[str], object]
    call: Callable[[str], object]
    enqueue_many: Callable[[list[str]], object] | None = None


@dataclass(frozen=True, slots=True)
class AwaitedCalls:
    """The same for a client whose calls are awaited."""

    enqueue: Callable[[str], Awaitable[object]]
    call: Callable[[str], Awaitable[object]]
    enqueue_many: Callable[[list[str]], Awaitable[object]] | None = None


@dataclass(frozen=True, slots=True)
class AwaitedClient:
    """A client whose calls are awaited: how it connects, and what runs the coroutine that uses it.

    `connect` is given what `run` gives to its function: the reactor in Twisted, None in asyncio.
    """

    connect: Callable[[Any], AbstractAsyncContextManager[AwaitedCalls]]
    run: Callable[[Callable[[Any], Coroutine[Any, Any, None]]], None]
