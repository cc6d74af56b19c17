"""What every store does. The suite in tests/store holds each of them to it.

Only the shape of what goes in and comes out is here, and what is promised of it; no SQL, and no database.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

from txgearman.broker.dead_job import DeadCursor, DeadFilter, DeadJob, DeadPage
from txgearman.broker.kept_result import KeptResult, ResultCounts
from txgearman.broker.kept_unique import KeptUnique
from txgearman.broker.stored_job import StoredJob
from txgearman.store.contract.changes import Changes, Coalesced, Retry, Written
from txgearman.store.contract.dead_jobs import MAX_EXAMINED, MAX_EXAMINED_BYTES, DeadCount, DeadJobTable
from txgearman.store.contract.plots import PlotPiece, PlotTable
from txgearman.store.contract.results import Evicted, ResultTable
from txgearman.store.contract.schedules import ScheduleTable, StoredSchedule, Tick
from txgearman.store.contract.settings import Setting, SettingChanges, Settings, SettingTable
from txgearman.store.contract.slots import MAX_SLOTS, Slot, SlotChanges, WantedSlots

__all__ = [
    "MAX_EXAMINED",
    "MAX_EXAMINED_BYTES",
    "MAX_SLOTS",
    "NO_POSITION",
    "Changes",
    "Coalesced",
    "DeadCount",
    "DeadCursor",
    "DeadFilter",
    "DeadJob",
    "DeadJobTable",
    "DeadPage",
    "Evicted",
    "KeptResult",
    "KeptUnique",
    "PlotPiece",
    "PlotTable",
    "QueueLength",
    "Renewal",
    "ResultCounts",
    "ResultTable",
    "Retry",
    "ScheduleTable",
    "Setting",
    "SettingChanges",
    "SettingTable",
    "Settings",
    "Slot",
    "SlotChanges",
    "Store",
    "StoredJob",
    "StoredSchedule",
    "Tick",
    "WantedSlots",
    "Written",
]

NO_POSITION: Final = -1
"""The position of a job that a take-over may have moved here, until its answer has arrived."""


class QueueLength(NamedTuple):
    """The number of stored jobs of one queue, without scheduled ones.

    Attributes:
        function: The function of the queue.
        priority: Its priority.
        jobs: How many there are.
    """

    function: bytes
    priority: int
    jobs: int


class Renewal(NamedTuple):
    """What a server learns with the renewal of its lease.

    Attributes:
        has_orphans: Whether there may be jobs to `take_over`.
        settings_version: The `Settings.version` of now.
        wanted_slots: What others want of this server's slots; `MAX_SLOTS` limits at most.
        has_new_slots: Whether this server has slots that it has not confirmed. It may have got one that it
            does not know of, where the answer to what it wanted was lost.
    """

    has_orphans: bool
    settings_version: int
    wanted_slots: list[WantedSlots]
    has_new_slots: bool


class Store(Protocol):
    """Jobs in a database, used by one thread at a time. Every method blocks.

    Each raises `StoreUnavailable` when the database cannot be reached or cannot write now. The store stays
    usable: the same call may be made again later, and connects anew if need be. After `StoreUnavailable` it
    is unknown whether anything was changed, as the answer to a commit may have been lost. So whoever refuses
    jobs because of it removes them later. The end of a job that was not saved may stay: nothing runs of it.

    On a shared store every method after `open` raises `LeaseLost` once this server's lease has expired and
    another server has noticed. It has changed nothing then. Only `open` helps, which makes this server a new
    one without jobs.
    """

    largest_data: int
    """Bytes of a job's data that can be stored."""

    shared: bool
    """Whether several servers may use the database at the same time."""

    @property
    def schedules(self) -> ScheduleTable:
        """The schedules and their ticks."""

    @property
    def dead_jobs(self) -> DeadJobTable:
        """The dead jobs."""

    @property
    def results(self) -> ResultTable:
        """The results of jobs."""

    @property
    def settings(self) -> SettingTable:
        """The settings of functions."""

    @property
    def plots(self) -> PlotTable:
        """The dashboard's plots."""

    def open(self, name: str, lease: float) -> int:
        """Connect, and create or upgrade the tables.

        Afterwards a server on a store that is not shared owns all jobs. On a shared one it has a lease, and
        owns no job yet.

        Args:
            name: What other servers know this one by.
            lease: Seconds until the lease expires unless it is renewed.

        Returns:
            The number of this start, from 1. Every start on one database, by whatever server, has a number of
            its own, greater than all before.

        Raises:
            StoreError: The database is newer than this program, is not ours, or is in use by another server
                though it cannot be shared. The text is for the operator.
        """

    def write(self, changes: Changes) -> Written:
        """Make all changes durable: removals first, then saves, then ends of jobs that were not saved.

        A job is not saved if there is a duplicate: a stored job of the same function and unique. The unique
        ``-`` stands for the data; without data, or with an empty unique, a job has no duplicates. Of two
        duplicates within `changes` the first is saved. As removals come first, a job may have the unique of
        one that has just ended, and what is both saved and removed is not stored. A job whose number is
        stored already was saved by an earlier call; if another server has taken it over since, it is its own
        duplicate. Only jobs that this server owns are removed or changed.

        A duplicate that another server owns is marked, durably: a submit was coalesced with it. Its owner may
        have ended it without having removed it yet. It cannot remove it any more unless `Changes.coalesced`
        says that it knows of the last such submit. So a submit may be answered with a duplicate's handle:
        the owner, or whoever takes the job over, hears of that submit.

        A job in `Changes.unless_kept` whose unique is kept is not saved either, and the duplicate is what it
        is kept for.

        Args:
            changes: What to write. Without any changes the call tells whether the database can be written to.

        Returns:
            The duplicates, and the jobs that were not removed.
        """

    def queue_lengths(self) -> list[QueueLength]:
        """Count the jobs that this server owns, without scheduled ones.

        Returns:
            The length of each queue that has jobs.
        """

    def fetch(self, function: bytes, priority: int, cursor: int, limit: int) -> list[StoredJob]:
        """Read own jobs of one queue in order, without scheduled ones.

        Args:
            function: The function's name.
            priority: The jobs' priority.
            cursor: The cursor: only jobs with a greater position are read.
            limit: How many jobs to read at most.

        Returns:
            The jobs by position; fewer than `limit` if there are no more.
        """

    def scheduled(self, cursor: int, limit: int) -> list[StoredJob]:
        """Read own jobs that have a `run_at`.

        Args:
            cursor: The cursor: only jobs with a greater position are read.
            limit: How many jobs to read at most.

        Returns:
            The jobs by position; fewer than `limit` if there are no more.
        """

    def find(self, number: int) -> StoredJob | None:
        """Find a job by its number, whoever owns it.

        Args:
            number: The number of its handle.

        Returns:
            The job, whose data may be left empty; None if there is none.
        """

    def find_unique(self, unique: bytes) -> StoredJob | None:
        """Find the job that was submitted last with a unique, of any function and owner.

        Args:
            unique: The unique.

        Returns:
            The job, whose data may be left empty; None if there is none.
        """

    def find_duplicate(self, function: bytes, unique: bytes, data: bytes) -> StoredJob | None:
        """Find the stored job that a new one is a duplicate of, whoever owns it.

        Args:
            function: The function of the new job.
            unique: Its unique.
            data: Its data, which counts where the unique is ``-``.

        Returns:
            The stored job with its data; None if there is none.
        """

    # -- kept uniques, which belong to no server ---------------------------------------------------

    def kept_uniques(self, now: float) -> list[KeptUnique]:
        """Read the uniques that are kept.

        Args:
            now: Seconds since the epoch; those whose time is over then are left out.

        Returns:
            The uniques, those that are kept longest last.
        """

    # -- several servers on one database ----------------------------------------------------------

    def renew(self) -> Renewal:
        """Extend this server's lease to its full length from now.

        Returns:
            What has to be looked after. A store that is not shared has nothing.
        """

    def take_over(self, limit: int, position: int) -> list[StoredJob]:
        """Own jobs of servers whose lease has expired. A store that is not shared has none.

        One server's jobs come after the other's: those of high priority first, those of one function and
        priority by position, and the scheduled ones last. A server without jobs is forgotten. Two servers
        that call this at the same time get different jobs. A dead server that is just writing, or being
        marked by another, is left for the next call; so an empty list does not mean that nothing will come.

        If the answer to a call is lost, the next one returns the same jobs; `renew` asks for it. Until then
        `queue_lengths`, `fetch` and `scheduled` leave these jobs out, and the others give them `NO_POSITION`.

        Args:
            limit: How many jobs to take over at most.
            position: The position of the first job here; the others follow.

        Returns:
            The jobs, with their new positions.
        """

    def exchange_slots(self, changes: SlotChanges) -> list[Slot]:
        """Give back slots and ask for others. A store that is not shared has none.

        Who wants a slot gets one as soon as there are fewer than there may be, and those that wanted one
        earlier have theirs. That ends the want. Slots and wants of a server whose lease has expired are gone
        from when another has noticed.

        Args:
            changes: What has changed since the last call. Without any, this reads alone.

        Returns:
            The slots that this server has got and not confirmed, up to `MAX_SLOTS`.
        """

    def servers(self) -> list[str]:
        """Ask which servers use the database.

        Returns:
            The names of those whose lease has not expired, this one's included.
        """

    def close(self) -> None:
        """Release the lease, so that others need not wait for its expiry, and disconnect. Never raises."""
