"""What leaves the broker, beside the calls of `connections`: calls on these small interfaces.

None of these methods may raise, and none may call back into the broker: they are called in the middle
of its decisions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from txgearman.errors import Refused

if TYPE_CHECKING:
    from txgearman.broker.dead_job import DeadCursor, DeadFilter, DeadJob, DeadPage
    from txgearman.broker.entities import Job
    from txgearman.broker.stored_job import StoredJob

    Found = StoredJob | None | Refused
    """A job, or that there is none, or that this cannot be known now."""
    Tell = Callable[[Found], None]
    TellPage = Callable[["StoredPage | Refused"], None]


class StoredPage(NamedTuple):
    """Some stored jobs. `next` is the position to go on behind, None if that was all."""

    jobs: list[StoredJob]
    next: int | None


class Alarm(Protocol):
    """The one timer the broker needs."""

    def ring_in(self, delay: float) -> None:
        """Call `Broker.tick` in `delay` seconds, instead of when it was last said."""


class JobStore(Protocol):
    """What makes background jobs durable, if anything does.

    What it answers it answers later, never from inside the call.
    """

    shared: bool
    """Whether other servers have jobs there too."""

    def owns(self, job: StoredJob) -> bool:
        """Whether a stored job is this server's, and not that of one which shares the store."""

    def check(self, data: bytes) -> None:
        """Raises `NotSaved` if a job with this data cannot be saved now."""

    def save(self, job: Job) -> None:
        """Make the job durable. Answered by `Broker.saved`, `Broker.stored_before` or `Broker.not_saved`."""

    def remove(self, number: int, just_now: bool = True) -> None:
        """The saved job with this number has ended, `just_now` or some time before: it need not be kept any
        longer. If a submit that came behind its end was answered with it elsewhere, `Broker.restore` brings
        it back."""

    def lost(self, job: Job) -> None:
        """One more worker has lost a saved job: its `losses` have changed."""

    def retrying(self, job: Job) -> None:
        """A run of a saved job has failed, and `Job.failures` says when it is to run again."""

    def died(self, number: int, dead: DeadJob) -> None:
        """As `remove`, in a transaction that also keeps the job as a dead one. The store takes the data from
        its own row; a late duplicate is restored by `Broker.restore`, and nothing is dead then."""

    def fetch(self, function: bytes, priority: int, after: int) -> None:
        """Bring jobs from behind the position `after`. Answered by `Broker.fetched`."""

    def page(self, function: bytes, priority: int, after: int, most: int, tell: TellPage) -> None:
        """Tell of jobs as `fetch` brings them, with their data, up to so many, and of fewer where they are
        large. Those that have ended are left out."""

    def find(self, number: int, tell: Tell) -> None:
        """Tell of the job with this number, with or without its data."""

    def find_unique(self, unique: bytes, tell: Tell) -> None:
        """Tell of the job with this unique that was submitted last."""

    def find_duplicate(self, function: bytes, unique: bytes, data: bytes, tell: Tell) -> None:
        """Tell of the job that one with this function, unique and data is the same as."""


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
        """Tell of dead jobs that are `wanted`, those that ended last first, from behind the cursor `before`;
        at most `limit` of them, with or without their data."""

    def find(self, number: int, tell: Callable[[DeadJob | Refused | None], None]) -> None:
        """Tell of the dead job with this number, with its data."""

    def retry(self, number: int, tell: Callable[[StoredJob | Refused | None], None]) -> None:
        """Make a live job of the dead one with this number, with no attempts and no losses, which is dead no
        more. Of two servers that do this at once one gets it, the other None. `UniqueInUse` if a stored job
        has its function and unique; it stays dead then."""

    def forget(self, numbers: Sequence[int], tell: Callable[[int | Refused], None]) -> None:
        """Forget the dead jobs with these numbers; tell how many there were."""

    def counts(self) -> dict[bytes, int]:
        """How many dead jobs each function has, without functions that have none. On a database that several
        servers share this may be a minute old."""

    @property
    def evicted(self) -> int:
        """How many dead jobs this server has forgotten as they were too many, too large or too old."""


class JobTrace(Protocol):
    """Is told of the steps of every job. Without one, a step costs the test of an attribute."""

    def queueing(self, job: Job) -> None:
        """The job is about to be queued: for the first time, or again as its worker has lost it."""

    def started(self, job: Job) -> None:
        """A worker has got the job."""

    def failing(self, job: Job, ending: int) -> None:
        """A run of the job has failed with this outcome, and another will follow; it still is running."""

    def ending(self, job: Job, ending: int | None) -> None:
        """The job is about to end, completed where `ending` is None; it still is in the state before."""


class DeathListener(Protocol):
    """Is told of each job that dies, to log it or to tell others."""

    def died(self, dead: DeadJob) -> None:
        """The job is dead, with its data."""


class Follower(Protocol):
    """Who is told of the way of some jobs, if anybody is; see `txgearman.broker.tracing`.

    Times are seconds since the epoch. `ending` is one of `Ending` as a plain int, None for a completed job.
    A job is told of before it changes, so it still has what it had on this part of its way.
    """

    def follows(self, handle: bytes) -> bool:
        """Whether the way of this job is wanted. For a handle always the same answer."""

    def waited(self, job: Job, since: float, until: float) -> None:
        """The job was in its queue, until a worker got it or it ended there."""

    def ran(self, job: Job, attempt: int, since: float, until: float, ending: int | None) -> None:
        """The job was with a worker, the first one for an `attempt` of 1. With `Ending.LOST` the job may
        go on to another: `ended` says so where it does not."""

    def ended(self, job: Job, attempts: int, when: float, ending: int | None) -> None:
        """The job has ended, and so many workers had it. Nothing follows."""
