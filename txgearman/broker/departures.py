"""What clients that are gone leave behind: jobs that nobody wants any more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from txgearman.broker.entities import AbilitySet, Client, Job
from txgearman.broker.job_states import Outcome
from txgearman.broker.lifecycle import Lifecycle
from txgearman.broker.slices import Slices
from txgearman.broker.stopping import ABANDONED
from txgearman.broker.stored_queues import StoredQueues
from txgearman.broker.throttle import Throttle

_ABANDONED: Final = int(Outcome.ABANDONED)


class Departures:
    """Sees to the jobs of clients that are gone. `clients` counts those whose jobs are not all seen to.

    Args:
        life: Ends the jobs.
        throttle: Is told of jobs that do not run after all.
        stored_queues: Brings jobs behind those that are skipped.
        slices: Where the work is done, as there may be any number of jobs.
    """

    __slots__ = ("_life", "_slices", "_stored_queues", "_throttle", "clients")

    def __init__(
        self, life: Lifecycle, throttle: Throttle, stored_queues: StoredQueues, slices: Slices
    ) -> None:
        self._life = life
        self._throttle = throttle
        self._stored_queues = stored_queues
        self._slices = slices
        self.clients = 0

    def begin(self, client: Client) -> None:
        """A client is gone: discard the jobs that nobody else wants, in slices."""
        client.coalesced.clear()
        client.gone = True
        if client.jobs:
            self.clients += 1
            self._slices.begin(self._leave_jobs(client))

    def _leave_jobs(self, client: Client) -> Iterator[None]:
        for handle in list(client.jobs):
            job = client.jobs.pop(handle, None)
            # It may have ended meanwhile.
            if job is not None:
                del job.watchers[client, handle]
                if handle != job.handle:
                    self._life.handles.remove(handle)
                if not (job.watchers or job.background or job.saving):
                    self._life.abandon(job, _ABANDONED, ABANDONED)
            yield
        self.clients -= 1

    def skip_unwanted(self, ability_set: AbilitySet, job: Job) -> Job | None:
        """The first job that somebody wants and that is not too old, of `job`, which `ability_set` has given,
        and those after it.

        None after a slice of others, as if there were none: a worker that then sleeps is woken at once.
        """
        for left in range(self._slices.size - 1, -1, -1):
            if not (job.background or job.saving) and all(client.gone for client, _ in job.watchers):
                self._life.discard(job, _ABANDONED, in_queue=False)
            elif job.expiry is None or not self._life.expire_late(job):
                return job
            function = job.function
            if function.run_limits is not None:
                self._throttle.ended(job)
            if function.stored_queue is not None:
                self._stored_queues.fetch_ahead(function, function.stored_queue, job.priority)
            following = ability_set.next() if left else None
            if following is None:
                break
            job = following
        return None
