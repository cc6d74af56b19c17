"""The dashboard for Grafana and the alerts: every query is of what the server shows, and Grafana's schema
knows every word in it."""

from __future__ import annotations

import json
import re
import subprocess
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from twisted.trial.unittest import SynchronousTestCase

from tests.support import needs_program
from txgearman.web.metrics import FAMILIES

try:
    from grafana_foundation_sdk.cog import encoder, plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard
except ImportError:
    Dashboard = None  # type: ignore[assignment,misc]

DOCS = Path(__file__).parent.parent.parent / "docs"
ALERTS = DOCS / "alerts.yml"
NAME = re.compile(r"\b((?:txgearman|process)_\w+|up)\b(?!\s*[=!]~?\")")


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((DOCS / "grafana.json").read_text(encoding="utf-8"))
    return loaded


def queries() -> Iterator[str]:
    """All queries of the dashboard, those that fill its variables included."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"]


def labels_of_metrics() -> dict[str, set[str]]:
    """The labels that each metric has, by the name that a query knows it by."""
    known: dict[str, set[str]] = {"up": set()}
    for family in FAMILIES:
        labels = set(family.labels)
        if family.kind == "histogram":
            known[f"{family.name}_bucket"] = {*labels, "le"}
            known[f"{family.name}_sum"] = known[f"{family.name}_count"] = labels
        else:
            known[family.exported] = labels
    for metric in ProcessCollector(registry=CollectorRegistry()).collect():
        for sample in metric.samples:
            known[sample.name] = set()
    return known


class QueriesTest(SynchronousTestCase):
    def texts(self) -> list[str]:
        alerts = re.findall(
            r"expr: (?:>\n)?(.*?)\n +(?:for|annotations):", ALERTS.read_text("utf-8"), re.DOTALL
        )
        self.assertEqual(len(alerts), ALERTS.read_text("utf-8").count("- alert:"))
        return [*queries(), *alerts]

    def test_every_metric_of_a_query_is_shown_by_the_server(self) -> None:
        known = labels_of_metrics()
        for query in self.texts():
            names = set(NAME.findall(query))
            self.assertTrue(names, query)
            self.assertEqual(names - known.keys(), set(), query)

    def test_every_label_of_a_query_is_one_of_its_metric(self) -> None:
        known = labels_of_metrics()
        for query in self.texts():
            has = set.intersection(*({"job", "instance", *known[name]} for name in NAME.findall(query)))
            used = {
                label.strip() for group in re.findall(r"by \(([^)]*)\)", query) for label in group.split(",")
            }
            used |= set(re.findall(r"[{,]\s*(\w+)\s*=~?\"", query))
            self.assertEqual(used - has - {""}, set(), query)

    def test_the_dashboard_shows_every_metric(self) -> None:
        asked = {name for query in queries() for name in NAME.findall(query)}
        bases = {re.sub("_bucket$", "", name) for name in asked}
        unasked = {family.exported for family in FAMILIES} - bases
        self.assertEqual(unasked, {"txgearman_functions"})


class DashboardTest(SynchronousTestCase):
    def test_panels(self) -> None:
        panels = dashboard()["panels"]
        ids = [panel["id"] for panel in panels]
        self.assertEqual(len(set(ids)), len(ids))
        taken: set[tuple[int, int]] = set()
        for panel in panels:
            at = panel["gridPos"]
            self.assertLessEqual(at["x"] + at["w"], 24, panel["title"])
            cells = {
                (x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
            }
            self.assertEqual(cells & taken, set(), f"{panel['title']} lies on another panel")
            taken |= cells

    def test_no_data_source_is_named(self) -> None:
        """The one that is chosen on import is asked; a name would be that of somebody else's Grafana."""
        sources = re.findall(r'"uid": "(.*?)"', (DOCS / "grafana.json").read_text("utf-8"))
        self.assertEqual(set(sources), {"txgearman", "${datasource}"})

    @unittest.skipIf(Dashboard is None, "not installed: grafana-foundation-sdk")
    def test_schema(self) -> None:
        """Nothing is lost on the way through Grafana's own model of a dashboard: it knows all of it."""
        plugins.register_default_plugins()
        given = dashboard()
        understood = json.loads(json.dumps(Dashboard.from_json(given), cls=encoder.JSONEncoder))
        self.assertEqual(lost(given, understood), [])


def lost(given: Any, understood: Any, path: str = "") -> list[str]:
    """The paths of what is in `given` and not the same in `understood`; an empty value may be left out."""
    if isinstance(given, dict) and isinstance(understood, dict):
        return [
            name for key, value in given.items() for name in lost(value, understood.get(key), f"{path}/{key}")
        ]
    if isinstance(given, list) and isinstance(understood, list) and len(given) == len(understood):
        pairs = enumerate(zip(given, understood, strict=True))
        return [name for index, (one, other) in pairs for name in lost(one, other, f"{path}/{index}")]
    return [] if given == understood else [path]


class AlertsTest(SynchronousTestCase):
    @needs_program("promtool")
    def test_rules(self) -> None:
        """They fire when they should, see alerts_test.yml, and not before."""
        checked = subprocess.run(
            ["promtool", "test", "rules", str(Path(__file__).with_name("alerts_test.yml"))],
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)

    @needs_program("promtool")
    def test_configuration(self) -> None:
        checked = subprocess.run(
            ["promtool", "check", "config", str(DOCS / "prometheus.yml")],
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)
