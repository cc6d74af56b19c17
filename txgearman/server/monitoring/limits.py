"""How the limits of a server stand, for admin commands and the web side. Data; nothing is limited here."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from txgearman.server.admission import Admission
    from txgearman.server.interfaces import Server


@dataclass(frozen=True, slots=True)
class Limit:
    """`name` is that of its option, `limit` is 0 where there is none; `used` is how much of it is used now,
    and `refused` how often something was refused or dropped for it."""

    name: str
    limit: float
    used: int
    refused: int


def limits_of(server: Server) -> Iterator[Limit]:
    """The limits of the whole server. This walks the addresses, and the peers that do not read."""
    settings, inspection, dropped = server.settings, server.inspection, server.traffic.dropped
    unfinished, budget = server.unfinished, server.budget
    yield from _of_connections("max-connections", server.admission)
    yield Limit("handshake-timeout", settings.handshake_timeout, 0, dropped["handshake-timeout"])
    yield Limit("max-packet", settings.max_packet, 0, dropped["max-packet"])
    yield Limit("max-unfinished-total", _shown(unfinished.limit), unfinished.total, unfinished.refused)
    yield Limit("max-unsent", settings.max_unsent, budget.most, dropped["max-unsent"])
    yield Limit("max-unsent-total", settings.max_unsent_total, budget.used, dropped["max-unsent-total"])
    yield Limit("max-jobs", settings.max_jobs, inspection.total, inspection.refused)
    yield Limit(
        "max-functions", settings.max_functions, inspection.function_count, inspection.functions_refused
    )
    kept = server.broker.ended_jobs.kept_uniques
    yield Limit("max-kept-uniques", settings.max_kept_uniques, len(kept), kept.refused)
    stored = server.store_writer is not None
    yield Limit(
        "results-bytes",
        settings.stored_results_bytes if stored else settings.results_bytes_in_memory,
        server.results.counts().weight,
        server.results.evicted,
    )
    scheduling = server.scheduling
    yield Limit("max-schedules", settings.max_schedules, len(scheduling.schedules), scheduling.refused)
    if settings.web is not None:
        yield from _of_connections("web-max-connections", server.web_admission)


def _of_connections(name: str, admission: Admission) -> Iterator[Limit]:
    yield Limit(name, _shown(admission.limit), admission.count, admission.refused)
    yield Limit(
        f"{name}-per-address",
        _shown(admission.limit_per_address),
        admission.most_of_an_address,
        admission.refused_per_address,
    )


def _shown(limit: int) -> int:
    return 0 if limit == sys.maxsize else limit
