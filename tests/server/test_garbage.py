"""No connection outlives its end: in whatever state it ends, it is freed at once, without the collector.

The server's collector rests, as jobs would be most of what it walks. So a reference from a connection to
itself would keep its bytes until the process ends.

Places that refer to their connection, or did: the packets that are not handled yet (a generator, whose frame
has the connection), lists (theirs has the peer), its queue in the send budget, its two faces in the broker,
its timers once they have fired, the producer that TLS keeps, the failure that TLS ends with (its traceback
has the frame that has the failure), and what waits for the store. `tests/web/test_garbage.py` has those of
HTTP.
"""

from __future__ import annotations

import contextlib
import gc
import tempfile
import unittest
import weakref
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import GeneratorType
from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.garbage import GarbageTestCase, gone, resting_collector
from tests.server.peers import PREFIX, SocketlikeTransport, TcpTransport, req
from tests.server.sites import Site
from tests.store.model import ModelDatabase
from txgearman.server import GearmanServerFactory, Settings
from txgearman.server.replies.pending import LINES_AT_ONCE

MIB = 1024 * 1024
LARGE = bytes(MIB)
READ = 64 * 1024

State = Callable[["Scene"], None]


class Scene:
    """A server, the `peer` whose connection is to end, and others."""

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock()
        self.factory = GearmanServerFactory(self.clock, Settings(handle_prefix=PREFIX, **settings))
        self.others: list[SocketlikeTransport] = []
        self.peer = SocketlikeTransport()
        self.protocol = self.peer.connect(self.factory.buildProtocol(None))

    def other(self, *messages: bytes) -> SocketlikeTransport:
        transport = SocketlikeTransport()
        transport.connect(self.factory.buildProtocol(None))
        transport.receive(*messages)
        self.turn()
        self.others.append(transport)
        return transport

    def turn(self, seconds: float = 0) -> None:
        self.clock.advance(seconds)

    def fill(self, jobs: int) -> None:
        self.other(*(req(18, b"f", b"", b"") for _ in range(jobs)))


def silent(_scene: Scene) -> None:
    pass


def idle(scene: Scene) -> None:
    scene.peer.receive(req(16, b"x"))
    scene.peer.taken()


def part_of_a_line(scene: Scene) -> None:
    scene.peer.receive(b"stat")


def part_of_a_packet(scene: Scene) -> None:
    scene.peer.receive(req(16, LARGE)[:1000])


def part_of_a_large_packet(scene: Scene) -> None:
    scene.peer.receive(req(16, LARGE)[:500_000])


def first_answer_unread(scene: Scene) -> None:
    scene.peer.receive(req(16, LARGE))
    assert not scene.peer.reading


def later_answer_unread(scene: Scene) -> None:
    idle(scene)
    first_answer_unread(scene)


def many_answers_unread(scene: Scene) -> None:
    scene.peer.receive(*[req(16, bytes(30_000))] * 10)
    assert not scene.peer.reading


def unread_and_more_was_delivered(scene: Scene) -> None:
    many_answers_unread(scene)
    scene.protocol.dataReceived(req(16, bytes(30_000)) * 2)


def unread_behind_a_part(scene: Scene) -> None:
    packet = req(16, LARGE)
    scene.peer.receive(packet[:500_000])
    scene.peer.receive(packet[500_000:] + req(16, b"x"))
    assert not scene.peer.reading


def list_under_way(scene: Scene) -> None:
    scene.fill(3 * LINES_AT_ONCE)
    scene.peer.receive(b"show jobs\n" + req(16, b"x"))
    scene.turn()


def list_unread(scene: Scene) -> None:
    scene.fill(3 * LINES_AT_ONCE)
    scene.peer.receive(b"show jobs\n" * 20)
    for _ in range(50):
        scene.turn()
    assert scene.peer.unsent


def workers_list_under_way(scene: Scene) -> None:
    for _ in range(2 * LINES_AT_ONCE):
        scene.other()
    scene.peer.receive(b"workers\n")


def waits_for_a_job(scene: Scene) -> None:
    scene.peer.receive(req(7, b"f", b"", b"data"), *[req(7, b"f", b"u", b"data")] * 3)


def waits_for_a_running_job(scene: Scene) -> None:
    waits_for_a_job(scene)
    scene.other(req(1, b"f"), req(9), req(9))


def result_unread(scene: Scene) -> None:
    waits_for_a_job(scene)
    worker = scene.other(req(1, b"f"), req(9))
    scene.peer.taken()
    worker.receive(req(28, b"H:test:1", LARGE), req(28, b"H:test:1", LARGE))
    scene.turn()
    assert scene.peer.unsent


def works(scene: Scene) -> None:
    scene.peer.receive(req(1, b"f"), req(3, b"g"), req(1, b"h"))
    scene.other(req(7, b"f", b"", b"data"), req(7, b"f", b"", b"data"))
    scene.peer.receive(req(9))


def sleeps(scene: Scene) -> None:
    scene.peer.receive(req(1, b"f"), req(4))


def was_woken(scene: Scene) -> None:
    sleeps(scene)
    scene.other(req(7, b"f", b"", b"data"))


def has_a_deadline(scene: Scene) -> None:
    scene.other(req(7, b"f", b"", b"data"))
    scene.peer.receive(req(23, b"f", b"60"), req(9))


def gives_way(scene: Scene) -> None:
    scene.other(*[req(7, b"f", b"u", b"")] * 100)
    scene.peer.receive(req(1, b"f"), req(9))
    scene.peer.receive(*[req(28, b"H:test:1", bytes(4000))] * 4)
    assert not scene.peer.reading


def broken(scene: Scene) -> None:
    scene.peer.receive(b"\0BAD" + bytes(8))


def closes_with_answers_unread(scene: Scene) -> None:
    many_answers_unread(scene)
    scene.protocol.close()
    scene.turn()


def cut_off_as_it_did_not_take_the_rest(scene: Scene) -> None:
    closes_with_answers_unread(scene)
    scene.turn(100)
    assert scene.peer.aborted


def dropped_for_the_total(scene: Scene) -> None:
    scene.factory.budget.limit = MIB // 2
    first_answer_unread(scene)
    assert scene.peer.aborted


def dropped_for_itself(scene: Scene) -> None:
    result_unread(scene)
    for _ in range(80):
        scene.others[-1].receive(req(28, b"H:test:1", LARGE))
        scene.turn()
    assert scene.peer.aborted


def gave_up_an_unfinished_packet(scene: Scene) -> None:
    scene.factory.unfinished.limit = 100_000
    part_of_a_large_packet(scene)


STATES: tuple[State, ...] = (
    silent,
    idle,
    part_of_a_line,
    part_of_a_packet,
    part_of_a_large_packet,
    first_answer_unread,
    later_answer_unread,
    many_answers_unread,
    unread_and_more_was_delivered,
    unread_behind_a_part,
    list_under_way,
    list_unread,
    workers_list_under_way,
    waits_for_a_job,
    waits_for_a_running_job,
    result_unread,
    works,
    sleeps,
    was_woken,
    has_a_deadline,
    gives_way,
    broken,
    closes_with_answers_unread,
    cut_off_as_it_did_not_take_the_rest,
    dropped_for_the_total,
    dropped_for_itself,
    gave_up_an_unfinished_packet,
)


class ConnectionTest(GarbageTestCase):
    def test_each_state(self) -> None:
        self.check_each(STATES, self.end_in)

    def end_in(self, state: State) -> None:
        scene = Scene()
        state(scene)
        reference = weakref.ref(scene.protocol)
        scene.peer.lose()
        # What was put off until the next turn finds it gone.
        scene.turn(1)
        del scene.peer, scene.protocol
        self.assertTrue(gone(reference), gc.get_referrers(reference()))
        self.assertEqual(scene.factory.unfinished.total, 0)
        self.assertNoGarbage()

    def test_a_packet_is_not_held_behind_which_its_peer_pauses(self) -> None:
        """The generators that stand behind the packet must not refer to its bytes: its answer has them."""
        scene = Scene()
        packet = req(16, LARGE)
        for start in range(0, len(packet), READ):
            scene.peer.receive(packet[start : start + READ])
        self.assertFalse(scene.peer.reading)
        sizes = [len(thing) for thing in _within(scene.protocol._unhandled) if isinstance(thing, bytes)]
        self.assertLessEqual(sum(sizes), READ)


def _within(*things: Any) -> Iterator[Any]:
    """All that generators have in their frames, those that they read from and lists included."""
    for thing in things:
        yield thing
        if isinstance(thing, list | tuple):
            yield from _within(*thing)
        elif isinstance(thing, GeneratorType):
            yield from _within(
                thing.gi_yieldfrom, *(thing.gi_frame.f_locals.values() if thing.gi_frame else ())
            )


class PendingReplyTest(SynchronousTestCase):
    """Connections that wait for the store when they end."""

    def test_each_state(self) -> None:
        for ahead in ((req(18, b"f", b"", b""),), (req(18, b"f", b"u", b""), req(16, LARGE), req(16, b"x"))):
            with self.subTest(len(ahead)), resting_collector():
                site = Site("here", ModelDatabase(), lambda: 0.0)
                peer = site.connect()
                peer.receive(*ahead)
                protocol = next(iter(site.factory.connections.values()))
                reference = weakref.ref(protocol)
                self.assertTrue(protocol._pending)
                peer.lose()
                site.transports.clear()
                del peer, protocol
                site.commit()
                self.assertTrue(gone(reference), gc.get_referrers(reference()))


@unittest.skipUnless(find_spec("OpenSSL"), "not installed: pyOpenSSL")
class TlsTest(SynchronousTestCase):
    """The same states with TLS between, both with ours and with that of an ``ssl:`` endpoint of Twisted's."""

    def setUp(self) -> None:
        from tests.server.test_tls import write_certificate

        with tempfile.TemporaryDirectory(prefix="txgearman-garbage-") as folder:
            self.load(*write_certificate(Path(folder)))

    def load(self, key: Path, certificate: Path) -> None:
        from twisted.internet.ssl import DefaultOpenSSLContextFactory
        from twisted.protocols.tls import TLSMemoryBIOFactory

        from txgearman.server.config.tls_options import TlsFiles
        from txgearman.server.tls import ServerTls

        ours = ServerTls(TlsFiles(str(certificate), str(key)), Clock())
        theirs = DefaultOpenSSLContextFactory(str(key), str(certificate))
        self.wraps: dict[str, Callable[[Any, Clock], Any]] = {
            "ours": lambda factory, _clock: ours.wrap(factory),
            "Twisted's": lambda factory, clock: TLSMemoryBIOFactory(theirs, False, factory, clock),
        }

    def test_each_state(self) -> None:
        # Once around all: it collects what is there from before, of which other tests leave much.
        with resting_collector():
            for name in self.wraps:
                for state in (first_answer_unread, many_answers_unread, result_unread, idle, silent, sleeps):
                    for how in ("cut", "no handshake", "garbled", "not TLS"):
                        with self.subTest(name, state=state.__name__, how=how):
                            self.end_in(name, state, how)

    def end_in(self, name: str, state: State, how: str) -> None:
        """End a connection that is wrapped as `name` says."""
        from OpenSSL import SSL

        scene = Scene()
        outer = self.wraps[name](scene.factory, scene.clock)
        outer._clock = scene.clock
        transport = TcpTransport()
        wrapped = transport.connect(outer.buildProtocol(None))
        scene.protocol = wrapped.wrappedProtocol
        if how == "not TLS":
            transport.receive(b"status\n")
        elif how != "no handshake":
            _shake_hands(SSL, transport, wrapped)
            scene.peer = _Inside(scene.protocol)
            state(scene)
            scene.turn()
            if how == "garbled":
                wrapped.dataReceived(b"\x17\x03\x03\x00\x05xxxxx")
        references = [weakref.ref(thing) for thing in (scene.protocol, wrapped)]
        transport.producer = None
        wrapped.connectionLost(Failure(ConnectionLost()))
        transport._protocol = None
        del scene.protocol, scene.peer, wrapped, transport
        scene.turn(1)
        # Twisted's own stays with the failure that it ended by, without our bytes.
        self.assertTrue(gone(references[0]), gc.get_referrers(references[0]()))
        if name == "ours":
            self.assertTrue(gone(references[1]), gc.get_referrers(references[1]()))


class _Inside(SocketlikeTransport):
    """Gives what it receives to a protocol past its transport."""

    def __init__(self, protocol: Any) -> None:
        super().__init__()
        self._inner = protocol

    @property
    def reading(self) -> bool:
        return not self._inner._reading_suspended

    @property
    def unsent(self) -> int:
        return 1

    def receive(self, *messages: bytes) -> None:
        self._inner.dataReceived(b"".join(messages))


def _shake_hands(ssl: Any, transport: SocketlikeTransport, wrapped: Any) -> None:
    client = ssl.Connection(ssl.Context(ssl.TLS_CLIENT_METHOD), None)
    client.set_connect_state()
    for _ in range(4):
        with contextlib.suppress(ssl.WantReadError):
            client.do_handshake()
        with contextlib.suppress(ssl.WantReadError):
            wrapped.dataReceived(client.bio_read(1 << 16))
        if answer := transport.take():
            client.bio_write(answer)
