"""SUBMIT_JOB_EXTENDED: what its attributes say, and what is refused."""

from __future__ import annotations

from tests.server.peers import Peer, ServerTestCase, error, req, res
from txgearman.access.policy import AccessPolicy
from txgearman.broker.entities import Job
from txgearman.broker.job_options import JobOptions
from txgearman.broker.job_states import Priority
from txgearman.server.extensions.submit_attributes import MAX_EPOCH
from txgearman.wire.attributes import MAX_SIZE

H1 = b"H:test:1"
OPTION = req(26, b"submit-extended")
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def submit(attributes: bytes, function: bytes = b"f", unique: bytes = b"", data: bytes = b"") -> bytes:
    return req(1007, function, unique, attributes, data)


class SubmitTests(ServerTestCase):
    def setUp(self) -> None:
        self.gearman = self.serve(jitter=0.0)
        self.client = self.extended()

    def extended(self) -> Peer:
        """A connection that has asked for the option."""
        peer = self.peer()
        self.assertEqual(peer.ask(OPTION), res(27, b"submit-extended"))
        return peer

    def job(self, number: int = 1) -> Job:
        job = self.gearman.server.broker.life.handles.get(b"H:test:%d" % number)
        assert job is not None
        return job

    def test_without_attributes_it_is_a_plain_submit(self) -> None:
        self.assertEqual(self.client.ask(submit(b"", unique=b"u", data=b"a\0b")), res(8, H1))
        job = self.job()
        self.assertEqual((job.unique, job.data, job.priority), (b"u", b"a\0b", Priority.NORMAL))
        self.assertEqual((job.background, job.run_at, job.options), (False, None, None))
        self.assertEqual([name for _, name in job.watchers], [H1])

    def test_all_attributes(self) -> None:
        said = (
            "background=1\npriority=high\nrun_at=1000.25\nexpires=60\nattempts=5\nbackoff=0.5\n"
            f"keep_result=9\nunique_for=3600\ntraceparent={TRACEPARENT}"
        )
        self.assertEqual(self.client.ask(submit(said.encode(), data=b"x")), res(8, H1))
        job = self.job()
        self.assertEqual((job.background, job.priority, job.run_at), (True, Priority.HIGH, 1000.25))
        expected = JobOptions(60, 5, 0.5, keep_result=9, unique_for=3600, traceparent=TRACEPARENT)
        self.assertEqual(job.options, expected)

    def test_one_alone(self) -> None:
        for number, (attribute, options) in enumerate(
            (
                (b"attempts=3", JobOptions(attempts=3)),
                (b"expires=0", JobOptions(expires=0)),
                (b"priority=low", None),
                (b"background=0", None),
                (b"traceparent=what is this", None),
            ),
            1,
        ):
            self.client.ask(submit(attribute))
            self.assertEqual(self.job(number).options, options, attribute)

    def test_a_client_that_waits_gets_the_result_and_nothing_it_does_not_know(self) -> None:
        worker = self.worker(b"f")
        self.client.ask(submit(b"priority=high\nattempts=2\nbackoff=3"))
        worker.ask(req(9), req(14, H1))
        self.assertEqual(self.client.heard(), b"")
        self.gearman.clock.advance(3)
        self.assertEqual(worker.ask(req(9)), res(11, H1, b"f", b""))
        worker.ask(req(13, H1, b"result"))
        self.assertEqual(self.client.heard(), res(13, H1, b"result"))

    def test_a_scheduled_job_of_high_priority(self) -> None:
        self.client.ask(submit(b"background=1\nrun_at=60.5\npriority=high", data=b"later"))
        worker = self.worker(b"f")
        self.gearman.clock.advance(60)
        self.assertEqual(worker.ask(req(9)), res(10))
        self.peer().ask(req(18, b"f", b"", b"normal"))
        self.gearman.clock.advance(0.5)
        self.assertEqual(worker.ask(req(9)), res(11, H1, b"f", b"later"))

    def test_what_is_refused(self) -> None:
        for attributes, code, text in (
            (b"color=red", b"INVALID_ARGUMENT", b"Attribute is not known: color"),
            (b"attempts=3\ncolor=red", b"INVALID_ARGUMENT", b"Attribute is not known: color"),
            (b"attempts", b"INVALID_ARGUMENT", b"Attribute is not name=value: 'attempts'"),
            (b"attempts=0", b"INVALID_ARGUMENT", b"attempts must be 1 to 1000"),
            (b"attempts=1.5", b"INVALID_ARGUMENT", b"attempts must be a whole number"),
            (b"attempts=-1", b"INVALID_ARGUMENT", b"attempts must be a whole number"),
            ("attempts=\u0663".encode(), b"INVALID_ARGUMENT", b"attempts must be a whole number"),
            (b"expires=1e3", b"INVALID_ARGUMENT", b"expires must be a decimal number of seconds"),
            (b"expires=", b"INVALID_ARGUMENT", b"expires must be a decimal number of seconds"),
            (b"expires=nan", b"INVALID_ARGUMENT", b"expires must be a decimal number of seconds"),
            (b"backoff=315360001", b"INVALID_ARGUMENT", b"backoff must be 0 to 315360000 seconds"),
            (b"priority=urgent", b"INVALID_ARGUMENT", b"priority must be high or normal or low"),
            (b"background=true", b"INVALID_ARGUMENT", b"background must be 0 or 1"),
            (b"run_at=%d" % (MAX_EPOCH + 1), b"INVALID_ARGUMENT", b"run_at must not exceed %d" % MAX_EPOCH),
            (b"keep_result=x", b"INVALID_ARGUMENT", b"keep_result must be a decimal number of seconds"),
            (
                b"a=" + b"x" * MAX_SIZE,
                b"ARGUMENT_TOO_LARGE",
                b"Attributes have %d bytes, more than %d" % (MAX_SIZE + 2, MAX_SIZE),
            ),
        ):
            with self.subTest(attributes[:30]):
                heard = self.client.ask(submit(attributes) + req(16, b"in step"))
                self.assertEqual(heard, error(code, text) + res(17, b"in step"))
        self.assertEqual(self.gearman.server.broker.total, 0)

    def test_names_have_their_limits(self) -> None:
        for packet in (submit(b"", function=b"f" * 513), submit(b"", unique=b"u" * 65)):
            self.assertIn(b"ARGUMENT_TOO_LARGE", self.client.ask(packet))

    def test_who_has_not_asked_is_refused(self) -> None:
        text = b"SUBMIT_JOB_EXTENDED needs the option submit-extended, ask for it by OPTION_REQ"
        for options in (b"", req(26, b"exceptions") + req(26, b"cancel")):
            peer = self.peer()
            peer.ask(options)
            heard = peer.ask(submit(b"priority=high") + req(16, b"in step"))
            self.assertEqual(heard, error(b"INVALID_COMMAND", text) + res(17, b"in step"))
        self.assertEqual(self.gearman.server.broker.total, 0)

    def test_duplicates_of_all_kinds_of_submits(self) -> None:
        self.assertEqual(self.client.ask(submit(b"background=1", unique=b"u")), res(8, H1))
        self.assertEqual(self.client.ask(submit(b"attempts=9", unique=b"u")), res(8, H1))
        self.assertEqual(self.peer().ask(req(18, b"f", b"u", b"")), res(8, H1))
        self.assertEqual(self.job().options, None)

    def test_the_access_policy_is_asked(self) -> None:
        self.gearman = self.serve(access=AccessPolicy())
        self.assertIn(b"ACCESS_DENIED", self.extended().ask(submit(b"")))
        self.assertEqual(self.gearman.server.broker.total, 0)
