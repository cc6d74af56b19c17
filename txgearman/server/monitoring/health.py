"""The health of the server, for its web side: readiness, event loop lag, the store. It changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from txgearman.broker.histograms import Durations
from txgearman.web.interfaces import Saved, WebhookCounts

if TYPE_CHECKING:
    from txgearman.server.monitoring.death_webhook import DeathWebhook
    from txgearman.server.monitoring.loop_lag import LoopLag
    from txgearman.server.persistence.writer import StoreWriter


class Service(Protocol):
    """What is asked of the service whose health it is."""

    @property
    def draining(self) -> bool:
        """Whether the server is about to end."""

    @property
    def listening(self) -> bool:
        """Whether the server listens at all its endpoints."""

    @property
    def store_writer(self) -> StoreWriter | None:
        """What writes jobs to the store, None without one."""

    @property
    def death_webhook(self) -> DeathWebhook | None:
        """What tells a web server of dead jobs, None without one."""


class ServiceHealth:
    """The `ServerHealth` of a service, as its web side shows it.

    Args:
        service: The service.
        loop_lag: What measures its event loop.
    """

    def __init__(self, service: Service, loop_lag: LoopLag) -> None:
        self._service = service
        self._loop_lag = loop_lag

    def problems(self) -> list[str]:
        """Why the server is not ready to take jobs, in words; empty if it is."""
        problems = []
        if self._service.draining:
            problems.append("the server is shutting down")
        elif not self._service.listening:
            problems.append("the server does not listen")
        store_writer = self._service.store_writer
        if store_writer is not None and store_writer.outage is not None:
            problems.append("the store is unavailable")
        return problems

    def loop_delay(self) -> Durations:
        """The event loop lag so far."""
        return self._loop_lag.delays.so_far()

    def saved(self) -> Saved | None:
        """What the saving of jobs is like; None without a store."""
        store_writer = self._service.store_writer
        if store_writer is None:
            return None
        return Saved(
            available=store_writer.outage is None,
            commits=store_writer.commits,
            failures=store_writer.failures,
            saved=store_writer.stored,
            times=store_writer.times.so_far(),
            lag=store_writer.pending.lag,
            unsaved=store_writer.pending.unsaved,
            unremoved=store_writer.pending.unremoved,
            slots=dict(store_writer.slots.by_function),
        )

    def webhook(self) -> WebhookCounts | None:
        """How the telling of dead jobs goes; None if no web server is told."""
        webhook = self._service.death_webhook
        return None if webhook is None else webhook.counts
