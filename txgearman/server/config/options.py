"""What an operator may choose, checked. Data only.

To add an option is to add a field here with `option`; `option_kinds` says what follows from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from txgearman.access.policy import AccessPolicy
from txgearman.broker.policy import (
    DEFAULT_DEAD_AGE,
    DEFAULT_DEAD_BYTES_IN_MEMORY,
    DEFAULT_DEAD_JOBS_IN_MEMORY,
    DEFAULT_HISTORY,
    DEFAULT_HISTORY_BYTES,
    DEFAULT_KEPT_UNIQUES,
    DEFAULT_RESULTS_BYTES_IN_MEMORY,
    UNLIMITED,
    FunctionOrder,
    Policy,
)
from txgearman.broker.retries import (
    DEFAULT_BACKOFF,
    DEFAULT_BACKOFF_FACTOR,
    DEFAULT_BACKOFF_MAX,
    DEFAULT_JITTER,
)
from txgearman.net.keepalive import MAX_KEEPALIVE, Keepalive
from txgearman.server.config.function_options import (
    ATTEMPTS,
    BACKOFF,
    BACKOFF_FACTOR,
    HEARTBEAT,
    JITTER,
    LOSSES,
    MAX_RATE,
    MAX_TIME_LIMIT,
    FunctionSettings,
    check_function_name,
)
from txgearman.server.config.option_kinds import (
    INTEGER,
    NUMBER,
    PATH,
    SECONDS,
    SIZE,
    TEXT,
    option,
    verify,
)
from txgearman.server.config.option_values import (
    MAX_PREFIX,
    check_collector_url,
    check_handle_prefix,
    check_webhook_url,
    default_handle_prefix,
    web_endpoint,
)
from txgearman.server.config.run_limit_options import default_rules, for_all
from txgearman.server.config.schedule_options import (
    MAX_SCHEDULES,
    MOST_SCHEDULES,
    ScheduleSettings,
    Weekdays,
    check_schedule_name,
)
from txgearman.server.config.tls_options import TlsFiles, TlsVerify
from txgearman.wire.limits import MAX_PACKET

DEFAULT_ENDPOINT: Final = "tcp:4730:interface=127.0.0.1"
"""Where the server listens if nothing is said: Gearman's port, for this machine only."""

METRICS_FUNCTIONS: Final = 100
"""Functions that metrics tell apart where a web side is served."""

MOST_METRICS_FUNCTIONS: Final = 10_000

SMALLEST_MAX_PACKET: Final = 1024
_LARGEST_MAX_PACKET: Final = 0xFFFFFFFF

MAX_FUNCTIONS: Final = 50_000
"""Functions. Installations with a function for each host or for each job and node have thousands, and half of
this many are kept although nobody uses them. A function without jobs takes 4.5 kB."""

MAX_UNSENT: Final = 64 * 1024 * 1024
"""Bytes. Redis ends its subscribers at 32 MiB; here one result may have 64 already."""

MAX_UNSENT_TOTAL: Final = 1024 * 1024 * 1024
"""Bytes: as much as sixteen connections that take nothing at all."""

MAX_UNFINISHED_TOTAL: Final = 1024 * 1024 * 1024
"""Bytes: sixteen of the largest packets that are on their way at the same time."""

DEFAULT_STORED_LOSSES: Final = 25
"""Workers that may lose a job with a store, which keeps it when it is dead: far more than restarts of workers
cost one job, and few enough that a job which ends its workers is out of the way within minutes."""

DEFAULT_DEAD_JOBS: Final = 10_000
"""Dead jobs in a store: as many as Faktory and Sidekiq keep."""

DEFAULT_DEAD_BYTES: Final = 256 * 1024 * 1024
"""Bytes of their data."""

DEFAULT_RESULTS_BYTES: Final = 256 * 1024 * 1024
"""Bytes of kept results in a store."""

MAX_HISTORY: Final = 100_000
"""Ended jobs: to look one up walks them, which takes five milliseconds then."""

FILES_KEPT: Final = 16
"""Open files that are never left to connections of clients and workers: for the log, the store, what
listens and the reactor. Those of the web side come beside them."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a server.

    The attributes are named as the options of ``twistd gearmand``, with underscores. :doc:`server` lists the
    options with their units and defaults. These attributes are not named so, or hold something else than the
    option's text:

    Attributes:
        listen: The endpoints without TLS, a tuple.
        tls: The endpoints with TLS, a tuple.
        wakeup: How many sleeping workers are woken for a job (``--worker-wakeup``); 0 wakes all.
        functions: Settings by the name of a function, in which ``*`` stands for any letters.
        schedules: Recurring jobs by name.
        access: Who may do what. Without it everybody who can connect may do everything but shut the server
            down from another machine.

    Raises:
        ValueError: A value cannot be.
    """

    listen: tuple[str, ...] = option(
        (),
        "A Twisted server endpoint to listen at, such as ``tcp:4730`` for everybody who can reach this "
        "machine, or ``unix:/run/gearmand.sock``. May be repeated; all lead to the same jobs.",
        short="L",
        shown=f"``{DEFAULT_ENDPOINT}`` without ``--tls``",
    )
    tls: tuple[str, ...] = option(
        (),
        "A Twisted server endpoint to listen at with TLS, such as ``tcp:4730``. May be repeated.",
        shown="",
    )
    tls_certificate: str | None = option(
        None,
        "The server's certificate in PEM, with those between it and a CA that clients know.",
        kind=PATH,
        reloadable=True,
    )
    tls_key: str | None = option(
        None,
        "Its private key, without a password, if that is not in the same file.",
        kind=PATH,
        reloadable=True,
    )
    tls_ca: str | None = option(
        None,
        "The CAs of clients' certificates. With it clients must show a certificate that one of these has "
        "signed.",
        kind=PATH,
        reloadable=True,
    )
    tls_verify: TlsVerify = option(
        TlsVerify.REQUIRED,
        "With ``--tls-ca``: whether a client's certificate is ``required`` or ``optional``. One that is "
        "shown is verified in either case.",
        reloadable=True,
    )
    job_retries: int | None = option(
        None,
        "How many workers may lose a job before it fails. -1 is no limit. 0 and 1 are the same: the job "
        "fails with the first worker that loses it. A time limit that expires counts as a loss, unless "
        "``attempts`` is said.",
        shown=f"``{DEFAULT_STORED_LOSSES}`` with a store, else ``{UNLIMITED}``",
        short="j",
        reloadable=True,
        **LOSSES,
    )
    attempts: int | None = option(
        None,
        "How many runs of a job may end in a failure or an exception. After each but the last the job waits "
        "for a backoff and is run again. A background job whose last run failed is dead. Where this is said, "
        "here or for a function, a time limit that expires counts as such a run.",
        shown="``1``",
        reloadable=True,
        **ATTEMPTS,
    )
    backoff: float = option(
        DEFAULT_BACKOFF,
        "Seconds that a job waits before its first retry.",
        reloadable=True,
        **BACKOFF,
    )
    backoff_factor: float = option(
        DEFAULT_BACKOFF_FACTOR,
        "Each further backoff is so many times the one before.",
        reloadable=True,
        **BACKOFF_FACTOR,
    )
    backoff_max: float = option(
        DEFAULT_BACKOFF_MAX,
        "Seconds; no backoff is longer, apart from its jitter.",
        reloadable=True,
        **BACKOFF,
    )
    jitter: float = option(
        DEFAULT_JITTER,
        "The part, 0 to 1, by which each backoff is longer or shorter at random, so that jobs that failed "
        "together do not run together again.",
        reloadable=True,
        **JITTER,
    )
    heartbeat: float = option(
        0.0,
        "Seconds without a status, data, a warning or a heartbeat of its worker after which a running job is "
        "taken back, as a loss, and given to another. 0 is never.",
        reloadable=True,
        **HEARTBEAT,
    )
    dead_jobs: int | None = option(
        None,
        "How many dead jobs are kept, with their data. The oldest are forgotten first. 0 keeps none: a "
        "background job whose last run failed is gone then.",
        kind=INTEGER,
        shown="``10000``; ``1000`` without a store",
        reloadable=True,
        least=0,
        most=MAX_RATE,
    )
    dead_bytes: int | None = option(
        None,
        "How many bytes they may take in all.",
        kind=SIZE,
        shown="256 MiB; 16 MiB without a store",
        reloadable=True,
        least=0,
    )
    dead_age: float = option(
        DEFAULT_DEAD_AGE,
        "Seconds after which a dead job is forgotten in any case.",
        shown="``180d``",
        reloadable=True,
        least=1,
        most=MAX_TIME_LIMIT,
    )
    dead_webhook: str | None = option(
        None,
        "The URL, ``http`` or ``https``, of a web server that is told of each job that dies: by a POST of "
        "JSON, many jobs in one. It may have a user and a password in it, or a token; write it into the "
        "configuration file then, as others on this machine can see the command line.",
        kind=TEXT,
        shown="none",
        reloadable=True,
        check=check_webhook_url,
    )
    history: int = option(
        DEFAULT_HISTORY,
        "How many jobs that were completed at once are remembered, and how many that ended otherwise: "
        "outcome, times, worker, failed runs, but not their data. 0 is off.",
        reloadable=True,
        least=0,
        most=MAX_HISTORY,
    )
    history_bytes: int = option(
        DEFAULT_HISTORY_BYTES,
        "How many bytes that may take.",
        kind=SIZE,
        shown="8 MiB",
        reloadable=True,
        least=0,
    )
    results_bytes: int | None = option(
        None,
        "How many bytes the results take in all that functions with ``keep-results`` keep. The oldest are "
        "forgotten first.",
        kind=SIZE,
        shown="256 MiB; 16 MiB without a store",
        reloadable=True,
        least=0,
    )
    wakeup: int = option(
        1,
        "How many sleeping workers are woken for a job. 0 wakes all.",
        name="worker-wakeup",
        short="w",
        reloadable=True,
        least=0,
    )
    order: FunctionOrder = option(
        FunctionOrder.PRIORITY,
        "Which of a worker's functions is served first. ``priority``: the highest priority over all its "
        "functions, which take turns within a priority, as gearmand 2. ``registration``: the function it "
        "registered last, then the one before, and priority only within a function, as gearmand 1.1.",
    )
    round_robin: bool = option(
        False, "With ``--order=registration``, let a worker's functions take turns.", short="R"
    )
    handle_prefix: str = option(
        default_handle_prefix,
        "What job handles begin with, ahead of a colon and a number. Printable ASCII without spaces, at "
        f"most {MAX_PREFIX} bytes.",
        shown="``H:`` and the machine's name",
        check=check_handle_prefix,
    )
    max_packet: int = option(
        MAX_PACKET,
        "The largest body of a packet in bytes, 1024 to 4294967295. K, M and G may follow the number.",
        kind=SIZE,
        reloadable=True,
        least=SMALLEST_MAX_PACKET,
        most=_LARGEST_MAX_PACKET,
    )
    exceptions: bool = option(
        False,
        "Send WORK_EXCEPTION also to clients that did not ask for it by OPTION_REQ. "
        "The others get WORK_FAIL.",
        reloadable=True,
    )
    store: str | None = option(
        None,
        "Where background jobs are kept, so that they survive the end of the server: "
        "``sqlite:///file`` (``sqlite:////folder/file`` for an absolute path), or "
        "``postgresql://user:password@host/database``. Without it jobs are in memory only.",
        kind=TEXT,
        shown="none",
    )
    store_lease: float = option(
        10.0,
        "On a database that several servers share: seconds after which the others take over the jobs of a "
        "server that they do not hear of. It is heard of three times as often.",
        kind=SECONDS,
        least=1,
        most=3600,
    )
    store_ahead: int = option(
        20_000,
        "With a store, how many waiting jobs of a function and priority are in memory. Those after them are "
        "only in the store until their turn comes.",
        least=1,
    )
    keepalive_idle: int = option(
        0,
        "Seconds of silence on a connection before TCP keepalive probes. 0 is the system's own value, here "
        "and below.",
        reloadable=True,
        least=0,
        most=MAX_KEEPALIVE.idle,
    )
    keepalive_interval: int = option(
        0, "Seconds between the probes.", reloadable=True, least=0, most=MAX_KEEPALIVE.interval
    )
    keepalive_count: int = option(
        0, "Lost probes that end a connection.", reloadable=True, least=0, most=MAX_KEEPALIVE.count
    )
    max_connections: int = option(
        0,
        "How many clients and workers may be connected. One more gets an ERROR and is closed, unless one "
        "that has never sent anything can make room for it. 0 is what the limit of open files leaves room "
        f"for: all but a tenth, or but {FILES_KEPT} and ``web-max-connections`` if these are more.",
        reloadable=True,
        least=0,
    )
    max_connections_per_address: int = option(
        0,
        "How many of them from one IPv4 address, or from one IPv6 network of 64 bits. 0 is no limit: behind "
        "a proxy all have the same. Connections over UNIX sockets do not count.",
        reloadable=True,
        least=0,
    )
    handshake_timeout: float = option(
        10.0,
        "Seconds that a TLS handshake may take. Then the connection is dropped.",
        reloadable=True,
        least=0.1,
        most=3600,
    )
    max_unsent: int = option(
        MAX_UNSENT,
        "Bytes that may wait for a peer that does not read, beside one packet and what the system's buffers "
        "take. Then its connection is dropped. K, M and G may follow the number.",
        kind=SIZE,
        shown="``64M``",
        reloadable=True,
        least=1024,
    )
    max_unsent_total: int = option(
        MAX_UNSENT_TOTAL,
        "Bytes that may wait for all such peers together, those over HTTP and the first packet for each "
        "included. Then those for whom most waits are dropped. 0 is no limit.",
        kind=SIZE,
        shown="``1G``",
        reloadable=True,
        least=0,
    )
    max_unfinished_total: int = option(
        MAX_UNFINISHED_TOTAL,
        "Bytes that may have come of packets, and of bodies of HTTP requests, that are not whole yet, of all "
        "peers together. Then those that began first are refused with TOO_MUCH_UNFINISHED. Never less than "
        "``--max-packet``. 0 is no limit.",
        kind=SIZE,
        shown="``1G``",
        reloadable=True,
        least=0,
    )
    max_jobs: int = option(
        0,
        "How many jobs there may be in all, running ones included. One more is refused with QUEUE_ERROR. "
        "0 is no limit.",
        reloadable=True,
        least=0,
    )
    max_functions: int = option(
        MAX_FUNCTIONS,
        "How many functions there may be. One more is refused with QUEUE_ERROR, to who submits a job and to "
        "who registers. While there are more than half as many, those without jobs, workers and settings of "
        "an administrator are forgotten, unused ones of longest standing first. 0 is no limit.",
        reloadable=True,
        least=0,
    )
    max_kept_uniques: int = option(
        DEFAULT_KEPT_UNIQUES,
        "How many uniques of completed jobs are kept, by ``unique-for`` of a function or of a job. None is "
        "forgotten ahead of its time. While there are so many, a new job whose unique is to be kept is "
        "refused with QUEUE_ERROR.",
        reloadable=True,
        least=0,
        most=MAX_RATE,
    )
    submit_rate: float = option(
        0.0,
        "How many new jobs a second each function takes, in the long run. One more is refused with "
        "RATE_EXCEEDED. 0 is no limit. ``maxrate`` sets another for a function.",
        kind=NUMBER,
        reloadable=True,
        least=0,
        most=MAX_RATE,
    )
    submit_burst: int = option(
        0, "How many of them at once. 0 is as many as the rate.", reloadable=True, least=0, most=MAX_RATE
    )
    max_running: int = for_all("max_running")
    start_rate: float = for_all("start_rate")
    start_burst: int = for_all("start_burst")
    max_running_per_key: int = for_all("max_running_per_key")
    key_separator: str = for_all("key_separator")
    pause_after: int = for_all("pause_after")
    max_schedules: int = option(
        MAX_SCHEDULES,
        "How many schedules there may be, those of the configuration file included.",
        reloadable=True,
        least=0,
        most=MOST_SCHEDULES,
    )
    allow_unsaved_schedules: bool = option(
        False,
        "Take schedules that are added while the server runs although there is no ``--store``. They are lost "
        "with the server.",
        reloadable=True,
    )
    sched_weekday: Weekdays = option(
        Weekdays.MONDAY_0,
        "What numbers of days of the week mean in SUBMIT_JOB_SCHED: ``monday-0``, where 6 is Sunday, as the "
        "protocol document has it, or ``sunday-0`` as cron has it. Programs differ; names are safe.",
        reloadable=True,
    )
    web: str | None = option(
        None,
        "Where the dashboard and the HTTP interface listen: a port, for this machine only, or a Twisted "
        "server endpoint. Without it they are not there.",
    )
    web_tls: bool = option(False, "Speak TLS there, with the certificate of ``--tls-certificate``.")
    web_read_only: bool = option(False, "Show everything there and let nothing be changed.")
    web_token_file: str | None = option(
        None,
        "A file with a token of at least 16 characters. Whoever wants to change something there must show "
        "it. Without a token that is left to connections from this machine.",
        kind=PATH,
    )
    web_max_connections: int = option(
        256,
        "How many HTTP connections there may be, dashboards and requests that wait for a job included. They "
        "do not count in ``max-connections``, so that a full server can still be looked at. One more gets "
        "503 and is closed, unless one on which no request is being answered can make room for it.",
        reloadable=True,
        least=1,
    )
    web_max_connections_per_address: int = option(
        0,
        "How many of them from one IPv4 address, or from one IPv6 network of 64 bits. 0 is no limit. One "
        "browser makes up to six.",
        reloadable=True,
        least=0,
    )
    metrics_functions: int | None = option(
        None,
        "How many functions ``/metrics`` tells apart; all others are one row, so that clients that invent "
        "names cannot make it grow. 0 takes no times either.",
        kind=INTEGER,
        shown=f"``{METRICS_FUNCTIONS}`` with ``--web``",
        least=0,
        most=MOST_METRICS_FUNCTIONS,
    )
    traces: str | None = option(
        None,
        "Where traces of jobs go: the URL of an OpenTelemetry collector that takes OTLP over HTTP, such as "
        "``http://localhost:4318``. The path ``/v1/traces`` is added where there is none. Headers and the "
        "rest are taken from the environment, as OpenTelemetry names it. Without it nothing is traced.",
        check=check_collector_url,
    )
    traces_ratio: float = option(
        0.01,
        "The part of the jobs that is traced: 1 is all, 0.01 one in a hundred.",
        kind=NUMBER,
        least=0,
        most=1,
    )

    functions: Mapping[str, FunctionSettings] = field(default_factory=dict)
    schedules: Mapping[str, ScheduleSettings] = field(default_factory=dict)
    access: AccessPolicy | None = None

    def __post_init__(self) -> None:
        verify(self)
        for name in self.functions:
            check_function_name(name)
        if len(self.schedules) > self.max_schedules:
            raise ValueError(f"there may be {self.max_schedules} schedules, not {len(self.schedules)}")
        for name in self.schedules:
            check_schedule_name(name)
        if not self.listen and not self.tls:
            object.__setattr__(self, "listen", (DEFAULT_ENDPOINT,))
        if (self.tls or self.web_tls) and self.tls_certificate is None:
            raise ValueError("tls and web-tls need tls-certificate")
        if self.tls_certificate is None and (self.tls_key or self.tls_ca):
            raise ValueError("tls-key and tls-ca need tls-certificate")

    @property
    def measured_functions(self) -> int:
        """For how many functions jobs are counted and timed apart; 0 takes no times."""
        if self.metrics_functions is None:
            return 0 if self.web is None else METRICS_FUNCTIONS
        return self.metrics_functions

    @property
    def keepalive(self) -> Keepalive:
        """What is set on each connection."""
        return Keepalive(self.keepalive_idle, self.keepalive_interval, self.keepalive_count)

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The descriptions of all endpoints, that of the web side included."""
        web = () if self.web is None else (web_endpoint(self.web),)
        return (*self.listen, *self.tls, *web)

    @property
    def tls_files(self) -> TlsFiles | None:
        """What TLS is made of, None if no endpoint speaks it."""
        if self.tls_certificate is None or not (self.tls or self.web_tls):
            return None
        required = self.tls_verify is TlsVerify.REQUIRED
        return TlsFiles(self.tls_certificate, self.tls_key, self.tls_ca, required)

    @property
    def policy(self) -> Policy:
        """The part that is the broker's."""
        return Policy(
            handle_prefix=self.handle_prefix.encode("ascii"),
            job_retries=self._max_losses,
            wakeup=self.wakeup,
            order=self.order,
            round_robin=self.round_robin,
            functions=tuple((name.encode(), settings.rules) for name, settings in self.functions.items()),
            in_memory=self.store_ahead,
            max_jobs=self.max_jobs,
            max_functions=self.max_functions,
            submit_rate=self.submit_rate,
            submit_burst=self.submit_burst,
            defaults=default_rules(self),
            attempts=self.attempts,
            backoff=self.backoff,
            backoff_factor=self.backoff_factor,
            backoff_max=self.backoff_max,
            jitter=self.jitter,
            heartbeat=self.heartbeat,
            dead_jobs=DEFAULT_DEAD_JOBS_IN_MEMORY if self.dead_jobs is None else self.dead_jobs,
            dead_bytes=DEFAULT_DEAD_BYTES_IN_MEMORY if self.dead_bytes is None else self.dead_bytes,
            dead_age=self.dead_age,
            history=self.history,
            history_bytes=self.history_bytes,
            max_kept_uniques=self.max_kept_uniques,
            results_bytes=self.results_bytes_in_memory,
        )

    @property
    def results_bytes_in_memory(self) -> int:
        """How many bytes the results take that memory keeps, and beside them what running jobs have sent of
        theirs."""
        if self.results_bytes is not None:
            return self.results_bytes
        return DEFAULT_RESULTS_BYTES_IN_MEMORY if self.store is None else DEFAULT_RESULTS_BYTES

    @property
    def stored_results_bytes(self) -> int:
        """How many bytes the results take that a store keeps."""
        return DEFAULT_RESULTS_BYTES if self.results_bytes is None else self.results_bytes

    @property
    def _max_losses(self) -> int:
        if self.job_retries is not None:
            return self.job_retries
        return UNLIMITED if self.store is None else DEFAULT_STORED_LOSSES

    @property
    def stored_dead_limits(self) -> tuple[int, int, float]:
        """How many dead jobs a store keeps, how many bytes of data, and for how many seconds."""
        return (
            DEFAULT_DEAD_JOBS if self.dead_jobs is None else self.dead_jobs,
            DEFAULT_DEAD_BYTES if self.dead_bytes is None else self.dead_bytes,
            self.dead_age,
        )
