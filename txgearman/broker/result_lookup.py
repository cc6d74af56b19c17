"""Finding the result of a job: whether it is there, will be, or never will."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple

from txgearman.broker.handles import number_in
from txgearman.broker.job_lookup import JobLookup
from txgearman.broker.job_states import FAILURES, JobState
from txgearman.broker.kept_result import KeptResult
from txgearman.broker.views import JobDetail
from txgearman.errors import JobNotFound, Refused

if TYPE_CHECKING:
    from txgearman.broker.broker import Broker
    from txgearman.broker.interfaces import ResultStore

_GONE: Final = JobState.GONE


class ResultState(Enum):
    """What there is to say of a result."""

    PENDING = "pending"
    """The job waits, runs, or is retried."""
    COMPLETED = "completed"
    """The result is there."""
    TOO_LARGE = "too-large"
    """The job was completed, and its result could not be kept as a whole."""
    FAILED = "failed"
    """The job failed, and there is no result."""
    GONE = "gone"
    """The job was ended by others, or its result is not kept, or not any more."""
    UNKNOWN = "unknown"
    """Nothing is known of such a job."""


class FoundResult(NamedTuple):
    """What is known of a result.

    `detail` is what is known of the job, None where it is the result alone, or nothing. `data` is the result
    where the state is COMPLETED, and what the worker said of the failure where it is FAILED.
    """

    state: ResultState
    detail: JobDetail | None = None
    data: bytes = b""

    @property
    def reason(self) -> str:
        """More about the state: that of a pending job, how one ended that failed or is gone; else empty."""
        detail = self.detail
        if detail is None:
            return ""
        return detail.shown_state if self.state is ResultState.PENDING else detail.outcome_name


NO_RESULT: Final = FoundResult(ResultState.UNKNOWN)

Tell = Callable[[FoundResult | Refused], None]


class ResultLookup:
    """Look-ups of results. It has no state of its own."""

    __slots__ = ("_broker", "_store")

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._store: ResultStore = broker.ended_jobs.result_store

    def find(self, handle: bytes, tell: Tell) -> None:
        """Find the result of a job.

        Args:
            handle: The job's handle.
            tell: Called with what is known of it, or with what prevents the look-up.
        """
        if self._broker.life.handles.get(handle) is not None:
            self._find_job(handle, tell)
        else:
            self._find_kept(handle, lambda: self._find_job(handle, tell), tell)

    def _find_job(self, handle: bytes, tell: Tell) -> None:
        def found(detail: JobDetail | Refused) -> None:
            if isinstance(detail, JobNotFound):
                tell(NO_RESULT)
            elif isinstance(detail, Refused):
                tell(detail)
            elif detail.state is not _GONE:
                tell(FoundResult(ResultState.PENDING, detail))
            elif detail.outcome in FAILURES:
                tell(FoundResult(ResultState.FAILED, detail, detail.error))
            else:
                gone = FoundResult(ResultState.GONE, detail)
                self._find_kept(handle, lambda: tell(gone), tell)

        JobLookup(self._broker).find(handle, found)

    def _find_kept(self, handle: bytes, otherwise: Callable[[], None], tell: Tell) -> None:
        """Tell of a kept result. Where there is none call `otherwise`."""

        def found(result: KeptResult | Refused | None) -> None:
            if isinstance(result, Refused):
                tell(result)
            elif result is None or result.handle != handle:
                otherwise()
            elif result.data is None:
                tell(FoundResult(ResultState.TOO_LARGE))
            else:
                tell(FoundResult(ResultState.COMPLETED, None, result.data))

        number = number_in(handle)
        if number is None:
            otherwise()
        else:
            self._store.find(number, found)
