"""A submitted job as its submitter sees it. What the server says of it comes from the protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, NoReturn

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime

from txgearman.client.updates import DataUpdate, StatusUpdate, Update, UpdateStream, WarningUpdate
from txgearman.codecs import BYTES, Codec, decoded
from txgearman.connection.arguments import check_timeout
from txgearman.errors import BadPayload, ClientError, NoResult, TimedOut


class Job:
    """A job that the server has accepted.

    `handle` is the server's name for the job, `function` the name of its function, `unique` the key given
    at its submission, empty without one, all of them bytes as on the wire. `server` is the name of the
    server that has the job: the endpoint string given to the client, or the server's place in its list
    such as ``#0``. `background` says that the job has no result and no updates here. `last_status` is the
    newest numerator and denominator the worker sent, ``(0, 0)`` before the first.

    A job that was submitted with ``retry`` is submitted anew when its connection is lost. It then has
    another `handle`, maybe another `server`, and its updates begin again behind those that came before.

    Updates are data, warnings and statuses that the worker sends while the job runs. Each goes to the
    callbacks for its kind if there are any, and otherwise waits for `updates`. Nothing is lost by
    asking late. What nobody takes is kept as long as the `Job` is, up to
    `txgearman.client.updates.KEPT_BYTES`; what comes after that is thrown away.

    The protocol has no way to stop a job that runs: to give up waiting only ends the waiting.
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
        self.server = ""
        self.function = function
        self.unique = unique
        self.background = background
        self.last_status = (0, 0)
        self._clock = clock
        self._codec = None if codec is BYTES else codec
        self._ignored = False
        self._done = False
        self._result: Any = b""
        self._resubmit: Callable[[Job, Callable[[], ClientError]], bool] | None = None
        self._error: Callable[[], ClientError] | None = None
        # Made when needed: of many pending jobs most have neither, and each costs the garbage collector.
        self._waiters: list[Deferred[Any]] | None = None
        self._stream: UpdateStream | None = None

    def __repr__(self) -> str:
        state = "background" if self.background else "ended" if self._done else "pending"
        return f"<Job {self.handle!r} of {self.function!r}, {state}>"

    def result(self, timeout: float | None = None) -> Deferred[Any]:
        """The job's result, as often as it is asked for: what the client's codec makes of it, bytes
        without one.

        Returns a new Deferred each time. It fails with `JobFailed`, `JobRaised` or `ConnectionLost`;
        with `BadPayload` for a result that the codec cannot decode;
        with `TimedOut` when the result does not come within `timeout` seconds; and at once with
        `NoResult` for a background job. To cancel it ends this waiting and no other.
        """
        check_timeout(timeout)
        if self.background:
            return fail(NoResult(f"the background job {self.handle!r} has no result"))
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
        """The job's updates from its start, for ``async for``, except those that callbacks take.

        The iteration ends with the job. If the job did not end well it raises what `result` would
        raise, behind the last update; so a stream that was cut short cannot be taken for a whole one.
        It raises `UpdatesLost` where updates were thrown away, and `BadPayload` in the place of an update
        that the codec cannot decode, behind which it can be read on. Several iterators of one job share its
        updates; only one of them can wait at a time. Raises `NoResult` for a background job, as the
        three methods below do.
        """
        return self._updates()

    def on_data(self, callback: Callable[[Any], object]) -> None:
        """Call `callback` with each part of the result that the worker sends ahead of its end."""
        self._updates().listen(DataUpdate, lambda update: callback(update.data))

    def on_warning(self, callback: Callable[[Any], object]) -> None:
        """Call `callback` with each warning that the worker sends."""
        self._updates().listen(WarningUpdate, lambda update: callback(update.data))

    def on_status(self, callback: Callable[[int, int], object]) -> None:
        """Call `callback` with each numerator and denominator that the worker sends."""
        self._updates().listen(StatusUpdate, lambda status: callback(status.numerator, status.denominator))

    # -- the protocol's calls -------------------------------------------------------------------

    def _ignore(self) -> None:
        """The submitter has gone: keep nothing of what comes."""
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
        """The connection was lost while the job ran: it is submitted again, or has failed."""
        if self._ignored or self._resubmit is None or not self._resubmit(self, error):
            self._fail(error)

    def _fail(self, error: Callable[[], ClientError]) -> None:
        """The job has ended badly; `error` makes an exception of it for each who asks."""
        if not self._done:
            self._error = error
            self._end()

    def _end(self) -> None:
        self._done = True
        if self._stream is not None:
            self._stream.finish(self._error)
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            # Those before it may have cancelled this one.
            if not waiter.called:
                if self._error is None:
                    waiter.callback(self._result)
                else:
                    waiter.errback(self._error())

    def _updates(self) -> UpdateStream:
        if self.background:
            raise NoResult(f"the background job {self.handle!r} sends no updates here")
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
