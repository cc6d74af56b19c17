"""The token file, and where the web side listens."""

from __future__ import annotations

from tempfile import NamedTemporaryFile

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from txgearman.server import GearmanService, Settings
from txgearman.server.config.option_values import web_endpoint
from txgearman.web.settings import SHORTEST_TOKEN, read_token


class TokenTests(SynchronousTestCase):
    def token(self, content: bytes) -> bytes:
        with NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            return read_token(file.name)

    def test_white_space_around_it_is_not_part_of_it(self) -> None:
        self.assertEqual(self.token(b"  0123456789abcdef\r\n"), b"0123456789abcdef")

    def test_refused_ones(self) -> None:
        for content, why in (
            (b"", "at least"),
            (b"x" * (SHORTEST_TOKEN - 1), "at least"),
            (b"x" * SHORTEST_TOKEN + b" y", "spaces"),
            ("ö".encode() * SHORTEST_TOKEN, "ASCII"),
        ):
            with self.assertRaises(ValueError) as caught:
                self.token(content)
            self.assertIn(why, str(caught.exception))

    def test_a_file_that_is_not_there(self) -> None:
        with self.assertRaises(ValueError) as caught:
            read_token("/nowhere/at/all")
        self.assertIn("/nowhere/at/all", str(caught.exception))

    def test_the_service_does_not_start_without_its_token(self) -> None:
        with self.assertRaises(ValueError):
            GearmanService(MemoryReactorClock(), Settings(web="8080", web_token_file="/nowhere/at/all"))


class EndpointTests(SynchronousTestCase):
    def test_a_port_is_one_of_this_machine(self) -> None:
        self.assertEqual(web_endpoint("8080"), "tcp:8080:interface=127.0.0.1")

    def test_anything_else_is_an_endpoint(self) -> None:
        self.assertEqual(web_endpoint("tcp:8080"), "tcp:8080")

    def test_it_listens_there(self) -> None:
        reactor = MemoryReactorClock()
        service = GearmanService(reactor, Settings(web="8080"))
        service.startService()
        self.assertEqual(
            [(server[0], server[3]) for server in reactor.tcpServers],
            [(4730, "127.0.0.1"), (8080, "127.0.0.1")],
        )

    def test_it_does_not_listen_unless_told(self) -> None:
        reactor = MemoryReactorClock()
        GearmanService(reactor, Settings()).startService()
        self.assertEqual([server[0] for server in reactor.tcpServers], [4730])
