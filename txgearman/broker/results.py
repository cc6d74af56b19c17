"""Results of background jobs: collecting them while jobs run, and keeping them in memory without a store."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final

from txgearman.broker.entities import Job
from txgearman.broker.handles import number_of
from txgearman.broker.kept_result import MAX_RESULT_BYTES, KeptResult, ResultCounts

if TYPE_CHECKING:
    from txgearman.errors import Refused

PART_OVERHEAD: Final = 64
"""Bytes that a part of a result counts beside its data: its object. Without it empty parts could fill the
memory."""

_SLACK: Final = 64
"""Times of results that are gone that are never worth a clean-up."""


class Parts:
    """What the run of a job has sent of its result so far. `pieces` is None if that cannot be kept as a
    whole. `size` is what the pieces count for."""

    __slots__ = ("pieces", "size")

    def __init__(self) -> None:
        self.pieces: list[bytes] | None = []
        self.size = 0


def result_lifetime(job: Job) -> float | None:
    """For how many seconds the result of a background job is kept: what its submit says holds before what is
    said of its function. None for not at all."""
    options = job.options
    if options is not None and options.keep_result is not None:
        return options.keep_result or None
    return job.function.keep_results


class Results:
    """The results of jobs that run, and who is told of ends.

    Parts are kept as they came, and joined once, at the job's end. All of them together take no more than the
    limit for kept results, and neither do those in `unsaved`.

    `too_large` counts the results that could not be kept as a whole. `unsaved` has, by handle, those of jobs
    that ended while they were being saved; it is for reading alone. `listener` is called with the handle of
    each background job that has ended and whose result was to be kept; it must not call back into the broker.
    """

    __slots__ = (
        "_collecting",
        "_max_bytes",
        "_size",
        "_unsaved_size",
        "listener",
        "memory",
        "too_large",
        "unsaved",
    )

    def __init__(self, max_bytes: int, wall_clock: Callable[[], float]) -> None:
        self._collecting: dict[Job, Parts] = {}
        self._size = 0
        self._max_bytes = max_bytes
        self.memory = ResultsInMemory(max_bytes, wall_clock)
        self.unsaved: dict[bytes, KeptResult] = {}
        self._unsaved_size = 0
        self.too_large = 0
        self.listener: Callable[[bytes], None] | None = None

    def limit(self, max_bytes: int) -> None:
        """Keep so many bytes from now on, as the constructor has it."""
        self._max_bytes = max_bytes
        self.memory.limit(max_bytes)

    def collect(self, job: Job, data: bytes) -> None:
        """Keep a part of the result of a job whose result is to be kept."""
        parts = self._collecting.get(job)
        if parts is None:
            parts = self._collecting[job] = Parts()
        if parts.pieces is None:
            return
        size = len(data) + PART_OVERHEAD
        if (
            not (job.background or job.saving)
            or parts.size + size > MAX_RESULT_BYTES
            or self._size + size > self._max_bytes
        ):
            # It may still become a background job, whose result is not whole then.
            self._size -= parts.size
            parts.pieces = None
            parts.size = 0
            return
        parts.pieces.append(data)
        parts.size += size
        self._size += size

    def forget(self, job: Job) -> None:
        """The run of a job has ended without a result: what it has sent is no part of one."""
        parts = self._collecting.pop(job, None)
        if parts is not None:
            self._size -= parts.size

    def forget_unkept(self) -> None:
        """Forget what was collected of results that are not to be kept any more."""
        for job in [job for job in self._collecting if result_lifetime(job) is None]:
            self.forget(job)

    def finish(self, job: Job, data: bytes, ended: float, seconds: float) -> KeptResult:
        """A job was completed.

        Args:
            job: The job.
            data: The last part of its result.
            ended: When, in seconds since the epoch.
            seconds: For how long the result is kept.

        Returns:
            The whole result.
        """
        parts = self._collecting.get(job)
        self.forget(job)
        result: bytes | None = data
        if parts is not None:
            result = None if parts.pieces is None else b"".join([*parts.pieces, data])
        if result is not None and len(result) > min(MAX_RESULT_BYTES, self._max_bytes):
            result = None
        if result is None:
            self.too_large += 1
        return KeptResult(
            number_of(job.handle),
            job.handle,
            job.function.name,
            ended,
            ended + seconds,
            result,
            job.unique,
            job.priority,
            job.submitted,
            0 if job.failures is None else job.failures.attempts,
            job.losses,
        )

    def add_unsaved(self, result: KeptResult) -> None:
        """Keep the result of a job that is being saved, until `take_unsaved`. Over the limit it counts as too
        large: a store that is slow must not fill memory."""
        if self._unsaved_size + result.weight > self._max_bytes:
            self.too_large += result.data is not None
            result = result._replace(data=None)
        self.unsaved[result.handle] = result
        self._unsaved_size += result.weight

    def take_unsaved(self, handle: bytes) -> KeptResult | None:
        """The result of a job that was saved, or is not to be; None if it has none."""
        result = self.unsaved.pop(handle, None)
        if result is not None:
            self._unsaved_size -= result.weight
        return result


class ResultsInMemory:
    """A `ResultStore` in memory.

    A result is forgotten when its time is over. Over the limit the oldest are forgotten first, whatever time
    they have left: otherwise results that are kept for long would drive out all others.

    Args:
        max_bytes: How many bytes they take at most, by `KeptResult.weight`.
        wall_clock: Gives seconds since the epoch.
    """

    __slots__ = ("_evicted", "_expired", "_expiries", "_max_bytes", "_results", "_wall_clock", "_weight")

    def __init__(self, max_bytes: int, wall_clock: Callable[[], float]) -> None:
        self._max_bytes = max_bytes
        self._wall_clock = wall_clock
        # By number, in the order in which the jobs ended.
        self._results: OrderedDict[int, KeptResult] = OrderedDict()
        # When results expire, with their numbers: a heap, in which those that were evicted may still be.
        self._expiries: list[tuple[float, int]] = []
        self._weight = 0
        self._expired = 0
        self._evicted = 0

    def limit(self, max_bytes: int) -> None:
        """Keep so many bytes from now on."""
        self._max_bytes = max_bytes
        self._evict()

    def add(self, result: KeptResult) -> None:
        """Keep the result of a job that has just ended."""
        self._forget(result.number)
        self._results[result.number] = result
        self._weight += result.weight
        heappush(self._expiries, (result.expires_at, result.number))
        self._evict()

    def _evict(self) -> None:
        now = self._wall_clock()
        while self._expiries and self._expiries[0][0] <= now:
            when, number = heappop(self._expiries)
            result = self._results.get(number)
            if result is not None and result.expires_at == when:
                self._forget(number)
                self._expired += 1
        while self._weight > self._max_bytes and self._results:
            self._forget(next(iter(self._results)))
            self._evicted += 1
        if len(self._expiries) > 2 * len(self._results) + _SLACK:
            self._expiries = sorted((result.expires_at, number) for number, result in self._results.items())

    def _forget(self, number: int) -> None:
        result = self._results.pop(number, None)
        if result is not None:
            self._weight -= result.weight

    # -- ResultStore ------------------------------------------------------------------------------

    def find(self, number: int, tell: Callable[[KeptResult | Refused | None], None]) -> None:
        self._evict()
        tell(self._results.get(number))

    def counts(self) -> ResultCounts:
        self._evict()
        return ResultCounts(len(self._results), self._weight)

    @property
    def expired(self) -> int:
        return self._expired

    @property
    def evicted(self) -> int:
        return self._evicted
