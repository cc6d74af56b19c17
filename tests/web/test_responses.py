"""Responses as bytes: what a peer said becomes no header of its own."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.web.asking import Web
from txgearman.web.http.responses import Response


class HeaderTests(SynchronousTestCase):
    def test_a_value_has_no_line_ends(self) -> None:
        for value in (b"a\r\nX-B: b", b"a\nX-B: b", b"a\rX-B: b"):
            lines = Response(b"{}", headers=((b"X-A", value),)).header_lines()
            self.assertEqual(
                lines, b"X-A: a X-B: b\r\nContent-Type: application/json\r\nContent-Length: 2\r\n", value
            )

    def test_no_content_has_no_type(self) -> None:
        self.assertEqual(Response(b"", status=204).header_lines(), b"")

    def test_each_response_has_one_of_each_header(self) -> None:
        exchange = Web().begin("GET", "/api/v1/server", headers={"Connection": "close"})
        head = exchange.transport.value().partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
        names = [line.partition(b":")[0] for line in head]
        self.assertEqual(len(names), len(set(names)), names)
        for name in (b"Date", b"Server", b"Cache-Control", b"Connection", b"Content-Type"):
            self.assertIn(name, names)
