"""Running blocking functions in threads, and what their jobs send on its way to the reactor.

A thread cannot be ended: one that outlives its job keeps its slot until the function returns.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import blockingCallFromThread
from twisted.python.failure import Failure
from twisted.python.threadable import isInIOThread
from twisted.python.threadpool import ThreadPool

from txgearman.worker.job import Job, Outlet
from txgearman.worker.prefetch import ConcurrencyLimit

AHEAD_BYTES: Final = 64 * 1024
"""Bytes that a thread sends before it looks whether the connection takes more: what that itself keeps."""


class Threads:
    """A pool of at most `size` threads. They are made when they are needed, between `start` and `stop`.

    `reactor` is what runs things in the reactor's thread. `limit` counts the jobs in them.
    """

    def __init__(self, reactor: Any, size: int) -> None:
        if not IReactorFromThreads.providedBy(reactor):
            raise TypeError(f"threads need a real reactor, not {reactor!r}")
        self.size = size
        self.limit = ConcurrencyLimit(size)
        self._reactor = reactor
        self._pool: ThreadPool | None = None
        self._busy = 0

    def runner(self, callback: Callable[[Job], object]) -> Callable[[Job], Deferred[object]]:
        """What runs `callback` with a job in a thread."""
        return lambda job: self._run(callback, job)

    def start(self) -> None:
        """Begin to take jobs."""
        self._pool = _DaemonThreadPool(minthreads=0, maxthreads=self.size, name="txgearman-worker")
        self._pool.start()

    def stop(self) -> Deferred[None]:
        """Take no more jobs. Fires when the threads have ended; those that still run a job are left alone."""
        pool, self._pool = self._pool, None
        if pool is None:
            return succeed(None)
        stopped: Deferred[None] = Deferred()

        def join() -> None:
            pool.stop()
            self._reactor.callFromThread(stopped.callback, None)

        # To stop the pool is to wait for its threads.
        threading.Thread(target=join, name="txgearman-worker-stop", daemon=True).start()
        return succeed(None) if self._busy else stopped

    def _run(self, callback: Callable[[Job], object], job: Job) -> Deferred[object]:
        assert self._pool is not None
        assert job._outlet is not None
        outcome: Deferred[object] = Deferred()
        direct = job._outlet
        job._outlet = FromThread(self._reactor, direct, job)
        ended: Deferred[None] = Deferred()
        job._lingers = ended

        def end(_success: bool, result: object) -> None:
            self._reactor.callFromThread(returned, result)

        def returned(result: object) -> None:
            self._busy -= 1
            if job._outlet is not None:
                job._outlet = direct
            if not outcome.called:
                job._lingers = None
                if isinstance(result, Failure):
                    outcome.errback(result)
                else:
                    outcome.callback(result)
            ended.callback(None)

        self._busy += 1
        self._pool.callInThreadWithCallback(end, callback, job)
        return outcome


class FromThread:
    """An outlet for a function in a thread, over that of the connection."""

    def __init__(self, reactor: Any, outlet: Outlet, job: Job) -> None:
        self.codec = outlet.codec
        self.max_packet = outlet.max_packet
        self._reactor = reactor
        self._outlet = outlet
        self._job = job
        self._ahead = 0

    def write(self, data: bytes) -> None:
        self._reactor.callFromThread(self._write, data)
        self._ahead += len(data)
        # A function that sends in the reactor's thread after all must not wait for that.
        if self._ahead >= AHEAD_BYTES and not isInIOThread():
            self._ahead = 0
            blockingCallFromThread(
                self._reactor, cast("Callable[[], Deferred[Any]]", self._connection_writable)
            )

    def writable(self) -> Deferred[None]:
        return succeed(None)

    def _connection_writable(self) -> Deferred[None]:
        return succeed(None) if self._job.over else self._outlet.writable()

    def _write(self, data: bytes) -> None:
        # It may have ended on the way.
        if not self._job.over:
            self._outlet.write(data)


class _DaemonThreadPool(ThreadPool):
    """A pool whose threads do not hold up the end of the process."""

    def threadFactory(self, *arguments: Any, **options: Any) -> threading.Thread:  # type: ignore[override]
        return threading.Thread(*arguments, daemon=True, **options)
