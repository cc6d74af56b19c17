"""Recurring jobs over HTTP."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.web.asking import Response, Web
from txgearman.access.policy import AccessPolicy, Rule
from txgearman.server import Settings
from txgearman.server.config.schedule_options import ScheduleSettings
from txgearman.web import WebSettings
from txgearman.web.http.routing import MAX_JSON

PATH = "/api/v1/schedules"
FILE = {"s": ScheduleSettings(function="f", every=60.0, data="x")}
DEFINITION = {"function": "g", "cron": "30 3 * * mon-fri", "timezone": "Europe/Berlin", "data": "grün"}
PREVIEW = {"function": "g", "cron": "0 12 * * *", "timezone": "Asia/Tokyo"}


class ScheduleCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.web = self.served()

    def served(self, **settings: Any) -> Web:
        settings = {"schedules": FILE, "allow_unsaved_schedules": True, **settings}
        return Web(WebSettings(), server=Settings(handle_prefix="H:test", **settings))

    def ask(self, method: str, path: str = "", body: object = None) -> Response:
        return self.web.ask(method, PATH + path, b"" if body is None else json.dumps(body).encode())

    def names(self) -> list[str]:
        return [row["name"] for row in self.web.get(PATH).json()["schedules"]]


class ScheduleTests(ScheduleCase):
    def test_one_of_the_file(self) -> None:
        (row,) = self.web.get(PATH).json()["schedules"]
        self.assertEqual(
            (row["name"], row["function"], row["every"], row["cron"], row["of_file"], row["state"]),
            ("s", "f", 60, None, True, "active"),
        )
        self.assertEqual((row["next"], row["last"], row["size"]), (60, None, 1))
        self.web.gearman.turn(121)
        row = self.web.get(PATH + "/s").json()
        self.assertEqual(row["counts"], {"ticks": 1, "skipped": 1, "missed": 0, "refused": 0})
        self.assertEqual((row["next"], row["last"]["tick"], row["last"]["handle"]), (180, 60, "H:test:1"))
        self.assertEqual(row["data"], "x")

    def test_put_get_and_delete(self) -> None:
        added = self.ask("PUT", "/new", DEFINITION)
        self.assertEqual(added.status, 200, added.body)
        shown = self.web.get(PATH + "/new").json()
        self.assertEqual(added.json(), shown)
        self.assertEqual({key: shown[key] for key in DEFINITION}, DEFINITION)
        self.assertEqual((shown["of_file"], shown["data_base64"]), (False, None))
        again = {key: shown[key] for key in (*DEFINITION, "every", "unique", "missed", "missed_window")}
        self.assertEqual(self.ask("PUT", "/new", again).json(), shown, "what was shown can be put")
        self.assertEqual(self.names(), ["new", "s"])
        self.assertEqual(self.ask("DELETE", "/new").status, 204)
        self.assertEqual(self.ask("DELETE", "/new").code, "unknown-schedule")
        self.assertEqual(self.names(), ["s"])

    def test_data_that_are_no_text(self) -> None:
        shown = self.ask("PUT", "/new", {"function": "g", "every": "2m", "data_base64": "/wA="}).json()
        self.assertEqual((shown["data"], shown["data_base64"], shown["every"]), (None, "/wA=", 120))

    def test_names_are_bytes_in_paths(self) -> None:
        self.assertEqual(self.ask("PUT", "/gr%C3%BCn%2Fa", DEFINITION).json()["id"], "gr%C3%BCn%2Fa")
        self.assertEqual(self.web.get(PATH + "/gr%C3%BCn%2Fa").json()["name"], "grün/a")
        self.assertEqual(self.ask("PUT", "/a%20b", DEFINITION).code, "bad-schedule")
        self.assertEqual(self.ask("PUT", "/%FF", DEFINITION).code, "bad-schedule")

    def test_patch(self) -> None:
        self.ask("PUT", "/new", DEFINITION)
        changed = self.ask("PATCH", "/new", {"every": 30, "paused": True}).json()
        self.assertEqual((changed["every"], changed["cron"], changed["state"]), (30, None, "paused"))
        self.assertEqual((changed["data"], changed["timezone"]), ("grün", "Europe/Berlin"))
        changed = self.ask("PATCH", "/new", {"cron": "@daily", "data": None, "paused": False}).json()
        self.assertEqual((changed["every"], changed["cron"], changed["state"]), (None, "@daily", "active"))
        self.assertEqual(changed["data"], "", "null is the default")
        self.assertEqual(self.ask("PATCH", "/none", {"paused": True}).code, "unknown-schedule")
        self.assertEqual(self.ask("PATCH", "/none", {"every": 30}).code, "unknown-schedule")
        self.assertEqual(self.ask("PATCH", "/new", {"paused": 1}).code, "bad-member")

    def test_those_of_the_file_can_be_paused_and_run(self) -> None:
        self.assertEqual(self.ask("PATCH", "/s", {"paused": True}).json()["state"], "paused")
        self.assertEqual(self.ask("POST", "/s/run").json(), {"handle": "H:test:1"})
        for method, body in (("PUT", DEFINITION), ("PATCH", {"every": 30}), ("DELETE", None)):
            refused = self.ask(method, "/s", body)
            self.assertEqual((refused.status, refused.code), (409, "schedule-of-file"))
        self.assertEqual(self.web.get(PATH + "/s").json()["every"], 60)

    def test_run(self) -> None:
        self.ask("PUT", "/new", DEFINITION)
        answer = self.ask("POST", "/new/run")
        self.assertEqual(answer.status, 202)
        job = self.web.get(f"/api/v1/jobs/{answer.json()['handle']}").json()
        self.assertEqual((job["function"], job["unique"], job["preview"]), ("g", "new", "grün"))
        self.assertEqual(self.ask("POST", "/none/run").code, "unknown-schedule")

    def test_wrong_ones(self) -> None:
        for body, code in (
            ({"function": "g"}, "bad-schedule"),
            ({"function": "g", "cron": "0 0 31 2 *"}, "bad-schedule"),
            ({"function": "g", "every": 0.5}, "bad-schedule"),
            ({"function": "g", "every": 60, "timezone": "../../etc/passwd"}, "bad-schedule"),
            ({"function": ["g"], "every": 60}, "bad-schedule"),
            ({"function": "\ud800", "every": 60}, "bad-schedule"),
            ({"function": "g", "every": 60, "unique": "\ud800"}, "bad-schedule"),
            ({"function": "g", "every": 60, "data": "\ud800"}, "bad-schedule"),
            ({"function": "g", "every": 60, "data_file": "/etc/passwd"}, "bad-member"),
            ({"function": "g", "every": 60, "paused": True}, "bad-member"),
            (["function"], "bad-json"),
        ):
            with self.subTest(body):
                refused = self.ask("PUT", "/new", body)
                self.assertEqual((refused.status, refused.code), (400, code), refused.body)
        large = self.ask("PUT", "/new", {**DEFINITION, "data": "x" * MAX_JSON})
        self.assertEqual((large.status, self.names()), (413, ["s"]))

    def test_pages(self) -> None:
        for number in range(5):
            self.ask("PUT", f"/n{number}", DEFINITION)
        page = self.web.get(PATH + "?limit=4&after=1").json()
        self.assertEqual([row["name"] for row in page["schedules"]], ["n1", "n2", "n3", "n4"])
        self.assertEqual((page["total"], page["next"]), (6, 5))
        self.assertEqual(len(self.web.get(PATH + "?search=N3").json()["schedules"]), 1)

    def test_half_of_a_surrogate_pair_is_called_so(self) -> None:
        for name in ("function", "unique"):
            refused = self.ask("PUT", "/new", {"function": "g", "every": 60, name: "\ud800"})
            self.assertEqual(refused.json()["detail"], f"{name} has half of a surrogate pair.")

    def test_limits_and_hints(self) -> None:
        self.web = self.served(max_schedules=1)
        refused = self.ask("PUT", "/new", DEFINITION)
        self.assertEqual((refused.status, refused.code), (429, "too-many-schedules"))
        self.web = self.served(allow_unsaved_schedules=False)
        refused = self.ask("PUT", "/new", DEFINITION)
        self.assertEqual((refused.status, refused.code), (409, "no-store"))
        self.assertIn("allow-unsaved-schedules", refused.json()["detail"])


class PreviewTests(ScheduleCase):
    def test_the_next_ten(self) -> None:
        ticks = self.ask("POST", "/new/preview", PREVIEW).json()["ticks"]
        self.assertEqual(ticks, [3 * 3600 + 86_400 * day for day in range(10)])
        self.assertEqual(self.names(), ["s"])

    def test_as_many_as_wanted(self) -> None:
        self.assertEqual(len(self.ask("POST", "/new/preview?limit=100", PREVIEW).json()["ticks"]), 100)
        self.assertEqual(self.ask("POST", "/new/preview?limit=101", PREVIEW).code, "bad-parameter")
        self.assertEqual(self.ask("POST", "/new/preview", {"function": "g"}).code, "bad-schedule")

    def test_a_jitter_is_that_of_the_name(self) -> None:
        spread = {**PREVIEW, "jitter": "1h"}
        ticks = self.ask("POST", "/new/preview", spread).json()["ticks"]
        self.assertEqual(self.ask("PUT", "/new", spread).json()["next"], ticks[0])
        self.assertNotEqual(self.ask("POST", "/other/preview", spread).json()["ticks"], ticks)


class RightsTests(ScheduleCase):
    REQUESTS = (
        ("PUT", "/new", DEFINITION),
        ("PATCH", "/s", {"paused": True}),
        ("DELETE", "/new", None),
        ("POST", "/s/run", None),
        ("POST", "/new/preview", PREVIEW),
    )

    def allow(self, *admin: str, submit: tuple[bytes, ...] = (b"*",)) -> None:
        rule = Rule("all", admin=frozenset(admin), submit=submit)
        self.web = self.served(access=AccessPolicy((rule,)))

    def test_the_right_of_its_own(self) -> None:
        self.allow("view", "manage", "shutdown")
        for method, path, body in self.REQUESTS:
            self.assertIn(self.ask(method, path, body).status, (401, 403), path)
        self.assertEqual(self.names(), ["s"])
        self.allow("schedule")
        for method, path, body in self.REQUESTS:
            self.assertIn(self.ask(method, path, body).status, (200, 202, 204), path)
        self.assertIn(self.web.get(PATH).status, (401, 403))

    def test_who_adds_one_must_be_allowed_to_submit_its_jobs(self) -> None:
        self.allow("view", "schedule", submit=(b"other",))
        for method, path, body in self.REQUESTS[:1] + self.REQUESTS[4:]:
            self.assertIn(self.ask(method, path, body).status, (401, 403), path)
        self.assertEqual(self.ask("PUT", "/new", {**DEFINITION, "function": "other"}).status, 200)
        self.assertIn(self.ask("PATCH", "/new", {"function": "g"}).status, (401, 403))
        self.assertEqual(self.ask("PATCH", "/s", {"paused": True}).status, 200, "that adds nothing")

    def test_read_only(self) -> None:
        self.web = Web(WebSettings(read_only=True), server=Settings(schedules=FILE))
        for method, path, body in self.REQUESTS:
            self.assertEqual(self.ask(method, path, body).code, "read-only")
        self.assertEqual(self.names(), ["s"])
