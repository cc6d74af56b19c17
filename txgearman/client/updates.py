"""Updates of a running job, and buffering them until they are taken. No I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from txgearman.errors import BadPayload, ClientError, UpdatesLost


@dataclass(frozen=True, slots=True)
class DataUpdate:
    """A part of the result, sent before its end (WORK_DATA).

    Attributes:
        data: What the client's codec makes of it, bytes without one.
    """

    data: Any


@dataclass(frozen=True, slots=True)
class WarningUpdate:
    """A warning (WORK_WARNING).

    Attributes:
        data: What the client's codec makes of it, bytes without one.
    """

    data: Any


@dataclass(frozen=True, slots=True)
class StatusUpdate:
    """How far the job is (WORK_STATUS).

    Attributes:
        numerator: How much is done.
        denominator: Of how much.
    """

    numerator: int
    denominator: int


Update = DataUpdate | WarningUpdate | StatusUpdate

_U = TypeVar("_U", DataUpdate, WarningUpdate, StatusUpdate)

KEPT_BYTES: Final = 64 * 1024 * 1024
"""Bytes of updates that one job buffers for a reader, each counted with `UPDATE_OVERHEAD`. As many as the
largest packet has. Without a limit a job whose updates nobody reads would fill the memory."""

UPDATE_OVERHEAD: Final = 128
"""Bytes that an update counts beside its data: about what its objects take."""


class UpdateStream:
    """The updates of one job: each goes to the callbacks for its kind, or is buffered for the reader.

    An asynchronous iterator. It ends with the job, and raises the job's error if there was one.
    """

    __slots__ = ("_budget_left", "_buffer", "_callbacks", "_ended", "_error", "_overflowed", "_reader")
    _log = Logger()

    def __init__(self) -> None:
        self._callbacks: dict[type[Update], list[Callable[..., object]]] = {}
        self._buffer: deque[tuple[Update | BadPayload, int]] = deque()
        self._budget_left = KEPT_BYTES
        self._overflowed = False
        self._ended = False
        self._error: Callable[[], ClientError] | None = None
        self._reader: Deferred[None] | None = None

    def add(self, update: Update, size: int | None = None) -> None:
        """An update came.

        Args:
            update: The update.
            size: Bytes of its payload, where that is not its data.
        """
        callbacks = self._callbacks.get(type(update))
        if callbacks is not None:
            for callback in callbacks:
                self._call(callback, update)
            return
        if size is None:
            size = 0 if isinstance(update, StatusUpdate) else len(update.data)
        self._buffer_update(update, size)

    def add_undecodable(self, kind: type[Update], error: BadPayload) -> None:
        """An update came that cannot be decoded.

        Args:
            kind: What kind of update it is.
            error: What the reader raises in its place.
        """
        if kind in self._callbacks:
            self._log.error("An update was dropped: {error}", error=error)
        else:
            self._buffer_update(error, len(error.data))

    def _buffer_update(self, item: Update | BadPayload, size: int) -> None:
        size += UPDATE_OVERHEAD
        self._budget_left -= size
        if self._budget_left < 0 or self._overflowed:
            self._overflowed = True
        else:
            self._buffer.append((item, size))
        self._wake()

    def listen(self, kind: type[_U], callback: Callable[[_U], object]) -> None:
        """Call a function with each update of a kind, the buffered ones first.

        Args:
            kind: The kind.
            callback: Is called with the update. What it raises is logged.
        """
        self._callbacks.setdefault(kind, []).append(callback)
        kept, self._buffer = self._buffer, deque()
        for update, size in kept:
            if isinstance(update, kind):
                self._budget_left += size
                self._call(callback, update)
            else:
                self._buffer.append((update, size))

    def finish(self, error: Callable[[], ClientError] | None) -> None:
        """The job has ended.

        Args:
            error: Makes the exception if the job did not end well.
        """
        self._ended = True
        self._error = error
        self._wake()

    def __aiter__(self) -> UpdateStream:
        return self

    async def __anext__(self) -> Update:
        while not self._buffer:
            if self._overflowed:
                raise UpdatesLost(f"more than {KEPT_BYTES} bytes of updates waited to be read")
            if self._ended:
                if self._error is not None:
                    raise self._error()
                raise StopAsyncIteration
            if self._reader is not None:
                raise RuntimeError("the updates of this job are already being read")
            self._reader = Deferred()
            try:
                await self._reader
            finally:
                self._reader = None
        update, size = self._buffer.popleft()
        self._budget_left += size
        if isinstance(update, BadPayload):
            raise update
        return update

    def _wake(self) -> None:
        if self._reader is not None:
            self._reader.callback(None)

    def _call(self, callback: Callable[..., object], update: Update) -> None:
        try:
            callback(update)
        except Exception:
            self._log.failure("A callback for updates of a job raised")
