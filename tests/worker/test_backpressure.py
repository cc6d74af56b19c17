"""Backpressure on functions that send more than the server takes: what waits to be sent stays small."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests.connection.memory import packet
from tests.interop.programs import HOST
from tests.support import on_reactor
from tests.worker import blocking
from tests.worker.played import PlayedWorkerTestCase
from txgearman.errors import JobOver
from txgearman.net import fast_write
from txgearman.wire.packets import JOB_ASSIGN_UNIQ, OPTION_RES
from txgearman.worker import Job, Worker
from txgearman.worker.protocol import WorkerProtocol

MOST = 8 * 1024 * 1024
"""Bytes that may wait in the worker and the system's buffers together: far below what the jobs send."""

LIMIT = 30.0


class SlowServer(Protocol):
    """Gives one job to whoever connects, and reads what comes little by little."""

    transport: Any

    def __init__(self, ended: Deferred[None]) -> None:
        self.received = 0
        self.gone: Deferred[None] = Deferred()
        self._ended = ended
        self._pause: Any = None
        self._tail = b""

    def connectionMade(self) -> None:
        self.transport.write(packet(OPTION_RES, b"exceptions"))
        self.transport.write(packet(JOB_ASSIGN_UNIQ, b"H:1", b"f", b"", b""))

    def dataReceived(self, data: bytes) -> None:
        from twisted.internet import reactor

        self.received += len(data)
        self._tail = (self._tail + data)[-1000:]
        self.transport.pauseProducing()
        self._pause = reactor.callLater(0.001, self.transport.resumeProducing)  # type: ignore[attr-defined]
        if b"H:1\0done" in self._tail and not self._ended.called:
            self._ended.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._pause is not None and self._pause.active():
            self._pause.cancel()
        self.gone.callback(None)


class FloodTests(TestCase):
    async def most_that_waits(self, function: Any, **options: Any) -> int:
        """The most bytes that were written and not yet with the server while a job of `function` ran."""
        from twisted.internet import reactor

        most = 0
        write = WorkerProtocol.write

        def watched(protocol: WorkerProtocol, data: bytes) -> None:
            nonlocal most
            write(protocol, data)
            most = max(most, fast_write.unsent(protocol.transport))  # type: ignore[arg-type]

        self.patch(WorkerProtocol, "write", watched)
        ended: Deferred[None] = Deferred()
        server = SlowServer(ended)
        port = reactor.listenTCP(0, Factory.forProtocol(lambda: server), interface=HOST)  # type: ignore[attr-defined]
        endpoint = TCP4ClientEndpoint(reactor, HOST, port.getHost().port)  # type: ignore[arg-type]
        worker = Worker(reactor, endpoint, **options)  # type: ignore[arg-type]
        worker.register("f", function)
        try:
            await worker.start()
            await ended.addTimeout(LIMIT, reactor)  # type: ignore[arg-type]
        finally:
            server.transport.abortConnection()
            await worker.stop(0)
            await port.stopListening()
            await server.gone
        self.assertGreater(server.received, blocking.PIECES * len(blocking.PIECE))
        return most

    @on_reactor
    async def test_in_the_reactors_thread(self) -> None:
        async def floods(job: Job) -> bytes:
            for _ in range(blocking.PIECES):
                await job.room()
                job.send_data(blocking.PIECE)
            return b"done"

        self.assertLess(await self.most_that_waits(floods), MOST)

    @on_reactor
    async def test_in_a_thread(self) -> None:
        self.assertLess(await self.most_that_waits(blocking.floods, threads=1), MOST)

    @on_reactor
    async def test_in_a_process(self) -> None:
        self.assertLess(await self.most_that_waits(blocking.floods, processes=1), MOST)


class RoomTests(PlayedWorkerTestCase):
    def wait_in_a_job(self) -> tuple[Job, Deferred[None]]:
        """A job that waits for room."""
        jobs: list[Job] = []
        self.run_job = lambda job: jobs.append(job) or Deferred(lambda _: None)
        self.start()
        self.assign()
        (job,) = jobs
        self.successResultOf(job.room())
        self.server.transport.producer.pauseProducing()
        room = job.room()
        self.assertNoResult(room)
        return job, room

    def test_room_comes_back(self) -> None:
        _job, room = self.wait_in_a_job()
        self.server.transport.producer.resumeProducing()
        self.successResultOf(room)

    def test_a_job_that_is_over_has_no_room(self) -> None:
        job, room = self.wait_in_a_job()
        self.server.lose()
        self.failureResultOf(room, JobOver)
        self.assertRaises(JobOver, job.room)
