"""``twistd gearmand``: the command line and what it makes. Nothing here but options and signals."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, Final

from twisted.application.service import IService, Service
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger
from twisted.python.usage import Options as TwistedOptions
from twisted.python.usage import UsageError

from txgearman.broker.policy import UNLIMITED, FunctionOrder
from txgearman.keepalive import Keepalive
from txgearman.server.memory import MemoryService, tune_collector
from txgearman.server.service import GearmanService, check_endpoint, make_service
from txgearman.server.settings import DEFAULT_ENDPOINT, Settings, default_handle_prefix
from txgearman.version import VERSION
from txgearman.wire.limits import MAX_PACKET

_log = Logger()

_UNITS: Final = {"k": 1024, "m": 1024**2, "g": 1024**3}


def _size(text: str) -> int:
    """Bytes, with K, M or G behind the number if wanted. Raises `ValueError`."""
    unit = _UNITS.get(text[-1:].lower(), 1)
    return int(text[:-1] if unit > 1 else text) * unit


class Options(TwistedOptions):
    """The options of ``twistd gearmand``. `settings` is what they say."""

    synopsis = "[options]"
    longdesc = (
        "A Gearman job server. Binary and admin text protocol on every endpoint. SIGTERM ends it, "
        "SIGUSR1 ends it when its last job is done. Jobs are kept in memory only."
    )

    optParameters = [
        ["job-retries", "j", str(UNLIMITED), "Workers that may lose a job before it fails; -1: no limit."],
        ["worker-wakeup", "w", "1", "Sleeping workers to wake for a job; 0: all."],
        [
            "order",
            None,
            FunctionOrder.PRIORITY.value,
            "Which of a worker's functions is served first: 'priority' (the highest priority over all of "
            "them, taking turns; as gearmand 2) or 'registration' (as gearmand 1.1).",
        ],
        ["handle-prefix", None, None, f"What job handles begin with [default: {default_handle_prefix()}]"],
        ["max-packet", None, str(MAX_PACKET), "Largest packet in bytes; K, M and G may follow the number."],
        ["keepalive-idle", None, "0", "Seconds of silence before TCP keepalive probes; 0: the system's."],
        ["keepalive-interval", None, "0", "Seconds between TCP keepalive probes; 0: the system's."],
        ["keepalive-count", None, "0", "Lost probes that end a connection; 0: the system's."],
        ["file-descriptors", "f", "0", "Open files to ask the system for; 0: as many as it lets us."],
    ]

    optFlags = [
        ["round-robin", "R", "With --order=registration, let a worker's functions take turns."],
        ["exceptions", None, "Send WORK_EXCEPTION also to clients that did not ask for it."],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["listen"] = []

    def opt_listen(self, endpoint: str) -> None:
        """A Twisted server endpoint to listen at, such as tcp:4730 for everybody who can reach this
        machine or unix:/run/gearmand.sock; may be repeated. [default: tcp:4730:interface=127.0.0.1]"""
        self["listen"].append(endpoint)

    opt_L = opt_listen

    def opt_version(self) -> None:
        """Print the version of txgearman and exit."""
        print(f"txgearman {VERSION}")
        raise SystemExit(0)

    def postOptions(self) -> None:
        from twisted.internet import reactor

        try:
            self.settings = self._settings()
            for description in self.settings.listen:
                check_endpoint(reactor, description)
        except ValueError as error:
            raise UsageError(str(error)) from None

    def _settings(self) -> Settings:
        orders = {order.value: order for order in FunctionOrder}
        if self["order"] not in orders:
            raise ValueError(f"the order must be {' or '.join(orders)}, not {self['order']}")
        if self._number("file-descriptors") < 0:
            raise ValueError("the number of file descriptors must be 0 or more")
        return Settings(
            listen=tuple(self["listen"]) or (DEFAULT_ENDPOINT,),
            job_retries=self._number("job-retries"),
            wakeup=self._number("worker-wakeup"),
            order=orders[self["order"]],
            round_robin=bool(self["round-robin"]),
            handle_prefix=default_handle_prefix() if self["handle-prefix"] is None else self["handle-prefix"],
            max_packet=self._number("max-packet", _size),
            exceptions=bool(self["exceptions"]),
            keepalive=Keepalive(
                self._number("keepalive-idle"),
                self._number("keepalive-interval"),
                self._number("keepalive-count"),
            ),
        )

    def _number(self, option: str, convert: Callable[[str], int] = int) -> int:
        try:
            return convert(self[option])
        except ValueError:
            raise ValueError(f"--{option} must be a number, not {self[option]!r}") from None


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
    _raise_file_limit(int(options["file-descriptors"]))
    tune_collector()
    MemoryService(lambda: server.factory.broker.total, reactor).setServiceParent(server)
    _GracefulSignal(server, reactor).setServiceParent(server)
    return server
