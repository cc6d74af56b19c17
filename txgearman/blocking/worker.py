"""The blocking worker: runs tasks in the thread that calls `work`, and sends what they say.

The network is in the background thread, in `duty`.
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
from txgearman.blocking.connection import GearmanConnection
from txgearman.blocking.connection_manager import GearmanConnectionManager, Server
from txgearman.blocking.data_encoder import bytes_of, text_of
from txgearman.blocking.deadline import Deadline
from txgearman.blocking.duty import Duty, Run
from txgearman.blocking.errors import InvalidWorkerState, ServerUnavailable
from txgearman.blocking.inbox import Inbox
from txgearman.blocking.job import GearmanJob
from txgearman.blocking.name import Name
from txgearman.connection.arguments import function_bytes, name_bytes
from txgearman.errors import ClientError, GearmanError, JobOver
from txgearman.wire.limits import MAX_CLIENT_ID

POLL_TIMEOUT_IN_SECONDS: Final = 60.0
"""Seconds without a job after which `GearmanWorker.after_poll` is called, if nothing else is said."""

Task = Callable[["GearmanWorker", GearmanJob], Any]
"""What can be registered: takes the worker and the job, and returns the result."""

ExceptionInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]

_log = logging.getLogger(__name__)


class GearmanWorker(GearmanConnectionManager):
    """Runs tasks for the servers of `host_list`, one at a time, in the thread that calls `work`.

    `worker_abilities` are the registered tasks by name, `worker_client_id` the name set.
    """

    def __init__(self, host_list: Iterable[Server] | None = None) -> None:
        super().__init__(host_list)
        self.worker_abilities: dict[str, Task] = {}
        self.worker_client_id: str | bytes | None = None
        self.command_handler_holding_job_lock: object | None = None
        """Not None while a job runs."""
        self._inbox = Inbox()
        self._working = threading.Lock()
        self._polling = threading.Lock()
        self._duty: Duty | None = None
        # Those whose job was left open, each with its connections.
        self._parked: list[Duty] = []
        self._renew = False
        self._stopping = False
        # The job behind which the next is asked for when `after_poll` has agreed.
        self._last: Run | None = None

    # -- tasks ----------------------------------------------------------------------------------

    def register_task(self, task: str | bytes, callback_function: Task) -> str | bytes:
        """Run jobs of the function `task` by calling `callback_function` with this worker and the job.

        What it returns is the result, None an empty one. A task that is registered already gets another
        function. Can be called at any time. Returns `task`.
        """
        name = text_of(function_bytes(bytes_of(task)))
        is_new = name not in self.worker_abilities
        self.worker_abilities[name] = callback_function
        if is_new:
            self._tell(lambda duty: duty.offer(bytes_of(name)))
        return task

    def unregister_task(self, task: str | bytes) -> str | bytes:
        """Take no more jobs of `task`, if it is registered. Returns `task`."""
        name = text_of(bytes_of(task))
        if self.worker_abilities.pop(name, None) is not None:
            self._tell(lambda duty: duty.withdraw(bytes_of(name)))
        return task

    def set_client_id(self, client_id: str | bytes | None) -> str | bytes | None:
        """The name, of at most 127 bytes, that servers show for this worker. Returns it.

        While the worker works, this connects again, when the job that runs has ended.
        """
        if client_id is not None:
            name_bytes(bytes_of(client_id), "the client id", MAX_CLIENT_ID)
        self.worker_client_id = client_id
        self._renew = True
        self._inbox.wake()
        return client_id

    # -- working --------------------------------------------------------------------------------

    def work(self, poll_timeout: float = POLL_TIMEOUT_IN_SECONDS) -> None:
        """Run jobs until `after_poll` or `after_job` returns False, or `shutdown` is called.

        `after_poll` is called after each job, and after `poll_timeout` seconds without one. A connection
        that is lost is made again. Raises `ServerUnavailable` if at the start no server can be reached,
        and `InvalidWorkerState` if the worker works already.
        """
        if not self._working.acquire(blocking=False):
            raise InvalidWorkerState("the worker works already")
        try:
            go_on = True
            while go_on and not self._stopping:
                connections = self.establish_worker_connections()
                go_on = self.poll_connections_until_stopped(
                    connections, self._is_to_go_on, timeout=poll_timeout
                )
        finally:
            try:
                self._end()
            finally:
                self._stopping = False
                self._working.release()

    def after_poll(self, any_activity: bool) -> bool:
        """Called between jobs, to be overridden; `any_activity` says whether a job has run.

        Return True to go on, and False to end `work`.
        """
        return True

    def after_job(self) -> bool:
        """Called after each job, behind `after_poll`, to be overridden. Return False to end `work`."""
        return True

    def shutdown(self) -> None:
        """Let `work` return after the job that runs, and close the connections.

        Can be called in a task, and in other threads. A job that fails from now on goes back to its server,
        for another worker; a result is still sent.
        """
        self._stopping = True
        self._inbox.wake()
        if not (self._working.locked() or self._polling.locked()):
            self._end()
            self._stopping = False

    # -- for programs with a loop of their own in place of `work` -------------------------------

    def establish_worker_connections(self) -> list[GearmanConnection]:
        """Connect to the servers, if the worker is not connected yet, and return its connections.

        That is all of `connection_list` if one server at least can be reached, as the others are tried
        again, and as what is lost comes back; or nothing if none can. The worker offers its tasks until
        each of these connections is closed, or `shutdown` is called.
        """
        background_thread().refuse_in_own_thread()
        if self._duty is not None and not self._duty.thread.alive:
            self._end()
        if self._duty is None and self.connection_list:
            self._begin()
        return [] if self._duty is None else list(self._duty.connections)

    def poll_connections_until_stopped(
        self,
        submitted_connections: Iterable[GearmanConnection],
        callback_fxn: Callable[[bool], Any],
        timeout: float | None = None,
    ) -> bool:
        """Run jobs until `callback_fxn` returns something false, or for `timeout` seconds.

        `callback_fxn` is called at the start with False, and with True twice after each job: once while
        `has_job_lock` is true, and once when it is not. Returns True if the time is over. Jobs come from
        all connections of `establish_worker_connections`, whatever `submitted_connections` are. Raises
        `ServerUnavailable` if the worker has no connections, and `InvalidWorkerState` if it runs jobs in
        another thread. Whatever this raises, the connections are closed.
        """
        if not self._polling.acquire(blocking=False):
            raise InvalidWorkerState("the worker works already")
        try:
            background_thread().refuse_in_own_thread()
            return self._run_jobs(callback_fxn, Deadline(timeout))
        except BaseException:
            self._end()
            raise
        finally:
            self._polling.release()
            if self._stopping and not self._working.locked():
                self._end()
                self._stopping = False

    def has_job_lock(self) -> bool:
        """Whether a job is running, or has just run."""
        return self.command_handler_holding_job_lock is not None

    # -- what a job goes through, to be overridden ----------------------------------------------

    def on_job_execute(self, current_job: GearmanJob) -> bool:
        """A job is there: run its task. Returns whether it went well."""
        try:
            task = self.worker_abilities.get(current_job.task or "")
            if task is None:
                raise InvalidWorkerState(f"the task {current_job.task!r} was unregistered")
            result = task(self, current_job)
        except Exception:
            return self.on_job_exception(current_job, sys.exc_info())
        return self.on_job_complete(current_job, result)

    def on_job_exception(self, current_job: GearmanJob, exc_info: Any) -> bool:
        """The task raised: log that, and fail the job. `exc_info` is as of `sys.exc_info`."""
        _log.error("%r raised", current_job, exc_info=exc_info)
        self.send_job_failure(current_job)
        return False

    def on_job_complete(self, current_job: GearmanJob, job_result: Any) -> bool:
        """The task returned: send the result."""
        try:
            self.send_job_complete(current_job, job_result)
        except GearmanError:
            raise
        except Exception:
            # The result is none that the data encoder can take.
            return self.on_job_exception(current_job, sys.exc_info())
        return True

    # -- what a job says ------------------------------------------------------------------------

    def send_job_status(
        self,
        current_job: GearmanJob,
        numerator: float,
        denominator: float,
        poll_timeout: float | None = None,
    ) -> None:
        """Say that `numerator` of `denominator` is done: whole numbers; of others the fraction is cut off.

        This and the methods below return when the connection takes more, and may take `poll_timeout`
        seconds, 60 without one. They raise `ServerUnavailable` once the job's connection is lost, as the
        server then gives the job to another worker. Once the job has ended they do nothing but log that.
        """
        self._send(
            current_job, lambda run: run.job.send_status(int(numerator), int(denominator)), poll_timeout
        )

    def send_job_data(self, current_job: GearmanJob, data: Any, poll_timeout: float | None = None) -> None:
        """Send a part of the result ahead of its end."""
        encoded = self.encode_data(data)
        self._send(current_job, lambda run: run.send_data(encoded), poll_timeout)

    def send_job_warning(self, current_job: GearmanJob, data: Any, poll_timeout: float | None = None) -> None:
        """Send a warning."""
        encoded = self.encode_data(data)
        self._send(current_job, lambda run: run.send_warning(encoded), poll_timeout)

    def send_job_complete(
        self, current_job: GearmanJob, data: Any, poll_timeout: float | None = None
    ) -> None:
        """End the job with a result.

        This and the two below do nothing but log it where the connection is lost, or the job has ended.
        """
        encoded = self._encode_result(data)
        self._report(current_job, lambda run: run.complete(encoded), poll_timeout)

    def send_job_failure(self, current_job: GearmanJob, poll_timeout: float | None = None) -> None:
        """End the job as failed."""
        self._report(current_job, Run.fail, poll_timeout, failed=True)

    def send_job_exception(
        self, current_job: GearmanJob, data: Any, poll_timeout: float | None = None
    ) -> None:
        """End the job as failed by an exception, of which `data` tells the submitter."""
        encoded = self.encode_data(data)
        self._report(current_job, lambda run: run.fail(encoded), poll_timeout, failed=True)

    def wait_until_updates_sent(
        self, multiple_gearman_jobs: Iterable[GearmanJob], poll_timeout: float | None = None
    ) -> None:
        """Nothing to wait for: the methods above return when all is sent."""

    def _send(self, job: GearmanJob, send: Callable[[Run], object], timeout: float | None) -> None:
        run = self._run_of(job)
        if run.reported:
            _drop_late(job, run)
            return
        try:
            # The server may be slow to take it.
            self._call(partial(send, run), CALL_TIMEOUT if timeout is None else timeout)
        except JobOver:
            raise ServerUnavailable(f"the connection of {job!r} is lost") from None

    def _report(
        self, job: GearmanJob, report: Callable[[Run], object], timeout: float | None, failed: bool = False
    ) -> None:
        run = self._run_of(job)
        if run.reported:
            _drop_late(job, run)
            return
        run.reported = True
        if run.lost:
            _log.warning("The connection was lost while %r ran, its outcome is discarded", job)
        elif self._stopping and failed:
            _log.warning("%r goes back to its server: it failed after the shutdown of the worker", job)
        else:
            report = partial(_report_the_last, report) if self._stopping else report
            self._call(partial(report, run), timeout)
        if run.duty in self._parked:
            self._parked.remove(run.duty)
            self._stop(run.duty)

    def _run_of(self, job: GearmanJob) -> Run:
        run = getattr(job, "_run", None)
        if not isinstance(run, Run):
            raise InvalidWorkerState(f"the job is none that this worker was given: {job!r}")
        return run

    def _encode_result(self, result: Any) -> bytes:
        try:
            return self.encode_data(result)
        except (TypeError, ValueError, AttributeError):
            if result is None:
                return b""
            raise

    # -- the loop -------------------------------------------------------------------------------

    def _run_jobs(self, callback: Callable[[bool], Any], deadline: Deadline) -> bool:
        """Run jobs until the deadline; returns whether to go on."""
        go_on = not self._stopping and bool(callback(False))
        if self._duty is not None:
            # Whoever decides after each job whether to go on must not be given one that will not be run.
            self._duty.hold = callback != self._is_to_go_on or self._decides
        while go_on:
            changes = self._inbox.changes
            event = self._inbox.take()
            if self._duty is None:
                raise ServerUnavailable(f"the worker is not connected to any of {self.connection_list!r}")
            if event is not None:
                event()
                if self.has_job_lock():
                    go_on = self._asks_to_go_on(callback)
                    self.command_handler_holding_job_lock = None
                go_on = go_on and self._asks_to_go_on(callback)
                if go_on and self._last is not None:
                    background_thread().post(self._last.go_on)
            elif self._stopping:
                # A wake ahead of `changes` would not be seen below.
                go_on = False
            elif self._renew:
                duty, self._duty = self._duty, None
                self._stop(duty)
                self._go_on_like(duty)
            elif not self._inbox.wait(changes, deadline):
                return True
        return False

    def _asks_to_go_on(self, callback: Callable[[bool], Any]) -> bool:
        return not self._stopping and bool(callback(True))

    def _is_to_go_on(self, any_activity: bool) -> bool:
        """What `work` does between jobs."""
        if self.has_job_lock():
            return True
        return bool(self.after_poll(any_activity)) and (not any_activity or bool(self.after_job()))

    @property
    def _decides(self) -> bool:
        """Whether the program has a say in going on after each job."""
        ours = (GearmanWorker.after_poll, GearmanWorker.after_job)
        return tuple(getattr(hook, "__func__", None) for hook in (self.after_poll, self.after_job)) != ours

    def _begin(self) -> None:
        """Connect, if one server can be reached."""
        thread = self._listen()
        duty = self._duty = self._new_duty(thread, self.connection_list)
        try:
            thread.call(duty.start, timeout=duty.start_limit + GRACE_SECONDS)
        except BaseException as error:
            self._end()
            if not isinstance(error, ClientError):
                raise
            _log.info("No server can be reached of %r: %s", self.connection_list, error)

    def _go_on_like(self, duty: Duty) -> None:
        """Go on with connections to the same servers, which are made as it goes."""
        self._duty = self._new_duty(self._listen(), duty.connections)
        self._duty.hold = duty.hold
        background_thread().post(self._duty.begin)

    def _closed(self, connection: GearmanConnection) -> None:
        """The program has closed a connection: go on without it."""
        duty = self._duty
        if duty is None or connection not in duty.connections:
            return
        duty.connections.remove(connection)
        connection.on_close = None
        if duty.connections:
            self._renew = True
            self._inbox.wake()
        else:
            self._end()

    def _end(self) -> None:
        """Close the connections; jobs that are not reported go back to their servers."""
        duties = [*self._parked, *([] if self._duty is None else [self._duty])]
        self._duty, self._parked, self._last = None, [], None
        self.command_handler_holding_job_lock = None
        for duty in duties:
            for connection in duty.connections:
                connection.on_close = None
                connection.connected = False
            self._stop(duty)
        # What came in between is with the server again.
        while self._inbox.take() is not None:
            pass

    def _stop(self, duty: Duty) -> None:
        if not duty.thread.alive:
            # It is the parent's, of which this process is a fork.
            return
        duty.forgotten.detach()
        try:
            self._call(duty.stop, None)
        except ServerUnavailable as error:
            _log.info("%s", error)

    def _listen(self) -> BackgroundThread:
        thread = background_thread()
        self._inbox.reopen()
        thread.close_when_ended(self._inbox)
        return thread

    def _new_duty(self, thread: BackgroundThread, connections: Sequence[GearmanConnection]) -> Duty:
        self._renew = False
        client_id = None if self.worker_client_id is None else bytes_of(self.worker_client_id)
        names = [bytes_of(name) for name in self.worker_abilities]
        # Weakly, so that a program may forget its worker without a shutdown.
        worker = weakref.ref(self)
        duty = Duty(thread, connections, names, client_id, partial(_arrived, worker))
        duty.forgotten = weakref.finalize(self, thread.post, duty.stop)
        duty.forgotten.atexit = False
        for connection in connections:
            connection.on_close = partial(_closed, worker)
        return duty

    def _execute(self, run: Run) -> None:
        self._last = run
        if run.lost:
            return
        self.command_handler_holding_job_lock = run
        job = self.job_class(
            run.connection, Name.of(run.job.handle), Name.of(run.job.function), Name.of(run.job.unique), None
        )
        job._run = run
        try:
            job.data = self.decode_data(run.job.data)
        except Exception:
            job.data = run.job.data
            self.on_job_exception(job, sys.exc_info())
        else:
            self.on_job_execute(job)
        if not run.reported and not run.lost:
            self._park(job)

    def _park(self, job: GearmanJob) -> None:
        """The job was left open, to be ended later or never: leave it its connection, and go on."""
        _log.warning("%r was left without an end", job)
        duty, self._duty, self._last = self._duty, None, None
        if duty is not None:
            self._parked.append(duty)
            self._go_on_like(duty)

    # -- the background thread ------------------------------------------------------------------

    def _tell(self, tell: Callable[[Duty], object]) -> None:
        duty = self._duty
        if duty is not None:
            self._call(partial(tell, duty), None)

    def _call(self, function: Callable[[], Any], timeout: float | None) -> None:
        limit = GRACE_SECONDS if timeout is None else timeout
        background_thread().call(function, timeout=limit)


def _arrived(worker: weakref.ref[GearmanWorker], run: Run) -> None:
    """In the background thread: a job has come."""
    alive = worker()
    if alive is not None:
        alive._inbox.post(partial(alive._execute, run))


def _closed(worker: weakref.ref[GearmanWorker], connection: GearmanConnection) -> None:
    alive = worker()
    if alive is not None:
        alive._closed(connection)


def _drop_late(job: GearmanJob, run: Run) -> None:
    """Something was said of a job that has ended, which servers refuse: log that, the first time."""
    if not run.told_late:
        run.told_late = True
        _log.warning("%r has ended: what is said of it now is not sent", job)


def _report_the_last(report: Callable[[Run], object], run: Run) -> None:
    """Report how a job has ended, behind which no other is wanted."""
    run.hold()
    report(run)
