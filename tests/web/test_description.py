"""The OpenAPI description, and the server held against it by schemathesis."""

from __future__ import annotations

import sys
import unittest
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.interop.programs import HOST, run_program, txgearmand
from tests.support import free_port, on_reactor
from tests.test_docs import literal, table
from tests.web.asking import Web
from txgearman import Client
from txgearman.client import Admin
from txgearman.web.http.routing import Body

CONFIGURATION = """
[parameters]
function = "known"
schedule = "known"

# These go on until their reader leaves.
[[operations]]
include-path = "/live"
enabled = false

[[operations]]
include-path = "/jobs/{handle}/events"
enabled = false

# A job in the foreground waits for a worker, and here there is none.
[[operations]]
include-operation-id = "submit"
parameters = { "query.background" = "true" }

# As is the result of one waited for. That there is none any more is 410.
[[operations]]
include-operation-id = "result"
parameters = { "query.wait" = "0" }

[operations.checks]
positive_data_acceptance.expected-statuses = ["2xx", "401", "403", "404", "410", "5xx"]

# A list whose jobs were cancelled is still there.
[[operations]]
include-operation-id = "jobs"

[operations.checks]
use_after_free.enabled = false

# No schema says which cron expressions there are.
[[operations]]
include-path-regex = "^/schedules/"
checks.positive_data_acceptance.enabled = false
"""


class DescriptionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.description = Web().get("/api/v1/openapi.json").json()

    def operations(self) -> list[dict[str, Any]]:
        return [operation for path in self.description["paths"].values() for operation in path.values()]

    def test_every_operation_has_a_name_of_its_own_and_says_what_it_does(self) -> None:
        names = [operation["operationId"] for operation in self.operations()]
        self.assertEqual(len(names), len(set(names)))
        for operation in self.operations():
            self.assertRegex(operation["summary"], r"^[A-Z].*\.$")

    def test_every_reference_leads_somewhere(self) -> None:
        schemas = self.description["components"]["schemas"]

        def check(value: Any) -> None:
            if isinstance(value, dict):
                if "$ref" in value:
                    self.assertIn(value["$ref"].rpartition("/")[2], schemas)
                for member in value.values():
                    check(member)
            elif isinstance(value, list):
                for member in value:
                    check(member)

        check(self.description)

    def test_a_token_may_be_wanted_everywhere(self) -> None:
        for operation in self.operations():
            self.assertEqual(operation["security"], [{}, {"token": []}])
            self.assertLessEqual({"401", "403"}, set(operation["responses"]))


class DocumentationTests(SynchronousTestCase):
    """docs/http.rst and the table that serves requests say the same."""

    def setUp(self) -> None:
        self.routes = Web().site.resource.children[b"api"].routes

    def test_paths(self) -> None:
        shown = {literal(row[0]) for row in table("http.rst", "Request")}
        self.assertEqual(shown, {f"{route.method} {route.path}" for route in self.routes})

    def test_parameters_of_a_job(self) -> None:
        shown = [(literal(row[0]), literal(row[1])) for row in table("http.rst", "Parameter")]
        (submit,) = [route for route in self.routes if route.body is Body.BYTES]
        self.assertEqual(shown, [(each.name, each.header) for each in submit.parameters])

    def test_statuses_of_problems(self) -> None:
        shown = {int(row[0]) for row in table("http.rst", "Status")}
        described = {problem for route in self.routes for problem in route.problems}
        everywhere = {400, 401, 403, 404, 405, 408, 421, 501}
        self.assertEqual(shown, described | everywhere)


@unittest.skipUnless(find_spec("schemathesis"), "not installed: schemathesis")
class SchemathesisTests(TestCase):
    @on_reactor
    async def test_the_server_does_as_described(self) -> None:
        from twisted.internet import reactor

        port = free_port()
        async with txgearmand(f"--web={port}", "--allow-unsaved-schedules") as server:
            async with Client(reactor, f"tcp:{HOST}:{server.port}") as client:
                await client.submit("known", b"data", background=True)
            async with Admin(reactor, f"tcp:{HOST}:{server.port}") as admin:
                await admin.create_schedule("known", {"function": "known", "every": 3600})
            with TemporaryDirectory() as folder:
                configuration = Path(folder, "schemathesis.toml")
                configuration.write_text(CONFIGURATION)
                program = Path(sys.executable).with_name("schemathesis")
                arguments = ["--max-examples", "5", "--seed", "1", "--no-color", "--request-timeout", "10"]
                # It leaves files where it runs.
                there = ("sh", "-c", 'cd "$0" && exec "$@"', folder)
                code, output, errors = await run_program(
                    [
                        *there,
                        *(str(program), "--config-file", str(configuration), "run", *arguments),
                        f"http://{HOST}:{port}/api/v1/openapi.json",
                    ],
                    timeout=55,
                )
            self.assertEqual(code, 0, (output + errors).decode())
