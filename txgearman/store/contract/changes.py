"""What `Store.write` makes durable in one call, and what came of it."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field
from typing import NamedTuple

from txgearman.broker.dead_job import DeadJob
from txgearman.broker.kept_result import KeptResult
from txgearman.broker.kept_unique import KeptUnique
from txgearman.broker.stored_job import StoredJob
from txgearman.store.contract.schedules import Tick


class Retry(NamedTuple):
    """What a failed run changes of a job.

    Attributes:
        attempts: How many runs have failed.
        retry_at: When the job runs again, in seconds since the epoch.
        outcome: How the last run ended, as `StoredJob` has it.
        error: What its worker said of that.
        snoozes: How many runs have ended without counting as failed.
    """

    attempts: int
    retry_at: float
    outcome: int
    error: bytes
    snoozes: int = 0


@dataclass(slots=True)
class Changes:
    """What one call of `Store.write` makes durable. Removing or changing a job that is not there is no error.

    Attributes:
        saves: Jobs, in the order in which they were submitted.
        removals: The numbers of jobs that have ended.
        losses: The new number of losses, by job number.
        coalesced: The `Coalesced.at` that the caller knows of, by job number. These jobs are removed unless
            another submit was coalesced with them since.
        retries: What failed runs have changed, by job number. These jobs were saved before.
        deaths: What is to be kept of jobs that are dead, by job number. They are removed as those in
            `removals`, and only a job that is removed becomes a dead one, with what is stored of it.
        ticks: The ticks of schedules that `saves` are jobs of, by job number. A job whose tick is done with,
            here or by another server, is not saved. Nor is one whose schedule is paused, or, where its tick
            has a version, is not stored with this version any more. The ticks of the others are done with
            from now on.
        kept_uniques: Uniques that are kept, in place of earlier ones of the same function and key. Whatever
            becomes durable, these do not become so later than the removals.
        now: Seconds since the epoch. With `kept_uniques` those whose time is over then are deleted.
        unless_kept: The numbers of those of `saves` that are not saved if their unique is kept, by whatever
            server: the job that it is kept for is their duplicate.
        results: The results of jobs that are done, by job number. They are removed as those in `removals`,
            and only of a job that is removed the result is kept, with what is stored of the job.
        unsaved_ends: What is to be kept of jobs that ended before they were saved, by job number: a result,
            or a dead job with its data. Nothing is kept of a job whose tick in `ticks` is done with or
            refused, nor of one that is stored after the removals, whoever owns it: that one ends later.
            What is kept already stays as it is.
    """

    saves: list[StoredJob] = field(default_factory=list)
    removals: list[int] = field(default_factory=list)
    losses: dict[int, int] = field(default_factory=dict)
    coalesced: dict[int, float] = field(default_factory=dict)
    retries: dict[int, Retry] = field(default_factory=dict)
    deaths: dict[int, DeadJob] = field(default_factory=dict)
    ticks: dict[int, Tick] = field(default_factory=dict)
    kept_uniques: list[KeptUnique] = field(default_factory=list)
    now: float = 0.0
    unless_kept: frozenset[int] = frozenset()
    results: dict[int, KeptResult] = field(default_factory=dict)
    unsaved_ends: dict[int, KeptResult | DeadJob] = field(default_factory=dict)


class Coalesced(NamedTuple):
    """A job that was not removed, because another server coalesced a submit with it.

    Attributes:
        job: The job.
        at: Identifies the last such submit: its time by the database's clock.
        ago: Seconds from that submit until this was read, by the database's clock.
    """

    job: StoredJob
    at: float
    ago: float


class Written(NamedTuple):
    """The outcome of `Store.write`.

    Attributes:
        duplicates: The handle of the duplicate, by the number of each job that was not saved.
        coalesced: The jobs that were not removed.
        ticks_done: The numbers of the jobs that were not saved as their ticks were done with.
        ticks_refused: The numbers of those that were not saved as their schedules have changed.
    """

    duplicates: dict[int, bytes]
    coalesced: list[Coalesced]
    ticks_done: Set[int] = frozenset()
    ticks_refused: Set[int] = frozenset()
