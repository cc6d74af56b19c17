"""The client's end of one connection: matching what the server sends with the requests and jobs it is about.

The server answers requests in their order, so a queue matches the answers. Packets about running jobs carry
the job's handle. Nothing is decided here, and nothing connects here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from txgearman.client.job import Job, JobReceiver, PendingJob
from txgearman.client.result import ResultAnswer
from txgearman.client.send_budget import SendBudget
from txgearman.client.status import JobStatus, leading_integer
from txgearman.client.submission import Submission
from txgearman.client.updates import DataUpdate, StatusUpdate, Update, WarningUpdate
from txgearman.codecs import BYTES, Codec
from txgearman.connection.heartbeat import LivenessCheck
from txgearman.connection.protocol import PacketProtocol
from txgearman.errors import BrokenStream, ConnectionLost, JobFailed, JobRaised, NotSupported, ServerError
from txgearman.wire.codec import frame
from txgearman.wire.options import EXCEPTIONS, RESULTS, SUBMIT_EXTENDED
from txgearman.wire.packets import (
    ECHO_REQ,
    ECHO_RES,
    ERROR,
    GET_RESULT,
    GET_STATUS,
    GET_STATUS_UNIQUE,
    JOB_CREATED,
    OPTION_REQ,
    OPTION_RES,
    REQUEST,
    RESULT_RES,
    STATUS_RES,
    STATUS_RES_UNIQUE,
    WORK_COMPLETE,
    WORK_DATA,
    WORK_EXCEPTION,
    WORK_FAIL,
    WORK_STATUS,
    WORK_WARNING,
    name_of,
)


class _Request(NamedTuple):
    """A request without an answer yet.

    Attributes:
        answer: The type of the packet that answers it.
        subject: What the answer belongs to: a job, a chunk, a handle or a unique. A chunk is answered when
            each of its jobs is.
        reply: The Deferred that fires with the answer, or a `JobReceiver`. A caller may have cancelled the
            Deferred; it then ignores the one call that still comes.
        size: Bytes that the send budget was charged.
    """

    answer: int
    subject: Any
    reply: Any
    size: int


class Chunk:
    """Several offline jobs that are submitted together."""

    __slots__ = ("_refusal", "count", "errors", "handles", "size")

    def __init__(self, count: int, size: int) -> None:
        self.count = count
        self.size = size
        """Bytes that they charge the send budget."""
        self.handles: list[bytes] = []
        """The handles of the jobs answered so far, in their order; empty for a job that was refused."""
        self.errors: dict[int, ServerError] = {}
        """Why jobs were refused, by their index in the chunk."""
        self._refusal: tuple[bytes, bytes] | None = None

    def refuse(self, code: bytes, text: bytes) -> None:
        """The next job was refused. Jobs that are refused in a row for the same reason share one error."""
        index = len(self.handles)
        if self._refusal == (code, text):
            self.errors[index] = self.errors[next(reversed(self.errors))]
        else:
            self._refusal = (code, text)
            self.errors[index] = _server_error(code, text)
        self.handles.append(b"")


class ClientProtocol(PacketProtocol):
    """Speaks for a client on one connection.

    Args:
        clock: As for `PacketProtocol`.
        max_packet: As for `PacketProtocol`.
        on_ended: Called with this protocol when the connection cannot be used any more.
        budget: Charged for the requests.
        check: As for `PacketProtocol`.
        server: The server's name.
        codec: Makes values of the payloads of jobs.
    """

    def __init__(
        self,
        clock: IReactorTime,
        max_packet: int,
        on_ended: Callable[[ClientProtocol], object],
        budget: SendBudget,
        *,
        check: LivenessCheck | None = None,
        server: str = "",
        codec: Codec = BYTES,
    ) -> None:
        super().__init__(clock, max_packet, check)
        self._on_ended = on_ended
        self._budget = budget
        self._server_name = server
        self._codec = codec
        self._requests: deque[_Request] = deque()
        # The answer to the first request, if it is an ERROR.
        self._first_refusal: ServerError | None = None
        # What is known of the extensions that were needed: whether the server has them, or who waits for its
        # answer.
        self._extensions: dict[bytes, bool | list[Deferred[bool]]] = {}
        # Who waits for the results of jobs that were pending, by handle.
        self._result_waiters: dict[bytes, list[Deferred[ResultAnswer]]] = {}
        # Jobs by handle. gearmand gives one handle to all submits of one unique, and sends each packet about
        # it as often as the job was submitted here.
        self._jobs: dict[bytes, list[PendingJob]] = {}
        self._receivers: dict[int, Callable[..., None]] = {
            JOB_CREATED: self._created,
            ECHO_RES: partial(self._answered, ECHO_RES),
            OPTION_RES: partial(self._answered, OPTION_RES),
            STATUS_RES: partial(self._status_answered, STATUS_RES),
            STATUS_RES_UNIQUE: partial(self._status_answered, STATUS_RES_UNIQUE),
            RESULT_RES: self._result_answered,
            ERROR: self._refused,
            WORK_COMPLETE: self._completed,
            WORK_DATA: self._data,
            WORK_STATUS: self._status,
            WORK_WARNING: self._warning,
            WORK_FAIL: self._failed,
            WORK_EXCEPTION: self._raised,
        }

    # -- requests -------------------------------------------------------------------------------

    def submit(self, submission: Submission, job: Job | None = None) -> Deferred[Job]:
        """Submit a job.

        Args:
            submission: The job as its packet.
            job: The job's object if it was submitted before, to a server that was lost.

        Returns:
            A Deferred of the `Job`. When it is cancelled, news of the job are ignored.
        """
        if job is None:
            job = Job(self.clock, submission.function, submission.unique, submission.background, self._codec)
        if submission.extended_for:
            ready = self._extension(SUBMIT_EXTENDED, submission.extended_for, len(submission.body))
            return ready.addCallback(
                lambda _: self._request(submission.packet, submission.body, JOB_CREATED, job)
            )
        return self._request(submission.packet, submission.body, JOB_CREATED, job)

    def submit_to(self, submission: Submission, receiver: JobReceiver) -> None:
        """Submit a job, as `submit` does, for an object that stands for its `Job` and its Deferred.

        Args:
            submission: The job as its packet.
            receiver: The object.
        """
        packet = frame(REQUEST, submission.packet, submission.body)
        size = len(submission.body)
        if not submission.extended_for:
            self._send(packet, JOB_CREATED, receiver, size, receiver)
            return
        self._extension(SUBMIT_EXTENDED, submission.extended_for, size).addCallbacks(
            lambda _: self._send(packet, JOB_CREATED, receiver, size, receiver),
            lambda failure: receiver.errback(failure.value),
        )

    def submit_chunk(self, packets: bytes, chunk: Chunk, extended_for: str = "") -> Deferred[None]:
        """Submit several offline jobs.

        Args:
            packets: Their packets.
            chunk: Collects their answers.
            extended_for: As `Submission.extended_for`.

        Returns:
            A Deferred that fires when each job has its answer. It fails with `ConnectionLost`; the chunk has
            the answers that came before. It fails with `NotSupported` where nothing was sent.
        """
        if not extended_for:
            return self._send_request(packets, JOB_CREATED, chunk, chunk.size)
        ready = self._extension(SUBMIT_EXTENDED, extended_for, chunk.size)
        return ready.addCallback(lambda _: self._send_request(packets, JOB_CREATED, chunk, chunk.size))

    def status(self, handle: bytes) -> Deferred[JobStatus]:
        """Ask for the state of the job `handle`."""
        return self._request(GET_STATUS, handle, STATUS_RES, handle)

    def status_by_unique(self, unique: bytes) -> Deferred[JobStatus]:
        """Ask for the state of the job with this unique."""
        return self._request(GET_STATUS_UNIQUE, unique, STATUS_RES_UNIQUE, unique)

    def result(self, handle: bytes, wait: bool) -> Deferred[ResultAnswer]:
        """Ask for the result of a job.

        Args:
            handle: The job.
            wait: Whether to wait for the end of a job that is pending.

        Returns:
            A Deferred of what the server says. It fails with `NotSupported` where the server has no results.
        """

        def ask(_: object) -> Deferred[ResultAnswer]:
            if wait and handle in self._result_waiters:
                return self._await_result(handle)
            body = b"%b\0%d" % (handle, wait)
            asked: Deferred[ResultAnswer] = self._request(GET_RESULT, body, RESULT_RES, handle)
            return asked.addCallback(answered) if wait else asked

        def answered(answer: ResultAnswer) -> ResultAnswer | Deferred[ResultAnswer]:
            return self._await_result(handle) if answer.is_pending else answer

        return self._extension(RESULTS, "the result of an offline job", len(handle)).addCallback(ask)

    def _await_result(self, handle: bytes) -> Deferred[ResultAnswer]:
        """The answer that comes when a pending job has ended. Several who wait for one job share it."""

        def cancel(cancelled: Deferred[ResultAnswer]) -> None:
            others = self._result_waiters.get(handle)
            if others is not None and cancelled in others:
                others.remove(cancelled)
                if not others:
                    del self._result_waiters[handle]

        waiter: Deferred[ResultAnswer] = Deferred(cancel)
        self._result_waiters.setdefault(handle, []).append(waiter)
        return waiter

    def echo(self, data: bytes) -> Deferred[bytes]:
        """Ask for `data` to be sent back."""
        return self._request(ECHO_REQ, data, ECHO_RES, None)

    def _request(self, packet: int, body: bytes, answer: int, subject: Any) -> Deferred[Any]:
        return self._send_request(frame(REQUEST, packet, body), answer, subject, len(body))

    def _send_request(self, packets: bytes, answer: int, subject: Any, size: int) -> Deferred[Any]:
        reply: Deferred[Any] = Deferred()
        self._send(packets, answer, subject, size, reply)
        return reply

    def _send(
        self, packets: bytes, answer: int, subject: Any, size: int, reply: Deferred[Any] | JobReceiver
    ) -> None:
        if not self._requests:
            self.expect_reply()
        self._requests.append(_Request(answer, subject, reply, size))
        self._budget.charge(size)
        self.write_buffered(packets)

    def _extension(self, option: bytes, needed_for: str, size: int) -> Deferred[None]:
        """Ask for an extension of the protocol, at its first use on this connection.

        Args:
            option: The extension's option.
            needed_for: What of the request needs it, for people.
            size: Bytes of the request, which count while it waits.

        Returns:
            A Deferred that fires when the server has the extension, at once where that is known. It fails
            with `NotSupported` where it lacks it, and with `ConnectionLost`.
        """

        def check(has_it: bool) -> None:
            if not has_it:
                raise NotSupported(self._server_name, option.decode(), needed_for)

        known = self._extensions.get(option)
        if isinstance(known, bool):
            return succeed(known).addCallback(check)
        if known is None:
            known = self._extensions[option] = []
            asking = self._request(OPTION_REQ, option, OPTION_RES, None)
            asking.addCallbacks(lambda _: True, _is_refused).addBoth(self._extension_known, option)
        waiting: Deferred[bool] = Deferred()
        known.append(waiting)
        return self._budget.charged_until(size, waiting).addCallback(check)

    def _extension_known(self, answer: Any, option: bytes) -> None:
        """The server has said whether it has an extension, or `answer` is the failure to say so."""
        waiting = self._extensions.pop(option)
        assert isinstance(waiting, list)
        if isinstance(answer, bool):
            self._extensions[option] = answer
        for each in waiting:
            each.callback(answer)

    def send_probe(self) -> None:
        # `ended` tells of a lost connection.
        self.echo(b"").addErrback(lambda _failure: None)

    # -- the connection's calls -----------------------------------------------------------------

    def reply_pending(self) -> bool:
        return bool(self._requests)

    def opened(self) -> None:
        self._request(OPTION_REQ, EXCEPTIONS, OPTION_RES, None).addErrback(self._exceptions_refused)

    def received(self, number: int, fields: list[Any]) -> None:
        receiver = self._receivers.get(number)
        if receiver is not None:
            receiver(*fields)
        else:
            self._log.debug("Ignoring {packet}, which is not for clients", packet=name_of(number))

    def ended(self, why: str) -> None:
        # Call it first, so that a request that is repeated because of this gets another connection.
        self._on_ended(self)
        requests, self._requests = self._requests, deque()
        jobs, self._jobs = self._jobs, {}
        refusal = self._first_refusal
        for request in requests:
            error = ConnectionLost(
                f"no answer came: {why if refusal is None else f'the server said {refusal}'}"
            )
            error.__cause__ = refusal
            request.reply.errback(error)
        waiters, self._result_waiters = self._result_waiters, {}
        for waiting in waiters.values():
            for waiter in waiting:
                waiter.errback(ConnectionLost(f"no result came: {why}"))
        for same_handle in jobs.values():
            for job in same_handle:
                job._connection_lost(partial(ConnectionLost, f"no result came: {why}"))
        for request in requests:
            self._budget.release(request.size)

    # -- answers, to requests in their order ----------------------------------------------------

    def _expected_request(self, answer: int) -> _Request:
        """The oldest request, which packet `answer` must answer; otherwise this raises `BrokenStream`."""
        if not self._requests:
            raise BrokenStream(b"", f"{name_of(answer)} answers nothing that was asked")
        request = self._requests[0]
        if answer != request.answer:
            raise BrokenStream(b"", f"{name_of(answer)} came where {name_of(request.answer)} was due")
        return request

    def _pop_request(self) -> _Request:
        """Take off the oldest request, which is answered."""
        request = self._requests.popleft()
        self._budget.release(request.size)
        return request

    def _created(self, handle: bytes) -> None:
        subject = self._expected_request(JOB_CREATED).subject
        if type(subject) is Chunk:
            subject.handles.append(handle)
            if len(subject.handles) == subject.count:
                self._pop_request().reply.callback(None)
            return
        request = self._pop_request()
        job: PendingJob = subject
        job.handle = handle
        job.server = self._server_name
        if not job.background:
            # Even a job whose submitter has gone: its share of the packets for the handle will come.
            self._jobs.setdefault(handle, []).append(job)
        if request.reply.called:
            job._ignore()
        request.reply.callback(job)

    def _answered(self, answer: int, value: bytes) -> None:
        self._expected_request(answer)
        self._pop_request().reply.callback(value)

    def _status_answered(
        self, answer: int, key: bytes, known: bytes, running: bytes, *numbers: bytes
    ) -> None:
        subject = self._expected_request(answer).subject
        if key != subject:
            raise BrokenStream(b"", f"the state of {subject!r} was asked for, that of {key!r} came")
        self._pop_request().reply.callback(
            JobStatus(known == b"1", running == b"1", *map(leading_integer, numbers))
        )

    def _result_answered(self, handle: bytes, state: bytes, reason: bytes, data: bytes) -> None:
        """What is known of a result came: the answer to the oldest request, or what was waited for."""
        answer = ResultAnswer(state, reason, data)
        request = self._requests[0] if self._requests else None
        if request is not None and (request.answer, request.subject) == (RESULT_RES, handle):
            self._pop_request().reply.callback(answer)
        elif answer.is_pending:
            raise BrokenStream(b"", f"the result of {handle!r} is pending, which nobody asked for")
        else:
            # Nobody may wait any more.
            for waiter in self._result_waiters.pop(handle, ()):
                waiter.callback(answer)

    def _refused(self, code: bytes, text: bytes) -> None:
        if not self._requests:
            error = _server_error(code, text)
            self._log.warn("The server sent an ERROR without a request: {error}", error=error)
            return
        chunk = self._requests[0].subject
        if not isinstance(chunk, Chunk):
            self._pop_request().reply.errback(_server_error(code, text))
            return
        chunk.refuse(code, text)
        if len(chunk.handles) == chunk.count:
            self._pop_request().reply.callback(None)

    def _exceptions_refused(self, failure: Failure) -> None:
        """The server does not forward exceptions, and jobs that raise will appear as jobs that failed. Or it
        refuses the connection, and is about to close it."""
        if isinstance(failure.value, ServerError):
            self._first_refusal = failure.value
            self._log.warn("The server does not forward exceptions: {error}", error=failure.value)

    # -- packets about jobs, by handle ------------------------------------------------------------

    def _completed(self, handle: bytes, data: bytes) -> None:
        job = self._pop_job(handle)
        if job is not None:
            job._complete(data)

    def _failed(self, handle: bytes) -> None:
        job = self._pop_job(handle)
        if job is not None:
            job._fail(partial(JobFailed, handle))

    def _raised(self, handle: bytes, data: bytes) -> None:
        job = self._pop_job(handle)
        if job is not None:
            job._fail(partial(JobRaised, handle, data))

    def _data(self, handle: bytes, data: bytes) -> None:
        self._update(handle, DataUpdate(data))

    def _warning(self, handle: bytes, data: bytes) -> None:
        self._update(handle, WarningUpdate(data))

    def _status(self, handle: bytes, numerator: bytes, denominator: bytes) -> None:
        self._update(handle, StatusUpdate(leading_integer(numerator), leading_integer(denominator)))

    def _update(self, handle: bytes, update: Update) -> None:
        """Give an update to the job. Several jobs with the handle take turns."""
        jobs = self._jobs.get(handle)
        if jobs is None:
            self._log_unknown_job(handle)
            return
        job = jobs[0]
        if len(jobs) > 1:
            jobs.append(jobs.pop(0))
        job._update(update)

    def _pop_job(self, handle: bytes) -> PendingJob | None:
        """Take out the job with this handle, which has ended. Several jobs with the handle take turns."""
        jobs = self._jobs.get(handle)
        if jobs is None:
            self._log_unknown_job(handle)
            return None
        job = jobs.pop(0)
        if not jobs:
            del self._jobs[handle]
        return job

    def _log_unknown_job(self, handle: bytes) -> None:
        self._log.debug("Ignoring news of the job {handle}, which is not waited for", handle=handle)


def _is_refused(failure: Failure) -> bool:
    """False for a server that answers a request with an ERROR; raises anything else."""
    if not isinstance(failure.value, ServerError):
        failure.raiseException()
    return False


def _server_error(code: bytes, text: bytes) -> ServerError:
    return ServerError(*(field.decode("utf-8", "backslashreplace") for field in (code, text)))
