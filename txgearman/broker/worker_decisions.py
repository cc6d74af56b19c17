"""The verbs of workers that the protocol has no packets for: a failure with a text, a retry, a rejection, and
the sign that a job still runs. What becomes of the job is decided in `lifecycle`."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from txgearman.broker.job_states import Outcome

if TYPE_CHECKING:
    from txgearman.broker.broker import Broker
    from txgearman.broker.entities import Client, Worker

_FAILED: Final = int(Outcome.FAILED)
_NOT_FOUND: Final = "Job given in work result not found"


class WorkerDecisions:
    """What workers decide about the jobs that they run. It has no state of its own.

    All but `heartbeat` return how many times the end was told, once for each handle of each client, and raise
    `JobNotFound` for a job that is not with the worker.
    """

    __slots__ = ("_broker",)

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def fail(self, worker: Worker, handle: bytes, text: bytes) -> int:
        """End a run that failed, as `Broker.fail`.

        Args:
            worker: Who reports.
            handle: The job that it ran.
            text: Why. Clients are told of it as of an exception.

        Returns:
            How many times the end was told.
        """
        job = self._broker.note_failed_run(worker, handle, _NOT_FOUND)
        if job is None:
            return 0
        return _tell(self._broker.life.fail_run(job, _FAILED, text), text)

    def retry(self, worker: Worker, handle: bytes, delay: float | None, counts: bool, text: bytes) -> int:
        """End a run, and have the job run again if it has attempts left. A client that waits for an online
        job is told that it failed, unless its function says ``retry-online``.

        Args:
            worker: Who reports.
            handle: The job that it ran.
            delay: Seconds until the job is queued; None for the backoff of its function.
            counts: Whether the run counts as an attempt.
            text: Why.

        Returns:
            How many times the end was told.
        """
        job = self._broker.note_failed_run(worker, handle, _NOT_FOUND)
        if job is None:
            return 0
        return _tell(self._broker.life.retry_run(job, text, delay, counts), text)

    def reject(self, worker: Worker, handle: bytes, text: bytes) -> int:
        """End a job that no retry can help. A background job is dead.

        Args:
            worker: Who reports.
            handle: The job that it ran.
            text: Why.

        Returns:
            How many times the end was told.
        """
        job = self._broker.note_failed_run(worker, handle, _NOT_FOUND)
        if job is None:
            return 0
        return _tell(self._broker.life.reject_run(job, text), text)

    def heartbeat(self, worker: Worker, handle: bytes) -> None:
        """A job still runs. A late word on a job that is the worker's no more is dropped: nobody waits for an
        answer to it.

        Args:
            worker: Who reports.
            handle: The job that it runs.
        """
        job = worker.jobs.get(handle)
        if job is not None:
            self._broker.time_limits.heard_of(job)


def _tell(watchers: Collection[tuple[Client, bytes]], text: bytes) -> int:
    """Tell clients of a failure, and why if that is known; returns how many times."""
    for client, name in watchers:
        if text:
            client.connection.exception(name, text)
        else:
            client.connection.failed(name)
    return len(watchers)
