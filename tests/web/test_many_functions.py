"""Very many functions: whoever has to see all of them lets others go ahead.

These are the overview and the list of functions of the dashboard, the samples of its past,
``/api/v1/server``, ``/api/v1/functions`` and ``/metrics``. The lists of admin commands go piece by piece
anyway (tests/server).
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.web.asking import Exchange, Web
from tests.web.test_jobs import events
from tests.web.test_metrics import MEASURING, MetricsTestCase
from txgearman.server import Settings
from txgearman.web import slices
from txgearman.web.api import live
from txgearman.web.api.plots import AT_ONCE
from txgearman.web.slices import SLICE, iterate_in_slices

MANY = 3 * SLICE + 7


class WalkTests(SynchronousTestCase):
    """The mechanism by itself."""

    def test_a_piece_a_turn(self) -> None:
        for things, pieces in ((0, [0]), (1, [1]), (5, [5, 0]), (12, [5, 5, 2])):
            clock = Clock()
            seen: list[list[int]] = []
            walking_on = iterate_in_slices(range(things), seen.append, clock, size=5)
            for count in range(1, len(pieces) + 1):
                try:
                    walking_on.send(None).addBoth(lambda _: None)
                except StopIteration:
                    self.assertEqual(count, len(pieces))
                self.assertEqual(list(map(len, seen)), pieces[:count])
                clock.advance(0)
            self.assertEqual([thing for piece in seen for thing in piece], list(range(things)))


class ManyFunctionsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.web = Web(server=MEASURING)
        self.broker = self.web.gearman.server.broker
        self.administration = self.web.administration
        for number in range(MANY):
            self.administration.create_function(b"f%05d" % number)
        self.pauses = 0
        later = slices.deferLater

        def pause(reactor: Any, delay: float) -> Any:
            self.pauses += 1
            return later(reactor, delay)

        self.patch(slices, "deferLater", pause)

    def submit(self, function: str, count: int = 1) -> None:
        for _ in range(count):
            self.web.ask("POST", f"/api/v1/functions/{function}/jobs?background=true")

    def watch(self, query: str) -> Exchange:
        return self.web.begin("GET", "/api/v1/live" + query)

    def patches(self, exchange: Exchange) -> list[Any]:
        return [data["patch"] for what, data in events(exchange) if what == "patch"]

    def test_the_overview(self) -> None:
        self.submit("f00003", 2)
        self.submit(f"f{MANY - 1:05d}", 3)
        exchange = self.watch("?view=overview")
        self.assertEqual(self.pauses, 3)
        (patch,) = self.patches(exchange)
        self.assertEqual(patch["order"][:2], [f"f{MANY - 1:05d}", "f00003"])
        self.assertEqual(len(patch["order"]), live.TOP)
        self.assertEqual(patch["server"]["functions"], MANY)
        self.assertEqual(patch["server"]["queued"], {"high": 0, "normal": 5, "low": 0})
        self.submit("f00003", 2)
        self.web.gearman.turn(live.INTERVAL)
        change = self.patches(exchange)[-1]
        self.assertEqual(change["order"][:2], ["f00003", f"f{MANY - 1:05d}"])
        self.assertEqual(change["server"]["submitted"], 7)

    def test_the_list(self) -> None:
        (patch,) = self.patches(self.watch("?view=functions"))
        self.assertEqual(self.pauses, 3)
        self.assertEqual(patch["total"], MANY)
        self.assertEqual(patch["order"], [f"f{number:05d}" for number in range(live.MAX_ROWS)])
        (patch,) = self.patches(self.watch(f"?view=functions&search={MANY - 1:05d}"))
        self.assertEqual((patch["total"], patch["order"]), (1, [f"f{MANY - 1:05d}"]))

    def test_several_who_look_share_a_turn(self) -> None:
        exchanges = [self.watch("?view=functions&sort=queued"), self.watch("?view=overview")]
        self.pauses = 0
        self.submit("f00500")
        self.web.gearman.turn(live.INTERVAL)
        self.assertEqual(self.pauses, MANY // (SLICE // 2))
        for exchange in exchanges:
            self.assertEqual(self.patches(exchange)[-1]["order"][0], "f00500")

    def test_one_function_needs_no_look_at_all(self) -> None:
        (patch,) = self.patches(self.watch("?view=function&function=f00001"))
        self.assertEqual((patch["function"]["id"], self.pauses), ("f00001", 0))

    def test_who_goes_while_others_are_looked_at(self) -> None:
        exchange = Exchange(self.web, "127.0.0.1")
        # As `send`, without letting it be answered.
        exchange._protocol.dataReceived(b"GET /api/v1/live?view=overview HTTP/1.1\r\nHost: localhost\r\n\r\n")
        exchange.leave()
        self.assertEqual(self.web.gearman.clock.getDelayedCalls(), [])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_the_server(self) -> None:
        self.submit("f00001")
        self.assertEqual(self.web.get("/api/v1/server").json()["functions"], MANY)
        self.assertEqual(self.pauses, 3)

    def test_pages_of_functions(self) -> None:
        page = self.web.get("/api/v1/functions?limit=2&after=600").json()
        self.assertEqual([row["id"] for row in page["functions"]], ["f00600", "f00601"])
        self.assertEqual((page["total"], page["next"], self.pauses), (MANY, 602, 3))

    def test_one_that_is_dropped_meanwhile_is_left_out(self) -> None:
        exchange = Exchange(self.web, "127.0.0.1")
        exchange._protocol.dataReceived(b"GET /api/v1/functions?limit=2 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.administration.drop_function(b"f00000")
        self.web.gearman.turn()
        self.assertEqual([row["id"] for row in exchange.response.json()["functions"]], ["f00001"])

    def test_samples_of_the_past(self) -> None:
        self.submit("f00001", 4)
        self.web.site.startFactory()
        self.addCleanup(self.web.site.stopFactory)
        self.web.gearman.turn()
        self.assertEqual(self.pauses, 3 + MANY // AT_ONCE, "the totals, and the functions")
        (_, past), *_ = [event for event in events(self.watch("?view=overview")) if event[0] == "history"]
        self.assertEqual(past["samples"][-1][past["columns"].index("submitted")], 4)


class MetricsTests(MetricsTestCase):
    def test_they_are_taken_in_pieces(self) -> None:
        pauses = []
        later = slices.deferLater

        def pause(reactor: Any, delay: float) -> Any:
            pauses.append(delay)
            return later(reactor, delay)

        self.patch(slices, "deferLater", pause)
        for number in range(MANY):
            self.web.gearman.server.administration.create_function(b"f%05d" % number)
        self.assertEqual(self.value("functions"), MANY)
        # There is a row for all others.
        self.assertEqual(len(pauses), (MANY + 1) // SLICE)


class ForgottenTests(SynchronousTestCase):
    """Functions come and are forgotten, and what they have counted is not taken back."""

    def test_totals_do_not_fall(self) -> None:
        web = Web(server=Settings(handle_prefix="H:t", max_functions=10))
        broker = web.gearman.server.broker
        for number in range(30):
            web.ask("POST", f"/api/v1/functions/f{number}/jobs?background=true")
            broker.cancel(b"H:t:%d" % (number + 1))
            server = web.get("/api/v1/server").json()
            self.assertEqual((server["submitted"], server["dropped"]), (number + 1, number + 1))
            self.assertEqual(server["failed"], 0)
        self.assertEqual(server["functions"], 5)

    def test_one_too_many_over_http(self) -> None:
        web = Web(server=Settings(handle_prefix="H:t", max_functions=2))
        for name, status in (("a", 202), ("b", 202), ("c", 429), ("a", 202)):
            response = web.ask("POST", f"/api/v1/functions/{name}/jobs?background=true")
            self.assertEqual(response.status, status)
        response = web.ask("POST", "/api/v1/functions/c/jobs")
        self.assertEqual(response.code, "queue-error")
