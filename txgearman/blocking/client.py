"""The blocking client: which server a job goes to, and waiting. `submission` has what becomes of requests."""

from __future__ import annotations

import logging
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Any, Final

from txgearman.blocking import errors
from txgearman.blocking.background_thread import BackgroundThread, background_thread
from txgearman.blocking.connection import CONNECT_TIMEOUT, GearmanConnection
from txgearman.blocking.connection_manager import GearmanConnectionManager, Server
from txgearman.blocking.constants import (
    JOB_PENDING,
    JOB_UNKNOWN,
    PRIORITY_HIGH,
    PRIORITY_LOW,
    PRIORITY_NONE,
)
from txgearman.blocking.data_encoder import bytes_of
from txgearman.blocking.deadline import Deadline
from txgearman.blocking.errors import (
    ExceededConnectionAttempts,
    InvalidClientState,
    ServerUnavailable,
)
from txgearman.blocking.event_queue import EventQueue
from txgearman.blocking.job import GearmanJobRequest
from txgearman.blocking.name import Name
from txgearman.blocking.submission import JobKey, PendingRequests, Submission, status_of
from txgearman.client import JobStatus, Priority
from txgearman.client.hashing import score
from txgearman.connection.arguments import check_count, function_bytes, name_bytes
from txgearman.wire.limits import MAX_HANDLE, MAX_UNIQUE

RANDOM_UNIQUE_BYTES: Final = 16
"""Random bytes in the unique of a job that was given none."""

COOLDOWN_SECONDS: Final = 1.0
"""Seconds for which a server that could not be reached comes last in the choice of one."""

_PRIORITIES: Final = {
    PRIORITY_NONE: Priority.NORMAL,
    PRIORITY_LOW: Priority.LOW,
    PRIORITY_HIGH: Priority.HIGH,
}

_log = logging.getLogger(__name__)

Requests = Collection[GearmanJobRequest]


class GearmanClient(GearmanConnectionManager):
    """Submits jobs to the servers of `host_list`, and waits for them.

    `host_list` is a list of servers such as ``"localhost:4730"``. A job without a unique gets a random
    one of `random_unique_bytes` bytes.

    All `poll_timeout` are in seconds, None for no limit. When one is over, nothing is raised: the
    requests that are not ready say so by `timed_out`, and can be waited for again. Methods that wait
    raise `ServerUnavailable` when no server can be reached, `ExceededConnectionAttempts` when a job could
    not be handed over in as many attempts as it has, and what the `data_encoder` raises.

    Threads may share a client.
    """

    def __init__(
        self, host_list: Iterable[Server] | None = None, random_unique_bytes: int = RANDOM_UNIQUE_BYTES
    ) -> None:
        super().__init__(host_list)
        self.random_unique_bytes = random_unique_bytes
        self._event_queue = EventQueue()
        self._heard: BackgroundThread | None = None
        self._limit = threading.local()
        self._pending = PendingRequests()
        self.request_to_rotating_connection_queue: weakref.WeakKeyDictionary[GearmanJobRequest, Any] = (
            weakref.WeakKeyDictionary()
        )
        """Always empty, for programs that take their requests out of it when these are done."""

    # -- submitting -----------------------------------------------------------------------------

    def submit_job(
        self,
        task: str | bytes,
        data: Any,
        unique: str | bytes | None = None,
        priority: str | None = PRIORITY_NONE,
        background: bool = False,
        wait_until_complete: bool = True,
        max_retries: int = 0,
        poll_timeout: float | None = None,
    ) -> GearmanJobRequest:
        """Submit one job, and wait until it is accepted; with `wait_until_complete` until it has ended.

        `task` is the name of its function, `data` its input for the `data_encoder`. With a `unique` the
        submission joins a job of the function that the server has under this key. An offline job,
        `background`, is complete when it is accepted. A server that is lost before it has accepted the job
        is replaced by another up to `max_retries` times. Returns the request.
        """
        job = {"task": task, "data": data, "unique": unique, "priority": priority}
        (request,) = self.submit_multiple_jobs(
            [job], background, wait_until_complete, max_retries, poll_timeout
        )
        return request

    def submit_multiple_jobs(
        self,
        jobs_to_submit: Collection[dict[str, Any]],
        background: bool = False,
        wait_until_complete: bool = True,
        max_retries: int = 0,
        poll_timeout: float | None = None,
    ) -> list[GearmanJobRequest]:
        """Submit many jobs, dictionaries with ``task``, ``data`` and, if wanted, ``unique`` and ``priority``.

        Everything else is as with `submit_job`. Returns the requests in the order of the jobs.
        """
        _check_several(jobs_to_submit)
        requests = [self._new_request(job, background, max_retries) for job in jobs_to_submit]
        self.submit_multiple_requests(requests, wait_until_complete, poll_timeout)
        return requests

    def submit_multiple_requests(
        self,
        job_requests: Requests,
        wait_until_complete: bool = True,
        poll_timeout: float | None = None,
    ) -> Requests:
        """Submit requests that have not been, or whose connection was lost, and wait as `submit_job` does.

        Returns them. Look at `timed_out` and `state` of each.
        """
        _check_several(job_requests)
        deadline = Deadline(poll_timeout)
        self.wait_until_jobs_accepted(job_requests, deadline.remaining())
        if wait_until_complete and not deadline.over:
            self.wait_until_jobs_completed(job_requests, deadline.remaining())
        return job_requests

    def wait_until_jobs_accepted(self, job_requests: Requests, poll_timeout: float | None = None) -> Requests:
        """Submit what is not submitted, and wait until a server has accepted each. Returns the requests."""
        _check_several(job_requests)
        deadline = Deadline(poll_timeout)

        def accepted(request: GearmanJobRequest) -> bool:
            if request.state == JOB_UNKNOWN and not deadline.over:
                try:
                    self.send_job_request(request)
                except ServerUnavailable:
                    if not deadline.over:
                        raise
            return request._closed or request.state not in (JOB_PENDING, JOB_UNKNOWN)

        # Inside of another call's wait if `on_gearman_error` submits something.
        outer = getattr(self._limit, "deadline", None)
        self._limit.deadline = deadline
        try:
            # All are sent before the first is waited for.
            for request in job_requests:
                accepted(request)
            self._wait(accepted, job_requests, deadline)
        finally:
            self._limit.deadline = outer
        for request in job_requests:
            request.timed_out = request.state in (JOB_PENDING, JOB_UNKNOWN)
        self._check_alive(request for request in job_requests if request.timed_out and request._closed)
        return job_requests

    def wait_until_jobs_completed(
        self, job_requests: Requests, poll_timeout: float | None = None
    ) -> Requests:
        """Wait until each job has ended, or was lost with its connection: `state` is then JOB_UNKNOWN.

        Nothing is submitted again, as nobody knows how far the worker came. Returns the requests.
        """
        _check_several(job_requests)

        def ended(request: GearmanJobRequest) -> bool:
            return request.complete or request._closed or request.state == JOB_UNKNOWN

        self._wait(ended, job_requests, Deadline(poll_timeout))
        for request in job_requests:
            request.timed_out = not request.complete and request.state != JOB_UNKNOWN
        self._check_alive(request for request in job_requests if not request.complete)
        return job_requests

    def establish_request_connection(self, current_request: GearmanJobRequest) -> GearmanConnection:
        """A connection for this request: the first in order of preference that can be made.

        A job that was given a unique prefers the same server each time, others any. Raises
        `ServerUnavailable` if there is none.
        """
        deadline = getattr(self._limit, "deadline", None) or Deadline(None)
        for connection in self._preferred(current_request):
            if connection.connected:
                return connection
            try:
                connection.connect(deadline.within(CONNECT_TIMEOUT))
            except errors.ConnectionError as error:
                _log.info("%s", error)
            else:
                return connection
        raise ServerUnavailable(f"no server can be reached of {self.connection_list!r}")

    def send_job_request(self, current_request: GearmanJobRequest) -> GearmanJobRequest:
        """Submit a request that is not submitted, without waiting for the server. Returns it.

        Raises `ExceededConnectionAttempts`, `ServerUnavailable`, and `InvalidClientState` for one that
        is submitted.
        """
        request, job = current_request, current_request.job
        if request.state != JOB_UNKNOWN:
            raise InvalidClientState(f"the request is submitted already: {request!r}")
        if request.connection_attempts >= request.max_connection_attempts:
            raise ExceededConnectionAttempts(
                f"not accepted in {request.connection_attempts} attempt(s): {request!r}"
            )
        task, unique = function_bytes(bytes_of(job.task or "")), bytes_of(job.unique or "")
        name_bytes(unique, "the unique", MAX_UNIQUE)
        data, priority = self.encode_data(job.data), _PRIORITIES[request.priority]
        connection = self.establish_request_connection(request)
        job.connection, job.handle = connection, None
        request.connection_attempts += 1
        request.timed_out = False
        submission = Submission(
            request,
            connection,
            self._listen(),
            self._event_queue,
            self._pending,
            self.decode_data,
            self.on_gearman_error,
        )
        request._submission = submission
        request.state = JOB_PENDING
        connection.submit(
            submission, task, data, unique=unique, priority=priority, background=bool(request.background)
        )
        return request

    # -- asking ---------------------------------------------------------------------------------

    def get_job_status(
        self, current_request: GearmanJobRequest, poll_timeout: float | None = None
    ) -> GearmanJobRequest:
        """Ask the server for the status of a job; `status` of the request, which is returned, has it."""
        self.get_job_statuses([current_request], poll_timeout)
        return current_request

    def get_job_statuses(self, job_requests: Requests, poll_timeout: float | None = None) -> Requests:
        """Ask for the statuses of many jobs.

        A request of your own, with a `GearmanJob` that has the connection and the handle of a job, will
        do. If this client has submitted that job, the updates that come from now on go to this request
        too, until another asks. Raises `InvalidClientState` for a job without connection or handle.
        """
        _check_several(job_requests)
        self._listen()
        for request in job_requests:
            self._ask(request)
        return self.wait_until_job_statuses_received(job_requests, poll_timeout)

    def wait_until_job_statuses_received(
        self, job_requests: Requests, poll_timeout: float | None = None
    ) -> Requests:
        """Wait for the answers to what `get_job_statuses` has asked. Returns the requests."""
        _check_several(job_requests)

        def told(request: GearmanJobRequest) -> bool:
            return not request._asked

        self._wait(told, job_requests, Deadline(poll_timeout))
        for request in job_requests:
            status = request.status
            request.timed_out = status.get("time_received") == status.get("last_time_received")
        self._check_alive(request for request in job_requests if request.timed_out and not request._asked)
        return job_requests

    # -- waiting for what the program says -----------------------------------------------------

    def poll_connections_until_stopped(
        self,
        submitted_connections: Iterable[GearmanConnection],
        callback_fxn: Callable[[bool], Any],
        timeout: float | None = None,
    ) -> bool:
        """Let requests change until `callback_fxn` returns something false, or for `timeout` seconds.

        `callback_fxn` is called at the start with False, and with True whenever there was news. Returns
        True if the time is over. Raises `ServerUnavailable` when none of `submitted_connections` works, and
        the error of a request.
        """
        background_thread().refuse_in_own_thread()
        self._listen()
        connections, deadline, any_activity = list(submitted_connections), Deadline(timeout), False
        while True:
            changes = self._event_queue.changes
            self._event_queue.process_all()
            self._pending.raise_errors()
            go_on = callback_fxn(any_activity)
            if not any(connection.connected for connection in connections):
                raise ServerUnavailable(f"the connections were lost to all of {self.connection_list!r}")
            if not go_on:
                return False
            if not self._event_queue.wait(changes, deadline):
                return True
            any_activity = True

    # -- the end --------------------------------------------------------------------------------

    def shutdown(self) -> None:
        """Close all connections; further jobs connect again.

        Online jobs that are not done are lost to this client. Their requests stay as they are, and to wait
        for them raises `ServerUnavailable`.
        """
        super().shutdown()
        self._event_queue.process_all()

    def on_gearman_error(self, error_code: str, error_text: str) -> bool:
        """The server has refused a job: logs that. The return value is not used."""
        _log.error("The server refused a job: %s: %s", error_code, error_text)
        return False

    # -- waiting --------------------------------------------------------------------------------

    def _listen(self) -> BackgroundThread:
        """Hear of the end of the background thread that runs now, which is returned."""
        if self._heard is None or not self._heard.alive:
            self._heard = background_thread()
            self._event_queue.reopen()
            self._heard.close_when_ended(self._event_queue)
        return self._heard

    def _wait(
        self, done: Callable[[GearmanJobRequest], bool], requests: Requests, deadline: Deadline
    ) -> None:
        """Apply news until `done` with all `requests`, or the deadline. Raises an error of one of them."""
        background_thread().refuse_in_own_thread()
        for request in requests:
            submission = request._submission
            if isinstance(submission, Submission) and not submission.thread.alive:
                submission.thread_ended()
        # Only the last is looked at, or each news of one would be a walk over all.
        waiting = list(requests)[::-1]
        while True:
            changes = self._event_queue.changes
            self._event_queue.process_all()
            self._pending.raise_errors(requests)
            while waiting and done(waiting[-1]):
                waiting.pop()
            if not waiting or not self._event_queue.wait(changes, deadline):
                break
        self._event_queue.process_all()
        self._pending.raise_errors(requests)

    def _check_alive(self, lost: Iterable[GearmanJobRequest]) -> None:
        """Raise `ServerUnavailable` if a request was lost and no server is left, or its connection closed."""
        lost = list(lost)
        if any(request._closed for request in lost):
            raise ServerUnavailable("the connection was closed")
        if any(request.state == JOB_UNKNOWN for request in lost) and not any(
            connection.connected for connection in self.connection_list
        ):
            raise ServerUnavailable(f"the connections were lost to all of {self.connection_list!r}")

    # -- choosing -------------------------------------------------------------------------------

    def _new_request(self, job: dict[str, Any], background: bool, max_retries: int) -> GearmanJobRequest:
        check_count(max_retries, "max_retries", 0)
        unique = job.get("unique") or os.urandom(self.random_unique_bytes).hex()
        new = self.job_class(None, None, Name.of(job["task"]), Name.of(unique), job["data"])
        request = self.job_request_class(new, job.get("priority", PRIORITY_NONE), background, max_retries + 1)
        if request.priority not in _PRIORITIES:
            raise ValueError(f"the priority must be one of the PRIORITY constants, not {request.priority!r}")
        return request

    def _preferred(self, request: GearmanJobRequest) -> list[GearmanConnection]:
        """The servers in the order in which they are tried; those that just failed come last."""
        now = time.monotonic()

        def failing(connection: GearmanConnection) -> bool:
            return connection.failed_at is not None and now - connection.failed_at < COOLDOWN_SECONDS

        if len(self.connection_list) == 1:
            return self.connection_list
        servers = list(self.connection_list)
        unique = bytes_of(request.job.unique or "")
        if unique:
            # As the Twisted client does, so that both choose the same server.
            key = bytes_of(request.job.task or "") + b"\0" + unique
            if unique == b"-":
                key += b"\0" + self.encode_data(request.job.data)
            servers.sort(key=lambda one: score(one.name, key), reverse=True)
        else:
            random.shuffle(servers)
        # The last server tried has failed if this is another attempt.
        return sorted(servers, key=lambda one: (one is request.job.connection, failing(one)))

    def _ask(self, request: GearmanJobRequest) -> None:
        job = request.job
        if job.connection is None or not job.handle:
            raise InvalidClientState(f"the job has no connection or no handle: {request!r}")
        handle = name_bytes(bytes_of(job.handle), "the handle", MAX_HANDLE)
        request.status["last_time_received"] = request.status.get("time_received")
        request._asked += 1
        key = (job.connection, job.handle)
        with self._event_queue.processing_lock:
            self._pending.subscribe(key, request)
        job.connection.ask_status(
            handle,
            lambda status: self._event_queue.put(partial(self._told, request, key, status)),
            lambda why, closed: self._event_queue.put(partial(self._not_told, request, key, why, closed)),
        )

    # -- applying news, in the thread of whoever waits ------------------------------------------

    def _told(self, request: GearmanJobRequest, key: JobKey, status: JobStatus) -> None:
        request._asked -= 1
        connection, handle = key
        connection.connected = True
        request.status = status_of(handle, status.known, status.running, status.numerator, status.denominator)

    def _not_told(self, request: GearmanJobRequest, key: JobKey, why: str, closed: bool) -> None:
        request._asked -= 1
        connection, handle = key
        if closed:
            request._closed = True
            return
        connection.connected = False
        _log.warning("No status of the job %s: %s", handle, why)
        request.state = JOB_UNKNOWN


def _check_several(jobs: object) -> None:
    if not isinstance(jobs, list | tuple | set):
        raise TypeError(f"a list, tuple or set is expected, not {type(jobs).__name__}")
