"""Running blocking functions in processes: a pool of child processes, and the parent's end of their
connections.

The pool is pebble's. If a job is cancelled pebble ends its process and starts another. What runs in the
processes is in `child`.
"""

from __future__ import annotations

import multiprocessing
import pickle
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorFromThreads, IReactorUNIX
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from txgearman.codecs import Codec, codec_from
from txgearman.errors import FailJob, ProcessDied, RaisedInProcess, Reject, Retry, TimeLimitExceeded
from txgearman.worker.child import (
    FAILED,
    FAILED_WITH,
    LENGTH_PREFIX,
    MESSAGE_HEADER,
    PACKET,
    RAISED,
    REJECTED,
    RESULT,
    RETRIED,
    RETRY_HEADER,
    STARTED,
    initialize,
    run_job,
    split_contents,
)
from txgearman.worker.functions import EXCEPTION_BYTES
from txgearman.worker.job import Job
from txgearman.worker.prefetch import ConcurrencyLimit

if TYPE_CHECKING:
    from pebble import ProcessPool

MAX_OUTCOME_OVERHEAD: Final = 4 * EXCEPTION_BYTES
"""Bytes that a message of a child may have beyond those of a packet. The text of an exception and its
traceback have fewer."""


class Processes:
    """A pool of processes, which run from `start` to `stop`.

    Args:
        reactor: Has UNIX sockets and threads.
        size: The number of processes.
        codec: The worker's codec.
        max_packet: The largest body of a packet in bytes.

    Attributes:
        size: The number of processes.
        limit: Counts the jobs in them.

    Raises:
        ImportError: pebble is not installed.
        TypeError: The reactor has no UNIX sockets or no threads.
    """

    def __init__(self, reactor: Any, size: int, codec: Codec, max_packet: int) -> None:
        try:
            import pebble  # noqa: F401
        except ImportError as error:
            raise ImportError(
                "to run functions in processes, install txgearman[processes], which is pebble"
            ) from error
        if not (IReactorUNIX.providedBy(reactor) and IReactorFromThreads.providedBy(reactor)):
            raise TypeError(f"processes need a real reactor with UNIX sockets, not {reactor!r}")
        self.size = size
        self.limit = ConcurrencyLimit(size)
        self._reactor = reactor
        self._codec = _portable_codec(codec)
        self._max_packet = max_packet
        self._numbers = count()
        self._jobs: dict[int, _ChildJob] = {}
        self._listener: _ChildListener | None = None
        self._pool: ProcessPool | None = None

    def runner(
        self, callback: Callable[[Job], object], time_limit: float | None
    ) -> Callable[[Job], Deferred[object]]:
        """Make a callable that runs `callback` with a job in a process.

        Args:
            callback: The function.
            time_limit: Seconds that a job may run before its process is ended; None for no limit.

        Returns:
            The callable. It returns a Deferred that fires with the encoded result, or fails with `FailJob`,
            `Retry`, `Reject`, `RaisedInProcess`, `TimeLimitExceeded` or `ProcessDied`.

        Raises:
            ValueError: A process could not import the function or the codec.
        """
        task = _pickled(callback, self._codec)
        return lambda job: self._run(task, time_limit, job)

    def start(self) -> None:
        """Start the processes."""
        self._listener = _ChildListener(self._reactor, self._jobs, MAX_OUTCOME_OVERHEAD + self._max_packet)
        self._pool = self._make_pool()

    def stop(self) -> Deferred[None]:
        """End the processes, even if they run jobs.

        Returns:
            A Deferred that fires when they have ended.
        """
        pool, self._pool = self._pool, None
        listener, self._listener = self._listener, None
        if pool is None or listener is None:
            return succeed(None)
        return _stop_pool(self._reactor, pool).addCallback(lambda _: listener.close())

    def _make_pool(self) -> ProcessPool:
        from pebble import ProcessPool

        assert self._listener is not None
        pool = ProcessPool(
            max_workers=self.size,
            initializer=initialize,
            initargs=[self._listener.path],
            # Not a fork: it would inherit this process's sockets, and the locks of its threads.
            context=multiprocessing.get_context("spawn"),
        )
        # Reading `active` starts the processes. That takes a while, so the first job should not wait for it.
        if not pool.active:
            raise RuntimeError("the pool of processes does not start")
        return pool

    def _run(self, task: bytes, time_limit: float | None, job: Job) -> Deferred[object]:
        number = next(self._numbers)
        told = (job.attempt, job.losses, job.traceparent)
        fields = (job.handle, job.function, job.unique, job.reducer, job.data, *told)
        future = self._schedule((number, task, self._max_packet, fields))
        child_job = self._jobs[number] = _ChildJob(self._reactor, job, time_limit, future)
        child_job.outcome.addBoth(self._remove, number)
        future.add_done_callback(lambda _: self._reactor.callFromThread(self._future_done, number, future))
        return child_job.outcome

    def _schedule(self, arguments: tuple[Any, ...]) -> Any:
        assert self._pool is not None
        try:
            return self._pool.schedule(run_job, args=arguments)
        except RuntimeError:
            # The pool is closed: it does that when somebody kills a process that has no job.
            _stop_pool(self._reactor, self._pool)
            self._pool = self._make_pool()
            return self._pool.schedule(run_job, args=arguments)

    def _remove(self, result: object, number: int) -> object:
        del self._jobs[number]
        return result

    def _future_done(self, number: int, future: Any) -> None:
        child_job = self._jobs.get(number)
        # Without an error the outcome comes by the connection.
        if child_job is not None and not future.cancelled() and (error := future.exception()) is not None:
            child_job.fail(ProcessDied(f"the process that ran the job ended: {error}"))


class _ChildJob:
    """A job in a process. `outcome` fires with its outcome. Cancelling that ends the process."""

    def __init__(self, reactor: Any, job: Job, time_limit: float | None, future: Any) -> None:
        self.outcome: Deferred[object] = Deferred(lambda _: self._kill())
        self._reactor = reactor
        self._job = job
        self._time_limit = time_limit
        self._future = future
        self._timer: IDelayedCall | None = None

    def message_received(self, kind: bytes, content: bytes) -> None:
        """The process has sent a message about the job."""
        if kind == PACKET:
            if self._job._writer is not None:
                self._job._writer.write(content)
        elif kind == STARTED:
            if self._time_limit is not None:
                self._timer = self._reactor.callLater(
                    self._time_limit, self._time_limit_reached, self._time_limit
                )
        elif kind == RESULT:
            self._stop_timer()
            self.outcome.callback(content)
        elif kind == FAILED:
            self.fail(FailJob(content.decode()))
        elif kind == FAILED_WITH:
            text, data = split_contents(content)
            self.fail(FailJob(text.decode(), data=data))
        elif kind == RETRIED:
            delay, counts = RETRY_HEADER.unpack_from(content)
            retry_text = content[RETRY_HEADER.size :].decode()
            self.fail(Retry(None if delay < 0 else delay, retry_text, counts))
        elif kind == REJECTED:
            self.fail(Reject(content.decode()))
        elif kind == RAISED:
            text, trace = split_contents(content)
            self.fail(RaisedInProcess(text.decode(), trace.decode("utf-8", "replace")))

    def writable(self) -> Deferred[None]:
        """Fires when the server's connection takes more, or the job is over."""
        writer = self._job._writer
        return succeed(None) if writer is None else writer.writable()

    def fail(self, error: Exception) -> None:
        """The job has failed."""
        self._stop_timer()
        self.outcome.errback(Failure(error))

    def _time_limit_reached(self, seconds: float) -> None:
        self._kill()
        self.fail(TimeLimitExceeded(seconds))

    def _kill(self) -> None:
        self._stop_timer()
        self._future.cancel()

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()


class _ChildListener:
    """Accepts the connections of the processes, at `path`, in a folder that only this user can open."""

    def __init__(self, reactor: Any, jobs: dict[int, _ChildJob], max_content: int) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="txgearman-"))
        self.path = str(self._folder / "worker")
        self._protocols: set[_ChildProtocol] = set()
        factory = Factory.forProtocol(lambda: _ChildProtocol(jobs, max_content, self._protocols))
        factory.noisy = False
        self._port = reactor.listenUNIX(self.path, factory)

    def close(self) -> Deferred[None]:
        """Close all connections. Returns a Deferred that fires when they are closed."""
        closing = [protocol.close() for protocol in self._protocols]
        closing.append(self._port.stopListening() or succeed(None))
        return gatherResults(closing).addBoth(lambda _: shutil.rmtree(self._folder, ignore_errors=True))


class _ChildProtocol(Protocol):
    """The parent's end of the connection to one process.

    The reads of a message are buffered in pieces and joined once it is whole. A buffer that grows with each
    read would be copied each time, which took 20 s for 60 MiB.

    Args:
        jobs: The jobs by number.
        max_content: The most bytes of a message's content.
        protocols: Has this protocol while it is connected.
    """

    transport: Any

    def __init__(self, jobs: dict[int, _ChildJob], max_content: int, protocols: set[_ChildProtocol]) -> None:
        self._jobs = jobs
        self._max_length = MESSAGE_HEADER.size + max_content
        self._protocols = protocols
        self._closed: Deferred[None] = Deferred()
        self._pieces: list[bytes] = []
        self._buffered = 0
        # Bytes that complete the next message, or its length.
        self._needed_size = LENGTH_PREFIX.size
        self._paused = False

    def connectionMade(self) -> None:
        self._protocols.add(self)

    def dataReceived(self, data: bytes) -> None:
        self._pieces.append(data)
        self._buffered += len(data)
        if self._buffered >= self._needed_size and not self._paused:
            self._parse()

    def _parse(self) -> None:
        """Handle the whole messages, until one pauses the connection."""
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        start = 0
        while not self._paused:
            begin = start + LENGTH_PREFIX.size
            self._needed_size = LENGTH_PREFIX.size
            if len(data) < begin:
                break
            (length,) = LENGTH_PREFIX.unpack_from(data, start)
            if not MESSAGE_HEADER.size <= length <= self._max_length:
                # No child of ours sends that, and the begin of the next message is unknown.
                self.transport.abortConnection()
                return
            self._needed_size += length
            if len(data) < begin + length:
                break
            start = begin + length
            self._handle_message(data, begin, start)
        self._pieces = [data[start:]] if start else [data]
        self._buffered = len(data) - start

    def _handle_message(self, data: bytes, begin: int, end: int) -> None:
        kind, number = MESSAGE_HEADER.unpack_from(data, begin)
        child_job = self._jobs.get(number)
        if child_job is not None:
            child_job.message_received(kind, data[begin + MESSAGE_HEADER.size : end])
            if kind == PACKET:
                self._pause_until(child_job.writable())

    def _pause_until(self, writable: Deferred[None]) -> None:
        """Read nothing until the server's connection is writable: backpressure for the process."""
        if not writable.called:
            self._paused = True
            self.transport.pauseProducing()
            writable.addCallback(lambda _: self._resume())

    def _resume(self) -> None:
        self._paused = False
        self.transport.resumeProducing()
        self._parse()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._protocols.discard(self)
        self._closed.callback(None)

    def close(self) -> Deferred[None]:
        self.transport.loseConnection()
        return self._closed


def _stop_pool(reactor: Any, pool: ProcessPool) -> Deferred[None]:
    """End the processes of `pool`. Returns a Deferred that fires when they have ended."""
    ended: Deferred[None] = Deferred()

    def end() -> None:
        try:
            pool.stop()
            pool.join()
        finally:
            reactor.callFromThread(ended.callback, None)

    # In a thread, as it blocks until each process has ended.
    threading.Thread(target=end, name="txgearman-worker-stop", daemon=True).start()
    return ended


def _portable_codec(codec: Codec) -> Any:
    """The codec as `codec_from` takes it in another process: built-in ones by their name."""
    names: tuple[Any, ...] = ("bytes", "text", "json")
    return next((name for name in names if codec_from(name) is codec), codec)


def _pickled(callback: Callable[[Job], object], codec: Any) -> bytes:
    """Pickle function and codec. Raises `ValueError` if another process cannot import them."""
    main = sys.modules["__main__"]
    interactive = getattr(callback, "__module__", None) == "__main__" and not hasattr(main, "__file__")
    try:
        if interactive:
            raise pickle.PicklingError("it was typed into an interpreter")
        return pickle.dumps((callback, codec))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            f"a process must be able to import its function and codec, put {callback!r} at the top level of "
            f"a module: {error}"
        ) from error
