"""Jobs and requests as python-gearman has them: plain objects that hold what is known. No I/O."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from txgearman.blocking.constants import (
    JOB_COMPLETE,
    JOB_CREATED,
    JOB_FAILED,
    JOB_UNKNOWN,
    PRIORITY_NONE,
)

if TYPE_CHECKING:
    from txgearman.blocking.connection import GearmanConnection


class _Formattable:
    """An object that a format specification takes as its text, as it was in Python 2."""

    def __format__(self, format_spec: str) -> str:
        return format(str(self), format_spec)


class GearmanJob(_Formattable):
    """A job: what a client submits, and what the function of a worker gets.

    `connection` is the connection to its server and `handle` the server's name for it; both None before
    it is submitted. `task` is the name of its function and `unique` its key. Those three are str that old
    programs can use like bytes, see `Name`. `data` is its input, decoded.
    """

    _running_job: object | None = None

    def __init__(
        self,
        connection: GearmanConnection | None,
        handle: str | None,
        task: str | None,
        unique: str | None,
        data: Any,
    ) -> None:
        self.connection = connection
        self.handle = handle
        self.task = task
        self.unique = unique
        self.data = data

    def to_dict(self) -> dict[str, Any]:
        """The job without its connection."""
        return {"task": self.task, "job_handle": self.handle, "unique": self.unique, "data": self.data}

    def __repr__(self) -> str:
        return (
            f"<GearmanJob {self.handle!r} on {self.connection!r}: "
            f"task={self.task!r}, unique={self.unique!r}, data={self.data!r}>"
        )


class GearmanJobRequest(_Formattable):
    """A job that is or shall be submitted, and what is known of its progress.

    It changes only while the client waits for something, in the thread of whoever waits.

    `gearman_job`, also called `job`, is the job. `priority` is one of the PRIORITY constants, `state`
    one of the JOB constants. `background` says that it is an offline job: it is complete when it is
    accepted, and has no result. `connection_attempts` counts its submissions, of which there are at most
    `max_connection_attempts`. `result` is the result, once `state` is JOB_COMPLETE. `exception` is what
    the worker sent of an exception, or why the server refused the job. `data_updates` and
    `warning_updates` are deques of what the worker sent ahead of the end. `status` is a dictionary,
    empty or with the keys ``handle``, ``known``, ``running``, ``numerator``, ``denominator`` and
    ``time_received``, seconds since 1970. `timed_out` says that the last wait for it took too long.
    """

    def __init__(
        self,
        gearman_job: GearmanJob,
        initial_priority: str | None = PRIORITY_NONE,
        background: bool = False,
        max_attempts: int = 1,
    ) -> None:
        self.gearman_job = gearman_job
        self.priority = initial_priority
        self.background = background
        self.connection_attempts = 0
        self.max_connection_attempts = max_attempts
        self.initialize_request()

    def initialize_request(self) -> None:
        """Forget all that is known of its progress."""
        self.result: Any = None
        self.exception: Any = None
        self.warning_updates: deque[Any] = deque()
        self.data_updates: deque[Any] = deque()
        self.status: dict[str, Any] = {}
        self.state: str = JOB_UNKNOWN
        self.timed_out = False
        # The client's: the submission whose news count, whether the program has closed its connection,
        # questions for the status without an answer, and an error that the next wait raises.
        self._submission: object | None = None
        self._closed = False
        self._asked = 0
        self._error: Exception | None = None

    def reset(self) -> None:
        """Make it ready to be submitted as if it never was."""
        self.initialize_request()
        self.connection_attempts = 0
        self.gearman_job.connection = None
        self.gearman_job.handle = None

    @property
    def job(self) -> GearmanJob:
        """The same as `gearman_job`."""
        return self.gearman_job

    @property
    def complete(self) -> bool:
        """Whether nothing more is to be waited for."""
        ends = (JOB_FAILED, JOB_COMPLETE, JOB_CREATED) if self.background else (JOB_FAILED, JOB_COMPLETE)
        return self.state in ends

    @property
    def status_updates(self) -> deque[tuple[int, int]]:
        """The last numerator and denominator. Of old; `status` has them."""
        if not self.status:
            return deque()
        return deque([(self.status.get("numerator", 0), self.status.get("denominator", 0))])

    @property
    def server_status(self) -> dict[str, Any]:
        """The same as `status`. Of old."""
        return self.status

    def __repr__(self) -> str:
        return (
            f"<GearmanJobRequest task={self.job.task!r}, unique={self.job.unique!r}, "
            f"priority={self.priority!r}, background={self.background!r}, state={self.state!r}, "
            f"timed_out={self.timed_out!r}>"
        )
