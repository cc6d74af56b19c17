"""What leaves the broker: calls on these small interfaces. Protocols implement them, tests fake them.

None of these methods may raise, and none may call back into the broker: they are called in the middle
of its decisions.
"""

from __future__ import annotations

from typing import Protocol


class ClientEnd(Protocol):
    """The connection of a client: it is told of the jobs that it submitted.

    `handle` is always the handle that this client was told of the job by `created`.
    """

    def created(self, handle: bytes) -> None:
        """The job submitted last is accepted and has this handle."""

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


class WorkerEnd(Protocol):
    """The connection of a worker."""

    def wake(self) -> None:
        """There may be a job for this sleeping worker; it is to grab."""


class Alarm(Protocol):
    """The one timer the broker needs."""

    def ring_in(self, delay: float) -> None:
        """Call `Broker.tick` in `delay` seconds, instead of when it was last said."""
