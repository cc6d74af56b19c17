"""Running blocking functions in processes: a pool of them, and the worker's end of what they say.

The processes are those of pebble, which ends the process of a job that is cancelled and puts another in
its place. What runs in them is in `child`.
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
from txgearman.errors import FailJob, ProcessDied, RaisedInProcess, TimeLimitExceeded
from txgearman.worker.child import (
    FAILED,
    FAILED_WITH,
    HEAD,
    LENGTH,
    PACKET,
    RAISED,
    RESULT,
    STARTED,
    begin,
    parts,
    work,
)
from txgearman.worker.functions import EXCEPTION_BYTES
from txgearman.worker.job import Job
from txgearman.worker.prefetch import ConcurrencyLimit

if TYPE_CHECKING:
    from pebble import ProcessPool

LONGEST_WORDS: Final = 4 * EXCEPTION_BYTES
"""Bytes of a message of a process that are accepted beyond those of a packet: an exception's text and its
traceback have fewer."""


class Processes:
    """A pool of `size` processes, which run from `start` to `stop`.

    `limit` counts the jobs in them. `codec` is that of the worker, `max_packet` its largest packet's body in
    bytes. Raises `ImportError` if pebble is not installed, and `TypeError` for a reactor without UNIX
    sockets and threads.
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
        self._runs: dict[int, _Run] = {}
        self._ears: _Ears | None = None
        self._pool: ProcessPool | None = None

    def runner(
        self, callback: Callable[[Job], object], time_limit: float | None
    ) -> Callable[[Job], Deferred[object]]:
        """What runs `callback` with a job in a process, which is ended after `time_limit` seconds of it.

        It fires with the encoded result. It fails with `FailJob`, `RaisedInProcess`, `TimeLimitExceeded` or
        `ProcessDied`. Raises `ValueError` if a process could not import the function.
        """
        task = _pickled(callback, self._codec)
        return lambda job: self._run(task, time_limit, job)

    def start(self) -> None:
        """Start the processes."""
        self._ears = _Ears(self._reactor, self._runs, LONGEST_WORDS + self._max_packet)
        self._pool = self._make_pool()

    def stop(self) -> Deferred[None]:
        """End the processes, whatever they do. Fires when they have ended."""
        pool, self._pool = self._pool, None
        ears, self._ears = self._ears, None
        if pool is None or ears is None:
            return succeed(None)
        return _ended(self._reactor, pool).addCallback(lambda _: ears.close())

    def _make_pool(self) -> ProcessPool:
        from pebble import ProcessPool

        assert self._ears is not None
        pool = ProcessPool(
            max_workers=self.size,
            initializer=begin,
            initargs=[self._ears.path],
            # A copy of this process would have its sockets and its threads' locks.
            context=multiprocessing.get_context("spawn"),
        )
        # To ask is to start the processes, which takes a while: not when the first job comes.
        if not pool.active:
            raise RuntimeError("the pool of processes does not start")
        return pool

    def _run(self, task: bytes, time_limit: float | None, job: Job) -> Deferred[object]:
        number = next(self._numbers)
        fields = (job.handle, job.function, job.unique, job.reducer, job.data)
        future = self._schedule((number, task, self._max_packet, fields))
        run = self._runs[number] = _Run(self._reactor, job, time_limit, future)
        run.outcome.addBoth(self._forget, number)
        future.add_done_callback(lambda _: self._reactor.callFromThread(self._done, number, future))
        return run.outcome

    def _schedule(self, arguments: tuple[Any, ...]) -> Any:
        assert self._pool is not None
        try:
            return self._pool.schedule(work, args=arguments)
        except RuntimeError:
            # The pool gives up when a process is killed from outside while it has no job.
            _ended(self._reactor, self._pool)
            self._pool = self._make_pool()
            return self._pool.schedule(work, args=arguments)

    def _forget(self, result: object, number: int) -> object:
        del self._runs[number]
        return result

    def _done(self, number: int, future: Any) -> None:
        run = self._runs.get(number)
        # If all went well the outcome is on its way by the channel.
        if run is not None and not future.cancelled() and (error := future.exception()) is not None:
            run.fail(ProcessDied(f"the process that ran the job ended: {error}"))


class _Run:
    """A job in a process. `outcome` is its outcome; to cancel that ends the process."""

    def __init__(self, reactor: Any, job: Job, time_limit: float | None, future: Any) -> None:
        self.outcome: Deferred[object] = Deferred(lambda _: self._give_up())
        self._reactor = reactor
        self._job = job
        self._time_limit = time_limit
        self._future = future
        self._timer: IDelayedCall | None = None

    def heard(self, kind: bytes, content: bytes) -> None:
        """The process said something of the job."""
        if kind == PACKET:
            if self._job._writer is not None:
                self._job._writer.write(content)
        elif kind == STARTED:
            if self._time_limit is not None:
                self._timer = self._reactor.callLater(self._time_limit, self._expire, self._time_limit)
        elif kind == RESULT:
            self._stop_timer()
            self.outcome.callback(content)
        elif kind == FAILED:
            self.fail(FailJob(content.decode()))
        elif kind == FAILED_WITH:
            text, data = parts(content)
            self.fail(FailJob(text.decode(), data=data))
        elif kind == RAISED:
            text, trace = parts(content)
            self.fail(RaisedInProcess(text.decode(), trace.decode("utf-8", "replace")))

    def room(self) -> Deferred[None]:
        """Fires when the server's connection takes more, or the job is over."""
        writer = self._job._writer
        return succeed(None) if writer is None else writer.writable()

    def fail(self, error: Exception) -> None:
        """The job has failed."""
        self._stop_timer()
        self.outcome.errback(Failure(error))

    def _expire(self, seconds: float) -> None:
        self._give_up()
        self.fail(TimeLimitExceeded(seconds))

    def _give_up(self) -> None:
        self._stop_timer()
        self._future.cancel()

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()


class _Ears:
    """Listens to the processes, at `path`, in a folder that is open to this user only."""

    def __init__(self, reactor: Any, runs: dict[int, _Run], longest: int) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="txgearman-"))
        self.path = str(self._folder / "worker")
        self._ears: set[_Ear] = set()
        factory = Factory.forProtocol(lambda: _Ear(runs, longest, self._ears))
        factory.noisy = False
        self._port = reactor.listenUNIX(self.path, factory)

    def close(self) -> Deferred[None]:
        """Hear no more. Fires when all connections have ended."""
        closing = [ear.close() for ear in self._ears]
        closing.append(self._port.stopListening() or succeed(None))
        return gatherResults(closing).addBoth(lambda _: shutil.rmtree(self._folder, ignore_errors=True))


class _Ear(Protocol):
    """Hears one process, whose messages have at most `longest` bytes of content.

    What has come of a message is kept in the pieces in which it came, and put together once it is whole: a
    buffer that grew by each read would be copied as often, which took 20 s for 60 MiB.
    """

    transport: Any

    def __init__(self, runs: dict[int, _Run], longest: int, ears: set[_Ear]) -> None:
        self._runs = runs
        self._longest = HEAD.size + longest
        self._ears = ears
        self._lost: Deferred[None] = Deferred()
        self._pieces: list[bytes] = []
        self._kept = 0
        # Bytes with which the next message is whole, or its length is known.
        self._needed = LENGTH.size
        self._waits = False

    def connectionMade(self) -> None:
        self._ears.add(self)

    def dataReceived(self, data: bytes) -> None:
        self._pieces.append(data)
        self._kept += len(data)
        if self._kept >= self._needed and not self._waits:
            self._hear()

    def _hear(self) -> None:
        """Hear the messages that are whole, as long as nothing has to be waited for."""
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        start = 0
        while not self._waits:
            begin = start + LENGTH.size
            self._needed = LENGTH.size
            if len(data) < begin:
                break
            (length,) = LENGTH.unpack_from(data, start)
            if not HEAD.size <= length <= self._longest:
                # No process of ours says that, and what follows cannot be found.
                self.transport.abortConnection()
                return
            self._needed += length
            if len(data) < begin + length:
                break
            start = begin + length
            self._message(data, begin, start)
        self._pieces = [data[start:]] if start else [data]
        self._kept = len(data) - start

    def _message(self, data: bytes, begin: int, end: int) -> None:
        kind, number = HEAD.unpack_from(data, begin)
        run = self._runs.get(number)
        if run is not None:
            run.heard(kind, data[begin + HEAD.size : end])
            if kind == PACKET:
                self._wait(run.room())

    def _wait(self, room: Deferred[None]) -> None:
        """Hear nothing until there is room, so that the process waits."""
        if not room.called:
            self._waits = True
            self.transport.pauseProducing()
            room.addCallback(lambda _: self._go_on())

    def _go_on(self) -> None:
        self._waits = False
        self.transport.resumeProducing()
        self._hear()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._ears.discard(self)
        self._lost.callback(None)

    def close(self) -> Deferred[None]:
        self.transport.loseConnection()
        return self._lost


def _ended(reactor: Any, pool: ProcessPool) -> Deferred[None]:
    """End the processes of `pool`. Fires when they have ended."""
    ended: Deferred[None] = Deferred()

    def end() -> None:
        try:
            pool.stop()
            pool.join()
        finally:
            reactor.callFromThread(ended.callback, None)

    # It waits for each process.
    threading.Thread(target=end, name="txgearman-worker-stop", daemon=True).start()
    return ended


def _portable_codec(codec: Codec) -> Any:
    """What `codec_from` takes in another process."""
    words: tuple[Any, ...] = ("bytes", "text", "json")
    return next((word for word in words if codec_from(word) is codec), codec)


def _pickled(callback: Callable[[Job], object], codec: Any) -> bytes:
    """Function and codec as a pickle. Raises `ValueError` if they cannot be imported in another process."""
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
