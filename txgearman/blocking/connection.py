"""One server as the blocking classes see it: its address, and its Twisted client in the background thread.

Which request goes to which server is decided in `client`.
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
from txgearman.blocking.tls import TlsEndpoint, endpoint_from_description, tls_options
from txgearman.client import Client, Job, JobStatus, Priority
from txgearman.connection.endpoint import tcp_endpoint
from txgearman.errors import ClientError, ConnectionLost, JobRaised, NotConnected, ServerError

CONNECT_TIMEOUT: Final = 10.0
"""Seconds that an attempt to connect to one server may take, including the look-up of its name."""

ENDPOINT_KINDS: Final = frozenset({"tcp", "tcp6", "ssl", "tls", "unix"})
"""Kinds of Twisted client endpoints. A server that begins with one is a description and not a host."""


class SubmissionListener(Protocol):
    """Receives the events of one submission. Called in the background thread."""

    def accepted(self, handle: bytes) -> None:
        """The server has accepted the job."""

    def refused(self, code: str, text: str) -> None:
        """The server has refused the job."""

    def lost(self, why: str, sent: bool) -> None:
        """The connection was lost, and with it the job's state.

        Args:
            why: The reason, for logs.
            sent: Whether the job was sent. If not, it cannot run.
        """

    def closed(self) -> None:
        """The program has closed the connection: no more events will come."""

    def data(self, data: bytes) -> None:
        """The worker sent a part of the result."""

    def warning(self, data: bytes) -> None:
        """The worker sent a warning."""

    def status(self, numerator: int, denominator: int) -> None:
        """The worker sent how much is done."""

    def completed(self, result: bytes) -> None:
        """The job has ended with a result."""

    def failed(self, exception: bytes | None) -> None:
        """The job has failed, with an exception if the worker sent one."""


class _ClosableClient(Client):
    """A client that knows whether the program has closed it."""

    closed = False

    def close(self) -> Deferred[None]:
        self.closed = True
        return super().close()


class GearmanConnection:
    """The connection to one server. It is made when it is first used.

    With `keyfile`, `certfile` and `ca_certs` it is encrypted by TLS. They are files in PEM form.

    Args:
        host: The server's name or address, or the description of a Twisted client endpoint such as
            ``unix:/run/gearman.sock``.
        port: The server's port; None for a described endpoint.
        keyfile: The key of this client.
        certfile: The certificate of this client.
        ca_certs: Certificates of authorities. One of them must have signed the server's, for `host`.

    Attributes:
        gearman_host: As `host`.
        gearman_port: As `port`.
        connected: Whether the connection worked when it was last used.
        failed_at: When the last attempt to connect failed, in seconds of the monotonic clock; None if it
            succeeded.
        on_close: Called by `close`: a worker has a connection of its own to this server.

    Raises:
        ServerUnavailable: The host is missing.
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
        self.failed_at: float | None = None
        self.on_close: Callable[[GearmanConnection], object] | None = None
        self._client = BackgroundResource(self, self._new_client, _ClosableClient.close)

    @property
    def use_ssl(self) -> bool:
        """Whether the connection is encrypted."""
        return bool(self.keyfile and self.certfile and self.ca_certs)

    def get_address(self) -> tuple[str, int | None]:
        """Return host and port."""
        return self.gearman_host, self.gearman_port

    @property
    def name(self) -> str:
        """The server as the description of a Twisted client endpoint. The choice of a server hashes it."""
        if self.gearman_port is None:
            return self.gearman_host
        kind = "tls" if self.use_ssl else "tcp"
        return f"{kind}:{self.gearman_host.replace(':', chr(92) + ':')}:{self.gearman_port}"

    def __repr__(self) -> str:
        return f"<GearmanConnection {self.name} connected={self.connected}>"

    def connect(self, timeout: float = CONNECT_TIMEOUT) -> None:
        """Connect, if there is no connection.

        Args:
            timeout: Seconds that this may take.

        Raises:
            ConnectionError: The server cannot be reached.
        """
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
        """Disconnect. The next use connects again.

        Waits for jobs of this server raise `ServerUnavailable`.
        """
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
        **options: Any,
    ) -> None:
        """Submit a job, without waiting.

        Args:
            listener: Receives the job's events.
            task: The name of the function.
            data: Its input.
            unique: The job's key.
            priority: Its priority.
            background: Whether it is an offline job.
            **options: Others of `txgearman.client.Client.submit`.
        """
        thread, client = self._client.get()
        thread.post(_submit, client, listener, task, data, unique, priority, background, options)

    def request_status(self, handle: bytes, on_status: Any, on_failure: Any) -> None:
        """Ask for the status of a job, without waiting. The callbacks are called in the background thread.

        Args:
            handle: The job's handle.
            on_status: Called with the status.
            on_failure: Called with the reason why there is none, and whether that is because the program has
                closed the connection.
        """
        thread, client = self._client.get()
        thread.post(_request_status, client, handle, on_status, on_failure)

    def result(self, handle: bytes, wait: bool, timeout: float | None) -> bytes:
        """Ask for the result of an offline job.

        Args:
            handle: The job's handle.
            wait: Whether to wait until the job has ended.
            timeout: Seconds that this may take; None for no limit.

        Returns:
            The result.

        Raises:
            ServerUnavailable: The server cannot be reached, or the connection was closed.
            ClientError: There is no result; the class says why.
        """
        thread, client = self._client.get()
        limit = None if timeout is None else timeout + GRACE_SECONDS
        try:
            answer: bytes = thread.call(client.result, handle, wait, timeout, timeout=limit)
        except ConnectionLost as error:
            self.connected = False
            raise ServerUnavailable(f"no answer from {self.gearman_host}: {error}") from error
        return answer

    def echo(self, data: bytes, timeout: float) -> bytes:
        """Let the server send `data` back.

        Args:
            data: Any bytes.
            timeout: Seconds that this may take.

        Returns:
            What it sent.

        Raises:
            ConnectionError: The server cannot be reached, or does not answer in time.
        """
        thread, client = self._client.get()
        try:
            answer: bytes = thread.call(client.echo, data, timeout, timeout=timeout + GRACE_SECONDS)
        except (ClientError, ServerUnavailable) as error:
            self.connected = False
            raise errors.ConnectionError(f"no answer from {self.gearman_host}: {error}") from error
        return answer

    def endpoint(self, reactor: Any) -> Any:
        """Make the endpoint of the server for `reactor`."""
        plain = self._plain_endpoint(reactor)
        if not (self.keyfile and self.certfile and self.ca_certs):
            return plain
        # Each attempt reads the files again: they may have been renewed.
        return TlsEndpoint(
            reactor,
            plain,
            partial(tls_options, self.gearman_host, self.keyfile, self.certfile, self.ca_certs),
        )

    def _plain_endpoint(self, reactor: Any) -> Any:
        if self.gearman_port is None:
            return endpoint_from_description(reactor, self.gearman_host)
        return tcp_endpoint(reactor, self.gearman_host, self.gearman_port, CONNECT_TIMEOUT)

    def _new_client(self, reactor: Any) -> _ClosableClient:
        self.connected = False
        return _ClosableClient(reactor, self.endpoint(reactor))


def _submit(
    client: _ClosableClient,
    listener: SubmissionListener,
    task: bytes,
    data: bytes,
    unique: bytes,
    priority: Priority,
    background: bool,
    options: dict[str, Any],
) -> None:
    try:
        # Without a time limit of its own: the client gives up a server that does not answer.
        submitted: Deferred[Job] = client.submit(
            task, data, unique=unique, priority=priority, background=background, **options
        )
    except (TypeError, ValueError) as error:
        listener.refused(type(error).__name__, str(error))
        return
    submitted.addCallbacks(
        partial(_accepted, client, listener, background), partial(_not_accepted, client, listener)
    )


def _accepted(client: _ClosableClient, listener: SubmissionListener, background: bool, job: Job) -> None:
    listener.accepted(job.handle)
    if not background:
        job.on_data(listener.data)
        job.on_warning(listener.warning)
        job.on_status(listener.status)
        job.result().addCallbacks(listener.completed, partial(_not_completed, client, listener))


def _not_accepted(client: _ClosableClient, listener: SubmissionListener, failure: Failure) -> None:
    error = failure.value
    if client.closed:
        listener.closed()
    elif isinstance(error, ServerError):
        listener.refused(error.code, error.text)
    else:
        listener.lost(str(error), sent=not isinstance(error, NotConnected))


def _not_completed(client: _ClosableClient, listener: SubmissionListener, failure: Failure) -> None:
    error = failure.value
    if client.closed:
        listener.closed()
    elif isinstance(error, JobRaised):
        listener.failed(error.data)
    elif isinstance(error, ConnectionLost):
        listener.lost(str(error), sent=True)
    else:
        listener.failed(None)


def _request_status(client: _ClosableClient, handle: bytes, on_status: Any, on_failure: Any) -> None:
    def failed(failure: Failure) -> None:
        on_failure(str(failure.value), client.closed)

    asked: Deferred[JobStatus] = client.status(handle)
    asked.addCallbacks(on_status, failed)
