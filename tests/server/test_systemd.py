"""Supervised by systemd: what it is told, and the sockets that it holds for us."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import sysconfig
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from twisted.internet.error import ConnectError
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import MemoryReactor
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.interop.programs import HOST, Program, assert_no_traceback, running, until
from tests.server.lines import close, connect
from tests.server.peers import req, res
from tests.support import free_port, needs_program, on_reactor
from txgearman.net.endpoints import BACKLOG, endpoint_of
from txgearman.server.process.systemd import SupervisedService, Supervisor

TWISTD = str(Path(sysconfig.get_path("scripts")) / "twistd")


@contextlib.contextmanager
def listener(name: str | None = None) -> Iterator[tuple[str, socket.socket]]:
    """A fake of systemd's end: the address to notify, and the socket where that arrives."""
    with (
        tempfile.TemporaryDirectory(prefix="txgearman-notify-") as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver,
    ):
        address = f"{folder}/notify" if name is None else name
        receiver.bind(address.replace("@", "\0"))
        receiver.setblocking(False)
        yield address, receiver


def told(receiver: socket.socket) -> list[str]:
    """The datagrams that have arrived."""
    datagrams = []
    with contextlib.suppress(BlockingIOError):
        while True:
            datagrams.append(receiver.recv(4096).decode())
    return datagrams


class RunningClock(Clock):
    """A reactor that already runs."""

    def callWhenRunning(self, function: object, *arguments: object) -> None:
        function(*arguments)  # type: ignore[operator]


class NotifyTest(SynchronousTestCase):
    def test_from_ready_to_stopping(self) -> None:
        with listener() as (address, receiver):
            clock = RunningClock()
            service = SupervisedService(Supervisor({"NOTIFY_SOCKET": address}), clock)
            service.startService()
            self.assertEqual(told(receiver), [f"READY=1\nMAINPID={os.getpid()}"])
            clock.advance(1000)
            self.assertEqual(told(receiver), [])
            service.stopService()
            self.assertEqual(told(receiver), ["STOPPING=1"])

    def test_the_watchdog_hears_twice_in_its_time(self) -> None:
        with listener() as (address, receiver):
            clock = RunningClock()
            supervisor = Supervisor({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "30000000"})
            SupervisedService(supervisor, clock).startService()
            told(receiver)
            clock.pump([5.0] * 12)
            self.assertEqual(told(receiver), ["WATCHDOG=1"] * 4)

    def test_the_watchdog_of_another_process(self) -> None:
        environment = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}
        self.assertEqual(Supervisor(environment).watchdog, 0)
        self.assertEqual(environment, {}, "nor do programs started from here speak in our name")

    def test_an_abstract_address(self) -> None:
        with listener(f"@txgearman-{os.getpid()}") as (address, receiver):
            Supervisor({"NOTIFY_SOCKET": address}).tell("A=1", "B=2")
            self.assertEqual(told(receiver), ["A=1\nB=2"])

    def test_without_a_supervisor_nothing_is_said(self) -> None:
        with capturedLogs() as events:
            Supervisor({}).tell("READY=1")
        self.assertEqual(events, [])

    def test_one_that_does_not_listen_does_not_matter(self) -> None:
        with capturedLogs() as events:
            Supervisor({"NOTIFY_SOCKET": "/nonexistent/socket"}).tell("READY=1")
        self.assertEqual(len(events), 1)


@contextlib.asynccontextmanager
async def started(
    *options: str,
    held: socket.socket | None = None,
    name: str = "gearmand.socket",
    notify: str = "",
    watchdog: str = "",
) -> AsyncIterator[Program]:
    """A server started as systemd starts it: with its pid in LISTEN_PID, the held socket as descriptor 3."""
    from twisted.internet import reactor

    script = f'export LISTEN_PID=$$; exec "{TWISTD}" --nodaemon --pidfile= gearmand "$@"'
    environment = {"NOTIFY_SOCKET": notify, "WATCHDOG_USEC": watchdog}
    descriptors: dict[int, int | str] = {0: "w", 1: "r", 2: "r"}
    if held is not None:
        environment |= {"LISTEN_FDS": "1", "LISTEN_FDNAMES": name}
        descriptors[3] = held.fileno()
    command = ["sh", "-c", script, "sh", *options]
    program = Program(command)
    reactor.spawnProcess(  # type: ignore[attr-defined]
        program, "/bin/sh", command, env={**os.environ, **environment}, childFDs=descriptors
    )
    try:
        yield program
        assert_no_traceback((program.output + program.errors).decode())
    finally:
        await program.kill()


class BacklogTest(TestCase):
    """A burst of connections waits for the server, and not for another attempt of its own.

    All endpoints of the server's options are made by `endpoint_of`: those of the Gearman protocol, of TLS
    and of the web side.
    """

    async def waiting(
        self, description: str, kind: socket.AddressFamily, address: Any, burst: int = 300
    ) -> int:
        """How many of a burst of connections are made while nobody accepts."""
        from twisted.internet import reactor

        listening: Any = await endpoint_of(reactor, description).listen(Factory())
        with contextlib.ExitStack() as clients:
            poll = select.poll()
            for _ in range(burst):
                client = clients.enter_context(socket.socket(kind))
                client.setblocking(False)
                if client.connect_ex(address or (HOST, listening.getHost().port)) in (0, errno.EINPROGRESS):
                    poll.register(client, select.POLLOUT)
            made = sum(events == select.POLLOUT for _, events in poll.poll(0))
        await listening.stopListening()
        return made

    @on_reactor
    async def test_a_burst_of_tcp(self) -> None:
        self.assertEqual(await self.waiting(f"tcp:0:interface={HOST}", socket.AF_INET, None), 300)

    @on_reactor
    async def test_a_burst_at_a_unix_socket(self) -> None:
        with tempfile.TemporaryDirectory(prefix="txgearman-backlog-") as folder:
            path = f"{folder}/s"
            self.assertEqual(await self.waiting(f"unix:{path}:lockfile=0", socket.AF_UNIX, path), 300)

    @on_reactor
    async def test_a_backlog_of_the_operator(self) -> None:
        made = await self.waiting(f"tcp:0:interface={HOST}:backlog=10", socket.AF_INET, None)
        self.assertLess(made, 50)

    def test_what_a_string_says_holds(self) -> None:
        for description, backlog in (
            ("tcp:1", BACKLOG),
            ("tcp6:1", BACKLOG),
            ("unix:s", BACKLOG),
            ("haproxy:tcp:1", BACKLOG),
            ("tcp:1:backlog=50", 50),
            ("tcp:1:127.0.0.1:10", 10),
            ("haproxy:tcp:1:backlog=7", 7),
        ):
            reactor = MemoryReactor()
            endpoint_of(reactor, description).listen(Factory())
            (listening,) = (*reactor.tcpServers, *reactor.unixServers)
            self.assertIn(backlog, listening, description)


class HeldSocketTest(TestCase):
    """A server whose socket outlives it."""

    LISTEN = "--listen=systemd:domain=INET:index=0"

    @on_reactor
    async def test_connections_during_a_restart_wait_and_succeed(self) -> None:
        with socket.socket() as held:
            held.bind((HOST, 0))
            held.listen(128)
            port = held.getsockname()[1]
            async with started(self.LISTEN, held=held) as first:
                before = await connect(port)
                await before.say()
                first.signal(signal.SIGTERM)
                self.assertEqual(await first.ended(), 0)
                await before.lost
            # Nobody is there. The system lets them in all the same, and keeps what they say.
            waiting = [await connect(port) for _ in range(20)]
            for line in waiting:
                line.transport.write(req(18, b"f", b"", b"") + req(16, b"x"))
            async with started(self.LISTEN, held=held):
                for line in waiting:
                    self.assertTrue((await line.heard(res(17, b"x"))).startswith(b"\0RES\0\0\0\x08"))
                self.assertIn(b"f\t20\t0\t0\n", await waiting[0].ask(b"status\n", b".\n"))
                await close(*waiting)

    @on_reactor
    async def test_while_it_drains_new_connections_wait_for_the_next(self) -> None:
        with socket.socket() as held:
            held.bind((HOST, 0))
            held.listen(128)
            port = held.getsockname()[1]
            async with started(self.LISTEN, "--drain-timeout=60", held=held) as first:
                client, worker = await connect(port), await connect(port)
                handle = (await client.say(req(7, b"f", b"", b"x")))[12:]
                await worker.say(req(1, b"f"), req(9))
                first.signal(signal.SIGTERM)
                await first.wrote(b"Draining: 1 jobs run")
                late = await connect(port)
                late.transport.write(req(16, b"late"))
                self.assertEqual(await worker.say(req(13, handle, b"result")), b"")
                self.assertEqual(await client.heard(b"result"), res(13, handle, b"result"))
                self.assertEqual(await first.ended(), 0)
                await close(client, worker)
            async with started(self.LISTEN, held=held):
                self.assertEqual(await late.heard(b"late"), res(17, b"late"))
                await close(late)

    @on_reactor
    async def test_a_unix_socket_keeps_its_file_and_its_mode(self) -> None:
        with (
            tempfile.TemporaryDirectory(prefix="txgearman-held-") as folder,
            socket.socket(socket.AF_UNIX) as held,
        ):
            path = Path(folder) / "socket"
            held.bind(str(path))
            path.chmod(0o600)
            held.listen(128)
            for _ in range(2):
                async with started("--listen=systemd:domain=UNIX:index=0", held=held) as server:
                    await server.wrote(b"Gearman job server listens")
                    with socket.socket(socket.AF_UNIX) as client:
                        client.setblocking(False)
                        client.connect(str(path))
                        client.send(b"version\n")
                        self.assertTrue((await received(client)).startswith(b"OK txgearman-"))
                    self.assertEqual(path.stat().st_mode & 0o777, 0o600)
                    server.signal(signal.SIGTERM)
                    await server.ended()
                self.assertTrue(path.exists())

    @on_reactor
    async def test_without_such_a_socket_it_does_not_start(self) -> None:
        async with started(self.LISTEN) as server:
            self.assertEqual(await server.ended(), 2)
            self.assertIn(b"is no server endpoint", server.output + server.errors)

    @needs_program("systemd-socket-activate")
    @on_reactor
    async def test_with_the_socket_of_systemd_itself(self) -> None:
        port = free_port()
        command = ["systemd-socket-activate", f"--listen={HOST}:{port}", "--fdname=gearmand"]
        # It hands on nothing else of the environment.
        command += [f"--setenv=PYTHONPATH={os.environ.get('PYTHONPATH', '')}"]
        async with running(*command, TWISTD, "--nodaemon", "--pidfile=", "gearmand", self.LISTEN):

            async def answers() -> bool:
                try:
                    line = await connect(port)
                except ConnectError:
                    return False
                self.assertEqual(await line.ask(req(16, b"x"), b"x"), res(17, b"x"))
                await close(line)
                return True

            await until(answers, "the server answers")


async def received(client: socket.socket) -> bytes:
    """What arrives at a socket that does not block."""
    from twisted.internet import reactor

    for _ in range(1000):
        try:
            return client.recv(4096)
        except BlockingIOError:
            await deferLater(reactor, 0.01)
    raise AssertionError("nothing came")


class RealNotifyTest(TestCase):
    @on_reactor
    async def test_what_systemd_hears_of_a_server(self) -> None:
        with listener() as (address, receiver), socket.socket() as held:
            held.bind((HOST, 0))
            held.listen(128)
            async with started(HeldSocketTest.LISTEN, held=held, notify=address, watchdog="200000") as server:
                heard: list[str] = []

                async def alive() -> bool:
                    heard.extend(told(receiver))
                    return heard.count("WATCHDOG=1") >= 3

                await until(alive, "the watchdog is told three times")
                self.assertEqual(heard[0], f"READY=1\nMAINPID={server.pid}")
                server.signal(signal.SIGTERM)
                await server.ended()
                self.assertIn("STOPPING=1\nEXTEND_TIMEOUT_USEC=25000000", told(receiver))
