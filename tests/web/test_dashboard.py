"""The dashboard's files: what is served, and that they ask for nothing from elsewhere."""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from tests.web.asking import Web
from txgearman.web.dashboard.files import STATIC, TYPES

FILES = sorted(path for path in STATIC.iterdir() if path.suffix in TYPES)


class FileTests(SynchronousTestCase):
    def test_the_page_is_at_the_root(self) -> None:
        response = Web().get("/")
        self.assertEqual(
            (response.status, response.headers["content-type"]), (200, "text/html; charset=utf-8")
        )
        self.assertEqual(response.body, (STATIC / "index.html").read_bytes())

    def test_every_file_is_served_as_what_it_is(self) -> None:
        web = Web()
        for path in FILES:
            if path.name != "index.html":
                response = web.get(f"/static/{path.name}")
                self.assertEqual((response.status, response.body), (200, path.read_bytes()), path.name)
                self.assertEqual(response.headers["content-type"].encode(), TYPES[path.suffix])

    def test_nothing_else_is(self) -> None:
        web = Web()
        for path in (
            "/static",
            "/static/",
            "/static/nothing.js",
            "/static/..%2fsite.py",
            "/static/../site.py",
            "/x",
        ):
            self.assertEqual(web.get(path).status, 404, path)
        self.assertEqual(web.ask("DELETE", "/").status, 405)

    def test_a_file_that_is_known_is_not_sent_again(self) -> None:
        web = Web()
        tag = web.get("/static/app.js").headers["etag"]
        response = web.get("/static/app.js", headers={"If-None-Match": tag})
        self.assertEqual((response.status, response.body), (304, b""))


class ContentTests(SynchronousTestCase):
    def test_nothing_comes_from_elsewhere(self) -> None:
        for path in FILES:
            for address in re.findall(r"""(?:https?:)?//[\w.-]+\.\w+[^\s"')]*""", path.read_text()):
                self.assertTrue(address.startswith("http://www.w3.org/"), f"{path.name}: {address}")

    def test_the_policy_of_the_answers_forbids_nothing_that_is_there(self) -> None:
        page = (STATIC / "index.html").read_text()
        self.assertNotIn(" style=", page)
        self.assertIsNone(re.search(r"\son\w+=", page))
        self.assertIsNone(re.search(r"<script(?![^>]*\ssrc=)", page))
        self.assertNotIn("<style", page)

    def test_no_text_becomes_markup(self) -> None:
        for path in FILES:
            for way in (
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "new Function",
            ):
                self.assertNotIn(way, path.read_text(), path.name)

    def test_every_file_is_used(self) -> None:
        text = "".join(path.read_text() for path in FILES)
        for path in FILES:
            if path.name != "index.html":
                self.assertIn(path.name, text)
