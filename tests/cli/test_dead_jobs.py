"""How many replies are awaited, and how values of jobs are shown, without servers."""

from __future__ import annotations

import gc
import json
import re
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from txgearman.cli.dead_jobs import COMMANDS_AHEAD, SHOWN_DATA, _as_text, _each
from txgearman.cli.tables import JsonArray, local_time, print_json
from txgearman.client import JobInfo
from txgearman.errors import AdminError, ConnectionLost

INFO = JobInfo("H:h:1", "f", "", "dead", "high", True, 1, 0, 0.0, data=b"")


class EachTests(SynchronousTestCase):
    """Commands are sent a few ahead of their replies, and no error is lost or reported twice."""

    def setUp(self) -> None:
        self.sent: list[Deferred[str]] = []

    def send(self, _item: int) -> Deferred[str]:
        self.sent.append(Deferred())
        return self.sent[-1]

    def collect(self, count: int) -> Deferred[list[Any]]:
        async def collected() -> list[Any]:
            return [reply async for reply in _each(range(count), self.send)]

        return Deferred.fromCoroutine(collected())

    def test_order_and_how_many_are_ahead(self) -> None:
        collected = self.collect(COMMANDS_AHEAD + 2)
        self.assertEqual(len(self.sent), COMMANDS_AHEAD)
        for number in range(COMMANDS_AHEAD - 1, 0, -1):
            self.sent[number].callback(f"{number}")
        self.assertEqual(len(self.sent), COMMANDS_AHEAD)
        refusal = AdminError("UNKNOWN_JOB")
        self.sent[0].errback(refusal)
        for number in range(COMMANDS_AHEAD, COMMANDS_AHEAD + 2):
            self.sent[number].callback(f"{number}")
        replies = self.successResultOf(collected)
        others = [(number, f"{number}") for number in range(1, COMMANDS_AHEAD + 2)]
        self.assertEqual(replies, [(0, refusal), *others])

    def test_the_first_error_ends_it(self) -> None:
        for error in (ConnectionLost("gone"), AdminError("UNKNOWN_COMMAND x")):
            self.setUp()
            collected = self.collect(3)
            for sent in self.sent:
                sent.errback(error)
            self.assertIs(self.failureResultOf(collected).value, error)
        # Errors that nobody awaits would be logged.
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_it_can_be_cancelled(self) -> None:
        collected = self.collect(3)
        collected.cancel()
        self.failureResultOf(collected, CancelledError)


class ShownTests(SynchronousTestCase):
    def test_data(self) -> None:
        for data, shown in (
            (b"a\nb\x1b", ["Data         a", r"             b\x1b"]),
            (b"x" * SHOWN_DATA, ["Data         " + "x" * SHOWN_DATA]),
            (
                b"x" * (SHOWN_DATA + 1),
                [
                    "Data         " + "x" * SHOWN_DATA,
                    "             [the beginning of 2001 B; --json shows all]",
                ],
            ),
            (b"\xff", ["Data         [1 B that are no text; --json shows them]"]),
        ):
            lines = _as_text(None, replace(INFO, data=data)).splitlines()
            self.assertEqual(lines[-len(shown) :], shown)
        self.assertNotIn("Data", _as_text(None, replace(INFO, data=None)))

    def test_what_was_said_of_the_job(self) -> None:
        info = replace(
            INFO,
            submitted=0.0,
            run_at=60.0,
            expires=30.0,
            attempts=1,
            max_attempts=7,
            backoff=2.5,
            keep_result=0.0,
        )
        lines = dict(re.split("  +", line, maxsplit=1) for line in _as_text(None, info).splitlines())
        self.assertEqual(
            (lines["Failed runs"], lines["Backoff"], lines["Keep result"]), ("1 of 7", "2.5s", "0s")
        )
        self.assertEqual((lines["Run at"], lines["Expires"]), (local_time(60), local_time(90)))
        self.assertNotIn("Unique for", lines)
        never = _as_text(None, replace(info, expires=0.0))
        self.assertRegex(never, r"\nExpires +never\n")

    def test_times(self) -> None:
        self.assertRegex(str(local_time(86400 * 365)), r"^197[01]-\d\d-\d\d \d\d:\d\d:00[+-]\d\d:\d\d$")
        self.assertEqual(local_time(1e18), "1e+18")
        self.assertIsNone(local_time(None))

    def test_a_json_array_is_written_as_it_comes(self) -> None:
        objects = [{"a": "x\ny", "b": [1, {}]}, {"a": None, "b": []}]
        for count in range(3):
            with redirect_stdout(StringIO()) as output:
                array = JsonArray()
                for value in objects[:count]:
                    array.write(value)
                    self.assertIn(json.dumps(value["a"]), output.getvalue())
                array.close()
            with redirect_stdout(StringIO()) as printed:
                print_json(["a", "b"], [list(value.values()) for value in objects[:count]])
            self.assertEqual(output.getvalue(), json.dumps(objects[:count], indent=2) + "\n")
            self.assertEqual(printed.getvalue(), output.getvalue())
