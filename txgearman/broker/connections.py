"""The connections of clients and workers, as the broker calls them.

The protocols of the server implement them, tests fake them.

None of these methods may raise, and none may call back into the broker: they are called in the middle
of its decisions.
"""

from __future__ import annotations

from typing import Any, Protocol

from txgearman.errors import Refused


class ClientConnection(Protocol):
    """The connection of a client: it is told of the jobs that it submitted.

    `handle` is always the handle that this client was told of the job by `created`.
    """

    def created(self, handle: bytes) -> None:
        """The job submitted last is accepted.

        Args:
            handle: The handle that it has for this client.
        """

    def created_later(self) -> object:
        """The job submitted last is being saved: `resolve_created` or `resolve_refused` says later how that
        ended.

        Whatever the client is told until then is to reach it after their answer, as clients match answers to
        their requests by order.

        Returns:
            What `resolve_created` or `resolve_refused` is to be called with, never None.
        """

    def resolve_created(self, reply: Any, handle: bytes) -> None:
        """A job that was being saved is durable and accepted.

        Args:
            reply: What `created_later` returned for it.
            handle: The handle that it has for this client.
        """

    def resolve_refused(self, reply: Any, refusal: Refused) -> None:
        """A job that was being saved could not be, and was not accepted.

        Args:
            reply: What `created_later` returned for it.
            refusal: Why.
        """

    def data(self, handle: bytes, data: bytes) -> None:
        """The worker sent part of the result.

        Args:
            handle: The job.
            data: The part.
        """

    def warning(self, handle: bytes, data: bytes) -> None:
        """The worker sent a warning.

        Args:
            handle: The job.
            data: The warning.
        """

    def status(self, handle: bytes, numerator: bytes, denominator: bytes) -> None:
        """The worker told how far it is.

        Args:
            handle: The job.
            numerator: How much is done, as the worker wrote it.
            denominator: How much there is to do, as the worker wrote it.
        """

    def completed(self, handle: bytes, data: bytes) -> None:
        """The job is done. Nothing follows.

        Args:
            handle: The job.
            data: The result.
        """

    def failed(self, handle: bytes) -> None:
        """The job failed, was cancelled, or was given up. Nothing follows.

        Args:
            handle: The job.
        """

    def exception(self, handle: bytes, data: bytes) -> None:
        """The worker's function raised. Nothing follows.

        Args:
            handle: The job.
            data: What the worker sent of the exception.
        """

    def retrying(self, handle: bytes, attempts: int, delay: float) -> None:
        """A run of the job has failed, and it is run again. Only where its function has `RetryPolicy.online`.

        Args:
            handle: The handle that this client was told.
            attempts: How many runs have failed.
            delay: Seconds until it is queued.
        """


class WorkerConnection(Protocol):
    """The connection of a worker.

    `label` is what the worker is shown as: its client id and address.
    """

    label: bytes

    @property
    def hears_cancel(self) -> bool:
        """Whether the worker has asked to be told when a job that it runs is to stop."""

    def wake(self) -> None:
        """There may be a job for this sleeping worker; it is to grab."""

    def cancel(self, handle: bytes, reason: bytes) -> None:
        """A job that this worker runs is to stop. Only called where `hears_cancel`.

        Args:
            handle: The job.
            reason: Why: one of the reasons of `txgearman.broker.stopping`.
        """

    def disconnect(self) -> None:
        """End the connection, but not within this call: the worker is to lose its jobs later."""
