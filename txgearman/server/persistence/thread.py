"""The one thread that calls the store, which blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

InThread = Callable[..., Deferred[Any]]
"""Calls a function with arguments in the store's thread, in the order of these calls."""

_log = Logger()


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
