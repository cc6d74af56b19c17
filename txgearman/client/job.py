"""A submitted job as its submitter sees it. The protocol tells it what the server sends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, NoReturn, Protocol

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime

from txgearman.client.updates import DataUpdate, StatusUpdate, Update, UpdateStream, WarningUpdate
from txgearman.codecs import BYTES, Codec, decoded
from txgearman.connection.arguments import check_timeout
from txgearman.errors import BadPayload, ClientError, NoResult, TimedOut
from txgearman.wire.names import text_of


class PendingJob(Protocol):
    """What the protocol tells of a job that was submitted: a `Job`, or what stands for one.

    Attributes:
        handle: Set once the server has accepted the job.
        server: Set with the handle.
        background: Whether no more is told then.
    """

    handle: bytes
    server: str
    background: bool

    def _ignore(self) -> None: ...

    def _update(self, update: Update) -> None: ...

    def _complete(self, result: bytes) -> None: ...

    def _connection_lost(self, error: Callable[[], ClientError]) -> None: ...

    def _fail(self, error: Callable[[], ClientError]) -> None: ...


class JobReceiver(PendingJob, Protocol):
    """Stands for a `Job`, and for the Deferred of its submission, where making both would cost too much.

    Attributes:
        called: False.
    """

    called: bool

    def callback(self, job: Any) -> None:
        """The server has accepted the job, which is this object."""

    def errback(self, error: Exception) -> None:
        """The job was not accepted."""


class Job:
    """A job that the server has accepted.

    A job that was submitted with ``retry`` is submitted again when its connection is lost. It then has
    another `handle`, maybe another `server`, and its updates begin again after those that came before.

    Updates are data, warnings and statuses that the worker sends while the job runs. Each goes to the
    callbacks for its kind if there are any, and otherwise waits for `updates`. So nothing is lost by asking
    late. Updates that nobody takes are kept as long as the `Job` is, up to
    `txgearman.client.updates.KEPT_BYTES`. What comes after that is dropped.

    The protocol has no way to stop a running job. Giving up a wait ends only the wait.
    """

    __slots__ = (
        "_clock",
        "_codec",
        "_done",
        "_error",
        "_ignored",
        "_resubmit",
        "_result",
        "_stream",
        "_waiters",
        "background",
        "function",
        "handle",
        "last_status",
        "server",
        "unique",
    )

    def __init__(
        self, clock: IReactorTime, function: bytes, unique: bytes, background: bool, codec: Codec = BYTES
    ) -> None:
        self.handle = b""
        """The server's name for the job."""
        self.server = ""
        """The name of the server that has the job: the endpoint string given to the client, or the server's
        index in its list such as ``#0``."""
        self.function = function
        """The name of the job's function."""
        self.unique = unique
        """The key given at its submission; empty without one."""
        self.background = background
        """Whether the job has no result and no updates here."""
        self.last_status = (0, 0)
        """The newest numerator and denominator that the worker sent; ``(0, 0)`` before the first."""
        self._clock = clock
        self._codec = None if codec is BYTES else codec
        self._ignored = False
        self._done = False
        self._result: Any = b""
        self._resubmit: Callable[[Job, Callable[[], ClientError]], bool] | None = None
        self._error: Callable[[], ClientError] | None = None
        # Made when needed: most pending jobs have neither, and each object costs the garbage collector.
        self._waiters: list[Deferred[Any]] | None = None
        self._stream: UpdateStream | None = None

    def __repr__(self) -> str:
        state = "background" if self.background else "ended" if self._done else "pending"
        return f"<Job {text_of(self.handle)} of {text_of(self.function)}, {state}>"

    def result(self, timeout: float | None = None) -> Deferred[Any]:
        """Wait for the job's result. Can be called as often as needed.

        Args:
            timeout: Seconds; None for no limit.

        Returns:
            A new Deferred of the result: what the client's codec makes of it, bytes without one. It fails
            with `JobFailed`, `JobRaised` or `ConnectionLost`; with `BadPayload` for a result that the codec
            cannot decode; with `TimedOut`; and at once with `NoResult` for a background job. Cancelling it
            ends this wait alone.

        Raises:
            ValueError: The timeout is negative or not finite.
        """
        check_timeout(timeout)
        if self.background:
            return fail(NoResult(f"the background job {text_of(self.handle)} has no result"))
        if self._done:
            return succeed(self._result) if self._error is None else fail(self._error())
        waiter: Deferred[Any] = Deferred(self._forget)
        if self._waiters is None:
            self._waiters = []
        self._waiters.append(waiter)
        if timeout is not None:
            waiter.addTimeout(timeout, self._clock, _timed_out)
        return waiter

    def updates(self) -> AsyncIterator[Update]:
        """Iterate over the job's updates from its start with ``async for``, except those that callbacks take.

        The iteration ends with the job. If the job did not end well it raises, after the last update, what
        `result` would raise. So a stream that was cut short cannot be taken for a whole one. It raises
        `UpdatesLost` where updates were dropped. It raises `BadPayload` in the place of an update that the
        codec cannot decode, after which it can be read on.

        Several iterators of one job share its updates. Only one of them can wait at a time.

        Returns:
            An iterator.

        Raises:
            NoResult: The job is a background job.
        """
        return self._updates()

    def on_data(self, callback: Callable[[Any], object]) -> None:
        """Call `callback` with each part of the result that the worker sends before its end.

        Args:
            callback: It is given the part: what the client's codec makes of it, bytes without one.

        Raises:
            NoResult: The job is a background job.
        """
        self._updates().listen(DataUpdate, lambda update: callback(update.data))

    def on_warning(self, callback: Callable[[Any], object]) -> None:
        """Call `callback` with each warning that the worker sends.

        Args:
            callback: It is given the warning: what the client's codec makes of it, bytes without one.

        Raises:
            NoResult: The job is a background job.
        """
        self._updates().listen(WarningUpdate, lambda update: callback(update.data))

    def on_status(self, callback: Callable[[int, int], object]) -> None:
        """Call `callback` with each status that the worker sends.

        Args:
            callback: It is given numerator and denominator.

        Raises:
            NoResult: The job is a background job.
        """
        self._updates().listen(StatusUpdate, lambda status: callback(status.numerator, status.denominator))

    # -- the protocol's calls -------------------------------------------------------------------

    def _ignore(self) -> None:
        """The submitter has gone: keep no updates."""
        self._ignored = True

    def _update(self, update: Update) -> None:
        if isinstance(update, StatusUpdate):
            self.last_status = (update.numerator, update.denominator)
        if self._ignored:
            return
        if self._codec is None or isinstance(update, StatusUpdate):
            self._updates().add(update)
            return
        try:
            data = decoded(self._codec, update.data, self.handle)
        except BadPayload as error:
            self._updates().add_undecodable(type(update), error)
        else:
            self._updates().add(type(update)(data), len(update.data))

    def _complete(self, result: bytes) -> None:
        try:
            self._result = result if self._codec is None else decoded(self._codec, result, self.handle)
        except BadPayload as bad:
            why = str(bad.__cause__)
            self._fail(lambda: BadPayload(self.handle, result, why))
        else:
            self._end()

    def _connection_lost(self, error: Callable[[], ClientError]) -> None:
        """The connection was lost while the job ran: submit the job again, or let it fail."""
        if self._ignored or self._resubmit is None or not self._resubmit(self, error):
            self._fail(error)

    def _fail(self, error: Callable[[], ClientError]) -> None:
        """The job has failed; `error` makes an exception for each waiter."""
        if not self._done:
            self._error = error
            self._end()

    def _end(self) -> None:
        self._done = True
        if self._stream is not None:
            self._stream.finish(self._error)
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            # A waiter before this one may have cancelled it.
            if not waiter.called:
                if self._error is None:
                    waiter.callback(self._result)
                else:
                    waiter.errback(self._error())

    def _updates(self) -> UpdateStream:
        if self.background:
            raise NoResult(f"the background job {text_of(self.handle)} sends no updates here")
        if self._stream is None:
            self._stream = UpdateStream()
            if self._done:
                self._stream.finish(self._error)
        return self._stream

    def _forget(self, waiter: Deferred[Any]) -> None:
        if self._waiters is not None and waiter in self._waiters:
            self._waiters.remove(waiter)


def _timed_out(_result: object, seconds: float) -> NoReturn:
    raise TimedOut(f"no result within {seconds} seconds")
