"""What the connections of one server share: the broker, its timer, and the turn-end flush."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger, LogLevel

from txgearman.access.patterns import quoted
from txgearman.access.policy import AccessPolicy, Right
from txgearman.broker.administration import Administration
from txgearman.broker.broker import Broker
from txgearman.broker.dead_job import DeadJob
from txgearman.broker.dead_job_administration import DeadJobAdministration
from txgearman.broker.inspection import Inspection
from txgearman.broker.interfaces import (
    DeadJobStore,
    DeathListener,
    Follower,
    JobStore,
    ResultStore,
    SlotSource,
)
from txgearman.broker.job_lookup import JobLookup
from txgearman.broker.store_answers import StoreAnswers
from txgearman.broker.stored_job_search import StoredJobSearch
from txgearman.broker.tracing import JobTracer
from txgearman.net.clocks import monotonic_clock
from txgearman.server.admission import Admission, files_for_connections, refusal
from txgearman.server.budgets.unfinished import Unfinished
from txgearman.server.budgets.unsent import SendBudget
from txgearman.server.config.options import Settings
from txgearman.server.config.process_options import Level
from txgearman.server.extensions.result_waits import ResultWaits
from txgearman.server.interfaces import Flushable, LogThreshold, Peer, ProcessControl
from txgearman.server.monitoring.activity import Activity
from txgearman.server.monitoring.death_log import DeathLog
from txgearman.server.monitoring.limits import Limit, limits_of
from txgearman.server.monitoring.rate_limited_log import RateLimitedLog
from txgearman.server.monitoring.traffic import Traffic
from txgearman.server.protocol import GearmanServerProtocol
from txgearman.server.schedules.scheduling import Scheduling

if TYPE_CHECKING:
    from txgearman.server.persistence.plots import StoredPlots
    from txgearman.server.persistence.schedules import StoredSchedules
    from txgearman.server.persistence.writer import StoreWriter

    Shutdown = Callable[[bool], None]
    CallSoon = Callable[[Callable[[], None]], object]

SILENCE: Final = 5.0
"""Seconds that a new connection may say nothing while others are refused for want of room; who connects
long ahead of its first request keeps its connection as long as there is room."""

TURN_OUTPUT: Final = 256 * 1024
"""Bytes that reports on jobs for which many wait may make in one turn of the reactor. Then their workers are
heard no more before the next turn: a report of 22 bytes can be told a thousand times to each of many peers.
That is some six thousand packets, or several milliseconds."""

_log = Logger()


class GearmanServerFactory(Factory):
    """Makes the connections of one Gearman server, which may listen in several places.

    `connections` are the live ones by number, `broker` holds the jobs, `traffic` counts what the connections
    carried, `results` finds results and waits for them. `death_listeners` are told of each job that dies.

    `admission` says who may connect, and `web_admission` who may over HTTP; `silent` are the connections
    that have never sent anything whole, the oldest first; `budget` counts the bytes that are held for peers,
    and `unfinished` those of what has not come whole. `keepalive` is set on each connection that has not
    inherited it from the socket that listens. `threshold` says from which level on the log is
    written, None where that is not up to this server; nor is `process` then, by which administrators end and
    reload the process.

    Args:
        reactor: Gives the time and calls back.
        settings: The settings of the server; by default those of `Settings`.
        wall_clock: Gives seconds since the epoch, for scheduled jobs.
        on_shutdown: Called when an administrator says ``shutdown``, with whether jobs are to be finished
            first. Without it nothing happens.
        call_soon: Calls a function when all connections that are ready to be read were read. Without it the
            reactor does, in its next turn.
        follower: Is told of the ways of jobs, if there is one.
    """

    noisy = False

    def __init__(
        self,
        reactor: IReactorTime,
        settings: Settings | None = None,
        wall_clock: Callable[[], float] = time.time,
        on_shutdown: Shutdown | None = None,
        call_soon: CallSoon | None = None,
        follower: Follower | None = None,
    ) -> None:
        self.settings = Settings() if settings is None else settings
        self.connections: dict[int, Peer] = {}
        self.store_writer: StoreWriter | None = None
        self.reactor = reactor
        self.clock = monotonic_clock(reactor)
        self.admission = Admission(reactor.seconds)
        self.web_admission = Admission(reactor.seconds, "web-max-connections")
        self.unfinished = Unfinished(reactor.seconds)
        self.traffic = Traffic()
        self.budget = SendBudget(reactor.seconds, self.traffic.dropped)
        self._obey_limits()
        self.silent: dict[int, Peer] = {}
        self._fanned_out = 0
        self._log_silent, self._log_handshake_timeout = (
            RateLimitedLog(LogLevel.warn, text, reactor.seconds)
            for text in (
                "Connection {number} from {host} dropped: it has never sent anything, and others want in",
                "Connection {number} from {host} dropped: TLS was not agreed in {seconds:g} seconds",
            )
        )
        self._wall_clock = wall_clock
        self._follower = follower
        self.activity = Activity(wall_clock)
        self.plots: StoredPlots | None = None
        self._failure_log = DeathLog(self.clock, self.activity)
        self.death_listeners: list[DeathListener] = [self._failure_log]
        self.access_listeners: list[Callable[[], object]] = []
        self.results = ResultWaits(reactor, lambda: self.broker)
        self.broker = self._make_broker()
        self.scheduling = self._make_scheduling()
        self.threshold: LogThreshold | None = None
        self.process: ProcessControl | None = None
        self._on_shutdown = on_shutdown
        self._timer: IDelayedCall | None = None
        self._call_soon = partial(reactor.callLater, 0) if call_soon is None else call_soon
        self._unflushed: list[Flushable] = []
        self._stopping: Deferred[None] | None = None

    @property
    def access(self) -> AccessPolicy | None:
        """What the operator says of who may do what; None where everybody may do everything."""
        return self.settings.access

    def reconfigure(self, settings: Settings) -> None:
        """Obey other settings from now on.

        Where the first step fails nothing has changed; after it nothing fails.

        Args:
            settings: The settings. They differ only in what can be changed while the server runs.

        Raises:
            ValueError: The policy differs in what is fixed, see `Administration.change_policy`.
        """
        self.administration.change_policy(settings.policy)
        if self.store_writer is not None:
            self.store_writer.dead_jobs.limit(*settings.stored_dead_limits)
            self.store_writer.results.limit(settings.stored_results_bytes)
        before, self.settings = self.settings, settings
        self._obey_limits()
        if before.access != settings.access:
            for connection in list(self.connections.values()):
                try:
                    connection.access_changed()
                    if settings.access is not None and not connection.rights.may(Right.VIEW):
                        self.results.deny(connection.number)
                except Exception:
                    # It might do what it may not any more; the others have to obey all the same.
                    _log.failure(
                        "Connection {number} cannot obey the access policy", number=connection.number
                    )
                    connection.drop()
            for listener in self.access_listeners:
                try:
                    listener()
                except Exception:
                    _log.failure("A listener failed with a change of the access policy")

    def _make_broker(
        self,
        job_store: JobStore | None = None,
        last_number: int = 0,
        dead_job_store: DeadJobStore | None = None,
        result_store: ResultStore | None = None,
        slot_source: SlotSource | None = None,
    ) -> Broker:
        trace = None
        if self._follower is not None:
            trace = JobTracer(self._follower, self.clock, self._wall_clock)
        broker = Broker(
            self.settings.policy,
            self.clock,
            self._wall_clock,
            self,
            self.settings.measured_functions,
            job_store,
            last_number,
            trace,
            random.random,
            self,
            dead_job_store,
            result_store,
            slot_source,
            self._failure_log,
        )
        broker.ended_jobs.results.listener = self.results.job_ended
        return broker

    def _make_scheduling(self, store: StoredSchedules | None = None) -> Scheduling:
        return Scheduling(
            self.broker, self.reactor, self.clock, self._wall_clock, store, lambda: self.settings
        )

    @property
    def inspection(self) -> Inspection:
        """What can be read of the broker."""
        return Inspection(self.broker)

    @property
    def administration(self) -> Administration:
        """What administrators do with the broker."""
        return Administration(self.broker)

    @property
    def dead_jobs(self) -> DeadJobAdministration:
        """What administrators do with failed jobs."""
        return DeadJobAdministration(self.broker)

    @property
    def lookup(self) -> JobLookup:
        """Finds a job whatever has become of it."""
        return JobLookup(self.broker)

    @property
    def search(self) -> StoredJobSearch:
        """Look-ups that the store answers."""
        return StoredJobSearch(self.broker)

    def use_store(self, store_writer: StoreWriter, last_number: int) -> None:
        """Begin anew, with a broker whose jobs are stored. To be called ahead of the first connection.

        Args:
            store_writer: Stores the jobs.
            last_number: New handles are numbered from after this number.
        """
        self.store_writer = store_writer
        store_writer.dead_jobs.limit(*self.settings.stored_dead_limits)
        store_writer.results.limit(self.settings.stored_results_bytes)
        self.broker = self._make_broker(
            store_writer,
            last_number,
            store_writer.dead_jobs,
            store_writer.results,
            store_writer.slots if store_writer.shared else None,
        )
        self.scheduling = self._make_scheduling(store_writer.schedules)

    def _obey_limits(self) -> None:
        settings, web = self.settings, self.web_admission
        web.limit = settings.web_max_connections
        web.limit_per_address = settings.web_max_connections_per_address or sys.maxsize
        others = 0 if settings.web is None else web.limit
        self.admission.limit = settings.max_connections or files_for_connections(others)
        self.admission.limit_per_address = settings.max_connections_per_address or sys.maxsize
        # One packet of any size that is allowed may always come.
        unfinished = settings.max_unfinished_total
        self.unfinished.limit = max(unfinished, settings.max_packet) if unfinished else sys.maxsize
        self.budget.limit = settings.max_unsent_total or sys.maxsize
        self.keepalive = settings.keepalive

    def counted_bytes(self) -> int:
        """Add up the bytes that the budgets count.

        Returns:
            Bytes that are held for peers, and of what has not come whole.
        """
        return self.budget.used + self.unfinished.total

    def limits(self) -> Iterable[Limit]:
        """Walk the limits of the server.

        Returns:
            Each limit, with how much of it is used.
        """
        return limits_of(self)

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        why = self.admission.refuse(addr)
        if not why and len(self.connections) >= self.admission.limit and not self._drop_silent():
            why = self.admission.refuse_for_all(addr)
        if why:
            return refusal(why)
        self.traffic.connections += 1
        return GearmanServerProtocol(self, self.traffic.connections)

    def shut_down(self, graceful: bool) -> None:
        """An administrator wants the server to end.

        Args:
            graceful: Whether the jobs are to be finished first.
        """
        if self._on_shutdown is not None:
            self._on_shutdown(graceful)

    def stop(self) -> Deferred[None]:
        """Close all connections and forget all jobs.

        A connection whose peer does not read is cut after `protocol.CLOSE_LIMIT`. Stop listening before:
        connections that are made later find a new, empty server.

        Returns:
            Fires when all connections are closed.
        """
        if self._stopping is None:
            self._stopping = Deferred()
        stopping = self._stopping
        self.scheduling.stop()
        # What closing the connections does to their jobs is no news of the jobs.
        StoreAnswers(self.broker).detach_store()
        for connection in list(self.connections.values()):
            connection.close()
        self._check_stopped()
        return stopping

    def connected(self, connection: Peer) -> None:
        """A connection is there.

        Args:
            connection: The connection, which counts from now on.
        """
        self.connections[connection.number] = self.silent[connection.number] = connection
        self.admission.entered(connection.transport.getPeer())
        if self._debugs:
            self._debug(connection, "is there")

    def spoke(self, connection: Peer) -> None:
        """The first packet or admin command of a connection has come.

        Args:
            connection: The connection. It is not ended any more to make room for another.
        """
        self.silent.pop(connection.number, None)

    def disconnected(self, connection: Peer) -> None:
        """A connection is gone.

        Args:
            connection: The connection, which counts no more.
        """
        del self.connections[connection.number]
        self.silent.pop(connection.number, None)
        self.results.leave(connection.number)
        self.admission.left(connection.transport.getPeer())
        if self._debugs:
            self._debug(connection, "is gone")
        if self._stopping is not None:
            self._check_stopped()

    @property
    def _debugs(self) -> bool:
        """Whether anybody writes events of single connections: one costs as much as accepting it."""
        return self.threshold is not None and self.threshold.current is Level.DEBUG

    def _debug(self, connection: Peer, what: str) -> None:
        _log.debug(
            "Connection {number} from {host} (client id {client_id}) " + what,
            number=connection.number,
            host=connection.host,
            client_id=quoted(connection.client_id),
        )

    # -- dropping connections -------------------------------------------------------------------

    def _drop_silent(self) -> bool:
        """Make room for a new connection: drop the one that has been silent for longest."""
        for number, connection in self.silent.items():
            if connection.age < SILENCE:
                return False
            del self.silent[number]
            self.traffic.dropped["silent"] += 1
            self._log_silent.happened(number=number, host=connection.host)
            connection.drop()
            return True
        return False

    def note_handshake_timeout(self, connection: Peer) -> None:
        """A connection is dropped because its TLS handshake took too long.

        Args:
            connection: The connection, for the log and the counts.
        """
        self.traffic.dropped["handshake-timeout"] += 1
        self._log_handshake_timeout.happened(
            number=connection.number, host=connection.host, seconds=self.settings.handshake_timeout
        )

    def _check_stopped(self) -> None:
        if self._stopping is None or self.connections:
            return
        stopping, self._stopping = self._stopping, None
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        self.store_writer = None
        self.broker = self._make_broker()
        self.scheduling = self._make_scheduling()
        stopping.callback(None)

    # -- the broker's timer (Alarm) -------------------------------------------------------------

    def ring_in(self, delay: float) -> None:
        """Call the broker's `tick` once, instead of when it was said before.

        Args:
            delay: Seconds from now.
        """
        if self._timer is not None and self._timer.active():
            self._timer.reset(delay)
        else:
            self._timer = self.reactor.callLater(delay, self.broker.tick)

    # -- dead jobs (DeathListener) ----------------------------------------------------------------

    def died(self, dead: DeadJob) -> None:
        """Tell all who want to know of a job that it has died.

        Args:
            dead: The job, with its data.
        """
        for listener in self.death_listeners:
            listener.died(dead)

    # -- writing once a turn --------------------------------------------------------------------

    def flush_soon(self, connection: Flushable) -> None:
        """Flush a connection after all that this turn of the reactor has read was handled.

        So the answers to a read, and what the reads of others have to tell the same connection, leave in one
        write, and at once. The reactor's own buffer would cost two more calls of epoll_ctl and a wait.

        Args:
            connection: The connection, once a turn.
        """
        if not self._unflushed:
            self._call_soon(self._flush)
        self._unflushed.append(connection)

    def fanned_out(self, reporter: Peer, size: int) -> None:
        """A report was told several times. If that is enough for a turn, the reporter gives way.

        The bytes are not counted anew with each turn: that would cost something with each.

        Args:
            reporter: The worker's connection.
            size: Bytes of all packets that the report became.
        """
        self._fanned_out += size
        if self._fanned_out >= TURN_OUTPUT:
            self._fanned_out = 0
            reporter.give_way()

    @property
    def flush_is_due(self) -> bool:
        """Whether anything will be flushed at the end of this turn."""
        return bool(self._unflushed)

    def _flush(self) -> None:
        self.broker.end_turn()
        connections, self._unflushed = self._unflushed, []
        for connection in connections:
            try:
                connection.flush()
            except Exception:
                # The others' answers must still leave.
                _log.failure("Connection {number} cannot be written to", number=connection.number)
                connection.transport.abortConnection()
