"""The workloads: how much of which shape of load, why it is fair, and what is aimed at.

Numbers only, no processes. The shapes are in load.c and connections.c, which say what is measured and what
is outside the clock. Both servers run with their defaults unless `Workload.server_options` says otherwise;
each run has a fresh server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

SUBMIT: Final = 1.0
SUBMIT_UNIQUE: Final = 5.0
DRAIN: Final = 2.0
FOREGROUND: Final = 1.7
ONE_AT_A_TIME: Final = 1.1
THROUGH: Final = 1.7
BIG: Final = 1.0
CONNECTING: Final = 1.0
TWO_WRITES: Final = 100.0
HERD: Final = 10.0
HERD_WAKE_ONE: Final = 1.0
FUNCTIONS: Final = 1.0
FUNCTIONS_ASLEEP: Final = 10.0
DURABLE_SQLITE: Final = 30.0
DURABLE_POSTGRESQL: Final = 10.0
DURABLE_EACH: Final = 5.0
DURABLE_THROUGH_SQLITE: Final = 10.0
DURABLE_THROUGH_POSTGRESQL: Final = 5.0
"""The targets: the least median of txgearman's rate divided by gearmand's."""

SUBMIT_COST: Final = 0.7
DRAIN_COST: Final = 0.3
FOREGROUND_COST: Final = 0.5
THROUGH_COST: Final = 0.4
"""The targets for processor time: the largest median of what the compiled build takes for a job, divided by
what gearmand takes."""

OURS: Final = "txgearman"
ONE_AT_ONCE: Final = "txgearman, one at once"
ONE_BY_ONE: Final = "txgearman, a call each"
BLOCKING: Final = "txgearman.blocking"
LIBGEARMAN: Final = "libgearman (C)"
GEAR: Final = "gear"
PYGEARMAN: Final = "pygearman"
BARE: Final = "bare C"
"""The libraries whose clients and workers are compared."""

EACH: Final = "each"
CALL: Final = "call"
MANY: Final = "many"
WORK: Final = "work"
"""What their programs do: submit one offline job after the other, or one online job and wait for its result,
or many offline jobs at once; or work."""

LIBRARY: Final = 5.0
"""The target for `OURS` over `GEAR` and over `PYGEARMAN`."""


LOAD: Final = "load.c"
CONNECTIONS: Final = "connections.c"
"""The load generators."""

UNIX: Final = "unix"
TLS: Final = "tls"
WEB: Final = "web"
"""Transports beside plain TCP; the last is HTTP."""


@dataclass(frozen=True, slots=True)
class Workload:
    """One row of the comparison.

    `jobs` are measured in a short run and `long_jobs` with ``--long``; txgearman gets `ours_times` as
    many, where so few would be over too soon for a clock and gearmand would take minutes for more. That
    is right only where a job costs the same however many came before. `options` go to load.c,
    `server_options` to both servers. `target` is the ratio aimed at, None where there is none, and
    `cost_target` that of the processor time which the compiled build takes for a job. With `floor`, echo.py
    is measured beside the two servers. Jobs are kept in `store`, one of stores.py's, or in
    memory only. `generator` is one of servers.py's. Servers are reached over `transport`, plain TCP if
    that is None. txgearman is measured `alone` in what gearmand cannot do.
    """

    name: str
    shape: str
    jobs: int
    long_jobs: int
    target: float | None = None
    options: Mapping[str, int] = field(default_factory=dict)
    server_options: tuple[str, ...] = ()
    floor: bool = False
    ours_times: int = 1
    cost_target: float | None = None
    store: str | None = None
    generator: str = LOAD
    transport: str | None = None
    alone: bool = False


def _durable(store: str, jobs: int, times: int, targets: tuple[float, float, float]) -> tuple[Workload, ...]:
    """The durable workloads on one kind of store: `jobs` for gearmand, `times` as many for txgearman.

    Every job has a unique, as libgearman gives it one: of jobs without, gearmand keeps a single row.
    """
    pipelined, each, through = targets
    return (
        # One connection with 1,000 unanswered submits: how many share a commit is up to the server.
        Workload(
            f"durable-{store}",
            "submit",
            jobs=jobs,
            long_jobs=5 * jobs,
            target=pipelined,
            options={"window": 1000, "unique": 1},
            ours_times=times,
            store=store,
        ),
        # 64 clients, each with one job at a time, which waits for its commit.
        Workload(
            f"durable-{store}-64x1",
            "submit",
            jobs=jobs,
            long_jobs=5 * jobs,
            target=each,
            options={"clients": 64, "unique": 1},
            ours_times=times,
            store=store,
        ),
        # Saved, worked off and removed, all at once.
        Workload(
            f"durable-{store}-through",
            "through",
            jobs=jobs,
            long_jobs=5 * jobs,
            target=through,
            options={"clients": 4, "workers": 8, "window": 16, "limit": 1000, "unique": 1},
            ours_times=times,
            store=store,
        ),
    )


WORKLOADS: Final[tuple[Workload, ...]] = (
    # One connection with 1,000 unanswered submits: the server's own speed, not the round trip's.
    # gearmand's chains in its job table grow with the depth, so the depth, 0 to 200,000, is part of it.
    Workload(
        "submit",
        "submit",
        jobs=200_000,
        long_jobs=200_000,
        target=SUBMIT,
        options={"window": 1000},
        floor=True,
        cost_target=SUBMIT_COST,
    ),
    # The same with a unique each, all different: every submit searches for its unique and finds none.
    # The full depth also in short runs: gearmand's rate falls with it, a shallow run would flatter it.
    Workload(
        "submit-unique",
        "submit",
        jobs=200_000,
        long_jobs=200_000,
        target=SUBMIT_UNIQUE,
        options={"window": 1000, "unique": 1},
    ),
    # Eight workers with one job each, as real ones have it. Starts 200,000 deep and ends empty.
    Workload(
        "drain",
        "drain",
        jobs=200_000,
        long_jobs=200_000,
        target=DRAIN,
        options={"workers": 8, "window": 1000, "result": 0},
        cost_target=DRAIN_COST,
    ),
    # 128 jobs in flight for 8 workers: the workers rarely sleep, the queue is never deep.
    Workload(
        "foreground-8x16",
        "foreground",
        jobs=40_000,
        long_jobs=200_000,
        target=FOREGROUND,
        options={"clients": 8, "window": 16, "workers": 8},
        cost_target=FOREGROUND_COST,
    ),
    # The round trip: submit, wake, grab, assign, complete, each waiting for the one before.
    Workload(
        "one-at-a-time",
        "foreground",
        jobs=4_000,
        long_jobs=20_000,
        target=ONE_AT_A_TIME,
        floor=True,
    ),
    # Submitting and completing at once. The limit keeps a server from being fast at one of the two
    # at the other's cost, and keeps the depth the same for both.
    Workload(
        "through-1KiB",
        "through",
        jobs=40_000,
        long_jobs=200_000,
        target=THROUGH,
        options={"clients": 4, "workers": 8, "window": 16, "limit": 1000, "payload": 1024},
        cost_target=THROUGH_COST,
    ),
    # Bytes rather than packets: 100 KiB each way.
    Workload(
        "big-100KiB",
        "foreground",
        jobs=3_000,
        long_jobs=20_000,
        target=BIG,
        options={"clients": 4, "window": 4, "workers": 4, "payload": 102_400},
    ),
    # A job for a thousand sleepers. By default gearmand wakes all of them for every job, and 999 are told
    # NO_JOB; the workers' own part of this is in the generator and the same for both servers.
    Workload(
        "herd",
        "foreground",
        jobs=50,
        long_jobs=500,
        target=HERD,
        options={"workers": 1000},
        ours_times=20,
    ),
    # The same with both servers told to wake one: what is left when the herd is switched off.
    Workload(
        "herd-wake-one",
        "foreground",
        jobs=3_000,
        long_jobs=20_000,
        target=HERD_WAKE_ONE,
        options={"workers": 1000},
        server_options=("--worker-wakeup", "1"),
    ),
    # 200 workers able to do each of 2,000 functions, 400,000 registrations: what a grab has to look through.
    # There are always jobs for all workers, so that they hardly ever sleep.
    Workload(
        "functions-2000",
        "foreground",
        jobs=10_000,
        long_jobs=40_000,
        target=FUNCTIONS,
        options={"clients": 8, "window": 50, "workers": 200, "functions": 2000},
        ours_times=2,
    ),
    # The same with one job at a time, and all workers asleep: gearmand wakes all of them for each job.
    Workload(
        "functions-2000-asleep",
        "foreground",
        jobs=500,
        long_jobs=2_000,
        target=FUNCTIONS_ASLEEP,
        options={"workers": 200, "functions": 2000},
        ours_times=20,
    ),
    # Framing, reading and writing alone, in the rhythm of `submit` and of a round trip.
    Workload(
        "echo-pipelined", "echo", jobs=200_000, long_jobs=1_000_000, options={"window": 1000}, floor=True
    ),
    Workload("echo-one-at-a-time", "echo", jobs=8_000, long_jobs=40_000, floor=True),
    # A connection for each job, as a web page has it that submits one: connect, submit, JOB_CREATED, close,
    # by 8 clients with blocking sockets.
    Workload(
        "connect-each",
        "connect",
        jobs=10_000,
        long_jobs=25_000,
        target=CONNECTING,
        generator=CONNECTIONS,
    ),
    Workload(
        "connect-each-unix",
        "connect",
        jobs=10_000,
        long_jobs=25_000,
        generator=CONNECTIONS,
        transport=UNIX,
        alone=True,
    ),
    # With a whole TLS handshake for each, and with resumed sessions.
    Workload(
        "connect-each-tls",
        "connect",
        jobs=1_000,
        long_jobs=5_000,
        options={"tls": 1},
        generator=CONNECTIONS,
        transport=TLS,
        alone=True,
    ),
    Workload(
        "connect-each-resumed",
        "connect",
        jobs=2_000,
        long_jobs=10_000,
        options={"tls": 2},
        generator=CONNECTIONS,
        transport=TLS,
        alone=True,
    ),
    # Background jobs over HTTP, each with a request of its own, by 16 clients that wait for each answer, on
    # connections that are used again. gearmand closes a connection after an answer, so they connect anew.
    Workload(
        "http",
        "http",
        jobs=10_000,
        long_jobs=50_000,
        options={"clients": 16, "keep-alive": 1},
        generator=CONNECTIONS,
        transport=WEB,
    ),
    # The same with a connection for each request.
    Workload(
        "http-connect-each",
        "http",
        jobs=10_000,
        long_jobs=50_000,
        options={"clients": 16},
        generator=CONNECTIONS,
        transport=WEB,
    ),
    # Very many jobs in one request, a line of JSON for each, and an answer for each.
    Workload(
        "http-bulk",
        "http",
        jobs=200_000,
        long_jobs=1_000_000,
        options={"clients": 4, "keep-alive": 1, "lines": 10_000},
        generator=CONNECTIONS,
        transport=WEB,
        alone=True,
    ),
    # Workers that send the end of a job and the next grab by two writes, without TCP_NODELAY, as many
    # libraries do. A server that delays acknowledgements lets them wait 40 ms between the two.
    Workload(
        "two-writes",
        "two-writes",
        jobs=200,
        long_jobs=1_000,
        target=TWO_WRITES,
        options={"workers": 1},
        generator=CONNECTIONS,
        ours_times=50,
    ),
    Workload(
        "two-writes-tls",
        "two-writes",
        jobs=2_000,
        long_jobs=10_000,
        options={"workers": 1, "tls": 1},
        generator=CONNECTIONS,
        transport=TLS,
        alone=True,
    ),
    # Jobs on the disk before they are acknowledged. gearmand's rate is that of the disk's fsyncs.
    *_durable("sqlite", 1_000, 20, (DURABLE_SQLITE, DURABLE_EACH, DURABLE_THROUGH_SQLITE)),
    *_durable("postgresql", 5_000, 5, (DURABLE_POSTGRESQL, DURABLE_EACH, DURABLE_THROUGH_POSTGRESQL)),
)
"""In the order of the table."""


@dataclass(frozen=True, slots=True)
class LibraryWorkload:
    """What one client process or one worker process does on gearmand.

    `jobs` are measured, `LONG_TIMES` as many with ``--long``. Libraries in `others` do as many as said there:
    those whose jobs would be over too soon for a clock, or take minutes. A library that has no way to do
    `role` does what `instead` says, if it is there. `target` is aimed at for the libraries in `aimed_at`.
    """

    name: str
    role: str
    jobs: int
    others: Mapping[str, int] = field(default_factory=dict)
    instead: Mapping[str, str] = field(default_factory=dict)
    target: float | None = None
    aimed_at: tuple[str, ...] = (GEAR, PYGEARMAN)


LONG_TIMES: Final = 4

LIBRARY_WORKLOADS: Final = (
    # One call and one wait for each job, as a program has it that submits a job now and then. Nearly all
    # of the time is the round trip, which is the same for all.
    LibraryWorkload("client-each", EACH, jobs=4_000),
    # The same with online jobs: a call of a function, and its result. The worker is the same for all.
    LibraryWorkload("client-call", CALL, jobs=2_000),
    # As many jobs as possible by one process: each library in the quickest way it offers. `ONE_BY_ONE` is
    # what `OURS` does without its call for many. gear has only the one call for one job.
    LibraryWorkload(
        "client-many",
        MANY,
        jobs=20_000,
        others={OURS: 100_000, GEAR: 4_000},
        instead={GEAR: EACH},
        target=LIBRARY,
    ),
    # A function that returns its data; the queue is never empty. The worker of `OURS` may run 16 jobs at
    # once, and so asks for as many without waiting for each; that of `ONE_AT_ONCE` waits a round trip for
    # each job, as the others do, which have no such setting. gear's jobs take 40 ms each: it sends a job's
    # end and its next question in two writes, with Nagle's algorithm on, and the second waits for the
    # delayed acknowledgement of the first.
    LibraryWorkload("worker", WORK, jobs=10_000, others={OURS: 40_000, GEAR: 30}, target=LIBRARY),
)
"""In the order of the table."""

DEPTHS: Final = (20_000, 2_000_000)
"""Jobs already queued when txgearman's rates are compared with its own, the shallow queue first."""

DEPTH_JOBS: Final = 50_000
"""Jobs measured at each depth."""

DEPTH_WORKLOADS: Final = ("submit", "submit-unique", "drain")
"""Which workloads are run at the depths."""

SETTLE_SECONDS: Final = 3.0
"""Seconds between the end of a drained queue's last job and the look at what memory is left."""

MEMORY_JOBS: Final = 200_000
"""Jobs queued, of 64 bytes each, when the memory per job is measured."""

IDLE_CONNECTIONS: Final = 10_000
"""Connections that have sent one echo and then nothing, when their memory is measured."""

NAMES: Final = (
    *(workload.name for workload in WORKLOADS),
    *(workload.name for workload in LIBRARY_WORKLOADS),
)
"""Of all workloads."""
