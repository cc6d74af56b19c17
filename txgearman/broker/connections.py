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
        """The job submitted last is accepted and has this handle."""

    def saving(self) -> object:
        """The job submitted last is being saved: `saved` or `refused` will say what came of it.

        Returns what they are to be called with, which is not None. Whatever the client is told until then
        is to reach it behind their answer, as clients match answers to their requests by order.
        """

    def saved(self, reply: Any, handle: bytes) -> None:
        """The job whose `saving` returned `reply` is durable and accepted, and has this handle."""

    def refused(self, reply: Any, refusal: Refused) -> None:
        """The job whose `saving` returned `reply` could not be saved, and was not accepted."""

    def data(self, handle: bytes, data: bytes) -> None:
        """The worker sent part of the result."""

    def warning(self, handle: bytes, data: bytes) -> None:
        """The worker sent a warning."""

    def status(self, handle: bytes, numerator: bytes, denominator: bytes) -> None:
        """The worker is done with numerator/denominator of the job; both as the worker wrote them."""

    def completed(self, handle: bytes, data: bytes) -> None:
        """The job is done, `data` is its result. Nothing follows."""

    def failed(self, handle: bytes) -> None:
        """The job failed, was cancelled, or was given up. Nothing follows."""

    def exception(self, handle: bytes, data: bytes) -> None:
        """The worker's function raised. Nothing follows."""

    def retrying(self, handle: bytes, attempts: int, delay: float) -> None:
        """So many runs of the job have failed, and it is run again in `delay` seconds. The end follows some
        time. Only where its function has `RetryPolicy.online`."""


class WorkerConnection(Protocol):
    """The connection of a worker.

    `label` is what the worker is shown as: its client id and address.
    """

    label: bytes

    def wake(self) -> None:
        """There may be a job for this sleeping worker; it is to grab."""
