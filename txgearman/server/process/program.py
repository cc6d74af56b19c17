"""The process that serves, made of all its services, and what a reload does to it. Whatever read the command
line, it gives its settings to `make_program`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from twisted.application.service import MultiService, Service
from twisted.internet.error import ReactorNotRunning
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized

from txgearman.errors import StoreError
from txgearman.server.config.option_kinds import with_reloadable
from txgearman.server.config.options import FILES_KEPT, Settings
from txgearman.server.config.process_options import ProcessSettings
from txgearman.server.interfaces import Reloaded
from txgearman.server.process.logs import Threshold
from txgearman.server.process.memory import MemoryService, tune_collector
from txgearman.server.process.signals import SignalService
from txgearman.server.process.startup import Startup
from txgearman.server.process.systemd import SupervisedService, Supervisor
from txgearman.server.service import GearmanService, make_service

_log = Logger()


class ProgramOptions(Protocol):
    """What was read of a command line and a configuration file.

    Attributes:
        settings: The settings of the server.
        process: The settings of the process, which a reload replaces.
        parent: The options of twistd, or of another program that runs services; None without one.
    """

    settings: Settings
    process: ProcessSettings
    parent: Any

    def read(self) -> tuple[Settings, ProcessSettings]:
        """Read all of it anew. Raises `ValueError`."""

    def located(self, error: Exception) -> str:
        """An error with the file and line that it is about, as far as these are known."""


class _Program(MultiService):
    """All services of the process, whose start is watched over by `startup`, None inside another program.

    `observer` writes the log, if it is not None.
    """

    def __init__(self, observer: ILogObserver | None, startup: Startup | None, reactor: Any) -> None:
        super().__init__()
        self._observer = observer
        self._startup = startup
        self._reactor = reactor

    def setServiceParent(self, parent: Any) -> None:
        # The application, which twistd asks for an observer before it makes one of its own.
        if self._observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._observer)
        super().setServiceParent(parent)

    def privilegedStartService(self) -> None:
        if self._startup is not None:
            self._startup.enter(self._reactor)
        super().privilegedStartService()

    def startService(self) -> None:
        super().startService()
        if self._startup is not None:
            # The ports are open and the store is loaded. This is called once signals are handled too.
            self._reactor.callWhenRunning(self._startup.succeeded)


def reload_configuration(server: GearmanService, options: ProgramOptions) -> Reloaded:
    """Read the configuration again and obey it, as far as that needs no new start. What was accepted stays.

    Says in the log what changed, and returns it. A configuration that is wrong changes nothing.
    """
    happened = server.factory.activity.happened
    try:
        settings, process = options.read()
        reload = server.prepare(settings)
        process, changed, waiting = with_reloadable(options.process, process)
        server.commit(reload)
    except (ValueError, StoreError) as error:
        _log.error("The configuration is wrong, nothing was changed: {error}", error=options.located(error))
        happened("refuse configuration", options.located(error))
        return Reloaded([], [], options.located(error))
    except Exception:
        _log.failure("The configuration cannot be obeyed, nothing was changed")
        happened("refuse configuration", "see the log")
        return Reloaded([], [], "it cannot be obeyed; the log says why")
    options.process = process
    if server.factory.threshold is not None:
        server.factory.threshold.level = process.log_level
    reloaded = Reloaded(reload.changed + changed, reload.waiting + waiting)
    said = ", ".join(reloaded.changed) or "nothing"
    _log.info("Configuration read again. Changed: {changed}", changed=said)
    happened("reload configuration", reloaded.summary)
    if reloaded.waiting:
        _log.warn("Not changed, as it needs a new start: {waiting}", waiting=", ".join(reloaded.waiting))
    return reloaded


def _raise_file_limit(wanted: int) -> None:
    """Let this process open `wanted` files, or with 0 as many as it may. A connection needs one."""
    try:
        import resource
    except ImportError:  # not on Windows, which has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = wanted or hard
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, max(target, hard)))
    except (ValueError, OSError) as error:
        _log.warn(
            "Cannot open {target} files, the limit stays at {soft}: {error}",
            target=target,
            soft=soft,
            error=error,
        )


def _check_files(needed: int) -> None:
    """Raises `ValueError` unless `needed` more files can be opened: what runs short of them later fails where
    nobody expects it."""
    held: list[int] = []
    try:
        while len(held) < needed:
            held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        raise ValueError(
            f"the server itself needs {needed} open files more, and the system gives it {len(held)}: "
            f"{error.strerror} (--file-descriptors, ulimit -n)"
        ) from None
    finally:
        for file in held:
            os.close(file)


def make_program(
    options: ProgramOptions,
    observer_for: Callable[[Threshold], ILogObserver | None],
    reopen_log: Callable[[], object] = lambda: None,
    ahead: Sequence[Service] = (),
) -> MultiService:
    """All services of the process.

    Args:
        options: What was read.
        observer_for: Makes what writes the log, with the threshold that SIGUSR2 and administrators move; or
            None where the parent's options give an observer of their own.
        reopen_log: Opens the file of the log anew, ahead of each reload.
        ahead: Services that are started after the opening of the ports, and ahead of the server, which
            loads its store then.

    Returns:
        The service whose start is that of the process.

    Raises:
        ValueError: The system does not give the server the files that it needs.
        OSError: There can be no pid file.
    """
    from twisted.internet import reactor

    startup = None
    if options.parent is not None:
        startup = Startup(options.parent)
        startup.begin()

    def stop_reactor() -> None:
        # A signal may have stopped it meanwhile.
        with suppress(ReactorNotRunning):
            reactor.stop()

    def reload() -> Reloaded:
        reopen_log()
        return reload_configuration(server, options)

    # First: how many connections may come follows from it.
    _raise_file_limit(options.process.file_descriptors)
    _check_files(FILES_KEPT + len(options.settings.endpoints))
    server = make_service(options.settings, reactor=reactor, on_shutdown=stop_reactor)
    server.factory.threshold = threshold = Threshold(options.process.log_level)
    observer = observer_for(threshold)
    supervisor = Supervisor()
    tune_collector()
    MemoryService(
        lambda: server.factory.inspection.in_memory,
        reactor,
        counted=server.factory.counted_bytes,
        functions=lambda: server.factory.inspection.function_count,
    ).setServiceParent(server)
    server.factory.process = signals = SignalService(
        server,
        supervisor,
        reactor,
        drain_timeout=lambda: options.process.drain_timeout,
        reload=reload,
        stop=stop_reactor,
    )
    signals.setServiceParent(server)
    SupervisedService(supervisor, reactor).setServiceParent(server)
    if startup is not None:
        startup.take_over()
    program = _Program(observer, startup, reactor)
    for service in (*ahead, server):
        service.setServiceParent(program)
    return program
