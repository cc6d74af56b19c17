"""Submitting very many offline jobs by one call: reading them bit by bit, and telling what became of each.

This is made for speed: jobs go to a server in chunks, each with one Deferred. Jobs with uniques go one by one
where their server was lost, or is not connected yet. `failover` decides which server a job goes to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Final, NoReturn

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from txgearman.client.failover import Dispatch, Server
from txgearman.client.hashing import routing_key
from txgearman.client.protocol import Chunk, ClientProtocol
from txgearman.client.send_budget import REQUEST_OVERHEAD, SendBudget
from txgearman.client.submission import JobTemplate
from txgearman.errors import ConnectionLost, NotAllAccepted, NotConnected, TimedOut

CHUNK_BYTES: Final = 512 * 1024
"""Bytes of jobs that are sent in one turn of the reactor, as the send budget counts them: some 500 small
jobs, which take about a millisecond. More would not be faster, and would keep the reactor from its other
work."""

_END: Final = object()


class _Part:
    """Jobs that go to one server and have no answer yet, by their indices in the batch.

    `chunk` has the answers that came since the jobs were last sent, until they are collected. `waiting` is
    the Deferred of that request.
    """

    __slots__ = ("chunk", "datas", "indices", "uniques", "waiting")

    def __init__(self, indices: Sequence[int], datas: list[bytes], uniques: list[bytes] | None) -> None:
        self.indices = indices
        self.datas = datas
        self.uniques = uniques
        self.chunk: Chunk | None = None
        self.waiting: Deferred[None]


class Batch:
    """Jobs of one template.

    Args:
        clock: Lets the reactor do its other work in between.
        dispatch: Sends the jobs.
        budget: Payloads and uniques are read no faster than it allows.
        template: What is the same in all jobs.
        payloads: The jobs' data.
        uniques: Their uniques, if there are any.
        keep_handles: Whether to return the handles.
    """

    def __init__(
        self,
        clock: IReactorTime,
        dispatch: Dispatch,
        budget: SendBudget,
        template: JobTemplate,
        payloads: Iterable[bytes],
        uniques: Iterable[str | bytes | None] | None,
        keep_handles: bool,
    ) -> None:
        self._clock = clock
        self._dispatch = dispatch
        self._budget = budget
        self._template = template
        self._payloads: Iterator[bytes] = iter(payloads)
        self._uniques: Iterator[Any] | None = None if uniques is None else iter(uniques)
        self._keep = keep_handles
        self._handles: list[bytes] = []
        self._errors: dict[int, Exception] = {}
        self._consumed = 0
        self._stopped_by: Exception | None = None
        self._unsent: Sequence[int] = ()
        self._parts: set[_Part] = set()
        self._finished = False
        self._all_answered: Deferred[None] | None = None

    async def submit(self) -> list[bytes]:
        """Submit all jobs. Once it is cancelled nothing more is sent, and answers are ignored.

        Returns:
            The handles.

        Raises:
            NotAllAccepted: A job was refused, lost, or not read.
        """
        try:
            more = True
            while more:
                await self._budget.available()
                more = await self._read_and_send()
                if more:
                    # Let the reactor do its other work, and read the answers.
                    await deferLater(self._clock, 0)
            while self._parts:
                self._all_answered = Deferred()
                await self._all_answered
        finally:
            self._finished = True
            for part in self._parts:
                part.waiting.cancel()
        if self._errors or self._stopped_by is not None:
            raise self._failed(self._stopped_by or self._errors[min(self._errors)])
        return self._handles

    def timed_out(self, _result: object, seconds: float) -> NoReturn:
        """Raise `NotAllAccepted`: the time is over, which has cancelled `submit`."""
        error = TimedOut(f"no answer from the server within {seconds} seconds")
        self._errors |= dict.fromkeys(self._unsent, error)
        for part in self._parts:
            self._collect_answers(part)
            self._errors |= dict.fromkeys(part.indices, error)
        raise self._failed(error)

    # -- reading and sending -------------------------------------------------------------------

    async def _read_and_send(self) -> bool:
        """Read as many jobs as the budget allows, and send them. Returns whether there may be more."""
        first = self._consumed
        limit = min(CHUNK_BYTES, self._budget.remaining)
        datas, uniques, left = self._read_jobs(limit)
        if self._keep:
            self._handles += [b""] * (self._consumed - first)
        indices = range(first, first + len(datas))
        if not datas:
            return False
        connecting = self._dispatch.ensure_connected()
        if connecting is not None:
            self._unsent = indices
            try:
                await self._budget.charged_until(limit - left - REQUEST_OVERHEAD, connecting)
            except NotConnected as error:
                self._errors |= dict.fromkeys(indices, error)
                self._stopped_by = error
                return False
            self._unsent = ()
        if uniques is None or self._dispatch.single:
            self._send_round_robin(indices, datas, uniques)
        else:
            self._send_by_unique(indices, datas, uniques)
        return left <= 0 and self._stopped_by is None

    def _read_jobs(self, limit: int) -> tuple[list[bytes], list[bytes] | None, int]:
        """Payloads and uniques of `limit` bytes, or one job of more, and what is left of the limit.

        More than 0 is left only at the end of the jobs, or where one is wrong.
        """
        datas: list[bytes] = []
        uniques: list[bytes] | None = None if self._uniques is None else []
        check = self._template.check
        cost = self._template.overhead + REQUEST_OVERHEAD
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
            # The caller's iterators may raise anything, too. The jobs before this one are sent.
            self._stopped_by = error
            self._errors[self._consumed + len(datas)] = error
            self._consumed += 1
        self._consumed += len(datas)
        return datas, uniques, left

    def _send_round_robin(
        self, indices: Sequence[int], datas: list[bytes], uniques: list[bytes] | None
    ) -> None:
        """Send jobs to the servers in turn."""
        shares = self._dispatch.round_robin(len(datas))
        for server, share in shares.items():
            self._send(_Part(indices[share], datas[share], uniques and uniques[share]), server)
        if not shares:
            # The connection was lost as soon as it was made.
            self._send_by_dispatch(_Part(indices, datas, uniques), None)

    def _send_by_unique(self, indices: Sequence[int], datas: list[bytes], uniques: list[bytes]) -> None:
        """Send each job with a unique to its server."""
        shares: dict[Server, list[int]] = {}
        for index, (data, unique) in enumerate(zip(datas, uniques, strict=True)):
            key = routing_key(self._template.fill(data, unique))
            server = self._dispatch.connected_server(key)
            if server is None:
                self._send_by_dispatch(_Part((indices[index],), [data], [unique]), key)
            else:
                shares.setdefault(server, []).append(index)
        for server, share in shares.items():
            part = _Part(
                [indices[index] for index in share],
                [datas[index] for index in share],
                [uniques[index] for index in share],
            )
            self._send(part, server)

    def _send(self, part: _Part, server: Server) -> None:
        """Send jobs to a connected server."""
        assert server.protocol is not None
        self._parts.add(part)
        part.waiting = self._ask(part, server.protocol)
        part.waiting.addCallbacks(self._answered, self._lost, (part,), {}, (part, server))

    def _send_by_dispatch(
        self, part: _Part, key: bytes | None, lost: Server | None = None, why: ConnectionLost | None = None
    ) -> None:
        """Send jobs by this key once a server is connected, or after another one has `lost` them."""
        self._parts.add(part)
        ask, size = partial(self._ask, part), self._size(part)
        if lost is None or why is None:
            part.waiting = self._dispatch.send(ask, key, size)
        else:
            part.waiting = self._dispatch.fail_over(ask, key, size, lost, why)
        part.waiting.addCallbacks(self._answered, self._failed_for_good, (part,), {}, (part,))

    def _ask(self, part: _Part, protocol: ClientProtocol) -> Deferred[None]:
        """Send those of these jobs that have no answer."""
        self._collect_answers(part)
        part.chunk = Chunk(len(part.datas), self._size(part))
        packets = self._template.packets(part.datas, part.uniques)
        return protocol.submit_chunk(packets, part.chunk, self._template.extended_for)

    def _size(self, part: _Part) -> int:
        """Bytes to charge for these jobs: each counts as if it were submitted by itself."""
        size = sum(map(len, part.datas)) + len(part.datas) * (self._template.overhead + REQUEST_OVERHEAD)
        if part.uniques is not None:
            size += sum(map(len, part.uniques))
        # The budget adds the overhead of one request.
        return size - REQUEST_OVERHEAD

    # -- answers --------------------------------------------------------------------------------

    def _answered(self, _answer: None, part: _Part) -> None:
        self._collect_answers(part)
        self._end(part)

    def _lost(self, failure: Failure, part: _Part, server: Server) -> None:
        """The connection to the server was lost before the last answer: fail over to the others."""
        error = failure.value
        if (
            self._finished
            or not isinstance(error, ConnectionLost)
            or self._dispatch.closed
            or self._dispatch.single
        ):
            self._failed_for_good(failure, part)
            return
        self._collect_answers(part)
        if part.uniques is None:
            self._send_by_dispatch(part, None, server, error)
            return
        for index, data, unique in zip(part.indices, part.datas, part.uniques, strict=True):
            key = routing_key(self._template.fill(data, unique))
            # An exception for each: the traceback of one exception would grow each time it is raised.
            why = ConnectionLost(str(error))
            self._send_by_dispatch(_Part((index,), [data], [unique]), key, server, why)
        self._end(part)

    def _failed_for_good(self, failure: Failure, part: _Part) -> None:
        if not self._finished:
            assert isinstance(failure.value, Exception)
            self._collect_answers(part)
            self._errors |= dict.fromkeys(part.indices, failure.value)
            self._end(part)

    def _collect_answers(self, part: _Part) -> None:
        """Note the answers that have come so far, and leave in the part the jobs without one."""
        chunk, part.chunk = part.chunk, None
        if chunk is None or not chunk.handles:
            return
        count = len(chunk.handles)
        indices = part.indices[:count]
        if chunk.errors:
            self._errors |= {indices[index]: error for index, error in chunk.errors.items()}
        if self._keep:
            if isinstance(indices, range):
                self._handles[indices.start : indices.stop : indices.step] = chunk.handles
            else:
                for index, handle in zip(indices, chunk.handles, strict=True):
                    self._handles[index] = handle
        part.indices = part.indices[count:]
        part.datas = part.datas[count:]
        part.uniques = part.uniques and part.uniques[count:]

    def _end(self, part: _Part) -> None:
        self._parts.discard(part)
        if not self._parts and self._all_answered is not None:
            idle, self._all_answered = self._all_answered, None
            idle.callback(None)

    def _failed(self, reason: Exception) -> NotAllAccepted:
        """The error that tells what became of the jobs when not all were accepted."""
        failed = NotAllAccepted(
            self._consumed, self._handles, dict(sorted(self._errors.items())), str(reason)
        )
        failed.__cause__ = reason
        return failed
