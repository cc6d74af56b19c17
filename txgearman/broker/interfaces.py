"""What leaves the broker, beside the calls of `connections`: calls on these small interfaces.

None of these methods may raise, and none may call back into the broker: they are called in the middle
of its decisions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from txgearman.broker.slots import SlotSource as SlotSource  # noqa: PLC0414 (it is one of them)
from txgearman.errors import Refused

if TYPE_CHECKING:
    from txgearman.broker.dead_job import DeadCursor, DeadFilter, DeadJob, DeadPage
    from txgearman.broker.entities import Job
    from txgearman.broker.kept_result import KeptResult, ResultCounts
    from txgearman.broker.kept_unique import KeptUnique
    from txgearman.broker.setting_kinds import SettingValue
    from txgearman.broker.stored_job import StoredJob

    Found = StoredJob | None | Refused
    """A job, or that there is none, or that this cannot be known now."""
    Tell = Callable[[Found], None]
    TellPage = Callable[["StoredPage | Refused"], None]


class StoredPage(NamedTuple):
    """Some stored jobs.

    Attributes:
        jobs: The jobs, in the order of their positions.
        next: The position to go on after; None if that was all.
    """

    jobs: list[StoredJob]
    next: int | None


class Alarm(Protocol):
    """The one timer the broker needs."""

    def ring_in(self, delay: float) -> None:
        """Call `Broker.tick` once, instead of when it was last said.

        Args:
            delay: Seconds from now.
        """


class JobStore(Protocol):
    """What makes background jobs durable, if anything does.

    What it answers it answers later, never from inside the call.
    """

    shared: bool
    """Whether other servers have jobs there too."""

    def owns(self, job: StoredJob) -> bool:
        """Whether a stored job is this server's, and not that of one which shares the store.

        Args:
            job: The job, as the store has it.

        Returns:
            True if it is this server's.
        """

    def check(self, data: bytes) -> None:
        """Test whether a job can be saved now.

        Args:
            data: The job's payload.

        Raises:
            NotSaved: It cannot.
        """

    def save(self, job: Job) -> None:
        """Make a job durable. `StoreAnswers.saved`, `stored_before` or `not_saved` says what came of it.

        If the job ends before its save begins, its `StoreAnswers.unsaved_end` is made durable instead.

        Args:
            job: The job. It may be with a worker already.
        """

    def remove(self, number: int, just_now: bool = True) -> None:
        """A stored job has ended, and need not be kept any longer.

        If a submit that came after its end was answered with it elsewhere, `StoreAnswers.restore` brings it
        back.

        Args:
            number: The number of its handle.
            just_now: Whether it ended in this moment, and not some time before.
        """

    def keep_unique(self, kept: KeptUnique) -> None:
        """Make it durable that a unique is kept. Its job may be one that is not stored. If it is, `remove`
        comes next, and is not done before this.

        Args:
            kept: The unique.
        """

    def lost(self, job: Job) -> None:
        """One more worker has lost a stored job.

        Args:
            job: The job, whose `losses` have changed.
        """

    def retrying(self, job: Job) -> None:
        """A run of a stored job has failed, and it waits for its retry, or has waited for it already.

        Args:
            job: The job. Its `failures` say what happened, and when it is to run again.
        """

    def died(self, number: int, dead: DeadJob) -> None:
        """A stored job is dead: as `remove`, in a transaction that also keeps it as a dead one.

        A late duplicate is restored by `StoreAnswers.restore`, and nothing is dead then.

        Args:
            number: The number of its handle.
            dead: What is to be kept, but for the data, which the store has.
        """

    def completed(self, result: KeptResult) -> None:
        """A stored job is done: as `remove`, in a transaction that also keeps its result.

        A late duplicate is restored by `StoreAnswers.restore`, and no result is kept then.

        Args:
            result: The job's result.
        """

    def fetch(self, function: bytes, priority: int, cursor: int) -> None:
        """Bring jobs of a queue. `StoreAnswers.fetched` or `not_fetched` says what came of it.

        Args:
            function: The function of the queue.
            priority: Its priority.
            cursor: The position after which the jobs begin.
        """

    def page(self, function: bytes, priority: int, cursor: int, limit: int, tell: TellPage) -> None:
        """Tell of jobs as `fetch` brings them, with their data. Those that have ended are left out.

        Args:
            function: The function of the queue.
            priority: Its priority.
            cursor: The position after which the page begins.
            limit: How many jobs the page may have. It has fewer where they are large.
            tell: Called with the page, or with why there is none.
        """

    def find(self, number: int, tell: Tell) -> None:
        """Find a stored job by its number.

        Args:
            number: The number of its handle.
            tell: Called with the job, with or without its data.
        """

    def find_unique(self, unique: bytes, tell: Tell) -> None:
        """Find the stored job that was submitted last with a unique.

        Args:
            unique: The unique.
            tell: Called with the job.
        """

    def find_duplicate(self, function: bytes, unique: bytes, data: bytes, tell: Tell) -> None:
        """Find the stored job that a new one is a duplicate of.

        Args:
            function: The function of the new job.
            unique: Its unique.
            data: Its payload, which counts where the unique says so.
            tell: Called with the stored job.
        """


class DeadJobStore(Protocol):
    """What keeps dead jobs: memory, or the store. Answers may come later, and from inside the call."""

    def page(
        self,
        wanted: DeadFilter,
        before: DeadCursor | None,
        limit: int,
        with_data: bool,
        tell: Callable[[DeadPage | Refused], None],
    ) -> None:
        """Find dead jobs, those that ended last first.

        Args:
            wanted: Which ones.
            before: The cursor after which the page begins, None for the first page.
            limit: How many jobs the page may have.
            with_data: Whether the jobs are to have their data.
            tell: Called with the page, or with why there is none.
        """

    def find(self, number: int, tell: Callable[[DeadJob | Refused | None], None]) -> None:
        """Find a dead job by its number.

        Args:
            number: The number of its handle.
            tell: Called with the job and its data, None if there is none.
        """

    def retry(self, number: int, tell: Callable[[StoredJob | Refused | None], None]) -> None:
        """Make a live job of a dead one, with no attempts and no losses. Of two servers that do this at once
        one gets it.

        Args:
            number: The number of its handle.
            tell: Called with the live job, None if there is no such dead job, or with `UniqueInUse` if a
                stored job has its function and unique, which stays dead then.
        """

    def forget(self, numbers: Sequence[int], tell: Callable[[int | Refused], None]) -> None:
        """Forget dead jobs.

        Args:
            numbers: The numbers of their handles.
            tell: Called with how many of them there were.
        """

    def counts(self) -> Mapping[bytes, int]:
        """Count the dead jobs. On a database that several servers share this may be a minute old.

        Returns:
            How many each function has, without functions that have none. It is no copy, and changes.
        """

    @property
    def evicted(self) -> int:
        """How many dead jobs this server has forgotten as they were too many, too large or too old."""


class ScheduleStore(Protocol):
    """Keeps the ticks of schedules that are done with, so that no other server and no later start does one
    again. It says what came of a job by `StoreAnswers`, as for any other."""

    def tick_with_job(self, number: int, schedule: bytes, tick: float) -> None:
        """A job that is being saved is that of a tick: it is saved if the tick is not done with yet.

        Otherwise `StoreAnswers.stored_before` says so, with an empty handle. If the schedule has changed
        meanwhile, as another server has told the store, `StoreAnswers.tick_refused` says that. In an outage
        of the store the job is not refused as others are, but saved when the store is back.

        Args:
            number: The number of the job, for which `JobStore.save` was called in this turn.
            schedule: The schedule's name.
            tick: The tick, in seconds since the epoch.
        """

    def tick_without_job(self, schedule: bytes, tick: float) -> None:
        """A tick is done with, and has no job.

        Args:
            schedule: The schedule's name.
            tick: The tick, in seconds since the epoch.
        """


class ResultStore(Protocol):
    """What keeps results: memory, or the store. Answers may come later, and from inside the call."""

    def find(self, number: int, tell: Callable[[KeptResult | Refused | None], None]) -> None:
        """Find a result.

        Args:
            number: The number of the job's handle.
            tell: Called with the result, None if there is none or its time is over.
        """

    def counts(self) -> ResultCounts:
        """Count the results. On a database that several servers share this may be a minute old.

        Returns:
            How many there are, and how many bytes they count for.
        """

    @property
    def expired(self) -> int:
        """How many results this server has forgotten as their time was over."""

    @property
    def evicted(self) -> int:
        """How many results this server has forgotten before that, as all together were too large."""


class SettingStore(Protocol):
    """What keeps the settings that administrators make for functions, if anything does."""

    def changed(self, function: bytes, kind: str, value: SettingValue) -> None:
        """An administrator has set something.

        Args:
            function: The function's name.
            kind: What was set, one of `setting_kinds.KINDS`.
            value: To what.
        """

    def dropped(self, function: bytes) -> None:
        """An administrator has dropped a function: it has no settings any more.

        Args:
            function: The function's name.
        """

    def overruled(self, function: bytes, kind: str) -> None:
        """The operator's rules have changed in what they say of a function, and that holds from now on.

        Args:
            function: The function's name.
            kind: What they say something else of.
        """

    def when_written(self, tell: Callable[[Refused | None], None]) -> None:
        """Wait until all that was set so far is durable.

        Args:
            tell: Called then with None, or with the refusal if the store cannot be written to. It is tried
                again all the same.
        """


class PauseListener(Protocol):
    """Is told of each function that is paused by itself, to log it."""

    def paused(self, function: bytes, failures: int) -> None:
        """A function was paused as its runs failed, see `FunctionRules.pause_after`.

        Args:
            function: The function.
            failures: How many of its runs have failed in a row.
        """


class JobTrace(Protocol):
    """Is told of the steps of every job. Without one, a step costs the test of an attribute."""

    def queueing(self, job: Job) -> None:
        """The job is about to be queued: for the first time, or again as its worker has lost it.

        Args:
            job: The job, in the state before.
        """

    def started(self, job: Job) -> None:
        """A worker has got the job.

        Args:
            job: The job, which is running now.
        """

    def failing(self, job: Job, ending: int) -> None:
        """A run of the job has failed, and another will follow.

        Args:
            job: The job, which is running still.
            ending: The run's outcome, one of `Outcome` as a plain int.
        """

    def ending(self, job: Job, ending: int | None) -> None:
        """The job is about to end.

        Args:
            job: The job, in the state before.
            ending: How it ends, one of `Outcome` as a plain int; None if it is completed.
        """


class DeathListener(Protocol):
    """Is told of each job that dies, to log it or to tell others."""

    def died(self, dead: DeadJob) -> None:
        """A job has died.

        Args:
            dead: The job, with its data.
        """


class Follower(Protocol):
    """Who is told of the way of some jobs, if anybody is; see `txgearman.broker.tracing`.

    Times are seconds since the epoch. `ending` is one of `Outcome` as a plain int, None for a completed job.
    A job is told of before it changes, so it still has what it had on this part of its way.
    """

    def follows(self, job: Job) -> bool:
        """Whether the way of a job is wanted.

        Args:
            job: The job.

        Returns:
            Always the same for one job.
        """

    def waited(self, job: Job, since: float, until: float) -> None:
        """The job was in its queue, until a worker got it or it ended there.

        Args:
            job: The job, before it changes.
            since: When it was queued.
            until: When it left the queue.
        """

    def ran(self, job: Job, attempt: int, since: float, until: float, ending: int | None) -> None:
        """The job was with a worker.

        Args:
            job: The job, before it changes.
            attempt: Which worker this was, counted from 1.
            since: When the worker got it.
            until: When the worker ended or lost it.
            ending: How that ended. Behind `Outcome.LOST` the job may go on to another worker; `ended` says so
                where it does not.
        """

    def ended(self, job: Job, attempts: int, when: float, ending: int | None) -> None:
        """The job has ended. Nothing follows.

        Args:
            job: The job, before it is forgotten.
            attempts: How many workers had it.
            when: When it ended.
            ending: How it ended.
        """
