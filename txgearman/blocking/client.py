"""The blocking client: which server a job goes to, and waiting.

Events of jobs are in `submission`, those of statuses in `status_requests`, and what python-gearman has no
method for in `client_additions`.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, Final

from txgearman.blocking import errors
from txgearman.blocking.background_thread import BackgroundThread, background_thread
from txgearman.blocking.client_additions import ClientAdditions
from txgearman.blocking.connection import CONNECT_TIMEOUT, GearmanConnection, NewJob
from txgearman.blocking.connection_manager import Servers
from txgearman.blocking.constants import (
    JOB_PENDING,
    JOB_UNKNOWN,
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
from txgearman.blocking.reactor_loan import LOAN_SECONDS
from txgearman.blocking.status_requests import StatusRequests
from txgearman.blocking.submission import AnyPriority, Outbox, PendingRequests, Submission, priority_of
from txgearman.client.hashing import score
from txgearman.client.submission import Submission as JobPacket
from txgearman.client.submission import submission
from txgearman.connection.arguments import check_count, function_bytes, name_bytes
from txgearman.wire.limits import MAX_PACKET, MAX_UNIQUE

RANDOM_UNIQUE_BYTES: Final = 16
"""Random bytes in the unique of a job that is submitted without one."""

RANDOM_BLOCK: Final = 100
"""Random uniques that are made at a time, where a call submits so many jobs."""

COOLDOWN_SECONDS: Final = 1.0
"""Seconds for which a server that could not be reached is tried last."""

OPTIONS: Final = (
    "run_at",
    "expires",
    "attempts",
    "backoff",
    "keep_result",
    "unique_for",
    "traceparent",
)
"""What may be said of a job beyond what python-gearman knows, as for `txgearman.client.Client.submit`."""

_PLAIN_KEYS: Final = {"task", "data", "unique", "priority"}

_log = logging.getLogger(__name__)

Requests = Collection[GearmanJobRequest]


class GearmanClient(ClientAdditions):
    """Submits jobs, and waits for them. Threads may share a client.

    Every ``poll_timeout`` is in seconds; None is no limit. A method that waits does not raise when it is
    over: it sets `timed_out` of the requests that are not ready. You can wait for these again.

    A method that waits raises `ServerUnavailable` when no server can be reached, `ExceededConnectionAttempts`
    when no server accepted a job in all its attempts, and what the `data_encoder` raises.

    Args:
        host_list: The servers, such as ``["localhost:4730"]``, or one as text.
        random_unique_bytes: The length of the random unique of a job that is submitted without one.

    Attributes:
        random_unique_bytes: As given.
        request_to_rotating_connection_queue: Always empty, for programs that remove their requests from it
            when these are done.
    """

    def __init__(
        self, host_list: Servers | None = None, random_unique_bytes: int = RANDOM_UNIQUE_BYTES
    ) -> None:
        super().__init__(host_list)
        self.random_unique_bytes = random_unique_bytes
        self._event_queue = EventQueue()
        self._thread: BackgroundThread | None = None
        self._local = _OfThread()
        self._pending = PendingRequests()
        self._last_task: tuple[str | bytes, Name] = "", Name.of("")
        self._statuses = StatusRequests(self._event_queue, self._pending)
        self.request_to_rotating_connection_queue: weakref.WeakKeyDictionary[GearmanJobRequest, Any] = (
            weakref.WeakKeyDictionary()
        )

    # -- submitting -----------------------------------------------------------------------------

    def submit_job(
        self,
        task: str | bytes,
        data: Any,
        unique: str | bytes | None = None,
        priority: AnyPriority = PRIORITY_NONE,
        background: bool = False,
        wait_until_complete: bool = True,
        max_retries: int = 0,
        poll_timeout: float | None = None,
        **options: Any,
    ) -> GearmanJobRequest:
        """Submit one job, and wait for it.

        Args:
            task: The name of the function.
            data: Its input; what the data encoder takes.
            unique: The job's key. If the server has a job of this function with this key, the request is
                coalesced with that.
            priority: One of the PRIORITY constants, or of `txgearman.client.Priority`, or its text.
            background: Whether this is an offline job. It is complete when it is accepted.
            wait_until_complete: Whether to wait until the job has ended. Otherwise the wait ends when the
                job is accepted.
            max_retries: How often the job may be submitted again, if a server is lost before it accepts it.
            poll_timeout: Seconds to wait; None for no limit.
            **options: Any of `OPTIONS`, as for `txgearman.client.Client.submit`. A job with ``run_at`` is an
                offline job. The others need a server that has this extension of the protocol; the job is
                refused, with the code UNKNOWN_OPTION, by one that lacks it.

        Returns:
            The request.

        Raises:
            TypeError: An option is unknown.
        """
        if unknown := [name for name in options if name not in OPTIONS]:
            raise TypeError(f"submit_job() got an unexpected keyword argument {unknown[0]!r}")
        job = {"task": task, "data": data, "unique": unique, "priority": priority, **options}
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
        """Submit several jobs, and wait for them.

        Args:
            jobs_to_submit: A dictionary for each job, with ``task``, ``data`` and, if wanted, ``unique``,
                ``priority`` and `OPTIONS`.
            background: As for `submit_job`.
            wait_until_complete: As for `submit_job`.
            max_retries: As for `submit_job`.
            poll_timeout: As for `submit_job`.

        Returns:
            The requests in the order of the jobs.
        """
        _check_collection(jobs_to_submit)
        check_count(max_retries, "max_retries", 0)
        uniques = self._random_uniques(len(jobs_to_submit))
        requests = [self._new_request(job, background, max_retries, uniques) for job in jobs_to_submit]
        self.submit_multiple_requests(requests, wait_until_complete, poll_timeout)
        return requests

    def submit_multiple_requests(
        self,
        job_requests: Requests,
        wait_until_complete: bool = True,
        poll_timeout: float | None = None,
    ) -> Requests:
        """Submit the requests that are new, or whose connection was lost, and wait for all.

        Args:
            job_requests: The requests.
            wait_until_complete: As for `submit_job`.
            poll_timeout: As for `submit_job`.

        Returns:
            The requests. Look at `timed_out` and `state` of each.
        """
        _check_collection(job_requests)
        deadline = Deadline(poll_timeout)
        self.wait_until_jobs_accepted(job_requests, deadline.remaining())
        pending = [request for request in job_requests if wait_until_complete and not request.complete]
        if pending and not deadline.over:
            self.wait_until_jobs_completed(job_requests, deadline.remaining())
            return job_requests
        for request in pending:
            request.timed_out = True
        return job_requests

    def wait_until_jobs_accepted(self, job_requests: Requests, poll_timeout: float | None = None) -> Requests:
        """Submit the requests that are new, or whose connection was lost, and wait until all are accepted.

        Args:
            job_requests: The requests.
            poll_timeout: Seconds to wait; None for no limit.

        Returns:
            The requests.
        """
        _check_collection(job_requests)
        deadline = Deadline(poll_timeout)

        def is_accepted(request: GearmanJobRequest) -> bool:
            if request.state == JOB_UNKNOWN and not deadline.over:
                self._send_in_time(request, deadline)
            return request._connection_closed or request.state not in (JOB_PENDING, JOB_UNKNOWN)

        with self._local.outbox.waiting_for_answers(deadline):
            # Submit all before waiting for the first.
            for request in job_requests:
                is_accepted(request)
        self._wait(is_accepted, job_requests, deadline)
        lost = []
        for request in job_requests:
            request.timed_out = request.state in (JOB_PENDING, JOB_UNKNOWN)
            if request.timed_out and request._connection_closed:
                lost.append(request)
        if lost:
            self._raise_if_lost(lost)
        return job_requests

    def wait_until_jobs_completed(
        self, job_requests: Requests, poll_timeout: float | None = None
    ) -> Requests:
        """Wait until each job has ended, or was lost with its connection.

        A lost job has the `state` JOB_UNKNOWN. It is not submitted again, since it may have run. One that its
        server has refused because it is shutting down goes to another server.

        Args:
            job_requests: The requests.
            poll_timeout: Seconds to wait; None for no limit.

        Returns:
            The requests.
        """
        _check_collection(job_requests)
        deadline = Deadline(poll_timeout)

        def has_ended(request: GearmanJobRequest) -> bool:
            if request._is_declined and not deadline.over:
                self._send_in_time(request, deadline)
                return request.complete
            return request.complete or request._connection_closed or request.state == JOB_UNKNOWN

        self._wait(has_ended, job_requests, deadline)
        lost = []
        for request in job_requests:
            request.timed_out = False
            if not request.complete:
                request.timed_out = request.state != JOB_UNKNOWN or request._is_declined
                lost.append(request)
        if lost:
            self._raise_if_lost(lost)
        return job_requests

    def establish_request_connection(self, current_request: GearmanJobRequest) -> GearmanConnection:
        """Connect to a server for a request.

        A job with a unique prefers the same server each time. One without prefers none. A server that has
        refused the request because it is shutting down is passed over.

        Args:
            current_request: The request.

        Returns:
            The connection to the first server by preference that can be reached.

        Raises:
            ServerUnavailable: No server can be reached.
        """
        for connection in self._servers_by_preference(current_request):
            if connection in current_request._declined_by:
                continue
            if connection.connected:
                return connection
            deadline = self._local.deadline
            try:
                connection.connect(CONNECT_TIMEOUT if deadline is None else deadline.within(CONNECT_TIMEOUT))
            except errors.ConnectionError as error:
                _log.info("%s", error)
            else:
                return connection
        raise ServerUnavailable(f"no server can be reached of {self._server_names}")

    def send_job_request(self, current_request: GearmanJobRequest) -> GearmanJobRequest:
        """Submit a request without waiting for the server's answer.

        Args:
            current_request: The request, new or lost.

        Returns:
            The request.

        Raises:
            ExceededConnectionAttempts: The request has no attempts left.
            InvalidClientState: The request is already submitted.
            ServerUnavailable: No server can be reached.
        """
        request, job = current_request, current_request.job
        if request.state != JOB_UNKNOWN:
            raise InvalidClientState(f"the request is submitted already: {request!r}")
        if request.connection_attempts >= request.max_connection_attempts:
            raise ExceededConnectionAttempts(
                f"not accepted in {request.connection_attempts} attempt(s): {request!r}"
            )
        packet, wrong = self._packet(request)
        connection = self.establish_request_connection(request)
        job.connection, job.handle = connection, None
        request.connection_attempts += 1
        request.timed_out = False
        request._submission = attempt = Submission(request, connection, self._attach_event_queue(), self)
        request.state = JOB_PENDING
        if packet is None:
            attempt.refused(type(wrong).__name__, str(wrong))
        else:
            self._local.outbox.send(connection, NewJob(attempt, packet))
        return request

    def _send_in_time(self, request: GearmanJobRequest, deadline: Deadline) -> None:
        """Submit a request that is new, lost or declined, and leave it if that takes too long."""
        # Another call of this thread may be waiting: its `on_gearman_error` may have called this method.
        outer, self._local.deadline = self._local.deadline, deadline
        try:
            self.send_job_request(request)
        except ServerUnavailable:
            if deadline.over:
                return
            if not (request._is_declined and isinstance(request._submission, Submission)):
                raise
            # The refusal tells the program more than that no other server can be reached.
            request._submission.give_up()
        finally:
            self._local.deadline = outer

    def _packet(self, request: GearmanJobRequest) -> tuple[JobPacket | None, Exception | None]:
        """The packet of a request's job, or what is wrong with the job. A wrong name raises."""
        task, unique = bytes_of(request.job.task or ""), bytes_of(request.job.unique or "")
        data, priority = self.encode_data(request.job.data), priority_of(request.priority)
        options: Any = request._options
        run_at = None
        if options:
            options = dict(options)
            run_at = options.pop("run_at", None)
        background = bool(request.background)
        try:
            return submission(
                task, data, unique, priority, background, run_at, None, MAX_PACKET, options
            ), None
        except (TypeError, ValueError) as error:
            function_bytes(task)
            name_bytes(unique, "the unique", MAX_UNIQUE)
            return None, error

    # -- asking ---------------------------------------------------------------------------------

    def get_job_status(
        self, current_request: GearmanJobRequest, poll_timeout: float | None = None
    ) -> GearmanJobRequest:
        """Ask the server for the status of a job, and wait for that.

        Args:
            current_request: The request.
            poll_timeout: Seconds to wait; None for no limit.

        Returns:
            The request, whose `status` is the answer.
        """
        self.get_job_statuses([current_request], poll_timeout)
        return current_request

    def get_job_statuses(self, job_requests: Requests, poll_timeout: float | None = None) -> Requests:
        """Ask for the statuses of several jobs, and wait for them.

        A request can also be one that you made, of a `GearmanJob` with the connection and the handle of a
        job. If this client has submitted that job, your request gets its updates too, until another request
        asks for its status.

        Args:
            job_requests: The requests.
            poll_timeout: Seconds to wait; None for no limit.

        Returns:
            The requests.

        Raises:
            InvalidClientState: A job has no connection or no handle.
        """
        _check_collection(job_requests)
        self._attach_event_queue()
        for request in job_requests:
            self._statuses.ask(request)
        return self.wait_until_job_statuses_received(job_requests, poll_timeout)

    def wait_until_job_statuses_received(
        self, job_requests: Requests, poll_timeout: float | None = None
    ) -> Requests:
        """Wait for the statuses that `get_job_statuses` has asked for.

        Args:
            job_requests: The requests.
            poll_timeout: Seconds to wait; None for no limit.

        Returns:
            The requests.
        """
        _check_collection(job_requests)

        def status_received(request: GearmanJobRequest) -> bool:
            return not request._pending_status_requests

        self._wait(status_received, job_requests, Deadline(poll_timeout))
        lost = []
        for request in job_requests:
            status = request.status
            request.timed_out = status.get("time_received") == status.get("last_time_received")
            if request.timed_out and not request._pending_status_requests:
                lost.append(request)
        if lost:
            self._raise_if_lost(lost)
        return job_requests

    # -- waiting for a condition of the program -------------------------------------------------

    def poll_connections_until_stopped(
        self,
        submitted_connections: Iterable[GearmanConnection],
        callback_fxn: Callable[[bool], Any],
        timeout: float | None = None,
    ) -> bool:
        """Process events until the callback returns something false, or the time is over.

        Args:
            submitted_connections: The connections that matter.
            callback_fxn: Called with False at the start, and with True after each change.
            timeout: Seconds; None for no limit.

        Returns:
            Whether the time is over.

        Raises:
            ServerUnavailable: None of `submitted_connections` is connected.
            Exception: The error of a request.
        """
        thread = self._attach_event_queue()
        thread.refuse_in_own_thread()
        connections, deadline, any_activity = list(submitted_connections), Deadline(timeout), False
        while True:
            changes = self._event_queue.changes
            self._event_queue.process_all()
            self._pending.raise_errors()
            go_on = callback_fxn(any_activity)
            if not any(connection.connected for connection in connections):
                raise ServerUnavailable(f"the connections were lost to all of {self._server_names}")
            if not go_on:
                return False
            with thread.loan.waiting():
                if not self._event_queue.wait(changes, deadline):
                    return True
            any_activity = True

    # -- the end --------------------------------------------------------------------------------

    def shutdown(self) -> None:
        """Close all connections. The next job connects again.

        Online jobs that still run are lost to this client. Their requests do not change any more, and waiting
        for them raises `ServerUnavailable`.
        """
        super().shutdown()
        self._event_queue.process_all()

    def on_gearman_error(self, error_code: str, error_text: str) -> bool:
        """The server has refused a job: log that. Override this to do something else.

        Args:
            error_code: The code of the server's ERROR.
            error_text: Its text.

        Returns:
            Anything: the value is not used.
        """
        _log.error("The server refused a job: %s: %s", error_code, error_text)
        return False

    # -- waiting --------------------------------------------------------------------------------

    def _attach_event_queue(self) -> BackgroundThread:
        """Have the event queue closed when the background thread ends. Returns that thread."""
        if self._thread is None or not self._thread.alive:
            self._thread = background_thread()
            self._event_queue.reopen()
            self._thread.close_when_ended(self._event_queue)
        return self._thread

    def _wait(
        self, done: Callable[[GearmanJobRequest], bool], requests: Requests, deadline: Deadline
    ) -> None:
        """Process events until all `requests` are `done`, or the deadline. Raises an error of one of them."""
        thread = background_thread()
        thread.refuse_in_own_thread()
        for request in requests:
            submission = request._submission
            if isinstance(submission, Submission) and submission.thread is not thread:
                submission.thread_ended()
        # Only the last is tested: testing all for each event would be quadratic.
        waiting = list(requests)[::-1]
        while True:
            changes = self._event_queue.changes
            self._event_queue.process_all()
            self._pending.raise_errors(requests)
            while waiting and done(waiting[-1]):
                waiting.pop()
            if not waiting:
                return
            if self._read_alone(waiting[-1], deadline):
                continue
            with thread.loan.waiting():
                if not self._event_queue.wait(changes, deadline):
                    break
        self._event_queue.process_all()
        self._pending.raise_errors(requests)

    def _read_alone(self, request: GearmanJobRequest, deadline: Deadline) -> bool:
        """Read in this thread what is waited for, if that is possible. Returns whether something was read."""
        connection = request.job.connection
        if connection is None or len(self.connection_list) > 1:
            return False
        return connection.read(deadline.within(LOAN_SECONDS))

    def _raise_if_lost(self, lost: list[GearmanJobRequest]) -> None:
        """Raise `ServerUnavailable` for a closed connection, or a lost request where no server is left."""
        if any(request._connection_closed for request in lost):
            raise ServerUnavailable("the connection was closed")
        if any(request.state == JOB_UNKNOWN for request in lost) and not any(
            connection.connected for connection in self.connection_list
        ):
            raise ServerUnavailable(f"the connections were lost to all of {self._server_names}")

    # -- choosing -------------------------------------------------------------------------------

    def _random_uniques(self, jobs: int) -> Iterator[str]:
        """Random uniques for so many jobs. The system is asked once for many of them."""
        digits, count = 2 * self.random_unique_bytes, min(jobs, RANDOM_BLOCK)
        while True:
            block = os.urandom(self.random_unique_bytes * count).hex()
            for index in range(count):
                yield block[digits * index : digits * (index + 1)]

    def _new_request(
        self, job: dict[str, Any], background: bool, max_retries: int, uniques: Iterator[str]
    ) -> GearmanJobRequest:
        unique = job.get("unique") or next(uniques)
        new = self.job_class(None, None, self._name_of_task(job["task"]), Name.of(unique), job["data"])
        options: dict[str, Any] | None = None
        if not job.keys() <= _PLAIN_KEYS:
            options = {name: job[name] for name in OPTIONS if job.get(name) is not None}
        # A request that is not one for an offline job waits for a result.
        offline = background or (options is not None and "run_at" in options)
        request = self.job_request_class(new, job.get("priority", PRIORITY_NONE), offline, max_retries + 1)
        if options:
            request.options = options
        priority_of(request.priority)
        return request

    def _name_of_task(self, task: str | bytes) -> Name:
        """The name of a function: that of the job before, if it is the same."""
        before, name = self._last_task
        if task is not before:
            name = Name.of(task)
            self._last_task = task, name
        return name

    def _servers_by_preference(self, request: GearmanJobRequest) -> list[GearmanConnection]:
        """The servers in the order in which they are tried. Those that failed recently come last."""
        if len(self.connection_list) == 1:
            return self.connection_list
        now = time.monotonic()

        def failed_recently(connection: GearmanConnection) -> bool:
            return connection.failed_at is not None and now - connection.failed_at < COOLDOWN_SECONDS

        servers = list(self.connection_list)
        unique = bytes_of(request.job.unique or "")
        if unique:
            # The Twisted client's routing key, so that both choose the same server.
            key = bytes_of(request.job.task or "") + b"\0" + unique
            if unique == b"-":
                key += b"\0" + self.encode_data(request.job.data)
            servers.sort(key=lambda connection: score(connection.name, key), reverse=True)
        else:
            random.shuffle(servers)
        # If this is another attempt, the last server has failed.
        return sorted(servers, key=lambda server: (server is request.job.connection, failed_recently(server)))


class _OfThread(threading.local):
    """What a client keeps for each thread that uses it.

    Attributes:
        deadline: The limit of the thread's call; None outside of calls with one.
        outbox: The jobs that the thread's call submits.
    """

    def __init__(self) -> None:
        self.deadline: Deadline | None = None
        self.outbox = Outbox()


def _check_collection(jobs: object) -> None:
    if not isinstance(jobs, list | tuple | set):
        raise TypeError(f"a list, tuple or set is expected, not {type(jobs).__name__}")
