"""Running blocking functions in threads, and sending what their jobs send in the reactor's thread.

A thread cannot be ended. One that outlives its job holds the job's slot until the function returns.
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

from txgearman.worker.job import Job, JobWriter
from txgearman.worker.prefetch import ConcurrencyLimit

THREAD_BUDGET_BYTES: Final = 64 * 1024
"""Send budget of a thread: bytes that it sends before it waits for the connection to take more. A connection
buffers as many itself."""


class Threads:
    """A pool of threads, which are made when they are needed between `start` and `stop`.

    Args:
        reactor: Runs what must run in its own thread.
        size: The most threads at a time.

    Attributes:
        size: The most threads at a time.
        limit: Counts the jobs in them.
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
        """A callable that runs `callback` with a job in a thread."""
        return lambda job: self._run(callback, job)

    def start(self) -> None:
        """Begin to take jobs."""
        self._pool = _DaemonThreadPool(minthreads=0, maxthreads=self.size, name="txgearman-worker")
        self._pool.start()

    def stop(self) -> Deferred[None]:
        """Take no more jobs.

        Returns:
            A Deferred that fires when the threads have ended; at once if some still run a job, which are left
            alone.
        """
        pool, self._pool = self._pool, None
        if pool is None:
            return succeed(None)
        stopped: Deferred[None] = Deferred()

        def join() -> None:
            pool.stop()
            self._reactor.callFromThread(stopped.callback, None)

        # Stopping the pool blocks until its threads have ended.
        threading.Thread(target=join, name="txgearman-worker-stop", daemon=True).start()
        return succeed(None) if self._busy else stopped

    def _run(self, callback: Callable[[Job], object], job: Job) -> Deferred[object]:
        assert self._pool is not None
        assert job._writer is not None
        outcome: Deferred[object] = Deferred()
        connection_writer = job._writer
        job._writer = ThreadWriter(self._reactor, connection_writer, job)
        ended: Deferred[None] = Deferred()
        job._slot_held_until = ended

        def end(_success: bool, result: object) -> None:
            self._reactor.callFromThread(returned, result)

        def returned(result: object) -> None:
            self._busy -= 1
            if job._writer is not None:
                job._writer = connection_writer
            if not outcome.called:
                job._slot_held_until = None
                if isinstance(result, Failure):
                    outcome.errback(result)
                else:
                    outcome.callback(result)
            ended.callback(None)

        self._busy += 1
        self._pool.callInThreadWithCallback(end, callback, job)
        return outcome


class ThreadWriter:
    """Sends what a function sends from its thread, over the connection's own `writer`."""

    def __init__(self, reactor: Any, writer: JobWriter, job: Job) -> None:
        self.codec = writer.codec
        self.max_packet = writer.max_packet
        self._reactor = reactor
        self._writer = writer
        self._job = job
        self._unflushed = 0

    def write(self, data: bytes) -> None:
        self._reactor.callFromThread(self._write, data)
        self._unflushed += len(data)
        # A function that sends in the reactor's thread after all must not block it.
        if self._unflushed >= THREAD_BUDGET_BYTES and not isInIOThread():
            self._unflushed = 0
            blockingCallFromThread(
                self._reactor, cast("Callable[[], Deferred[Any]]", self._connection_writable)
            )

    def writable(self) -> Deferred[None]:
        return succeed(None)

    def _connection_writable(self) -> Deferred[None]:
        return succeed(None) if self._job.over else self._writer.writable()

    def _write(self, data: bytes) -> None:
        # The job may have ended on the way.
        if not self._job.over:
            self._writer.write(data)


class _DaemonThreadPool(ThreadPool):
    """A pool whose threads do not hold up the end of the process."""

    def threadFactory(self, *arguments: Any, **options: Any) -> threading.Thread:  # type: ignore[override]
        return threading.Thread(*arguments, daemon=True, **options)
