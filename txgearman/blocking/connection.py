"""One server as a blocking client sees it: its address, and a Twisted client for it in the background.

Which request goes to which server is decided elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txgearman.blocking import errors
from txgearman.blocking.background_thread import GRACE_SECONDS, BackgroundResource
from txgearman.blocking.constants import DEFAULT_GEARMAN_PORT
from txgearman.blocking.errors import ServerUnavailable
from txgearman.blocking.tls import TlsEndpoint, described_endpoint, options_from
from txgearman.client import Client, Job, JobStatus, Priority
from txgearman.connection.endpoint import tcp_endpoint
from txgearman.errors import ClientError, ConnectionLost, JobRaised, NotConnected, ServerError

CONNECT_TIMEOUT: Final = 10.0
"""Seconds that a connection to one server may take to be made, its name looked up included."""

ENDPOINT_KINDS: Final = frozenset({"tcp", "tcp6", "ssl", "tls", "unix"})
"""What a description of a Twisted client endpoint may begin with, to be told from a host's name."""


class SubmissionListener(Protocol):
    """Who hears of one submission. Called in the background thread."""

    def accepted(self, handle: bytes) -> None:
        """The server has accepted the job."""

    def refused(self, code: str, text: str) -> None:
        """The server does not want the job."""

    def lost(self, why: str, sent: bool) -> None:
        """The connection was lost. What became of the job is not known; nothing if it was not `sent`."""

    def closed(self) -> None:
        """The program has closed the connection: no more will be heard of the job."""

    def data(self, data: bytes) -> None:
        """The worker sent a part of the result."""

    def warning(self, data: bytes) -> None:
        """The worker sent a warning."""

    def status(self, numerator: int, denominator: int) -> None:
        """The worker said how far it is."""

    def completed(self, result: bytes) -> None:
        """The job has ended with a result."""

    def failed(self, exception: bytes | None) -> None:
        """The job has failed; `exception` is what the worker sent of one."""


class _Client(Client):
    """A client that knows whether it was closed by the program."""

    closed = False

    def close(self) -> Deferred[None]:
        self.closed = True
        return super().close()


class GearmanConnection:
    """The connection to one server.

    `host` is its name or address, or the description of a Twisted client endpoint such as
    ``unix:/run/gearman.sock``, which has no `port`. With `keyfile`, `certfile` and `ca_certs` the connection
    is encrypted by TLS. They are files in PEM form: the key and the certificate of this client, and the
    authorities of which one must have signed the server's certificate for `host`. Nothing is connected
    before it is needed. Raises `ServerUnavailable` without a host.
    """

    def __init__(
        self,
        host: str | None = None,
        port: int | None = DEFAULT_GEARMAN_PORT,
        keyfile: str | None = None,
        certfile: str | None = None,
        ca_certs: str | None = None,
    ) -> None:
        if not host:
            raise ServerUnavailable("a server needs a host")
        self.gearman_host = host
        self.gearman_port = port
        self.keyfile = keyfile
        self.certfile = certfile
        self.ca_certs = ca_certs
        self.connected = False
        """Whether the last that was seen of the connection is that it works."""
        self.failed_at: float | None = None
        """When the last attempt to connect failed, in seconds of the monotonic clock."""
        self.on_close: Callable[[GearmanConnection], object] | None = None
        """Whom to tell of `close` beside the own client: a worker that has a connection of its own."""
        self._client = BackgroundResource(self, self._new_client, _Client.close)

    @property
    def use_ssl(self) -> bool:
        """Whether the connection is encrypted."""
        return bool(self.keyfile and self.certfile and self.ca_certs)

    def get_address(self) -> tuple[str, int | None]:
        """Host and port."""
        return self.gearman_host, self.gearman_port

    @property
    def name(self) -> str:
        """The server as the description of a Twisted client endpoint, by which it is chosen for a unique."""
        if self.gearman_port is None:
            return self.gearman_host
        kind = "tls" if self.use_ssl else "tcp"
        return f"{kind}:{self.gearman_host.replace(':', chr(92) + ':')}:{self.gearman_port}"

    def __repr__(self) -> str:
        return f"<GearmanConnection {self.name} connected={self.connected}>"

    def connect(self, timeout: float = CONNECT_TIMEOUT) -> None:
        """Connect if there is no connection, in `timeout` seconds. Raises `ConnectionError` if that fails."""
        try:
            thread, client = self._client.get()
            thread.call(client.connect, timeout, timeout=timeout + GRACE_SECONDS)
        except (ClientError, ServerUnavailable) as error:
            self.connected = False
            self.failed_at = time.monotonic()
            raise errors.ConnectionError(f"no connection to {self.gearman_host}: {error}") from error
        self.connected = True
        self.failed_at = None

    def close(self) -> None:
        """Disconnect; the next use connects again. What still waits for the server is not waited for."""
        self._client.close()
        self.connected = False
        if self.on_close is not None:
            self.on_close(self)

    def submit(
        self,
        listener: SubmissionListener,
        task: bytes,
        data: bytes,
        *,
        unique: bytes,
        priority: Priority,
        background: bool,
    ) -> None:
        """Submit a job. Returns at once, unless a value is one that no server must see; that raises."""
        thread, client = self._client.get()
        thread.post(_submit, client, listener, task, data, unique, priority, background)

    def ask_status(self, handle: bytes, told: Any, lost: Any) -> None:
        """Ask for the status of a job: `told` is called with it, or `lost` with why there is none, and
        whether that is because the program has closed the connection.

        Both are called in the background thread.
        """
        thread, client = self._client.get()
        thread.post(_ask_status, client, handle, told, lost)

    def echo(self, data: bytes, timeout: float) -> bytes:
        """What the server sends back for `data`. Raises `ConnectionError`."""
        thread, client = self._client.get()
        try:
            answer: bytes = thread.call(client.echo, data, timeout, timeout=timeout + GRACE_SECONDS)
        except (ClientError, ServerUnavailable) as error:
            self.connected = False
            raise errors.ConnectionError(f"no answer from {self.gearman_host}: {error}") from error
        return answer

    def endpoint(self, reactor: Any) -> Any:
        """The endpoint of the server for `reactor`."""
        plain = self._plain_endpoint(reactor)
        if not (self.keyfile and self.certfile and self.ca_certs):
            return plain
        # The files are read for each attempt: they may be renewed.
        return TlsEndpoint(
            reactor,
            plain,
            partial(options_from, self.gearman_host, self.keyfile, self.certfile, self.ca_certs),
        )

    def _plain_endpoint(self, reactor: Any) -> Any:
        if self.gearman_port is None:
            return described_endpoint(reactor, self.gearman_host)
        return tcp_endpoint(reactor, self.gearman_host, self.gearman_port, CONNECT_TIMEOUT)

    def _new_client(self, reactor: Any) -> _Client:
        self.connected = False
        return _Client(reactor, self.endpoint(reactor))


def _submit(
    client: _Client,
    listener: SubmissionListener,
    task: bytes,
    data: bytes,
    unique: bytes,
    priority: Priority,
    background: bool,
) -> None:
    def accepted(job: Job) -> None:
        listener.accepted(job.handle)
        if not background:
            job.on_data(listener.data)
            job.on_warning(listener.warning)
            job.on_status(listener.status)
            job.result().addCallbacks(listener.completed, ended)

    def ended(failure: Failure) -> None:
        error = failure.value
        if client.closed:
            listener.closed()
        elif isinstance(error, JobRaised):
            listener.failed(error.data)
        elif isinstance(error, ConnectionLost):
            listener.lost(str(error), sent=True)
        else:
            listener.failed(None)

    def refused(failure: Failure) -> None:
        error = failure.value
        if client.closed:
            listener.closed()
        elif isinstance(error, ServerError):
            listener.refused(error.code, error.text)
        else:
            listener.lost(str(error), sent=not isinstance(error, NotConnected))

    try:
        # Without a time limit of its own: the client gives up a server that does not answer.
        submitted: Deferred[Job] = client.submit(
            task, data, unique=unique, priority=priority, background=background
        )
    except (TypeError, ValueError) as error:
        listener.refused(type(error).__name__, str(error))
        return
    submitted.addCallbacks(accepted, refused)


def _ask_status(client: _Client, handle: bytes, told: Any, lost: Any) -> None:
    def failed(failure: Failure) -> None:
        lost(str(failure.value), client.closed)

    asked: Deferred[JobStatus] = client.status(handle)
    asked.addCallbacks(told, failed)
