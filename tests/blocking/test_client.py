"""The blocking client on a server of ours, which loses connections, stops and starts as the test says."""

from __future__ import annotations

import gc
import itertools
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.blocking.servers import LIMIT, BackgroundServer, ThreadedWorker, reversing, until, working
from tests.interop.programs import HOST
from tests.support import free_port
from txgearman import blocking as gearman
from txgearman import errors as package_errors
from txgearman.blocking import errors
from txgearman.blocking.background_thread import background_thread
from txgearman.server import Settings


class _Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.stack = ExitStack()
        self.addCleanup(self.stack.close)
        self.server = self.stack.enter_context(BackgroundServer())

    def client(self, *servers: Any, kind: type[gearman.GearmanClient] = gearman.GearmanClient) -> Any:
        client = kind(list(servers or [self.server.address]))
        self.stack.callback(client.shutdown)
        return client

    def reversing(self) -> ThreadedWorker:
        return self.stack.enter_context(reversing(self.server.address))


class Submitting(_Case):
    def test_result(self) -> None:
        self.reversing()
        request = self.client().submit_job("reverse", "Grüße, 世界", poll_timeout=LIMIT)
        self.assertEqual(request.result, "界世 ,eßürG")
        self.assertEqual(request.state, gearman.JOB_COMPLETE)
        self.assertIs(request.complete, True)
        self.assertIs(request.timed_out, False)
        self.assertEqual(request.job.data, "Grüße, 世界")
        self.assertEqual(len(request.job.unique), 32)
        self.assertTrue(request.job.handle.startswith("H:"))
        self.assertEqual(request.job.connection.get_address(), (HOST, self.server.port))
        self.assertIs(request.job, request.gearman_job)

    def test_random_uniques(self) -> None:
        client = self.client()
        jobs = [{"task": "nobody", "data": ""}] * 250
        uniques = {request.job.unique for request in client.submit_multiple_jobs(jobs, background=True)}
        self.assertEqual((len(uniques), {len(unique) for unique in uniques}), (250, {32}))
        client.random_unique_bytes = 0
        self.assertEqual(client.submit_job("nobody", "", background=True).job.unique, "")

    def test_bytes_that_are_no_text_come_back_as_they_were(self) -> None:
        data = bytes(range(256))
        worker = ThreadedWorker(self.server.address)
        worker.register_task("same", lambda _worker, job: job.data)
        self.stack.enter_context(working(worker))
        request = self.client().submit_job("same", data, poll_timeout=LIMIT)
        self.assertEqual(request.result.encode("utf-8", "surrogateescape"), data)
        again = self.client().submit_job("same", request.result, poll_timeout=LIMIT)
        self.assertEqual(again.result, request.result)

    def test_bytes_by_choice(self) -> None:
        class BytesClient(gearman.GearmanClient):
            data_encoder = gearman.NoopEncoder

        self.reversing()
        client = self.client(kind=BytesClient)
        self.assertEqual(client.submit_job("reverse", b"ab", poll_timeout=LIMIT).result, b"ba")
        with self.assertRaises(TypeError):
            client.submit_job("reverse", "text")

    def test_other_encoders(self) -> None:
        class Json(gearman.DataEncoder):
            @classmethod
            def encode(cls, encodable_object: Any) -> str:
                return f"[{encodable_object}]"

            @classmethod
            def decode(cls, decodable_string: bytes) -> Any:
                return ["decoded", decodable_string]

        class OtherClient(gearman.GearmanClient):
            data_encoder = Json

        self.reversing()
        request = self.client(kind=OtherClient).submit_job("reverse", 12, poll_timeout=LIMIT)
        self.assertEqual(request.result, ["decoded", b"]21["])

    def test_decoder_that_raises(self) -> None:
        class Broken(gearman.NoopEncoder):
            @classmethod
            def decode(cls, decodable_string: bytes) -> Any:
                raise LookupError(decodable_string)

        class BrokenClient(gearman.GearmanClient):
            data_encoder = Broken

        client = self.client(kind=BrokenClient)
        request = client.submit_job("reverse", b"ab", wait_until_complete=False, poll_timeout=LIMIT)
        # Not before, or its result might come with the news that it is accepted.
        self.reversing()
        with self.assertRaises(LookupError):
            client.wait_until_jobs_completed([request], poll_timeout=LIMIT)
        self.assertEqual(request.state, gearman.JOB_FAILED)
        with self.assertRaises(LookupError):
            client.submit_job("reverse", b"ab", poll_timeout=LIMIT)

    def test_an_option_that_is_unknown(self) -> None:
        with self.assertRaisesRegex(TypeError, "unexpected keyword argument 'colour'"):
            self.client().submit_job("f", "", colour="red")

    def test_failure(self) -> None:
        self.reversing()
        request = self.client().submit_job("fail", "", poll_timeout=LIMIT)
        self.assertEqual(request.state, gearman.JOB_FAILED)
        self.assertIs(request.complete, True)
        self.assertIsNone(request.result)
        self.assertEqual(len(self.flushLoggedErrors()), 0)

    def test_updates(self) -> None:
        self.reversing()
        request = self.client().submit_job("updates", "", poll_timeout=LIMIT)
        self.assertEqual(request.data_updates, deque(["part"]))
        self.assertEqual(request.warning_updates, deque(["beware"]))
        self.assertEqual(request.result, "")
        status_received = time.time() - request.status.pop("time_received")
        self.assertTrue(0 <= status_received < LIMIT, status_received)
        self.assertEqual(
            request.status,
            {
                "handle": request.job.handle,
                "known": True,
                "running": True,
                "numerator": 2,
                "denominator": 2,
            },
        )
        self.assertIs(request.server_status, request.status)
        self.assertEqual(request.status_updates, deque([(2, 2)]))

    def test_background(self) -> None:
        client = self.client()
        request = client.submit_job("reverse", "ab", background=True, poll_timeout=LIMIT)
        self.assertEqual(request.state, gearman.JOB_CREATED)
        self.assertIs(request.complete, True)
        self.assertIs(request.timed_out, False)
        status = client.get_job_status(request, poll_timeout=LIMIT).status
        self.assertEqual((status["known"], status["running"]), (True, False))
        self.reversing()
        until(
            lambda: not client.get_job_status(request, poll_timeout=LIMIT).status["known"],
            "the background job was run",
        )

    def test_without_waiting(self) -> None:
        client = self.client()
        request = client.submit_job("reverse", "ab", wait_until_complete=False, poll_timeout=LIMIT)
        self.assertEqual(request.state, gearman.JOB_CREATED)
        self.assertIs(request.complete, False)
        self.reversing()
        client.wait_until_jobs_completed([request], poll_timeout=LIMIT)
        self.assertEqual(request.result, "ba")

    def test_endpoint_description_and_host_name(self) -> None:
        self.reversing()
        for server in (f"tcp:{HOST}:{self.server.port}", f"localhost:{self.server.port}"):
            request = self.client(server).submit_job("reverse", "ab", poll_timeout=LIMIT)
            self.assertEqual(request.result, "ba")

    def test_many(self) -> None:
        self.reversing()
        jobs = [{"task": "reverse", "data": f"{number:04}"} for number in range(300)]
        requests = self.client().submit_multiple_jobs(jobs, poll_timeout=LIMIT)
        self.assertEqual([one.result for one in requests], [job["data"][::-1] for job in jobs])

    def test_priorities(self) -> None:
        client, order = self.client(), []
        for priority in (gearman.PRIORITY_LOW, gearman.PRIORITY_NONE, gearman.PRIORITY_HIGH):
            client.submit_job("note", str(priority), priority=priority, background=True, poll_timeout=LIMIT)
        worker = ThreadedWorker(self.server.address)
        worker.register_task("note", lambda _worker, job: order.append(job.data))
        self.stack.enter_context(working(worker))
        until(lambda: len(order) == 3, "three jobs ran")
        self.assertEqual(order, ["HIGH", "None", "LOW"])

    def test_one_unique_is_one_job_with_two_results(self) -> None:
        client = self.client()
        requests = client.submit_multiple_jobs(
            [{"task": "reverse", "data": "ab", "unique": "key"}] * 2,
            wait_until_complete=False,
            poll_timeout=LIMIT,
        )
        runs: list[str] = []
        worker = ThreadedWorker(self.server.address)
        worker.register_task("reverse", lambda _worker, job: runs.append(job.unique) or job.data[::-1])
        self.stack.enter_context(working(worker))
        client.wait_until_jobs_completed(requests, poll_timeout=LIMIT)
        self.assertEqual([one.result for one in requests], ["ba", "ba"])
        self.assertEqual(runs, ["key"])

    def test_wrong_arguments(self) -> None:
        client = self.client()
        for wrong in ({"unique": "u" * 65}, {"priority": "URGENT"}):
            with self.assertRaises(ValueError):
                client.submit_job("reverse", "", **wrong)
        with self.assertRaises(ValueError):
            client.submit_job("", "")
        with self.assertRaises(TypeError):
            client.submit_multiple_jobs({"task": "reverse", "data": ""})
        with self.assertRaises(TypeError):
            client.submit_job("reverse", 12)

    def test_what_hears_of_a_refusal_may_submit_something_else(self) -> None:
        class Elsewhere(gearman.GearmanClient):
            other: Any = None

            def on_gearman_error(self, error_code: str, error_text: str) -> bool:
                self.other = self.submit_job("other", error_text, background=True, poll_timeout=LIMIT)
                return False

        client = self.client(kind=Elsewhere)
        admin = gearman.GearmanAdminClient([self.server.address])
        self.stack.callback(admin.shutdown)
        client.submit_job("full", "", background=True, poll_timeout=LIMIT)
        admin.send_maxqueue("full", 1)
        refused = client.submit_job("full", "", poll_timeout=LIMIT)
        self.assertEqual((refused.state, client.other.state), (gearman.JOB_FAILED, gearman.JOB_CREATED))

    def test_refused_by_the_server(self) -> None:
        client = self.client()
        admin = gearman.GearmanAdminClient([self.server.address])
        self.addCleanup(admin.shutdown)
        client.submit_job("reverse", "", background=True, poll_timeout=LIMIT)
        admin.send_maxqueue("reverse", 1)
        with self.assertLogs("txgearman.blocking.client", "ERROR"):
            request = client.submit_job("reverse", "", poll_timeout=LIMIT)
        self.assertEqual(request.state, gearman.JOB_FAILED)
        self.assertEqual(request.exception, "QUEUE_ERROR: Job queue is full")


class Draining(_Case):
    """Two servers, of which the first is about to end."""

    def setUp(self) -> None:
        super().setUp()
        self.draining = self.stack.enter_context(BackgroundServer())
        self.drain(self.draining)

    def drain(self, server: BackgroundServer) -> None:
        background_thread().call(server.factory.administration.drain)

    def both(self) -> tuple[Any, str]:
        """A client of both, and a unique that goes to the one that is about to end first."""
        client = self.client(self.draining.address, self.server.address)
        request = gearman.GearmanJobRequest(gearman.GearmanJob(None, None, "reverse", "", "ab"))
        uniques = (f"key{number}" for number in itertools.count())
        request.job.unique = next(uniques)
        while client._servers_by_preference(request)[0] is not client.connection_list[0]:
            request.job.unique = next(uniques)
        return client, request.job.unique

    def test_the_job_goes_to_the_other_server(self) -> None:
        self.reversing()
        client, unique = self.both()
        request = client.submit_job("reverse", "ab", unique, poll_timeout=LIMIT)
        self.assertEqual((request.state, request.result), (gearman.JOB_COMPLETE, "ba"))
        self.assertEqual((request.exception, request.connection_attempts), (None, 1))
        self.assertIs(request.job.connection, client.connection_list[1])

    def test_offline_jobs_and_many(self) -> None:
        client, unique = self.both()
        jobs = [{"task": "reverse", "data": str(n), "unique": f"{unique}-{n}"} for n in range(50)]
        requests = client.submit_multiple_jobs(jobs, background=True, poll_timeout=LIMIT)
        self.assertEqual({request.state for request in requests}, {gearman.JOB_CREATED})
        self.assertEqual({request.job.connection for request in requests}, {client.connection_list[1]})

    def test_a_job_whose_acceptance_nobody_waited_for(self) -> None:
        self.reversing()
        client, unique = self.both()
        request = gearman.GearmanJobRequest(gearman.GearmanJob(None, None, "reverse", unique, "ab"))
        client.send_job_request(request)
        client.wait_until_jobs_completed([request], poll_timeout=LIMIT)
        self.assertEqual((request.state, request.result), (gearman.JOB_COMPLETE, "ba"))

    def test_where_all_are_about_to_end_the_refusal_is_told(self) -> None:
        self.drain(self.server)
        client, unique = self.both()
        with self.assertLogs("txgearman.blocking.client", "ERROR") as logged:
            request = client.submit_job("reverse", "ab", unique, poll_timeout=LIMIT)
        self.assertEqual(request.exception, "SHUTTING_DOWN: Server is shutting down")
        self.assertEqual((request.state, len(logged.records)), (gearman.JOB_FAILED, 1))

    def test_where_the_other_is_down_the_refusal_is_told(self) -> None:
        client, unique = self.both()
        self.server.stop()
        with self.assertLogs("txgearman.blocking.client", "ERROR"):
            request = client.submit_job("reverse", "ab", unique, poll_timeout=LIMIT)
        self.assertEqual(request.exception, "SHUTTING_DOWN: Server is shutting down")

    def test_a_job_that_the_other_loses_is_lost(self) -> None:
        client, unique = self.both()
        request = client.submit_job("reverse", "ab", unique, wait_until_complete=False, poll_timeout=LIMIT)
        self.server.cut()
        client.wait_until_jobs_completed([request], poll_timeout=LIMIT)
        self.assertEqual((request.state, request.timed_out), (gearman.JOB_UNKNOWN, False))

    def test_a_request_that_is_reset_may_go_to_any_server(self) -> None:
        self.drain(self.server)
        client, unique = self.both()
        request = client.submit_job("reverse", "ab", unique, poll_timeout=LIMIT)
        self.server.stop()
        self.server.start()
        self.reversing()
        request.reset()
        client.submit_multiple_requests([request], poll_timeout=LIMIT)
        self.assertEqual(request.result, "ba")


class TimeLimits(_Case):
    def test_poll_timeout(self) -> None:
        client = self.client()
        self.assertIs(client.submit_job("nobody", "", poll_timeout=0.05).timed_out, True)
        request = client.submit_job("reverse", "ab", wait_until_complete=False, poll_timeout=LIMIT)
        client.wait_until_jobs_completed([request], poll_timeout=0.05)
        self.assertIs(request.timed_out, True)
        self.assertEqual(request.state, gearman.JOB_CREATED)
        self.reversing()
        client.wait_until_jobs_completed([request], poll_timeout=LIMIT)
        self.assertIs(request.timed_out, False)
        self.assertEqual(request.result, "ba")

    def test_a_job_that_is_accepted_when_the_time_is_over(self) -> None:
        class Slow(gearman.GearmanClient):
            def wait_until_jobs_accepted(self, job_requests: Any, poll_timeout: float | None = None) -> Any:
                return super().wait_until_jobs_accepted(job_requests, LIMIT)

        request = self.client(kind=Slow).submit_job("nobody", "", poll_timeout=0)
        self.assertEqual((request.state, request.timed_out), (gearman.JOB_CREATED, True))

    def test_some_time_out(self) -> None:
        self.reversing()
        client = self.client()
        requests = client.submit_multiple_jobs(
            [{"task": "reverse", "data": "ab"}, {"task": "nobody", "data": ""}],
            wait_until_complete=False,
            poll_timeout=LIMIT,
        )
        client.wait_until_jobs_completed(requests[:1], poll_timeout=LIMIT)
        client.wait_until_jobs_completed(requests, poll_timeout=0.05)
        self.assertEqual([one.timed_out for one in requests], [False, True])

    def test_server_that_never_answers(self) -> None:
        mute = self.stack.enter_context(BackgroundServer(mute=True))
        client = self.client(mute.address)
        client.connection_list[0].connect(LIMIT)
        request = client.submit_job("reverse", "", poll_timeout=0.05)
        self.assertIs(request.timed_out, True)
        self.assertEqual(request.state, gearman.JOB_PENDING)

    def test_connection_that_is_never_made(self) -> None:
        @implementer(IStreamClientEndpoint)
        class Never:
            def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
                return Deferred()

        class NeverConnection(gearman.GearmanConnection):
            def endpoint(self, reactor: Any) -> Any:
                return Never()

        class NeverClient(gearman.GearmanClient):
            connection_class = NeverConnection

        request = self.client(kind=NeverClient).submit_job("reverse", "", poll_timeout=0.05)
        self.assertEqual((request.timed_out, request.state), (True, gearman.JOB_UNKNOWN))

    def test_status_that_never_comes(self) -> None:
        mute = self.stack.enter_context(BackgroundServer(mute=True))
        client = self.client(mute.address)
        job = gearman.GearmanJob(client.connection_list[0], "H:x:1", None, None, None)
        request = gearman.GearmanJobRequest(job)
        request.state = gearman.JOB_CREATED
        client.get_job_status(request, poll_timeout=0.05)
        self.assertIs(request.timed_out, True)


class Status(_Case):
    def test_updates_go_to_the_request_that_asked_last(self) -> None:
        client, proceed = self.client(), threading.Event()

        def slow(worker: gearman.GearmanWorker, job: gearman.GearmanJob) -> str:
            worker.send_job_data(job, "first")
            proceed.wait(LIMIT)
            worker.send_job_data(job, "second")
            return "done"

        worker = ThreadedWorker(self.server.address)
        worker.register_task("slow", slow)
        self.stack.enter_context(working(worker))
        own = client.submit_job("slow", "", wait_until_complete=False, poll_timeout=LIMIT)

        def ask() -> Any:
            job = gearman.job.GearmanJob(client.connection_list[0], own.job.handle, None, None, None)
            request = gearman.job.GearmanJobRequest(job)
            request.state = "CREATED"
            return client.get_job_status(request, poll_timeout=LIMIT)

        until(lambda: bool(own.data_updates) or bool(ask().data_updates), "the first update came")
        self.assertEqual(own.data_updates, deque(["first"]))
        last = ask()
        self.assertEqual(last.data_updates, deque())
        self.assertEqual((last.status["known"], last.status["running"]), (True, True))
        proceed.set()
        client.wait_until_jobs_completed([own, last], poll_timeout=LIMIT)
        self.assertEqual(own.data_updates, deque(["first", "second"]))
        self.assertEqual(last.data_updates, deque(["second"]))
        self.assertEqual((own.result, last.result, last.state), ("done", "done", gearman.JOB_COMPLETE))
        self.assertEqual(client._pending.subscribers, {})
        self.assertEqual(client._pending.waiting, {})

    def test_unknown_job(self) -> None:
        client = self.client()
        job = gearman.GearmanJob(client.connection_list[0], "H:nowhere:1", None, None, None)
        request = gearman.GearmanJobRequest(job)
        request.state = gearman.JOB_CREATED
        self.assertIs(client.get_job_status(request, poll_timeout=LIMIT), request)
        self.assertIs(request.timed_out, False)
        self.assertEqual(
            {key: value for key, value in request.status.items() if key != "time_received"},
            {"handle": "H:nowhere:1", "known": False, "running": False, "numerator": 0, "denominator": 0},
        )

    def test_several(self) -> None:
        client = self.client()
        requests = client.submit_multiple_jobs(
            [{"task": "reverse", "data": str(number)} for number in range(3)],
            background=True,
            poll_timeout=LIMIT,
        )
        status_received = client.get_job_statuses(requests, poll_timeout=LIMIT)
        self.assertEqual([one.status["known"] for one in status_received], [True] * 3)
        self.assertEqual(
            [one.status["handle"] for one in status_received], [one.job.handle for one in requests]
        )

    def test_job_that_was_not_submitted(self) -> None:
        client = self.client()
        request = gearman.GearmanJobRequest(gearman.GearmanJob(None, None, "reverse", "u", ""))
        with self.assertRaises(errors.InvalidClientState):
            client.get_job_status(request)


class Losses(_Case):
    def test_no_server(self) -> None:
        client = self.client(f"{HOST}:{free_port()}")
        with self.assertRaises(errors.ServerUnavailable):
            client.submit_job("reverse", "")
        servers = [f"{HOST}:{free_port()}", f"{HOST}:{free_port()}"]
        with self.assertRaises(errors.ServerUnavailable) as caught:
            self.client(*servers).submit_job("reverse", "")
        self.assertEqual(str(caught.exception), f"no server can be reached of {servers[0]}, {servers[1]}")
        with self.assertRaises(package_errors.GearmanError):
            client.submit_job("reverse", "")

    def test_no_server_in_the_list(self) -> None:
        with self.assertRaisesRegex(errors.ServerUnavailable, "of an empty list$"):
            gearman.GearmanClient().submit_job("reverse", "")

    def test_one_connection(self) -> None:
        client = self.client(f"{HOST}:{free_port()}")
        (connection,) = client.connection_list
        with self.assertRaises(errors.ConnectionError) as caught:
            client.establish_connection(connection)
        self.assertIsInstance(caught.exception, ConnectionError)
        with self.assertRaises(ValueError):
            client.establish_connection(gearman.GearmanConnection(HOST))

    def test_server_that_is_down_is_passed_over(self) -> None:
        self.reversing()
        client = self.client(f"{HOST}:{free_port()}", self.server.address)
        for number in range(10):
            request = client.submit_job("reverse", f"{number}x", poll_timeout=LIMIT)
            self.assertEqual(request.result, f"x{number}")

    def test_running_job_of_a_lost_connection(self) -> None:
        client = self.client()
        request = client.submit_job("nobody", "", wait_until_complete=False, poll_timeout=LIMIT)
        self.server.cut()
        with self.assertRaises(errors.ServerUnavailable):
            client.wait_until_jobs_completed([request], poll_timeout=LIMIT)
        self.assertEqual(request.state, gearman.JOB_UNKNOWN)
        self.assertIs(request.timed_out, False)

    def test_the_next_job_after_a_restart_needs_no_retry(self) -> None:
        client = self.client()
        client.submit_job("reverse", "", background=True, poll_timeout=LIMIT)
        self.server.stop()
        self.server.start()
        self.reversing()
        self.assertEqual(client.submit_job("reverse", "ab", poll_timeout=LIMIT).result, "ba")

    def test_server_that_is_gone_meanwhile(self) -> None:
        client = self.client()
        client.submit_job("reverse", "", background=True, poll_timeout=LIMIT)
        self.server.stop()
        with self.assertRaises(errors.ServerUnavailable):
            client.submit_job("reverse", "", poll_timeout=LIMIT)

    def test_retries(self) -> None:
        """A server that takes the job and is lost before it accepts it."""
        mute = self.stack.enter_context(BackgroundServer(mute=True))
        client = self.client(mute.address)

        def submit(**options: Any) -> Any:
            cutter = threading.Thread(target=self._cut_when_connected, args=(mute,))
            cutter.start()
            try:
                return client.submit_job("reverse", "ab", **options)
            finally:
                cutter.join(LIMIT)

        with self.assertRaises(errors.ExceededConnectionAttempts):
            submit(poll_timeout=LIMIT)
        # All of it is waited for, and the second attempt must begin within it on a loaded machine, too.
        request = submit(max_retries=1, poll_timeout=1.5)
        self.assertEqual((request.connection_attempts, request.state), (2, gearman.JOB_PENDING))

    def test_retry_goes_to_another_server(self) -> None:
        self.reversing()
        mute = self.stack.enter_context(BackgroundServer(mute=True))
        client = self.client(mute.address, self.server.address)
        request = gearman.GearmanJobRequest(gearman.GearmanJob(None, None, "reverse", "key", "ab"))
        uniques = (f"key{number}" for number in itertools.count())
        while client._servers_by_preference(request)[0] is not client.connection_list[0]:
            request.job.unique = next(uniques)
        cutter = threading.Thread(target=self._cut_when_connected, args=(mute,))
        cutter.start()
        unique = request.job.unique
        request = client.submit_job("reverse", "ab", unique, max_retries=1, poll_timeout=LIMIT)
        cutter.join(LIMIT)
        self.assertEqual((request.result, request.connection_attempts), ("ba", 2))
        self.assertIs(request.job.connection, client.connection_list[1])

    def _cut_when_connected(self, mute: BackgroundServer) -> None:
        until(lambda: mute.connections > 0, "the client has connected")
        mute.cut()

    def test_lost_request_can_be_submitted_again(self) -> None:
        client = self.client()
        request = client.submit_job("reverse", "ab", wait_until_complete=False, poll_timeout=LIMIT)
        self.server.cut()
        with self.assertRaises(errors.ServerUnavailable):
            client.wait_until_jobs_completed([request], poll_timeout=LIMIT)
        with self.assertRaises(errors.ExceededConnectionAttempts):
            client.submit_multiple_requests([request], poll_timeout=LIMIT)
        request.reset()
        self.reversing()
        client.submit_multiple_requests([request], poll_timeout=LIMIT)
        self.assertEqual(request.result, "ba")

    def test_status_of_a_lost_server(self) -> None:
        client = self.client()
        request = client.submit_job("reverse", "", background=True, poll_timeout=LIMIT)
        self.server.stop()
        with self.assertRaises(errors.ServerUnavailable):
            client.get_job_status(request, poll_timeout=LIMIT)
        self.assertIs(request.timed_out, True)

    def test_shutdown_loses_what_runs(self) -> None:
        client = self.client()
        request = client.submit_job("reverse", "ab", wait_until_complete=False, poll_timeout=LIMIT)
        client.shutdown()
        self.assertEqual(request.state, gearman.JOB_CREATED)
        self.reversing()
        self.assertEqual(client.submit_job("reverse", "ab", poll_timeout=LIMIT).result, "ba")

    def test_forgotten_client_leaves_no_connection(self) -> None:
        client = gearman.GearmanClient([self.server.address])
        client.submit_job("reverse", "", background=True, poll_timeout=LIMIT)
        self.assertEqual(self.server.connections, 1)
        del client
        gc.collect()
        until(lambda: self.server.connections == 0, "the connection is closed")


class Choosing(SynchronousTestCase):
    def preferred(self, servers: list[str], unique: str) -> list[str]:
        client = gearman.GearmanClient(servers)
        request = gearman.GearmanJobRequest(gearman.GearmanJob(None, None, "f", unique, "data"))
        return [one.gearman_host for one in client._servers_by_preference(request)]

    def test_unique_goes_to_one_server_whatever_their_order(self) -> None:
        servers = [f"host{number}" for number in range(5)]
        for number in range(50):
            first = self.preferred(servers, f"key{number}")[0]
            self.assertEqual(first, self.preferred(servers[::-1], f"key{number}")[0])
            others = [server for server in servers if server != first]
            without = next(server for server in servers if server != first)
            kept = [server for server in servers if server != without]
            self.assertEqual(first, self.preferred(kept, f"key{number}")[0])
            self.assertNotEqual(first, self.preferred(others, f"key{number}")[0])

    def test_keys_spread(self) -> None:
        servers = [f"host{number}" for number in range(5)]
        firsts = {self.preferred(servers, f"key{number}")[0] for number in range(100)}
        self.assertEqual(firsts, set(servers))

    def test_failed_server_comes_last(self) -> None:
        client = gearman.GearmanClient(["a", "b", "c"])
        request = gearman.GearmanJobRequest(gearman.GearmanJob(None, None, "f", "key", ""))
        first = client._servers_by_preference(request)[0]
        first.failed_at = time.monotonic()
        self.assertIs(client._servers_by_preference(request)[-1], first)


class Threads(_Case):
    def test_threads_share_a_client(self) -> None:
        self.reversing()
        client, results = self.client(), {}

        def submit(number: int) -> None:
            for turn in range(20):
                data = f"{number}-{turn}"
                request = client.submit_job("reverse", data, poll_timeout=LIMIT)
                results[data] = request.result

        threads = [threading.Thread(target=submit, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT)
        self.assertEqual(len(results), 160)
        self.assertEqual({data for data, result in results.items() if result != data[::-1]}, set())

    def test_task_that_submits(self) -> None:
        """A worker's task uses a client: two of them in one process, in different threads."""
        self.reversing()
        client = self.client()
        worker = ThreadedWorker(self.server.address)
        worker.register_task(
            "outer", lambda _worker, job: client.submit_job("reverse", job.data, poll_timeout=LIMIT).result
        )
        self.stack.enter_context(working(worker))
        self.assertEqual(self.client().submit_job("outer", "ab", poll_timeout=LIMIT).result, "ba")


class Overflow(_Case):
    def test_updates_that_nobody_takes_are_an_error(self) -> None:
        from txgearman.blocking import event_queue

        self.patch(event_queue, "MAX_QUEUED_BYTES", 5000)
        submitted, sent = threading.Event(), threading.Event()

        def flood(worker: gearman.GearmanWorker, job: gearman.GearmanJob) -> None:
            # Otherwise the submit may already be told.
            submitted.wait(LIMIT)
            for _ in range(20):
                worker.send_job_data(job, "x" * 1000)
            sent.set()

        worker = ThreadedWorker(self.server.address)
        worker.register_task("flood", flood)
        self.stack.enter_context(working(worker))
        client = self.client()
        request = client.submit_job("flood", "", wait_until_complete=False, poll_timeout=LIMIT)
        submitted.set()
        self.assertTrue(sent.wait(LIMIT))
        until(lambda: client._event_queue._free_bytes < 1500, "the queue is full")
        with self.assertRaises(package_errors.UpdatesLost):
            client.wait_until_jobs_completed([request], poll_timeout=LIMIT)
        client.wait_until_jobs_completed([request], poll_timeout=LIMIT)
        self.assertEqual(request.state, gearman.JOB_COMPLETE)


class RunMany(SynchronousTestCase):
    """Very many online jobs by one call."""

    def setUp(self) -> None:
        stack = ExitStack()
        self.addCleanup(stack.close)
        self.server = stack.enter_context(BackgroundServer())
        stack.enter_context(reversing(self.server.address))
        self.client = gearman.GearmanClient([self.server.address])
        stack.callback(self.client.shutdown)

    def test_results_in_order(self) -> None:
        payloads = [f"{number}!" for number in range(200)]
        outcomes = list(self.client.run_many("reverse", iter(payloads), window=30))
        self.assertEqual([one.index for one in outcomes], list(range(200)))
        self.assertEqual([one.result() for one in outcomes], [data[::-1] for data in payloads])

    def test_results_as_they_come(self) -> None:
        payloads = ["ab", "cd", "ef"]
        outcomes = list(self.client.run_many("reverse", payloads, ordered=False, priority="high"))
        self.assertEqual(
            sorted((one.index, one.value) for one in outcomes), [(0, "ba"), (1, "dc"), (2, "fe")]
        )

    def test_payloads_are_read_in_the_thread_that_asks(self) -> None:
        threads: set[str] = set()

        def payloads() -> Iterator[str]:
            for _ in range(10):
                threads.add(threading.current_thread().name)
                yield "ab"

        self.assertEqual(len(list(self.client.run_many("reverse", payloads(), window=3))), 10)
        self.assertEqual(threads, {threading.current_thread().name})

    def test_a_failure_is_an_outcome(self) -> None:
        with self.assertLogs("txgearman.blocking.worker", "ERROR"):
            (outcome,) = self.client.run_many("fail", [""])
        self.assertIsInstance(outcome.error, package_errors.JobFailed)

    def test_leaving_early(self) -> None:
        for outcome in self.client.run_many("reverse", ["ab"] * 100):
            self.assertEqual(outcome.value, "ba")
            break
        self.assertEqual(self.client.submit_job("reverse", "ab", poll_timeout=LIMIT).result, "ba")

    def test_no_server(self) -> None:
        with self.assertRaises(errors.ServerUnavailable):
            list(gearman.GearmanClient([]).run_many("f", [""]))

    def test_the_servers_may_change(self) -> None:
        self.assertEqual(len(list(self.client.run_many("reverse", ["ab"]))), 1)
        with BackgroundServer() as other:
            self.client.add_connection(other.address)
            with reversing(other.address):
                self.assertEqual(len(list(self.client.run_many("reverse", ["ab"] * 20))), 20)


class Schedules(SynchronousTestCase):
    def client_of(self, **settings: Any) -> gearman.GearmanClient:
        server = self.enterContext(BackgroundServer(settings=Settings(**settings)))
        client = gearman.GearmanClient(server.address)
        self.addCleanup(client.shutdown)
        return client

    def test_made_replaced_and_removed(self) -> None:
        client = self.client_of(allow_unsaved_schedules=True)
        handle = client.schedule(
            "f", "data", minute="*/5", weekday="mon-fri", unique="key", poll_timeout=LIMIT
        )
        self.assertIsInstance(handle, gearman.Name)
        again = client.schedule(b"f", "data", hour="3", unique=b"key", poll_timeout=LIMIT)
        self.assertEqual(again, handle, "it replaces the other")
        client.unschedule(again, poll_timeout=LIMIT)
        with self.assertRaisesRegex(package_errors.AdminError, "UNKNOWN_JOB"):
            client.unschedule(again, poll_timeout=LIMIT)

    def test_refused(self) -> None:
        with self.assertRaises(package_errors.ServerError):
            self.client_of().schedule("f", "", poll_timeout=LIMIT)
        with self.assertRaises(package_errors.ServerError):
            self.client_of(allow_unsaved_schedules=True).schedule("f", "", minute="61", poll_timeout=LIMIT)

    def test_no_server(self) -> None:
        client = gearman.GearmanClient(f"{HOST}:{free_port()}")
        self.addCleanup(client.shutdown)
        with self.assertRaises(errors.ServerUnavailable):
            client.schedule("f", "")
        with self.assertRaises(errors.ServerUnavailable):
            client.unschedule("H:x:1")
