"""The server as a Twisted service: the one place that knows everyone."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred, succeed
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from txgearman.net.endpoints import endpoint_of, listening_service
from txgearman.net.polling import Poller
from txgearman.server.config.option_kinds import about_option, with_reloadable
from txgearman.server.config.option_values import web_endpoint
from txgearman.server.config.options import Settings
from txgearman.server.factory import GearmanServerFactory
from txgearman.server.persistence.plots import StoredPlots
from txgearman.server.persistence.thread import one_thread
from txgearman.server.persistence.writer import StoreWriter
from txgearman.server.schedules.scheduling import schedules_of
from txgearman.store.contract import Store
from txgearman.version import VERSION, build
from txgearman.wire.limits import MAX_FUNCTION, MAX_UNIQUE

if TYPE_CHECKING:
    from txgearman.broker.schedule import Schedule
    from txgearman.server.monitoring.death_webhook import DeathWebhook
    from txgearman.server.monitoring.http_poster import HTTPPoster
    from txgearman.server.monitoring.tracing import Traces
    from txgearman.server.tls import LoadedFiles, ServerTls
    from txgearman.web import LimitedSite

_log = Logger()

GRACE_CHECK: Final = 0.25
"""Seconds between two looks at whether the last job is done, once a graceful shutdown was asked for."""


def check_endpoint(reactor: Any, description: str) -> None:
    """Raises `ValueError` if `description` is not that of a server endpoint."""
    try:
        endpoint_of(reactor, description)
    # Each kind of endpoint has its own parser, and they raise what they like.
    except Exception as error:
        why = str(error)
        # What people write who expect an address or a port.
        address = re.fullmatch(r"(?:([\d.]+):)?(\d+)", description)
        if address:
            why = f"write 'tcp:{address[2]}{f':interface={address[1]}' if address[1] else ''}'"
        raise ValueError(f"{description!r} is no server endpoint: {why}") from error


def check_settings(reactor: Any, settings: Settings) -> None:
    """Raises `ValueError` for endpoints that cannot be, for files that cannot be used, and `StoreError` for a
    store that cannot be."""
    _check_parts(reactor, settings)
    if settings.tls_files is not None:
        _tls().load(settings.tls_files)
    _check_token(settings)


def _check_token(settings: Settings) -> None:
    if settings.web_token_file is not None:
        from txgearman.web.settings import read_token

        with about_option("web-token-file"):
            read_token(settings.web_token_file)


def _check_parts(reactor: Any, settings: Settings) -> None:
    """The part of `check_settings` that opens no files."""
    web = () if settings.web is None else (web_endpoint(settings.web),)
    for name, descriptions in (("listen", settings.listen), ("tls", settings.tls), ("web", web)):
        with about_option(name):
            for description in descriptions:
                check_endpoint(reactor, description)
    if settings.traces is not None:
        with about_option("traces"):
            _tracing()
    with about_option("dead-webhook"):
        _poster(reactor, settings.dead_webhook)
    if settings.store is not None:
        from txgearman.store.urls import check_store

        check_store(settings.store)


def _tls() -> ModuleType:
    """The module for TLS, which needs packages that are installed for it alone."""
    try:
        return import_module("txgearman.server.tls")
    except ImportError as error:
        raise ValueError(f"TLS needs packages: pip install 'txgearman[tls]' ({error})") from error


def _tracing() -> ModuleType:
    """The module for traces, likewise."""
    try:
        return import_module("txgearman.server.monitoring.tracing")
    except ImportError as error:
        text = f"traces need packages: pip install 'txgearman[opentelemetry]' ({error})"
        raise ValueError(text) from error


def _poster(reactor: Any, url: str | None) -> HTTPPoster | None:
    """What posts dead jobs. Raises `ValueError` where a package is missing."""
    if url is None:
        return None
    # Not at the top: without it nothing of Twisted's HTTP client is loaded.
    from txgearman.server.monitoring.http_poster import HTTPPoster

    try:
        return HTTPPoster(reactor, url)
    except ImportError as error:
        text = f"dead-webhook with https needs packages: pip install 'txgearman[tls]' ({error})"
        raise ValueError(text) from error


@dataclass(frozen=True, slots=True)
class Reload:
    """Other settings for a server that runs, with all that is needed to obey them, so that this cannot fail.

    `changed` are the names of what changes, `waiting` of what would have to and needs a new start.
    """

    settings: Settings
    changed: list[str]
    waiting: list[str]
    tls: LoadedFiles | None
    schedules: list[Schedule]
    poster: HTTPPoster | None


class GearmanService(MultiService):
    """A Gearman job server. Several in one process know nothing of each other.

    `factory` is the `GearmanServerFactory`, with the broker and the connections. `make_service` makes a
    service with defaults.

    Args:
        reactor: The reactor to run on.
        settings: The settings of the server.
        on_shutdown: Called when an administrator's ``shutdown`` is to end the server. By default that stops
            this service and nothing else of its application.
        store: Where background jobs are stored, in place of what `Settings.store` says.
    """

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        on_shutdown: Callable[[], object] | None = None,
        store: Store | None = None,
    ) -> None:
        super().__init__()
        self._reactor = reactor
        self.settings = settings
        self.store_writer: StoreWriter | None = None
        if store is None and settings.store is not None:
            from txgearman.store.urls import open_store

            store = open_store(settings.store)
        self._store = store
        self._end_thread: Callable[[], object] | None = None
        self._poller = Poller(reactor) if Poller.is_possible(reactor) else None
        self._traces: Traces | None = None
        if settings.traces is not None:
            self._traces = _tracing().Traces(reactor, settings.traces, settings.traces_ratio)
        self.factory = GearmanServerFactory(
            reactor,
            settings,
            on_shutdown=self.shut_down,
            call_soon=None if self._poller is None else self._poller.call_soon,
            follower=self._traces,
        )
        if self._poller is not None:
            self._poller.use_keepalive(self.factory.keepalive)
        self.death_webhook: DeathWebhook | None = None
        self._use_poster(_poster(reactor, settings.dead_webhook))
        self._on_shutdown = self.stopService if on_shutdown is None else on_shutdown
        self._shutting_down = False
        self._grace: LoopingCall | None = None
        self._listeners: MultiService | None = None
        # Those of them that lead to the jobs: the web side is served to the end.
        self._job_listeners: list[Any] = []
        self._stopping: list[Deferred[None]] = []
        self._web = None if settings.web is None else self._make_web()
        self._tls: ServerTls | None = None
        if settings.tls_files is not None:
            self._tls = _tls().ServerTls(settings.tls_files, reactor)
        for description in settings.endpoints:
            check_endpoint(reactor, description)

    def _use_poster(self, poster: HTTPPoster | None) -> None:
        """Let dead jobs be posted by this one, or by none, in place of the one before."""
        webhook = self.death_webhook
        if poster is None:
            if webhook is not None:
                webhook.close()
                self.factory.death_listeners.remove(webhook)
                self.death_webhook = None
        elif webhook is not None:
            webhook.use(poster)
        else:
            from txgearman.server.monitoring.death_webhook import DeathWebhook

            self.death_webhook = DeathWebhook(self._reactor, poster, platform.node())
            self.factory.death_listeners.append(self.death_webhook)

    def _make_web(self) -> LimitedSite:
        # Not at the top: without a web side nothing of Twisted's web server is loaded.
        from txgearman.server.monitoring.health import ServiceHealth
        from txgearman.server.monitoring.loop_lag import LoopLag
        from txgearman.web import LimitedSite, WebSettings, make_site
        from txgearman.web.settings import read_token

        token_file = self.settings.web_token_file
        settings = WebSettings(
            read_only=self.settings.web_read_only,
            token=None if token_file is None else read_token(token_file),
            max_function=MAX_FUNCTION,
            max_unique=MAX_UNIQUE,
            max_data=self.settings.max_packet,
        )
        loop_lag = LoopLag(self._reactor)
        loop_lag.setServiceParent(self)
        health = ServiceHealth(self, loop_lag)
        return LimitedSite(make_site(self.factory, settings, self._reactor, health))

    def _add_listeners(self) -> None:
        """Make what listens, anew for each start: Twisted's listening services start only once."""
        if self._listeners is None:
            self._listeners = MultiService()
            for description in self.settings.listen:
                self._job_listeners.append(self._add_job_listener(description))
            for description in self.settings.tls:
                self._job_listeners.append(self._add_job_listener(description, tls=True))
            if self._web is not None:
                where = web_endpoint(str(self.settings.web))
                self._add_listener(where, self._web, self.settings.web_tls, self._poller)
            self._listeners.setServiceParent(self)

    def _add_job_listener(self, description: str, tls: bool = False) -> StreamServerEndpointService:
        return self._add_listener(description, self.factory, tls, self._poller)

    def _add_listener(
        self, description: str, factory: IProtocolFactory, tls: bool = False, poller: Poller | None = None
    ) -> StreamServerEndpointService:
        if tls:
            assert self._tls is not None
            factory = self._tls.wrap(factory)
        listener = listening_service(description, factory, self._reactor, poller)
        listener.setServiceParent(self._listeners)
        return listener

    def privilegedStartService(self) -> None:
        self._add_listeners()
        super().privilegedStartService()

    def startService(self) -> None:
        """Start. Blocks while the jobs in the store are loaded; raises `StoreError` if they cannot be."""
        _log.info("Gearman job server {version}, {build}", version=VERSION, build=build())
        schedules = schedules_of(self.settings)
        stored = None
        if self._store is not None and self.store_writer is None:
            self._load(self._store)
        if self.store_writer is not None:
            stored = self.store_writer.schedules.load()
        self.factory.scheduling.begin(schedules, stored)
        try:
            if self._traces is not None:
                self._traces.start()
            self._add_listeners()
            super().startService()
        except BaseException:
            self._abandon_store()
            raise
        self._shutting_down = False
        if schedules:
            _log.info("Schedules that tick: {count}", count=sum(schedule.enabled for schedule in schedules))
        _log.info("Gearman job server listens at {endpoints}", endpoints=", ".join(self._places))
        self.factory.activity.happened("start", f"version {VERSION}, {build()}, process {os.getpid()}")
        if self.settings.web is not None:
            _log.info("Dashboard and HTTP at {endpoint}", endpoint=web_endpoint(self.settings.web))

    @property
    def _places(self) -> list[str]:
        """Where the Gearman protocol is spoken, for the log."""
        return [*self.settings.listen, *(f"{description} (TLS)" for description in self.settings.tls)]

    def _load(self, store: Store) -> None:
        in_thread, self._end_thread = one_thread(self._reactor)
        self.store_writer = StoreWriter(
            store, self._reactor, in_thread, happened=self.factory.activity.happened
        )
        # What does not change with a restart, and is not that of another server on the same machine.
        name = " ".join([platform.node(), *self._places])
        self.factory.plots = StoredPlots(store.plots, in_thread, name)
        try:
            last_number = self.store_writer.open(
                f"{platform.node()}:{os.getpid()}", self.settings.store_lease
            )
            self.factory.use_store(self.store_writer, last_number)
            loaded = self.store_writer.load(self.factory.broker)
        except BaseException:
            self._abandon_store()
            raise
        _log.info("{count} jobs loaded from the store", count=loaded)
        if loaded:
            self.factory.activity.happened("load jobs", "from the store", jobs=loaded)

    def _abandon_store(self) -> None:
        """The start has failed: give up the store, which must not be kept from others. Blocks."""
        self.factory.plots = None
        store_writer, self.store_writer = self.store_writer, None
        if store_writer is not None and self._store is not None and self._end_thread is not None:
            store_writer.abandon()
            # A thread that is left would keep the process from ending.
            self._end_thread()
            self._store.close()

    def stopService(self) -> Deferred[None]:
        """Stop listening and close all connections. Jobs are forgotten, but for those in the store.

        The service can be started again.

        Returns:
            Fires when the connections are gone and what the store has to write is written.
        """
        if not self.running and not self._stopping:
            return succeed(None)
        stopped: Deferred[None] = Deferred()
        self._stopping.append(stopped)
        if self.running:
            Deferred.fromCoroutine(self._stop()).addBoth(self._stopped)
        return stopped

    def _stopped(self, result: Any) -> None:
        waiting, self._stopping = self._stopping, []
        for stopped in waiting:
            stopped.callback(result)

    async def _stop(self) -> None:
        if self._grace is not None and self._grace.running:
            self._grace.stop()
        self._grace = None
        listeners, self._listeners = self._listeners, None
        self._job_listeners = []
        if listeners is not None:
            # Where one could not be started, Twisted's listening services after it cannot be stopped.
            listeners.services = [listener for listener in listeners if listener.running]
        await maybeDeferred(super().stopService)
        if listeners is not None:
            await maybeDeferred(listeners.disownServiceParent)
        if self._web is not None:
            self._web.close()
        self.factory.plots = None
        store_writer, self.store_writer = self.store_writer, None
        if store_writer is not None:
            # Otherwise clients and workers that go on would always leave something to write.
            self.factory.administration.drain()
            await store_writer.flush()
        self._say_what_is_left(store_writer is not None)
        await self.factory.stop()
        if self._poller is not None:
            self._poller.close()
        if store_writer is not None and self._end_thread is not None:
            await store_writer.close()
            self._end_thread()
        # Side by side: each may take some seconds.
        stopping = [each.stop() for each in (self._traces, self.death_webhook) if each is not None]
        await gatherResults(stopping)

    def _say_what_is_left(self, stored: bool) -> None:
        """Log what becomes of the jobs that are not done."""
        inspection = self.factory.inspection
        if not inspection.total:
            _log.info("Stopping. No job is left")
            return
        text = "Stopping. {total} jobs are not done, {running} of them run: "
        text += "background jobs stay in the store" if stored else "they are lost, as there is no store"
        (_log.info if stored else _log.warn)(text, total=inspection.total, running=inspection.running)

    def reconfigure(self, settings: Settings) -> tuple[list[str], list[str]]:
        """Obey other settings, as far as they can be changed while the server runs.

        Connections and jobs stay. Files of TLS are read again. Where this raises, nothing has changed.

        Args:
            settings: The settings.

        Returns:
            The names of the settings that changed, and of those that differ and need a new start.

        Raises:
            ValueError: A setting cannot be.
            StoreError: The store's URL cannot be understood.
        """
        reload = self.prepare(settings)
        self.commit(reload)
        return reload.changed, reload.waiting

    def prepare(self, settings: Settings) -> Reload:
        """Do all of a reload that can fail, and change nothing.

        Args:
            settings: The settings.

        Returns:
            What `commit` takes.

        Raises:
            ValueError: A setting cannot be.
            StoreError: The store's URL cannot be understood.
        """
        merged, changed, waiting = with_reloadable(self.settings, settings)
        before, after = self.settings.functions, settings.functions
        changed += [
            f"functions.{name}" for name in {**before, **after} if before.get(name) != after.get(name)
        ]
        ticked, ticking = self.settings.schedules, settings.schedules
        changed += [
            f"schedules.{name}" for name in {**ticked, **ticking} if ticked.get(name) != ticking.get(name)
        ]
        if self.settings.access != settings.access:
            changed.append("access")
        merged = replace(merged, functions=after, schedules=ticking, access=settings.access)
        # What needs a new start is looked at too: that start would fail.
        _check_parts(self._reactor, settings)
        if settings.web_token_file != self.settings.web_token_file:
            _check_token(settings)
        loaded = None if settings.tls_files is None else _tls().load(settings.tls_files)
        files = merged.tls_files
        if self._tls is not None and files is not None:
            # Also if their names are the same; new connections alone are concerned.
            loaded = loaded if files == settings.tls_files else _tls().load(files)
        poster = _poster(self._reactor, settings.dead_webhook)
        return Reload(merged, changed, waiting, loaded, schedules_of(merged), poster)

    def commit(self, reload: Reload) -> None:
        """Obey settings that were prepared.

        Args:
            reload: What `prepare` returned.
        """
        self.factory.reconfigure(reload.settings)
        if self._poller is not None:
            self._poller.use_keepalive(self.factory.keepalive)
        self.factory.scheduling.obey(reload.schedules)
        if reload.settings.dead_webhook != self.settings.dead_webhook:
            self._use_poster(reload.poster)
        self.settings = reload.settings
        if self._tls is not None and reload.tls is not None:
            self._tls.adopt(reload.tls)

    @property
    def listening(self) -> bool:
        """Whether the server listens at all its endpoints."""
        return bool(self._job_listeners) and all(listener.running for listener in self._job_listeners)

    @property
    def draining(self) -> bool:
        """Whether the server is about to end."""
        ending = self._grace is not None or self._shutting_down or bool(self._stopping)
        return ending or self.factory.administration.draining

    def shut_down(self, graceful: bool) -> None:
        """End the server.

        Args:
            graceful: Let nobody new in and end when no job is left, waiting and scheduled ones included;
                otherwise end at once.
        """
        if not graceful:
            # Not before the answer to the administrator is under way.
            self._reactor.callLater(0, self._shut_down)
            return
        if self._grace is not None:
            return
        self.factory.scheduling.stop()
        _log.info("Graceful shutdown: {total} jobs to be done", total=self._undone)
        self.factory.activity.happened("shut down gracefully", f"{self._undone} jobs to be done")
        self._wait_until(lambda: not self._undone, self._shut_down)

    @property
    def _undone(self) -> int:
        """Jobs that a graceful shutdown waits for. Those that wait for a retry stay in the store, if there is
        one."""
        inspection = self.factory.inspection
        return inspection.total - (inspection.retrying if self.store_writer is not None else 0)

    def drain(self, seconds: float) -> Deferred[None]:
        """Let nobody in, take no new job and give none to a worker.

        Running jobs may end, and those who wait for them are told. The service is to be stopped after that:
        it does not come out of this by itself.

        Args:
            seconds: How long running jobs have.

        Returns:
            Fires when no job runs any more, and at the latest when the seconds are over.
        """
        inspection = self.factory.inspection
        self.factory.scheduling.stop()
        self.factory.administration.drain()
        running = inspection.running
        self.factory.activity.happened("drain", f"{running} jobs run and have {seconds:g} seconds")
        if not (running and seconds):
            return succeed(None)
        text = "Draining: {running} jobs run and have {seconds:g} seconds"
        _log.info(text, running=running, seconds=seconds)
        drained: Deferred[None] = Deferred()
        end = self._reactor.seconds() + seconds
        self._wait_until(
            lambda: not inspection.running or self._reactor.seconds() >= end, lambda: drained.callback(None)
        )
        return drained

    def _wait_until(self, done: Callable[[], bool], then: Callable[[], object]) -> None:
        """Stop to listen; call `then` when it is `done`, unless the service is stopped before."""

        def look() -> None:
            if done():
                waiting.stop()
                then()

        # The web side tells of it to the end.
        for listener in self._job_listeners:
            maybeDeferred(listener.stopService)
        if self._grace is not None and self._grace.running:
            self._grace.stop()
        self._grace = waiting = LoopingCall(look)
        waiting.clock = self._reactor
        waiting.start(GRACE_CHECK, now=False)

    def _shut_down(self) -> None:
        if not self._shutting_down:
            self._shutting_down = True
            self._on_shutdown()


def make_service(
    settings: Settings | None = None,
    *,
    reactor: Any = None,
    on_shutdown: Callable[[], object] | None = None,
    store: Store | None = None,
) -> GearmanService:
    """A job server to put into an application or a `MultiService`.

    Args:
        settings: The settings of the server; by default those of `Settings`.
        reactor: The reactor to run on; by default the installed one.
        on_shutdown: Called when an administrator says ``shutdown``. By default that stops this service alone.
        store: Where background jobs are stored, in place of what `Settings.store` says.

    Returns:
        The service, not started yet.

    Raises:
        ValueError: An endpoint description cannot be understood, or a package for an option is missing.
        StoreError: The store's URL cannot be understood.
    """
    if reactor is None:
        from twisted.internet import reactor
    return GearmanService(reactor, Settings() if settings is None else settings, on_shutdown, store)
