"""How the server is, for its web side: ready or not, late or not, able to save or not. It changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from txgearman.broker.histograms import Durations
from txgearman.web.sources import Saved

if TYPE_CHECKING:
    from txgearman.server.lateness import Lateness
    from txgearman.server.service import GearmanService


class ServiceVitals:
    """The `Vitals` of a service."""

    def __init__(self, service: GearmanService, lateness: Lateness) -> None:
        self._service = service
        self._lateness = lateness

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
        """How late the event loop was."""
        return self._lateness.delays.so_far()

    def saved(self) -> Saved | None:
        """What the saving of jobs is like; None without a store."""
        store_writer = self._service.store_writer
        if store_writer is None:
            return None
        return Saved(
            available=store_writer.outage is None,
            commits=store_writer.commits,
            failures=store_writer.failures,
            saved=store_writer.saved,
            times=store_writer.times.so_far(),
            lag=store_writer.lag,
            unsaved=store_writer.unsaved,
            unremoved=store_writer.unremoved,
        )
