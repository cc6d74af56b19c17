"""The worker's end of one connection: offering functions, grabbing jobs, reporting their outcomes.

`Prefetcher` says when to grab. Where the server has no job the connection sleeps until the server wakes it;
after many spurious wakeups it backs off.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from txgearman.codecs import BYTES, Codec
from txgearman.connection.arguments import body_of
from txgearman.connection.backpressure import Backpressure
from txgearman.connection.heartbeat import LivenessCheck
from txgearman.connection.options import OptionRequests
from txgearman.connection.protocol import PacketProtocol
from txgearman.errors import (
    FailJob,
    RaisedInProcess,
    Refused,
    Reject,
    Retry,
    ServerError,
    TimeLimitExceeded,
)
from txgearman.wire.attributes import parse_attributes
from txgearman.wire.codec import frame
from txgearman.wire.names import text_of
from txgearman.wire.options import CANCEL, EXCEPTIONS, HEARTBEAT, OUTCOMES
from txgearman.wire.packets import (
    CAN_DO,
    CAN_DO_TIMEOUT,
    CANT_DO,
    ECHO_RES,
    ERROR,
    GRAB_JOB_ALL,
    JOB_ASSIGN,
    JOB_ASSIGN_ALL,
    JOB_ASSIGN_EXTENDED,
    JOB_ASSIGN_UNIQ,
    JOB_CANCEL,
    NO_JOB,
    NOOP,
    OPTION_RES,
    PRE_SLEEP,
    REQUEST,
    SET_CLIENT_ID,
    WORK_COMPLETE,
    WORK_EXCEPTION,
    WORK_FAIL,
    WORK_FAIL_EXTENDED,
    WORK_REJECT,
    WORK_RETRY,
    name_of,
)
from txgearman.worker.functions import (
    ExceptionReport,
    Function,
    call,
    exception_text,
    exception_traceback,
    truncate_utf8,
)
from txgearman.worker.heartbeats import Heartbeats
from txgearman.worker.hooks import NO_HOOKS, Hooks, maybe_await, run_hook
from txgearman.worker.job import Job
from txgearman.worker.prefetch import (
    READY,
    ConcurrencyLimit,
    Prefetcher,
    State,
    assigned,
    found_empty,
    release_slot,
)

MAX_SPURIOUS_WAKEUPS: Final = 10
"""Spurious wakeups in a row, each soon after the connection slept and without a job, before it backs off.
gearmand 1.1.20 wakes a worker without end while an EPOCH job of one of its functions is not due. Ten also
happen when many workers are woken for one job."""

SPURIOUS_WAKEUP_BACKOFF: Final = 0.05
"""Seconds of that backoff. A wakeup that comes later than this after the sleep is not spurious. Short enough
not to matter where the next wakeup brings a job, long enough that the load is not noticed."""

WRITE_BUFFER_SECONDS: Final = 0.001
"""Seconds after a read during which the reports of its jobs are buffered for one write. A system call takes a
hundredth of that. So no result waits for a job that runs longer, unless those before it took no time."""

MAX_RETRY_DELAY: Final = 10 * 365 * 86400.0
"""Seconds; ten years stand for any longer delay of a retry, as with servers."""

_GRAB: Final = frame(REQUEST, GRAB_JOB_ALL, b"")
_SLEEP: Final = frame(REQUEST, PRE_SLEEP, b"")


@dataclass(frozen=True, slots=True)
class ConnectionConfig:
    """What a worker does on a connection.

    Attributes:
        functions: The functions that it offers, by name; they may change.
        limits: The limits that its jobs count for.
        prefetcher: Says when to grab.
        client_id: The name that the server shows for the connection; None for none.
        codec: Makes the data of jobs, and payloads.
        hooks: Called around each job.
        tracebacks: Whether submitters are told the traceback of an exception.
        check: When a silent server counts as dead; None for never.
        heartbeat: Whether the server is told of each job that it still runs, where it asks for that.
    """

    functions: Mapping[bytes, Function]
    limits: tuple[ConcurrencyLimit, ...]
    prefetcher: Prefetcher
    client_id: bytes | None = None
    codec: Codec = BYTES
    hooks: Hooks = NO_HOOKS
    tracebacks: bool = False
    check: LivenessCheck | None = None
    heartbeat: bool = False


class WorkerProtocol(PacketProtocol):
    """Speaks for a worker on one connection.

    Args:
        clock: As for `PacketProtocol`.
        max_packet: As for `PacketProtocol`.
        config: What the worker does on it.
        on_opened: Called with this protocol when the connection can be used.
        on_introduced: Called once the server has answered the introduction, with None or with the first thing
            that it has refused.
        on_ended: Called with this protocol when the connection cannot be used any more.
    """

    def __init__(
        self,
        clock: IReactorTime,
        max_packet: int,
        config: ConnectionConfig,
        on_opened: Callable[[WorkerProtocol], object],
        on_introduced: Callable[[ServerError | None], object],
        on_ended: Callable[[WorkerProtocol], object],
    ) -> None:
        super().__init__(clock, max_packet, config.check)
        self.codec = config.codec
        self.state = READY
        self.limits = config.limits
        self.emptied_at = 0.0
        self.pending_grabs = 0
        self.prefetch = 0
        self._config = config
        self._functions = config.functions
        self._hooks = config.hooks
        self._prefetcher = config.prefetcher
        self._on_opened = on_opened
        self._on_introduced: Callable[[ServerError | None], object] | None = on_introduced
        self._on_ended = on_ended
        self._on_idle: Callable[[], object] | None = None
        # The jobs that run, each with the Deferred of its outcome, None while a function is in its call.
        self._running: dict[Job, Deferred[Any] | None] = {}
        self._spurious_wakeups = 0
        self._slept_at = 0.0
        self._backoff: IDelayedCall | None = None
        self._options = OptionRequests()
        self._first_refusal: ServerError | None = None
        self._heartbeats = Heartbeats(clock, self.write) if config.heartbeat else None
        self._receivers: dict[int, Callable[..., None]] = {
            JOB_ASSIGN: self._assigned,
            JOB_ASSIGN_UNIQ: self._assigned_unique,
            JOB_ASSIGN_ALL: self._assigned_all,
            JOB_ASSIGN_EXTENDED: self._assigned_extended,
            NO_JOB: self._no_job,
            NOOP: self._woken,
            OPTION_RES: self._options.accept,
            JOB_CANCEL: self._cancelled,
            ERROR: self._refused,
            ECHO_RES: self._echoed,
        }

    # -- the worker's calls ---------------------------------------------------------------------

    def announce(self, function: Function) -> None:
        """Offer a function from now on."""
        if self.state in (State.ASLEEP, State.EMPTY):
            # The server does not wake a sleeper for jobs that are queued already, so grab.
            self.state = READY
            self._send_and_grab(_can_do(function))
        else:
            self.write(_can_do(function))

    def withdraw(self, name: bytes) -> None:
        """Stop offering a function."""
        self.write(frame(REQUEST, CANT_DO, name))

    def when_idle(self, call: Callable[[], object]) -> None:
        """Call `call` once no job runs here and no pending grab can bring one, now or later."""
        self._on_idle = call
        self._check_idle()

    def _check_idle(self) -> None:
        # A server gives no job, whatever grabs are pending, once no function is offered.
        awaiting = self.pending_grabs and self._functions
        if self._on_idle is not None and not self._running and not awaiting:
            self._on_idle()

    # -- the prefetcher's calls ---------------------------------------------------------------------

    def grab(self) -> None:
        self.write(_GRAB)

    def sleep(self) -> None:
        self.state = State.ASLEEP
        self._slept_at = self.clock.seconds()
        self.write(_SLEEP)

    # -- the connection's calls -----------------------------------------------------------------

    def writable(self) -> Deferred[None]:
        """Fires when the connection takes more bytes, and when it is lost. For running jobs."""
        return self._backpressure.writable()

    def opened(self) -> None:
        self._backpressure = Backpressure(cast(IConsumer, self.transport))
        client_id = self._config.client_id
        introduction = [] if client_id is None else [frame(REQUEST, SET_CLIENT_ID, client_id)]
        introduction += map(self._options.ask, (EXCEPTIONS, CANCEL, OUTCOMES))
        if self._heartbeats is not None:
            introduction.append(self._options.ask(HEARTBEAT))
        introduction += map(_can_do, self._functions.values())
        self._prefetcher.join(self)
        self._send_and_grab(b"".join(introduction))
        self._on_opened(self)

    def received(self, number: int, fields: list[Any]) -> None:
        receiver = self._receivers.get(number)
        if receiver is not None:
            receiver(*fields)
        else:
            self._log.debug("Ignoring {packet}, which is not for workers", packet=name_of(number))

    def ended(self, why: str) -> None:
        self._prefetcher.leave(self)
        self._on_ended(self)
        if self._first_refusal is not None:
            # The server has refused the connection itself.
            self._introduced()
        if self._backoff is not None:
            self._backoff.cancel()
            self._backoff = None
        if self._heartbeats is not None:
            self._heartbeats.stop()
        running, self._running = self._running, {}
        for job, outcome in running.items():
            if job.cancelled:
                continue
            job._writer = None
            self._log.warn(
                "The connection ended while {job} ran, its outcome is discarded: {why}", job=job, why=why
            )
            if outcome is not None:
                self._cancel(outcome, job)
        self._backpressure.close()
        self._prefetcher.grab()

    def _cancel(self, outcome: Deferred[Any], job: Job) -> None:
        try:
            outcome.cancel()
        except Exception:
            self._log.failure("Cancelling {job} raised", job=job)

    # -- packets from the server ---------------------------------------------------------------

    def _assigned(self, handle: bytes, function: bytes, data: bytes) -> None:
        self._run(Job(self, handle, function, b"", None, data))

    def _assigned_unique(self, handle: bytes, function: bytes, unique: bytes, data: bytes) -> None:
        self._run(Job(self, handle, function, unique, None, data))

    def _assigned_all(
        self, handle: bytes, function: bytes, unique: bytes, reducer: bytes, data: bytes
    ) -> None:
        self._run(Job(self, handle, function, unique, reducer or None, data))

    def _assigned_extended(
        self, handle: bytes, function: bytes, unique: bytes, reducer: bytes, attributes: bytes, data: bytes
    ) -> None:
        if not attributes:
            self._run(Job(self, handle, function, unique, reducer or None, data, 1, 0))
            return
        said: Mapping[str, str] = {}
        try:
            said = parse_attributes(attributes)
            attempt, losses = int(said.get("attempt", 1)), int(said.get("losses", 0))
            heartbeat = float(said.get("heartbeat", 0))
        except (Refused, ValueError) as error:
            # The job itself is whole.
            self._log.warn("The server said what cannot be of {handle}: {error}", handle=handle, error=error)
            attempt, losses, heartbeat = 1, 0, 0.0
        traceparent = said.get("traceparent")
        job = Job(self, handle, function, unique, reducer or None, data, attempt, losses, traceparent)
        if (
            self._heartbeats is not None
            and 0 < heartbeat < math.inf
            and HEARTBEAT in self._options.accepted
            and function in self._functions
        ):
            self._heartbeats.begin(job, heartbeat)
        self._run(job)

    def _no_job(self) -> None:
        if self._on_introduced is not None:
            self._introduced()
        if self.pending_grabs:
            found_empty(self, self.clock.seconds())
            self._send_and_grab()
            self._check_idle()

    def _woken(self) -> None:
        if self.state is not State.ASLEEP:
            return
        if self.clock.seconds() - self._slept_at > SPURIOUS_WAKEUP_BACKOFF:
            self._spurious_wakeups = 0
        if self._spurious_wakeups < MAX_SPURIOUS_WAKEUPS:
            self._spurious_wakeups += 1
            self.state = READY
            self._send_and_grab()
        else:
            self.state = State.BACKING_OFF
            self._backoff = self.clock.callLater(SPURIOUS_WAKEUP_BACKOFF, self._resume)

    def _resume(self) -> None:
        self._backoff = None
        self.state = READY
        self._send_and_grab()

    def _cancelled(self, handle: bytes, reason: bytes) -> None:
        """Stop a job. Nothing is sent of it from now on: its handle may come again, with another run.

        One that has just been reported is not here any more.
        """
        for job, outcome in self._running.items():
            if job.handle == handle and not job.cancelled:
                job.cancel_reason = reason.decode("utf-8", "replace")
                job._writer = None
                self._log.info("{job} is to stop: {reason}", job=job, reason=job.cancel_reason)
                if outcome is not None:
                    self._cancel(outcome, job)
                break

    def _echoed(self, _data: bytes) -> None:
        """The server is alive. The bytes themselves have told the heartbeat already."""

    def _introduced(self) -> None:
        """The first grab is answered, and with it all that was said before, as a server answers in order."""
        on_introduced, self._on_introduced = self._on_introduced, None
        if on_introduced is not None:
            on_introduced(self._first_refusal)

    def _refused(self, code: bytes, text: bytes) -> None:
        if self._options.refuse(code):
            return
        error = ServerError(text_of(code), text_of(text))
        if self._on_introduced is not None and self._first_refusal is None:
            self._first_refusal = error
        on_refusal = self._hooks.on_refusal
        if on_refusal is None:
            self._log.warn("The server refused: {error}", error=error)
            return
        try:
            on_refusal(error)
        except Exception:
            self._log.failure("The hook for {error} raised", error=error)

    # -- jobs -----------------------------------------------------------------------------------

    def _run(self, job: Job) -> None:
        assigned(self)
        if self._on_introduced is not None:
            self._introduced()
        self._spurious_wakeups = 0
        function = self._functions.get(job.function)
        if function is None:
            # It crossed with CANT_DO, after which the server queues the function's jobs again.
            self._log.info("Leaving {job} to the server: the function was unregistered", job=job)
            release_slot(self)
            self._send_and_grab()
            self._check_idle()
            return
        self._running[job] = None
        try:
            if function.decode is not None:
                job.data = function.decode(job.data)
            if self._hooks.before_job is None:
                outcome = call(function, job, self.clock)
            else:
                outcome = Deferred.fromCoroutine(self._prepare_and_call(function, job))
        # Even a function that tries to end the process must not end just the worker's connection.
        except BaseException:
            self._raised(Failure(), job)
            return
        if isinstance(outcome, Deferred):
            self._await(outcome, job, function)
        else:
            self._returned(outcome, job, function)

    async def _prepare_and_call(self, function: Function, job: Job) -> object:
        assert self._hooks.before_job is not None
        await maybe_await(self._hooks.before_job(job))
        return await maybe_await(call(function, job, self.clock))

    def _await(self, outcome: Deferred[Any], job: Job, function: Function) -> None:
        stopped = job.over
        if not stopped:
            self._running[job] = outcome
        outcome.addCallbacks(self._returned, self._raised, callbackArgs=(job, function), errbackArgs=(job,))
        if stopped:
            # The function ended the connection before it returned.
            self._cancel(outcome, job)
        else:
            self._send_and_grab()

    def _returned(self, result: object, job: Job, function: Function) -> None:
        if job._writer is None:
            lost = (
                "the result is discarded"
                if job.cancelled
                else "the connection was lost, the result is discarded"
            )
            self._raised(Failure(job._why_over(lost)), job)
            return
        try:
            payload = function.encode(result)
            body = body_of((job.handle, payload), self.max_packet)
        except Exception:
            self._raised(Failure(), job)
            return
        after = self._hooks.after_job
        if after is None:
            self._report(job, WORK_COMPLETE, body)
        else:
            run_hook(after, job, payload, lambda: self._report(job, WORK_COMPLETE, body))

    def _raised(self, failure: Failure, job: Job) -> None:
        packet, body = WORK_FAIL, job.handle
        if job._writer is not None:
            packet, body = self._failure_report(failure, job)
        on_failure = self._hooks.on_failure
        if on_failure is None:
            self._report(job, packet, body)
        else:
            run_hook(on_failure, job, failure, lambda: self._report(job, packet, body))

    def _failure_report(self, failure: Failure, job: Job) -> tuple[int, bytes]:
        """The packet that reports a failure to the server, and its body. The failure is logged."""
        error = failure.value
        assert error is not None
        if isinstance(error, FailJob):
            self._log.info("{job} failed: {error}", job=job, error=error)
            return self._deliberate_failure_report(error, job)
        if isinstance(error, Retry | Reject):
            what = "is to be retried" if isinstance(error, Retry) else "is rejected"
            self._log.info("{job} {what}: {error}", job=job, what=what, error=error)
            if OUTCOMES in self._options.accepted:
                return _decision_report(error, job)
        elif isinstance(error, TimeLimitExceeded):
            self._log.warn("{job} failed: {error}", job=job, error=error)
        elif isinstance(error, RaisedInProcess):
            self._log.failure("{job} raised in its process: {trace}", failure, job=job, trace=error.traceback)
        else:
            self._log.failure("{job} raised", failure, job=job)
        if EXCEPTIONS not in self._options.accepted:
            return WORK_FAIL, job.handle
        text = exception_traceback(failure) if self._config.tracebacks else exception_text(error)
        return WORK_EXCEPTION, job.handle + b"\0" + text

    def _deliberate_failure_report(self, error: FailJob, job: Job) -> tuple[int, bytes]:
        """The packet that reports a job that failed itself, and its body."""
        says_why = OUTCOMES in self._options.accepted and not isinstance(error, ExceptionReport)
        if error.data is not None and (says_why or EXCEPTIONS in self._options.accepted):
            packet = WORK_FAIL_EXTENDED if says_why else WORK_EXCEPTION
            try:
                return packet, body_of((job.handle, error.data), self.max_packet)
            except ValueError as too_long:
                self._log.error("The data of the failure of {job} is not sent: {why}", job=job, why=too_long)
        text = truncate_utf8(str(error))
        if says_why and text:
            return WORK_FAIL_EXTENDED, job.handle + b"\0" + text
        return WORK_FAIL, job.handle

    def _report(self, job: Job, packet: int, body: bytes) -> None:
        """The job has ended: send its report, and the next grabs in the same write."""
        if job._writer is None:
            # The connection is lost, or the job is cancelled.
            self._running.pop(job, None)
            self._release_slot_when_ended(job)
            if job.cancelled and self._on_idle is not None:
                self._check_idle()
            return
        job._writer = None
        del self._running[job]
        if self._heartbeats is not None:
            self._heartbeats.end(job)
        if job._slot_held_until is None:
            grabs = self._prefetcher.job_ended(self)
        else:
            self._release_slot_when_ended(job)
            grabs = self._prefetcher.grab(self)
        self._write_report(frame(REQUEST, packet, body) + _GRAB * grabs)
        if self._on_idle is not None:
            self._check_idle()

    def _release_slot_when_ended(self, job: Job) -> None:
        """Release the slot of a job with an outcome, once its function has ended too."""
        if job._slot_held_until is None:
            self._release_slot()
        else:
            job._slot_held_until.addCallback(lambda _: self._release_slot())

    def _release_slot(self) -> None:
        release_slot(self)
        self._prefetcher.grab()

    def _send_and_grab(self, packets: bytes = b"") -> None:
        """Send `packets`, and grab jobs if it is this connection's turn."""
        packets += _GRAB * self._prefetcher.grab(self)
        if packets:
            self.write(packets)

    def _write_report(self, packets: bytes) -> None:
        """Send `packets` in one write with those of the other jobs of this read, unless these take long."""
        if self.reading and self.clock.seconds() - self.read_at < WRITE_BUFFER_SECONDS:
            self.write_buffered(packets)
        else:
            self.write(packets)


def _decision_report(error: Retry | Reject, job: Job) -> tuple[int, bytes]:
    """The packet that tells the server what a function wants for its job, and its body."""
    text = truncate_utf8(error.text)
    if isinstance(error, Reject):
        return WORK_REJECT, job.handle + b"\0" + text
    delay = b"" if error.delay is None else b"%d" % math.ceil(min(error.delay, MAX_RETRY_DELAY) * 1000)
    return WORK_RETRY, b"%s\0%s\0%d\0%s" % (job.handle, delay, error.counts, text)


def _can_do(function: Function) -> bytes:
    if function.timeout is None:
        return frame(REQUEST, CAN_DO, function.name)
    return frame(REQUEST, CAN_DO_TIMEOUT, function.name + b"\0%d" % function.timeout)
