"""A real Prometheus asks a real server, and every query of the dashboard and of the alerts has an answer."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase

from tests.interop.programs import HOST, run_program, running, until
from tests.server.lines import close, connect
from tests.server.peers import req
from tests.server.test_twistd import twistd
from tests.support import free_port, needs_program, on_reactor
from tests.web.test_grafana import ALERTS, DOCS, dashboard

INTERVAL = "1s"
"""How often the server is asked, in place of what docs/prometheus.yml says."""

FEATURES = """
dead-webhook = "http://127.0.0.1:9/"

[functions.throttled]
max-running = 1
start-rate = 1
pause-after = 3
keep-results = "1h"

[schedules.resizing]
function = "resize"
every = "1s"
"""
"""The configuration of what has panels of its own and is off by default."""

SILENT = ("Refused and dropped per second",)
"""Panels some of whose queries have nothing to show while nothing of the kind has happened."""


class PrometheusTest(TestCase):
    async def ask(self, port: int, query: str) -> list[Any]:
        """What Prometheus answers to a query of now."""
        code, output, errors = await run_program(
            ["promtool", "query", "instant", "-o", "json", f"http://{HOST}:{port}", query]
        )
        self.assertEqual(code, 0, (query, errors))
        answer: list[Any] = json.loads(output)
        return answer

    @needs_program("prometheus", "promtool")
    @on_reactor
    async def test_every_query_is_answered(self) -> None:
        web, port = free_port(), free_port()
        with tempfile.TemporaryDirectory(prefix="txgearman-prometheus-") as folder:
            configuration = Path(folder) / "prometheus.yml"
            text = (DOCS / "prometheus.yml").read_text("utf-8").replace("127.0.0.1:8080", f"{HOST}:{web}")
            text = f"rule_files: [{ALERTS}]\n" + re.sub(
                "scrape_interval: .*", f"scrape_interval: {INTERVAL}", text
            )
            configuration.write_text(text)
            features = Path(folder) / "gearmand.toml"
            features.write_text(FEATURES)
            command = ["prometheus", f"--config.file={configuration}", f"--storage.tsdb.path={folder}/data"]
            async with (
                twistd(
                    f"--web={web}", f"--store=sqlite:///{folder}/jobs.db", f"--config={features}"
                ) as server,
                running(*command, f"--web.listen-address={HOST}:{port}", "--log.level=error"),
            ):
                await self.work(server.port)

                async def asked_twice() -> bool:
                    try:
                        (found,) = await self.ask(port, "count_over_time(up[1m])")
                    except (ValueError, self.failureException):
                        return False  # it has only just started
                    return int(found["value"][1]) > 2

                await until(asked_twice, "Prometheus has asked the server", timeout=30)
                for panel in dashboard()["panels"]:
                    for target in panel.get("targets", ()):
                        query = re.sub(r"\$(job|instance|function)", ".*", target["expr"])
                        found = await self.ask(port, query.replace("$__rate_interval", "1m"))
                        if panel["title"] not in SILENT:
                            self.assertTrue(found, (panel["title"], query))
                (down,) = await self.ask(port, "1 - up")
                self.assertEqual((down["metric"]["job"], down["value"][1]), ("gearman", "0"))

    async def work(self, port: int) -> None:
        """Let one job be done and another wait."""
        client, worker = await connect(port), await connect(port)
        await client.say(req(18, b"resize", b"", b"") * 2)
        assigned = await worker.say(req(1, b"resize"), req(9))
        handle = assigned[12:].split(b"\0")[0]
        self.assertEqual(await worker.say(req(13, handle, b"")), b"")
        await close(client, worker)
