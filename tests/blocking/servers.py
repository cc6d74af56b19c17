"""A job server of ours in the background thread of the blocking clients, and workers in threads.

Real sockets, but no other process, and no reactor of the test.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.protocols.policies import WrappingFactory

from tests.interop.programs import HOST
from txgearman import blocking as gearman
from txgearman.blocking.background_thread import background_thread
from txgearman.server import GearmanServerFactory, Settings

LIMIT: Final = 20.0
"""Seconds that a test waits for anything before it fails."""


class BackgroundServer:
    """A server on a free port that can be stopped and started again there, and lose its connections.

    With `mute` it takes connections and never answers. `settings` are the server's.
    """

    def __init__(self, *, mute: bool = False, settings: Settings | None = None) -> None:
        self.port = 0
        self._settings = settings or Settings()
        self.factory: Any = None
        self._mute = mute
        self._listening: Any = None
        self._wrapper: WrappingFactory | None = None
        self.start()

    @property
    def address(self) -> str:
        """The address for a `host_list`."""
        return f"{HOST}:{self.port}"

    def start(self) -> None:
        """Listen, without jobs."""
        background_thread().call(self._start)

    def stop(self) -> None:
        """Stop listening, and lose all connections and jobs."""
        if self._listening is not None:
            background_thread().call(self._stop)

    def cut(self) -> None:
        """Lose all connections."""
        background_thread().call(self._cut)

    @property
    def connections(self) -> int:
        """How many there are."""
        return background_thread().call(lambda: len(self._wrapper.protocols) if self._wrapper else 0)

    def __enter__(self) -> BackgroundServer:
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def _start(self) -> None:
        reactor = background_thread().reactor
        self.factory = (
            Factory.forProtocol(Protocol) if self._mute else GearmanServerFactory(reactor, self._settings)
        )
        self._wrapper = WrappingFactory(self.factory)
        self._wrapper.noisy = False
        self.factory.noisy = False
        self._listening = reactor.listenTCP(self.port, self._wrapper, interface=HOST)
        self.port = self._listening.getHost().port

    def _cut(self) -> None:
        assert self._wrapper is not None
        for protocol in list(self._wrapper.protocols):
            protocol.transport.abortConnection()

    def _stop(self) -> Deferred[Any]:
        listening, self._listening = self._listening, None
        stopped = maybeDeferred(listening.stopListening)
        self._cut()
        if not self._mute:
            self.factory.stop()
        return stopped


class ThreadedWorker(gearman.GearmanWorker):
    """A worker for a thread. It records what `work` raised, and when it has connected."""

    def __init__(self, *servers: Any) -> None:
        super().__init__(servers)
        self.ready = threading.Event()
        self.raised: BaseException | None = None

    def after_poll(self, any_activity: bool) -> bool:
        self.ready.set()
        return True

    def run(self, poll_timeout: float) -> None:
        try:
            self.work(poll_timeout)
        except BaseException as error:
            self.raised = error
        finally:
            self.ready.set()


@contextlib.contextmanager
def working(worker: ThreadedWorker, poll_timeout: float = LIMIT) -> Iterator[ThreadedWorker]:
    """Let a worker work in a thread during the block. Raises what `work` raised."""
    thread = threading.Thread(target=worker.run, args=(poll_timeout,))
    thread.start()
    try:
        assert worker.ready.wait(LIMIT), "the worker did not start"
        yield worker
    finally:
        worker.shutdown()
        thread.join(LIMIT)
        assert not thread.is_alive(), "the worker did not stop"
    if worker.raised is not None:
        raise worker.raised


def reverse(_worker: gearman.GearmanWorker, job: gearman.GearmanJob) -> Any:
    return job.data[::-1]


@contextlib.contextmanager
def reversing(*servers: Any) -> Iterator[ThreadedWorker]:
    """A worker with the tasks ``reverse``, ``fail`` and ``updates``."""
    worker = ThreadedWorker(*servers)
    worker.register_task("reverse", reverse)
    worker.register_task("fail", _fail)
    worker.register_task("updates", _updates)
    with working(worker):
        yield worker


def _fail(_worker: gearman.GearmanWorker, _job: gearman.GearmanJob) -> Any:
    raise ValueError("no")


def _updates(worker: gearman.GearmanWorker, job: gearman.GearmanJob) -> Any:
    worker.send_job_status(job, 1, 2)
    worker.send_job_data(job, "part")
    worker.send_job_warning(job, "beware")
    worker.send_job_status(job, 2, 2)


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until `condition` is true. For what only another thread can tell."""
    pause = threading.Event()
    for _ in range(int(LIMIT * 200)):
        if condition():
            return
        pause.wait(0.005)
    raise AssertionError(f"not within {LIMIT} seconds: {what}")


async def in_thread(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Run a blocking function in a thread of the test's reactor."""
    from twisted.internet import reactor

    result = await deferToThread(function, *arguments, **options)
    # Under pytest a test that ended inside the call from the thread would have that call made again.
    await deferLater(reactor, 0)
    return result


def run_python(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a Python script in a process of its own, to its end."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
