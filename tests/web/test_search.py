"""What a text leads to: jobs by handle and unique, functions by name."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from twisted.trial.unittest import SynchronousTestCase

from tests.server.peers import Peer, req
from tests.web.asking import Web


class SearchTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.web = Web()
        self.client = Peer(self.web.gearman)
        self.web.gearman.connect(self.client)

    def find(self, text: str) -> tuple[list[str], list[str], int]:
        """The handles and names of functions that are found, and how many functions there are."""
        found: dict[str, Any] = self.web.get(f"/api/v1/search?text={quote(text)}").json()
        return (
            [job["handle"] for job in found["jobs"]],
            [each["name"] for each in found["functions"]],
            found["total"],
        )

    def test_a_handle(self) -> None:
        self.client.ask(*[req(18, b"f", b"", b"x")] * 2)
        self.assertEqual(self.find("H:t:2"), (["H:t:2"], [], 0))
        self.assertEqual(self.find("H:t:3"), ([], [], 0))

    def test_a_unique(self) -> None:
        """The newest job with it, whatever its function."""
        self.client.ask(req(18, b"f", b"order 7", b""), req(18, b"g", b"order 7", b""))
        self.assertEqual(self.find("order 7"), (["H:t:2"], [], 0))

    def test_a_unique_that_is_a_handle_too(self) -> None:
        self.client.ask(req(18, b"f", b"", b""), req(18, b"f", b"H:t:1", b""))
        self.assertEqual(self.find("H:t:1")[0], ["H:t:1", "H:t:2"])
        self.client.ask(req(18, b"f", b"H:t:3", b""))
        self.assertEqual(self.find("H:t:3")[0], ["H:t:3"], "it is both")

    def test_functions(self) -> None:
        self.client.ask(*[req(1, b"%d mail" % number) for number in range(30)], req(1, b"Mail"))
        jobs, names, total = self.find("mail")
        self.assertEqual((jobs, names[:2], len(names), total), ([], ["Mail", "0 mail"], 20, 31))

    def test_nothing(self) -> None:
        self.assertEqual(self.find(""), ([], [], 0))
