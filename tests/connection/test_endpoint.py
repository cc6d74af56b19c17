"""Where servers are: names with addresses of IPv6, of IPv4 and of both.

The places where a host can be said: the endpoint strings of `Client`, `Worker` and `Admin`, and of
`txgearman.aio` over these; the servers of the `txgearman` command; those of `txgearman.blocking`, by host and
port or as a string. All of them come to `endpoint_from` or `tcp_endpoint`.
"""

from __future__ import annotations

import socket
import unittest
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet import defer, error
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IHostnameResolver, IReactorPluggableNameResolver
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from tests.support import on_reactor
from txgearman import Client, Worker
from txgearman.blocking.connection import CONNECT_TIMEOUT, GearmanConnection
from txgearman.blocking.connection_manager import address_of
from txgearman.cli.connections import connected
from txgearman.cli.parameters import endpoint_string
from txgearman.client.admin import Admin
from txgearman.connection import endpoint
from txgearman.connection.endpoint import ATTEMPT_DELAY, endpoint_from
from txgearman.server import Settings, make_service

ADDRESSES = {
    "six.example": ("2001:db8::1",),
    "four.example": ("192.0.2.1",),
    "both.example": ("2001:db8::2", "192.0.2.2"),
    "here.example": ("::1",),
    "bücher.example": ("2001:db8::3",),
}


@implementer(IHostnameResolver)
class Resolver:
    """Knows the addresses of a few names and asks nobody."""

    def resolveHostName(
        self, receiver: Any, hostName: str, portNumber: int = 0, *_rest: Any, **_more: Any
    ) -> Any:
        receiver.resolutionBegan(None)
        for address in ADDRESSES.get(hostName, ()):
            kind = IPv6Address if ":" in address else IPv4Address
            receiver.addressResolved(kind("TCP", address, portNumber))
        receiver.resolutionComplete()
        return receiver


class Reactor(MemoryReactorClock):
    """Notes to which addresses connections are begun."""

    def __init__(self) -> None:
        super().__init__()
        self.nameResolver = Resolver()

    def tried(self) -> list[tuple[str, int]]:
        return [(host, port) for host, port, *_ in self.tcpClients]

    def refuse(self, place: int) -> None:
        factory, connector = self.tcpClients[place][2], self.connectors[place]
        factory.clientConnectionFailed(connector, Failure(error.ConnectionRefusedError()))


class NamesTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = Reactor()
        self.failures: list[Failure] = []

    def connect(self, description: str) -> Any:
        connecting = endpoint_from(self.reactor, description).connect(Factory.forProtocol(Protocol))
        connecting.addErrback(self.failures.append)
        return connecting

    def test_only_of_ipv6(self) -> None:
        self.connect("tcp:six.example:4730")
        self.assertEqual(self.reactor.tried(), [("2001:db8::1", 4730)])

    def test_of_both_the_next_is_tried_while_the_first_is_silent(self) -> None:
        connecting = self.connect("tcp:both.example:4730")
        self.assertEqual(self.reactor.tried(), [("2001:db8::2", 4730)])
        self.reactor.advance(ATTEMPT_DELAY)
        self.assertEqual(self.reactor.tried()[1:], [("192.0.2.2", 4730)])
        self.reactor.tcpClients[1][2].buildProtocol(None).makeConnection(None)
        self.assertTrue(connecting.called)
        self.assertTrue(self.reactor.connectors[0].stoppedConnecting)

    def test_a_refusal_of_all_is_told(self) -> None:
        self.connect("tcp:both.example:4730")
        self.reactor.refuse(0)
        self.reactor.advance(ATTEMPT_DELAY)
        self.reactor.refuse(1)
        self.assertEqual(self.failures, [])
        self.reactor.advance(ATTEMPT_DELAY)
        self.failures[0].trap(error.ConnectionRefusedError)

    def test_a_name_that_is_none(self) -> None:
        self.connect("tcp:nowhere.example:4730")
        self.failures[0].trap(error.DNSLookupError)

    def test_a_name_of_any_letters(self) -> None:
        self.connect("tcp:bücher.example:4730")
        self.assertEqual(self.reactor.tried(), [("2001:db8::3", 4730)])

    def test_addresses_are_used_as_they_are(self) -> None:
        for host, said in (
            ("192.0.2.9", "192.0.2.9"),
            (r"2001\:db8\:\:9", "2001:db8::9"),
            (r"fe80\:\:1%lo", "fe80::1%lo"),
        ):
            self.connect(f"tcp:{host}:1")
            self.assertEqual(self.reactor.tried()[-1], (said, 1))
            self.assertEqual(self.reactor.getDelayedCalls(), [], "a refusal is told at once")

    def test_options(self) -> None:
        for host in ("six.example", "192.0.2.9", r"\:\:1"):
            self.connect(f"tcp:host={host}:port=1:timeout=3:bindAddress=\\:\\:2")
            _host, _port, _factory, timeout, bind_address = self.reactor.tcpClients[-1]
            self.assertEqual((timeout, bind_address), (3, ("::2", 0)), host)
        self.connect("tcp:six.example:1")
        self.assertEqual(self.reactor.tcpClients[-1][3:], (30, None))

    def test_below_tls(self) -> None:
        for description in (
            "tls:six.example:1",
            r"tls:a.example:1:endpoint=tcp\:six.example\:1",
            "ssl:six.example:1",
        ):
            self.connect(description)
            self.assertEqual(self.reactor.tried()[-1], ("2001:db8::1", 1), description)
        self.assertEqual(self.reactor.sslClients, [])

    def test_a_host_and_a_port_alone(self) -> None:
        for said, meant in (
            ("localhost:4731", "tcp:localhost:4731"),
            ("127.0.0.1", "tcp:127.0.0.1:4730"),
            ("jobs.example.org", "tcp:jobs.example.org:4730"),
            ("4731", "tcp:localhost:4731"),
        ):
            with self.assertRaisesRegex(ValueError, f"address is '{meant}', not '{said}'"):
                endpoint_from(Clock(), said)
        with self.assertRaisesRegex(ValueError, "Unknown endpoint type"):
            endpoint_from(Clock(), "pigeon:roof")

    def test_trust_roots_that_are_no_folder(self) -> None:
        for said, path in (("nothing", "nothing"), (r"c\:nothing:certificate=x", "c:nothing")):
            with self.assertRaisesRegex(ValueError, f"trustRoots is a folder .* '{path}' is not a folder"):
                endpoint_from(Clock(), f"tls:localhost:4730:trustRoots={said}")

    def test_tls_without_its_packages(self) -> None:
        def parse(_reactor: object, _description: str) -> None:
            raise NameError("name 'optionsForClientTLS' is not defined")

        self.patch(endpoint, "clientFromString", parse)
        with self.assertRaisesRegex(ValueError, r"TLS needs packages: pip install 'txgearman\[tls\]'"):
            endpoint_from(Clock(), "tls:localhost:4730")

    def test_a_clock_needs_no_resolver(self) -> None:
        self.assertNotIsInstance(endpoint_from(Clock(), "tcp:six.example:1"), HostnameEndpoint)  # type: ignore[arg-type]


class PlacesTest(SynchronousTestCase):
    """Each place where a host can be said."""

    def setUp(self) -> None:
        self.reactor = Reactor()

    def test_what_the_command_takes(self) -> None:
        for said, tried in (
            ("six.example", ("2001:db8::1", 4730)),
            ("six.example:1", ("2001:db8::1", 1)),
            ("::1", ("::1", 4730)),
            ("[::1]", ("::1", 4730)),
            ("[::1]:1", ("::1", 1)),
            ("tcp:six.example:1", ("2001:db8::1", 1)),
        ):
            endpoint_from(self.reactor, endpoint_string(said)).connect(Factory.forProtocol(Protocol))
            self.assertEqual(self.reactor.tried()[-1], tried, said)

    def test_what_the_blocking_classes_take(self) -> None:
        for said, tried in (
            ("six.example", ("2001:db8::1", 4730)),
            ("six.example:1", ("2001:db8::1", 1)),
            (("six.example", "1"), ("2001:db8::1", 1)),
            ("::1", ("::1", 4730)),
            ("[::1]:1", ("::1", 1)),
            ("tcp:six.example:1", ("2001:db8::1", 1)),
        ):
            connection = GearmanConnection(*address_of(said))
            connection.endpoint(self.reactor).connect(Factory.forProtocol(Protocol))
            self.assertEqual(self.reactor.tried()[-1], tried, said)
            expected = 30 if connection.gearman_port is None else CONNECT_TIMEOUT
            self.assertEqual(self.reactor.tcpClients[-1][3], expected)


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@contextmanager
def names(reactor: Any) -> Iterator[None]:
    """Let the reactor look names up in `ADDRESSES` alone."""
    before = reactor.installNameResolver(Resolver())
    try:
        yield
    finally:
        reactor.installNameResolver(before)


@unittest.skipUnless(has_ipv6(), "no loopback address of IPv6")
class Ipv6OnlyTest(TestCase):
    """A server that listens at ``::1``, to which a name leads that has no other address."""

    @on_reactor
    async def test_everybody_finds_it(self) -> None:
        from twisted.internet import reactor

        self.assertTrue(IReactorPluggableNameResolver.providedBy(reactor))
        service = make_service(Settings(listen=(r"tcp6:0:interface=\:\:1",), handle_prefix="H:t"))
        with names(reactor):
            service.startService()
            try:
                (listening,) = service._listeners  # type: ignore[misc, union-attr]
                port = (await listening._waitingForPort).getHost().port
                for endpoint in (f"tcp:here.example:{port}", endpoint_string(f"here.example:{port}")):
                    worker = Worker(reactor, endpoint, drain=0.01)
                    worker.register("reverse", lambda job: bytes(reversed(job.data)))
                    await worker.start()
                    async with Client(reactor, endpoint) as client:
                        job = await client.submit("reverse", b"abc")
                        self.assertEqual(await job.result(), b"cba")
                    await worker.stop()
                    admin = Admin(reactor, endpoint)
                    self.assertEqual([row.function for row in await admin.status()], ["reverse"])
                    await admin.close()
                    async with connected(reactor, [endpoint], 10) as client:
                        self.assertEqual(await client.echo(b"x"), b"x")
            finally:
                await defer.maybeDeferred(service.stopService)
