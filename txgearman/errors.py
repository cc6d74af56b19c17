"""Every error txgearman raises, sorted by whose fault it is. Nothing else lives here.

* `ProtocolError`: the peer sent something the protocol does not allow.
* `Refused`: the server understood a request and says no; an expected event, not a defect.
* `ClientError`: what a caller of the client meets.
* `StoreError`: what the database that keeps jobs cannot do.
* `FailJob` and `JobOver`: what a worker's function raises and meets.

Wrong arguments of our own callers are plain `ValueError` and `TypeError`.
"""

from __future__ import annotations

import copyreg
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


class ScheduleNotSaved(Refused):
    """A change of a schedule could not be stored, and was not made here."""

    code = b"NOT_SAVED"
    text = "The store could not be written to: try again later"


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
        taken: How many payloads were taken from the batch. Those behind them were not looked at.
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
    """More updates of a job came than are kept for a reader; those behind the last one read are gone."""


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
    """The worker failed the job (WORK_FAIL), or the server gave it up.

    Args:
        handle: The job.
    """

    def __init__(self, handle: bytes) -> None:
        super().__init__(handle, f"job {handle.decode('utf-8', 'backslashreplace')} failed")


class JobRaised(JobError):
    """The worker's function raised (WORK_EXCEPTION). Both arguments are attributes too.

    Args:
        handle: The job.
        data: What the worker sent of the exception.
    """

    def __init__(self, handle: bytes, data: bytes) -> None:
        super().__init__(
            handle,
            f"job {handle.decode('utf-8', 'backslashreplace')} raised: "
            f"{data.decode('utf-8', 'backslashreplace')}",
        )
        self.data = data


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
        text: What the line says behind ``ERR``.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


# -- what functions of a worker raise and meet --------------------------------------------------


class FailJob(GearmanError):
    """A worker's function raises this to fail its job.

    Args:
        text: Logged, not sent.
        data: What the submitter is told as of an exception (WORK_EXCEPTION), and finds in `JobRaised.data`.
            Without it the submitter is told nothing but the failure (WORK_FAIL).

    Raises:
        TypeError: The data is not bytes.
    """

    def __init__(self, text: str = "", *, data: bytes | None = None) -> None:
        if data is not None and not isinstance(data, bytes):
            raise TypeError(f"the data must be bytes, not {type(data).__name__}")
        super().__init__(text)
        self.data = data


class JobOver(GearmanError):
    """Something was sent for a job that has ended, or whose connection was lost."""


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
