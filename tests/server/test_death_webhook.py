"""The webhook for dead jobs: what is posted, in which order, when again, and what bounds it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.server.peers import SocketlikeTransport, req
from txgearman.broker.dead_job import MAX_ERROR, DeadJob
from txgearman.broker.job_states import Outcome
from txgearman.server import GearmanService, Settings
from txgearman.server.monitoring.death_webhook import (
    BACKOFF,
    BATCH_BYTES,
    BATCH_DELAY,
    BATCH_JOBS,
    LOG_INTERVAL,
    MAX_WAITING,
    MAX_WAITING_BYTES,
    STOP_TIMEOUT,
    DeathWebhook,
)
from txgearman.server.monitoring.http_poster import PostRefused
from txgearman.web.api.serializers import DEAD
from txgearman.web.interfaces import WebhookCounts

NO_JITTER = 0.5


def dead_job(number: int, error: bytes = b"oh", data: bytes = b"secret") -> DeadJob:
    return DeadJob(
        number=number,
        handle=b"H:test:%d" % number,
        function=b"f",
        unique=b"u\xff",
        data=data,
        priority=1,
        reducer=None,
        submitted=1000.25,
        run_at=None,
        ended=1001.5,
        attempts=2,
        losses=1,
        outcome=Outcome.RAISED,
        error=error,
        worker=b"w 10.0.0.1",
        size=len(data),
    )


class Posted:
    """A `Poster` that keeps what is posted, and answers when it is told to."""

    def __init__(self, origin: str = "https://hooks.example") -> None:
        self.origin = origin
        self.bodies: list[bytes] = []
        self.requests: list[Deferred[None]] = []
        self.cancelled = 0

    def post(self, body: bytes) -> Deferred[None]:
        self.bodies.append(body)
        request: Deferred[None] = Deferred(self._cancelled)
        self.requests.append(request)
        return request

    def _cancelled(self, _request: Deferred[None]) -> None:
        self.cancelled += 1

    def take(self) -> list[str]:
        """Take the request that is under way; returns the handles of its jobs."""
        self.requests.pop().callback(None)
        return self.handles()

    def refuse(self, why: str = "it answered 503") -> list[str]:
        self.requests.pop().errback(PostRefused(why))
        return self.handles()

    def handles(self) -> list[str]:
        return [job["handle"] for job in json.loads(self.bodies[-1])["jobs"]]


def handles(*numbers: int) -> list[str]:
    return [f"H:test:{number}" for number in numbers]


class WebhookTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.posted = Posted()
        self.webhook = DeathWebhook(self.clock, self.posted, "here", lambda: NO_JITTER)

    def die(self, *numbers: int, **values: Any) -> None:
        for number in numbers:
            self.webhook.died(dead_job(number, **values))

    def die_and_send(self, *numbers: int) -> None:
        self.die(*numbers)
        self.clock.advance(BATCH_DELAY)

    def assert_counts(
        self, delivered: int = 0, failures: int = 0, dropped: int = 0, waiting: int = 0
    ) -> None:
        self.assertEqual(self.webhook.counts, WebhookCounts(delivered, failures, dropped, waiting))


class DeliveryTest(WebhookTestCase):
    def test_what_is_posted_is_what_the_list_of_dead_jobs_has_and_no_data(self) -> None:
        self.die_and_send(1)
        posted = json.loads(self.posted.bodies[0])
        self.assertEqual(posted, {"server": "here", "jobs": [DEAD.serialize(dead_job(1))]})
        self.assertEqual((posted["jobs"][0]["size"], posted["jobs"][0]["outcome"]), (6, "raised"))
        self.assertNotIn(b"secret", self.posted.bodies[0])

    def test_deaths_of_a_second_are_one_request(self) -> None:
        self.die(1, 2)
        self.clock.advance(BATCH_DELAY / 2)
        self.die(3)
        self.assertEqual(self.posted.bodies, [], "a death waits for others")
        self.clock.advance(BATCH_DELAY / 2)
        self.assertEqual(self.posted.take(), handles(1, 2, 3))
        self.assert_counts(delivered=3)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_request_at_a_time(self) -> None:
        self.die_and_send(1)
        self.die_and_send(2, 3)
        self.assertEqual(len(self.posted.bodies), 1)
        self.assert_counts(waiting=3)
        self.posted.take()
        self.clock.advance(0)
        self.assertEqual(self.posted.take(), handles(2, 3))
        self.assert_counts(delivered=3)

    def test_a_request_has_so_many_jobs_at_most(self) -> None:
        self.die_and_send(*range(BATCH_JOBS + 1))
        self.assertEqual(self.posted.take(), handles(*range(BATCH_JOBS)))
        self.clock.advance(0)
        self.assertEqual(self.posted.take(), handles(BATCH_JOBS))

    def test_a_request_has_so_many_bytes_at_most(self) -> None:
        self.die(*range(BATCH_JOBS), error=b"\x01" * MAX_ERROR)
        self.clock.advance(BATCH_DELAY)
        self.assertLess(len(self.posted.handles()), BATCH_BYTES / MAX_ERROR + 1)
        self.assertLess(len(self.posted.bodies[0]), 6 * (BATCH_BYTES + MAX_ERROR))

    def test_data_is_not_held(self) -> None:
        self.die(1, data=b"x" * 1000)
        self.assertEqual([dead.data for dead in self.webhook._queue], [None])


class FailureTest(WebhookTestCase):
    def test_a_batch_is_posted_again_after_longer_and_longer_waits(self) -> None:
        self.die_and_send(1, 2)
        waits = [BACKOFF.delay(attempt, NO_JITTER) for attempt in range(1, 9)]
        self.assertEqual(waits, [1, 2, 4, 8, 16, 32, 60, 60])
        for wait in waits:
            self.assertEqual(self.posted.refuse(), handles(1, 2))
            self.clock.advance(wait * 0.75)
            self.assertEqual(self.posted.requests, [])
            self.clock.advance(wait * 0.25)
        self.assertEqual(self.posted.take(), handles(1, 2))
        self.assert_counts(delivered=2, failures=8)
        self.die_and_send(3)
        self.posted.refuse()
        self.clock.advance(waits[0])
        self.assertEqual(self.posted.take(), handles(3), "after a success the first wait is short")

    def test_order_is_kept_and_new_deaths_go_along(self) -> None:
        self.die_and_send(1, 2)
        self.die(3)
        self.posted.refuse()
        self.die(4)
        self.clock.advance(BACKOFF.backoff)
        self.assertEqual(self.posted.take(), handles(1, 2, 3, 4))

    def test_waits_have_jitter(self) -> None:
        self.webhook._chance = lambda: 0.0
        self.die_and_send(1)
        self.posted.refuse()
        self.clock.advance(BACKOFF.backoff * (1 - BACKOFF.jitter))
        self.posted.take()

    def test_a_poster_that_raises(self) -> None:
        with patch.object(self.posted, "post", side_effect=OSError("no more files")):
            self.die_and_send(1)
        self.assert_counts(failures=1, waiting=1)
        self.clock.advance(BACKOFF.backoff)
        self.posted.take()

    def test_the_log_names_the_place_and_no_more_of_the_url_and_is_limited(self) -> None:
        with capturedLogs() as logged:
            self.die_and_send(1)
            for _ in range(5):
                self.posted.refuse("it answered\n503.")
                self.clock.advance(BACKOFF.backoff_max)
            self.posted.refuse()
        texts = [event["log_format"].format(**event) for event in logged]
        why = "it answered\\n503. 1 dead jobs wait; next try in 1 seconds"
        self.assertEqual(texts[0], f"Dead-job webhook https://hooks.example: {why}")
        self.assertEqual(len(texts), 1 + 5 * BACKOFF.backoff_max // LOG_INTERVAL)

    def test_the_cause_that_twisted_has_in_a_list_is_logged(self) -> None:
        from twisted.internet.error import ConnectionLost
        from twisted.python.failure import Failure
        from twisted.web.client import ResponseNeverReceived

        with capturedLogs() as logged:
            self.die_and_send(1)
            self.posted.requests.pop().errback(ResponseNeverReceived([Failure(ConnectionLost("cut"))]))
        self.assertIn("cut", logged[0]["why"])
        self.assertNotIn("Failure", logged[0]["why"])


class BoundsTest(WebhookTestCase):
    def test_so_many_wait_and_the_oldest_are_dropped(self) -> None:
        with capturedLogs() as logged:
            self.die(*range(MAX_WAITING + 2))
        self.assert_counts(dropped=2, waiting=MAX_WAITING)
        self.assertEqual(len(logged), 1)
        self.clock.advance(BATCH_DELAY)
        self.assertEqual(self.posted.take()[0], handles(2)[0])

    def test_so_many_bytes_wait(self) -> None:
        count = MAX_WAITING_BYTES // MAX_ERROR
        self.die(*range(count), error=b"x" * MAX_ERROR)
        dropped = self.webhook.counts.dropped
        self.assertTrue(0 < dropped < count / 10, dropped)
        self.assertLessEqual(self.webhook._bytes, MAX_WAITING_BYTES)

    def test_those_of_a_request_count_and_are_dropped_only_when_it_has_failed(self) -> None:
        self.die_and_send(*range(BATCH_JOBS))
        self.die(*range(BATCH_JOBS, MAX_WAITING + 1))
        self.assert_counts(dropped=1, waiting=MAX_WAITING)
        self.posted.refuse()
        self.assert_counts(failures=1, dropped=1, waiting=MAX_WAITING)
        self.clock.advance(BACKOFF.backoff)
        self.assertEqual(self.posted.handles()[0], handles(0)[0])
        self.die(MAX_WAITING + 1)
        self.posted.take()
        self.clock.advance(0)
        self.assertEqual(self.posted.handles()[0], handles(BATCH_JOBS + 2)[0])

    def test_bytes_are_counted_back_to_nothing(self) -> None:
        self.die_and_send(1, 2, 3)
        self.posted.refuse()
        self.clock.advance(BACKOFF.backoff)
        self.posted.take()
        self.assertEqual(self.webhook._bytes, 0)


class EndTest(WebhookTestCase):
    def test_nothing_waits(self) -> None:
        self.successResultOf(self.webhook.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_waits_is_sent_at_once(self) -> None:
        self.die(*range(BATCH_JOBS + 1))
        stopped = self.webhook.stop()
        self.clock.advance(0)
        self.posted.take()
        self.assertNoResult(stopped)
        self.clock.advance(0)
        self.posted.take()
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assert_counts(delivered=BATCH_JOBS + 1)

    def test_a_backoff_is_cut_short(self) -> None:
        self.die_and_send(1)
        for _ in range(5):
            self.posted.refuse()
            self.clock.advance(BACKOFF.backoff_max)
        self.posted.refuse()
        stopped = self.webhook.stop()
        self.clock.advance(0)
        self.posted.refuse()
        self.clock.advance(BACKOFF.backoff)
        self.posted.take()
        self.successResultOf(stopped)

    def test_it_takes_so_long_at_most(self) -> None:
        self.die_and_send(1, 2)
        self.die(3)
        stopped = self.webhook.stop()
        with capturedLogs() as logged:
            self.clock.advance(STOP_TIMEOUT)
        self.successResultOf(stopped)
        self.assertEqual((self.posted.cancelled, logged[0]["left"]), (1, 3))
        self.assert_counts(dropped=3)
        self.assertEqual((self.clock.getDelayedCalls(), self.webhook._bytes), ([], 0))

    def test_a_request_that_is_cut_may_have_been_taken(self) -> None:
        """The code of the answer had come, and not all of its body."""
        self.die_and_send(1)
        self.die(2)
        with patch.object(self.posted, "_cancelled"):
            self.posted.requests[0].addErrback(lambda _failure: None)
            request: Deferred[None] = Deferred(lambda request: request.callback(None))
            request.addCallbacks(self.webhook._taken, self.webhook._failed)
            self.webhook._request = request
            self.webhook.close()
        self.assert_counts(delivered=1, dropped=1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_deaths_may_come_again(self) -> None:
        self.die_and_send(1)
        self.webhook.stop()
        self.clock.advance(STOP_TIMEOUT)
        self.die_and_send(2)
        self.assertEqual(self.posted.take(), handles(2))

    def test_another_place(self) -> None:
        self.die_and_send(1)
        for _ in range(5):
            self.posted.refuse()
            self.clock.advance(BACKOFF.backoff_max)
        self.posted.refuse()
        other = Posted()
        self.webhook.use(other)
        self.clock.advance(0)
        self.assertEqual(other.take(), handles(1))


class ServiceTest(SynchronousTestCase):
    """A whole service, whose reload turns the webhook on and off."""

    URL = "http://me:secret@hooks.example/token"

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()

    def serve(self, **settings: Any) -> GearmanService:
        self.service = GearmanService(self.reactor, Settings(handle_prefix="H:test", **settings))
        self.service.startService()
        return self.service

    def kill_a_job(self) -> None:
        transport = SocketlikeTransport()
        transport.connect(self.service.factory.buildProtocol(None))
        transport.receive(req(1, b"f"), req(18, b"f", b"", b"data"), req(9), req(14, b"H:test:1"))
        self.reactor.advance(0)

    def test_a_death_is_posted(self) -> None:
        posted = Posted()
        with patch("txgearman.server.monitoring.http_poster.HTTPPoster.post", posted.post):
            self.serve(dead_webhook=self.URL)
            self.kill_a_job()
            self.reactor.advance(BATCH_DELAY)
            self.assertEqual(posted.take(), handles(1))
        assert self.service.death_webhook is not None
        self.assertEqual(self.service.death_webhook.counts.delivered, 1)

    def test_the_end_waits_for_what_waits(self) -> None:
        posted = Posted()
        with patch("txgearman.server.monitoring.http_poster.HTTPPoster.post", posted.post):
            self.serve(dead_webhook=self.URL)
            self.kill_a_job()
            for connection in list(self.service.factory.connections.values()):
                connection.transport.lose()
            stopped = self.service.stopService()
            self.reactor.advance(0)
            self.assertNoResult(stopped)
            self.assertEqual(posted.take(), handles(1))
            self.successResultOf(stopped)

    def test_a_reload(self) -> None:
        service = self.serve()
        self.assertIsNone(service.death_webhook)
        with capturedLogs() as logged:
            changed, waiting = service.reconfigure(Settings(handle_prefix="H:test", dead_webhook=self.URL))
            self.assertEqual((changed, waiting), (["dead-webhook"], []))
            webhook = service.death_webhook
            assert webhook is not None
            self.kill_a_job()
            other = self.URL.replace("hooks", "others")
            service.reconfigure(Settings(handle_prefix="H:test", dead_webhook=other))
            self.assertIs(service.death_webhook, webhook)
            self.assertEqual((webhook._poster.origin, webhook.counts.waiting), ("http://others.example", 1))
            service.reconfigure(Settings(handle_prefix="H:test"))
        self.assertEqual((webhook.counts.dropped, service.death_webhook), (1, None))
        self.assertEqual(len(service.factory.death_listeners), 1)
        self.assertNotIn("secret", repr([event.get("log_format", "").format(**event) for event in logged]))

    def test_a_reload_that_cannot_be_changes_nothing(self) -> None:
        service = self.serve()
        with (
            patch.dict(sys.modules, {"twisted.internet.ssl": None}),
            self.assertRaisesRegex(ValueError, r"pip install 'txgearman\[tls\]'"),
        ):
            service.reconfigure(Settings(handle_prefix="H:test", dead_webhook="https://hooks.example"))
        self.assertIsNone(service.death_webhook)


class OptionTest(SynchronousTestCase):
    def test_what_is_no_url_is_refused_and_not_shown(self) -> None:
        for url in (
            "",
            "secret",
            "ftp://secret@here",
            "http://",
            "http://[secret",
            "http://a b/secret",
            "http://ä/",
        ):
            with self.assertRaisesRegex(ValueError, "^dead-webhook must be a URL") as caught:
                Settings(dead_webhook=url)
            self.assertNotIn("secret", str(caught.exception))

    def test_nothing_is_loaded_without_it(self) -> None:
        code = (
            "import sys\n"
            "from twisted.internet.testing import MemoryReactorClock\n"
            "import txgearman.server.process.twistd\n"
            "from txgearman.server import Settings, make_service\n"
            "service = make_service(Settings(), reactor=MemoryReactorClock())\n"
            "service.startService()\n"
            "service.reconfigure(Settings(dead_age=5))\n"
            "loaded = [name for name in sys.modules if name.startswith(('twisted.web', 'txgearman.web'))]\n"
            "assert not loaded, loaded\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
        )
        self.assertEqual(done.returncode, 0, done.stderr)
