"""What every store does. The suite in tests/store holds each of them to it.

Only the shape of what goes in and comes out is here, and what is promised of it; no SQL, and no database.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from txgearman.broker.dead_job import DeadCursor, DeadFilter, DeadJob, DeadPage
from txgearman.broker.kept_result import KeptResult, ResultCounts
from txgearman.broker.kept_unique import KeptUnique
from txgearman.broker.stored_job import StoredJob

__all__ = [
    "MAX_EXAMINED",
    "MAX_EXAMINED_BYTES",
    "MAX_SLOTS",
    "NO_POSITION",
    "Changes",
    "Coalesced",
    "DeadCount",
    "Evicted",
    "KeptResult",
    "KeptUnique",
    "QueueLength",
    "Renewal",
    "ResultCounts",
    "Retry",
    "Setting",
    "SettingChanges",
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

MAX_EXAMINED: Final = 2000
"""Dead jobs that are looked at for one page of a search, so that one that finds little does not hold up the
writes."""

MAX_EXAMINED_BYTES: Final = 16 * 1024 * 1024
"""Bytes of them, by `DeadJob.weight`, for a page of a search or one with data; but one job at least."""

MAX_SLOTS: Final = 1000
"""Slots that a server is told of at once, so that neither it nor the database is held up."""

NO_POSITION: Final = -1
"""The position of a job that a take-over may have moved here, until its answer has arrived."""


class Retry(NamedTuple):
    """What a failed run changes of a job.

    Attributes:
        attempts: How many runs have failed.
        retry_at: When the job runs again, in seconds since the epoch.
        outcome: How the last run ended, as `StoredJob` has it.
        error: What its worker said of that.
    """

    attempts: int
    retry_at: float
    outcome: int
    error: bytes


class Tick(NamedTuple):
    """That a job is the job of a tick of a schedule.

    Attributes:
        schedule: The schedule's name.
        tick: The tick, in seconds since the epoch.
    """

    schedule: bytes
    tick: float


class StoredSchedule(NamedTuple):
    """What is stored of a schedule.

    Attributes:
        name: Its name.
        since: When it was first added, in seconds since the epoch.
        paused: Whether it is paused.
        definition: What it is, as text of whoever wrote it; None where the configuration file says it.
        data: The payload of its jobs; None likewise.
        last_tick: The last tick that is done with and not forgotten; None without one. `Store.save_schedule`
            passes over it.
    """

    name: bytes
    since: float
    paused: bool
    definition: str | None = None
    data: bytes | None = None
    last_tick: float | None = None


class DeadCount(NamedTuple):
    """The dead jobs of a function.

    Attributes:
        function: The function's name.
        jobs: How many there are.
        weight: The sum of their `DeadJob.weight`.
    """

    function: bytes
    jobs: int
    weight: int


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
            here or by another server, is not saved; others are done with from now on.
        kept_uniques: Uniques that are kept, in place of earlier ones of the same function and key. Whatever
            becomes durable, these do not become so later than the removals.
        now: Seconds since the epoch. With `kept_uniques` those whose time is over then are deleted.
        unless_kept: The numbers of those of `saves` that are not saved if their unique is kept, by whatever
            server: the job that it is kept for is their duplicate.
        results: The results of jobs that are done, by job number. They are removed as those in `removals`,
            and only of a job that is removed the result is kept.
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
    """

    duplicates: dict[int, bytes]
    coalesced: list[Coalesced]
    ticks_done: Set[int] = frozenset()


class Evicted(NamedTuple):
    """What `Store.evict_results` deleted.

    Attributes:
        expired: How many results whose time was over.
        evicted: How many others.
    """

    expired: int
    evicted: int


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


class Setting(NamedTuple):
    """Something that an administrator has set for a function.

    Attributes:
        function: The function's name.
        kind: What is set: up to 32 characters.
        value: To what, as text.
    """

    function: bytes
    kind: str
    value: str


class Settings(NamedTuple):
    """All settings.

    Attributes:
        version: Greater than all before as soon as one changes. The settings may be newer than that.
        settings: The settings, in no order.
    """

    version: int
    settings: list[Setting]


@dataclass(slots=True)
class SettingChanges:
    """What one call of `Store.change_settings` makes durable.

    Attributes:
        dropped: Functions all of whose settings are deleted, ahead of what follows.
        values: The new value by function and kind; None deletes the setting.
    """

    dropped: set[bytes] = field(default_factory=set)
    values: dict[tuple[bytes, str], str | None] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.dropped or self.values)


class Slot(NamedTuple):
    """The right of one server to run one job at a time, under a limit that holds for all servers together.

    Attributes:
        function: The function of the job.
        key: The key of the job, empty for the function's own limit.
        number: Tells the slots of one limit apart.
    """

    function: bytes
    key: bytes
    number: int


@dataclass(slots=True)
class SlotChanges:
    """What a server says in `Store.exchange_slots`. It may say the same again where the answer was lost.

    Attributes:
        confirmed: Slots that it was told of.
        released: Slots that it gives back. One that was not confirmed by an earlier call is not given back:
            it is another, which the server was just given.
        unwanted: The limits of which it wants no slot any more, by function and key.
        wanted: The limits of which it wants one more slot, with how many slots there may be.
    """

    confirmed: list[Slot] = field(default_factory=list)
    released: list[Slot] = field(default_factory=list)
    unwanted: set[tuple[bytes, bytes]] = field(default_factory=set)
    wanted: dict[tuple[bytes, bytes], int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.confirmed or self.released or self.unwanted or self.wanted)


class WantedSlots(NamedTuple):
    """Slots of one limit that other servers want.

    Attributes:
        function: The function.
        key: The key, empty for the function's own limit.
        servers: How many servers want one and have fewer than this server.
    """

    function: bytes
    key: bytes
    servers: int


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
    jobs because of it removes them later.

    On a shared store every method after `open` raises `LeaseLost` once this server's lease has expired and
    another server has noticed. It has changed nothing then. Only `open` helps, which makes this server a new
    one without jobs.
    """

    largest_data: int
    """Bytes of a job's data that can be stored."""

    shared: bool
    """Whether several servers may use the database at the same time."""

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
        """Make all changes durable: removals first, then saves.

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

    # -- schedules, which belong to no server either ----------------------------------------------

    def schedules(self) -> list[StoredSchedule]:
        """Read what is stored of schedules.

        Returns:
            The schedules by name.
        """

    def save_schedule(self, schedule: StoredSchedule) -> None:
        """Store a schedule, in place of one of its name.

        Args:
            schedule: The schedule.
        """

    def note_file_schedule(self, name: bytes, since: float) -> None:
        """Note that a configuration file says what a schedule is. One that is stored stays paused if it is.

        Args:
            name: The schedule.
            since: Its `StoredSchedule.since`, unless it is stored already.
        """

    def pause_schedule(self, name: bytes, since: float, paused: bool) -> bool:
        """Store whether a schedule is paused; the rest stays.

        Args:
            name: The schedule.
            since: What becomes of `StoredSchedule.since`.
            paused: Whether it is paused.

        Returns:
            Whether there is one of this name.
        """

    def delete_schedule(self, name: bytes) -> None:
        """Delete what is stored of a schedule, its ticks included. One that is not there is no error.

        Args:
            name: The schedule.
        """

    def schedule_changes(self) -> int:
        """How often schedules were saved, paused or deleted, by all servers of the store.

        Returns:
            A number that differs from an earlier one where `schedules` may differ.
        """

    def skip_ticks(self, ticks: Sequence[Tick]) -> None:
        """Note that ticks are done with, without a job. One that has a job keeps it.

        Args:
            ticks: The ticks.
        """

    def forget_ticks(self, before: float) -> int:
        """Forget old ticks that are done with. Whoever does one of them again does it twice.

        Args:
            before: Seconds since the epoch; ticks before that are forgotten.

        Returns:
            How many there were.
        """

    # -- dead jobs, which belong to no server -----------------------------------------------------

    def dead(self, wanted: DeadFilter, before: DeadCursor | None, limit: int, with_data: bool) -> DeadPage:
        """Read dead jobs, those that ended last first.

        Args:
            wanted: Which ones.
            before: The cursor behind which the page begins, None for the first page.
            limit: How many jobs to read at most. A search looks at `MAX_EXAMINED` at most, and a search or a
                page with data at `MAX_EXAMINED_BYTES`. So a page may be short or empty and not be the last.
            with_data: Whether the jobs are to have their data.

        Returns:
            The page.
        """

    def find_dead(self, number: int) -> DeadJob | None:
        """Find a dead job by its number.

        Args:
            number: The number of its handle.

        Returns:
            The job with its data; None if there is none.
        """

    def retry_dead(self, number: int, position: int, submitted: float) -> StoredJob | None:
        """Make a dead job a live one of this server, without attempts and losses.

        Of several servers that do this with one job at the same time one succeeds. If the answer to a call is
        lost, the next one with the same position returns the same job.

        Args:
            number: The job's number.
            position: Its new position, which no other job ever has.
            submitted: The time from which its age counts now, in seconds since the epoch.

        Returns:
            The job; None if there is no dead job with this number.

        Raises:
            UniqueInUse: There is a stored job with its function and unique. It stays dead.
        """

    def forget_dead(self, numbers: Sequence[int]) -> int:
        """Delete dead jobs.

        Args:
            numbers: The numbers of their handles.

        Returns:
            How many of them there were.
        """

    def dead_counts(self) -> list[DeadCount]:
        """Count the dead jobs.

        Returns:
            The counts of the functions that have some.
        """

    def evict_dead(self, max_jobs: int, max_bytes: int, ended_before: float, limit: int) -> int:
        """Delete the dead jobs that ended first, until the others are within the limits.

        Args:
            max_jobs: How many may stay.
            max_bytes: How many bytes they may have by `DeadJob.weight`.
            ended_before: In seconds since the epoch; those that ended before are deleted in any case.
            limit: How many jobs to delete at most.

        Returns:
            How many were deleted; `limit` if there may be more.
        """

    # -- kept uniques, which belong to no server ---------------------------------------------------

    def kept_uniques(self, now: float) -> list[KeptUnique]:
        """Read the uniques that are kept.

        Args:
            now: Seconds since the epoch; those whose time is over then are left out.

        Returns:
            The uniques, those that are kept longest last.
        """

    # -- results, which belong to no server -------------------------------------------------------

    def find_result(self, number: int, now: float) -> KeptResult | None:
        """Find the result of a job.

        Args:
            number: The number of its handle.
            now: In seconds since the epoch. A result that expires until then is not found.

        Returns:
            The result with its data; None if there is none.
        """

    def result_counts(self) -> ResultCounts:
        """Count the results.

        Returns:
            How many there are, and how many bytes they count for.
        """

    def evict_results(self, max_bytes: int, now: float, limit: int) -> Evicted:
        """Delete the results that have expired, and then those of the jobs that ended first, until the others
        are within the limit.

        Args:
            max_bytes: How many bytes may stay, by `KeptResult.weight`.
            now: In seconds since the epoch. Results that expire until then have expired.
            limit: How many results of each kind to delete at most.

        Returns:
            How many were deleted; `limit` where there may be more.
        """

    # -- settings, which hold for all servers -----------------------------------------------------

    def settings(self) -> Settings:
        """Read what administrators have set.

        Returns:
            All settings.
        """

    def change_settings(self, changes: SettingChanges) -> None:
        """Change settings. Deleting one that is not there is no error.

        Args:
            changes: The changes, at least one.
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
