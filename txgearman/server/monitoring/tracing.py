"""The ways of jobs as spans of OpenTelemetry. Nothing else in the package knows OpenTelemetry, and only the
service loads this.

A job's span begins when it was submitted and is made when it has ended; what it did on its way, waiting and
running, are spans below it, each made when it is over. It is itself below the span that its submit names as
``traceparent``, if it names one. The ids of a job's trace, without that, and of its span follow from its
handle and when it was submitted. So nothing is kept for that, and a job that a store has kept is the same
trace whatever server goes on with it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, Final
from urllib.parse import urlsplit
from zlib import crc32

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    NoOpTracer,
    SpanContext,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    set_span_in_context,
)
from opentelemetry.util.types import AttributeValue
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger, LogLevel

from txgearman.broker.entities import Job
from txgearman.broker.job_states import FAILURES, OUTCOME_NAMES, Outcome, Priority
from txgearman.server.monitoring.rate_limited_log import RateLimitedLog
from txgearman.version import VERSION

DEFAULT_PATH: Final = "/v1/traces"
"""Where OTLP over HTTP has traces."""

STOP_TIMEOUT: Final = 3.0
"""Seconds that the spans that are left have to reach the collector when the service stops: with the default
of ``--drain-timeout`` less than what ``docker stop`` waits."""

LOG_INTERVAL: Final = 60.0
"""Seconds between two lines of the log about a collector that does not take what is sent."""

ERRORS: Final = FAILURES | {int(Outcome.NOT_SAVED)}
"""The outcomes that make a span an error. That nobody wanted the job any more is none."""

_CRCS: Final = 1 << 32

_log = Logger()
_theirs: Final = logging.getLogger("opentelemetry")


def traces_url(url: str) -> str:
    """Where spans are sent to if an operator names `url`."""
    return url if urlsplit(url).path.strip("/") else url.rstrip("/") + DEFAULT_PATH


class _Ids(RandomIdGenerator):
    """Gives the next span the ids in `chosen`, of which one with a parent has the span's alone; without them
    any."""

    chosen: tuple[int, int] | None = None

    def generate_trace_id(self) -> int:
        return super().generate_trace_id() if self.chosen is None else self.chosen[0]

    def generate_span_id(self) -> int:
        return super().generate_span_id() if self.chosen is None else self.chosen[1]


class _ToOurLog(logging.Handler):
    """What OpenTelemetry warns of, in the server's log, at most now and then. It comes from any thread."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(logging.WARNING)
        self._tell = RateLimitedLog(LogLevel.warn, "Traces: {what}", clock, LOG_INTERVAL)

    def emit(self, record: logging.LogRecord) -> None:
        self._tell.happened(what=record.getMessage())


class Traces:
    """The broker's `Follower`, which sends spans to the collector at `url`.

    `ratio` is the part of the jobs without a client's trace that is followed; which ones they are follows
    from their handles.
    `make_processor` makes what takes the spans that have ended, each time this is started.
    """

    def __init__(
        self,
        reactor: Any,
        url: str,
        ratio: float,
        make_processor: Callable[[str], SpanProcessor] | None = None,
    ) -> None:
        self._reactor = reactor
        self._url = traces_url(url)
        self._below = round(ratio * _CRCS)
        self._make_processor = make_processor or _sender
        self._ids = _Ids()
        self._provider: TracerProvider | None = None
        self._tracer: Tracer = NoOpTracer()
        self._handler: logging.Handler | None = None

    def start(self) -> None:
        """Begin to send. This starts a thread, so it must come after a fork."""
        if self._provider is not None:
            return
        # Other handlers, which the program around may have, get the same.
        self._handler = _ToOurLog(time.monotonic)
        _theirs.addHandler(self._handler)
        self._provider = TracerProvider(
            # Which jobs are followed was decided already.
            sampler=ALWAYS_ON,
            resource=_resource(),
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(self._make_processor(self._url))
        self._tracer = self._provider.get_tracer("txgearman", VERSION)
        _log.info("Traces go to {url}", url=self._url)

    def stop(self) -> Deferred[None]:
        """Send what is left; fires when that is done, or took too long."""
        provider, self._provider = self._provider, None
        handler, self._handler = self._handler, None
        self._tracer = NoOpTracer()
        if provider is None or handler is None:
            return succeed(None)
        stopped: Deferred[None] = Deferred()

        def done() -> None:
            if not stopped.called:
                late.cancel()
                stopped.callback(None)

        def too_late() -> None:
            _log.warn("Traces: the last ones could not be sent in {seconds:g} seconds", seconds=STOP_TIMEOUT)
            stopped.callback(None)

        def shut_down() -> None:
            try:
                provider.shutdown()
            finally:
                _theirs.removeHandler(handler)
                self._reactor.callFromThread(done)

        late = self._reactor.callLater(STOP_TIMEOUT, too_late)
        # Not one of the reactor's pool: the end of the program would wait for that.
        threading.Thread(target=shut_down, name="txgearman-traces", daemon=True).start()
        return stopped

    # -- the broker's Follower ------------------------------------------------------------------

    def follows(self, job: Job) -> bool:
        """Whether the job is one of those that are traced: where its client has a trace, the client has
        decided that, or else its trace would have holes."""
        parent = _parent_of(job)
        return crc32(job.handle) < self._below if parent is None else parent.trace_flags.sampled

    def waited(self, job: Job, since: float, until: float) -> None:
        """A span for a job's time in its queue."""
        self._step("wait", job, since, until, None)

    def ran(self, job: Job, attempt: int, since: float, until: float, ending: int | None) -> None:
        """A span for a job's time with a worker."""
        self._step(
            "process",
            job,
            since,
            until,
            ending,
            {"gearman.run": attempt, "gearman.outcome": OUTCOME_NAMES[ending]},
        )

    def ended(self, job: Job, attempts: int, when: float, ending: int | None) -> None:
        """The span of the job itself."""
        attributes = _attributes("job", job)
        attributes |= {
            "messaging.message.body.size": len(job.data),
            "gearman.priority": Priority(job.priority).name.lower(),
            "gearman.background": job.background,
            "gearman.runs": attempts,
            "gearman.outcome": OUTCOME_NAMES[ending],
        }
        if job.run_at is not None:
            attributes["gearman.run_at"] = job.run_at
        parent = _parent_of(job)
        context = Context() if parent is None else set_span_in_context(NonRecordingSpan(parent), Context())
        self._ids.chosen = _ids_of(job)
        try:
            self._span("job", job, context, job.submitted, when, ending, attributes)
        finally:
            self._ids.chosen = None

    def _step(
        self,
        what: str,
        job: Job,
        since: float,
        until: float,
        ending: int | None,
        more: dict[str, AttributeValue] | None = None,
    ) -> None:
        trace, span = _ids_of(job)
        flags = TraceFlags(TraceFlags.SAMPLED)
        parent = NonRecordingSpan(SpanContext(trace, span, is_remote=False, trace_flags=flags))
        attributes = {**_attributes(what, job), **(more or {})}
        self._span(what, job, set_span_in_context(parent, Context()), since, until, ending, attributes)

    def _span(
        self,
        what: str,
        job: Job,
        context: Context,
        since: float,
        until: float,
        ending: int | None,
        attributes: dict[str, AttributeValue],
    ) -> None:
        is_error = ending in ERRORS
        if is_error:
            attributes["error.type"] = OUTCOME_NAMES[ending]
        span = self._tracer.start_span(
            f"{what} {_text(job.function.name)}",
            context,
            attributes=attributes,
            start_time=_nanoseconds(since),
        )
        if is_error:
            span.set_status(Status(StatusCode.ERROR))
        span.end(_nanoseconds(max(since, until)))


def _sender(url: str) -> SpanProcessor:
    return BatchSpanProcessor(OTLPSpanExporter(endpoint=url))


def _resource() -> Resource:
    """What the environment says of this service, and a name if it says none."""
    own = Resource({SERVICE_NAME: "txgearman", SERVICE_VERSION: VERSION})
    said = Resource.create()
    if str(said.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        return said.merge(own)
    return own.merge(said)


def _attributes(what: str, job: Job) -> dict[str, AttributeValue]:
    """The attributes of all spans of a job, by the semantic conventions for messaging."""
    return {
        "messaging.system": "gearman",
        "messaging.operation.name": what,
        "messaging.destination.name": _text(job.function.name),
        "messaging.message.id": _text(job.handle),
    }


def _ids_of(job: Job) -> tuple[int, int]:
    """The ids of a job's trace and span. Handles begin anew with each start of a server without a store."""
    digest = blake2b(b"%b %b" % (job.handle, job.submitted.hex().encode()), digest_size=24).digest()
    parent = _parent_of(job)
    trace = int.from_bytes(digest[:16]) if parent is None else parent.trace_id
    return trace, int.from_bytes(digest[16:])


def _parent_of(job: Job) -> SpanContext | None:
    """The client's span that a job belongs to, if it has said that."""
    if job.options is None or job.options.traceparent is None:
        return None
    _version, trace, span, flags = job.options.traceparent.split("-")
    return SpanContext(int(trace, 16), int(span, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
