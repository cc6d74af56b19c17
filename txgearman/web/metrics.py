"""``/metrics`` for Prometheus: what the server counts, as families of prometheus_client's.

The counts are read in the reactor's thread. The text is made in another thread, as it is long where there are
many functions. Nothing is counted here.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from txgearman.broker.histograms import BOUNDS, Durations
from txgearman.broker.job_states import FAILURES, OUTCOME_NAMES, Outcome, Priority
from txgearman.broker.meters import FunctionMeasures
from txgearman.broker.schedule import ScheduleDetail
from txgearman.version import VERSION, build
from txgearman.web.http.guard import Guard, WebRight
from txgearman.web.http.request import LimitedRequest
from txgearman.web.http.responses import HTTPProblem, Response
from txgearman.web.interfaces import Gearman, Limit, Saved, ServerHealth, WebhookCounts
from txgearman.web.slices import iterate_in_slices

_log = Logger()

Values = Iterable[tuple[tuple[str, ...], Any]]

OTHER_FUNCTIONS: Final = "(other)"
"""The label of all functions beyond the limit of those that have their own."""

MAX_SCHEDULES: Final = 1000
"""Schedules that are shown, the first by name: as many as there may be unless the operator says otherwise.
They are 6,000 numbers, as many as a hundred functions have."""

_OPEN_METRICS: Final = "application/openmetrics-text; version=1.0.0"
"""What Prometheus asks for to get OpenMetrics."""

_FAILURES: Final = tuple(ending for ending in Outcome if ending in FAILURES)
_DROPS: Final = tuple(ending for ending in Outcome if ending not in FAILURES)
_LIMITS: Final = (*(floatToGoString(bound) for bound in BOUNDS), "+Inf")


def function_label(name: bytes | None) -> str:
    """Make a label of a function's name. Different names have different labels.

    Bytes that are not UTF-8 are written as ``\\xff``, and therefore a backslash as two.

    Args:
        name: The name, None for the other functions.

    Returns:
        The label.
    """
    if name is None:
        return OTHER_FUNCTIONS
    label = name.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
    return f"\\{label}" if label == OTHER_FUNCTIONS else label


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The server at one moment, as plain data."""

    functions: list[FunctionMeasures]
    dead: dict[str, int]
    dead_evicted: int
    results: int
    results_expired: int
    results_too_large: int
    function_count: int
    connections: int
    accepted: int
    received: int
    sent: int
    kept_out: dict[str, int]
    web_connections: int
    limits: list[Limit]
    refused: dict[str, int]
    dropped: dict[str, int]
    loop_delay: Durations
    saved: Saved | None
    slots: dict[tuple[str, str], int]
    webhook: WebhookCounts | None
    schedules: list[ScheduleDetail]


@dataclass(frozen=True, slots=True)
class Family:
    """A metric.

    Args:
        name: Its name, without the suffix of its type.
        kind: Its type, of `_KINDS`.
        meaning: What it counts, for people.
        labels: The names of its labels.
        values: Returns pairs of the labels' values and a number, or `Durations` for a histogram.
    """

    name: str
    kind: str
    meaning: str
    labels: tuple[str, ...]
    values: Callable[[Snapshot], Values]

    @property
    def exported(self) -> str:
        """The name that Prometheus has for it, without a histogram's suffixes."""
        return self.name + {"counter": "_total", "info": "_info"}.get(self.kind, "")

    def metric(self, snapshot: Snapshot | None) -> Metric:
        """The family of prometheus_client, with samples if there is a snapshot."""
        metric: Any = _KINDS[self.kind](self.name, self.meaning, labels=self.labels)
        for labels, value in () if snapshot is None else self.values(snapshot):
            if isinstance(value, Durations):
                buckets = list(zip(_LIMITS, value.cumulated, strict=True))
                metric.add_metric(labels, buckets, value.sum)
            else:
                metric.add_metric(labels, value)
        return metric  # type: ignore[no-any-return]


_KINDS: Final[dict[str, Callable[..., Metric]]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
    "info": InfoMetricFamily,
}


# -- the table ----------------------------------------------------------------------------------


def _by_function(name: str, kind: str, meaning: str, value: Callable[[FunctionMeasures], Any]) -> Family:
    def values(snapshot: Snapshot) -> Values:
        return (((function_label(row.name),), value(row)) for row in snapshot.functions)

    return Family(f"txgearman_{name}", kind, meaning, ("function",), values)


def _split(
    name: str,
    kind: str,
    meaning: str,
    label: str,
    parts: Sequence[tuple[str, Callable[[FunctionMeasures], int]]],
) -> Family:
    def values(snapshot: Snapshot) -> Iterator[tuple[tuple[str, ...], int]]:
        for row in snapshot.functions:
            function = function_label(row.name)
            for part, value in parts:
                yield (function, part), value(row)

    return Family(f"txgearman_{name}", kind, meaning, ("function", label), values)


def _endings(endings: Iterable[Outcome]) -> list[tuple[str, Callable[[FunctionMeasures], int]]]:
    def value(ending: Outcome) -> Callable[[FunctionMeasures], int]:
        return lambda row: row.counts.uncompleted[ending]

    return [(OUTCOME_NAMES[ending], value(ending)) for ending in endings]


def _waiting(priority: Priority) -> Callable[[FunctionMeasures], int]:
    return lambda row: row.counts.waiting[priority]


def _single(name: str, kind: str, meaning: str, value: Callable[[Snapshot], Any]) -> Family:
    return Family(f"txgearman_{name}", kind, meaning, (), lambda snapshot: [((), value(snapshot))])


def _by(name: str, meaning: str, label: str, counts: Callable[[Snapshot], dict[str, int]]) -> Family:
    def values(snapshot: Snapshot) -> Values:
        return (((key,), count) for key, count in sorted(counts(snapshot).items()))

    return Family(f"txgearman_{name}", "counter", meaning, (label,), values)


def _of_store(name: str, kind: str, meaning: str, value: Callable[[Saved], Any]) -> Family:
    def values(snapshot: Snapshot) -> Values:
        return [] if snapshot.saved is None else [((), value(snapshot.saved))]

    return Family(f"txgearman_store_{name}", kind, meaning, (), values)


def _by_schedule(
    name: str, kind: str, meaning: str, value: Callable[[ScheduleDetail], float | None]
) -> Family:
    """A metric of each schedule that has a value."""

    def values(snapshot: Snapshot) -> Iterator[tuple[tuple[str, ...], float]]:
        for detail in snapshot.schedules:
            found = value(detail)
            if found is not None:
                yield (function_label(detail.schedule.name),), found

    return Family(f"txgearman_schedule_{name}", kind, meaning, ("schedule",), values)


def _of_webhook(name: str, kind: str, meaning: str, value: Callable[[WebhookCounts], int]) -> Family:
    def values(snapshot: Snapshot) -> Values:
        return [] if snapshot.webhook is None else [((), value(snapshot.webhook))]

    return Family(f"txgearman_dead_webhook_{name}", kind, meaning, (), values)


FAMILIES: Final = (
    Family(
        "txgearman",
        "info",
        "The version of the server, and its build.",
        (),
        lambda _snapshot: [((), {"version": VERSION, "build": build()})],
    ),
    # -- jobs, counted since the server's start
    _by_function(
        "jobs_submitted",
        "counter",
        "Jobs accepted.",
        lambda row: row.counts.submitted - row.counts.restored,
    ),
    _by_function(
        "jobs_restored", "counter", "Jobs taken over from the store.", lambda row: row.counts.restored
    ),
    _by_function(
        "jobs_joined",
        "counter",
        "Submits that were the same as a job there was, by function and unique.",
        lambda row: row.counts.coalesced,
    ),
    _by_function("jobs_refused", "counter", "Jobs refused by a limit.", lambda row: row.counts.refused),
    _by_function(
        "jobs_completed", "counter", "Jobs completed by a worker.", lambda row: row.counts.completed
    ),
    _split("jobs_failed", "counter", "Jobs that failed, by how.", "outcome", _endings(_FAILURES)),
    _split(
        "jobs_dropped",
        "counter",
        "Jobs that ended without a worker's word, by why. They are no failures.",
        "outcome",
        _endings(_DROPS),
    ),
    _by_function(
        "jobs_requeued",
        "counter",
        "Times that a job was taken from its worker and queued again.",
        lambda row: row.counts.requeued,
    ),
    # -- jobs and workers, now
    _split(
        "jobs_queued",
        "gauge",
        "Jobs that wait for a worker.",
        "priority",
        [(priority.name.lower(), _waiting(priority)) for priority in Priority],
    ),
    _by_function(
        "jobs_scheduled",
        "gauge",
        "Jobs that wait for their time.",
        lambda row: row.counts.scheduled - row.counts.retrying,
    ),
    _by_function(
        "jobs_retrying",
        "gauge",
        "Jobs that have failed and wait for a retry.",
        lambda row: row.counts.retrying,
    ),
    Family(
        "txgearman_jobs_dead",
        "gauge",
        "Dead jobs: they failed, and are kept until they are retried or forgotten.",
        ("function",),
        lambda snapshot: (((function,), count) for function, count in snapshot.dead.items()),
    ),
    _single(
        "jobs_dead_evicted",
        "counter",
        "Dead jobs forgotten as they were too many, too large or too old.",
        lambda snapshot: snapshot.dead_evicted,
    ),
    _single("results", "gauge", "Results that are kept.", lambda snapshot: snapshot.results),
    _single(
        "results_expired",
        "counter",
        "Results forgotten as their time was over.",
        lambda snapshot: snapshot.results_expired,
    ),
    _single(
        "results_too_large",
        "counter",
        "Results that could not be kept as a whole.",
        lambda snapshot: snapshot.results_too_large,
    ),
    _by_function("jobs_running", "gauge", "Jobs that a worker has.", lambda row: row.counts.running),
    _by_function(
        "jobs_blocked",
        "gauge",
        "Queued jobs that a limit of the function's runs holds back.",
        lambda row: row.counts.blocked,
    ),
    _by_function(
        "jobs_max_running",
        "gauge",
        "How many jobs may run at a time, 0 for no limit.",
        lambda row: row.counts.max_running,
    ),
    _by_function(
        "function_throttled",
        "gauge",
        "1 while the limits of its runs let no job of a function begin.",
        lambda row: row.counts.throttled,
    ),
    _split(
        "function_paused",
        "gauge",
        "1 while a function is paused, by an administrator or by itself as too many of its runs failed.",
        "by",
        [
            ("administrator", lambda row: row.counts.paused - row.counts.paused_itself),
            ("failures", lambda row: row.counts.paused_itself),
        ],
    ),
    _by_function(
        "jobs_saving",
        "gauge",
        "Jobs that wait to be durable, ahead of any worker.",
        lambda row: row.counts.saving,
    ),
    _by_function(
        "workers", "gauge", "Workers that have registered the function.", lambda row: row.counts.workers
    ),
    _by_function(
        "job_wait_seconds",
        "histogram",
        "From a job's queueing until a worker had it.",
        lambda row: row.waited,
    ),
    _by_function(
        "job_run_seconds",
        "histogram",
        "From when a worker had a job until its report that ended the job.",
        lambda row: row.ran,
    ),
    _single("functions", "gauge", "Functions known.", lambda snapshot: snapshot.function_count),
    # -- schedules, if there are any
    _by_schedule("ticks", "counter", "Ticks that had a job of this server.", lambda detail: detail.ticks),
    _by_schedule(
        "skipped",
        "counter",
        "Ticks without a job, as the one before was alive.",
        lambda detail: detail.skipped,
    ),
    _by_schedule(
        "missed",
        "counter",
        "Ticks without a job, as the server was not there in time.",
        lambda detail: detail.missed,
    ),
    _by_schedule(
        "refused", "counter", "Ticks without a job, as it was refused.", lambda detail: detail.refused
    ),
    _by_schedule(
        "lateness_seconds",
        "gauge",
        "How late the job of the last tick was.",
        lambda detail: None if detail.last_tick is None else detail.lateness,
    ),
    _by_schedule(
        "next_timestamp_seconds",
        "gauge",
        "When the next job is due, in seconds since 1970.",
        lambda detail: detail.next_due,
    ),
    # -- connections
    _single("connections", "gauge", "Connections open.", lambda snapshot: snapshot.connections),
    _single(
        "web_connections",
        "gauge",
        "HTTP connections open.",
        lambda snapshot: snapshot.web_connections,
    ),
    _single("connections_accepted", "counter", "Connections ever made.", lambda snapshot: snapshot.accepted),
    _by(
        "connections_refused",
        "Connections that were not let in.",
        "limit",
        lambda snapshot: snapshot.kept_out,
    ),
    _by(
        "connections_dropped",
        "Connections that the server ended by itself.",
        "reason",
        lambda snapshot: snapshot.dropped,
    ),
    Family(
        "txgearman_limit",
        "gauge",
        "The limits of the server, 0 for none.",
        ("limit",),
        lambda snapshot: (((limit.name,), limit.limit) for limit in snapshot.limits),
    ),
    Family(
        "txgearman_limit_used",
        "gauge",
        "How much of each limit is used.",
        ("limit",),
        lambda snapshot: (((limit.name,), limit.used) for limit in snapshot.limits),
    ),
    _single(
        "received_bytes", "counter", "Bytes from clients and workers.", lambda snapshot: snapshot.received
    ),
    _single("sent_bytes", "counter", "Bytes to clients and workers.", lambda snapshot: snapshot.sent),
    _by("packets_refused", "Packets answered by an ERROR packet.", "code", lambda snapshot: snapshot.refused),
    _single(
        "loop_delay_seconds",
        "histogram",
        "How late the event loop made a call that was due.",
        lambda snapshot: snapshot.loop_delay,
    ),
    # -- the store, if there is one
    _of_store("available", "gauge", "1 while the store can be written to.", lambda saved: saved.available),
    _of_store("commits", "counter", "Transactions written.", lambda saved: saved.commits),
    _of_store("failures", "counter", "Transactions that failed.", lambda saved: saved.failures),
    _of_store("saved_jobs", "counter", "Jobs made durable.", lambda saved: saved.saved),
    _of_store("commit_seconds", "histogram", "How long transactions took.", lambda saved: saved.times),
    _of_store(
        "lag_seconds", "gauge", "How long the oldest job that is not durable waits.", lambda saved: saved.lag
    ),
    _of_store("unsaved_jobs", "gauge", "Jobs that wait to be saved.", lambda saved: saved.unsaved),
    _of_store(
        "unremoved_jobs", "gauge", "Jobs that ended and are still stored.", lambda saved: saved.unremoved
    ),
    Family(
        "txgearman_store_slots",
        "gauge",
        "Slots of limits that servers share: those that this one has, and those that it waits for.",
        ("function", "state"),
        lambda snapshot: snapshot.slots.items(),
    ),
    # -- the web server that is told of dead jobs, if there is one
    _of_webhook("delivered", "counter", "Dead jobs that it took.", lambda counts: counts.delivered),
    _of_webhook("failures", "counter", "Requests to it that failed.", lambda counts: counts.failures),
    _of_webhook("dropped", "counter", "Dead jobs that it was not told of.", lambda counts: counts.dropped),
    _of_webhook("waiting", "gauge", "Dead jobs that it is to be told of.", lambda counts: counts.waiting),
)
"""Every metric of the server's own, in the order they are shown."""


# -- showing them -------------------------------------------------------------------------------


class ServerCollector(Collector):
    """The metrics of a server, for a registry of prometheus_client's.

    Call `take` in the reactor's thread. Then `collect` may be called in any thread, for what was taken.

    Args:
        gearman: The server.
        health: How the server is.
        reactor: For the turns between slices.
    """

    def __init__(self, gearman: Gearman, health: ServerHealth, reactor: IReactorTime) -> None:
        self._gearman = gearman
        self._vitals = health
        self._reactor = reactor
        self._snapshot: Snapshot | None = None

    async def take(self) -> None:
        """Take a snapshot of the server, in slices."""
        rows: list[FunctionMeasures] = []

        def take(measures: list[FunctionMeasures | None]) -> None:
            rows.extend(row for row in measures if row is not None)

        await iterate_in_slices(self._gearman.inspection.look_at_measures(), take, self._reactor)
        schedules: list[ScheduleDetail] = []
        shown = islice(self._gearman.scheduling.schedules, MAX_SCHEDULES)
        await iterate_in_slices(shown, schedules.extend, self._reactor)
        inspection, traffic, admission = (
            self._gearman.inspection,
            self._gearman.traffic,
            self._gearman.admission,
        )
        web, dead_jobs, results = (
            self._gearman.web_admission,
            self._gearman.dead_jobs,
            self._gearman.results,
        )
        saved = self._vitals.saved()
        names = [row.name for row in rows if row.name is not None]
        self._snapshot = Snapshot(
            # The row of the others is left out while it is of no function.
            functions=[row for row in rows if row.name is not None or row.counts.any or len(rows) == 1],
            dead=_by_label(dead_jobs.counts, names),
            dead_evicted=dead_jobs.evicted,
            results=results.counts().results,
            results_expired=results.expired,
            results_too_large=results.too_large,
            function_count=inspection.function_count,
            connections=len(self._gearman.connections),
            accepted=traffic.connections,
            received=traffic.received,
            sent=traffic.sent,
            kept_out={
                "max-connections": admission.refused,
                "max-connections-per-address": admission.refused_per_address,
                "web-max-connections": web.refused,
                "web-max-connections-per-address": web.refused_per_address,
            },
            web_connections=web.count,
            limits=list(self._gearman.limits()),
            refused={code.decode("ascii", "replace"): count for code, count in traffic.refused.items()},
            dropped=dict(traffic.dropped),
            loop_delay=self._vitals.loop_delay(),
            saved=saved,
            slots={} if saved is None else _slots_by_label(saved.slots, names),
            webhook=self._vitals.webhook(),
            schedules=schedules,
        )

    def describe(self) -> Iterable[Metric]:
        """The metrics without their values."""
        return [family.metric(None) for family in FAMILIES]

    def collect(self) -> Iterable[Metric]:
        """The metrics as they were at the last `take`."""
        snapshot = self._snapshot
        return [family.metric(snapshot) for family in FAMILIES]


def _by_label(counts: Mapping[bytes, int], names: list[bytes]) -> dict[str, int]:
    """How many of something there are by function, those of functions that are not told apart together."""
    labelled = {function_label(name): counts.get(name, 0) for name in names}
    labelled[OTHER_FUNCTIONS] = sum(counts.values()) - sum(labelled.values())
    return labelled


def _slots_by_label(slots: Mapping[bytes, tuple[int, int]], names: list[bytes]) -> dict[tuple[str, str], int]:
    """The slots of functions that have some or wait for some, by function and state."""
    labelled: dict[tuple[str, str], int] = {}
    for index, state in enumerate(("leased", "wanted")):
        counts = _by_label({name: count[index] for name, count in slots.items()}, names)
        known = {*map(function_label, slots), OTHER_FUNCTIONS}
        labelled |= {(name, state): count for name, count in counts.items() if name in known}
    return labelled


class MetricsResource(Resource):
    """Takes a snapshot, and has a thread of the reactor's pool write it as text.

    prometheus_client's WSGI application is not used: it knows no HEAD and no UNIX sockets, and fails for some
    headers.
    """

    isLeaf = True

    def __init__(self, gearman: Gearman, health: ServerHealth, guard: Guard, reactor: Any) -> None:
        super().__init__()
        self._guard = guard
        self._reactor = reactor
        self._collector = ServerCollector(gearman, health, reactor)
        self._registry: CollectorRegistry | None = None

    def render(self, request: LimitedRequest) -> Any:
        if request.method not in (b"GET", b"HEAD"):
            problem = HTTPProblem(405, "wrong-method", "This is for GET.", ((b"Allow", b"GET, HEAD"),))
            return problem.response().send(request)
        try:
            self._guard.check(request, WebRight.VIEW)
        except HTTPProblem as problem:
            return problem.response().send(request)
        taking = Deferred.fromCoroutine(self._collector.take())
        request.notifyFinish().addErrback(lambda _gone: taking.cancel())
        taking.addCallback(self._show, request).addErrback(self._failed, request)
        return NOT_DONE_YET

    def _failed(self, reason: Failure, request: LimitedRequest) -> None:
        if not reason.check(CancelledError):
            request.processingFailed(reason)

    def _show(self, _taken: None, request: LimitedRequest) -> None:
        """Have the snapshot written as text, and send it."""
        if self._registry is None:
            self._registry = CollectorRegistry()
            self._registry.register(self._collector)
            ProcessCollector(registry=self._registry)
        registry: Any = self._registry
        if names := request.args.get(b"name[]"):
            registry = registry.restricted_registry([name.decode("utf-8", "replace") for name in names])
        # No more of the headers than these words is of use, so nothing in them can be wrong.
        is_open = b"application/openmetrics-text" in (request.getHeader(b"Accept") or b"")
        is_compressed = b"gzip" in (request.getHeader(b"Accept-Encoding") or b"")
        is_gone: list[Failure] = []
        request.notifyFinish().addErrback(is_gone.append)

        def send(response: Response) -> None:
            if not is_gone:
                request.respond(response)

        def write() -> None:
            try:
                response = _written(registry, is_open, is_compressed)
            except Exception:
                _log.failure("The metrics cannot be written")
                response = HTTPProblem(
                    500, "internal", "The metrics failed; the server's log says why."
                ).response()
            self._reactor.callFromThread(send, response)

        self._reactor.getThreadPool().callInThread(write)


def _written(registry: Any, is_open: bool, is_compressed: bool) -> Response:
    """The metrics as text: Prometheus's, or OpenMetrics."""
    encode, content_type = choose_encoder(_OPEN_METRICS if is_open else "")
    text = encode(registry)
    if is_compressed:
        return Response(gzip.compress(text), content_type.encode(), headers=((b"Content-Encoding", b"gzip"),))
    return Response(text, content_type.encode())
