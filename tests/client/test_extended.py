"""Submissions that need the extended packet: the server is asked for it first, once a connection."""

from __future__ import annotations

import pickle
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from tests.client.played import EXCEPTIONS, PlayedClientTestCase
from tests.client.several import SeveralServersTestCase
from txgearman.client import Client, Priority
from txgearman.client import submission as submissions
from txgearman.errors import ConnectionLost, FailJob, NotAllAccepted, NotSupported, ServerError
from txgearman.job_limits import MAX_ATTEMPTS, MAX_SECONDS
from txgearman.server import Settings
from txgearman.testing import MemoryGearman
from txgearman.wire.packets import ERROR, JOB_CREATED, OPTION_RES, WORK_COMPLETE

OPTION = ("OPTION_REQ", b"submit-extended")
UNKNOWN = (b"UNKNOWN_OPTION", b"Server does not recognize given option")


def extended(attributes: bytes, data: bytes = b"data") -> tuple[Any, ...]:
    return ("SUBMIT_JOB_EXTENDED", b"f", b"", attributes, data)


class OneServerTests(PlayedClientTestCase):
    def test_the_option_is_asked_for_at_the_first_use_and_then_known(self) -> None:
        first = self.client.submit("f", b"data", expires=60)
        second = self.client.submit("f", b"data", attempts=3, background=True)
        self.assertEqual(self.server.heard(), [OPTION])
        self.server.say(OPTION_RES, b"submit-extended")
        self.assertEqual(
            self.server.heard(), [extended(b"expires=60"), extended(b"attempts=3\nbackground=1")]
        )
        self.server.say(JOB_CREATED, b"H:1")
        self.server.say(JOB_CREATED, b"H:2")
        job = self.successResultOf(first)
        self.assertEqual(self.successResultOf(second).handle, b"H:2")
        self.server.say(WORK_COMPLETE, b"H:1", b"result")
        self.assertEqual(self.successResultOf(job.result()), b"result")
        self.client.submit("f", b"data", expires=5)
        self.assertEqual(self.server.heard(), [extended(b"expires=5")])

    def test_plain_submissions_ask_for_nothing(self) -> None:
        self.client.submit("f", b"data", priority=Priority.HIGH)
        self.client.submit("f", b"data", run_at=1000)
        self.assertEqual(
            self.server.heard(),
            [("SUBMIT_JOB_HIGH", b"f", b"", b"data"), ("SUBMIT_JOB_EPOCH", b"f", b"", b"1000", b"data")],
        )

    def test_a_server_without_it(self) -> None:
        submissions = [
            self.client.submit("f", b"data", expires=60, backoff=1.5),
            self.client.submit("f", b"data", run_at=1000, priority=Priority.LOW),
        ]
        plain = self.client.submit("f", b"data")
        self.server.heard()
        self.server.say(ERROR, *UNKNOWN)
        submissions.append(self.client.submit("f", b"data", attempts=3))
        self.assertEqual(self.server.heard(), [])
        for submission, what in zip(
            submissions, ("expires, backoff", "priority with run_at", "attempts"), strict=True
        ):
            error = self.failureResultOf(submission, NotSupported).value
            assert isinstance(error, NotSupported)
            self.assertIsInstance(error, ServerError)
            self.assertEqual(
                (error.code, error.option, error.needed_for), ("UNKNOWN_OPTION", "submit-extended", what)
            )
            self.assertIn(f"lacks the extension submit-extended, needed for {what}", str(error))
            self.assertEqual(str(pickle.loads(pickle.dumps(error))), str(error))
        self.server.say(JOB_CREATED, b"H:1")
        self.assertEqual(self.successResultOf(plain).handle, b"H:1")

    def test_the_next_connection_is_asked_anew(self) -> None:
        refused = self.client.submit("f", b"data", expires=60)
        self.server.heard()
        self.server.say(ERROR, *UNKNOWN)
        self.failureResultOf(refused, NotSupported)
        self.server.lose()
        self.clock.advance(10)
        submission = self.client.submit("f", b"data", expires=60)
        self.assertEqual(self.server.heard(), [EXCEPTIONS, OPTION])
        self.server.say(OPTION_RES, b"exceptions")
        self.server.say(OPTION_RES, b"submit-extended")
        self.assertEqual(self.server.heard(), [extended(b"expires=60")])
        self.server.say(JOB_CREATED, b"H:1")
        self.successResultOf(submission)

    def test_the_connection_is_lost_meanwhile(self) -> None:
        submission = self.client.submit("f", b"data", expires=60)
        self.server.lose()
        self.failureResultOf(submission, ConnectionLost)
        self.assertEqual(self.client._budget.outstanding, 0)

    def test_who_gives_up_meanwhile_has_submitted_nothing(self) -> None:
        submission = self.client.submit("f", b"data", expires=60)
        other = self.client.submit("f", b"other", expires=60)
        self.server.heard()
        submission.cancel()
        self.failureResultOf(submission, CancelledError)
        self.server.say(OPTION_RES, b"submit-extended")
        self.assertEqual(self.server.heard(), [extended(b"expires=60", b"other")])
        self.server.say(JOB_CREATED, b"H:1")
        self.successResultOf(other)
        self.assertEqual(self.client._budget.outstanding, 0)

    def test_what_waits_for_the_answer_counts_in_the_budget(self) -> None:
        self.client.submit("f", bytes(1000), expires=60)
        self.assertGreater(self.client._budget.outstanding, 1000)

    def test_a_batch(self) -> None:
        batch = self.client.submit_many("f", [b"a", b"b"], attempts=2)
        self.assertEqual(self.server.heard(), [OPTION])
        self.server.say(OPTION_RES, b"submit-extended")
        self.assertEqual(
            self.server.heard(), [extended(b"attempts=2\nbackground=1", data) for data in (b"a", b"b")]
        )
        self.server.say(JOB_CREATED, b"H:1")
        self.server.say(JOB_CREATED, b"H:2")
        self.assertEqual(self.successResultOf(batch), [b"H:1", b"H:2"])

    def test_a_batch_that_is_not_supported(self) -> None:
        batch = self.client.submit_many("f", [b"a", b"b"], attempts=2)
        self.server.heard()
        self.server.say(ERROR, *UNKNOWN)
        error = self.failureResultOf(batch, NotAllAccepted).value
        assert isinstance(error, NotAllAccepted)
        self.assertIsInstance(error.__cause__, NotSupported)
        self.assertEqual(sorted(error.errors), [0, 1])
        self.assertEqual(self.server.heard(), [])


class SeveralServersTests(SeveralServersTestCase):
    def test_each_connection_is_asked(self) -> None:
        self.connect()
        for _ in range(3):
            self.client.submit("f", b"data", expires=60)
        self.assertEqual(self.heard(), [[OPTION]] * 3)

    def test_one_that_lacks_it_is_no_reason_to_ask_another(self) -> None:
        """A unique belongs to its server, where the live job with it is."""
        self.connect()
        first = self.order(b"f", b"u")[0]
        submission = self.client.submit("f", b"data", unique="u", expires=60)
        self.heard()
        self.endpoints[first].server.say(ERROR, *UNKNOWN)
        self.failureResultOf(submission, NotSupported)
        self.assertEqual(self.where(), [])

    def test_it_fails_over_as_others_do(self) -> None:
        self.connect()
        first, second, _ = self.order(b"f", b"u")
        submission = self.client.submit("f", b"data", unique="u", expires=60)
        self.heard()
        self.endpoints[first].server.lose()
        self.assertEqual(self.heard()[second], [OPTION])
        self.endpoints[second].server.say(OPTION_RES, b"submit-extended")
        self.assertEqual(self.heard()[second][0][0], "SUBMIT_JOB_EXTENDED")
        self.endpoints[second].server.say(JOB_CREATED, b"H:1")
        self.successResultOf(submission)


class OwnServerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.gearman = MemoryGearman(Settings(handle_prefix="H:t", jitter=0.0))
        self.client: Client = self.gearman.client()

    def test_a_job_is_retried_while_its_client_waits(self) -> None:
        runs = []

        def flaky(job: Any) -> bytes:
            runs.append(self.gearman.clock.seconds())
            if len(runs) < 3:
                raise FailJob("not yet")
            return b"done"

        worker = self.gearman.worker()
        worker.register("f", flaky)
        worker.start()
        job = self.gearman.wait(self.client.submit("f", b"", attempts=3, backoff=2))
        self.assertEqual(self.gearman.wait(job.result()), b"done")
        self.assertEqual([round(each - runs[0]) for each in runs], [0, 2, 6])

    def test_what_the_server_would_refuse_is_not_sent(self) -> None:
        for options, said in (
            ({"attempts": MAX_ATTEMPTS + 1}, f"attempts must be a whole number from 1 to {MAX_ATTEMPTS}"),
            ({"expires": MAX_SECONDS + 1}, f"expires must be seconds from 0 to {MAX_SECONDS}"),
        ):
            with self.assertRaisesRegex(ValueError, said):
                self.client.submit("f", b"", **options)  # type: ignore[arg-type]

    def test_what_the_server_refuses(self) -> None:
        # A later version of this package may allow more than the server does.
        self.patch(submissions, "MAX_ATTEMPTS", MAX_ATTEMPTS + 1)
        submitted = self.client.submit("f", b"", attempts=MAX_ATTEMPTS + 1)
        self.gearman.turn()
        error = self.failureResultOf(submitted, ServerError).value
        self.assertEqual(str(error), f"INVALID_ARGUMENT: attempts must be 1 to {MAX_ATTEMPTS}")
