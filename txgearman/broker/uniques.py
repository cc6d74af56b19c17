"""Finding the live job that a unique stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from txgearman.broker.policy import UNIQUE_IS_DATA

if TYPE_CHECKING:
    from txgearman.broker.entities import Function, Job

SHARDS: Final = 256
"""Tables that the keys are spread over. One table would grow in one go, which at two million jobs holds
everything up for half a second, and would keep its memory when the queue has drained."""

_SHARD: Final = SHARDS - 1


class Uniques:
    """Live jobs by (key, function), and the newest by key alone. Each call is O(1).

    A key that one function uses, which is nearly every key, costs one dictionary entry.
    """

    __slots__ = ("_shards",)

    def __init__(self) -> None:
        self._shards: list[dict[bytes, Job | dict[Function, Job]]] = [{} for _ in range(SHARDS)]

    def table(self, key: bytes) -> dict[bytes, Job | dict[Function, Job]]:
        """Where `key` is if any job has it. A job may be put there under a key that is not there."""
        return self._shards[hash(key) & _SHARD]

    def find(self, key: bytes, function: Function) -> Job | None:
        """The live job of `function` with this key."""
        entry = self.table(key).get(key)
        if entry is None:
            return None
        if isinstance(entry, dict):
            return entry.get(function)
        return entry if entry.function is function else None

    def newest(self, key: bytes) -> Job | None:
        """The live job with this key that was added last, whatever its function."""
        entry = self.table(key).get(key)
        if isinstance(entry, dict):
            return entry[next(reversed(entry))]
        return entry

    def add(self, key: bytes, job: Job) -> None:
        """Add a job that `find` does not find yet."""
        table = self.table(key)
        entry = table.setdefault(key, job)
        if entry is not job:
            if isinstance(entry, dict):
                entry[job.function] = job
            else:
                table[key] = {entry.function: entry, job.function: job}

    def remove(self, key: bytes, job: Job) -> None:
        """Remove a job, if it was added."""
        table = self.table(key)
        entry = table.get(key)
        if entry is job:
            del table[key]
            if not table:
                # A dictionary keeps its table when entries are deleted, and lets it go when cleared.
                table.clear()
        elif isinstance(entry, dict) and entry.get(job.function) is job:
            del entry[job.function]
            if len(entry) == 1:
                (table[key],) = entry.values()


class Duplicates:
    """Which live job a submit is a duplicate of: by its unique, or by its data where that is its unique."""

    __slots__ = ("by_data", "by_unique")

    def __init__(self) -> None:
        self.by_unique = Uniques()
        self.by_data = Uniques()

    def find(self, function: Function, unique: bytes, data: bytes) -> Job | None:
        """The live job that a submit with this unique is a duplicate of.

        With ``-`` the data is the unique; without data such jobs are never the same, as with gearmand.
        There a job with ``-`` is also the same as one whose unique is spelled like its data, by
        accident; here the two are kept apart.
        """
        if unique == UNIQUE_IS_DATA:
            return self.by_data.find(data, function) if data else None
        return self.by_unique.find(unique, function)

    def add(self, job: Job) -> None:
        """Let `find` find a job."""
        if job.unique != UNIQUE_IS_DATA:
            self.by_unique.add(job.unique, job)
        elif job.data:
            self.by_data.add(job.data, job)

    def remove(self, job: Job) -> None:
        """Let `find` find a job no more."""
        if job.unique != UNIQUE_IS_DATA:
            self.by_unique.remove(job.unique, job)
        elif job.data:
            self.by_data.remove(job.data, job)
