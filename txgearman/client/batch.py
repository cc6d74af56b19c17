"""Submitting very many offline jobs by one call: taking them bit by bit, and telling what became of each.

Speed is what this is for. Jobs go to a server in chunks, each with one Deferred. What a chunk cannot do
goes by the way of single submissions: jobs whose server has to be waited for, and those that were lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NoReturn

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from txgearman.client.backlog import REQUEST_OVERHEAD, Backlog
from txgearman.client.dispatch import Dispatch, Server
from txgearman.client.hashing import key_of
from txgearman.client.job import Job
from txgearman.client.protocol import Chunk, ClientProtocol
from txgearman.client.submission import Pattern, Submission
from txgearman.errors import ConnectionLost, NotAllAccepted, NotConnected, TimedOut
from txgearman.wire.limits import HEADER_SIZE

CHUNK_BYTES: Final = 512 * 1024
"""Bytes of jobs that are sent in one turn of the reactor, as the backlog counts them: some 500 small jobs,
which take about a millisecond. More would not be faster, and keep the reactor from its other work."""

_END: Final = object()


class _Part:
    """Jobs that wait for their answers: their places in the batch, and the Deferred of what was asked.

    `chunk` is None for a job that was sent by itself.
    """

    __slots__ = ("chunk", "places", "waiting")

    def __init__(self, places: Sequence[int], chunk: Chunk | None) -> None:
        self.places = places
        self.chunk = chunk
        self.waiting: Deferred[Any]

    @property
    def unanswered(self) -> Sequence[int]:
        return self.places if self.chunk is None else self.places[len(self.chunk.handles) :]


class Batch:
    """Jobs of one `pattern` with these `payloads`, and with `uniques` if there are any.

    Both are read no faster than there is room in the `backlog`. `keep_handles` says whether handles are
    kept to be returned.
    """

    def __init__(
        self,
        clock: IReactorTime,
        dispatch: Dispatch,
        backlog: Backlog,
        pattern: Pattern,
        payloads: Iterable[bytes],
        uniques: Iterable[str | bytes | None] | None,
        keep_handles: bool,
    ) -> None:
        self._clock = clock
        self._dispatch = dispatch
        self._backlog = backlog
        self._pattern = pattern
        self._payloads: Iterator[bytes] = iter(payloads)
        self._uniques: Iterator[Any] | None = None if uniques is None else iter(uniques)
        self._keep = keep_handles
        self._handles: list[bytes] = []
        self._errors: dict[int, Exception] = {}
        self._taken = 0
        self._stopped_by: Exception | None = None
        self._unsent: Sequence[int] = ()
        self._parts: set[_Part] = set()
        self._over = False
        self._idle: Deferred[None] | None = None

    async def submit(self) -> list[bytes]:
        """Submit all. Returns the handles; raises `NotAllAccepted`.

        When it is cancelled nothing more is sent, and what comes is ignored.
        """
        try:
            more = True
            while more:
                await self._backlog.room()
                more = await self._take_and_send()
                if more:
                    # The reactor's other work, which is also to read the answers.
                    await deferLater(self._clock, 0)
            while self._parts:
                self._idle = Deferred()
                await self._idle
        finally:
            self._over = True
            for part in self._parts:
                part.waiting.cancel()
        if self._errors or self._stopped_by is not None:
            raise self._failed(self._stopped_by or self._errors[min(self._errors)])
        return self._handles

    def timed_out(self, _result: object, seconds: float) -> NoReturn:
        """Raise `NotAllAccepted`: the time was over, and `submit` was cancelled for that."""
        error = TimedOut(f"no answer from the server within {seconds} seconds")
        self._errors |= dict.fromkeys(self._unsent, error)
        for part in self._parts:
            if part.chunk is not None:
                self._accept(part, part.chunk)
            self._errors |= dict.fromkeys(part.unanswered, error)
        raise self._failed(error)

    # -- taking and sending ---------------------------------------------------------------------

    async def _take_and_send(self) -> bool:
        """Take as much as there is room for, and send it. Returns whether there may be more."""
        first = self._taken
        limit = min(CHUNK_BYTES, self._backlog.left)
        datas, uniques, left = self._take(limit)
        if self._keep:
            self._handles += [b""] * (self._taken - first)
        places = range(first, first + len(datas))
        connecting = self._dispatch.up() if datas else None
        if connecting is not None:
            self._unsent = places
            try:
                await self._backlog.held(limit - left - REQUEST_OVERHEAD, connecting)
            except NotConnected as error:
                self._errors |= dict.fromkeys(places, error)
                self._stopped_by = error
                return False
            self._unsent = ()
        if uniques is None or self._dispatch.alone:
            self._spread(places, datas, uniques)
        else:
            self._place(places, datas, uniques)
        return left <= 0 and self._stopped_by is None

    def _take(self, limit: int) -> tuple[list[bytes], list[bytes] | None, int]:
        """Payloads and uniques of `limit` bytes, or one of more, and what is left of the limit.

        More than 0 is left only where there are no more, or none that are right.
        """
        datas: list[bytes] = []
        uniques: list[bytes] | None = None if self._uniques is None else []
        check = self._pattern.check
        cost = self._pattern.overhead + REQUEST_OVERHEAD
        left = limit
        unique: Any = None
        try:
            for data in self._payloads:
                if self._uniques is not None:
                    unique = next(self._uniques, _END)
                    if unique is _END:
                        raise ValueError("there are fewer uniques than payloads")
                key = check(data, unique)
                datas.append(data)
                if uniques is not None:
                    uniques.append(key)
                left -= len(data) + len(key) + cost
                if left <= 0:
                    break
        except Exception as error:
            # What the caller's iterators raise, too. What was taken ahead of it is sent.
            self._stopped_by = error
            self._errors[self._taken + len(datas)] = error
            self._taken += 1
        self._taken += len(datas)
        return datas, uniques, left

    def _spread(self, places: Sequence[int], datas: list[bytes], uniques: list[bytes] | None) -> None:
        """Send jobs to the servers in turn."""
        shares = self._dispatch.spread(len(datas))
        for server, share in shares.items():
            self._send_chunk(server, places[share], datas[share], uniques and uniques[share])
        if not shares:
            # The connection was lost as soon as it was made.
            for index, data in enumerate(datas):
                self._send_one(places[index], self._pattern.one(data, uniques[index] if uniques else b""))

    def _place(self, places: Sequence[int], datas: list[bytes], uniques: list[bytes]) -> None:
        """Send jobs with uniques, each to its server."""
        shares: dict[Server, list[int]] = {}
        for index, (data, unique) in enumerate(zip(datas, uniques, strict=True)):
            new = self._pattern.one(data, unique)
            server = self._dispatch.ready(key_of(new))
            if server is None:
                self._send_one(places[index], new)
            else:
                shares.setdefault(server, []).append(index)
        for server, indices in shares.items():
            self._send_chunk(
                server,
                [places[index] for index in indices],
                [datas[index] for index in indices],
                [uniques[index] for index in indices],
            )

    def _send_chunk(
        self, server: Server, places: Sequence[int], datas: list[bytes], uniques: list[bytes] | None
    ) -> None:
        assert server.protocol is not None
        count = len(datas)
        packets = self._pattern.packets(datas, uniques)
        # Each counts as if it were submitted by itself; the backlog adds the overhead of one request.
        chunk = Chunk(count, len(packets) - count * HEADER_SIZE + (count - 1) * REQUEST_OVERHEAD)
        part = _Part(places, chunk)
        self._parts.add(part)
        part.waiting = server.protocol.submit_chunk(packets, chunk)
        part.waiting.addCallbacks(
            self._chunk_answered, self._chunk_lost, (part, chunk), {}, (part, chunk, server, datas, uniques)
        )

    def _send_one(
        self, place: int, new: Submission, lost: Server | None = None, why: ConnectionLost | None = None
    ) -> None:
        """Send a job by itself: where a server has to be waited for, or after one has `lost` it."""

        def ask(protocol: ClientProtocol) -> Deferred[Job]:
            return protocol.submit(new)

        part = _Part((place,), None)
        self._parts.add(part)
        key, size = key_of(new), len(new.body)
        if lost is None or why is None:
            part.waiting = self._dispatch.send(ask, key, size)
        else:
            part.waiting = self._dispatch.send_elsewhere(ask, key, size, lost, why)
        part.waiting.addCallbacks(self._one_accepted, self._one_failed, (part,), {}, (part,))

    # -- answers --------------------------------------------------------------------------------

    def _chunk_answered(self, _answer: None, part: _Part, chunk: Chunk) -> None:
        self._accept(part, chunk)
        self._end(part)

    def _chunk_lost(
        self,
        failure: Failure,
        part: _Part,
        chunk: Chunk,
        server: Server,
        datas: list[bytes],
        uniques: list[bytes] | None,
    ) -> None:
        if self._over:
            return
        self._accept(part, chunk)
        error = failure.value
        assert isinstance(error, ConnectionLost)
        if self._dispatch.closed or self._dispatch.alone:
            self._errors |= dict.fromkeys(part.unanswered, error)
        else:
            for index in range(len(chunk.handles), chunk.count):
                new = self._pattern.one(datas[index], b"" if uniques is None else uniques[index])
                # An exception for each: one that is raised hundreds of times would grow by each.
                self._send_one(part.places[index], new, server, ConnectionLost(str(error)))
        self._end(part)

    def _one_accepted(self, job: Job, part: _Part) -> None:
        if self._keep:
            self._handles[part.places[0]] = job.handle
        self._end(part)

    def _one_failed(self, failure: Failure, part: _Part) -> None:
        if not self._over:
            assert isinstance(failure.value, Exception)
            self._errors[part.places[0]] = failure.value
            self._end(part)

    def _accept(self, part: _Part, chunk: Chunk) -> None:
        """Take over what the server has said of a chunk so far."""
        if chunk.errors:
            self._errors |= {part.places[place]: error for place, error in chunk.errors.items()}
        if not self._keep:
            return
        places = part.places[: len(chunk.handles)]
        if isinstance(places, range):
            self._handles[places.start : places.stop : places.step] = chunk.handles
        else:
            for place, handle in zip(places, chunk.handles, strict=True):
                self._handles[place] = handle

    def _end(self, part: _Part) -> None:
        self._parts.discard(part)
        if not self._parts and self._idle is not None:
            idle, self._idle = self._idle, None
            idle.callback(None)

    def _failed(self, reason: Exception) -> NotAllAccepted:
        """What is told of the jobs when not all were accepted."""
        failed = NotAllAccepted(self._taken, self._handles, dict(sorted(self._errors.items())), str(reason))
        failed.__cause__ = reason
        return failed
