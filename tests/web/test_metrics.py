"""What ``/metrics`` shows, read back by prometheus_client's parser and by Prometheus's own tool."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.server.peers import Peer, req
from tests.support import needs_program
from tests.web.asking import Web
from tests.wire.effort import EFFORT
from txgearman.access.policy import AccessPolicy, Rule
from txgearman.broker.histograms import BOUNDS, Durations, Histogram
from txgearman.broker.job_states import OUTCOME_NAMES
from txgearman.server import Settings
from txgearman.server.config.schedule_options import ScheduleSettings
from txgearman.web import WebSettings, make_site, metrics
from txgearman.web.interfaces import Saved, WebhookCounts
from txgearman.web.metrics import FAMILIES, OTHER_FUNCTIONS, ServerCollector, function_label

MEASURING = Settings(handle_prefix="H:t", metrics_functions=3)
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


class ServerHealth:
    """A server without a store, whose event loop is never late."""

    store: Saved | None = None
    told: WebhookCounts | None = None

    def problems(self) -> list[str]:
        return []

    def loop_delay(self) -> Durations:
        histogram = Histogram()
        histogram.add(0.0)
        return histogram.so_far()

    def saved(self) -> Saved | None:
        return self.store

    def webhook(self) -> WebhookCounts | None:
        return self.told


def samples_of(text: str) -> Samples:
    """All samples by name and labels, each of which there must be once."""
    samples: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in samples, key
            samples[key] = sample.value
    return samples


class MetricsTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.health = ServerHealth()
        self.web = Web(server=MEASURING, health=self.health)

    def peer(self, *packets: bytes) -> Peer:
        peer = Peer(self.web.gearman)
        self.web.gearman.connect(peer)
        peer.ask(*packets)
        return peer

    def text(self, path: str = "/metrics", **headers: str) -> str:
        response = self.web.get(path, headers={name.replace("_", "-"): headers[name] for name in headers})
        self.assertEqual(response.status, 200)
        return response.body.decode()

    def samples(self) -> Samples:
        return samples_of(self.text())

    def value(self, name: str, **labels: str) -> float:
        return self.samples()[f"txgearman_{name}", frozenset(labels.items())]


class ValuesTest(MetricsTestCase):
    def test_limits_of_runs(self) -> None:
        client = self.peer(*[req(18, b"f", b"", b"")] * 4, req(18, b"g", b"", b""))
        self.assertEqual(self.value("jobs_max_running", function="f"), 0)
        client.ask(b"limit f max-running 2\nlimit f pause-after 1\n")
        worker = self.peer(req(1, b"f"), req(9))
        self.assertEqual(self.value("jobs_max_running", function="f"), 2)
        self.assertEqual(self.value("jobs_blocked", function="f"), 2)
        self.assertEqual(self.value("function_throttled", function="f"), 0)
        worker.ask(req(9))
        self.assertEqual(self.value("function_throttled", function="f"), 1)
        self.assertEqual(self.value("function_paused", function="f", by="failures"), 0)
        worker.ask(req(14, b"H:t:1"))
        self.assertEqual(self.value("function_paused", function="f", by="failures"), 1)
        self.assertEqual(self.value("function_paused", function="f", by="administrator"), 0)
        administration = self.web.gearman.server.administration
        administration.resume_function(b"f")
        administration.pause_function(b"g")
        self.assertEqual(self.value("function_paused", function="f", by="failures"), 0)
        self.assertEqual(self.value("function_paused", function="g", by="administrator"), 1)

    def test_a_job_s_way(self) -> None:
        client = self.peer(req(18, b"f", b"", b""), req(32, b"f", b"", b""), req(34, b"g", b"", b""))
        client.ask(req(36, b"g", b"", b"30", b""))
        worker = self.peer(req(1, b"f"))
        self.assertEqual(self.value("jobs_queued", function="f", priority="high"), 1)
        self.assertEqual(self.value("jobs_queued", function="f", priority="normal"), 1)
        self.assertEqual(self.value("jobs_queued", function="g", priority="low"), 1)
        self.assertEqual(self.value("jobs_scheduled", function="g"), 1)
        self.assertEqual(self.value("workers", function="f"), 1)
        self.web.gearman.turn(2)
        worker.ask(req(9))
        self.assertEqual(self.value("jobs_running", function="f"), 1)
        self.web.gearman.turn(40)
        worker.ask(req(13, b"H:t:2", b""))
        samples = self.samples()

        def counted(name: str, le: str) -> float:
            return samples[f"txgearman_{name}_bucket", frozenset({("function", "f"), ("le", le)})]

        self.assertEqual([counted("job_wait_seconds", le) for le in ("1.0", "2.5", "+Inf")], [0, 1, 1])
        self.assertEqual([counted("job_run_seconds", le) for le in ("30.0", "60.0", "+Inf")], [0, 1, 1])
        self.assertEqual(self.value("job_run_seconds_sum", function="f"), 40)
        self.assertEqual(self.value("job_run_seconds_count", function="f"), 1)
        self.assertEqual(self.value("jobs_completed_total", function="f"), 1)
        self.assertEqual(self.value("jobs_submitted_total", function="f"), 2)

    def test_every_way_to_end(self) -> None:
        self.peer(*[req(18, b"f", b"", b"")] * 5)
        leaver = self.peer(req(7, b"f", b"", b""), req(7, b"f", b"u", b""), req(7, b"f", b"u", b""))
        worker = self.peer(req(1, b"f"), *[req(9)] * 4)
        worker.ask(req(13, b"H:t:1", b""), req(14, b"H:t:2"), req(25, b"H:t:3", b"oh"))
        worker.hang_up()
        self.peer(b"cancel job H:t:5\n")
        leaver.hang_up()
        for name, labels, value in (
            ("jobs_submitted_total", {}, 7),
            ("jobs_joined_total", {}, 1),
            ("jobs_completed_total", {}, 1),
            ("jobs_failed_total", {"outcome": "failed"}, 1),
            ("jobs_failed_total", {"outcome": "raised"}, 1),
            ("jobs_failed_total", {"outcome": "timed-out"}, 0),
            ("jobs_failed_total", {"outcome": "lost"}, 0),
            ("jobs_requeued_total", {}, 1),
            ("jobs_dropped_total", {"outcome": "cancelled"}, 1),
            ("jobs_dropped_total", {"outcome": "abandoned"}, 2),
            ("jobs_dead", {}, 2),
            ("jobs_retrying", {}, 0),
            ("jobs_queued", {"priority": "normal"}, 1),
            ("jobs_saving", {}, 0),
        ):
            self.assertEqual(self.value(name, function="f", **labels), value, (name, labels))

    def test_each_outcome_is_in_one_count(self) -> None:
        """Completed jobs have a counter of their own. Places that count outcomes: this, the totals of HTTP
        and those of a function."""
        self.peer(req(18, b"f", b"", b""))
        samples = self.samples()
        failed, dropped = (
            {dict(labels)["outcome"] for each, labels in samples if each == f"txgearman_jobs_{name}_total"}
            for name in ("failed", "dropped")
        )
        self.assertEqual(failed, {"failed", "raised", "timed-out", "lost"})
        self.assertEqual(failed | dropped | {"completed"}, set(OUTCOME_NAMES.values()))
        self.assertEqual(failed & dropped, set())

    def test_retries_and_dead_jobs(self) -> None:
        server = Settings(handle_prefix="H:t", metrics_functions=1, attempts=2, dead_jobs=2)
        self.web = Web(server=server, health=self.health)
        self.peer(
            *[req(18, b"f", b"", b"")] * 2, *[req(18, b"g", b"", b"")] * 2, req(36, b"f", b"", b"99", b"")
        )
        worker = self.peer(req(1, b"f"), *[req(9)] * 2)
        worker.ask(req(14, b"H:t:1"), req(14, b"H:t:2"))
        self.assertEqual(self.value("jobs_retrying", function="f"), 2)
        self.assertEqual(self.value("jobs_scheduled", function="f"), 1)
        self.assertEqual(self.value("jobs_dead", function="f"), 0)
        worker.ask(req(1, b"g"))
        for _ in range(2):
            self.web.gearman.turn(30)
            worker.ask(*[req(9)] * 4)
            worker.ask(*[req(14, b"H:t:%d" % number) for number in (1, 2, 3, 4)])
        self.assertEqual(self.value("jobs_retrying", function="f"), 0)
        # Two are kept. Functions that are not told apart have their dead jobs together.
        self.assertEqual(self.value("jobs_dead", function="f"), 0)
        self.assertEqual(self.value("jobs_dead", function=OTHER_FUNCTIONS), 2)
        self.assertEqual(self.value("jobs_dead_evicted_total"), 2)
        self.assertEqual(self.value("jobs_failed_total", function="f", outcome="failed"), 2)

    def test_connections(self) -> None:
        said = b"maxqueue f 1\n" + req(18, b"f", b"", b"") * 3
        self.peer(said)
        gone = self.peer(req(16, b"x"))
        gone.hang_up()
        self.peer(b"\0BAD" + bytes(8))
        self.web.gearman.server.admission.limit_per_address = 1
        self.peer()
        self.assertEqual(self.value("connections_refused_total", limit="max-connections-per-address"), 1)
        self.assertEqual(self.value("connections_refused_total", limit="max-connections"), 0)
        self.assertEqual(self.value("connections"), 1)
        self.assertEqual(self.value("connections_accepted_total"), 3)
        self.assertEqual(self.value("connections_dropped_total", reason="broken-stream"), 1)
        self.assertEqual(self.value("packets_refused_total", code="QUEUE_ERROR"), 2)
        self.assertEqual(self.value("jobs_refused_total", function="f"), 2)
        self.assertEqual(self.value("received_bytes_total"), len(said) + 13 + 12)
        self.assertGreater(self.value("sent_bytes_total"), 13)

    def test_the_store(self) -> None:
        names = {family.exported for family in FAMILIES if family.name.startswith("txgearman_store_")}
        self.assertFalse({name for name, _labels in self.samples()} & names)
        times = Histogram()
        times.add(0.02)
        self.health.store = Saved(False, 1, 2, 3, times.so_far(), 4.0, 5, 6, {b"f": (3, 1)})
        expected = {"available": 0, "commits_total": 1, "failures_total": 2, "saved_jobs_total": 3}
        expected |= {"lag_seconds": 4, "unsaved_jobs": 5, "unremoved_jobs": 6, "commit_seconds_count": 1}
        for name, value in expected.items():
            self.assertEqual(self.value(f"store_{name}"), value, name)
        self.assertEqual(self.value("store_slots", function=OTHER_FUNCTIONS, state="leased"), 3)
        self.peer(req(18, b"f", b"", b""))
        for state, slots in (("leased", 3), ("wanted", 1)):
            self.assertEqual(self.value("store_slots", function="f", state=state), slots)
            self.assertEqual(self.value("store_slots", function=OTHER_FUNCTIONS, state=state), 0)

    def test_the_webhook(self) -> None:
        names = {family.exported for family in FAMILIES if family.name.startswith("txgearman_dead_webhook_")}
        self.assertFalse({name for name, _labels in self.samples()} & names)
        self.health.told = WebhookCounts(delivered=1, failures=2, dropped=3, waiting=4)
        expected = {"delivered_total": 1, "failures_total": 2, "dropped_total": 3, "waiting": 4}
        for name, value in expected.items():
            self.assertEqual(self.value(f"dead_webhook_{name}"), value, name)

    def test_schedules(self) -> None:
        names = {family.exported for family in FAMILIES if family.name.startswith("txgearman_schedule_")}
        self.assertFalse({name for name, _labels in self.samples()} & names)
        each = ScheduleSettings(function="f", every=60.0)
        self.web = Web(server=replace(MEASURING, schedules={"a": each, "b": each}), health=self.health)
        begin = self.web.gearman.clock.seconds()
        self.web.gearman.server.scheduling.pause(b"b")
        self.web.gearman.turn(121)
        expected = {"ticks_total": 1, "skipped_total": 1, "missed_total": 0, "refused_total": 0}
        expected |= {"lateness_seconds": 0, "next_timestamp_seconds": begin + 180}
        for name, value in expected.items():
            self.assertEqual(self.value(f"schedule_{name}", schedule="a"), value, name)
        shown = {name for name, labels in self.samples() if ("schedule", "b") in labels}
        self.assertEqual(
            names - shown,
            {"txgearman_schedule_lateness_seconds", "txgearman_schedule_next_timestamp_seconds"},
        )

    def test_more_schedules_than_are_shown(self) -> None:
        self.patch(metrics, "MAX_SCHEDULES", 2)
        each = ScheduleSettings(function="f", every=60.0)
        schedules = {f"s{number}": each for number in range(5)}
        self.web = Web(server=replace(MEASURING, schedules=schedules), health=self.health)
        shown = {
            dict(labels)["schedule"]
            for name, labels in self.samples()
            if name == "txgearman_schedule_ticks_total"
        }
        self.assertEqual(shown, {"s0", "s1"})

    def test_a_server_that_begins_anew(self) -> None:
        self.peer(req(18, b"f", b"", b""))
        self.web.gearman.server.stop()
        self.web.gearman.turn()
        self.assertEqual(self.value("functions"), 0)


class LabelsTest(MetricsTestCase):
    def test_invented_functions(self) -> None:
        """Three functions are told apart, as the settings say, however many there are."""
        self.peer(*[req(18, b"f%d" % number, b"", b"") for number in range(5)])
        few = self.text().count("\n")
        self.peer(*[req(18, b"f%d" % number, b"", b"") for number in range(5, 5000)])
        self.assertEqual(self.text().count("\n"), few)
        self.assertEqual(self.value("jobs_submitted_total", function=OTHER_FUNCTIONS), 4997)
        self.assertEqual(self.value("functions"), 5000)

    def test_evil_names(self) -> None:
        names = [b'a"} 1\nx', b"\\", b"\xff", b"\\xff", b"(other)", b"\\(other)", b"", b"\xe2\x82\xac"]
        self.web = Web(server=Settings(metrics_functions=20), health=self.health)
        self.peer(*[req(18, name, b"", b"") for name in names])
        for name in names:
            self.assertEqual(self.value("jobs_submitted_total", function=function_label(name)), 1, name)

    @EFFORT
    @given(st.binary(max_size=12), st.binary(max_size=12))
    def test_no_two_functions_have_one_label(self, one: bytes, other: bytes) -> None:
        self.assertEqual(function_label(one) == function_label(other), one == other)
        self.assertNotEqual(function_label(one), OTHER_FUNCTIONS)
        self.assertEqual(
            samples_of(exposed(one)), {("jobs", frozenset({("function", function_label(one))})): 1}
        )

    def test_plain_names_are_shown_as_they_are(self) -> None:
        self.assertEqual(function_label(b"resize:large-2 \xc3\xa9"), "resize:large-2 é")

    def test_without_telling_functions_apart(self) -> None:
        self.web = Web(server=Settings(metrics_functions=0), health=self.health)
        self.assertEqual(self.value("jobs_submitted_total", function=OTHER_FUNCTIONS), 0)
        self.peer(req(18, b"f", b"", b""), req(18, b"g", b"", b""))
        self.assertEqual(self.value("jobs_submitted_total", function=OTHER_FUNCTIONS), 2)


def exposed(function: bytes) -> str:
    """One metric of a function in Prometheus's text format."""
    from prometheus_client import Gauge

    registry = CollectorRegistry()
    Gauge("jobs", "Jobs.", ["function"], registry=registry).labels(function_label(function)).set(1)
    return generate_latest(registry).decode()


class FormatTest(MetricsTestCase):
    def test_every_family_is_shown(self) -> None:
        self.peer(req(18, b"f", b"", b""))
        times = Histogram()
        self.health.store = Saved(True, 0, 0, 0, times.so_far(), 0.0, 0, 0, {})
        shown = {line.split()[2]: line.split()[3] for line in self.text().splitlines() if "# TYPE" in line}
        kinds = {family.exported: family.kind.replace("info", "gauge") for family in FAMILIES}
        self.assertEqual({name: kind for name, kind in shown.items() if name.startswith("txg")}, kinds)
        self.assertIn("process_resident_memory_bytes", shown)

    def test_only_some(self) -> None:
        self.peer(req(18, b"f", b"", b""))
        samples = samples_of(self.text("/metrics?name[]=txgearman_workers&name[]=txgearman_functions"))
        self.assertEqual({name for name, _labels in samples}, {"txgearman_workers", "txgearman_functions"})

    def test_open_metrics(self) -> None:
        text = self.text(Accept="application/openmetrics-text; version=1.0.0")
        self.assertTrue(text.endswith("# EOF\n"))

    def test_bounds_are_in_order(self) -> None:
        self.assertEqual(sorted(set(BOUNDS)), list(BOUNDS))

    @needs_program("promtool")
    def test_promtool_has_nothing_to_say(self) -> None:
        self.peer(req(18, b'a"} 1\nx\xff', b"", b""), req(18, b"f", b"", b""))
        self.health.store = Saved(True, 0, 0, 0, Histogram().so_far(), 0.0, 0, 0, {b"f": (1, 0)})
        checked = subprocess.run(
            ["promtool", "check", "metrics"], input=self.text(), capture_output=True, text=True, check=False
        )
        self.assertEqual((checked.returncode, checked.stdout, checked.stderr), (0, "", ""))


class AccessTest(MetricsTestCase):
    def test_who_may_not_look_is_refused(self) -> None:
        policy = AccessPolicy((Rule("nobody", submit=(b"f",)),))
        web = Web(server=Settings(access=policy, metrics_functions=3), health=self.health)
        self.assertEqual(web.get("/metrics").status, 401)
        self.assertEqual((web.get("/healthz").status, web.get("/readyz").status), (200, 200))

    def test_only_to_be_read(self) -> None:
        self.assertEqual(self.web.ask("POST", "/metrics").status, 405)

    def test_without_prometheus_client(self) -> None:
        with patch.dict(sys.modules, {"prometheus_client": None}), capturedLogs() as logged:
            del sys.modules["txgearman.web.metrics"]
            self.web.site = make_site(
                self.web.gearman.server, WebSettings(), self.web.gearman.clock, self.health
            )
        (event,) = logged
        self.assertIn("txgearman[web]", event["text"])
        response: Any = self.web.get("/metrics")
        self.assertEqual((response.status, response.code), (501, "not-installed"))
        self.assertIn("txgearman[web]", response.json()["detail"])
        self.assertEqual(self.web.get("/readyz").status, 200)


class CollectorTest(MetricsTestCase):
    """The metrics in a registry of the user's own."""

    def test_in_another_registry(self) -> None:
        registry = CollectorRegistry()
        collector = ServerCollector(self.web.gearman.server, self.health, self.web.gearman.clock)
        registry.register(collector)
        self.assertIsNone(registry.get_sample_value("txgearman_functions"))
        self.peer(req(1, b"f"))
        self.web.gearman.wait(collector.take())
        self.assertEqual(registry.get_sample_value("txgearman_functions"), 1)
