"""Programs in the shape of those that were written for python-gearman, run as they would be.

They are our own, in the shapes that public programs have:

* a `work` with a loop of its own, around `establish_worker_connections` and `poll_connections_until_stopped`
  (six programs, two of them with `after_job` and the job lock, one with a wait of its own in a client);
* hooks that report a job twice, by two hooks or by a hook and a returned value;
* a task that shuts its worker down and raises, so that another worker gets the job;
* a call with a deadline that closes its client before it looks at the request;
* names that are bytes, servers as dictionaries, and administration.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from twisted.internet.ssl import Certificate, PrivateCertificate
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial import util
from twisted.trial.unittest import SynchronousTestCase

from tests.blocking.servers import LIMIT, BackgroundServer, ThreadedWorker, reverse, until, working
from tests.certificates import authorities
from tests.interop.programs import HOST
from tests.support import free_port
from txgearman import blocking as gearman
from txgearman.blocking import errors
from txgearman.blocking.background_thread import background_thread

LOGGER = "txgearman.blocking.worker"


class _Programs(SynchronousTestCase):
    def setUp(self) -> None:
        self.stack = ExitStack()
        self.addCleanup(self.stack.close)
        self.server = self.stack.enter_context(BackgroundServer())
        self.client = gearman.GearmanClient([self.server.address])
        self.stack.callback(self.client.shutdown)

    def submit(self, task: str, data: Any = "", **options: Any) -> Any:
        return self.client.submit_job(task, data, poll_timeout=LIMIT, **options)

    def submit_offline(self, task: str, count: int) -> None:
        for number in range(count):
            self.submit(task, str(number), background=True)

    def waiting(self) -> list[int]:
        """How often each job that the server has was given out in vain, when all workers are gone."""
        until(lambda: self.server.connections == 1, "only the client is connected")
        jobs = background_thread().call(lambda: list(self.server.factory.inspection.jobs()))
        return [job.losses for job in jobs]


class LoopingWorker(gearman.GearmanWorker):
    """Has a `work` of its own, as programs copied it from python-gearman 2.0.2; ends after `most` jobs."""

    def __init__(self, host_list: Any, most: int) -> None:
        super().__init__(host_list)
        self.most = most
        self.rounds = 0
        self.polls: list[bool] = []

    def on_job_execute(self, current_job: gearman.GearmanJob) -> bool:
        self.most -= 1
        return super().on_job_execute(current_job)

    def after_poll(self, any_activity: bool) -> bool:
        self.polls.append(any_activity)
        return self.most > 0

    def work(self, poll_timeout: float = 60.0) -> None:
        continue_working = True
        connections: list[gearman.GearmanConnection] = []
        while continue_working:
            self.rounds += 1
            connections = self.establish_worker_connections()
            continue_working = self.poll_connections_until_stopped(
                connections, self.after_poll, timeout=poll_timeout
            )
        for connection in connections:
            connection.close()


class LockedWorker(gearman.GearmanWorker):
    """Has the `work` of the last python-gearman, which sees the end of a job by the job lock."""

    def __init__(self, host_list: Any, most: int) -> None:
        super().__init__(host_list)
        self.most = most

    def after_job(self) -> bool:
        self.most -= 1
        return self.most > 0

    def work(self, poll_timeout: float = 60.0) -> None:
        had_job: list[bool] = []

        def continue_while_connections_alive(any_activity: bool) -> bool:
            if had_job and not self.has_job_lock():
                del had_job[:]
                return self.after_poll(any_activity) and self.after_job()
            del had_job[:]
            if self.has_job_lock():
                had_job.append(True)
            return self.after_poll(any_activity)

        continue_working = True
        connections: list[gearman.GearmanConnection] = []
        while continue_working:
            connections = self.establish_worker_connections()
            continue_working = self.poll_connections_until_stopped(
                connections, continue_while_connections_alive, timeout=poll_timeout
            )
        for connection in connections:
            connection.close()


class OwnLoops(_Programs):
    def test_so_many_jobs(self) -> None:
        """Each job is run once, none is taken that is not run, and no connection is left."""
        self.submit_offline("reverse", 6)
        for kind in (LoopingWorker, LockedWorker):
            worker = kind([self.server.address], 2)
            worker.register_task("reverse", reverse)
            worker.work()
            self.assertIs(worker.connection_list[0].connected, False)
        self.assertEqual(self.waiting(), [0, 0])

    def test_looks_between_jobs(self) -> None:
        worker = LoopingWorker([self.server.address], 2)
        worker.register_task("reverse", reverse)
        self.submit_offline("reverse", 2)
        worker.work()
        self.assertEqual((worker.polls[0], set(worker.polls[1:]), worker.most), (False, {True}, 0))

    def test_rounds_without_jobs_keep_the_connection(self) -> None:
        worker = LoopingWorker([self.server.address], 1)
        worker.register_task("reverse", reverse)
        thread = threading.Thread(target=worker.work, args=(0.01,))
        thread.start()
        until(lambda: worker.rounds > 3, "several rounds have passed")
        self.assertEqual(self.submit("reverse", "ab").result, "ba")
        thread.join(LIMIT)
        self.assertFalse(thread.is_alive())
        self.assertEqual(self.server.connections, 1)

    def test_it_can_work_again(self) -> None:
        worker = LoopingWorker([self.server.address], 1)
        worker.register_task("reverse", reverse)
        for most in (1, 2):
            worker.most = most
            self.submit_offline("reverse", most)
            worker.work()
        self.assertEqual(self.waiting(), [])

    def test_no_server(self) -> None:
        for servers in ([], [f"{HOST}:{free_port()}"]):
            worker = LoopingWorker(servers, 1)
            self.assertEqual(worker.establish_worker_connections(), [])
            with self.assertRaises(errors.ServerUnavailable):
                worker.work()

    def test_one_of_two_servers_is_down(self) -> None:
        worker = LoopingWorker([f"{HOST}:{free_port()}", self.server.address], 1)
        worker.register_task("reverse", reverse)
        self.submit_offline("reverse", 1)
        worker.work()
        self.assertEqual(self.waiting(), [])

    def test_one_of_two_connections_is_closed(self) -> None:
        other = self.stack.enter_context(BackgroundServer())
        worker = LoopingWorker([other.address, self.server.address], 1)
        worker.register_task("reverse", reverse)
        first, _ = worker.establish_worker_connections()
        until(lambda: other.connections == 1, "it is connected to both")
        first.close()
        self.assertEqual(
            [one.gearman_port for one in worker.establish_worker_connections()], [self.server.port]
        )
        self.submit_offline("reverse", 1)
        thread = threading.Thread(target=worker.work)
        thread.start()
        until(lambda: other.connections == 0, "the one is closed")
        thread.join(LIMIT)
        self.assertFalse(thread.is_alive())
        self.assertEqual(self.waiting(), [])

    def test_shutdown_ends_the_loop(self) -> None:
        """From a task, from another thread, and when no loop runs."""
        worker = LoopingWorker([self.server.address], 9)
        worker.register_task("last", lambda worker, _job: worker.shutdown() or "bye")
        request = self.submit("last", wait_until_complete=False)
        worker.work()
        self.client.wait_until_jobs_completed([request], poll_timeout=LIMIT)
        self.assertEqual(request.result, "bye")
        thread = threading.Thread(target=worker.work)
        thread.start()
        until(lambda: self.server.connections == 2, "it works again")
        worker.shutdown()
        thread.join(LIMIT)
        self.assertFalse(thread.is_alive())
        worker.establish_worker_connections()
        self.assertEqual(self.server.connections, 2)
        worker.shutdown()
        until(lambda: self.server.connections == 1, "it is closed")

    def test_a_loop_that_fails_gives_its_job_back(self) -> None:
        def interrupt(*_: Any) -> None:
            raise KeyboardInterrupt

        worker = LoopingWorker([self.server.address], 1)
        worker.register_task("task", interrupt)
        self.submit_offline("task", 1)
        with self.assertRaises(KeyboardInterrupt):
            worker.work()
        self.assertEqual(self.waiting(), [1])
        self.assertIs(worker.has_job_lock(), False)

    def test_a_task_that_closes_the_connections(self) -> None:
        def close(worker: gearman.GearmanWorker, _job: gearman.GearmanJob) -> str:
            for connection in worker.connection_list:
                connection.close()
            return "lost"

        worker = LoopingWorker([self.server.address], 9)
        worker.register_task("task", close)
        self.submit_offline("task", 1)
        with self.assertLogs(LOGGER, "WARNING"), self.assertRaises(errors.ServerUnavailable):
            worker.work()
        self.assertEqual(self.waiting(), [1])

    def test_two_loops_at_once(self) -> None:
        worker = LoopingWorker([self.server.address], 1)
        worker.register_task("reverse", reverse)
        thread = threading.Thread(target=worker.work)
        thread.start()
        until(lambda: bool(worker.polls), "it works")
        with self.assertRaises(errors.InvalidWorkerState):
            worker.poll_connections_until_stopped(worker.connection_list, lambda _: True, timeout=LIMIT)
        self.assertEqual(self.submit("reverse", "ab").result, "ba")
        thread.join(LIMIT)
        self.assertFalse(thread.is_alive())

    def test_a_worker_that_is_forgotten(self) -> None:
        gearman.GearmanWorker([self.server.address]).establish_worker_connections()
        until(lambda: self.server.connections <= 1, "its connection is closed")

    def test_clients_own_wait(self) -> None:
        """A client that takes what is done first."""

        class AnyClient(gearman.GearmanClient):
            def wait_until_any_job_completed(self, requests: list[Any], poll_timeout: float) -> bool:
                stopped = not self.poll_connections_until_stopped(
                    self.connection_list,
                    lambda any_activity: not any(request.complete for request in requests),
                    timeout=poll_timeout,
                )
                for request in requests:
                    self.request_to_rotating_connection_queue.pop(request, None)
                return stopped

        client = AnyClient([self.server.address])
        self.stack.callback(client.shutdown)
        slow = client.submit_job("nobody", "", wait_until_complete=False, poll_timeout=LIMIT)
        self.assertIs(client.wait_until_any_job_completed([slow], 0.01), False)
        worker = ThreadedWorker(self.server.address)
        worker.register_task("reverse", reverse)
        self.stack.enter_context(working(worker))
        quick = client.submit_job("reverse", "ab", wait_until_complete=False, poll_timeout=LIMIT)
        self.assertIs(client.wait_until_any_job_completed([slow, quick], LIMIT), True)
        self.assertEqual((slow.state, quick.result), (gearman.JOB_CREATED, "ba"))
        self.server.stop()
        with self.assertRaises(errors.ServerUnavailable):
            client.wait_until_any_job_completed([slow], LIMIT)


class AfterJob(_Programs):
    def test_ends_work_behind_a_job(self) -> None:
        class Once(gearman.GearmanWorker):
            calls = 0

            def after_job(self) -> bool:
                self.calls += 1
                return False

        self.submit_offline("reverse", 2)
        worker = Once([self.server.address])
        worker.register_task("reverse", reverse)
        worker.work()
        self.assertEqual((worker.calls, self.waiting()), (1, [0]))

    def test_is_called_behind_after_poll_and_not_without_a_job(self) -> None:
        class Both(gearman.GearmanWorker):
            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments)
                self.calls: list[Any] = []

            def after_poll(self, any_activity: bool) -> bool:
                self.calls.append((any_activity, self.has_job_lock()))
                return True

            def after_job(self) -> bool:
                self.calls.append("job")
                return False

        self.submit_offline("reverse", 1)
        worker = Both([self.server.address])
        worker.register_task("reverse", reverse)
        worker.work()
        self.assertEqual(worker.calls, [(False, False), (True, False), "job"])

    def test_the_job_lock_is_held_while_a_task_runs(self) -> None:
        seen: list[bool] = []
        worker = ThreadedWorker(self.server.address)
        worker.register_task("task", lambda worker, _job: seen.append(worker.has_job_lock()))
        self.stack.enter_context(working(worker))
        self.submit("task")
        self.assertEqual(seen, [True])
        until(lambda: worker.command_handler_holding_job_lock is None, "it is free after the job")


def _twice(first: Callable[..., object]) -> Callable[..., str]:
    """A task that reports how it ended, and returns a value then."""

    def task(worker: gearman.GearmanWorker, job: gearman.GearmanJob) -> str:
        first(worker, job)
        return "returned"

    return task


class LoggingWorker(gearman.GearmanWorker):
    """Tells the submitter of an exception, and then does what the library does."""

    def on_job_exception(self, current_job: gearman.GearmanJob, exc_info: Any) -> bool:
        self.send_job_exception(current_job, str(exc_info[1]))
        return super().on_job_exception(current_job, exc_info)


class ReportingWorker(LoggingWorker, ThreadedWorker):
    """The same, for a thread."""


class Twice(_Programs):
    """A second report is logged and dropped, and the worker goes on."""

    def run_task(self, task: Callable[..., object], kind: type[ThreadedWorker] = ThreadedWorker) -> Any:
        worker = kind(self.server.address)
        worker.register_task("task", task)
        worker.register_task("reverse", reverse)
        with self.assertLogs(LOGGER, "WARNING") as logged, working(worker):
            request = self.submit("task")
            self.assertEqual(self.submit("reverse", "ab").result, "ba")
        self.assertEqual(sum("has ended" in line for line in logged.output), 1)
        return request

    def test_failure_and_a_value(self) -> None:
        request = self.run_task(_twice(lambda worker, job: worker.send_job_failure(job)))
        self.assertEqual((request.state, request.result), (gearman.JOB_FAILED, None))

    def test_exception_and_a_value(self) -> None:
        request = self.run_task(_twice(lambda worker, job: worker.send_job_exception(job, "no")))
        self.assertEqual((request.state, request.exception), (gearman.JOB_FAILED, "no"))

    def test_result_and_a_value(self) -> None:
        request = self.run_task(_twice(lambda worker, job: worker.send_job_complete(job, "sent")))
        self.assertEqual((request.state, request.result), (gearman.JOB_COMPLETE, "sent"))

    def test_result_and_an_error(self) -> None:
        def task(worker: gearman.GearmanWorker, job: gearman.GearmanJob) -> None:
            worker.send_job_complete(job, "sent")
            raise ValueError("after the end")

        self.assertEqual(self.run_task(task).result, "sent")

    def test_exception_and_the_hook_of_the_library(self) -> None:
        def task(*_: Any) -> None:
            raise ValueError("no")

        request = self.run_task(task, ReportingWorker)
        self.assertEqual((request.state, request.exception), (gearman.JOB_FAILED, "no"))

    def test_updates_behind_the_end(self) -> None:
        def task(worker: gearman.GearmanWorker, job: gearman.GearmanJob) -> None:
            worker.send_job_complete(job, "sent")
            for _ in range(3):
                worker.send_job_status(job, 1, 2)
                worker.send_job_data(job, "late")
                worker.send_job_warning(job, "late")

        request = self.run_task(task)
        self.assertEqual((request.result, request.status, len(request.data_updates)), ("sent", {}, 0))

    def test_encoder_that_fails_in_its_own_way(self) -> None:
        class Choosy(gearman.TextEncoder):
            @classmethod
            def encode(cls, encodable_object: Any) -> bytes:
                raise LookupError(encodable_object)

        class ChoosyWorker(ThreadedWorker):
            data_encoder = Choosy

        worker = ChoosyWorker(self.server.address)
        worker.register_task("reverse", reverse)
        with self.assertLogs(LOGGER, "ERROR"), working(worker):
            for _ in range(2):
                self.assertEqual(self.submit("reverse", "ab").state, gearman.JOB_FAILED)


class ShutdownInATask(_Programs):
    """A job that fails after the shutdown of its worker goes back to the queue, whatever reports it."""

    def give_back(self, task: Callable[..., object], kind: type[gearman.GearmanWorker]) -> None:
        def wrapped(worker: gearman.GearmanWorker, job: gearman.GearmanJob) -> object:
            worker.shutdown()
            return task(worker, job)

        request = self.submit("task", wait_until_complete=False)
        worker = kind([self.server.address])
        worker.register_task("task", wrapped)
        with self.assertLogs(LOGGER, "WARNING"):
            worker.work()
        self.assertEqual(self.waiting(), [1])
        other = ThreadedWorker(self.server.address)
        other.register_task("task", lambda *_: "done")
        with working(other):
            self.client.wait_until_jobs_completed([request], poll_timeout=LIMIT)
        self.assertEqual(request.result, "done")

    def test_raise(self) -> None:
        def task(*_: Any) -> None:
            raise ValueError("no")

        for kind in (gearman.GearmanWorker, LoggingWorker):
            self.give_back(task, kind)

    def test_failure(self) -> None:
        for report in (
            lambda worker, job: worker.send_job_failure(job),
            lambda worker, job: worker.send_job_exception(job, "no"),
        ):
            self.give_back(_twice(report), gearman.GearmanWorker)


class Deadlines(_Programs):
    """A call with a deadline closes its client, and then looks at how far the request came."""

    def test_state_stays_when_the_client_is_closed(self) -> None:
        client = gearman.GearmanClient([self.server.address])
        request = client.submit_job("nobody", "", wait_until_complete=False)
        client.wait_until_jobs_completed([request], poll_timeout=0.01)
        self.assertEqual((request.state, request.timed_out), (gearman.JOB_CREATED, True))
        client.shutdown()
        self.assertEqual((request.state, request.timed_out), (gearman.JOB_CREATED, True))
        client.wait_until_jobs_accepted([request], poll_timeout=LIMIT)
        with self.assertRaises(errors.ServerUnavailable):
            client.wait_until_jobs_completed([request], poll_timeout=LIMIT)
        self.assertEqual(request.state, gearman.JOB_CREATED)

    def test_and_when_a_connection_is_closed(self) -> None:
        request = self.submit("nobody", wait_until_complete=False)
        request.job.connection.close()
        self.assertEqual(request.state, gearman.JOB_CREATED)
        with self.assertRaises(errors.ServerUnavailable):
            self.client.wait_until_jobs_completed([request], poll_timeout=LIMIT)

    def test_pending(self) -> None:
        mute = self.stack.enter_context(BackgroundServer(mute=True))
        client = gearman.GearmanClient([mute.address])
        request = client.submit_job("nobody", "", poll_timeout=0.01)
        client.shutdown()
        self.assertEqual(request.state, gearman.JOB_PENDING)
        with self.assertRaises(errors.ServerUnavailable):
            client.wait_until_jobs_accepted([request], poll_timeout=LIMIT)

    def test_status_that_is_asked_for(self) -> None:
        mute = self.stack.enter_context(BackgroundServer(mute=True))
        client = gearman.GearmanClient([mute.address])
        job = gearman.GearmanJob(client.connection_list[0], "H:x:1", None, None, None)
        request = gearman.GearmanJobRequest(job)
        request.state = gearman.JOB_CREATED
        self.assertIs(client.get_job_status(request, poll_timeout=0.01).timed_out, True)
        client.shutdown()
        self.assertEqual(request.state, gearman.JOB_CREATED)

    def test_a_thread_that_waits_is_woken(self) -> None:
        request = self.submit("nobody", wait_until_complete=False)
        raised: list[BaseException] = []

        def wait() -> None:
            try:
                self.client.wait_until_jobs_completed([request])
            except errors.ServerUnavailable as error:
                raised.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        self.client.shutdown()
        thread.join(LIMIT)
        self.assertEqual((thread.is_alive(), len(raised), request.state), (False, 1, gearman.JOB_CREATED))

    def test_a_connection_that_is_lost_is_another_thing(self) -> None:
        request = self.submit("nobody", wait_until_complete=False)
        self.server.cut()
        with self.assertRaises(errors.ServerUnavailable):
            self.client.wait_until_jobs_completed([request], poll_timeout=LIMIT)
        self.assertEqual(request.state, gearman.JOB_UNKNOWN)

    def test_reset_after_a_shutdown(self) -> None:
        request = self.submit("reverse", "ab", wait_until_complete=False)
        self.client.shutdown()
        request.reset()
        worker = ThreadedWorker(self.server.address)
        worker.register_task("reverse", reverse)
        with working(worker):
            self.client.submit_multiple_requests([request], poll_timeout=LIMIT)
        self.assertEqual(request.result, "ba")


class Bytes(_Programs):
    def test_names_that_are_bytes(self) -> None:
        """All names of a program that was written for names of bytes."""
        titles = {b"task": "Task"}
        seen: list[Any] = []

        def task(_worker: gearman.GearmanWorker, job: Any) -> str:
            seen.append(
                (job.unique.decode(), job.task.decode(), titles[job.task], job.handle.decode("ascii"))
            )
            return str(job.unique == b"key")

        worker = ThreadedWorker(self.server.address)
        self.assertEqual(worker.set_client_id(b"worker-1"), b"worker-1")
        self.assertEqual(worker.register_task(b"task", task), b"task")
        with working(worker):
            request = self.client.submit_job(task=b"task", data="", unique=b"key", poll_timeout=LIMIT)
            self.assertEqual(seen, [("key", "task", "Task", request.job.handle.decode())])
            self.assertEqual((request.result, request.job.unique), ("True", b"key"))
            admin = gearman.GearmanAdminClient([self.server.address])
            self.stack.callback(admin.shutdown)
            self.assertEqual(admin.get_status()[0]["task"], b"task")
            (shown,) = [one for one in admin.get_workers() if one["tasks"]]
            self.assertEqual((shown["client_id"], shown["tasks"]), (b"worker-1", (b"task",)))

    def test_where_a_job_came_from(self) -> None:
        """A worker of several servers logs the address."""
        other = self.stack.enter_context(BackgroundServer())
        worker = ThreadedWorker(other.address, self.server.address)
        worker.register_task("where", lambda _worker, job: str(job.connection.get_address()[1]))
        self.stack.enter_context(working(worker))
        for server in (other, self.server):
            client = gearman.GearmanClient([server.address])
            self.stack.callback(client.shutdown)
            self.assertEqual(client.submit_job("where", "", poll_timeout=LIMIT).result, str(server.port))


class Tls(SynchronousTestCase):
    """Servers as dictionaries, with the files of TLS."""

    # What Twisted passes to pyOpenSSL; not our doing.
    suppress = [util.suppress(category=DeprecationWarning, message="Passing pyOpenSSL")]

    def setUp(self) -> None:
        self.stack = ExitStack()
        self.addCleanup(self.stack.close)
        self.folder, ours, others = self.stack.enter_context(authorities())
        self.server = self.stack.enter_context(BackgroundServer())
        self.files = {
            "keyfile": str(ours.issue(self.folder / "client.pem", "client")),
            "certfile": str(self.folder / "client.pem"),
            "ca_certs": str(ours.ca),
        }
        self.foreign = str(others.ca)
        pem = ours.issue(self.folder / "server.pem", HOST).read_bytes()
        options = PrivateCertificate.loadPEM(pem).options(Certificate.loadPEM(ours.ca.read_bytes()))

        def listen() -> Any:
            reactor = background_thread().reactor
            factory = TLSMemoryBIOFactory(options, False, self.server.factory, reactor)
            return reactor.listenTCP(0, factory, interface=HOST)

        listening = background_thread().call(listen)
        self.stack.callback(background_thread().call, listening.stopListening)
        self.port = listening.getHost().port

    def described(self, **files: str) -> dict[str, Any]:
        return {"host": HOST, "port": self.port, **self.files, **files}

    def test_job(self) -> None:
        server = self.described()
        worker = ThreadedWorker(server)
        worker.register_task("reverse", reverse)
        client = gearman.GearmanClient([server])
        self.stack.callback(client.shutdown)
        admin = gearman.GearmanAdminClient([server])
        self.stack.callback(admin.shutdown)
        with working(worker):
            self.assertEqual(client.submit_job("reverse", "ab", poll_timeout=LIMIT).result, "ba")
            self.assertEqual(admin.get_status()[0]["workers"], 1)

    def test_descriptions_of_endpoints(self) -> None:
        folder, own = self.folder / "ours", self.files["certfile"]
        for server in (
            f"tls:{HOST}:{self.port}:trustRoots={folder}:certificate={own}:privateKey={own}",
            f"ssl:{HOST}:{self.port}:caCertsDir={folder}:certKey={own}:privateKey={own}",
        ):
            client = gearman.GearmanClient([server])
            self.stack.callback(client.shutdown)
            request = client.submit_job("reverse", "ab", background=True, poll_timeout=LIMIT)
            self.assertEqual((request.state, request.timed_out), (gearman.JOB_CREATED, False))

    def test_server_that_is_not_to_be_trusted(self) -> None:
        client = gearman.GearmanClient([self.described(ca_certs=self.foreign)])
        self.stack.callback(client.shutdown)
        with self.assertRaises(errors.ExceededConnectionAttempts):
            client.submit_job("reverse", "ab", poll_timeout=LIMIT)
        self.assertEqual(background_thread().call(lambda: list(self.server.factory.inspection.jobs())), [])

    def test_files_that_cannot_be_read(self) -> None:
        for name in self.files:
            server = self.described(**{name: "/nowhere"})
            with self.assertRaises(errors.ServerUnavailable):
                gearman.GearmanClient([server]).submit_job("reverse", "ab", poll_timeout=LIMIT)
            with self.assertRaises(errors.ServerUnavailable):
                gearman.GearmanWorker([server]).work()
