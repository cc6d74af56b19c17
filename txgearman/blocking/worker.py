"""The blocking worker: runs tasks in the thread that calls `work`, and sends their reports.

The network is in the background thread: its connections in `worker_connections`, its jobs in
`background_worker`.
"""

from __future__ import annotations

import logging
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Final

from txgearman.blocking.background_thread import (
    CALL_TIMEOUT,
    GRACE_SECONDS,
    BackgroundThread,
    background_thread,
)
from txgearman.blocking.background_worker import BackgroundWorker, RunningJob
from txgearman.blocking.connection import GearmanConnection
from txgearman.blocking.connection_manager import GearmanConnectionManager, Servers
from txgearman.blocking.data_encoder import bytes_of, text_of
from txgearman.blocking.deadline import Deadline
from txgearman.blocking.errors import InvalidWorkerState, ServerUnavailable
from txgearman.blocking.event_queue import EventQueue
from txgearman.blocking.job import GearmanJob
from txgearman.blocking.name import Name
from txgearman.blocking.worker_connections import WorkerConnections
from txgearman.connection.arguments import function_bytes, name_bytes
from txgearman.errors import FailJob, GearmanError, JobCancelled, JobOver, Reject, Retry
from txgearman.wire.limits import MAX_CLIENT_ID

POLL_TIMEOUT_IN_SECONDS: Final = 60.0
"""Default of ``poll_timeout``: seconds without a job after which `GearmanWorker.after_poll` is called."""

Task = Callable[["GearmanWorker", GearmanJob], Any]
"""A task: takes the worker and the job, and returns the result."""

ExceptionInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]

_log = logging.getLogger(__name__)


class GearmanWorker(GearmanConnectionManager):
    """Runs tasks, one at a time, in the thread that calls `work`.

    Args:
        host_list: The servers, such as ``["localhost:4730"]``, or one as text.

    Attributes:
        worker_abilities: The registered tasks by name.
        worker_client_id: The name that servers show for this worker; None without one.
        command_handler_holding_job_lock: Not None while a job runs.
        heartbeat: Whether servers with a ``heartbeat`` are told of the job that runs, as long as the process
            lives. Set it in a subclass, or before `work`.
    """

    heartbeat = False

    def __init__(self, host_list: Servers | None = None) -> None:
        super().__init__(host_list)
        self.worker_abilities: dict[str, Task] = {}
        self.worker_client_id: str | bytes | None = None
        self.command_handler_holding_job_lock: object | None = None
        self._event_queue = EventQueue()
        self._work_lock = threading.Lock()
        self._poll_lock = threading.Lock()
        self._connections = WorkerConnections(self._event_queue)
        self._stopping = False
        # Its slot is released, so that the next job is grabbed, once `after_poll` has agreed.
        self._last_job: RunningJob | None = None

    # -- tasks ----------------------------------------------------------------------------------

    def register_task(self, task: str | bytes, callback_function: Task) -> str | bytes:
        """Offer a function to the servers. Can be called at any time, also to replace the callback.

        Args:
            task: The name of the function.
            callback_function: Called with this worker and the job. It returns the result; None is an empty
                one.

        Returns:
            `task`.
        """
        name = text_of(function_bytes(bytes_of(task)))
        is_new = name not in self.worker_abilities
        self.worker_abilities[name] = callback_function
        if is_new:
            self._connections.call(lambda background_worker: background_worker.register(bytes_of(name)))
        return task

    def unregister_task(self, task: str | bytes) -> str | bytes:
        """No longer offer a function. Does nothing if it is not registered.

        Args:
            task: The name of the function.

        Returns:
            `task`.
        """
        name = text_of(bytes_of(task))
        if self.worker_abilities.pop(name, None) is not None:
            self._connections.call(lambda background_worker: background_worker.unregister(bytes_of(name)))
        return task

    def set_client_id(self, client_id: str | bytes | None) -> str | bytes | None:
        """Set the name that servers show for this worker.

        While the worker works it reconnects for that, once the running job has ended.

        Args:
            client_id: The name, at most 127 bytes; None for no name.

        Returns:
            `client_id`.
        """
        if client_id is not None:
            name_bytes(bytes_of(client_id), "the client id", MAX_CLIENT_ID)
        self.worker_client_id = client_id
        self._connections.reconnect_needed = True
        self._event_queue.wake()
        return client_id

    # -- working --------------------------------------------------------------------------------

    def work(self, poll_timeout: float = POLL_TIMEOUT_IN_SECONDS) -> None:
        """Run jobs until `after_poll` or `after_job` returns False, or `shutdown` is called.

        A lost connection is made again.

        Args:
            poll_timeout: Seconds without a job after which `after_poll` is called. It is also called after
                each job.

        Raises:
            ServerUnavailable: No server can be reached at the start.
            InvalidWorkerState: The worker works already.
        """
        if not self._work_lock.acquire(blocking=False):
            raise InvalidWorkerState("the worker works already")
        try:
            go_on = True
            while go_on and not self._stopping:
                connections = self.establish_worker_connections()
                go_on = self.poll_connections_until_stopped(
                    connections, self._work_continues, timeout=poll_timeout
                )
        finally:
            try:
                self._disconnect()
            finally:
                self._stopping = False
                self._work_lock.release()

    def after_poll(self, any_activity: bool) -> bool:
        """Override this hook to be called at the start of `work`, and between jobs.

        It is also called after ``poll_timeout`` seconds without a job.

        Args:
            any_activity: Whether a job has run.

        Returns:
            False to end `work`.
        """
        return True

    def after_job(self) -> bool:
        """Override this hook to be called after each job, after `after_poll`.

        Returns:
            False to end `work`.
        """
        return True

    def shutdown(self) -> None:
        """Let `work` return after the running job, and close the connections.

        Can be called in a task, and in other threads. If the running job succeeds its result is still sent.
        If it fails it goes back to its server, which gives it to another worker.
        """
        self._stopping = True
        self._event_queue.wake()
        if not (self._work_lock.locked() or self._poll_lock.locked()):
            self._disconnect()
            self._stopping = False

    # -- for programs with a loop of their own in place of `work` -------------------------------

    def establish_worker_connections(self) -> list[GearmanConnection]:
        """Connect to the servers, if the worker is not connected yet.

        The worker then offers its tasks until all of these connections are closed, or `shutdown` is called.

        Returns:
            All of `connection_list` if at least one server can be reached: the others are tried again. An
            empty list if none can.
        """
        background_thread().refuse_in_own_thread()
        connections = self._connections
        if connections.current is not None and not connections.current.thread.alive:
            self._disconnect()
        if connections.current is None and self.connection_list:
            self._connect()
        return [] if connections.current is None else list(connections.current.connections)

    def poll_connections_until_stopped(
        self,
        submitted_connections: Iterable[GearmanConnection],
        callback_fxn: Callable[[bool], Any],
        timeout: float | None = None,
    ) -> bool:
        """Run jobs until the callback returns something false, or the time is over.

        If this raises anything, the connections are closed.

        Args:
            submitted_connections: Not used: jobs come from all connections of
                `establish_worker_connections`.
            callback_fxn: Called with False at the start. Called with True twice after each job: once while
                `has_job_lock` is true, and once when it is not.
            timeout: Seconds; None for no limit.

        Returns:
            Whether the time is over.

        Raises:
            ServerUnavailable: The worker has no connections.
            InvalidWorkerState: The worker runs jobs in another thread.
        """
        if not self._poll_lock.acquire(blocking=False):
            raise InvalidWorkerState("the worker works already")
        try:
            background_thread().refuse_in_own_thread()
            return self._run_jobs(callback_fxn, Deadline(timeout))
        except BaseException:
            self._disconnect()
            raise
        finally:
            self._poll_lock.release()
            if self._stopping and not self._work_lock.locked():
                self._disconnect()
                self._stopping = False

    def has_job_lock(self) -> bool:
        """Whether a job is running, or has just run."""
        return self.command_handler_holding_job_lock is not None

    # -- the steps of a job, to be overridden ---------------------------------------------------

    def on_job_execute(self, current_job: GearmanJob) -> bool:
        """Run the task of a job.

        It may raise `FailJob`, `Retry` and `Reject`. Every other exception goes to `on_job_exception`.

        Args:
            current_job: The job.

        Returns:
            Whether it succeeded.
        """
        try:
            task = self.worker_abilities.get(current_job.task or "")
            if task is None:
                raise InvalidWorkerState(f"the task {current_job.task!r} was unregistered")
            result = task(self, current_job)
        except (FailJob, Retry, Reject) as decision:
            _log.info("%r: %s: %s", current_job, type(decision).__name__, decision)
            self._decide(current_job, decision, None)
            return False
        except Exception:
            return self.on_job_exception(current_job, sys.exc_info())
        return self.on_job_complete(current_job, result)

    def on_job_exception(self, current_job: GearmanJob, exc_info: Any) -> bool:
        """The task raised: log that, and fail the job.

        Args:
            current_job: The job.
            exc_info: What `sys.exc_info` returns.

        Returns:
            False.
        """
        # What a task raises when it is stopped is no mistake of it.
        _log.log(
            logging.INFO if getattr(current_job, "cancelled", False) else logging.ERROR,
            "%r raised",
            current_job,
            exc_info=exc_info,
        )
        self.send_job_failure(current_job)
        return False

    def on_job_complete(self, current_job: GearmanJob, job_result: Any) -> bool:
        """The task returned: send the result.

        Args:
            current_job: The job.
            job_result: What the task returned.

        Returns:
            Whether the result could be encoded. If not, `on_job_exception` was called.
        """
        try:
            self.send_job_complete(current_job, job_result)
        except GearmanError:
            raise
        except Exception:
            # The data encoder cannot encode the result.
            return self.on_job_exception(current_job, sys.exc_info())
        return True

    # -- reports of a job -----------------------------------------------------------------------

    def send_job_status(
        self,
        current_job: GearmanJob,
        numerator: float,
        denominator: float,
        poll_timeout: float | None = None,
    ) -> None:
        """Report how much of a job is done.

        This method and the two below return when the connection takes more. Once the job has ended they do
        nothing but log that.

        Args:
            current_job: The job.
            numerator: How much; a fraction is cut off.
            denominator: Of how much; a fraction is cut off.
            poll_timeout: Seconds that the connection may take; None for 60.

        Raises:
            JobCancelled: The server has told the worker to stop the job.
            ServerUnavailable: The job's connection is lost, so its server gives the job to another worker. Or
                the connection took nothing for too long.
        """
        self._send(
            current_job,
            lambda running_job: running_job.job.send_status(int(numerator), int(denominator)),
            poll_timeout,
        )

    def send_job_data(self, current_job: GearmanJob, data: Any, poll_timeout: float | None = None) -> None:
        """Send a part of the result while the job runs.

        Args:
            current_job: The job.
            data: What the data encoder takes.
            poll_timeout: As for `send_job_status`.

        Raises:
            JobCancelled: As for `send_job_status`.
            ServerUnavailable: As for `send_job_status`.
        """
        encoded = self.encode_data(data)
        self._send(current_job, lambda running_job: running_job.send_data(encoded), poll_timeout)

    def send_job_warning(self, current_job: GearmanJob, data: Any, poll_timeout: float | None = None) -> None:
        """Send a warning.

        Args:
            current_job: The job.
            data: What the data encoder takes.
            poll_timeout: As for `send_job_status`.

        Raises:
            JobCancelled: As for `send_job_status`.
            ServerUnavailable: As for `send_job_status`.
        """
        encoded = self.encode_data(data)
        self._send(current_job, lambda running_job: running_job.send_warning(encoded), poll_timeout)

    def send_job_complete(
        self, current_job: GearmanJob, data: Any, poll_timeout: float | None = None
    ) -> None:
        """End a job with a result.

        If the job's connection is lost, or the job has ended, this method and the two below only log that.

        Args:
            current_job: The job.
            data: What the data encoder takes; None is an empty result.
            poll_timeout: Seconds that the background thread may take; None for 5.
        """
        encoded = self._encode_result(data)
        self._report(current_job, lambda running_job: running_job.complete(encoded), poll_timeout)

    def send_job_failure(self, current_job: GearmanJob, poll_timeout: float | None = None) -> None:
        """End a job as failed.

        Args:
            current_job: The job.
            poll_timeout: As for `send_job_complete`.
        """
        self._report(current_job, RunningJob.fail, poll_timeout, failed=True)

    def send_job_exception(
        self, current_job: GearmanJob, data: Any, poll_timeout: float | None = None
    ) -> None:
        """End a job as failed by an exception.

        Args:
            current_job: The job.
            data: What the submitter gets to know of the exception; what the data encoder takes.
            poll_timeout: As for `send_job_complete`.
        """
        encoded = self.encode_data(data)
        self._report(current_job, lambda running_job: running_job.fail(encoded), poll_timeout, failed=True)

    def send_job_retry(
        self,
        current_job: GearmanJob,
        delay: float | None = None,
        text: str = "",
        counts: bool = True,
        poll_timeout: float | None = None,
    ) -> None:
        """End a run, and have the job run again: what `Retry` does that a task raises.

        Args:
            current_job: The job.
            delay: Seconds until it is queued again; None for the backoff of its function.
            text: Why.
            counts: Whether the run counts as an attempt.
            poll_timeout: As for `send_job_complete`.
        """
        self._decide(current_job, Retry(delay, text, counts), poll_timeout)

    def send_job_reject(
        self, current_job: GearmanJob, text: str = "", poll_timeout: float | None = None
    ) -> None:
        """End a job that no retry can help: what `Reject` does that a task raises.

        Args:
            current_job: The job.
            text: Why.
            poll_timeout: As for `send_job_complete`.
        """
        self._decide(current_job, Reject(text), poll_timeout)

    def wait_until_updates_sent(
        self, multiple_gearman_jobs: Iterable[GearmanJob], poll_timeout: float | None = None
    ) -> None:
        """Do nothing: the methods above return when the connection takes more.

        Args:
            multiple_gearman_jobs: Not used.
            poll_timeout: Not used.
        """

    def _send(self, job: GearmanJob, send: Callable[[RunningJob], object], timeout: float | None) -> None:
        running_job = self._running_job_of(job)
        if running_job.reported:
            _log_late_report(job, running_job)
            return
        try:
            # A server that reads slowly makes this wait.
            self._call(partial(send, running_job), CALL_TIMEOUT if timeout is None else timeout)
        except JobCancelled:
            raise
        except JobOver:
            raise ServerUnavailable(f"the connection of {job!r} is lost") from None

    def _decide(
        self, job: GearmanJob, decision: FailJob | Retry | Reject, poll_timeout: float | None
    ) -> None:
        # A job that failed after a shutdown is another worker's; a retry and a rejection hold for all.
        failed = isinstance(decision, FailJob)
        self._report(job, lambda running_job: running_job.decide(decision), poll_timeout, failed)

    def _report(
        self,
        job: GearmanJob,
        report: Callable[[RunningJob], object],
        timeout: float | None,
        failed: bool = False,
    ) -> None:
        running_job = self._running_job_of(job)
        if running_job.reported:
            _log_late_report(job, running_job)
            return
        running_job.reported = True
        if running_job.job.cancelled:
            _log.info("%r was cancelled, its outcome is discarded", job)
        elif running_job.lost:
            _log.warning("The connection was lost while %r ran, its outcome is discarded", job)
        elif self._stopping and failed:
            _log.warning("%r goes back to its server: it failed after the shutdown of the worker", job)
        else:
            last = partial(running_job.report_without_next, report)
            self._call(last if self._stopping else partial(report, running_job), timeout)
        self._connections.job_ended(running_job)

    def _running_job_of(self, job: GearmanJob) -> RunningJob:
        running_job = getattr(job, "_running_job", None)
        if not isinstance(running_job, RunningJob):
            raise InvalidWorkerState(f"this worker was not given the job {job!r}")
        return running_job

    def _encode_result(self, result: Any) -> bytes:
        try:
            return self.encode_data(result)
        except (TypeError, ValueError, AttributeError):
            if result is None:
                return b""
            raise

    # -- the loop -------------------------------------------------------------------------------

    def _run_jobs(self, callback: Callable[[bool], Any], deadline: Deadline) -> bool:
        """Run jobs until the deadline. Returns whether the deadline ended that, and not the program."""
        connections = self._connections
        go_on = not self._stopping and bool(callback(False))
        if connections.current is not None:
            # A program that may stop after each job must not be assigned another that it will not run.
            connections.current.holds_slots = callback != self._work_continues or self._overrides_hooks
        while go_on:
            changes = self._event_queue.changes
            event = self._event_queue.take()
            if connections.current is None:
                raise ServerUnavailable(f"the worker is not connected to any of {self._server_names}")
            if event is not None:
                event()
                if self.has_job_lock():
                    go_on = self._continues(callback)
                    self.command_handler_holding_job_lock = None
                go_on = go_on and self._continues(callback)
                if go_on and self._last_job is not None:
                    background_thread().post(self._last_job.release_slot)
            elif self._stopping:
                # The wait below would miss a wake-up from before `changes` was read.
                go_on = False
            elif connections.reconnect_needed:
                connections.reconnect(self._new_background_worker)
            else:
                with connections.current.thread.loan.waiting():
                    if not self._event_queue.wait(changes, deadline):
                        return True
        return False

    def _continues(self, callback: Callable[[bool], Any]) -> bool:
        return not self._stopping and bool(callback(True))

    def _work_continues(self, any_activity: bool) -> bool:
        """The callback of `work`: asks the hooks whether to go on."""
        if self.has_job_lock():
            return True
        return bool(self.after_poll(any_activity)) and (not any_activity or bool(self.after_job()))

    @property
    def _overrides_hooks(self) -> bool:
        """Whether the program overrides a hook that can end `work` after each job."""
        ours = (GearmanWorker.after_poll, GearmanWorker.after_job)
        return tuple(getattr(hook, "__func__", None) for hook in (self.after_poll, self.after_job)) != ours

    def _execute(self, running_job: RunningJob) -> None:
        self._last_job = running_job
        if running_job.lost:
            return
        self.command_handler_holding_job_lock = running_job
        job = self.job_class(
            running_job.connection,
            Name.of(running_job.job.handle),
            Name.of(running_job.job.function),
            Name.of(running_job.job.unique),
            None,
        )
        job._running_job = running_job
        job.attempt, job.losses = running_job.job.attempt, running_job.job.losses
        job.traceparent = running_job.job.traceparent
        try:
            job.data = self.decode_data(running_job.job.data)
        except Exception:
            job.data = running_job.job.data
            self.on_job_exception(job, sys.exc_info())
        else:
            self.on_job_execute(job)
        if not running_job.reported and not running_job.lost:
            _log.warning("%r was left without an outcome", job)
            self._last_job = None
            self._connections.park(self._new_background_worker)

    # -- connections ----------------------------------------------------------------------------

    def _connect(self) -> None:
        """Connect, if at least one server can be reached."""
        connected = False
        try:
            connected = self._connections.connect(self._new_background_worker, self.connection_list)
        finally:
            if not connected:
                self._disconnect()

    def _connection_closed(self, connection: GearmanConnection) -> None:
        if self._connections.remove(connection):
            self._disconnect()

    def _new_background_worker(
        self, thread: BackgroundThread, servers: Sequence[GearmanConnection]
    ) -> BackgroundWorker:
        client_id = None if self.worker_client_id is None else bytes_of(self.worker_client_id)
        names = [bytes_of(name) for name in self.worker_abilities]
        # By a weak reference: a program may drop its worker without a shutdown.
        worker = weakref.ref(self)
        background_worker = BackgroundWorker(
            thread, servers, names, client_id, partial(_job_received, worker), bool(self.heartbeat)
        )
        background_worker.finalizer = weakref.finalize(self, thread.post, background_worker.stop)
        background_worker.finalizer.atexit = False
        for connection in servers:
            connection.on_close = partial(_connection_closed, worker)
        return background_worker

    def _disconnect(self) -> None:
        self._last_job = None
        self.command_handler_holding_job_lock = None
        self._connections.disconnect()

    def _call(self, function: Callable[[], Any], timeout: float | None) -> None:
        limit = GRACE_SECONDS if timeout is None else timeout
        background_thread().call(function, timeout=limit)


def _job_received(worker: weakref.ref[GearmanWorker], running_job: RunningJob) -> None:
    """A job was assigned. Called in the background thread."""
    receiver = worker()
    if receiver is not None:
        receiver._event_queue.put(partial(receiver._execute, running_job))


def _connection_closed(worker: weakref.ref[GearmanWorker], connection: GearmanConnection) -> None:
    receiver = worker()
    if receiver is not None:
        receiver._connection_closed(connection)


def _log_late_report(job: GearmanJob, running_job: RunningJob) -> None:
    """Log, once a job, that a report came after its outcome. Servers refuse such reports."""
    if not running_job.late_report_logged:
        running_job.late_report_logged = True
        _log.warning("%r has ended: its later reports are not sent", job)
