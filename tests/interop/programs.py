"""Real processes for tests: Gearman servers on free ports of 127.0.0.1, and programs that use them.

Everything here runs on the real reactor, has a time limit and ends what it started, on failure too:

* ``async with gearmand() as server`` and ``async with txgearmand() as server`` run a server,
  ``async with lasting("txgearman") as server`` one that many tests share;
* ``async with running("gearman", "-w", ...) as program`` runs a program beside the test;
* ``await run_program(["gearadmin", ...])`` runs one to its end.

No expectations about Gearman live here; those are in the tests.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import select
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectError, ConnectionDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.protocol import Factory, ProcessProtocol, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from tests.processes.nursery import shared_nursery
from tests.support import free_port

if TYPE_CHECKING:
    from twisted.internet.epollreactor import EPollReactor
    from twisted.internet.interfaces import IProcessTransport, ITCPTransport

_Result = TypeVar("_Result")

HOST: Final = "127.0.0.1"
START_LIMIT: Final = 15.0
"""Seconds a server may take until it answers; generous, for a loaded machine."""
STOP_LIMIT: Final = 5.0
"""Seconds a program may take to obey SIGTERM before it is killed."""
RUN_LIMIT: Final = 15.0
"""Seconds a program may run, and an awaited state may take to come, unless the caller says otherwise."""
_LOOK_AGAIN: Final = 0.01
"""Seconds between two looks at what only another process knows."""
_FOLDER_PREFIX: Final = "txgearman-interop-"
_LOG: Final = "log"
_OUTPUT: Final = "output"
_ATTEMPTS: Final = 3
"""Starts before giving up, where somebody else took the free port in between."""


def _reactor() -> EPollReactor:
    """The installed reactor, imported late: importing this module must not choose one."""
    from twisted.internet import reactor

    return cast("EPollReactor", reactor)


class Program(ProcessProtocol):
    """One running process.

    `output` and `errors` are what it wrote so far to its standard output and standard error, bytes;
    `exit_code` is None while it runs, then its exit code, or minus the number of the signal it died of.
    """

    transport: IProcessTransport

    def __init__(self, command: Sequence[str]) -> None:
        self.command = tuple(command)
        self.output = bytearray()
        self.errors = bytearray()
        self.exit_code: int | None = None
        self._ended = False
        self._waiters: list[tuple[Callable[[], bool], Deferred[None]]] = []

    @property
    def pid(self) -> int:
        """The process id. Raises `RuntimeError` once the process has ended."""
        if self.exit_code is not None:
            raise RuntimeError(f"{self!r} has ended")
        return cast(int, self.transport.pid)

    def __repr__(self) -> str:
        state = "running" if self.exit_code is None else f"exit code {self.exit_code}"
        return f"<{' '.join(self.command)}: {state}, wrote {bytes(self.output)!r} and {bytes(self.errors)!r}>"

    def outReceived(self, data: bytes) -> None:
        self.output += data
        self._look()

    def errReceived(self, data: bytes) -> None:
        self.errors += data
        self._look()

    def processExited(self, reason: Failure) -> None:
        end = reason.value
        if isinstance(end, ProcessTerminated):
            self.exit_code = -end.signal if end.signal else end.exitCode
        else:
            self.exit_code = 0
        self._look()

    def processEnded(self, reason: Failure) -> None:
        self._ended = True
        self._look()

    def write(self, data: bytes) -> None:
        """Write `data` to its standard input."""
        self.transport.writeToChild(0, data)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; nothing happens if it has ended."""
        with contextlib.suppress(ProcessExitedAlready):
            self.transport.signalProcess(number.name.removeprefix("SIG"))

    async def ended(self, timeout: float = RUN_LIMIT) -> int:
        """Its exit code, once it has ended and all its output is here.

        Raises `AssertionError` after `timeout` seconds; the process then still runs.
        """
        await self._until(lambda: self._ended, timeout, "end")
        assert self.exit_code is not None
        return self.exit_code

    async def wrote(self, data: bytes, timeout: float = RUN_LIMIT) -> None:
        """Return once `data` is in its standard output.

        Raises `AssertionError` after `timeout` seconds, and at once when it ends without having
        written it.
        """
        await self._until(lambda: data in self.output or self._ended, timeout, f"write {data!r}")
        assert data in self.output, f"did not write {data!r}: {self!r}"

    async def stop(self, timeout: float = STOP_LIMIT) -> bool:
        """End it: SIGTERM, and SIGKILL when it does not obey within `timeout` seconds. Reaps it.

        Returns whether SIGTERM was enough, or it had ended before.
        """
        if self._ended:
            return True
        self.signal(signal.SIGTERM)
        try:
            await self._until(lambda: self.exit_code is not None, timeout, "obey SIGTERM")
            obeyed = True
        except AssertionError:
            obeyed = False
            self.signal(signal.SIGKILL)
        await self._close()
        return obeyed

    async def kill(self) -> None:
        """End it with SIGKILL and reap it; nothing happens if it has ended."""
        self.signal(signal.SIGKILL)
        await self._close()

    def kill_at_exit(self) -> None:
        """Kill and reap it when no reactor runs any more."""
        pid = self.transport.pid
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            if os.waitpid(pid, os.WNOHANG) == (0, 0):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)

    async def _close(self) -> None:
        """Wait for the end of a process that is dying, even if a child of its own holds its pipes."""
        await self._until(lambda: self.exit_code is not None, STOP_LIMIT, "die")
        if not self._ended:
            self.transport.loseConnection()
        await self._until(lambda: self._ended, STOP_LIMIT, "close its pipes")

    async def _until(self, condition: Callable[[], bool], timeout: float, what: str) -> None:
        if condition():
            return
        waiter: Deferred[None] = Deferred()
        self._waiters.append((condition, waiter))
        waiter.addTimeout(timeout, _reactor())
        try:
            await waiter
        except DeferredTimeout:
            raise AssertionError(f"did not {what} within {timeout} seconds: {self!r}") from None

    def _look(self) -> None:
        """Fire those who wait for what is now true."""
        due = [waiter for condition, waiter in self._waiters if condition()]
        self._waiters = [pair for pair in self._waiters if pair[1] not in due]
        for waiter in due:
            waiter.callback(None)


def start_program(
    command: Sequence[str], *, environment: Mapping[str, str] | None = None, output: Path | None = None
) -> Program:
    """Start a process; whoever calls this ends it with `Program.stop` or `Program.kill`.

    `command` is the program, found along PATH, and its arguments; `environment` is added to the
    test's own. With `output` both its outputs go to the end of that file instead of to the `Program`,
    and it has no standard input: then the reactor watches nothing of it but its end.
    """
    program = Program(command)
    spawn = functools.partial(
        _reactor().spawnProcess,
        program,
        command[0],
        list(command),
        env={**os.environ, **(environment or {})},
    )
    if output is None:
        spawn()
    else:
        with open(os.devnull, "rb") as nothing, output.open("ab") as file:
            spawn(childFDs={0: nothing.fileno(), 1: file.fileno(), 2: file.fileno()})
    return program


class ForkedProgram(Program):
    """``twistd`` with these arguments, as it is after its imports: a start takes no second then.

    It is no child of this process, which hears nothing of its end: that is looked for.
    """

    def __init__(self, arguments: Sequence[str], output: Path) -> None:
        self._exit_code: int | None = None
        super().__init__(["twistd", *arguments])
        self._pid = shared_nursery().start(arguments, output, instants=False)
        # A process id may be another process's by the time it is used, this never is.
        self._process = os.pidfd_open(self._pid)

    @property
    def pid(self) -> int:
        if self.exit_code is not None:
            raise RuntimeError(f"{self!r} has ended")
        return self._pid

    @property
    def exit_code(self) -> int | None:
        self._look_for_end()
        return self._exit_code

    @exit_code.setter
    def exit_code(self, code: int | None) -> None:
        self._exit_code = code

    def signal(self, number: signal.Signals) -> None:
        if self.exit_code is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._process, number)

    def kill_at_exit(self) -> None:
        self.signal(signal.SIGKILL)

    async def _until(self, condition: Callable[[], bool], timeout: float, what: str) -> None:
        async def so() -> bool:
            self._look_for_end()
            return condition()

        await until(so, f"{what}: {self!r}", timeout)

    def _look_for_end(self) -> None:
        if not self._ended and select.select([self._process], [], [], 0)[0]:
            self._exit_code = shared_nursery().exit_code(self._pid)
            self._ended = True
            os.close(self._process)


@contextlib.asynccontextmanager
async def running(*command: str, environment: Mapping[str, str] | None = None) -> AsyncIterator[Program]:
    """A process that runs beside the body of the ``async with`` and is killed behind it."""
    program = start_program(command, environment=environment)
    try:
        yield program
    finally:
        await program.kill()


async def run_program(
    command: Sequence[str],
    stdin: bytes = b"",
    timeout: float = RUN_LIMIT,
    *,
    environment: Mapping[str, str] | None = None,
) -> tuple[int, bytes, bytes]:
    """Run a program to its end with `stdin` as its whole standard input.

    Returns its exit code (minus the signal's number if it died of one), standard output and standard
    error. Raises `AssertionError` with what it wrote, and kills it, after `timeout` seconds.
    """
    async with running(*command, environment=environment) as program:
        if stdin:
            program.write(stdin)
        program.transport.closeChildFD(0)
        code = await program.ended(timeout)
        return code, bytes(program.output), bytes(program.errors)


async def until(condition: Callable[[], Awaitable[bool]], what: str, timeout: float = RUN_LIMIT) -> None:
    """Ask `condition` again and again until it is true; for what only another process knows.

    Raises `AssertionError`, saying `what` was awaited, after `timeout` seconds.
    """
    reactor = _reactor()
    deadline = reactor.seconds() + timeout
    while not await condition():
        if reactor.seconds() > deadline:
            raise AssertionError(f"not within {timeout} seconds: {what}")
        await deferLater(reactor, _LOOK_AGAIN)


@contextlib.asynccontextmanager
async def alongside(coroutine: Coroutine[Any, Any, _Result]) -> AsyncIterator[Deferred[_Result]]:
    """Run `coroutine` beside the body of the ``async with``, which awaits what it is given for the result.

    What it raises before it waits for anything, a `unittest.SkipTest` for example, is raised ahead of the
    body. What still runs after the body, because that failed, is cancelled and its clean-up awaited.
    """
    deferred = Deferred.fromCoroutine(coroutine)
    if deferred.called:
        await deferred
    try:
        yield deferred
    finally:
        if not deferred.called:
            deferred.cancel()
            with contextlib.suppress(CancelledError):
                await deferred


class PortTaken(AssertionError):
    """Another server answers on the port."""


class _Exchange(Protocol):
    """Sends one request on a connection of its own and collects the answer."""

    transport: ITCPTransport

    def __init__(self, request: bytes, complete: Callable[[bytes], bool]) -> None:
        self.answer: Deferred[bytes] = Deferred()
        self.lost: Deferred[None] = Deferred()
        self._request = request
        self._complete = complete
        self._received = b""

    def connectionMade(self) -> None:
        self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        if not self.answer.called and self._complete(self._received):
            self.answer.callback(self._received)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.answer.called:
            self.answer.errback(ConnectionDone(f"closed after {self._received!r}"))
        self.lost.callback(None)


async def exchange(
    port: int, request: bytes, complete: Callable[[bytes], bool], timeout: float = RUN_LIMIT
) -> bytes:
    """The raw answer to a raw `request` on a connection of its own to 127.0.0.1.

    `complete` is told all bytes received so far and says whether that is the whole answer. Raises
    `ConnectError` and `ConnectionDone` when there is no connection or no whole answer on it, and
    `TimeoutError` after `timeout` seconds.
    """
    reactor = _reactor()
    endpoint = TCP4ClientEndpoint(reactor, HOST, port, timeout=timeout)
    protocol = cast(
        _Exchange, await endpoint.connect(Factory.forProtocol(lambda: _Exchange(request, complete)))
    )
    try:
        return await protocol.answer.addTimeout(timeout, reactor)
    finally:
        protocol.transport.abortConnection()
        await protocol.lost


def _whole_answer(received: bytes) -> bool:
    """Whether `received` is a whole answer of the admin protocol: one OK or ERR line, or a list."""
    if received.startswith((b"OK", b"ERR")):
        return received.endswith(b"\n")
    return received == b".\n" or received.endswith(b"\n.\n")


@dataclass(frozen=True, slots=True)
class Server:
    """A running Gearman server.

    `kind` is ``gearmand`` or ``txgearman``; `port` is the TCP port of 127.0.0.1 it listens on; `folder`
    holds what it writes.
    """

    kind: str
    port: int
    program: Program
    folder: Path

    @property
    def host(self) -> str:
        """The address it listens on."""
        return HOST

    @property
    def endpoint(self) -> str:
        """The address as a Twisted client endpoint string."""
        return f"tcp:{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        """The process id of the server."""
        return self.program.pid

    def log(self) -> str:
        """What the server logged and printed so far."""
        files = [self.folder / name for name in (_LOG, _OUTPUT)]
        return "".join(file.read_text(errors="replace") for file in files if file.exists())

    async def ask(self, line: str) -> bytes:
        """The whole raw answer to an admin line such as ``status``; CR and LF are added."""
        return await exchange(self.port, line.encode() + b"\r\n", _whole_answer)

    async def rows(self, line: str) -> list[list[str]]:
        """The rows of a list such as ``status``, each cut at its tabs, without the final dot."""
        return [row.split("\t") for row in (await self.ask(line)).decode().split("\n")[:-2]]

    async def status(self, function: str) -> tuple[int, int, int]:
        """Jobs, running jobs and workers of `function`; zeros while the server does not know it."""
        for name, *numbers in await self.rows("status"):
            if name == function:
                total, active, workers = map(int, numbers)
                return total, active, workers
        return 0, 0, 0

    async def has(
        self,
        function: str,
        *,
        jobs: int | None = None,
        active: int | None = None,
        workers: int | None = None,
        timeout: float = RUN_LIMIT,
    ) -> None:
        """Wait until `function` has exactly these numbers of jobs (running ones too), running jobs, workers.

        A number that is None is not looked at. Raises `AssertionError` after `timeout` seconds.
        """
        wanted = (jobs, active, workers)

        async def so() -> bool:
            found = await self.status(function)
            return all(number in (None, seen) for number, seen in zip(wanted, found, strict=True))

        await until(so, f"{function} has jobs, active, workers = {wanted}", timeout)


@contextlib.asynccontextmanager
async def gearmand(*options: str) -> AsyncIterator[Server]:
    """The C server ``gearmand`` on a free port, with further command line `options`."""
    async with _served("gearmand", options) as server:
        yield server


@contextlib.asynccontextmanager
async def txgearmand(*options: str) -> AsyncIterator[Server]:
    """This package's server, as ``twistd gearmand`` on a free port, with further `options` of it.

    When the body has passed, raises `AssertionError` if the server logged a traceback or did not obey
    SIGTERM.
    """
    async with _served("txgearman", options) as server:
        yield server
        obeyed = await server.program.stop()
        assert_no_traceback(server.log())
        assert obeyed, f"the server did not obey SIGTERM within {STOP_LIMIT} seconds:\n{server.log()}"


_lasting: dict[str, Server] = {}


@contextlib.asynccontextmanager
async def lasting(kind: str) -> AsyncIterator[Server]:
    """The one server of a `kind` that all tests of this process share; the first to ask starts it.

    For tests that keep to functions of their own and look at nothing else. It ends with this process.
    When the body has passed, raises `AssertionError` if a ``txgearman`` logged a traceback meanwhile.
    """
    server = _lasting.get(kind)
    if server is None or server.program.exit_code is not None:
        folder = Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        server = _lasting[kind] = await _start(kind, (), folder)
        atexit.register(server.program.kill_at_exit)
    logged = len(server.log())
    yield server
    assert server.program.exit_code is None, f"the server died: {server.program!r}\n{server.log()}"
    if kind == "txgearman":
        assert_no_traceback(server.log()[logged:])


def assert_no_traceback(log: str) -> None:
    """Raise `AssertionError` with the log if the server met an error it did not expect."""
    assert "Traceback (most recent call last)" not in log, f"the server logged an error:\n{log}"


@contextlib.asynccontextmanager
async def _served(kind: str, options: Sequence[str]) -> AsyncIterator[Server]:
    """Start a server on a free port, wait until it answers, and end it after the body."""
    with tempfile.TemporaryDirectory(prefix=_FOLDER_PREFIX) as folder:
        server = await _start(kind, options, Path(folder))
        try:
            yield server
        finally:
            await server.program.stop()


async def _start(kind: str, options: Sequence[str], folder: Path) -> Server:
    """A server that answers. Raises `AssertionError` with its log if it does not."""
    for attempt in range(1, _ATTEMPTS + 1):
        port = free_port()
        server = Server(kind, port, _START[kind](port, folder, options), folder)
        try:
            await _answers(server)
        except BaseException as error:
            await server.program.kill()
            is_taken = isinstance(error, PortTaken) or "in use" in server.log()
            if attempt == _ATTEMPTS or not is_taken:
                raise
        else:
            return server
    raise AssertionError("unreachable")


async def start_again(server: Server) -> Server:
    """Another server like `server`, which has ended, on the same port and folder.

    Whoever calls this ends it. Raises `AssertionError` with its log if it does not answer.
    """
    program = _START[server.kind](server.port, server.folder, ())
    again = Server(server.kind, server.port, program, server.folder)
    try:
        await _answers(again)
    except BaseException:
        await program.kill()
        raise
    return again


def _start_gearmand(port: int, folder: Path, options: Sequence[str]) -> Program:
    command = [
        "gearmand",
        f"--listen={HOST}",
        f"--port={port}",
        f"--log-file={folder / _LOG}",
        f"--pid-file={folder / 'pid'}",
        "--verbose=NOTICE",
    ]
    return start_program([*command, *options], output=folder / _OUTPUT)


def _start_txgearmand(port: int, folder: Path, options: Sequence[str]) -> Program:
    arguments = [
        "--nodaemon",
        "--pidfile=",
        f"--logfile={folder / _LOG}",
        f"--rundir={folder}",
        "gearmand",
        "--listen",
        f"tcp:{port}:interface={HOST}",
        # Tests leave jobs behind that nobody will ever end.
        "--drain-timeout=0",
    ]
    return ForkedProgram([*arguments, *options], folder / _OUTPUT)


_START: Final = {"gearmand": _start_gearmand, "txgearman": _start_txgearmand}


async def _answers(server: Server) -> None:
    """Wait until the server answers on its port, and it is this server that does."""
    expected = f"OK {server.pid}".encode()

    async def ready() -> bool:
        ended = server.program.exit_code is not None
        assert not ended, f"the server ended at its start: {server.program!r}\n{server.log()}"
        try:
            answer = await server.ask("getpid")
        except (ConnectError, ConnectionDone):
            return False
        if answer.strip() != expected:
            raise PortTaken(f"asked process {expected!r}, answered by {answer!r}")
        return True

    await until(ready, f"{server.kind} answers on port {server.port}", START_LIMIT)
