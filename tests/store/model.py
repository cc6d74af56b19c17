"""A store in plain Python that is too simple to be wrong, to compare the others with."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from tests.store.plots import MemoryPlots
from tests.store.schedules import MemorySchedules, ScheduleTable
from txgearman.broker.dead_job import DeadCursor, DeadFilter, DeadJob, DeadPage
from txgearman.broker.kept_unique import unique_key
from txgearman.errors import LeaseLost, UniqueInUse
from txgearman.store.contract import (
    MAX_EXAMINED,
    MAX_EXAMINED_BYTES,
    MAX_SLOTS,
    Changes,
    Coalesced,
    DeadCount,
    Evicted,
    KeptResult,
    KeptUnique,
    QueueLength,
    Renewal,
    ResultCounts,
    Setting,
    SettingChanges,
    Settings,
    Slot,
    SlotChanges,
    StoredJob,
    WantedSlots,
    Written,
)


@dataclass(slots=True)
class Lease:
    """One start of a server that shares the database."""

    name: str
    end: float
    dead: bool = False


@dataclass(slots=True)
class ModelDatabase:
    """What outlives the servers: jobs by number, with their owner and time of the last coalesced submit if
    there is any, dead jobs and results by number, kept uniques by function and key. `slots` has the owner of
    each, `wants` by limit the servers that want one, in their order, with how many there may be. `clock` is
    this database's own."""

    clock: Callable[[], float] = time.time
    jobs: dict[int, StoredJob] = field(default_factory=dict)
    owners: dict[int, int] = field(default_factory=dict)
    coalesced: dict[int, float] = field(default_factory=dict)
    leases: dict[int, Lease] = field(default_factory=dict)
    dead: dict[int, DeadJob] = field(default_factory=dict)
    uniques: dict[tuple[bytes, bytes], KeptUnique] = field(default_factory=dict)
    results: dict[int, KeptResult] = field(default_factory=dict)
    settings: dict[tuple[bytes, str], str] = field(default_factory=dict)
    settings_version: int = 0
    slots: dict[Slot, int] = field(default_factory=dict)
    confirmed: set[Slot] = field(default_factory=set)
    wants: dict[tuple[bytes, bytes], dict[int, int]] = field(default_factory=dict)
    starts: int = 0
    schedule_table: ScheduleTable = field(default_factory=ScheduleTable)

    def change_settings(self, changes: SettingChanges) -> None:
        """What `Store.change_settings` does."""
        for key in list(self.settings):
            if key[0] in changes.dropped or key in changes.values:
                del self.settings[key]
        self.settings.update((key, value) for key, value in changes.values.items() if value is not None)
        self.settings_version += 1

    def all_settings(self) -> Settings:
        """What `Store.settings` returns."""
        return Settings(self.settings_version, [Setting(*key, value) for key, value in self.settings.items()])

    def coalesce(self, number: int) -> None:
        """Answer a submit to another server than the job's with the job."""
        at = self.clock()
        # Two submits have different times, however slow the clock.
        self.coalesced[number] = at if at != self.coalesced.get(number) else at + 1e-6

    def keep_uniques(self, kept: Sequence[KeptUnique], now: float) -> None:
        """Keep uniques, if there are any, and forget those whose time is over."""
        if kept:
            self.uniques = {key: each for key, each in self.uniques.items() if each.until > now}
            self.uniques |= {(each.function, each.key): each for each in kept}

    def keep_ends(self, ends: dict[int, KeptResult | DeadJob], without: Set[int]) -> None:
        """Keep what is to be kept of jobs that ended before they were saved."""
        for number, end in ends.items():
            kept: dict[int, Any] = self.dead if isinstance(end, DeadJob) else self.results
            if number not in self.jobs and number not in without:
                kept.setdefault(number, end)

    def slots_of(self, key: tuple[bytes, bytes], owner: int | None = None) -> list[Slot]:
        """The slots of one limit, of one server or of all."""
        return [slot for slot, its in self.slots.items() if slot[:2] == key and owner in (None, its)]

    def give_slots(self) -> None:
        """Give the slots that are free to those who want them; the dead neither have nor want any."""
        dead = {number for number, lease in self.leases.items() if lease.dead}
        self.slots = {slot: owner for slot, owner in self.slots.items() if owner not in dead}
        self.confirmed &= self.slots.keys()
        for key, wants in self.wants.items():
            for server, most in list(wants.items()):
                taken = {slot.number for slot in self.slots_of(key)}
                if server in dead:
                    del wants[server]
                elif len(taken) < most:
                    del wants[server]
                    number = next(number for number in range(most) if number not in taken)
                    self.slots[Slot(*key, number)] = server

    def remove(self, number: int) -> None:
        """Forget a job."""
        del self.jobs[number], self.owners[number]
        self.coalesced.pop(number, None)


def evict_results(results: dict[int, KeptResult], max_bytes: int, now: float, limit: int) -> Evicted:
    """Evict some of `results`, as `Store.evict_results` does."""
    past = sorted((each.expires_at, each.number) for each in results.values() if each.expires_at <= now)
    for _, number in past[:limit]:
        del results[number]
    evicted = 0
    for _, number in sorted((each.ended, each.number) for each in results.values())[:limit]:
        if sum(each.weight for each in results.values()) <= max_bytes:
            break
        del results[number]
        evicted += 1
    return Evicted(min(len(past), limit), evicted)


class ModelStore:
    """A `Store` on a `ModelDatabase`, which others use too if it is `shared`."""

    largest_data = 1 << 30

    def __init__(self, database: ModelDatabase, shared: bool = False) -> None:
        self.shared = shared
        self._base = database
        self.schedules = MemorySchedules(database.schedule_table, self._check)
        self.dead_jobs = ModelDeadJobs(self)
        self.results = ModelResults(self)
        self.settings = ModelSettings(self)
        self.plots = MemoryPlots(self._check)
        self._owner = 0
        self._name = ""
        self._length = 0.0

    @property
    def start(self) -> int:
        """The number by which the database knows this server, if it is shared."""
        return self._owner

    def open(self, name: str, lease: float) -> int:
        base = self._base
        base.starts += 1
        self._name = name
        if self.shared:
            self.close()
            self._owner, self._length = base.starts, lease
            base.leases[self._owner] = Lease(name, base.clock() + lease)
        return base.starts

    def write(self, changes: Changes) -> Written:
        self._check()
        base = self._base
        base.keep_uniques(changes.kept_uniques, changes.now)
        for number, losses in changes.losses.items():
            if self._owns(number):
                base.jobs[number] = base.jobs[number]._replace(losses=losses)
        for number, retry in changes.retries.items():
            if self._owns(number):
                base.jobs[number] = base.jobs[number]._replace(**retry._asdict())
        ended = {*changes.removals, *changes.deaths, *changes.results}
        for number in ended:
            if self._owns(number) and base.coalesced.get(number) == changes.coalesced.get(number):
                if number in changes.deaths:
                    base.dead[number] = _bury(base.jobs[number], changes.deaths[number])
                elif number in changes.results:
                    base.results[number] = _keep(base.jobs[number], changes.results[number])
                base.remove(number)
        coalesced = [
            Coalesced(base.jobs[number], base.coalesced[number], base.clock() - base.coalesced[number])
            for number in ended
            if self._owns(number)
        ]
        duplicates = {}
        ticks_done, ticks_refused = base.schedule_table.claim(changes.ticks)
        not_saved = ticks_done | ticks_refused | set(changes.removals)
        for job in changes.saves:
            if job.number in not_saved or self._owns(job.number):
                continue
            handle = self._save(job, changes)
            if handle is not None:
                duplicates[job.number] = handle
        base.keep_ends(changes.unsaved_ends, ticks_done | ticks_refused)
        return Written(duplicates, coalesced, ticks_done, ticks_refused)

    def _save(self, job: StoredJob, changes: Changes) -> bytes | None:
        """Save a job; returns the handle of its duplicate if there is one."""
        base = self._base
        kept = self._find_kept(job, changes)
        if kept is not None:
            return kept.handle
        duplicate = base.jobs.get(job.number) or self._find_duplicate(job.function, job.unique, job.data)
        if duplicate is None:
            base.jobs[job.number] = job
            base.owners[job.number] = self._owner
            return None
        if base.owners[duplicate.number] != self._owner:
            base.coalesce(duplicate.number)
        return duplicate.handle

    def _find_kept(self, job: StoredJob, changes: Changes) -> KeptUnique | None:
        key = unique_key(job.unique, job.data)
        kept = self._base.uniques.get((job.function, key)) if key is not None else None
        if kept is None or job.number not in changes.unless_kept or kept.until <= changes.now:
            return None
        return kept

    def queue_lengths(self) -> list[QueueLength]:
        counts = Counter((job.function, job.priority) for job in self._own() if not _has_time(job))
        return [QueueLength(*key, count) for key, count in counts.items()]

    def fetch(self, function: bytes, priority: int, after: int, limit: int) -> list[StoredJob]:
        return [
            job
            for job in self._own(after)
            if not _has_time(job) and (job.function, job.priority) == (function, priority)
        ][:limit]

    def scheduled(self, after: int, limit: int) -> list[StoredJob]:
        return [job for job in self._own(after) if _has_time(job)][:limit]

    def find(self, number: int) -> StoredJob | None:
        self._check()
        return self._base.jobs.get(number)

    def find_unique(self, unique: bytes) -> StoredJob | None:
        self._check()
        found = [job for job in self._base.jobs.values() if job.unique == unique not in {b"", b"-"}]
        return max(found, key=lambda job: (job.submitted, job.number), default=None)

    def find_duplicate(self, function: bytes, unique: bytes, data: bytes) -> StoredJob | None:
        self._check()
        return self._find_duplicate(function, unique, data)

    def kept_uniques(self, now: float) -> list[KeptUnique]:
        self._check()
        kept = [each for each in self._base.uniques.values() if each.until > now]
        return sorted(kept, key=attrgetter("until"))

    def renew(self) -> Renewal:
        self._check()
        if not self.shared:
            return Renewal(False, 0, [], False)
        base = self._base
        base.leases[self._owner].end = base.clock() + self._length
        has_orphans = any(self._has_ended(lease) for lease in base.leases.values())
        wanted = []
        for key, wants in base.wants.items():
            own = len(base.slots_of(key, self._owner))
            servers = sum(own > len(base.slots_of(key, server)) for server in wants if server != self._owner)
            if servers:
                wanted.append(WantedSlots(*key, servers))
        has_new = any(
            owner == self._owner and slot not in base.confirmed for slot, owner in base.slots.items()
        )
        return Renewal(has_orphans, base.settings_version, wanted[:MAX_SLOTS], has_new)

    def exchange_slots(self, changes: SlotChanges) -> list[Slot]:
        self._check()
        if not self.shared:
            return []
        base = self._base
        for slot in changes.released:
            if base.slots.get(slot) == self._owner and slot in base.confirmed:
                del base.slots[slot]
                base.confirmed.remove(slot)
        base.confirmed |= {slot for slot in changes.confirmed if base.slots.get(slot) == self._owner}
        for key in changes.unwanted:
            base.wants.get(key, {}).pop(self._owner, None)
        for key, most in changes.wanted.items():
            base.wants.setdefault(key, {})[self._owner] = most
        if changes:
            base.give_slots()
        new = [
            slot for slot, owner in base.slots.items() if owner == self._owner and slot not in base.confirmed
        ]
        return new[:MAX_SLOTS]

    def take_over(self, limit: int, position: int) -> list[StoredJob]:
        self._check()
        base = self._base
        jobs: list[StoredJob] = []
        for owner, lease in list(base.leases.items()):
            if owner != self._owner and self._has_ended(lease):
                lease.dead = True
                base.give_slots()
                found = [job for job in base.jobs.values() if base.owners[job.number] == owner]
                if not found:
                    del base.leases[owner]
                jobs += sorted(found, key=_order)
        jobs = [job._replace(position=position + index) for index, job in enumerate(jobs[:limit])]
        for job in jobs:
            base.jobs[job.number] = job
            base.owners[job.number] = self._owner
        return jobs

    def servers(self) -> list[str]:
        self._check()
        if not self.shared:
            return [self._name]
        return sorted(lease.name for lease in self._base.leases.values() if not self._has_ended(lease))

    def close(self) -> None:
        if self._owner in self._base.leases:
            self._base.leases[self._owner].dead = True
        self._owner = 0

    def _check(self) -> None:
        if self.shared and (self._owner not in self._base.leases or self._base.leases[self._owner].dead):
            raise LeaseLost(f"the lease of {self._name} has expired")

    def _has_ended(self, lease: Lease) -> bool:
        return lease.dead or lease.end < self._base.clock()

    def _owns(self, number: int) -> bool:
        return self._base.owners.get(number) == self._owner

    def _own(self, after: int = -1) -> list[StoredJob]:
        self._check()
        jobs = [job for job in self._base.jobs.values() if self._owns(job.number) and job.position > after]
        return sorted(jobs, key=lambda job: job.position)

    def _find_duplicate(self, function: bytes, unique: bytes, data: bytes) -> StoredJob | None:
        if not unique or (unique == b"-" and not data):
            return None
        for job in self._base.jobs.values():
            if (job.function, job.unique) == (function, unique) and (unique != b"-" or job.data == data):
                return job
        return None


class ModelDeadJobs:
    """The `dead_jobs` of a `ModelStore`."""

    def __init__(self, store: ModelStore) -> None:
        self._store = store

    def page(self, wanted: DeadFilter, before: DeadCursor | None, limit: int, with_data: bool) -> DeadPage:
        self._store._check()
        jobs: list[DeadJob] = []
        cursor = None
        size = 0
        there = [
            job
            for job in sorted(self._store._base.dead.values(), key=_cursor, reverse=True)
            if wanted.function in {None, job.function} and (before is None or _cursor(job) < before)
        ]
        for examined, job in enumerate(there):
            size += job.weight
            too_many = wanted.search and examined == MAX_EXAMINED
            too_large = (wanted.search or with_data) and size > MAX_EXAMINED_BYTES and cursor
            if len(jobs) == limit or too_many or too_large:
                return DeadPage(jobs, cursor)
            cursor = _cursor(job)
            if wanted.matches(job):
                jobs.append(job if with_data else job._replace(data=None))
        return DeadPage(jobs, None)

    def find(self, number: int) -> DeadJob | None:
        self._store._check()
        return self._store._base.dead.get(number)

    def retry(self, number: int, position: int, submitted: float) -> StoredJob | None:
        self._store._check()
        base = self._store._base
        dead = base.dead.get(number)
        if dead is None:
            job = base.jobs.get(number)
            return job if job is not None and job.position == position else None
        assert dead.data is not None
        if self._store._find_duplicate(dead.function, dead.unique, dead.data) is not None:
            raise UniqueInUse
        del base.dead[number]
        base.jobs[number] = job = StoredJob(
            number,
            position,
            dead.handle,
            dead.function,
            dead.unique,
            dead.data,
            dead.priority,
            None,
            0,
            submitted,
            dead.reducer,
            dead.attributes,
        )
        base.owners[number] = self._store._owner
        return job

    def forget(self, numbers: Sequence[int]) -> int:
        self._store._check()
        return sum(self._store._base.dead.pop(number, None) is not None for number in numbers)

    def counts(self) -> list[DeadCount]:
        self._store._check()
        jobs, weights = Counter[bytes](), Counter[bytes]()
        for job in self._store._base.dead.values():
            jobs[job.function] += 1
            weights[job.function] += job.weight
        return [DeadCount(function, count, weights[function]) for function, count in jobs.items()]

    def evict(self, max_jobs: int, max_bytes: int, ended_before: float, limit: int) -> int:
        self._store._check()
        dead = self._store._base.dead
        for evicted in range(limit):
            oldest = min(dead.values(), key=_cursor, default=None)
            if oldest is None or (
                len(dead) <= max_jobs
                and sum(job.weight for job in dead.values()) <= max_bytes
                and oldest.ended >= ended_before
            ):
                return evicted
            del dead[oldest.number]
        return limit


class ModelResults:
    """The `results` of a `ModelStore`."""

    def __init__(self, store: ModelStore) -> None:
        self._store = store

    def find(self, number: int, now: float) -> KeptResult | None:
        self._store._check()
        result = self._store._base.results.get(number)
        return None if result is None or result.expires_at <= now else result

    def counts(self) -> ResultCounts:
        self._store._check()
        results = self._store._base.results.values()
        return ResultCounts(len(results), sum(result.weight for result in results))

    def evict(self, max_bytes: int, now: float, limit: int) -> Evicted:
        self._store._check()
        return evict_results(self._store._base.results, max_bytes, now, limit)


class ModelSettings:
    """The `settings` of a `ModelStore`."""

    def __init__(self, store: ModelStore) -> None:
        self._store = store

    def read(self) -> Settings:
        self._store._check()
        return self._store._base.all_settings()

    def change(self, changes: SettingChanges) -> None:
        self._store._check()
        self._store._base.change_settings(changes)


def _order(job: StoredJob) -> tuple[int | bytes, ...]:
    """What the jobs of a dead server are sorted by."""
    return (1, job.position) if _has_time(job) else (0, job.priority, job.function, job.position)


def _has_time(job: StoredJob) -> bool:
    """Whether it waits for a time, or has waited for one."""
    return job.run_at is not None or job.retry_at is not None


def _bury(job: StoredJob, death: DeadJob) -> DeadJob:
    """A dead job: what was known of it alive comes from the store."""
    return death._replace(
        **{
            name: getattr(job, name)
            for name in ("handle", "function", "unique", "data", "priority", "reducer", "submitted", "run_at")
        },
        size=len(job.data),
    )


def _keep(job: StoredJob, result: KeptResult) -> KeptResult:
    """A result, with what was stored of its job."""
    return result._replace(
        unique=job.unique,
        priority=job.priority,
        submitted=job.submitted,
        attempts=job.attempts,
        losses=job.losses,
    )


def _cursor(job: DeadJob) -> DeadCursor:
    return DeadCursor(job.ended, job.number)
