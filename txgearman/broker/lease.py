"""Until when the stored jobs are this server's."""

from __future__ import annotations

from txgearman.broker.timer import Timer


class Lease:
    """The right to the stored jobs. `expires_at` is what `StoreAnswers.extend_lease` said, by the monotonic
    clock. None without a lease; test it first to skip the property call of `expired`."""

    __slots__ = ("_timer", "expires_at")

    def __init__(self, timer: Timer) -> None:
        self._timer = timer
        self.expires_at: float | None = None

    @property
    def expired(self) -> bool:
        """Whether no job may be given to a worker, as its time has passed."""
        return self.expires_at is not None and self._timer.clock() >= self.expires_at
