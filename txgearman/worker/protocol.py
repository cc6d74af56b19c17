"""The worker's end of one connection: offering functions, asking for jobs, reporting how they ended.

Asks for one job at a time, and only while fewer than `concurrency` run. Where the server has none the
connection sleeps until the server wakes it; where the server wakes it in vain again and again, it takes
its time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from txgearman.connection.arguments import body_of
from txgearman.connection.protocol import PacketProtocol
from txgearman.errors import FailJob
from txgearman.wire.codec import frame
from txgearman.wire.packets import (
    CAN_DO,
    CAN_DO_TIMEOUT,
    CANT_DO,
    ERROR,
    GRAB_JOB_ALL,
    JOB_ASSIGN,
    JOB_ASSIGN_ALL,
    JOB_ASSIGN_UNIQ,
    NO_JOB,
    NOOP,
    OPTION_REQ,
    OPTION_RES,
    PRE_SLEEP,
    REQUEST,
    SET_CLIENT_ID,
    WORK_COMPLETE,
    WORK_EXCEPTION,
    WORK_FAIL,
    name_of,
)
from txgearman.worker.functions import Function, call, exception_text, result_bytes
from txgearman.worker.job import Job

VAIN_WAKES: Final = 10
"""How often in a row a connection may be woken at once and yet get no job, before it pauses. gearmand
1.1.20 wakes a worker without end while an EPOCH job of a function of it is not due. Ten can also come
of many workers being woken for one job."""

WAKE_PAUSE: Final = 0.05
"""Seconds of that pause, and of a sleep that was none. Short enough not to matter where the next wake is
not in vain, long enough for a load that is not noticed."""

_GRAB: Final = frame(REQUEST, GRAB_JOB_ALL, b"")
_SLEEP: Final = frame(REQUEST, PRE_SLEEP, b"")


@dataclass(frozen=True, slots=True)
class Offer:
    """What a worker says of itself on each of its connections.

    `functions` are the functions by name, and may change; `client_id` is the name that the server shows
    for the connection, None for none; `concurrency` is how many jobs may run at once.
    """

    functions: Mapping[bytes, Function]
    client_id: bytes | None
    concurrency: int


class WorkerProtocol(PacketProtocol):
    """Speaks for a worker on one connection. `on_opened` and `on_ended` tell when it can be used."""

    def __init__(
        self,
        clock: IReactorTime,
        max_packet: int,
        offer: Offer,
        on_opened: Callable[[WorkerProtocol], object],
        on_ended: Callable[[WorkerProtocol], object],
    ) -> None:
        super().__init__(clock, max_packet)
        self._offer = offer
        self._on_opened = on_opened
        self._on_ended = on_ended
        # The jobs that run, each with the Deferred of its outcome, None while a function is in its call.
        self._running: dict[Job, Deferred[Any] | None] = {}
        self._grabbing = False
        self._asleep = False
        self._vain_wakes = 0
        self._slept_at = 0.0
        self._pause: IDelayedCall | None = None
        self._exceptions = False
        self._receivers: dict[int, Callable[..., None]] = {
            JOB_ASSIGN: self._assigned,
            JOB_ASSIGN_UNIQ: self._assigned_unique,
            JOB_ASSIGN_ALL: self._assigned_all,
            NO_JOB: self._no_job,
            NOOP: self._woken,
            OPTION_RES: self._option_accepted,
            ERROR: self._refused,
        }

    # -- the worker's calls ---------------------------------------------------------------------

    def announce(self, function: Function) -> None:
        """Offer a function from now on."""
        if self._asleep:
            # The server does not wake a sleeper for jobs that wait already, so ask.
            self._asleep = False
            self._send_and_grab(_can_do(function))
        else:
            self.write(_can_do(function))

    def withdraw(self, name: bytes) -> None:
        """Offer a function no more."""
        self.write(frame(REQUEST, CANT_DO, name))

    # -- the connection's calls -----------------------------------------------------------------

    def opened(self) -> None:
        client_id = self._offer.client_id
        introduction = [] if client_id is None else [frame(REQUEST, SET_CLIENT_ID, client_id)]
        introduction.append(frame(REQUEST, OPTION_REQ, b"exceptions"))
        introduction += map(_can_do, self._offer.functions.values())
        self._send_and_grab(b"".join(introduction))
        self._on_opened(self)

    def received(self, number: int, fields: list[Any]) -> None:
        receiver = self._receivers.get(number)
        if receiver is not None:
            receiver(*fields)
        else:
            self._log.debug("Ignoring {packet}, which is not for workers", packet=name_of(number))

    def ended(self, why: str) -> None:
        self._on_ended(self)
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        running, self._running = self._running, {}
        for job, outcome in running.items():
            job._protocol = None
            self._log.warn(
                "The connection ended while {job} ran, its outcome is discarded: {why}", job=job, why=why
            )
            if outcome is not None:
                self._cancel(outcome, job)

    def _cancel(self, outcome: Deferred[Any], job: Job) -> None:
        try:
            outcome.cancel()
        except Exception:
            self._log.failure("Cancelling {job} raised", job=job)

    # -- what the server says -------------------------------------------------------------------

    def _assigned(self, handle: bytes, function: bytes, data: bytes) -> None:
        self._run(Job(self, handle, function, b"", None, data))

    def _assigned_unique(self, handle: bytes, function: bytes, unique: bytes, data: bytes) -> None:
        self._run(Job(self, handle, function, unique, None, data))

    def _assigned_all(
        self, handle: bytes, function: bytes, unique: bytes, reducer: bytes, data: bytes
    ) -> None:
        self._run(Job(self, handle, function, unique, reducer or None, data))

    def _no_job(self) -> None:
        self._grabbing = False
        self._asleep = True
        self._slept_at = self.clock.seconds()
        self.write(_SLEEP)

    def _woken(self) -> None:
        if not self._asleep:
            return
        self._asleep = False
        if self.clock.seconds() - self._slept_at > WAKE_PAUSE:
            self._vain_wakes = 0
        if self._vain_wakes < VAIN_WAKES:
            self._vain_wakes += 1
            self._send_and_grab()
        else:
            self._pause = self.clock.callLater(WAKE_PAUSE, self._resume)

    def _resume(self) -> None:
        self._pause = None
        self._send_and_grab()

    def _option_accepted(self, _option: bytes) -> None:
        self._exceptions = True

    def _refused(self, code: bytes, text: bytes) -> None:
        self._log.warn(
            "The server refused: {code}: {text}",
            code=code.decode("utf-8", "backslashreplace"),
            text=text.decode("utf-8", "backslashreplace"),
        )

    # -- jobs -----------------------------------------------------------------------------------

    def _run(self, job: Job) -> None:
        self._grabbing = False
        self._vain_wakes = 0
        function = self._offer.functions.get(job.function)
        if function is None:
            # It crossed with CANT_DO, on which the server takes back the function's jobs.
            self._log.info("Leaving {job} to the server: the function was unregistered", job=job)
            self._send_and_grab()
            return
        self._running[job] = None
        try:
            outcome = call(function, job)
        # Even a function that wants to end the process must not end the worker's connection only.
        except BaseException:
            self._raised(Failure(), job)
            return
        if not isinstance(outcome, Deferred):
            self._returned(outcome, job)
            return
        stopped = job.over
        if not stopped:
            self._running[job] = outcome
        outcome.addCallbacks(self._returned, self._raised, callbackArgs=(job,), errbackArgs=(job,))
        if stopped:
            # The function ended the connection before it returned.
            self._cancel(outcome, job)
        else:
            self._send_and_grab()

    def _returned(self, result: object, job: Job) -> None:
        if job.over:
            return
        try:
            body = body_of((job.handle, result_bytes(result, job.function)), self.max_packet)
        except (TypeError, ValueError):
            self._raised(Failure(), job)
        else:
            self._report(job, WORK_COMPLETE, body)

    def _raised(self, failure: Failure, job: Job) -> None:
        if job.over:
            return
        error = failure.value
        assert error is not None
        if isinstance(error, FailJob):
            self._log.info("{job} failed: {error}", job=job, error=error)
        else:
            self._log.failure("{job} raised", failure, job=job)
            if self._exceptions:
                self._report(job, WORK_EXCEPTION, job.handle + b"\0" + exception_text(error))
                return
        self._report(job, WORK_FAIL, job.handle)

    def _report(self, job: Job, packet: int, body: bytes) -> None:
        """The job has ended: say how, and ask for the next in the same write."""
        job._protocol = None
        del self._running[job]
        self._send_and_grab(frame(REQUEST, packet, body))

    def _send_and_grab(self, packets: bytes = b"") -> None:
        """Send `packets`, and ask for a job if one can run and the server may have one."""
        waiting = self._grabbing or self._asleep or self._pause is not None
        if not waiting and len(self._running) < self._offer.concurrency:
            self._grabbing = True
            packets += _GRAB
        if packets:
            self.write(packets)


def _can_do(function: Function) -> bytes:
    if function.timeout is None:
        return frame(REQUEST, CAN_DO, function.name)
    return frame(REQUEST, CAN_DO_TIMEOUT, function.name + b"\0%d" % function.timeout)
