"""What every store does. The suite in tests/store holds each of them to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from txgearman.broker.stored_job import StoredJob

__all__ = ["NO_PLACE", "Changes", "Joined", "QueueLength", "Store", "StoredJob", "Written"]

NO_PLACE: Final = -1
"""The place of a job that may have been adopted, as long as nobody was told so."""


@dataclass(slots=True)
class Changes:
    """What is written at once: `saves` in the order they were submitted, the numbers in `removals`,
    and the new `attempts` by number. Removing or changing what is not there is no error. `joins` names the
    last join, `Joined.at`, of those to be removed in spite of one."""

    saves: list[StoredJob] = field(default_factory=list)
    removals: list[int] = field(default_factory=list)
    attempts: dict[int, int] = field(default_factory=dict)
    joins: dict[int, float] = field(default_factory=dict)


class Joined(NamedTuple):
    """A job that was to be removed and is kept, as a submit to another server was answered with it.

    `at` is what stands for the last such join, which was `ago` seconds before this was read, both by the
    database's clock.
    """

    job: StoredJob
    at: float
    ago: float


class Written(NamedTuple):
    """What came of changes: by the number of each job not saved the handle of the one that it is the
    same as, and the jobs that were not removed."""

    duplicates: dict[int, bytes]
    joined: list[Joined]


class QueueLength(NamedTuple):
    """How many jobs of one function and priority are kept that wait for no time of their own."""

    function: bytes
    priority: int
    jobs: int


class Store(Protocol):
    """A place that keeps jobs, used by one thread at a time.

    Every method blocks. Each raises `StoreUnavailable` when the database cannot be reached or cannot
    write now; the store stays usable, and the same call may be made again later, which connects anew if need
    be. Whether something was changed nobody knows then, as the answer to a commit may have been lost: whoever
    refuses jobs then removes them later. On a store that others share every method behind
    `open` raises `LeaseLost` once this server's lease has ended and another server has noticed; it has
    changed nothing. Then only `open` helps, which makes this server a new one without jobs.
    """

    largest_data: int
    """Bytes of a job's data that can be kept."""

    shared: bool
    """Whether several servers may use the database at the same time."""

    def open(self, name: str, lease: float) -> int:
        """Connect, make or upgrade the tables; returns the number of this start, from 1.

        Every start on one database, by whatever server, has a number of its own, greater than all before.
        A store that is not shared now owns all jobs; on a shared one this server has a lease for `lease`
        seconds, known to others by `name`, and owns no job yet.
        Raises `StoreError`, in words for the operator, for a database that is newer than this program, is
        not ours, or is in use by another server though it cannot be shared.
        """

    def write(self, changes: Changes) -> Written:
        """Make all changes durable: removals first, then saves.

        A job that is to be saved and has the function and unique of one that is kept is not saved: its
        duplicate's handle is returned. The unique ``-`` stands for the data; with no data, and for an empty
        unique, jobs are never the same. Of two such jobs within `changes` the first is saved. Only jobs that
        this server owns are removed or changed. Removals come first, so that a job may have the unique of
        one that has just ended, and what is both saved and removed is not kept. A job whose number is kept
        already was saved by an earlier call, or another server has adopted it: then it is its own duplicate.
        Without any changes it tells whether the database can be written to.

        A duplicate that another server owns is joined by that, durably: its owner, which may have ended it
        without having removed it yet, cannot remove it any more unless it says that it knows of this join,
        the last. So whoever answers a submit with a duplicate's handle may be sure that its owner, or who
        adopts it, hears of that.
        """

    def queue_lengths(self) -> list[QueueLength]:
        """What this server owns, without what is scheduled."""

    def fetch(self, function: bytes, priority: int, after: int, limit: int) -> list[StoredJob]:
        """The first `limit` own jobs of a function and priority whose place is greater than `after`, by
        place, without what is scheduled."""

    def scheduled(self, after: int, limit: int) -> list[StoredJob]:
        """The first `limit` own jobs that have a `run_at` and a place greater than `after`, by place."""

    def find(self, number: int) -> StoredJob | None:
        """The job with this number, whoever owns it; its data may be left empty."""

    def find_unique(self, unique: bytes) -> StoredJob | None:
        """The job with this unique that was submitted last, whatever its function and whoever owns it."""

    def find_duplicate(self, function: bytes, unique: bytes, data: bytes) -> StoredJob | None:
        """The whole job that one with this function, unique and data is the same as, whoever owns it."""

    # -- several servers on one database ----------------------------------------------------------

    def renew(self) -> bool:
        """Prolong this server's lease to its full length from now; returns whether there may be jobs to
        `adopt`."""

    def adopt(self, limit: int, place: int) -> list[StoredJob]:
        """Own up to `limit` jobs of servers whose lease has ended.

        Of one server after the other come first those of high priority, those of a function and priority
        by place, and last the scheduled ones; they get the places from `place` on. A server all of whose
        jobs are adopted is forgotten. Two servers that adopt at the same time get different jobs. A server
        that is just writing, or being marked by another, is left for the next call, so nothing now does
        not mean nothing later. A store that is not shared has none.

        What was adopted by a call that failed, as its answer got lost, is what the next call returns, which
        `renew` asks for. Until then `queue_lengths`, `fetch` and `scheduled` leave it out, and others give it
        `NO_PLACE`.
        """

    def servers(self) -> list[str]:
        """The names of the servers whose lease runs, this one's included."""

    def close(self) -> None:
        """Give up the lease, so that others need not wait for its end, and disconnect. Never raises."""
