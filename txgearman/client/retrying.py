"""Submitting a job again when the connection to its server is lost.

`failover` decides which server it goes to.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from txgearman.client.failover import Dispatch, is_shutting_down
from txgearman.client.hashing import routing_key
from txgearman.client.job import Job
from txgearman.client.submission import Submission
from txgearman.connection.backoff import exponential_backoff
from txgearman.errors import ClientError, ConnectionLost, NotConnected, ServerError

RETRY_SECONDS: Final = 60.0
"""Seconds for which a submission with ``retry``, and each retry of it, looks for a server that accepts it, if
it has no time limit of its own. Long enough for a restarting server, and for the backoff before the attempt
that reaches it."""


class Retrying:
    """Submits one job, and submits it again when it is lost.

    Args:
        clock: Times the limit.
        dispatch: Sends the job.
        submission: The job.
        retries: How often the job is submitted again.
        limit: Seconds for which a retry looks for a server after the running job was lost.
    """

    def __init__(
        self, clock: IReactorTime, dispatch: Dispatch, submission: Submission, retries: int, limit: float
    ) -> None:
        self._clock = clock
        self._dispatch = dispatch
        self._submission = submission
        self._key = routing_key(submission)
        self._size = len(submission.body)
        self._retries_left = retries
        self._limit = limit

    async def submit(self) -> Job:
        """Submit the job. This waits until a server is up that accepts it."""
        job = await self._submit(None)
        if not job.background:
            job._resubmit = self._connection_lost
        return job

    async def _submit(self, job: Job | None) -> Job:
        refusals = 0
        while True:
            try:
                return await self._dispatch.send(
                    lambda protocol: protocol.submit(self._submission, job), self._key, self._size
                )
            except NotConnected:
                # Nothing was sent, so this does not count as a retry.
                if self._dispatch.closed:
                    raise
            except ConnectionLost:
                if not self._retries_left or self._dispatch.closed:
                    raise
                self._retries_left -= 1
            except ServerError as error:
                # No server has accepted it, so this does not count either.
                if not is_shutting_down(error) or self._dispatch.closed:
                    raise
                # A server that shuts down may keep its connections until its last job has ended.
                await self._dispatch.back_off(self._size, exponential_backoff(refusals))
                refusals += 1
            await self._dispatch.when_connected(self._size)

    async def _submit_again(self, job: Job) -> Job:
        # Without a connected server, wait for the next attempt: a server that is being killed may still
        # accept a connection before it closes its port, which would waste a retry.
        await self._dispatch.when_connected(self._size)
        return await self._submit(job)

    def _connection_lost(self, job: Job, error: Callable[[], ClientError]) -> bool:
        """The job was lost while it ran. Returns whether it is submitted again."""
        if not self._retries_left or self._dispatch.closed:
            return False
        self._retries_left -= 1

        def give_up(failure: Failure) -> None:
            refusal = failure.value
            if isinstance(refusal, ServerError):
                job._fail(partial(ServerError, refusal.code, refusal.text))
            else:
                job._fail(error)

        submitting = Deferred.fromCoroutine(self._submit_again(job))
        submitting.addTimeout(self._limit, self._clock).addErrback(give_up)
        return True
