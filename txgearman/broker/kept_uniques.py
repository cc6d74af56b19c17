"""The uniques of completed jobs: for a time, submits with one are answered with its job and do not run."""

from __future__ import annotations

from dataclasses import replace
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, Final

from txgearman.broker.job_options import NO_OPTIONS, JobOptions
from txgearman.broker.kept_unique import KeptUnique, unique_key
from txgearman.errors import TooManyUniques, UniqueKept

if TYPE_CHECKING:
    from collections.abc import Callable

    from txgearman.broker.entities import Client, Job

NOT_KEPT: Final = JobOptions(unique_for=0)
"""The options of a job whose unique is not kept, of which nothing else is said. It need not be remembered."""


class KeptUniques:
    """The uniques that are kept, each until its time.

    None is forgotten before: that would let a job run twice. So over the limit new jobs whose unique is to be
    kept are refused. Those that were accepted before keep theirs, by which the limit may be exceeded.

    `by_function` has them by function and `unique_key`, some past their time among them; it is for reading
    alone. `refused` counts the jobs that were refused.

    Args:
        limit: How many there may be.
        wall_clock: Gives seconds since the epoch.
    """

    __slots__ = ("_by_time", "_wall_clock", "by_function", "limit", "refused")

    def __init__(self, limit: int, wall_clock: Callable[[], float]) -> None:
        self.limit = limit
        self.refused = 0
        self._wall_clock = wall_clock
        self.by_function: dict[bytes, dict[bytes, KeptUnique]] = {}
        # A heap. One that was kept anew has its former time there, too.
        self._by_time: list[tuple[float, bytes, bytes]] = []

    def __len__(self) -> int:
        return len(self._by_time)

    def admit(self, options: JobOptions | None, unique_for: float | None) -> JobOptions | None:
        """Let in a job with a unique.

        Args:
            options: What is said of the job.
            unique_for: For how many seconds its function keeps uniques, None for not at all.

        Returns:
            The job's options, which say for how long its unique is to be kept.

        Raises:
            TooManyUniques: It is to be kept, and there are as many as there may be.
        """
        if options is not None and options.unique_for is not None:
            unique_for = options.unique_for
        if not unique_for:
            return None if options is NOT_KEPT else options
        if len(self) >= self.limit:
            self._forget_past()
            if len(self) >= self.limit:
                self.refused += 1
                raise TooManyUniques(self.limit)
        return replace(NO_OPTIONS if options is None else options, unique_for=unique_for)

    def keep(self, kept: KeptUnique) -> None:
        """Keep a unique until its time.

        Args:
            kept: The unique.
        """
        self._forget_past()
        self.by_function.setdefault(kept.function, {})[kept.key] = kept
        heappush(self._by_time, (kept.until, kept.function, kept.key))

    def kept_of(self, job: Job) -> KeptUnique | None:
        """What is to be kept of a job that is completed.

        Args:
            job: The job, with its data.

        Returns:
            Its unique; None where it has none, or that is not to be kept.
        """
        unique_for = None if job.options is None else job.options.unique_for
        key = unique_key(job.unique, job.data) if unique_for else None
        if key is None or not unique_for:
            return None
        return KeptUnique(job.function.name, key, job.handle, self._wall_clock() + unique_for)

    def find(self, function: bytes, unique: bytes, data: bytes) -> KeptUnique | None:
        """What is kept of a job that a submit is the same as.

        Args:
            function: The name of the function.
            unique: The unique of the new job.
            data: Its payload.

        Returns:
            Its unique; None where it is not kept, or not any more.
        """
        uniques = self.by_function.get(function)
        if not uniques:
            return None
        key = unique_key(unique, data)
        kept = None if key is None else uniques.get(key)
        return None if kept is None or kept.until <= self._wall_clock() else kept

    def answer(
        self, client: Client, function: bytes, unique: bytes, data: bytes, background: bool, reply: Any
    ) -> bool:
        """Answer a submit whose unique is kept.

        Args:
            client: Who submits.
            function: The name of the function.
            unique: The unique of the new job.
            data: Its payload.
            background: Whether the client does not wait for the result.
            reply: The place of the answer, None for the next one.

        Returns:
            Whether it is kept, and the client has its answer.

        Raises:
            UniqueKept: It is kept, and the client wants to wait for a result, which does not come any more.
        """
        kept = self.find(function, unique, data)
        if kept is None:
            return False
        if not background:
            raise UniqueKept(kept.handle)
        if reply is None:
            client.connection.created(kept.handle)
        else:
            client.connection.resolve_created(reply, kept.handle)
        return True

    def _forget_past(self) -> None:
        """Forget those whose time is over."""
        now = self._wall_clock()
        by_time, by_function = self._by_time, self.by_function
        while by_time and by_time[0][0] <= now:
            _, function, key = heappop(by_time)
            uniques = by_function.get(function, {})
            kept = uniques.get(key)
            if kept is not None and kept.until <= now:
                del uniques[key]
                if not uniques:
                    del by_function[function]
