"""Lending the reactor of the background thread to a caller. Knows nothing of Gearman.

A call that the background thread makes costs two switches between threads, which take longer than the call
itself. So when it has handed over a reply to the only caller, the background thread stands still for a
moment, and lends its reactor. A caller that takes the loan may use what belongs to the reactor, write and
read a connection for example, as no other thread does then.

The reactor is lent for `LOAN_SECONDS` at most, to all who take it one after the other. So timers and other
connections are late by no more than that. `recall` ends the loan at once, so who needs the background thread
is not late.

Signals. A handler that raises, as that of Ctrl-C, must not strike in the middle of what the caller does with
the reactor's objects. Handlers run in the main thread. There the signals that have one are blocked while it
has the loan, but for the time that it sleeps. That does not help where another thread takes the signal, so
the main thread gets a loan only if the background thread is the only other one.
"""

from __future__ import annotations

import contextlib
import select
import signal
import threading
import time
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Final

LOAN_SECONDS: Final = 0.1
"""Seconds for which the reactor is lent without a turn of its own."""

CONTENTION_SECONDS: Final = 0.05
"""Seconds without a loan once more than one thread has waited: the background thread serves several at once
better than they would, one after the other."""

_SUPPORTED: Final = hasattr(select, "poll") and hasattr(signal, "pthread_sigmask")


class ReactorLoan:
    """The right to use a reactor's objects, which one thread has at a time.

    Args:
        reactor: The reactor, which runs in the background thread.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._waker = reactor.waker.fileno()
        # Held by the thread that may use the reactor's objects.
        self._right = threading.Lock()
        # Re-entrant, as a handler of a signal may come in the middle of all that is done outside of a loan.
        self._recall = threading.Condition(threading.RLock())
        self._recalled = False
        self._offered = False
        self._offered_until = 0.0
        self._offer_scheduled = False
        self._closed = False
        self._waiting = 0
        self._waits = 0
        self._contended_until = 0.0
        self._borrower: int | None = None
        # The last one to be polled, for the next wait: most are for the same socket.
        self._poll: Any = None
        self._polled: int | None = None
        self._sleeping = False
        self._most_threads = 0
        self._maskable_signals: Collection[int] = ()
        self._mask_before: Iterable[int] | None = None
        self._main_thread = threading.main_thread().ident

    # -- in the background thread ---------------------------------------------------------------

    def begin(self) -> None:
        """The reactor begins to run."""
        self._right.acquire()

    def offer_soon(self) -> None:
        """A waiting thread was just given what it waits for: lend the reactor at the end of this turn.

        Does nothing if other threads wait too, or if a borrower calls this.
        """
        if self._offer_scheduled or self._borrower is not None or not _SUPPORTED:
            return
        now = time.monotonic()
        if self._waiting > 1:
            self._contended_until = now + CONTENTION_SECONDS
        elif self._waiting and now >= self._contended_until:
            self._offer_scheduled = True
            self._reactor.callLater(0, self._offer, self._waits)

    def _offer(self, waits: int) -> None:
        """Stand still while others use the reactor's objects.

        Args:
            waits: How many waits had begun when this was scheduled. Who began one since then needs the
                thread.
        """
        self._offer_scheduled = False
        self._look_at_signals()
        self._recalled = False
        self._offered_until = time.monotonic() + LOAN_SECONDS
        self._offered = True
        try:
            self._right.release()
            # What was posted before is seen here, and what is posted from now on recalls the loan.
            if self._waits == waits and not self._closed and not self._reactor.threadCallQueue:
                with self._recall:
                    self._recall.wait_for(lambda: self._recalled, LOAN_SECONDS)
        finally:
            self._offered = False
            self._right.acquire()

    def _look_at_signals(self) -> None:
        """Find out which signals are to be blocked, and how many threads there are that take none."""
        pool = self._reactor.threadpool
        # Threads of the reactor's pool block all signals, as the thread that started them does.
        self._most_threads = 2 + (0 if pool is None else len(pool.threads))
        handled = (number for number in _SIGNALS if callable(_getsignal(number)))
        self._maskable_signals = {*_OFTEN_HANDLED, *handled}

    @property
    def taken(self) -> bool:
        """Whether a borrower runs this, and not the background thread."""
        return self._borrower is not None

    # -- in other threads -----------------------------------------------------------------------

    def take(self) -> bool:
        """Take the loan, if it is offered and no other thread has it. Without waiting.

        Returns:
            Whether this thread has it. Then it must `give_back` at once, whatever happens.
        """
        if not self._offered:
            return False
        borrower = threading.get_ident()
        mask_before = None
        if borrower == self._main_thread:
            if threading.active_count() > self._most_threads:
                return False
            mask_before = _pthread_sigmask(signal.SIG_BLOCK, ())
            try:
                _pthread_sigmask(signal.SIG_BLOCK, self._maskable_signals)
            except BaseException:
                # The handler of a signal that came just ahead has raised, when all were blocked.
                _set_mask(mask_before)
                raise
        if not self._right.acquire(blocking=False):
            _set_mask(mask_before)
            return False
        self._mask_before = mask_before
        self._sleeping = False
        self._borrower = borrower
        return True

    def give_back(self) -> None:
        """Give the loan back."""
        mask_before = self._mask_before
        if self._borrower == threading.get_ident():
            self._borrower = None
            self._right.release()
        _set_mask(mask_before)

    def wait_readable(self, descriptor: int, seconds: float) -> bool:
        """Sleep until a socket can be read, or the loan ends. The calling thread has the loan.

        Args:
            descriptor: The socket's.
            seconds: How long at most.

        Returns:
            Whether it can be read, and this thread still has the loan. A handler of a signal that runs
            meanwhile may have needed the background thread.
        """
        mask_before = self._mask_before
        if descriptor != self._polled or self._poll is None:
            self._poll = select.poll()
            # The reactor's waker can be read as soon as something has to be done in the background thread.
            self._poll.register(self._waker, select.POLLIN)
            self._poll.register(descriptor, select.POLLIN)
            self._polled = descriptor
        # A handler of a signal may come here too, and must not poll with the same object.
        poll, self._poll = self._poll, None
        self._sleeping = True
        try:
            _set_mask(mask_before)
            left = min(seconds, self._offered_until - time.monotonic())
            ready = poll.poll(max(left, 0.0) * 1000)
        finally:
            try:
                if mask_before is not None:
                    # It runs the handler of a signal that came just ahead, which may raise.
                    _pthread_sigmask(signal.SIG_BLOCK, self._maskable_signals)
            finally:
                self._sleeping = False
                self._mask_before = mask_before
                self._poll = poll
        return len(ready) == 1 and ready[0][0] == descriptor and self._borrower == threading.get_ident()

    def recall(self) -> None:
        """Something has to be done in the background thread: let it run again."""
        if self._borrower == threading.get_ident() and self._sleeping:
            # A handler of a signal calls this while its thread sleeps with the loan. The time of the loan may
            # be over, and the background thread wait for its end.
            self._borrower = None
            self._right.release()
        if not self._offered:
            return
        with self._recall:
            self._recalled = True
            self._recall.notify_all()
        self._reactor.wakeUp()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """For a block that waits for the background thread.

        Raises:
            RuntimeError: The thread is in the middle of a loan, which it would never give back. Only the
                handler of an unusual signal can be there, within `LOAN_SECONDS` of its setting.
        """
        if self._borrower == threading.get_ident() and not self._sleeping:
            raise RuntimeError("a handler of a signal cannot wait for txgearman.blocking here")
        with self._recall:
            self._waiting += 1
            self._waits += 1
        try:
            self.recall()
            yield
        finally:
            with self._recall:
                self._waiting -= 1

    def close(self) -> None:
        """Lend nothing any more."""
        self._closed = True
        self.recall()

    def reset_after_fork(self) -> None:
        """The loan is the parent's. Called in the child of a fork."""
        self._offered = False
        self._borrower = None


def _set_mask(mask: Iterable[int] | None) -> None:
    """Block these signals alone, if any were blocked for a loan. Handlers of others run, and may raise."""
    if mask is not None:
        _pthread_sigmask(signal.SIG_SETMASK, mask)


# The public functions make enumeration members of all results, which takes longer than the system calls.
_functions: Any = getattr(signal, "_signal", signal)
_pthread_sigmask: Any = getattr(_functions, "pthread_sigmask", None)
_getsignal: Any = _functions.getsignal

_OFTEN_HANDLED: Final = tuple(
    int(getattr(signal, name))
    for name in (
        "SIGINT",
        "SIGTERM",
        "SIGALRM",
        "SIGHUP",
        "SIGUSR1",
        "SIGUSR2",
        "SIGCHLD",
        "SIGQUIT",
        "SIGWINCH",
    )
    if hasattr(signal, name)
)
"""Signals that are blocked with or without a handler: a program may just have given them one."""

_SIGNALS: Final = tuple(map(int, signal.valid_signals()))
