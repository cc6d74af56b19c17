"""Every error txgearman raises, sorted by whose fault it is. Nothing else lives here.

* `ProtocolError`: the peer sent something the protocol does not allow.
* `Refused`: the server understood a request and says no; an expected event, not a defect.
* `ClientError`: what a caller of the client meets.
* `StoreError`: what the database that keeps jobs cannot do.
* `FailJob`, `Retry`, `Reject` and `JobOver`: what a worker's function raises and meets.

Wrong arguments of our own callers are plain `ValueError` and `TypeError`.
"""

from __future__ import annotations

import copyreg
import math
from typing import Any


class GearmanError(Exception):
    """The root of all errors of this package.

    All of them can be copied and pickled, to come out of another process for example.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        # An exception's own way calls the class with `args`, which are not what these constructors take.
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]


# -- the peer's fault ---------------------------------------------------------------------------


class ProtocolError(GearmanError):
    """The peer broke the protocol. Both arguments are attributes too.

    Args:
        code: The code that an ERROR packet has for it.
        text: The text of that packet.
    """

    def __init__(self, code: bytes, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class BadPacket(ProtocolError):
    """One packet is wrong, the packets behind it can still be read: answer and go on."""


class BrokenStream(ProtocolError):
    """Where the next packet begins cannot be known, or must not be awaited: close the connection.

    `code` is empty where gearmand closes without an ERROR packet.
    """


# -- expected refusals --------------------------------------------------------------------------


class Refused(GearmanError):
    """The broker says no. `code` and `text` are those of gearmand's ERROR packet, where it has one.

    Args:
        text: Said in place of the text of the class.
    """

    code = b"SERVER_ERROR"
    text = "Refused"

    def __init__(self, text: str | None = None) -> None:
        if text is not None:
            self.text = text
        super().__init__(self.text)


class QueueFull(Refused):
    """The function's limit (``maxqueue``) is reached."""

    code = b"QUEUE_ERROR"
    text = "Job queue is full"


class NotSaved(Refused):
    """The job could not be made durable, and was not accepted."""

    code = b"QUEUE_ERROR"
    text = "Job could not be saved"


class TickOutdated(NotSaved):
    """The schedule of a tick has been changed, paused or removed by another server, as the store knows."""

    text = "The schedule was changed by another server"


class ServerFull(QueueFull):
    """The server's limit of jobs (``--max-jobs``) is reached.

    Args:
        limit: How many jobs there may be.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(f"Server has its limit of {limit} jobs")


class CoalescedTooOften(QueueFull):
    """The client waits for this job as often as it may.

    Args:
        limit: How often that is.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(f"Connection waits for this job {limit} times, as often as it may")


class TooManyFunctions(QueueFull):
    """The server's limit of functions (``--max-functions``) is reached.

    Args:
        limit: How many functions there may be.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(f"Server has its limit of {limit} functions")


class TooManyUniques(QueueFull):
    """The server's limit of kept uniques (``--max-kept-uniques``) is reached.

    Args:
        limit: How many it keeps.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(f"Server has its limit of {limit} kept uniques")


class UniqueKept(Refused):
    """Who submits wants to wait for a job that is done already: its unique is kept, see ``unique-for``.

    Args:
        handle: The job that was completed.
    """

    code = b"UNIQUE_KEPT"

    def __init__(self, handle: bytes) -> None:
        super().__init__(f"Job was completed before, as {handle.decode('utf-8', 'backslashreplace')}")


class RateExceeded(Refused):
    """The function's jobs come in faster than its limit (``--submit-rate``, ``maxrate``) allows.

    Args:
        per_second: How many new jobs a second it takes.
    """

    code = b"RATE_EXCEEDED"

    def __init__(self, per_second: float) -> None:
        super().__init__(f"Function takes at most {per_second:g} new jobs a second")


class ShuttingDown(Refused):
    """The server is about to end and takes no new jobs."""

    code = b"SHUTTING_DOWN"
    text = "Server is shutting down"


class LookupFailed(Refused):
    """Whether the store has a job cannot be known now."""

    text = "Job could not be looked up"


class ArgumentTooLarge(Refused):
    """A name is longer than its limit."""

    code = b"ARGUMENT_TOO_LARGE"
    text = "Argument too large"


class InvalidArgument(Refused):
    """A value cannot be understood, a number that is none for example."""

    code = b"INVALID_ARGUMENT"
    text = "Invalid argument"


class JobNotFound(Refused):
    """The handle is unknown, or the job is not with the worker that reports on it."""

    code = b"JOB_NOT_FOUND"
    text = "Job does not exist on server"


class UniqueInUse(Refused):
    """A dead job cannot be retried, as a live job of its function has its unique now."""

    code = b"UNIQUE_IN_USE"
    text = "A live job has the unique of this one"


class ScheduleNotFound(Refused):
    """There is no schedule of this name."""

    code = b"UNKNOWN_SCHEDULE"
    text = "There is no such schedule"


class TooManyWaits(Refused):
    """As many clients wait for results as may, or one for as many as it may.

    Args:
        limit: How many that is.
    """

    code = b"TOO_MANY_WAITS"

    def __init__(self, limit: int) -> None:
        super().__init__(f"Results are waited for {limit} times, as often as they may")


class ScheduleNotSaved(Refused):
    """A change of a schedule could not be stored, and was not made here."""

    code = b"NOT_SAVED"
    text = "The store could not be written to: try again later"


class SettingNotSaved(Refused):
    """A setting of a function holds on this server, and could not be stored yet.

    Args:
        why: What the store said.
    """

    code = b"NOT_SAVED"

    def __init__(self, why: str) -> None:
        super().__init__(f"It holds on this server, and is stored when the store is back: {why}")


class ScheduleConflict(Refused):
    """A schedule is being changed by other servers, again and again."""

    code = b"SCHEDULE_CONFLICT"
    text = "Other servers change this schedule at the same time: try again"


class ScheduleOfFile(Refused):
    """A schedule of the configuration file can be paused and run, but not changed or removed."""

    code = b"SCHEDULE_OF_FILE"
    text = "This schedule is in the configuration file: change it there and reload"


class SchedulesUnsaved(Refused):
    """Without a store a schedule that is added while the server runs would be lost with it."""

    code = b"NO_STORE"
    text = "Without a store schedules are lost with the server; allow-unsaved-schedules permits that"


class TooManySchedules(Refused):
    """The server's limit of schedules (``--max-schedules``) is reached.

    Args:
        limit: How many there may be.
    """

    code = b"TOO_MANY_SCHEDULES"

    def __init__(self, limit: int) -> None:
        super().__init__(f"There are {limit} schedules, as many as may be (max-schedules)")


class AccessDenied(Refused):
    """The operator's access policy does not allow this to the peer."""

    code = b"ACCESS_DENIED"
    text = "Access denied"


class FunctionNotFound(Refused):
    """``drop function`` of a function that does not exist."""

    text = "function not found"


class FunctionInUse(Refused):
    """``drop function`` of a function that has workers or jobs."""

    text = "there are still connected workers or executing clients"


# -- what the store meets -----------------------------------------------------------------------


class StoreError(GearmanError):
    """The store cannot be used as it is; the text says why."""


class StoreUnavailable(StoreError):
    """The store cannot be reached or cannot write for now. It may be able to later."""


class LeaseLost(StoreError):
    """This server did not prolong its lease in time: its jobs belong to others now."""


# -- what users of the client meet --------------------------------------------------------------


class ClientError(GearmanError):
    """A request or a job did not end well."""


class ServerError(ClientError):
    """The server answered a request with an ERROR packet. Both arguments are attributes too.

    Args:
        code: The server's error code such as ``QUEUE_ERROR``.
        text: The server's words.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text


class NotSupported(ServerError):
    """The server lacks the extension of the protocol that a request needs. The request was not sent.

    The arguments are attributes too.

    Args:
        server: The server's name.
        option: The option that it does not know.
        needed_for: What of the request needs it.
    """

    def __init__(self, server: str, option: str, needed_for: str) -> None:
        where = f"the server {server}" if server else "the server"
        super().__init__("UNKNOWN_OPTION", f"{where} lacks the extension {option}, needed for {needed_for}")
        self.server = server
        self.option = option
        self.needed_for = needed_for


class ConnectionLost(ClientError):
    """The connection ended before the answer came; whether the job ran is unknown."""


class NotConnected(ConnectionLost):
    """No connection could be made, or the client was closed before: nothing was sent."""


class TimedOut(ClientError):
    """The answer did not come within the time limit; the job may still run."""


class NotAllAccepted(ClientError):
    """Not all jobs of a batch were accepted; its text and its ``__cause__`` say why.

    The first three arguments are attributes too.

    Args:
        taken: How many payloads were taken from the batch. Those after them were not looked at.
        handles: The handles of the taken jobs in their order, empty for those that were not accepted. There
            is none if the batch was not to keep them.
        errors: The errors of the jobs that were not accepted, by their places in the batch from 0.
        why: What the text says in the end.
    """

    def __init__(self, taken: int, handles: list[bytes], errors: dict[int, Exception], why: str) -> None:
        super().__init__(f"{len(errors)} of {taken} jobs were not accepted: {why}")
        self.taken = taken
        self.handles = handles
        self.errors = errors


class NoResult(ClientError):
    """The result of an offline (background) job was asked for: it never has one."""


class UpdatesLost(ClientError):
    """More updates of a job came than are kept for a reader; those after the last one read are gone."""


class JobError(ClientError):
    """The job was run and did not give a result. Its `handle` is an attribute.

    Args:
        handle: The job.
        text: What happened to it.
    """

    def __init__(self, handle: bytes, text: str) -> None:
        super().__init__(text)
        self.handle = handle


class JobFailed(JobError):
    """The worker failed the job (WORK_FAIL), or the server gave it up. `JobRaised` is one that says why.

    Args:
        handle: The job.
    """

    def __init__(self, handle: bytes) -> None:
        super().__init__(handle, f"job {handle.decode('utf-8', 'backslashreplace')} failed")


class JobRaised(JobFailed):
    """The worker failed the job and said why (WORK_EXCEPTION): mostly its function raised. Both arguments are
    attributes too.

    Args:
        handle: The job.
        data: What the worker sent of the exception.
    """

    def __init__(self, handle: bytes, data: bytes) -> None:
        JobError.__init__(
            self,
            handle,
            f"job {handle.decode('utf-8', 'backslashreplace')} raised: "
            f"{data.decode('utf-8', 'backslashreplace')}",
        )
        self.data = data


class ResultPending(JobError):
    """The result of a job was asked for without waiting, and the job has not ended. Both arguments are
    attributes too.

    Args:
        handle: The job.
        state: Its state: ``saving``, ``scheduled``, ``queued``, ``stored``, ``running`` or ``retrying``.
    """

    def __init__(self, handle: bytes, state: str) -> None:
        super().__init__(
            handle, f"job {handle.decode('utf-8', 'backslashreplace')} has no result yet: it is {state}"
        )
        self.state = state


class ResultGone(JobError):
    """A job has ended, and there is no result of it. Both arguments are attributes too.

    Args:
        handle: The job.
        reason: How it ended: ``completed`` where its result is not kept, or not any more, ``cancelled`` or
            ``expired`` for example; ``too-large`` where its result was too large to be kept.
    """

    def __init__(self, handle: bytes, reason: str) -> None:
        why = {
            "completed": "was completed, and its result is not kept",
            "too-large": "was completed, but its result was too large to be kept",
        }
        super().__init__(
            handle,
            f"job {handle.decode('utf-8', 'backslashreplace')} "
            f"{why.get(reason, f'has no result: it ended as {reason}')}",
        )
        self.reason = reason


class UnknownJob(JobError):
    """No server knows of a job, or of its result.

    Args:
        handle: The job.
    """

    def __init__(self, handle: bytes) -> None:
        super().__init__(handle, f"no server knows of the job {handle.decode('utf-8', 'backslashreplace')}")


class BadPayload(JobError):
    """A payload of the job could not be decoded by the codec. Its `handle` and `data` are attributes.

    Args:
        handle: The job.
        data: The payload.
        why: What the codec raised.
    """

    def __init__(self, handle: bytes, data: bytes, why: str) -> None:
        super().__init__(
            handle,
            f"a payload of the job {handle.decode('utf-8', 'backslashreplace')} cannot be decoded: {why}",
        )
        self.data = data


class AdminError(ClientError):
    """The server refused an admin command with an ERR line. Its `text` is an attribute.

    Args:
        text: What the line says after ``ERR``.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


# -- what functions of a worker raise and meet --------------------------------------------------


class FailJob(GearmanError):
    """A worker's function raises this to fail its job.

    Args:
        text: Why, for the worker's log. A server with the option ``outcomes`` keeps it with the job and tells
            submitters, who find it in `JobRaised.data`. With others they are told nothing but the failure
            (WORK_FAIL), as `JobFailed`.
        data: What submitters are told in place of the text, as of an exception (WORK_EXCEPTION): they find
            it in `JobRaised.data`. Every server passes it on.

    Raises:
        TypeError: The data is not bytes.
    """

    def __init__(self, text: str = "", *, data: bytes | None = None) -> None:
        if data is not None and not isinstance(data, bytes):
            raise TypeError(f"the data must be bytes, not {type(data).__name__}")
        super().__init__(text)
        self.data = data


class Retry(GearmanError):
    """A worker's function raises this to have its job run again later.

    The run has failed, and the server queues the job again. It needs the option ``outcomes`` for that; with
    other servers this is an exception like any other. All arguments are attributes too.

    Args:
        delay: Seconds until the job is queued again; None for the backoff of its function.
        text: Why, for logs, for submitters, and for whoever looks at the job.
        counts: Whether the run counts as an attempt, of which the server allows so many. One that does not
            is for a job that has to wait for something, and has not failed.

    Raises:
        TypeError: The delay is no number, or the text is no str.
        ValueError: The delay is negative or not finite.
    """

    def __init__(self, delay: float | None = None, text: str = "", counts: bool = True) -> None:
        if delay is not None:
            if isinstance(delay, bool) or not isinstance(delay, int | float):
                raise TypeError(f"the delay must be a number of seconds, not {type(delay).__name__}")
            if not 0 <= delay < math.inf:
                raise ValueError(f"the delay must be 0 seconds or more, not {delay!r}")
        if not isinstance(text, str):
            raise TypeError(f"the text must be a str, not {type(text).__name__}")
        super().__init__(text)
        self.delay = delay
        self.text = text
        self.counts = bool(counts)


class Reject(GearmanError):
    """A worker's function raises this for a job that no retry can help, such as one with bad data.

    The job fails at once, whatever attempts are left; a background job is dead. That needs a server with the
    option ``outcomes``; with others this is an exception like any other.

    Args:
        text: Why, for logs, for submitters, and for whoever looks at the job. An attribute too.

    Raises:
        TypeError: The text is no str.
    """

    def __init__(self, text: str = "") -> None:
        if not isinstance(text, str):
            raise TypeError(f"the text must be a str, not {type(text).__name__}")
        super().__init__(text)
        self.text = text


class JobOver(GearmanError):
    """Something was sent for a job that has ended, or whose connection was lost."""


class JobCancelled(JobOver):
    """Something was sent for a job that the server has told its worker to stop. Its `reason` is an attribute.

    Args:
        text: What was tried.
        reason: Why the job is to stop, in the server's word, such as ``cancelled`` or ``timed-out``.
    """

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(text)
        self.reason = reason


class TimeLimitExceeded(GearmanError):
    """A worker's function ran longer than its ``time_limit``; the job failed. Its `seconds` is an attribute.

    Args:
        seconds: The time limit.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the function ran longer than its time limit of {seconds:g} seconds")
        self.seconds = seconds


class ProcessDied(GearmanError):
    """The worker process that ran a job ended in the middle of it."""


class RaisedInProcess(GearmanError):
    """A function raised in a worker process. Both arguments are attributes too.

    Args:
        text: The exception's type and message.
        traceback: Its traceback there.
    """

    def __init__(self, text: str, traceback: str) -> None:
        super().__init__(text)
        self.text = text
        self.traceback = traceback
