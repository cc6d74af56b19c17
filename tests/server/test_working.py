"""What a worker's packets are answered with, byte for byte."""

from __future__ import annotations

from tests.server.peers import Peer, ServerTestCase, error, req, res

H1, H2 = b"H:test:1", b"H:test:2"
GRABS = {"GRAB_JOB": 9, "GRAB_JOB_UNIQ": 30, "GRAB_JOB_ALL": 39}


class WorkerTestCase(ServerTestCase):
    """With a client."""

    def setUp(self) -> None:
        super().setUp()
        self.client = self.peer()

    def submit(self, data: bytes = b"x", unique: bytes = b"", number: int = 18) -> bytes:
        """Submit a job of ``f``; returns its handle."""
        answer = self.client.ask(req(number, b"f", unique, data))
        self.assertEqual(answer[:8], b"\0RES\0\0\0\x08")
        return answer[12:]


class GrabTest(WorkerTestCase):
    """Asking for a job."""

    def test_without_jobs(self) -> None:
        for worker in (self.peer(), self.worker(b"f")):
            for name, number in GRABS.items():
                with self.subTest(name):
                    self.assertEqual(worker.ask(req(number)), res(10))

    def test_what_is_assigned(self) -> None:
        worker = self.worker(b"f")
        for name, number, expected in (
            ("GRAB_JOB", 9, lambda handle: res(11, handle, b"f", b"a\0b")),
            ("GRAB_JOB_UNIQ", 30, lambda handle: res(31, handle, b"f", b"u", b"a\0b")),
            ("GRAB_JOB_ALL", 39, lambda handle: res(31, handle, b"f", b"u", b"a\0b")),
        ):
            with self.subTest(name):
                handle = self.submit(b"a\0b", b"u")
                self.assertEqual(worker.ask(req(number)), expected(handle))
                worker.ask(req(13, handle, b""))

    def test_a_reducer_is_told_to_those_who_ask_for_it(self) -> None:
        worker = self.worker(b"f")
        for name, number, expected in (
            ("GRAB_JOB", 9, lambda handle: res(11, handle, b"f", b"d")),
            ("GRAB_JOB_UNIQ", 30, lambda handle: res(31, handle, b"f", b"", b"d")),
            ("GRAB_JOB_ALL", 39, lambda handle: res(40, handle, b"f", b"", b"r", b"d")),
        ):
            with self.subTest(name):
                handle = self.client.ask(req(38, b"f", b"", b"r", b"", b"d"))[12:]
                self.assertEqual(worker.ask(req(number)), expected(handle))

    def test_an_empty_reducer_is_a_reducer(self) -> None:
        worker = self.worker(b"f")
        self.client.ask(req(38, b"f", b"", b"", b"", b"d"))
        self.assertEqual(worker.ask(req(39)), res(40, H1, b"f", b"", b"", b"d"))

    def test_one_connection_may_have_many_jobs(self) -> None:
        worker = self.worker(b"f")
        self.submit(b"1")
        self.submit(b"2")
        self.assertEqual(
            worker.ask(req(9), req(9), req(9)), res(11, H1, b"f", b"1") + res(11, H2, b"f", b"2") + res(10)
        )

    def test_a_worker_may_be_its_own_client(self) -> None:
        peer = self.worker(b"f")
        self.assertEqual(
            peer.ask(req(7, b"f", b"", b"x"), req(9), req(13, H1, b"y")),
            res(8, H1) + res(11, H1, b"f", b"x") + res(13, H1, b"y"),
        )


class SleepTest(WorkerTestCase):
    """PRE_SLEEP and NOOP."""

    def test_a_sleeper_is_woken_once(self) -> None:
        worker = self.worker(b"f")
        self.assertEqual(worker.ask(req(4)), b"")
        self.submit()
        self.submit()
        self.assertEqual(worker.heard(), res(6))
        self.assertEqual(worker.ask(req(9)), res(11, H1, b"f", b"x"))

    def test_there_is_no_sleep_while_there_are_jobs(self) -> None:
        worker = self.worker(b"f")
        self.submit()
        self.assertEqual(worker.ask(req(4), req(4)), res(6) + res(6))

    def test_one_sleeper_is_woken_for_one_job(self) -> None:
        workers = [self.worker(b"f") for _ in range(3)]
        for worker in workers:
            worker.ask(req(4))
        self.submit()
        self.assertEqual([worker.heard() for worker in workers].count(res(6)), 1)

    def test_all_sleepers_if_the_operator_wants(self) -> None:
        self.gearman = self.serve(wakeup=0)
        self.client = self.peer()
        workers = [self.worker(b"f") for _ in range(3)]
        for worker in workers:
            worker.ask(req(4))
        self.submit()
        self.assertEqual([worker.heard() for worker in workers], [res(6)] * 3)

    def test_a_sleeper_hears_of_jobs_of_a_function_it_adds(self) -> None:
        worker = self.worker(b"g")
        self.submit()
        self.assertEqual(worker.ask(req(4)), b"")
        self.assertEqual(worker.ask(req(1, b"f")), res(6))


class AbilitiesTest(WorkerTestCase):
    """CAN_DO, CANT_DO, RESET_ABILITIES, and leaving."""

    def assert_requeued(self, other: Peer) -> None:
        self.assertEqual(self.client.ask(req(15, H1)), res(20, H1, b"1", b"0", b"0", b"0"))
        self.assertEqual(self.client.ask(b"show jobs\n"), H1 + b"\t1\t0\t1\n.\n")
        self.assertEqual(other.ask(req(9)), res(11, H1, b"f", b"x"))

    def test_cant_do_gives_running_jobs_back(self) -> None:
        worker, other = self.worker(b"f"), self.worker(b"f")
        self.submit()
        worker.ask(req(9), req(12, H1, b"1", b"2"))
        self.assertEqual(worker.ask(req(2, b"f")), b"")
        self.assert_requeued(other)
        self.assertEqual(
            worker.ask(req(13, H1, b"")), error(b"JOB_NOT_FOUND", b"Job given in work result not found")
        )

    def test_reset_gives_running_jobs_back(self) -> None:
        worker, other = self.worker(b"f"), self.worker(b"f")
        self.submit()
        worker.ask(req(9))
        self.assertEqual(worker.ask(req(3)), b"")
        self.assert_requeued(other)
        self.assertEqual(worker.ask(req(9)), res(10))

    def test_leaving_gives_running_jobs_back(self) -> None:
        worker, other = self.worker(b"f"), self.worker(b"f")
        self.submit()
        worker.ask(req(9))
        worker.hang_up()
        self.assert_requeued(other)

    def test_a_function_never_registered(self) -> None:
        self.assertEqual(self.peer().ask(req(2, b"f"), req(3)), b"")

    def test_long_names_are_refused(self) -> None:
        refused = error(b"ARGUMENT_TOO_LARGE", b"Function name too large")
        peer = self.peer()
        self.assertEqual(peer.ask(req(1, b"f" * 513)), refused)
        self.assertEqual(peer.ask(req(23, b"f" * 513, b"1000")), refused)
        self.assertEqual(peer.ask(req(1, b"f" * 512)), b"")

    def test_retries_run_out(self) -> None:
        self.gearman = self.serve(job_retries=2)
        self.client = self.peer()
        self.submit(number=7)
        for _ in range(2):
            worker = self.worker(b"f")
            worker.ask(req(9))
            self.assertEqual(self.client.heard(), b"")
            worker.hang_up()
        self.assertEqual(self.client.heard(), res(14, H1))


class TimeoutTest(WorkerTestCase):
    """CAN_DO_TIMEOUT."""

    def running(self, milliseconds: bytes) -> Peer:
        """A worker that has a job of a function with this time limit."""
        worker = self.peer()
        self.assertEqual(worker.ask(req(23, b"f", milliseconds)), b"")
        self.submit()
        self.assertEqual(worker.ask(req(9)), res(11, H1, b"f", b"x"))
        return worker

    def is_running(self) -> bool:
        answer = self.client.ask(req(15, H1))
        self.assertIn(answer, (res(20, H1, b"1", running, b"0", b"0") for running in (b"0", b"1")))
        return answer == res(20, H1, b"1", b"1", b"0", b"0")

    def test_a_slow_worker_s_job_goes_to_another(self) -> None:
        worker = self.running(b"2500")
        self.gearman.turn(2.4)
        self.assertTrue(self.is_running())
        self.gearman.turn(0.2)
        self.assertFalse(self.is_running())
        self.assertEqual(worker.heard(), b"")
        self.assertEqual(
            worker.ask(req(13, H1, b"late")), error(b"JOB_NOT_FOUND", b"Job given in work result not found")
        )
        self.assertEqual(self.worker(b"f").ask(req(9)), res(11, H1, b"f", b"x"))

    def test_less_than_a_second_is_a_second(self) -> None:
        self.running(b"1")
        self.gearman.turn(0.9)
        self.assertTrue(self.is_running())
        self.gearman.turn(0.2)
        self.assertFalse(self.is_running())

    def test_no_limit(self) -> None:
        for milliseconds in (b"0", b"-1", b"-99999"):
            with self.subTest(milliseconds):
                self.gearman = self.serve()
                self.client = self.peer()
                self.running(milliseconds)
                self.gearman.turn(100_000)
                self.assertTrue(self.is_running())

    def test_a_very_long_limit(self) -> None:
        self.running(b"9" * 20)
        self.gearman.turn(100_000)
        self.assertTrue(self.is_running())

    def test_a_job_in_time(self) -> None:
        worker = self.running(b"2000")
        self.gearman.turn(1.9)
        self.assertEqual(worker.ask(req(13, H1, b"")), b"")
        self.gearman.turn(10)
        self.assertEqual(self.client.ask(b"status\n"), b"f\t0\t0\t1\n.\n")

    def test_what_is_no_number_is_no_limit(self) -> None:
        peer = self.peer()
        connections = self.gearman.server.connections
        worker = connections[max(connections)].worker
        for milliseconds in (b"abc", b"", b"\0\0\x03\xe8", b"9" * 21):
            with self.subTest(milliseconds):
                self.assertEqual(peer.ask(req(23, b"f", milliseconds)), b"")
                self.assertEqual(peer.ask(b"status\n"), b"f\t0\t0\t1\n.\n")
                self.assertEqual(list(worker.abilities.values()), [None])


class ReportTest(WorkerTestCase):
    """WORK_* of jobs that are not the worker's."""

    REPORTS = {
        "WORK_STATUS": (req(12, H1, b"1", b"2"), b"Job given in work result not found"),
        "WORK_COMPLETE": (req(13, H1, b""), b"Job given in work result not found"),
        "WORK_FAIL": (req(14, H1), b"Job given in work result not found"),
        "WORK_EXCEPTION": (req(25, H1, b""), b"An exception was received for a job that does not exist"),
        "WORK_DATA": (req(28, H1, b""), b"Job does not exist on server"),
        "WORK_WARNING": (req(29, H1, b""), b"Job does not exist on server"),
    }

    def assert_refused(self, peer: Peer) -> None:
        for name, (report, text) in self.REPORTS.items():
            with self.subTest(name):
                self.assertEqual(peer.ask(report), error(b"JOB_NOT_FOUND", text))
                # No job has an empty handle, so none ended by it.
                nameless = req(report[7], report[12:].removeprefix(H1))
                self.assertEqual(peer.ask(nameless), error(b"JOB_NOT_FOUND", text))

    def test_of_an_unknown_job(self) -> None:
        self.assert_refused(self.peer())

    def test_of_another_worker_s_job(self) -> None:
        worker, other = self.worker(b"f"), self.worker(b"f")
        self.submit()
        worker.ask(req(9))
        self.assert_refused(other)
        self.assertEqual(self.client.ask(req(15, H1)), res(20, H1, b"1", b"1", b"0", b"0"))

    def test_of_a_job_done_before_the_last(self) -> None:
        worker = self.worker(b"f")
        for _ in range(2):
            self.submit()
            worker.ask(req(9))
        worker.ask(req(13, H1, b""), req(13, b"H:test:2", b""))
        self.assert_refused(worker)

    def test_of_the_job_done_last_is_forgiven(self) -> None:
        worker = self.worker(b"f")
        self.submit()
        worker.ask(req(9), req(13, H1, b""))
        for report, _text in self.REPORTS.values():
            self.assertEqual(worker.ask(report), b"")

    def test_a_failure_behind_an_exception_is_forgiven(self) -> None:
        worker = self.worker(b"f")
        self.submit()
        worker.ask(req(9))
        self.assertEqual(worker.ask(req(25, H1, b""), req(14, H1)), b"")

    def test_a_failure(self) -> None:
        worker = self.worker(b"f")
        handle = self.submit(number=7)
        worker.ask(req(9))
        self.assertEqual(worker.ask(req(14, handle, b"")), b"", "a NUL behind the handle is forgiven")
        self.assertEqual(self.client.heard(), res(14, handle))

    def test_a_status_that_is_no_number_is_passed_on_and_counts_as_0(self) -> None:
        worker = self.worker(b"f")
        handle = self.submit(number=7)
        worker.ask(req(9))
        worker.ask(req(12, handle, b"many", b"-3"))
        self.assertEqual(self.client.heard(), res(12, handle, b"many", b"-3"))
        self.assertEqual(self.client.ask(req(15, handle)), res(20, handle, b"1", b"1", b"0", b"0"))
