"""The one thread that calls the store, which blocks, and asking the store through it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from txgearman.errors import LookupFailed, Refused

InThread = Callable[..., Deferred[Any]]
"""Calls a function with arguments in the store's thread, in the order of these calls."""

_log = Logger()


class EndWriter(Protocol):
    """What writes the ends of jobs that leave something behind, which takes a moment."""

    @property
    def outage(self) -> str | None:
        """Why the store cannot be used for now, or None."""

    def when_ends_are_written(self, go_on: Callable[[], None]) -> None:
        """Call `go_on` when all deaths and results so far are written, or cannot be."""


def one_thread(reactor: Any) -> tuple[InThread, Callable[[], object]]:
    """Start the thread; returns what calls a function in it, and what ends it."""
    pool = ThreadPool(minthreads=0, maxthreads=1, name="txgearman-store")
    pool.start()

    def in_thread(function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        return deferToThreadPool(reactor, pool, function, *arguments)

    return in_thread, pool.stop


def log_defect(failure: Failure) -> None:
    """The last errback of what handles an answer of the store."""
    _log.failure("Handling an answer of the store failed: this is a defect of the server", failure)


def ask_store(
    in_thread: InThread, tell: Callable[[Any], None], ask: Callable[..., object], *arguments: Any
) -> None:
    """Hand what a method of the store returns to `tell`, or the refusal that says why it does not."""

    def not_answered(failure: Failure) -> None:
        tell_failure(failure, tell)

    in_thread(ask, *arguments).addCallbacks(tell, not_answered).addErrback(log_defect)


def tell_failure(failure: Failure, tell: Callable[[Refused], None]) -> None:
    """Hand to `tell` why the store has not answered."""
    if isinstance(failure.value, Refused):
        tell(failure.value)
        return
    _log.warn("The store has not answered: {error}", error=failure.value)
    tell(LookupFailed())


def when_done(deferred: Deferred[None]) -> Deferred[None]:
    """Fires when `deferred` does, without taking its result away from others."""
    done: Deferred[None] = Deferred()

    def pass_on(result: Any) -> Any:
        done.callback(None)
        return result

    deferred.addBoth(pass_on)
    return done
