"""Jobs and requests of python-gearman: plain data. No I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar, overload

from txgearman.blocking.constants import (
    JOB_COMPLETE,
    JOB_CREATED,
    JOB_FAILED,
    JOB_UNKNOWN,
    PRIORITY_NONE,
)

if TYPE_CHECKING:
    from txgearman.blocking.connection import GearmanConnection


_T = TypeVar("_T")

_NONE: Final[frozenset[object]] = frozenset()


class _Formattable:
    """An object whose text takes a format specification, as in Python 2."""

    def __format__(self, format_spec: str) -> str:
        return format(str(self), format_spec)


class GearmanJob(_Formattable):
    """A job: what a client submits, and what a task gets.

    `handle`, `task` and `unique` are str that old programs can use like bytes, see `Name`.

    Args:
        connection: The connection to its server; None before it is submitted.
        handle: The server's name for it; None before it is submitted.
        task: The name of its function.
        unique: Its key.
        data: Its input, decoded.

    Attributes:
        attempt: In a task, which of the job's attempts it is, from 1. None where the server does not tell,
            as gearmand.
        losses: In a task, how many workers went away with the job before. None where the server does not
            tell.
        traceparent: In a task, the span that the job's submitter has named, as the W3C writes it; None
            without one, and where the server does not tell.
    """

    traceparent: str | None = None
    _running_job: object | None = None
    attempt: int | None = None
    losses: int | None = None

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

    @property
    def cancelled(self) -> bool:
        """Whether the server has told the worker to stop this job: whatever its task does is in vain.

        A task should look at this from time to time, as nothing else can stop it. Status, data and warnings
        of the job raise `JobCancelled` then.
        """
        running_job: Any = self._running_job
        return running_job is not None and running_job.job.cancelled

    def to_dict(self) -> dict[str, Any]:
        """Return the job without its connection, as a dictionary."""
        return {"task": self.task, "job_handle": self.handle, "unique": self.unique, "data": self.data}

    def __repr__(self) -> str:
        return (
            f"<GearmanJob {self.handle!r} on {self.connection!r}: "
            f"task={self.task!r}, unique={self.unique!r}, data={self.data!r}>"
        )


class _MadeWhenUsed(Generic[_T]):
    """An attribute of a request that is made by its first use, as most have no need of it.

    Many offline jobs took a third less processor time when fewer objects were made for each, these among
    them: most of it is the garbage collector's.

    The request has it under the same name with an underscore, None until it is made.

    Args:
        make: Makes it.
    """

    def __init__(self, make: Callable[[], _T]) -> None:
        self._make = make
        self._name = ""

    def __set_name__(self, _owner: type[object], name: str) -> None:
        self._name = f"_{name}"

    @overload
    def __get__(self, request: None, owner: type[object]) -> Self: ...

    @overload
    def __get__(self, request: object, owner: type[object]) -> _T: ...

    def __get__(self, request: object | None, owner: type[object]) -> Self | _T:
        if request is None:
            return self
        value: _T | None = getattr(request, self._name)
        if value is None:
            value = self._make()
            setattr(request, self._name, value)
        return value

    def __set__(self, request: object, value: _T) -> None:
        setattr(request, self._name, value)


class GearmanJobRequest(_Formattable):
    """A job that is submitted, or will be, and its progress.

    It changes only while a thread waits for something of the client, and in that thread.

    Args:
        gearman_job: The job.
        initial_priority: One of the PRIORITY constants.
        background: Whether this is an offline job: it is complete when it is accepted, and has no result.
        max_attempts: How often it may be submitted.

    Attributes:
        gearman_job: The job.
        priority: One of the PRIORITY constants.
        background: Whether this is an offline job.
        connection_attempts: How often it was submitted.
        max_connection_attempts: How often it may be submitted.
        state: One of the JOB constants.
        result: The result, once `state` is JOB_COMPLETE.
        exception: The exception that the worker sent, or why the server refused the job; else None.
        timed_out: Whether the last wait for it took too long.
    """

    data_updates = _MadeWhenUsed[deque[Any]](deque)
    """Parts of the result that the worker has sent."""
    warning_updates = _MadeWhenUsed[deque[Any]](deque)
    """Warnings that the worker has sent."""
    status = _MadeWhenUsed[dict[str, Any]](dict)
    """A dictionary, empty or with the keys ``handle``, ``known``, ``running``, ``numerator``, ``denominator``
    and ``time_received``, in seconds since 1970."""
    options = _MadeWhenUsed[dict[str, Any]](dict)
    """What else is said of the job, by the names in `txgearman.blocking.client.OPTIONS`."""

    def __init__(
        self,
        gearman_job: GearmanJob,
        initial_priority: Any = PRIORITY_NONE,
        background: bool = False,
        max_attempts: int = 1,
    ) -> None:
        self.gearman_job = gearman_job
        self.priority = initial_priority
        self.background = background
        self.connection_attempts = 0
        self.max_connection_attempts = max_attempts
        self._options: dict[str, Any] | None = None
        self.initialize_request()

    def initialize_request(self) -> None:
        """Forget its progress."""
        self.result: Any = None
        self.exception: Any = None
        self._warning_updates: deque[Any] | None = None
        self._data_updates: deque[Any] | None = None
        self._status: dict[str, Any] | None = None
        self.state: str = JOB_UNKNOWN
        self.timed_out = False
        # For the client: the submission whose events count, whether the program has closed its connection,
        # status requests without an answer, the error that the next wait raises, and the servers that have
        # refused the job because they are shutting down.
        self._submission: object | None = None
        self._connection_closed = False
        self._pending_status_requests: frozenset[object] = _NONE
        self._error: Exception | None = None
        self._declined_by: Collection[GearmanConnection] = ()

    def reset(self) -> None:
        """Forget its progress and its submissions, so that it can be submitted anew."""
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
        """Whether there is nothing to wait for: it has ended, or is an offline job and accepted."""
        if self.state == JOB_CREATED:
            return bool(self.background)
        return self.state in (JOB_FAILED, JOB_COMPLETE)

    @property
    def _is_declined(self) -> bool:
        """Whether it is to be submitted to another server: the one that it went to is shutting down."""
        return (
            bool(self._declined_by)
            and self.state == JOB_UNKNOWN
            and self.gearman_job.connection in self._declined_by
        )

    @property
    def status_updates(self) -> deque[tuple[int, int]]:
        """The last numerator and denominator. For old programs; `status` has them."""
        if not self.status:
            return deque()
        return deque([(self.status.get("numerator", 0), self.status.get("denominator", 0))])

    @property
    def server_status(self) -> dict[str, Any]:
        """The same as `status`. For old programs."""
        return self.status

    def __repr__(self) -> str:
        return (
            f"<GearmanJobRequest task={self.job.task!r}, unique={self.job.unique!r}, "
            f"priority={self.priority!r}, background={self.background!r}, state={self.state!r}, "
            f"timed_out={self.timed_out!r}>"
        )
