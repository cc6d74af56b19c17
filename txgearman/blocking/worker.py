"""The blocking worker: runs tasks in the thread that calls `work`, and sends what they say.

The network is in the background thread, in `duty`.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterable
from functools import partial
from types import TracebackType
from typing import Any, Final

from txgearman.blocking.background import CALL_SECONDS, SLACK_SECONDS, Background, background
from txgearman.blocking.connection_manager import GearmanConnectionManager, Server
from txgearman.blocking.data_encoder import bytes_of, text_of
from txgearman.blocking.deadline import Deadline
from txgearman.blocking.duty import Duty, Run
from txgearman.blocking.errors import InvalidWorkerState, ServerUnavailable
from txgearman.blocking.inbox import Inbox
from txgearman.blocking.job import GearmanJob
from txgearman.connection.arguments import function_bytes, name_bytes
from txgearman.errors import ClientError, JobOver
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
        self.worker_client_id: str | None = None
        self._inbox = Inbox()
        self._working = threading.Lock()
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

    def set_client_id(self, client_id: str | None) -> str | None:
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
        """Run jobs until `after_poll` returns False, or `shutdown` is called.

        `after_poll` is called after each job, and after `poll_timeout` seconds without one. A connection
        that is lost is made again. Raises `ServerUnavailable` if at the start no server can be reached,
        and `InvalidWorkerState` if the worker works already.
        """
        if not self._working.acquire(blocking=False):
            raise InvalidWorkerState("the worker works already")
        try:
            background().refuse_inside()
            self._stopping = False
            self._begin()
            while self._round(Deadline(poll_timeout)):
                pass
        finally:
            try:
                self._end()
            finally:
                self._working.release()

    def after_poll(self, any_activity: bool) -> bool:
        """Called between jobs, to be overridden; `any_activity` says whether a job has run.

        Return True to go on, and False to end `work`.
        """
        return True

    def shutdown(self) -> None:
        """Let `work` return after the job that runs. Can be called in a task, and in other threads."""
        self._stopping = True
        self._inbox.wake()

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
        except (TypeError, ValueError):
            # The result is none that can be sent.
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
        server then gives the job to another worker, and `InvalidWorkerState` once the job has ended.
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
        """End the job with a result. This and the two below do nothing where the connection is lost."""
        encoded = self._encode_result(data)
        self._report(current_job, lambda run: run.complete(encoded), poll_timeout)

    def send_job_failure(self, current_job: GearmanJob, poll_timeout: float | None = None) -> None:
        """End the job as failed."""
        self._report(current_job, Run.fail, poll_timeout)

    def send_job_exception(
        self, current_job: GearmanJob, data: Any, poll_timeout: float | None = None
    ) -> None:
        """End the job as failed by an exception, of which `data` tells the submitter."""
        encoded = self.encode_data(data)
        self._report(current_job, lambda run: run.fail(encoded), poll_timeout)

    def wait_until_updates_sent(
        self, multiple_gearman_jobs: Iterable[GearmanJob], poll_timeout: float | None = None
    ) -> None:
        """Nothing to wait for: the methods above return when all is sent."""

    def _send(self, job: GearmanJob, send: Callable[[Run], object], timeout: float | None) -> None:
        run = self._run_of(job)
        if run.reported:
            raise InvalidWorkerState(f"the job has ended: {job!r}")
        try:
            # The server may be slow to take it.
            self._call(partial(send, run), CALL_SECONDS if timeout is None else timeout)
        except JobOver:
            raise ServerUnavailable(f"the connection of {job!r} is lost") from None

    def _report(self, job: GearmanJob, report: Callable[[Run], object], timeout: float | None) -> None:
        run = self._run_of(job)
        if run.reported:
            raise InvalidWorkerState(f"the job has ended: {job!r}")
        run.reported = True
        if self._stopping:
            report = partial(_report_the_last, report)
        if run.lost:
            _log.warning("The connection was lost while %r ran, its outcome is discarded", job)
            return
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

    def _round(self, deadline: Deadline) -> bool:
        """Run jobs until the deadline; returns whether to go on."""
        go_on = self._goes_on(False)
        while go_on:
            changes = self._inbox.changes
            event = self._inbox.take()
            if event is not None:
                event()
                go_on = self._goes_on(True)
                if go_on and self._last is not None:
                    background().post(self._last.go_on)
            elif self._stopping:
                # A wake ahead of `changes` would not be seen below.
                go_on = False
            elif self._renew:
                self._replace()
            elif not self._inbox.wait(changes, deadline):
                return True
        return False

    def _goes_on(self, any_activity: bool) -> bool:
        return not self._stopping and bool(self.after_poll(any_activity))

    def _begin(self) -> None:
        running = self._listen()
        if not self.connection_list:
            raise ServerUnavailable("the worker has no servers")
        self._duty = self._new_duty(running)
        try:
            running.call(self._duty.start, timeout=self._duty.start_limit + SLACK_SECONDS)
        except ClientError as error:
            raise ServerUnavailable(f"no server can be reached of {self.connection_list!r}") from error

    def _replace(self) -> None:
        """Go on with connections of their own, made as it goes."""
        duty, self._duty = self._duty, None
        if duty is not None:
            self._stop(duty)
        self._duty = self._new_duty(self._listen())
        background().post(self._duty.begin)

    def _end(self) -> None:
        duties = [*self._parked, *([] if self._duty is None else [self._duty])]
        self._duty, self._parked = None, []
        for duty in duties:
            self._stop(duty)
        # What came in between is with the server again.
        while self._inbox.take() is not None:
            pass

    def _stop(self, duty: Duty) -> None:
        try:
            self._call(duty.stop, None)
        except ServerUnavailable as error:
            _log.info("%s", error)

    def _listen(self) -> Background:
        running = background()
        self._inbox.reopen()
        running.watch(self._inbox)
        return running

    def _new_duty(self, running: Background) -> Duty:
        self._renew = False
        client_id = None if self.worker_client_id is None else bytes_of(self.worker_client_id)
        names = [bytes_of(name) for name in self.worker_abilities]
        # A worker that decides after each job whether to go on must not be given one that it will not run.
        hold = getattr(self.after_poll, "__func__", None) is not GearmanWorker.after_poll
        return Duty(running.reactor, self.connection_list, names, client_id, self._arrived, hold)

    def _arrived(self, run: Run) -> None:
        """In the background thread: a job has come."""
        self._inbox.post(partial(self._execute, run))

    def _execute(self, run: Run) -> None:
        self._last = run
        if run.lost:
            return
        job = self.job_class(
            run.connection, text_of(run.job.handle), text_of(run.job.function), text_of(run.job.unique), None
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
        self._replace()

    # -- the background thread ------------------------------------------------------------------

    def _tell(self, tell: Callable[[Duty], object]) -> None:
        duty = self._duty
        if duty is not None:
            self._call(partial(tell, duty), None)

    def _call(self, function: Callable[[], Any], timeout: float | None) -> None:
        limit = SLACK_SECONDS if timeout is None else timeout
        background().call(function, timeout=limit)


def _report_the_last(report: Callable[[Run], object], run: Run) -> None:
    """Report how a job has ended, behind which no other is wanted."""
    run.hold()
    report(run)
