"""The client's end of one connection: matching what the server says with what was asked.

The server answers requests in their order, so the answers are matched with a queue. What it says of
running jobs carries the job's handle. Nothing is decided here, and nothing connects here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from txgearman.client.job import Job
from txgearman.client.send_budget import SendBudget
from txgearman.client.status import JobStatus, number_from
from txgearman.client.submission import Submission
from txgearman.client.updates import DataUpdate, StatusUpdate, Update, WarningUpdate
from txgearman.codecs import BYTES, Codec
from txgearman.connection.heartbeat import LivenessCheck
from txgearman.connection.protocol import PacketProtocol
from txgearman.errors import BrokenStream, ConnectionLost, JobFailed, JobRaised, ServerError
from txgearman.wire.codec import frame
from txgearman.wire.packets import (
    ECHO_REQ,
    ECHO_RES,
    ERROR,
    GET_STATUS,
    GET_STATUS_UNIQUE,
    JOB_CREATED,
    OPTION_REQ,
    OPTION_RES,
    REQUEST,
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
    """A request without an answer yet: the packet that answers it, what it is about, and its bytes.

    What it is about may be a `Chunk`; that is answered when each of its jobs is.
    The asker may have cancelled its Deferred; that then ignores the one call that still comes.
    """

    answer: int
    about: Any
    asker: Deferred[Any]
    size: int


class Chunk:
    """Several offline jobs that are submitted together: `count` of them, of `size` bytes for the send budget.

    `handles` grows with the answers, in the order of the jobs: the handle, or empty for a job that was
    refused. `errors` has why, by the job's index in the chunk.
    """

    __slots__ = ("_refusal", "count", "errors", "handles", "size")

    def __init__(self, count: int, size: int) -> None:
        self.count = count
        self.size = size
        self.handles: list[bytes] = []
        self.errors: dict[int, ServerError] = {}
        self._refusal: tuple[bytes, bytes] | None = None

    def refuse(self, code: bytes, text: bytes) -> None:
        """The next job was refused. Of many for the same reason one error is kept."""
        index = len(self.handles)
        if self._refusal == (code, text):
            self.errors[index] = self.errors[next(reversed(self.errors))]
        else:
            self._refusal = (code, text)
            self.errors[index] = _server_error(code, text)
        self.handles.append(b"")


class ClientProtocol(PacketProtocol):
    """Speaks for a client on one connection.

    `server` is what the server is called, `codec` makes values of the payloads of jobs, `budget` counts the
    requests, and `on_ended` is called when the connection cannot be used any more.
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
        # Jobs by handle. gearmand gives one handle to all submits of one unique, and sends each packet
        # about it as often as the job was submitted here.
        self._jobs: dict[bytes, list[Job]] = {}
        self._receivers: dict[int, Callable[..., None]] = {
            JOB_CREATED: self._created,
            ECHO_RES: partial(self._answered, ECHO_RES),
            OPTION_RES: partial(self._answered, OPTION_RES),
            STATUS_RES: partial(self._told, STATUS_RES),
            STATUS_RES_UNIQUE: partial(self._told, STATUS_RES_UNIQUE),
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
        """Submit a job. Returns a Deferred of the `Job`; when it is cancelled, the job is ignored.

        `job` is the job's object if it was submitted before, to a server that was lost.
        """
        if job is None:
            job = Job(self.clock, submission.function, submission.unique, submission.background, self._codec)
        return self._ask(submission.packet, submission.body, JOB_CREATED, job)

    def submit_chunk(self, packets: bytes, chunk: Chunk) -> Deferred[None]:
        """Submit several offline jobs, whose packets these are. Fires when each has its answer.

        It fails with `ConnectionLost` behind the answers that came, which the chunk has.
        """
        return self._await(packets, JOB_CREATED, chunk, chunk.size)

    def status(self, handle: bytes) -> Deferred[JobStatus]:
        """Ask for the state of the job `handle`."""
        return self._ask(GET_STATUS, handle, STATUS_RES, handle)

    def status_by_unique(self, unique: bytes) -> Deferred[JobStatus]:
        """Ask for the state of the job with this unique."""
        return self._ask(GET_STATUS_UNIQUE, unique, STATUS_RES_UNIQUE, unique)

    def echo(self, data: bytes) -> Deferred[bytes]:
        """Ask for `data` to be sent back."""
        return self._ask(ECHO_REQ, data, ECHO_RES, None)

    def _ask(self, packet: int, body: bytes, answer: int, about: Any) -> Deferred[Any]:
        return self._await(frame(REQUEST, packet, body), answer, about, len(body))

    def _await(self, packets: bytes, answer: int, about: Any, size: int) -> Deferred[Any]:
        asker: Deferred[Any] = Deferred()
        if not self._requests:
            self.expect_reply()
        self._requests.append(_Request(answer, about, asker, size))
        self._budget.charge(size)
        self.write_buffered(packets)
        return asker

    def send_probe(self) -> None:
        # One that is lost is told by `ended`.
        self.echo(b"").addErrback(lambda _failure: None)

    # -- the connection's calls -----------------------------------------------------------------

    def reply_pending(self) -> bool:
        return bool(self._requests)

    def opened(self) -> None:
        self._ask(OPTION_REQ, b"exceptions", OPTION_RES, None).addErrback(self._without_exceptions)

    def received(self, number: int, fields: list[Any]) -> None:
        receiver = self._receivers.get(number)
        if receiver is not None:
            receiver(*fields)
        else:
            self._log.debug("Ignoring {packet}, which is not for clients", packet=name_of(number))

    def ended(self, why: str) -> None:
        # First, so that whoever asks again because of this gets another connection.
        self._on_ended(self)
        requests, self._requests = self._requests, deque()
        jobs, self._jobs = self._jobs, {}
        for request in requests:
            request.asker.errback(ConnectionLost(f"no answer came: {why}"))
        for same_handle in jobs.values():
            for job in same_handle:
                job._lose(partial(ConnectionLost, f"no result came: {why}"))
        for request in requests:
            self._budget.release(request.size)

    # -- answers, to requests in their order ----------------------------------------------------

    def _due(self, answer: int) -> _Request:
        """The request that packet `answer` answers. Raises `BrokenStream` if that is not the next one."""
        if not self._requests:
            raise BrokenStream(b"", f"{name_of(answer)} answers nothing that was asked")
        request = self._requests[0]
        if answer != request.answer:
            raise BrokenStream(b"", f"{name_of(answer)} came where {name_of(request.answer)} was due")
        return request

    def _next_request(self) -> _Request:
        """The request that is answered now."""
        request = self._requests.popleft()
        self._budget.release(request.size)
        return request

    def _created(self, handle: bytes) -> None:
        about = self._due(JOB_CREATED).about
        if type(about) is Chunk:
            about.handles.append(handle)
            if len(about.handles) == about.count:
                self._next_request().asker.callback(None)
            return
        request = self._next_request()
        job: Job = about
        job.handle = handle
        job.server = self._server_name
        if not job.background:
            # A job whose submitter has gone too: its share of the packets for a handle will come.
            self._jobs.setdefault(handle, []).append(job)
        if request.asker.called:
            job._ignore()
        request.asker.callback(job)

    def _answered(self, answer: int, value: bytes) -> None:
        self._due(answer)
        self._next_request().asker.callback(value)

    def _told(self, answer: int, key: bytes, known: bytes, running: bytes, *numbers: bytes) -> None:
        about = self._due(answer).about
        if key != about:
            raise BrokenStream(b"", f"the state of {about!r} was asked for, that of {key!r} came")
        self._next_request().asker.callback(
            JobStatus(known == b"1", running == b"1", *map(number_from, numbers))
        )

    def _refused(self, code: bytes, text: bytes) -> None:
        if not self._requests:
            error = _server_error(code, text)
            self._log.warn("The server sent an ERROR without a request: {error}", error=error)
            return
        chunk = self._requests[0].about
        if not isinstance(chunk, Chunk):
            self._next_request().asker.errback(_server_error(code, text))
            return
        chunk.refuse(code, text)
        if len(chunk.handles) == chunk.count:
            self._next_request().asker.callback(None)

    def _without_exceptions(self, failure: Failure) -> None:
        """The server knows no exceptions: jobs that raise will be jobs that failed."""
        if isinstance(failure.value, ServerError):
            self._log.warn("The server does not forward exceptions: {error}", error=failure.value)

    # -- news of jobs, by handle ----------------------------------------------------------------

    def _completed(self, handle: bytes, data: bytes) -> None:
        job = self._take(handle)
        if job is not None:
            job._complete(data)

    def _failed(self, handle: bytes) -> None:
        job = self._take(handle)
        if job is not None:
            job._fail(partial(JobFailed, handle))

    def _raised(self, handle: bytes, data: bytes) -> None:
        job = self._take(handle)
        if job is not None:
            job._fail(partial(JobRaised, handle, data))

    def _data(self, handle: bytes, data: bytes) -> None:
        self._update(handle, DataUpdate(data))

    def _warning(self, handle: bytes, data: bytes) -> None:
        self._update(handle, WarningUpdate(data))

    def _status(self, handle: bytes, numerator: bytes, denominator: bytes) -> None:
        self._update(handle, StatusUpdate(number_from(numerator), number_from(denominator)))

    def _update(self, handle: bytes, update: Update) -> None:
        """Give an update to the job, or to that one of several with the handle whose turn it is."""
        jobs = self._jobs.get(handle)
        if jobs is None:
            self._unknown(handle)
            return
        job = jobs[0]
        if len(jobs) > 1:
            jobs.append(jobs.pop(0))
        job._update(update)

    def _take(self, handle: bytes) -> Job | None:
        """The job with this handle, which has now ended; of several the one whose turn it is."""
        jobs = self._jobs.get(handle)
        if jobs is None:
            self._unknown(handle)
            return None
        job = jobs.pop(0)
        if not jobs:
            del self._jobs[handle]
        return job

    def _unknown(self, handle: bytes) -> None:
        self._log.debug("Ignoring news of the job {handle}, which is not waited for", handle=handle)


def _server_error(code: bytes, text: bytes) -> ServerError:
    return ServerError(*(field.decode("utf-8", "backslashreplace") for field in (code, text)))
