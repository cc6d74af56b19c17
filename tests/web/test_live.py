"""What a dashboard is sent: a document, and then only what has changed in it."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.web.asking import Exchange, Web
from tests.web.test_jobs import JobCase, events
from tests.wire.effort import EFFORT
from txgearman.web import WebSettings
from txgearman.web.api import history, live
from txgearman.web.api.history import History
from txgearman.web.api.live import merge_patch

values = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.lists(st.integers(0, 2), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=8,
)
documents = st.dictionaries(st.sampled_from("abcd"), values, max_size=4)


def merged(target: Any, patch: Any) -> Any:
    """What RFC 7396 says a patch makes of a target."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_nulls(member) for name, member in value.items() if member is not None}
    return value


class PatchTests(SynchronousTestCase):
    @settings(EFFORT, max_examples=300)
    @given(documents, documents)
    def test_it_makes_the_new_of_the_old(self, old: dict[str, Any], new: dict[str, Any]) -> None:
        self.assertEqual(merged(without_nulls(old), merge_patch(old, new)), without_nulls(new))

    @given(documents)
    @settings(EFFORT, max_examples=50)
    def test_without_a_change_it_is_empty(self, document: dict[str, Any]) -> None:
        self.assertEqual(merge_patch(document, document), {})


class LiveTests(JobCase):
    def watch(self, query: str = "") -> Exchange:
        return self.web.begin("GET", "/api/v1/live" + query)

    def patches(self, exchange: Exchange) -> list[dict[str, Any]]:
        return [data["patch"] for what, data in events(exchange) if what == "patch"]

    def submit(self, function: str = "f", query: str = "") -> None:
        self.web.ask("POST", f"/api/v1/functions/{function}/jobs?background=true{query}")

    def pass_time(self, seconds: float = live.INTERVAL) -> None:
        self.web.gearman.turn(seconds)

    def test_only_what_has_changed_is_sent(self) -> None:
        self.submit("f")
        self.submit("g")
        exchange = self.watch("?view=functions")
        (first,) = self.patches(exchange)
        self.assertEqual(first["order"], ["f", "g"])
        self.pass_time(5)
        self.assertEqual(len(self.patches(exchange)), 1)
        self.submit("f")
        self.pass_time()
        (_, second) = self.patches(exchange)
        self.assertEqual(second, {"rows": {"f": {"total": 2, "queued": {"normal": 2}, "submitted": 2}}})

    def test_functions_are_found_and_ordered(self) -> None:
        for function, count in (("few", 1), ("many", 3), ("Most", 5)):
            for _ in range(count):
                self.submit(function)
        for query, order in (
            ("", ["few", "many", "Most"]),
            ("&sort=queued", ["Most", "many", "few"]),
            ("&search=M", ["many", "Most"]),
        ):
            (patch,) = self.patches(self.watch("?view=functions" + query))
            self.assertEqual(patch["order"], order, query)

    def test_the_jobs_on_the_screen(self) -> None:
        self.submit()
        self.submit()
        exchange = self.watch("?view=function&function=f&handles=H:t:1,H:t:2,H:t:99")
        (first,) = self.patches(exchange)
        self.assertEqual(list(first["rows"]), ["H:t:1", "H:t:2"])
        worker = self.worker()
        handle = self.give(worker)
        self.broker.report_status(worker, handle, b"1", b"4")
        self.pass_time()
        change = self.patches(exchange)[-1]["rows"]["H:t:1"]
        self.assertEqual((change["state"], change["numerator"], change["denominator"]), ("running", 1, 4))
        self.broker.complete(worker, handle, b"")
        self.pass_time()
        self.assertIsNone(self.patches(exchange)[-1]["rows"]["H:t:1"])

    def test_a_function_that_is_not_there(self) -> None:
        (patch,) = self.patches(self.watch("?view=function&function=nothing"))
        self.assertEqual(patch, {"rows": {}, "retrying": 0})

    def test_connections(self) -> None:
        worker = self.web.gearman.worker(client_id="a worker")
        worker.register("f", lambda _job: b"")
        self.web.gearman.wait(worker.start())
        self.submit()
        for query, ids in (
            ("", ["a worker"]),
            ("&role=client", []),
            ("&search=work", ["a worker"]),
            ("&search=x", []),
        ):
            (patch,) = self.patches(self.watch("?view=connections" + query))
            self.assertEqual([patch["rows"][key]["id"] for key in patch["order"]], ids, query)

    def test_a_list_has_an_end(self) -> None:
        self.patch(live, "MAX_ROWS", 2)
        for name in ("a", "b", "c"):
            self.submit(name)
        (patch,) = self.patches(self.watch("?view=functions"))
        self.assertEqual((patch["order"], patch["total"]), (["a", "b"], 3))

    def test_who_does_not_keep_up_is_told_all_at_once(self) -> None:
        exchange = self.watch("?view=functions")
        exchange.transport.producer.pauseProducing()
        for _ in range(5):
            self.submit()
            self.pass_time()
        exchange.transport.producer.resumeProducing()
        self.pass_time()
        patches = self.patches(exchange)
        self.assertEqual(len(patches), 2)
        self.assertEqual(patches[-1]["rows"]["f"]["total"], 5)

    def test_nobody_looks_when_the_last_has_gone(self) -> None:
        first, second = self.watch(), self.watch("?view=functions")
        first.leave()
        self.assertNotEqual(self.web.gearman.clock.getDelayedCalls(), [])
        second.leave()
        self.assertEqual(self.web.gearman.clock.getDelayedCalls(), [])

    def test_what_the_reader_may_do(self) -> None:
        ((_, rights),) = [event for event in events(self.watch()) if event[0] == "rights"]
        expected = {"manage": True, "schedule": True, "read_only": False, "token": False}
        self.assertEqual(rights, {**expected, "wrong_token": False})

    def test_a_wrong_token(self) -> None:
        self.web = Web(WebSettings(token=b"0123456789abcdef"))
        for token, is_wrong in (("0123456789abcdef", False), ("0123456789abcdeX", True), ("", False)):
            exchange = self.web.begin("GET", "/api/v1/live", headers={"Authorization": f"Bearer {token}"})
            ((_, rights),) = [event for event in events(exchange) if event[0] == "rights"]
            self.assertEqual((rights["wrong_token"], rights["token"]), (is_wrong, True), token)
            exchange.leave()

    def test_the_overview_has_a_past_and_goes_on(self) -> None:
        self.web.site.startFactory()
        self.addCleanup(self.web.site.stopFactory)
        self.pass_time(3)
        exchange = self.watch()
        ((_, past),) = [event for event in events(exchange) if event[0] == "history"]
        self.assertEqual((len(past["samples"]), past["coarse"]), (4, False))
        self.submit()
        self.pass_time(2)
        samples = [data for what, data in events(exchange) if what == "sample"]
        self.assertEqual([sample[past["columns"].index("submitted")] for sample in samples], [1, 1])


class HistoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.cost = 0.0
        self.history = History(self.measure, self.clock, self.clock.seconds)

    async def measure(self) -> dict[str, Any]:
        self.clock.rightNow += self.cost
        return dict.fromkeys(history.COLUMNS[1:], 7)

    def times(self, coarse: bool) -> list[float]:
        return [sample[0] for sample in self.history.samples(coarse)]

    def test_a_sample_a_second_and_one_a_minute(self) -> None:
        self.history.start()
        self.clock.pump([1] * 180)
        self.assertEqual(self.times(coarse=False), [float(second) for second in range(181)])
        self.assertEqual(self.times(coarse=True), [0.0, 60.0, 120.0, 180.0])

    def test_only_so_many_are_kept(self) -> None:
        self.history.start()
        self.clock.pump([1] * (history.RECENT + 5))
        self.assertEqual(len(self.times(coarse=False)), history.RECENT)

    def test_dear_samples_are_rare(self) -> None:
        self.cost = 0.05
        self.history.start()
        self.clock.pump([1] * 60)
        self.assertLessEqual(len(self.times(coarse=False)), 60 / (0.05 * history.SHARE) + 1)

    def test_it_stops(self) -> None:
        self.history.start()
        self.history.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
