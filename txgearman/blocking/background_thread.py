"""The background thread: it runs a reactor of its own, and others call into it. Knows nothing of Gearman.

The reactor is never installed. So `twisted.internet.reactor` stays whatever the program has made it, even not
imported at all. The thread starts with the first call, and again in the child of a fork. It takes no signals,
and the process can end while it runs.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import threading
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from functools import partial
from typing import Any, Final, Generic, Protocol, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python import threadable
from twisted.python.failure import Failure

from txgearman.blocking.deadline import Deadline
from txgearman.blocking.errors import ServerUnavailable
from txgearman.blocking.reactor_loan import ReactorLoan

_T = TypeVar("_T")

START_TIMEOUT: Final = 30.0
"""Seconds that the thread may take to start. Only a machine that is stopped takes that long."""

CALL_TIMEOUT: Final = 60.0
"""Seconds that a call without a limit of its own may take."""

GRACE_SECONDS: Final = 5.0
"""Seconds of a call beyond the limit that the called function itself keeps."""

STOP_TIMEOUT: Final = 2.0
"""Seconds that the end of the process waits for the thread to close its connections."""


class Closable(Protocol):
    """Something that other threads wait on. It must wake them when the background thread ends."""

    def close(self, why: str) -> None:
        """Let all waits fail, current and later ones."""

    def reset_after_fork(self) -> None:
        """Drop the waits of the parent. Called in the child of a fork."""


class BackgroundThread:
    """A thread that runs a reactor. Get the running one with `background_thread`.

    Attributes:
        reactor: The reactor. Only code that runs in the thread may use it.
        loan: Lends the reactor to callers.
    """

    _log = Logger()

    def __init__(self) -> None:
        self.reactor: Any = _new_reactor()
        self.loan = ReactorLoan(self.reactor)
        self._abandoned = False
        self._lock = threading.RLock()
        self._pending_calls: set[Future[Any]] = set()
        self._closables: weakref.WeakSet[Any] = weakref.WeakSet()
        self._posted_calls: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()
        self._wakeup_scheduled = False
        self._end_reason: str | None = None
        self._thread = threading.Thread(target=self._run, name="txgearman.blocking", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether calls can be made from this process."""
        return self._end_reason is None and not self._abandoned

    def start(self) -> None:
        """Start the thread, and wait until its reactor runs.

        Raises:
            ServerUnavailable: That takes too long.
        """
        running = threading.Event()
        self.reactor.callWhenRunning(running.set)
        self._thread.start()
        if not running.wait(START_TIMEOUT):
            raise ServerUnavailable(f"the background thread did not start within {START_TIMEOUT} seconds")

    def post(self, function: Callable[..., object], *arguments: object) -> None:
        """Run `function` in the thread, without waiting. Does nothing if the thread has ended."""
        if not self.alive:
            return
        self._posted_calls.append((function, arguments))
        # One wakeup for all calls posted before the thread runs them: each wakeup costs a system call.
        if not self._wakeup_scheduled:
            self._wakeup_scheduled = True
            self.reactor.callFromThread(self._run_posted_calls)
        self.loan.recall()

    def call(
        self, function: Callable[..., Any], *arguments: Any, timeout: float | None = CALL_TIMEOUT
    ) -> Any:
        """Run `function` in the thread, and wait for it.

        Args:
            function: The function.
            *arguments: Its arguments.
            timeout: Seconds to wait; None for no limit.

        Returns:
            What it returns, or what its Deferred fires with.

        Raises:
            ServerUnavailable: The time is over, or the thread has ended.
            RuntimeError: This is called in the thread itself, which would wait for itself.
            Exception: What the function raises.
        """
        self.refuse_in_own_thread()
        future: Future[Any] = Future()
        with self._lock:
            if not self.alive:
                raise ServerUnavailable(self._end_reason or "the process was forked")
            self._pending_calls.add(future)
        try:
            self.reactor.callFromThread(_fulfil, future, function, arguments)
            with self.loan.waiting():
                return future.result(Deadline(timeout).remaining())
        except FutureTimeout:
            if future.done():
                raise
            raise ServerUnavailable(f"no answer within {timeout} seconds") from None
        finally:
            self._pending_calls.discard(future)

    def close_when_ended(self, closable: Closable) -> None:
        """Close `closable` when the thread ends, if it is not garbage by then."""
        with self._lock:
            ended = self._end_reason
            self._closables.add(closable)
        if ended is not None:
            closable.close(ended)

    def refuse_in_own_thread(self) -> None:
        """Raise `RuntimeError` if this is called in the thread itself."""
        if threading.current_thread() is self._thread:
            raise RuntimeError("txgearman.blocking cannot wait in its own background thread")

    def stop(self) -> None:
        """End the thread, and let all waits fail."""
        self._end("the process ends")
        if not self._abandoned and self._thread.is_alive():
            with contextlib.suppress(Exception):
                self.reactor.callFromThread(self.reactor.stop)
                self.loan.recall()
            self._thread.join(STOP_TIMEOUT)

    def abandon_after_fork(self) -> None:
        """Close the inherited sockets, and send nothing to the servers. Called in the child of a fork."""
        self._abandoned = True
        self.loan.reset_after_fork()
        for closable in list(self._closables):
            closable.reset_after_fork()
        # The fork may have interrupted the thread anywhere.
        with contextlib.suppress(Exception):
            for selectable in {*self.reactor.getReaders(), *self.reactor.getWriters()}:
                # Without a shutdown: that would end the parent's connection.
                if hasattr(selectable, "socket"):
                    selectable.socket.close()

    def _run_posted_calls(self) -> None:
        # First, so that calls posted from now on wake the thread again.
        self._wakeup_scheduled = False
        while self._posted_calls:
            function, arguments = self._posted_calls.popleft()
            try:
                function(*arguments)
            except Exception:
                self._log.failure("A posted call raised")

    def _run(self) -> None:
        if hasattr(signal, "pthread_sigmask"):
            # A signal taken by this thread would not wake the main thread, which must handle it.
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        self.loan.begin()
        registered = threadable.ioThread
        self.reactor.callWhenRunning(_restore_io_thread, registered)
        try:
            self.reactor.run(installSignalHandlers=False)
        finally:
            self._end("the background thread has ended")

    def _end(self, why: str) -> None:
        with self._lock:
            if self._end_reason is not None:
                return
            self._end_reason = why
            pending, closables = list(self._pending_calls), list(self._closables)
        self.loan.close()
        for future in pending:
            with contextlib.suppress(Exception):
                future.set_exception(ServerUnavailable(why))
        for closable in closables:
            closable.close(why)


def background_thread() -> BackgroundThread:
    """Return the running thread of this process. Start one if there is none."""
    with _Current.lock:
        current = _Current.thread
        if current is None or not current.alive:
            current = BackgroundThread()
            current.start()
            if not _Current.registered:
                _Current.registered = True
                atexit.register(stop)
            _Current.thread = current
        return current


def stop() -> None:
    """End the thread, if there is one. The next use starts another."""
    with _Current.lock:
        current, _Current.thread = _Current.thread, None
    if current is not None:
        current.stop()


class BackgroundResource(Generic[_T]):
    """An object that lives in the background thread, and is made when it is first needed.

    If the thread has ended, as in the child of a fork, the object is made again.

    Args:
        owner: The object that uses this one. When it is garbage this one is closed.
        make: Makes the object of the reactor. Called in the thread.
        close: Closes the object. Called in the thread.
    """

    def __init__(
        self, owner: object, make: Callable[[Any], _T], close: Callable[[_T], Deferred[None]]
    ) -> None:
        self._owner = weakref.ref(owner)
        self._lock = threading.Lock()
        self._make = make
        self._close = close
        self._thread: BackgroundThread | None = None
        self._resource: _T | None = None
        self._finalizer: weakref.finalize[Any, Any] | None = None

    @property
    def alive(self) -> bool:
        """Whether the object is made, and its thread has not ended."""
        return self._thread is not None and self._thread.alive

    def get(self) -> tuple[BackgroundThread, _T]:
        """Make the object, if there is none.

        Returns:
            The thread and the object.

        Raises:
            ServerUnavailable: That takes too long.
        """
        if not self.alive:
            # With a timeout: a thread of the parent may have held the lock at a fork.
            if not self._lock.acquire(timeout=CALL_TIMEOUT):
                raise ServerUnavailable(f"no connection within {CALL_TIMEOUT} seconds")
            try:
                if not self.alive:
                    self._make_resource()
            finally:
                self._lock.release()
        return cast(BackgroundThread, self._thread), cast(_T, self._resource)

    def _make_resource(self) -> None:
        thread = background_thread()
        resource: _T = thread.call(self._make, thread.reactor)
        owner = self._owner()
        assert owner is not None, "its owner calls this"
        self._finalizer = weakref.finalize(owner, thread.post, self._close, resource)
        self._finalizer.atexit = False
        self._resource = resource
        # Last: from now on `alive` is true.
        self._thread = thread

    def close(self, timeout: float = GRACE_SECONDS) -> None:
        """Close the object, and wait for that. The next `get` makes another.

        Args:
            timeout: Seconds to wait at most.
        """
        thread, resource, finalizer = self._thread, self._resource, self._finalizer
        self._thread = self._resource = self._finalizer = None
        if finalizer is not None:
            finalizer.detach()
        if thread is not None and thread.alive:
            with contextlib.suppress(ServerUnavailable):
                thread.call(self._close, resource, timeout=timeout)


class _Current:
    """The thread of this process."""

    # Re-entrant, as a handler of a signal may come in the middle.
    lock = threading.RLock()
    thread: BackgroundThread | None = None
    registered = False


def _forked() -> None:
    """Called in the child of a fork: it has no copy of the thread, and may have a copy of a held lock."""
    _Current.lock = threading.RLock()
    inherited, _Current.thread = _Current.thread, None
    if inherited is not None:
        inherited.abandon_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _new_reactor() -> Any:
    reactor = _reactor_class()()
    # The process must be able to end while threads look up names, too.
    reactor.getThreadPool().threadFactory = partial(threading.Thread, daemon=True)
    return reactor


def _reactor_class() -> Any:
    """The best reactor of this platform that can run in any thread."""
    with contextlib.suppress(ImportError):
        from twisted.internet.epollreactor import EPollReactor

        return EPollReactor
    with contextlib.suppress(ImportError):
        from twisted.internet.pollreactor import PollReactor

        return PollReactor
    from twisted.internet.selectreactor import SelectReactor

    return SelectReactor


def _restore_io_thread(registered: int | None) -> None:
    """Undo that running a reactor declares its thread the program's I/O thread."""
    threadable.ioThread = registered  # type: ignore[assignment]


def _fulfil(future: Future[Any], function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        outcome = function(*arguments)
    except Exception as error:
        _set_unless_done(future.set_exception, error)
        return
    if isinstance(outcome, Deferred):
        outcome.addCallbacks(partial(_set_unless_done, future.set_result), partial(_set_failure, future))
    else:
        _set_unless_done(future.set_result, outcome)


def _set_failure(future: Future[Any], failure: Failure) -> None:
    _set_unless_done(future.set_exception, failure.value)


def _set_unless_done(setter: Callable[[Any], None], value: Any) -> None:
    # The end of the thread may have set an error before.
    with contextlib.suppress(Exception):
        setter(value)
