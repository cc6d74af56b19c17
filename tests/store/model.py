"""A store in plain Python that is too simple to be wrong, to compare the others with."""

from __future__ import annotations

from collections import Counter

from txgearman.store.contract import Backlog, Changes, SavedJob


class ModelStore:
    """A `Store` of one server in memory; `disk` outlives it."""

    largest_data = 1 << 30
    shared = False

    def __init__(self, disk: dict[int, SavedJob], starts: list[str]) -> None:
        self._jobs = disk
        self._starts = starts

    def open(self, name: str, lease: float) -> int:
        self._starts.append(name)
        return len(self._starts)

    def write(self, changes: Changes) -> dict[int, bytes]:
        for number, attempts in changes.attempts.items():
            if number in self._jobs:
                self._jobs[number] = self._jobs[number]._replace(attempts=attempts)
        for number in changes.removals:
            self._jobs.pop(number, None)
        twins = {}
        for job in changes.saves:
            if job.number in changes.removals or job.number in self._jobs:
                continue
            twin = self.find_twin(job.function, job.unique, job.data)
            if twin is None:
                self._jobs[job.number] = job
            else:
                twins[job.number] = twin.handle
        return twins

    def backlogs(self) -> list[Backlog]:
        counts = Counter((job.function, job.priority) for job in self._jobs.values() if job.run_at is None)
        return [Backlog(*key, count) for key, count in counts.items()]

    def fetch(self, function: bytes, priority: int, after: int, limit: int) -> list[SavedJob]:
        return [
            job
            for job in self._by_place(after)
            if job.run_at is None and (job.function, job.priority) == (function, priority)
        ][:limit]

    def scheduled(self, after: int, limit: int) -> list[SavedJob]:
        return [job for job in self._by_place(after) if job.run_at is not None][:limit]

    def find(self, number: int) -> SavedJob | None:
        return self._jobs.get(number)

    def find_unique(self, unique: bytes) -> SavedJob | None:
        found = [job for job in self._jobs.values() if job.unique == unique not in {b"", b"-"}]
        return max(found, key=lambda job: (job.submitted, job.number), default=None)

    def find_twin(self, function: bytes, unique: bytes, data: bytes) -> SavedJob | None:
        if not unique or (unique == b"-" and not data):
            return None
        for job in self._jobs.values():
            if (job.function, job.unique) == (function, unique) and (unique != b"-" or job.data == data):
                return job
        return None

    def renew(self) -> bool:
        return False

    def adopt(self, limit: int, place: int) -> list[SavedJob]:
        return []

    def servers(self) -> list[str]:
        return self._starts[-1:]

    def close(self) -> None:
        pass

    def _by_place(self, after: int) -> list[SavedJob]:
        return sorted((job for job in self._jobs.values() if job.place > after), key=lambda job: job.place)
