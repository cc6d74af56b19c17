"""The connections of a blocking worker: making them, replacing them, and closing them.

A background worker has the connections to all servers. What its jobs do is decided in `worker`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

from txgearman.blocking.background_thread import GRACE_SECONDS, BackgroundThread, background_thread
from txgearman.blocking.background_worker import BackgroundWorker, RunningJob
from txgearman.blocking.connection import GearmanConnection
from txgearman.blocking.errors import ServerUnavailable
from txgearman.blocking.event_queue import EventQueue
from txgearman.errors import ClientError

_log = logging.getLogger(__name__)

NewWorker = Callable[[BackgroundThread, Sequence[GearmanConnection]], BackgroundWorker]
"""Makes a background worker for these servers, which is not started."""


class WorkerConnections:
    """The background worker that gets jobs, and those that are kept for a job without an outcome.

    It holds no reference to the blocking worker, so that one that the program drops is garbage at once.

    Args:
        event_queue: The queue of the blocking worker.

    Attributes:
        current: The background worker that gets jobs; None without connections.
        parked: Background workers whose job was left without an outcome. Each keeps its connections for that.
        reconnect_needed: Whether `current` is to be replaced once no job runs.
    """

    def __init__(self, event_queue: EventQueue) -> None:
        self.current: BackgroundWorker | None = None
        self.parked: list[BackgroundWorker] = []
        self.reconnect_needed = False
        self._event_queue = event_queue

    def connect(self, new: NewWorker, servers: Sequence[GearmanConnection]) -> bool:
        """Connect to the servers.

        Args:
            new: Makes the background worker.
            servers: The servers.

        Returns:
            Whether at least one can be reached. If not, the caller disconnects.
        """
        thread = self._attach_event_queue()
        background_worker = self.current = self._new(new, thread, servers)
        try:
            thread.call(background_worker.connect, timeout=background_worker.connect_timeout + GRACE_SECONDS)
        except ClientError as error:
            _log.info("No server can be reached of %r: %s", servers, error)
            return False
        return True

    def reconnect(self, new: NewWorker) -> None:
        """Replace the current background worker by another for the same servers."""
        background_worker, self.current = self.current, None
        if background_worker is not None:
            self._stop(background_worker)
            self._start(new, background_worker)

    def park(self, new: NewWorker) -> None:
        """Keep the current background worker for its job, and go on with another for the same servers."""
        background_worker, self.current = self.current, None
        if background_worker is not None:
            self.parked.append(background_worker)
            self._start(new, background_worker)

    def job_ended(self, running_job: RunningJob) -> None:
        """A job has its outcome: close the connections that were kept for it."""
        if running_job.worker in self.parked:
            self.parked.remove(running_job.worker)
            self._stop(running_job.worker)

    def call(self, function: Callable[[BackgroundWorker], object]) -> None:
        """Call a function with the current background worker, if there is one, in the background thread."""
        if self.current is not None:
            background_thread().call(partial(function, self.current), timeout=GRACE_SECONDS)

    def remove(self, connection: GearmanConnection) -> bool:
        """The program has closed a connection: go on without it.

        Args:
            connection: The closed connection.

        Returns:
            Whether none is left. The caller disconnects then.
        """
        if self.current is None or connection not in self.current.connections:
            return False
        self.current.connections.remove(connection)
        connection.on_close = None
        if not self.current.connections:
            return True
        self.reconnect_needed = True
        self._event_queue.wake()
        return False

    def disconnect(self) -> None:
        """Close all connections. Jobs without an outcome go back to their servers."""
        workers = [*self.parked, *([] if self.current is None else [self.current])]
        self.current, self.parked = None, []
        for background_worker in workers:
            for connection in background_worker.connections:
                connection.on_close = None
                connection.connected = False
            self._stop(background_worker)
        # Jobs that came meanwhile have gone back to their servers too.
        while self._event_queue.take() is not None:
            pass

    def _start(self, new: NewWorker, previous: BackgroundWorker) -> None:
        """Start a background worker in the place of another, without waiting for a connection."""
        thread = self._attach_event_queue()
        self.current = self._new(new, thread, previous.connections)
        self.current.holds_slots = previous.holds_slots
        thread.post(self.current.start)

    def _new(
        self, new: NewWorker, thread: BackgroundThread, servers: Sequence[GearmanConnection]
    ) -> BackgroundWorker:
        self.reconnect_needed = False
        return new(thread, servers)

    def _stop(self, background_worker: BackgroundWorker) -> None:
        if not background_worker.thread.alive:
            # This process is a fork, and the worker is the parent's. Or the background thread has ended.
            return
        background_worker.finalizer.detach()
        try:
            background_thread().call(background_worker.stop, timeout=GRACE_SECONDS)
        except ServerUnavailable as error:
            _log.info("%s", error)

    def _attach_event_queue(self) -> BackgroundThread:
        thread = background_thread()
        self._event_queue.reopen()
        thread.close_when_ended(self._event_queue)
        return thread
