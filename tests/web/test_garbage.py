"""No HTTP request or connection outlives its end: each is freed at once, without the collector.

Places that refer to their request or connection, or did: the two sides of a request that is a client of the
broker, an event stream and who it tells that its reader is gone, the producer that a request and TLS keep,
the decoder of a body that comes (it tells the channel), timers once they have fired, what a request waits
for, and what knows the connections whose requests wait for their turn.
`tests/server/test_garbage.py` has those of the Gearman protocol.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

from tests.broker.bench import SilentWorker
from tests.garbage import GarbageTestCase, gone
from tests.web.asking import Exchange, Web
from txgearman.broker.entities import Worker
from txgearman.server import Settings
from txgearman.web.api.clients import StreamedResponse, WholeResponse
from txgearman.web.api.live import Viewer
from txgearman.web.http.body import PIECE, STALLED
from txgearman.web.http.channel import BODY_LIMIT, LimitedChannel
from txgearman.web.http.request import LimitedRequest
from txgearman.web.http.stream import HEARTBEAT, EventStream

JOBS = "/api/v1/functions/f/jobs"
STREAM = {"Accept": "text/event-stream"}
LARGE = bytes(20 * PIECE)
FOLLOWING = b"GET /api/v1/server HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2000

KINDS = (LimitedChannel, LimitedRequest, WholeResponse, StreamedResponse, EventStream, Viewer)


class Scene:
    """A web side, and the `exchange` that is to end."""

    def __init__(self) -> None:
        self.web = Web(server=Settings(web="8080", handle_prefix="H:t"))
        self.broker = self.web.broker
        self.administration = self.web.administration
        self.worker = Worker(SilentWorker())
        self.broker.can_do(self.worker, b"f")
        self.exchange: Exchange

    def begin(self, *request: Any, pauses: bool = False, **how: Any) -> None:
        self.exchange = self.web.begin(*request, **how)
        self.exchange.transport.pauses = pauses

    def submit(self, data: bytes) -> None:
        """Let there be a job, by a connection that ends."""
        exchange = self.web.begin("POST", JOBS + "?background=true", data)
        exchange.leave()
        exchange.transport.protocol = None

    def grab(self) -> bytes:
        job = self.broker.grab(self.worker)
        assert job is not None
        return job.handle

    def turn(self, seconds: float = 0) -> None:
        self.web.gearman.turn(seconds)


State = Callable[[Scene], None]


def part_of_a_head(scene: Scene) -> None:
    scene.exchange = Exchange(scene.web, "127.0.0.1")
    scene.exchange.send(b"POST / HTTP/1.1\r\nHost:")


def part_of_a_body(scene: Scene) -> None:
    scene.exchange = Exchange(scene.web, "127.0.0.1")
    scene.exchange.send(
        b"POST /f HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999\r\n\r\n" + bytes(99999)
    )


def part_of_a_chunked_body(scene: Scene) -> None:
    scene.exchange = Exchange(scene.web, "127.0.0.1")
    head = b"POST /f HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    scene.exchange.send(head + b"fffff\r\n" + bytes(99999))


def too_slow_a_body(scene: Scene) -> None:
    part_of_a_body(scene)
    scene.exchange.transport.lingers = True
    scene.turn(BODY_LIMIT + 99999)


def answered(scene: Scene) -> None:
    scene.begin("GET", "/api/v1/server")
    assert scene.exchange.response.status == 200


def refused(scene: Scene, headers: dict[str, str] | None = None) -> None:
    scene.administration.set_limits(b"f", (1, 1, 1))
    scene.submit(b"")
    scene.begin("POST", JOBS, headers=headers)
    assert scene.exchange.response.status == 429


def refused_to_follow(scene: Scene) -> None:
    refused(scene, STREAM)


def accepted(scene: Scene) -> None:
    scene.begin("POST", JOBS + "?background=true", b"x")
    assert scene.exchange.response.status == 202


def waits(scene: Scene) -> None:
    scene.begin("POST", JOBS + "?timeout=5", LARGE)


def waited_too_long(scene: Scene) -> None:
    waits(scene)
    scene.turn(6)
    assert scene.exchange.response.status == 504


def waits_with_parts(scene: Scene) -> None:
    waits(scene)
    handle = scene.grab()
    scene.broker.report_data(scene.worker, handle, LARGE)
    scene.broker.report_data(scene.worker, handle, b"x")
    scene.turn()
    scene.broker.report_data(scene.worker, handle, b"not told yet")


def has_its_result(scene: Scene) -> None:
    waits(scene)
    scene.broker.complete(scene.worker, scene.grab(), LARGE)
    scene.turn()
    assert scene.exchange.response.body == LARGE


def result_unread(scene: Scene) -> None:
    scene.begin("POST", JOBS, pauses=True)
    scene.broker.complete(scene.worker, scene.grab(), LARGE)
    scene.turn()
    assert scene.web.gearman.server.budget.used


def result_unread_for_too_long(scene: Scene) -> None:
    result_unread(scene)
    scene.turn(STALLED + 1)


def job_unread(scene: Scene) -> None:
    scene.submit(LARGE)
    scene.exchange = Exchange(scene.web, "127.0.0.1")
    scene.exchange.transport.pauses = True
    scene.exchange.send(b"GET /api/v1/jobs/H:t:1/data HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert scene.web.gearman.server.budget.used


def follows(scene: Scene) -> None:
    scene.begin("POST", JOBS + "?timeout=999", headers=STREAM)
    scene.turn(HEARTBEAT + 1)


def follows_somebody_elses(scene: Scene) -> None:
    scene.submit(LARGE)
    scene.begin("GET", "/api/v1/jobs/H:t:1/events")


def events_unread(scene: Scene) -> None:
    scene.begin("POST", JOBS, headers=STREAM, pauses=True)
    handle = scene.grab()
    for data in (LARGE, b"x", b"\xff" * 99999):
        scene.broker.report_data(scene.worker, handle, data)
    scene.turn()
    assert scene.web.gearman.server.budget.used


def last_event_unread(scene: Scene) -> None:
    scene.begin("POST", JOBS, headers=STREAM, pauses=True)
    scene.broker.complete(scene.worker, scene.grab(), LARGE)
    scene.turn()


def events_unread_for_too_long(scene: Scene) -> None:
    events_unread(scene)
    scene.turn(STALLED + 2 * HEARTBEAT)


def all_events_read(scene: Scene) -> None:
    scene.begin("POST", JOBS, headers=STREAM)
    handle = scene.grab()
    scene.broker.report_data(scene.worker, handle, LARGE)
    scene.broker.complete(scene.worker, handle, LARGE)
    scene.turn()
    assert scene.exchange.transport.value().endswith(b"0\r\n\r\n")


def requests_behind_one_under_way(scene: Scene) -> None:
    waits(scene)
    scene.exchange.send(FOLLOWING)


def requests_behind_an_unread_answer(scene: Scene) -> None:
    scene.exchange = Exchange(scene.web, "127.0.0.1")
    scene.exchange.transport.pauses = True
    scene.exchange.send(FOLLOWING)
    assert scene.exchange.answers == 1


def requests_that_wait_for_their_turn(scene: Scene) -> None:
    scene.exchange = Exchange(scene.web, "127.0.0.1")
    scene.exchange.transport.pauses = True
    scene.exchange.deliver(FOLLOWING)
    scene.exchange.transport.pauses = False
    scene.exchange.transport.resume()
    assert scene.exchange.answers == 1


def looks_at_the_dashboard(scene: Scene) -> None:
    scene.begin("GET", "/api/v1/live?view=overview")
    scene.turn(5)


def dropped_for_the_total(scene: Scene) -> None:
    scene.web.gearman.server.budget.limit = len(LARGE) // 2
    scene.begin("POST", JOBS, headers=STREAM, pauses=True)
    scene.broker.report_data(scene.worker, scene.grab(), LARGE)
    scene.turn()
    assert scene.exchange.response.closed


STATES: tuple[State, ...] = (
    part_of_a_head,
    part_of_a_body,
    part_of_a_chunked_body,
    too_slow_a_body,
    answered,
    refused,
    refused_to_follow,
    accepted,
    waits,
    waited_too_long,
    waits_with_parts,
    has_its_result,
    result_unread,
    result_unread_for_too_long,
    job_unread,
    follows,
    follows_somebody_elses,
    events_unread,
    last_event_unread,
    events_unread_for_too_long,
    all_events_read,
    requests_behind_one_under_way,
    requests_behind_an_unread_answer,
    requests_that_wait_for_their_turn,
    looks_at_the_dashboard,
    dropped_for_the_total,
)


class RequestTest(GarbageTestCase):
    def test_each_state(self) -> None:
        self.check_each(STATES, self.end_in)

    def end_in(self, state: State) -> None:
        scene = Scene()
        state(scene)
        references = [weakref.ref(thing) for thing in gc.get_objects() if isinstance(thing, KINDS)]
        self.assertTrue(references)
        scene.exchange.leave()
        scene.exchange.transport.protocol = None
        del scene.exchange
        scene.turn(1)
        left = [reference() for reference in references if not gone(reference)]
        self.assertEqual([(state.__name__, thing, gc.get_referrers(thing)) for thing in left], [])
        server = scene.web.gearman.server
        self.assertEqual((server.budget.used, server.unfinished.total), (0, 0))
        self.assertNoGarbage()
