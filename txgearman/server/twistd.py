"""``twistd gearmand``: the command line and what it makes. Nothing here but options and signals."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, Final, TypeVar

from twisted.application.service import IService, Service
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger
from twisted.python.usage import Options as TwistedOptions
from twisted.python.usage import UsageError

from txgearman.server.memory import MemoryService, tune_collector
from txgearman.server.options import Option, options_of
from txgearman.server.service import GearmanService, check_endpoint, make_service
from txgearman.server.settings import ProcessSettings, Settings
from txgearman.version import VERSION

_log = Logger()

T = TypeVar("T")

OPTIONS: Final = (*options_of(Settings), *options_of(ProcessSettings))


def _help(each: Option) -> str:
    """What ``--help`` says of an option."""
    text = f"{each.meaning} [default: {each.shown}]" if each.shown else each.meaning
    return text.replace("``", "")


class Options(TwistedOptions):
    """The options of ``twistd gearmand``. `settings` and `process` are what they say."""

    synopsis = "[options]"
    longdesc = (
        "A Gearman job server. Binary and admin text protocol on every endpoint. SIGTERM ends it, "
        "SIGUSR1 ends it when its last job is done. Jobs are kept in memory only."
    )

    # None and not the default tells what was not said.
    optParameters = [
        [each.name, each.short, None, _help(each)]
        for each in OPTIONS
        if not each.is_flag and not each.kind.repeated
    ]
    optFlags = [[each.name, each.short, _help(each)] for each in OPTIONS if each.is_flag]

    def opt_version(self) -> None:
        """Print the version of txgearman and exit."""
        print(f"txgearman {VERSION}")
        raise SystemExit(0)

    def postOptions(self) -> None:
        from twisted.internet import reactor

        try:
            said = {each.name: self._said(each) for each in OPTIONS if self.get(each.name) not in (None, 0)}
            self.settings = _make(Settings, said)
            self.process = _make(ProcessSettings, said)
            for description in self.settings.endpoints:
                check_endpoint(reactor, description)
        except ValueError as error:
            raise UsageError(str(error)) from None

    def _said(self, each: Option) -> Any:
        """The value that the command line gives to an option."""
        if each.kind.repeated:
            return tuple(value for text in self[each.name] for value in each.of_text(text))
        return each.of_text(self[each.name])


def _repeatable(each: Option) -> Callable[[Options, str], None]:
    """A method by which `Options` takes an option more than once."""

    def take(options: Options, text: str) -> None:
        options.setdefault(each.name, []).append(text)

    take.__doc__ = _help(each)
    return take


for _each in OPTIONS:
    if _each.kind.repeated:
        for _name in filter(None, (_each.name, _each.short)):
            setattr(Options, f"opt_{_name.replace('-', '_')}", _repeatable(_each))


def _make(settings: type[T], said: dict[str, Any]) -> T:
    """The settings with what was said of them, and defaults for the rest."""
    return settings(**{each.attribute: said[each.name] for each in options_of(settings) if each.name in said})


class _GracefulSignal(Service):
    """SIGUSR1 means a graceful shutdown, as for gearmand."""

    def __init__(self, server: GearmanService, reactor: Any) -> None:
        self._server = server
        self._reactor = reactor

    def startService(self) -> None:
        super().startService()
        signal.signal(signal.SIGUSR1, self._received)

    def _received(self, _number: int, _frame: FrameType | None) -> None:
        self._reactor.callFromThread(self._server.shut_down, graceful=True)


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


def makeService(options: Options) -> IService:
    """The service that ``twistd gearmand`` runs."""
    from twisted.internet import reactor

    def stop_reactor() -> None:
        # A signal may have stopped it meanwhile.
        with suppress(ReactorNotRunning):
            reactor.stop()

    server = make_service(options.settings, reactor=reactor, on_shutdown=stop_reactor)
    _raise_file_limit(options.process.file_descriptors)
    tune_collector()
    MemoryService(lambda: server.factory.broker.total, reactor).setServiceParent(server)
    _GracefulSignal(server, reactor).setServiceParent(server)
    return server
