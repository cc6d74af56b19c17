"""What is kept of a job that has ended: its place in the history, its unique, its result, and all of a dead
one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from txgearman.broker.dead_job import DeadJob
from txgearman.broker.dead_jobs import DeadJobs
from txgearman.broker.handles import number_of
from txgearman.broker.history import EndedJob, History, last_worker
from txgearman.broker.job_states import FAILURES
from txgearman.broker.kept_uniques import KeptUniques
from txgearman.broker.results import Results, result_lifetime
from txgearman.broker.timer import Timer

if TYPE_CHECKING:
    from txgearman.broker.entities import Job
    from txgearman.broker.interfaces import DeadJobStore, DeathListener, JobStore, ResultStore
    from txgearman.broker.kept_result import KeptResult
    from txgearman.broker.policy import Policy


class EndedJobs:
    """What is kept of the jobs that ended.

    `history` remembers those that ended last, None where it is off. `kept_uniques` has the uniques of
    completed jobs. `results` has the results of background jobs that run, and `result_store` keeps those of
    jobs that are done. `dead_job_store` keeps the dead jobs: `dead_jobs` in memory where it is no other.
    `unsaved_deaths` has, by handle, what is to be kept of jobs that died while they were being saved, as
    `Results.unsaved` has it of completed ones; it is for reading alone.

    Args:
        policy: How much is kept.
        timer: The clocks.
        death_listener: Is told of each job that dies.
        dead_job_store: Keeps the dead jobs; None for memory.
        result_store: Keeps the results; None for memory.
    """

    __slots__ = (
        "_death_listener",
        "_keeps_dead",
        "_timer",
        "dead_job_store",
        "dead_jobs",
        "history",
        "kept_uniques",
        "result_store",
        "results",
        "unsaved_deaths",
    )

    def __init__(
        self,
        policy: Policy,
        timer: Timer,
        death_listener: DeathListener | None,
        dead_job_store: DeadJobStore | None,
        result_store: ResultStore | None,
    ) -> None:
        self._timer = timer
        self._death_listener = death_listener
        self.dead_jobs = DeadJobs(policy.dead_jobs, policy.dead_bytes, policy.dead_age, timer.wall_clock)
        self.dead_job_store: DeadJobStore = dead_job_store or self.dead_jobs
        self.kept_uniques = KeptUniques(policy.max_kept_uniques, timer.wall_clock)
        self.results = Results(policy.results_bytes, timer.wall_clock)
        self.result_store: ResultStore = result_store or self.results.memory
        self.unsaved_deaths: dict[bytes, DeadJob] = {}
        self.history: History | None = None
        self._keeps_dead = False
        self.change_policy(policy)

    def change_policy(self, policy: Policy) -> None:
        """Keep as much as a new policy says."""
        self._keeps_dead = policy.dead_jobs > 0
        self.dead_jobs.limit(policy.dead_jobs, policy.dead_bytes, policy.dead_age)
        self.kept_uniques.limit = policy.max_kept_uniques
        self.results.limit(policy.results_bytes)
        self.results.forget_unkept()
        if not policy.history:
            self.history = None
        elif self.history is None:
            self.history = History(policy.history, policy.history_bytes)
        else:
            self.history.limit(policy.history, policy.history_bytes)

    def keep(self, job: Job, ending: int | None, result: bytes, job_store: JobStore | None) -> None:
        """Keep what is to be kept of a job that is not just a plain one that was completed, and tell the
        store of its end.

        Args:
            job: The job, with its data, and its worker if it was running.
            ending: How it ends, one of `Outcome`; None for a completed job.
            result: The last part of its result.
            job_store: What has the job if it is stored.
        """
        if self.history is not None:
            now = self._timer.turn_wall_time
            if now is None:
                now = self._timer.wall_clock()
            self.history.add(EndedJob(job, last_worker(job), now, ending))
        if ending is None and job.options is not None:
            self._keep_unique(job, job_store)
        may_keep = job.function.keep_results is not None or job.options is not None
        if may_keep and self._keep_result(job, ending, result, job_store):
            pass
        elif ending in FAILURES and self._keeps_dead and (job.background or job.saving):
            assert ending is not None
            self._bury(job, ending, job_store)
        elif job.stored and job_store is not None:
            job_store.remove(number_of(job.handle))

    def unsaved_end(self, job: Job) -> KeptResult | DeadJob | None:
        """What is to be kept of a job that ended while it was being saved.

        Args:
            job: The job.

        Returns:
            Its result, or the dead job; None for nothing.
        """
        return self.results.unsaved.get(job.handle) or self.unsaved_deaths.get(job.handle)

    def take_unsaved_end(self, job: Job) -> KeptResult | DeadJob | None:
        """As `unsaved_end`, and it is forgotten: the job was saved, or is not to be.

        Args:
            job: The job.

        Returns:
            What `unsaved_end` returned.
        """
        return self.results.take_unsaved(job.handle) or self.unsaved_deaths.pop(job.handle, None)

    def _keep_unique(self, job: Job, job_store: JobStore | None) -> None:
        """Keep the unique of a job that is completed, if that is wanted."""
        kept = self.kept_uniques.kept_of(job)
        if kept is not None:
            self.kept_uniques.keep(kept)
            if job_store is not None:
                job_store.keep_unique(kept)

    def _keep_result(self, job: Job, ending: int | None, data: bytes, job_store: JobStore | None) -> bool:
        """A job has ended whose result may be kept. Returns whether it is, and with that the store told of
        the job's end."""
        results = self.results
        seconds = result_lifetime(job)
        if seconds is None or not (job.background or job.saving):
            results.forget(job)
            return False
        if results.listener is not None:
            results.listener(job.handle)
        if ending is not None:
            results.forget(job)
            return False
        result = results.finish(job, data, self._timer.wall_clock(), seconds)
        if job.saving is not None:
            # Nobody was told of the job yet: its result is kept once it is stored.
            results.add_unsaved(result)
        elif job_store is None:
            results.memory.add(result)
        elif job.stored:
            job_store.completed(result)
        return True

    def _bury(self, job: Job, ending: int, job_store: JobStore | None) -> None:
        """Keep a job that has just died."""
        failures = job.failures
        options = job.options
        dead = DeadJob(
            number=number_of(job.handle),
            handle=job.handle,
            function=job.function.name,
            unique=job.unique,
            data=job.data,
            priority=job.priority,
            reducer=job.reducer,
            submitted=job.submitted,
            run_at=job.run_at,
            ended=self._timer.wall_clock(),
            attempts=0 if failures is None else failures.attempts,
            losses=job.losses,
            outcome=ending,
            error=b"" if failures is None else failures.error,
            worker=last_worker(job),
            size=len(job.data),
            attributes=None if options is None else options.encode(),
        )
        if job.saving is not None:
            # It is buried once it is stored: nobody was told of it yet.
            self.unsaved_deaths[job.handle] = dead
        elif not job.stored or job_store is None:
            self.dead_jobs.add(dead)
        else:
            job_store.died(dead.number, dead)
        if self._death_listener is not None:
            self._death_listener.died(dead)
