"""A store in memory for tests of the server, and a thread that runs when it is told to. No tests here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from tests.store.model import ModelDatabase, evict_results
from tests.store.plots import MemoryPlots
from tests.store.schedules import MemorySchedules, ScheduleTable
from txgearman.broker.dead_jobs import stored_job
from txgearman.errors import StoreUnavailable, UniqueInUse
from txgearman.store.contract import (
    Changes,
    DeadCount,
    DeadCursor,
    DeadFilter,
    DeadJob,
    DeadPage,
    Evicted,
    KeptResult,
    KeptUnique,
    QueueLength,
    Renewal,
    ResultCounts,
    SettingChanges,
    Settings,
    Slot,
    SlotChanges,
    StoredJob,
    Written,
)


class ListStore:
    """A `Store` that remembers what it was told, across `open` and `close`.

    `failing` is raised by every call while it is set; `poison` is data that `write` cannot take.
    `writes` are the changes of each transaction, `kept` has the settings.
    """

    largest_data = 1000
    shared = False

    def __init__(self) -> None:
        self.starts = 0
        self.jobs: dict[int, StoredJob] = {}
        self.dead: dict[int, DeadJob] = {}
        self.uniques: dict[tuple[bytes, bytes], KeptUnique] = {}
        self.kept_results: dict[int, KeptResult] = {}
        self.writes: list[Changes] = []
        self.schedule_table = ScheduleTable()
        self.kept = ModelDatabase()
        self.failing: Exception | None = None
        self.is_open = False
        self.schedules = MemorySchedules(self.schedule_table, self._check)
        self.dead_jobs = ListDeadJobs(self)
        self.results = ListResults(self)
        self.settings = ListSettings(self)
        self.plots = MemoryPlots(self._check)

    def _check(self) -> None:
        assert self.is_open, "the store is not open"
        if self.failing is not None:
            raise self.failing

    def open(self, name: str, lease: float) -> int:
        if self.failing is not None:
            raise self.failing
        self.is_open = True
        self.starts += 1
        return self.starts

    def write(self, changes: Changes) -> Written:
        self._check()
        self.writes.append(changes)
        self.uniques.update({(kept.function, kept.key): kept for kept in changes.kept_uniques})
        self._end_jobs(changes)
        duplicates = {}
        ticks_done, ticks_refused = self.schedule_table.claim(changes.ticks)
        for job in changes.saves:
            if job.number in ticks_done | ticks_refused:
                continue
            duplicate = self._foreign.get(job.number)
            duplicate = duplicate or self.find_duplicate(job.function, job.unique, job.data)
            if duplicate is None:
                self.jobs[job.number] = job
            else:
                duplicates[job.number] = duplicate.handle
        for number, losses in changes.losses.items():
            if number in self.jobs:
                self.jobs[number] = self.jobs[number]._replace(losses=losses)
        for number, retry in changes.retries.items():
            if number in self.jobs:
                self.jobs[number] = self.jobs[number]._replace(**retry._asdict())
        for number, end in changes.unsaved_ends.items():
            if number not in ticks_done | ticks_refused and number not in {**self.jobs, **self._foreign}:
                kept: dict[int, Any] = self.dead if isinstance(end, DeadJob) else self.kept_results
                kept.setdefault(number, end)
        return Written(duplicates, [], ticks_done, ticks_refused)

    def _end_jobs(self, changes: Changes) -> None:
        for number in changes.removals:
            self.jobs.pop(number, None)
        for number, dead in changes.deaths.items():
            buried = self.jobs.pop(number, None)
            if buried is not None:
                self.dead[number] = dead._replace(data=buried.data)
        for number, result in changes.results.items():
            if self.jobs.pop(number, None) is not None:
                self.kept_results[number] = result

    @property
    def _foreign(self) -> dict[int, StoredJob]:
        """The jobs of other servers."""
        return {}

    def kept_uniques(self, now: float) -> list[KeptUnique]:
        self._check()
        return [kept for kept in self.uniques.values() if kept.until > now]

    def _own(self) -> list[StoredJob]:
        self._check()
        return sorted(self.jobs.values(), key=lambda job: job.position)

    def queue_lengths(self) -> list[QueueLength]:
        counts: dict[tuple[bytes, int], int] = {}
        for job in self._own():
            if job.run_at is None and job.retry_at is None:
                key = job.function, job.priority
                counts[key] = counts.get(key, 0) + 1
        return [QueueLength(*key, count) for key, count in counts.items()]

    def fetch(self, function: bytes, priority: int, after: int, limit: int) -> list[StoredJob]:
        return [
            job
            for job in self._own()
            if (job.function, job.priority) == (function, priority)
            and job.run_at is None
            and job.retry_at is None
            and job.position > after
        ][:limit]

    def scheduled(self, after: int, limit: int) -> list[StoredJob]:
        waiting = [job for job in self._own() if job.run_at is not None or job.retry_at is not None]
        return [job for job in waiting if job.position > after][:limit]

    def find(self, number: int) -> StoredJob | None:
        self._check()
        return self.jobs.get(number)

    def find_unique(self, unique: bytes) -> StoredJob | None:
        found = [job for job in self._own() if unique and job.unique == unique]
        return found[-1] if found else None

    def find_duplicate(self, function: bytes, unique: bytes, data: bytes) -> StoredJob | None:
        self._check()
        if unique in (b"", b"-"):
            # Without this, each of many saves would walk over all jobs.
            return None
        for job in [*self._own(), *self._foreign.values()]:
            if job.function == function and job.unique == unique:
                return job
        return None

    def renew(self) -> Renewal:
        self._check()
        return Renewal(False, self.kept.settings_version, [], False)

    def take_over(self, limit: int, position: int) -> list[StoredJob]:
        return []

    def exchange_slots(self, changes: SlotChanges) -> list[Slot]:
        self._check()
        return []

    def servers(self) -> list[str]:
        return ["this"]

    def close(self) -> None:
        self.is_open = False


class ListDeadJobs:
    """The `dead_jobs` of a `ListStore`."""

    def __init__(self, store: ListStore) -> None:
        self._store = store

    def page(self, wanted: DeadFilter, before: DeadCursor | None, limit: int, with_data: bool) -> DeadPage:
        self._store._check()
        dead = sorted(self._store.dead.values(), key=lambda job: (job.ended, job.number), reverse=True)
        found = [
            job
            for job in dead
            if wanted.matches(job) and (before is None or DeadCursor(job.ended, job.number) < before)
        ]
        page = [job if with_data else job._replace(data=None) for job in found[:limit]]
        return DeadPage(page, DeadCursor(page[-1].ended, page[-1].number) if len(found) > limit else None)

    def find(self, number: int) -> DeadJob | None:
        self._store._check()
        return self._store.dead.get(number)

    def retry(self, number: int, position: int, submitted: float) -> StoredJob | None:
        self._store._check()
        dead = self._store.dead.get(number)
        if dead is None:
            job = self._store.jobs.get(number)
            return job if job is not None and job.position == position else None
        if self._store.find_duplicate(dead.function, dead.unique, dead.data or b"") is not None:
            raise UniqueInUse
        del self._store.dead[number]
        job = self._store.jobs[number] = stored_job(dead, submitted)._replace(position=position)
        return job

    def forget(self, numbers: Sequence[int]) -> int:
        self._store._check()
        return sum(self._store.dead.pop(number, None) is not None for number in numbers)

    def counts(self) -> list[DeadCount]:
        self._store._check()
        counts: dict[bytes, int] = {}
        for job in self._store.dead.values():
            counts[job.function] = counts.get(job.function, 0) + 1
        return [DeadCount(function, count, 0) for function, count in counts.items()]

    def evict(self, max_jobs: int, max_bytes: int, ended_before: float, limit: int) -> int:
        self._store._check()
        too_many = len(self._store.dead) - max_jobs
        oldest = sorted(self._store.dead, key=lambda number: self._store.dead[number].ended)
        return self.forget(oldest[: max(0, too_many)][:limit])


class ListResults:
    """The `results` of a `ListStore`."""

    def __init__(self, store: ListStore) -> None:
        self._store = store

    def find(self, number: int, now: float) -> KeptResult | None:
        self._store._check()
        result = self._store.kept_results.get(number)
        return None if result is None or result.expires_at <= now else result

    def counts(self) -> ResultCounts:
        self._store._check()
        return ResultCounts(
            len(self._store.kept_results), sum(result.weight for result in self._store.kept_results.values())
        )

    def evict(self, max_bytes: int, now: float, limit: int) -> Evicted:
        self._store._check()
        return evict_results(self._store.kept_results, max_bytes, now, limit)


class ListSettings:
    """The `settings` of a `ListStore`."""

    def __init__(self, store: ListStore) -> None:
        self._store = store

    def read(self) -> Settings:
        self._store._check()
        return self._store.kept.all_settings()

    def change(self, changes: SettingChanges) -> None:
        self._store._check()
        self._store.kept.change_settings(changes)


class Thread:
    """Calls that are under way until `run` lets the oldest go, or `run_all` all of them."""

    def __init__(self) -> None:
        self.calls: list[tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]] = []

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self.calls.append((done, function, arguments))
        return done

    def run(self) -> None:
        done, function, arguments = self.calls.pop(0)
        try:
            result = function(*arguments)
        except Exception:
            done.errback()
        else:
            done.callback(result)

    def run_all(self) -> None:
        while self.calls:
            self.run()


class SharedStore(ListStore):
    """One that others share: `orphans` are jobs whose server is gone, `renewals` counts the lease's."""

    shared = True

    def __init__(self) -> None:
        super().__init__()
        self.orphans: list[StoredJob] = []
        self.renewals = 0

    def open(self, name: str, lease: float) -> int:
        start = super().open(name, lease)
        self.orphans += self.jobs.values()
        self.jobs.clear()
        return start

    @property
    def _foreign(self) -> dict[int, StoredJob]:
        return {job.number: job for job in self.orphans}

    def renew(self) -> Renewal:
        self.renewals += 1
        return super().renew()._replace(has_orphans=bool(self.orphans))

    def take_over(self, limit: int, position: int) -> list[StoredJob]:
        self._check()
        taken, self.orphans = self.orphans[:limit], self.orphans[limit:]
        taken = [job._replace(position=position + index) for index, job in enumerate(taken)]
        self.jobs.update((job.number, job) for job in taken)
        return taken


UNAVAILABLE = StoreUnavailable("the disk is full")
