"""The server in memory for users' own tests: it must behave as the real one does, but for the waiting."""

from __future__ import annotations

from typing import Any

from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IConsumer, IPushProducer, ITransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.server.peers import req, res
from txgearman import errors
from txgearman.client import Job as ClientJob
from txgearman.server import Settings
from txgearman.testing import HIGH_WATER, MemoryGearman, MemoryTransport, NotFired
from txgearman.worker import Job


class End(Protocol):
    """Keeps what it hears, read by read, and why its connection ended."""

    transport: MemoryTransport

    def __init__(self) -> None:
        self.reads: list[bytes] = []
        self.lost: BaseException | None = None
        self.losses = 0

    def dataReceived(self, data: bytes) -> None:
        self.reads.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason.value
        self.losses += 1


@implementer(IPushProducer)
class Producer:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")

    def stopProducing(self) -> None:
        self.told.append("stop")


class ConnectionsTest(SynchronousTestCase):
    """A client and a worker, joined end to end."""

    def setUp(self) -> None:
        self.gearman = MemoryGearman()
        self.client = self.gearman.client()

    def work(self, callback: Any, **options: Any) -> None:
        worker = self.gearman.worker(**options)
        worker.register("reverse", callback)
        self.gearman.wait(worker.start())

    def test_a_job_with_its_result(self) -> None:
        self.work(lambda job: job.data[::-1])
        job = self.gearman.wait(self.client.submit("reverse", b"abc"))
        self.assertEqual(self.gearman.wait(job.result()), b"cba")

    def test_a_coroutine(self) -> None:
        self.work(lambda job: job.data[::-1])

        async def both() -> bytes:
            first = await self.client.submit("reverse", b"ab")
            second = await self.client.submit("reverse", b"cd")
            return await first.result() + await second.result()

        self.assertEqual(self.gearman.wait(both()), b"badc")

    def test_a_job_takes_the_clock_s_time(self) -> None:
        def slow(job: Job) -> Deferred[bytes]:
            return deferLater(self.gearman.clock, 100, lambda: job.data[::-1])

        self.work(slow)
        job = self.gearman.wait(self.client.submit("reverse", b"abc"))
        self.assertEqual(self.gearman.wait(job.result()), b"cba")
        self.assertGreaterEqual(self.gearman.clock.seconds(), 100)

    def test_updates_on_the_way(self) -> None:
        def talking(job: Job) -> bytes:
            job.send_status(1, 2)
            job.send_data(b"part")
            return b"end"

        heard: list[Any] = []
        job = self.gearman.wait(self.client.submit("reverse", b""))
        job.on_status(lambda *numbers: heard.append(numbers))
        job.on_data(heard.append)
        self.work(talking)
        self.assertEqual(self.gearman.wait(job.result()), b"end")
        self.assertEqual(heard, [(1, 2), b"part"])

    def test_what_a_function_raises(self) -> None:
        def broken(job: Job) -> bytes:
            raise ZeroDivisionError("so there")

        self.work(broken)
        job = self.gearman.wait(self.client.submit("reverse", b""))
        with self.assertRaisesRegex(errors.JobRaised, "ZeroDivisionError: so there"):
            self.gearman.wait(job.result())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_large_data_both_ways(self) -> None:
        self.work(lambda job: job.data[::-1])
        data = bytes(range(256)) * 8192
        job = self.gearman.wait(self.client.submit("reverse", data))
        self.assertTrue(self.gearman.wait(job.result()) == data[::-1])

    def test_settings_of_the_server(self) -> None:
        gearman = MemoryGearman(Settings(handle_prefix="X"))
        job = gearman.wait(gearman.client().submit("f", b""))
        self.assertEqual(job.handle, b"X:1")

    def test_the_wall_clock_is_the_clock(self) -> None:
        self.work(lambda job: b"")
        job = self.gearman.wait(self.client.submit("reverse", b"", run_at=500))
        self.gearman.turn(499)
        self.assertTrue(self.gearman.wait(self.client.status(job)).known)
        self.gearman.turn(2)
        self.assertFalse(self.gearman.wait(self.client.status(job)).known)

    def test_two_in_one_process_know_nothing_of_each_other(self) -> None:
        other = MemoryGearman()
        self.gearman.wait(self.client.submit("f", b""))
        self.assertEqual(self.gearman.server.broker.total, 1)
        self.assertEqual(other.server.broker.total, 0)


class LifeTest(SynchronousTestCase):
    """stop, start and cut."""

    def setUp(self) -> None:
        self.gearman = MemoryGearman()

    def test_a_cut_is_met_by_both_sides(self) -> None:
        client = self.gearman.client()
        job = self.gearman.wait(client.submit("f", b""))
        waiting = job.result()
        self.gearman.cut()
        self.failureResultOf(waiting, errors.ConnectionLost)
        self.assertEqual(self.gearman.server.connections, {})
        self.assertEqual(self.gearman.server.broker.total, 0, "nobody waits for that job any more")

    def test_behind_a_cut_the_server_goes_on(self) -> None:
        client = self.gearman.client()
        job = self.gearman.wait(client.submit("f", b"", background=True))
        self.gearman.cut()
        self.assertTrue(self.gearman.wait(client.status(job)).known)

    def test_a_worker_comes_back(self) -> None:
        worker = self.gearman.worker()
        worker.register("f", lambda job: b"done")
        self.gearman.wait(worker.start())
        self.gearman.cut()
        job = self.gearman.wait(self.gearman.client().submit("f", b""))
        self.assertEqual(self.gearman.wait(job.result()), b"done")

    def test_a_stopped_server_refuses(self) -> None:
        client = self.gearman.client()
        self.gearman.wait(client.connect())
        self.gearman.stop()
        self.assertFalse(self.gearman.running)
        with self.assertRaises(errors.NotConnected):
            self.gearman.wait(client.echo(b"x"))
        with self.assertRaises(error.ConnectionRefusedError):
            self.gearman.connect(End())

    def test_a_started_server_is_a_new_one(self) -> None:
        client = self.gearman.client()
        job = self.gearman.wait(client.submit("f", b"", background=True))
        self.gearman.stop()
        self.gearman.start()
        self.assertTrue(self.gearman.running)
        self.assertFalse(self.gearman.wait(client.status(job)).known)

    def test_a_worker_waits_for_the_start(self) -> None:
        self.gearman.stop()
        worker = self.gearman.worker()
        worker.register("f", lambda job: b"done")
        started = worker.start()
        self.gearman.turn(10)
        self.assertNoResult(started)
        self.gearman.start()
        self.gearman.wait(started)

    def test_a_stopped_server_leaves_no_timer(self) -> None:
        one, two = End(), End()
        self.gearman.connect(one)
        self.gearman.connect(two)
        one.transport.write(req(23, b"f", b"5000") + req(18, b"f", b"", b"") + req(9))
        two.transport.write(req(1, b"f") + req(4) + req(36, b"g", b"", b"100", b""))
        self.gearman.turn()
        self.gearman.stop()
        self.assertEqual(self.gearman.clock.getDelayedCalls(), [])


class TimeTest(SynchronousTestCase):
    """turn and wait."""

    def setUp(self) -> None:
        self.gearman = MemoryGearman()
        self.clock = self.gearman.clock

    def test_turning_moves_the_clock(self) -> None:
        self.gearman.turn()
        self.assertEqual(self.clock.seconds(), 0)
        self.gearman.turn(2.5)
        self.assertEqual(self.clock.seconds(), 2.5)

    def test_what_is_due_on_the_way_happens_at_its_time(self) -> None:
        times: list[float] = []

        def ring() -> None:
            times.append(self.clock.seconds())
            self.clock.callLater(3, ring)

        self.clock.callLater(1, ring)
        self.gearman.turn(10)
        self.assertEqual(times, [1, 4, 7, 10])
        self.assertEqual(self.clock.seconds(), 10)

    def test_waiting_for_what_is_there(self) -> None:
        self.assertEqual(self.gearman.wait(succeed("x")), "x")
        self.assertEqual(self.clock.seconds(), 0)

    def test_waiting_moves_the_clock_no_further_than_needed(self) -> None:
        self.clock.callLater(50, lambda: None)
        self.assertEqual(self.gearman.wait(deferLater(self.clock, 20, lambda: "x")), "x")
        self.assertEqual(self.clock.seconds(), 20)

    def test_the_result_stays_with_the_deferred(self) -> None:
        deferred = deferLater(self.clock, 1, lambda: "x")
        self.assertEqual(self.gearman.wait(deferred), "x")
        self.assertEqual(self.gearman.wait(deferred), "x")

    def test_a_failure_is_raised(self) -> None:
        def fail() -> None:
            raise ZeroDivisionError

        self.assertRaises(ZeroDivisionError, self.gearman.wait, deferLater(self.clock, 1, fail))

    def test_a_cancelled_deferred(self) -> None:
        deferred: Deferred[None] = Deferred()
        self.clock.callLater(1, deferred.cancel)
        self.assertRaises(CancelledError, self.gearman.wait, deferred)

    def test_nothing_could_fire_it(self) -> None:
        self.assertRaises(NotFired, self.gearman.wait, Deferred())
        self.assertEqual(self.clock.seconds(), 0)

    def test_a_job_that_nobody_runs(self) -> None:
        job = self.gearman.wait(self.gearman.client().submit("f", b""))
        self.assertRaises(NotFired, self.gearman.wait, job.result())

    def test_the_limit(self) -> None:
        deferred = deferLater(self.clock, 11, lambda: "x")
        self.assertRaises(NotFired, self.gearman.wait, deferred, 10)
        self.assertLessEqual(self.clock.seconds(), 10)
        self.assertEqual(self.gearman.wait(deferred, 20), "x")

    def test_the_limit_itself_is_within_it(self) -> None:
        self.assertEqual(self.gearman.wait(deferLater(self.clock, 10, lambda: "x"), 10), "x")

    def test_not_fired_is_a_test_s_failure(self) -> None:
        self.assertTrue(issubclass(NotFired, AssertionError))


class TransportTest(SynchronousTestCase):
    """The connection in memory, between two ends of the test's own."""

    def setUp(self) -> None:
        self.gearman = MemoryGearman()
        clock = self.gearman.clock
        self.near, self.far = End(), End()
        one, two = MemoryTransport(clock, 1), MemoryTransport(clock, 1)
        one.pair_with(two)
        one.attach(self.near)
        two.attach(self.far)

    def test_interfaces(self) -> None:
        for interface in (ITransport, IConsumer, IPushProducer):
            self.assertTrue(verifyObject(interface, self.near.transport))

    def test_nothing_arrives_while_it_is_written(self) -> None:
        self.near.transport.write(b"x")
        self.assertEqual(self.far.reads, [])
        self.gearman.turn()
        self.assertEqual(self.far.reads, [b"x"])

    def test_order(self) -> None:
        for number in range(10):
            self.near.transport.write(b"%d" % number)
        self.near.transport.writeSequence([b"a", b"b"])
        self.gearman.turn()
        self.assertEqual(self.far.reads, [b"0123456789ab"])

    def test_both_ways(self) -> None:
        self.near.transport.write(b"there")
        self.far.transport.write(b"back")
        self.gearman.turn()
        self.assertEqual((self.near.reads, self.far.reads), ([b"back"], [b"there"]))

    def test_losing_it_sends_what_was_written(self) -> None:
        self.near.transport.write(b"last")
        self.near.transport.loseConnection()
        self.near.transport.write(b"too late")
        self.assertIsNone(self.near.lost)
        self.gearman.turn()
        self.assertEqual(self.far.reads, [b"last"])
        for end in (self.near, self.far):
            self.assertIsInstance(end.lost, ConnectionDone)
            self.assertEqual(end.losses, 1)

    def test_who_loses_it_hears_no_more(self) -> None:
        self.near.transport.loseConnection()
        self.far.transport.write(b"x")
        self.gearman.turn()
        self.assertEqual(self.near.reads, [])

    def test_losing_it_waits_for_a_peer_that_does_not_read(self) -> None:
        self.far.transport.pauseProducing()
        self.near.transport.write(b"last")
        self.near.transport.loseConnection()
        self.gearman.turn(100)
        self.assertIsNone(self.near.lost)
        self.far.transport.resumeProducing()
        self.gearman.turn()
        self.assertEqual(self.far.reads, [b"last"])
        self.assertIsNotNone(self.near.lost)

    def test_both_lose_it(self) -> None:
        self.near.transport.loseConnection()
        self.far.transport.loseConnection()
        self.gearman.turn()
        self.assertEqual((self.near.losses, self.far.losses), (1, 1))

    def test_aborting_drops_what_was_written(self) -> None:
        self.near.transport.write(b"x")
        self.near.transport.abortConnection()
        self.near.transport.abortConnection()
        self.near.transport.write(b"y")
        self.assertIsNone(self.near.lost, "the protocol may be in the middle of something")
        self.gearman.turn()
        self.assertEqual(self.far.reads, [])
        self.assertIsInstance(self.near.lost, ConnectionAborted)
        self.assertIsInstance(self.far.lost, ConnectionLost)
        self.assertEqual((self.near.losses, self.far.losses), (1, 1))

    def test_a_lost_connection_does_nothing(self) -> None:
        self.near.transport.loseConnection()
        self.gearman.turn()
        for end in (self.near, self.far):
            end.transport.write(b"x")
            end.transport.loseConnection()
            end.transport.abortConnection()
            end.transport.pauseProducing()
            end.transport.resumeProducing()
            self.assertFalse(end.transport.connected)
        self.gearman.turn()
        self.assertEqual((self.near.losses, self.far.losses), (1, 1))
        self.assertEqual((self.near.reads, self.far.reads), ([], []))
        self.assertEqual(self.gearman.clock.getDelayedCalls(), [])

    def test_a_paused_end_hears_nothing(self) -> None:
        self.far.transport.pauseProducing()
        self.near.transport.write(b"one ")
        self.gearman.turn()
        self.near.transport.write(b"two")
        self.gearman.turn()
        self.assertEqual(self.far.reads, [])
        self.far.transport.resumeProducing()
        self.gearman.turn()
        self.assertEqual(self.far.reads, [b"one two"])

    def test_a_producer_is_paused_and_resumed(self) -> None:
        producer = Producer()
        self.near.transport.registerProducer(producer, True)
        self.near.transport.write(bytes(HIGH_WATER))
        self.assertEqual(producer.told, [])
        self.near.transport.write(b"x")
        self.near.transport.write(b"y")
        self.assertEqual(producer.told, ["pause"])
        self.gearman.turn()
        self.assertEqual(producer.told, ["pause", "resume"])

    def test_a_producer_stays_paused_while_nobody_reads(self) -> None:
        producer = Producer()
        self.near.transport.registerProducer(producer, True)
        self.far.transport.pauseProducing()
        self.near.transport.write(bytes(HIGH_WATER + 1))
        self.gearman.turn(100)
        self.assertEqual(producer.told, ["pause"])
        self.far.transport.resumeProducing()
        self.gearman.turn()
        self.assertEqual(producer.told, ["pause", "resume"])

    def test_a_producer_is_stopped_with_the_connection(self) -> None:
        producer, late = Producer(), Producer()
        self.near.transport.registerProducer(producer, True)
        self.far.transport.pauseProducing()
        self.near.transport.write(bytes(HIGH_WATER + 1))
        self.far.transport.abortConnection()
        self.gearman.turn()
        self.assertEqual(producer.told, ["pause", "stop"])
        self.near.transport.registerProducer(late, True)
        self.assertEqual(late.told, ["stop"])

    def test_one_producer_at_a_time(self) -> None:
        first, second = Producer(), Producer()
        self.near.transport.registerProducer(first, True)
        self.assertRaises(RuntimeError, self.near.transport.registerProducer, second, True)
        self.near.transport.unregisterProducer()
        self.near.transport.registerProducer(second, True)
        self.near.transport.write(bytes(HIGH_WATER + 1))
        self.assertEqual((first.told, second.told), ([], ["pause"]))


class RawTest(SynchronousTestCase):
    """Protocols of the test's own, joined to the server."""

    def test_a_raw_packet(self) -> None:
        gearman, end = MemoryGearman(), End()
        transport = gearman.connect(end)
        self.assertIs(end.transport, transport)
        transport.write(req(16, b"x"))
        gearman.turn()
        self.assertEqual(end.reads, [res(17, b"x")])

    def test_the_server_pauses_for_one_that_does_not_read(self) -> None:
        gearman, end = MemoryGearman(), End()
        transport = gearman.connect(end)
        transport.pauseProducing()
        for number in range(40):
            transport.write(req(16, b"%02d" % number + bytes(HIGH_WATER // 2)))
            gearman.turn()
        self.assertEqual(end.reads, [])
        transport.resumeProducing()
        gearman.turn()
        expected = b"".join(res(17, b"%02d" % number + bytes(HIGH_WATER // 2)) for number in range(40))
        self.assertTrue(b"".join(end.reads) == expected)

    def test_ended_connections_are_not_kept(self) -> None:
        gearman = MemoryGearman()
        for _ in range(10):
            gearman.connect(End()).loseConnection()
            gearman.turn()
        self.assertLessEqual(len(gearman._connections), 1)


class RetryTests(SynchronousTestCase):
    """Turning the clock to the next retry, and looking at the job."""

    def begin(self, **settings: Any) -> None:
        self.gearman = MemoryGearman(Settings(attempts=3, backoff=10.0, jitter=0.0, **settings))
        self.client = self.gearman.client()
        worker = self.gearman.worker()
        worker.register("f", self.run_job)
        worker.start()
        self.seconds = 0.0
        self.runs: list[float] = []

    def run_job(self, _job: Job) -> Deferred[bytes]:
        """Fails, after some time."""

        def fail() -> bytes:
            self.runs.append(self.gearman.clock.seconds())
            raise errors.FailJob("no")

        return deferLater(self.gearman.clock, self.seconds, fail)

    def submit(self) -> ClientJob:
        job: ClientJob = self.gearman.wait(self.client.submit("f", b"", background=True))
        return job

    def test_each_retry_until_the_job_is_dead(self) -> None:
        self.begin()
        job = self.submit()
        self.assertEqual(self.gearman.turn_to_next_retry(), 10)
        retrying = self.gearman.job(job)
        self.assertEqual((retrying.state, retrying.attempts, retrying.next_run), ("retrying", 2, 30))
        self.assertEqual(self.gearman.turn_to_next_retry(), 20)
        for name in (job, job.handle, job.handle.decode()):
            dead = self.gearman.job(name)
            self.assertEqual((dead.state, dead.attempts, dead.outcome), ("dead", 3, "failed"))
        self.assertEqual(self.runs, [0, 10, 30])
        self.assertEqual(self.gearman.clock.seconds(), 30)
        self.assertRaises(NotFired, self.gearman.turn_to_next_retry)
        (entry,) = self.gearman.wait(self.gearman.admin().dead())
        self.assertEqual(entry.handle, dead.handle)

    def test_a_run_that_takes_time(self) -> None:
        self.begin()
        self.seconds = 2.5
        self.submit()
        self.assertEqual(self.gearman.turn_to_next_retry(), 12.5)
        self.assertEqual(self.runs, [2.5])
        self.assertEqual(self.gearman.turn_to_next_retry(), 22.5)

    def test_the_first_of_several(self) -> None:
        self.begin()
        self.submit()
        self.gearman.turn(4)
        self.submit()
        self.assertEqual([self.gearman.turn_to_next_retry() for _ in range(3)], [6, 4, 16])
        self.assertEqual(self.runs, [0, 4, 10, 14, 30])

    def test_a_limit(self) -> None:
        self.begin()
        self.submit()
        self.assertRaises(NotFired, self.gearman.turn_to_next_retry, limit=9.9)
        self.assertEqual(self.gearman.turn_to_next_retry(limit=10), 10)

    def test_a_job_that_is_not_known(self) -> None:
        self.begin()
        self.assertRaises(errors.AdminError, self.gearman.job, b"H:x:1")
