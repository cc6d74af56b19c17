"""Servers that break one promise on purpose.

A trial of such a server must find the mistake; a harness that does not find it proves nothing about the
others.
"""

from __future__ import annotations

from typing import Any, Final

from txgearman.broker.entities import Job
from txgearman.server.persistence.pending_changes import End
from txgearman.server.persistence.writer import StoreWriter
from txgearman.store.contract import Changes, Coalesced, DeadJob, Written
from txgearman.store.sqlite import session
from txgearman.store.sqlite.store import SqliteStore

LATE: Final = 0.3
"""Seconds by which a server that answers early is ahead of its commit."""


def answers_early() -> None:
    """Clients are told that a job is accepted, and then it is committed."""

    def save(self: Any, job: Job) -> None:
        self.pending.saves.append(job)
        self._reactor.callLater(0, self._answers.saved, job)
        self._schedule_write(LATE)

    StoreWriter.save = save  # type: ignore[method-assign]


def writes_some() -> None:
    """One job of five is not written, and its client is told that it was."""
    write = SqliteStore.write

    def written(self: SqliteStore, changes: Changes) -> Written:
        changes.saves = [job for job in changes.saves if job.number % 5]
        return write(self, changes)

    SqliteStore.write = written  # type: ignore[method-assign]


def repeats_handles() -> None:
    """Each start gives the handles of the one before."""
    opened = StoreWriter.open

    def open_again(self: StoreWriter, name: str, lease: float) -> int:
        opened(self, name, lease)
        return 0

    StoreWriter.open = open_again  # type: ignore[method-assign]


def removes_nothing() -> None:
    """Jobs that are done stay in the store."""

    def remove(self: StoreWriter, number: int, just_now: bool = True) -> None:
        pass

    StoreWriter.remove = remove  # type: ignore[method-assign]


def buries_nothing() -> None:
    """Jobs that are dead are removed from the store, as if they were done."""

    def died(self: StoreWriter, number: int, dead: DeadJob) -> None:
        self.remove(number)

    StoreWriter.died = died  # type: ignore[method-assign]


def takes_late_duplicates_for_early() -> None:
    """A submit that another server answered with a job of this one is always taken to have come ahead of its
    end."""

    def remove_or_rerun(self: Any, each: Coalesced, end: End) -> None:
        self.pending.end_again(each, end)
        self.pending.coalesced[each.job.number] = each.at

    StoreWriter._remove_or_rerun = remove_or_rerun  # type: ignore[method-assign]


def syncs_nothing() -> None:
    """Commits are left to the system to write when it likes."""
    session.SETTINGS = (*session.SETTINGS, "PRAGMA synchronous=OFF")  # type: ignore[misc]
