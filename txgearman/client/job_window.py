"""Running very many online jobs: a window of those that are submitted, and their outcomes as they come.

The window bounds memory: it counts the jobs that were submitted and whose outcomes were not taken yet. How a
job is submitted is up to the owner.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from txgearman.client.job import Job
from txgearman.connection.arguments import check_count, check_timeout
from txgearman.errors import ClientError

_T = TypeVar("_T")

WINDOW_JOBS: Final = 500
"""Default of ``window``: online jobs of `Client.run_many` that are submitted at a time. Enough for some
dozens of workers, each with several jobs ahead."""

AT_ONCE: Final = 100
"""Jobs that are submitted in one turn of the reactor: a few milliseconds of work."""


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """What became of one of many jobs.

    Attributes:
        index: The place of its payload, from 0.
        value: The result, which the client's codec has decoded; None if there is an error.
        error: What `Job.result` fails with, or the submission, if there is no result.
    """

    index: int
    value: Any = None
    error: ClientError | None = None

    def result(self) -> Any:
        """Take the result.

        Returns:
            It.

        Raises:
            ClientError: There is none.
        """
        if self.error is not None:
            raise self.error
        return self.value


class JobWindow:
    """The jobs that are submitted, and the outcomes that were not taken yet.

    Args:
        submit: Submits the job of a payload and a unique.
        ordered: Whether outcomes come in the order of their jobs, or as jobs end.
        size: How many jobs the window has at most.
        timeout: Seconds that each job may take once it is accepted; None for no limit.
    """

    def __init__(
        self,
        submit: Callable[[Any, Any], Deferred[Job]],
        ordered: bool,
        size: int,
        timeout: float | None = None,
    ) -> None:
        self._submit = submit
        self._ordered = ordered
        self._size = size
        self._timeout = timeout
        self._next_index = 0
        self._next_taken = 0
        self._running: dict[int, Deferred[Any]] = {}
        self._outcomes: dict[int, JobOutcome] = {}
        self._ended: deque[JobOutcome] = deque()
        self._waiter: Deferred[None] | None = None

    @property
    def room(self) -> int:
        """How many jobs may be submitted now."""
        return self._size - len(self._running) - len(self._outcomes) - len(self._ended)

    @property
    def empty(self) -> bool:
        """Whether no outcome is to come."""
        return self.room == self._size

    def run(self, payload: Any, unique: str | bytes | None = None) -> None:
        """Submit a job. There must be `room`.

        Args:
            payload: Its input.
            unique: Its key.

        Raises:
            TypeError: The payload or the unique has the wrong type.
            ValueError: One of them has a value that cannot be.
        """
        index = self._next_index
        submitted = self._submit(payload, unique)
        self._next_index += 1
        self._running[index] = submitted
        submitted.addCallbacks(
            self._job_accepted, self._job_ended, callbackArgs=(index,), errbackArgs=(index,)
        )

    def take(self) -> list[JobOutcome]:
        """Take the outcomes that can be had now, in their order."""
        taken: list[JobOutcome] = []
        if self._ordered:
            while (outcome := self._outcomes.pop(self._next_taken, None)) is not None:
                self._next_taken += 1
                taken.append(outcome)
        else:
            taken, self._ended = [*self._ended], deque()
        return taken

    def ready(self) -> Deferred[None]:
        """Wait until `take` has something, or no outcome is to come. One may wait at a time."""
        if self._is_ready():
            return succeed(None)
        self._waiter = Deferred(self._forget_waiter)
        return self._waiter

    def cancel(self) -> None:
        """Give up the jobs, and forget the outcomes. The server may still run what has not ended."""
        running, self._running = self._running, {}
        self._outcomes.clear()
        self._ended.clear()
        for deferred in running.values():
            deferred.cancel()

    def _job_accepted(self, job: Job, index: int) -> None:
        # To chain the two Deferreds would take a twenty-fifth more instructions for each job.
        result = self._running[index] = job.result(self._timeout)
        result.addBoth(self._job_ended, index)

    def _job_ended(self, outcome: Any, index: int) -> None:
        if self._running.pop(index, None) is None:
            # It was given up.
            return
        if isinstance(outcome, Failure):
            ended = JobOutcome(index, error=_as_error(outcome.value))
        else:
            ended = JobOutcome(index, outcome)
        if self._ordered:
            self._outcomes[index] = ended
        else:
            self._ended.append(ended)
        if self._waiter is not None and self._is_ready():
            waiter, self._waiter = self._waiter, None
            waiter.callback(None)

    def _is_ready(self) -> bool:
        has_some = self._next_taken in self._outcomes if self._ordered else bool(self._ended)
        return has_some or self.empty

    def _forget_waiter(self, _waiter: Deferred[None]) -> None:
        self._waiter = None


def window_of(
    submit: Callable[..., Deferred[Job]],
    function: str | bytes,
    ordered: bool,
    size: int,
    timeout: float | None = None,
    **options: Any,
) -> JobWindow:
    """Make the window of the jobs of one function.

    Args:
        submit: `Client.submit`.
        function: The name of what shall run.
        ordered: As for `JobWindow`.
        size: As for `JobWindow`.
        timeout: As for `JobWindow`.
        **options: Of `submit`.

    Returns:
        The window, without jobs.

    Raises:
        ValueError: The size or the timeout cannot be.
    """
    check_timeout(timeout)
    check_count(size, "window", 1)

    def submit_one(data: Any, unique: str | bytes | None) -> Deferred[Job]:
        return submit(function, data, unique=unique, **options)

    return JobWindow(submit_one, ordered, size, timeout)


class OutcomeIterator:
    """Submits the jobs of payloads, and yields their outcomes: an asynchronous iterator.

    Args:
        clock: Lets the reactor do its other work in between.
        window: The jobs.
        jobs: The payloads, each with a unique or None. Read as far ahead as the window allows.
    """

    def __init__(self, clock: IReactorTime, window: JobWindow, jobs: Iterable[tuple[Any, Any]]) -> None:
        self._clock = clock
        self._window = window
        self._jobs: Iterator[tuple[Any, Any]] | None = iter(jobs)
        self._taken: deque[JobOutcome] = deque()

    def __aiter__(self) -> AsyncIterator[JobOutcome]:
        return self

    async def __anext__(self) -> JobOutcome:
        outcome = self.next_ready()
        if outcome is not None:
            return outcome
        try:
            while not self._taken:
                await self._fill()
                await self._window.ready()
                self._taken.extend(self._window.take())
                if not self._taken and self._jobs is None and self._window.empty:
                    raise StopAsyncIteration
        except StopAsyncIteration:
            raise
        except BaseException:
            self.close()
            raise
        return self._taken.popleft()

    def next_ready(self) -> JobOutcome | None:
        """Take the next outcome, if that needs no waiting.

        Returns:
            The outcome; None otherwise.
        """
        return self._taken.popleft() if self._taken else None

    def close(self) -> None:
        """Give up the jobs that have not ended, and read no further payload."""
        self._jobs = None
        self._taken.clear()
        self._window.cancel()

    async def aclose(self) -> None:
        """The same as `close`, by the name that asynchronous generators have."""
        self.close()

    async def _fill(self) -> None:
        while self._jobs is not None and self._window.room:
            count = 0
            for payload, unique in islice(self._jobs, min(AT_ONCE, self._window.room)):
                self._window.run(payload, unique)
                count += 1
            if not count:
                self._jobs = None
            elif self._window.room:
                await deferLater(self._clock, 0)


def with_uniques(
    payloads: Iterable[_T], uniques: Iterable[str | bytes | None] | None
) -> Iterator[tuple[_T, str | bytes | None]]:
    """Pair payloads with their uniques. `ValueError` is raised where one of both ends before the other."""
    if uniques is None:
        return ((payload, None) for payload in payloads)
    return zip(payloads, uniques, strict=True)


def _as_error(error: BaseException | None) -> ClientError:
    """An error as one of ours: a Deferred may have been cancelled, for example."""
    if isinstance(error, ClientError):
        return error
    wrapped = ClientError(str(error) or type(error).__name__)
    wrapped.__cause__ = error
    return wrapped
