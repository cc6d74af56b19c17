"""One server as the blocking classes see it: its address, and its Twisted client in the background thread.

Which request goes to which server is decided in `client`.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure

from txgearman.blocking import errors
from txgearman.blocking.background_thread import GRACE_SECONDS, BackgroundResource
from txgearman.blocking.constants import DEFAULT_GEARMAN_PORT
from txgearman.blocking.errors import ServerUnavailable
from txgearman.blocking.reactor_loan import ReactorLoan
from txgearman.blocking.tls import TlsEndpoint, endpoint_from_description, tls_options
from txgearman.client import Client, DataUpdate, JobStatus, StatusUpdate
from txgearman.client.protocol import ClientProtocol
from txgearman.client.submission import Submission
from txgearman.client.updates import Update
from txgearman.connection.endpoint import tcp_endpoint
from txgearman.errors import ClientError, ConnectionLost, JobRaised, NotConnected, ServerError
from txgearman.net import fast_write

CONNECT_TIMEOUT: Final = 10.0
"""Seconds that an attempt to connect to one server may take, including the look-up of its name."""

ENDPOINT_KINDS: Final = frozenset({"tcp", "tcp6", "ssl", "tls", "unix"})
"""Kinds of Twisted client endpoints. A server that begins with one is a description and not a host."""


class SubmissionListener(ABC):
    """Receives the events of one submission. Called in the background thread.

    It stands for the job and its Deferred, as a `JobReceiver`: objects beside it would cost too much.

    Attributes:
        called: As for `JobReceiver`.
        handle: As for `JobReceiver`.
        server: As for `JobReceiver`.
        background: As for `JobReceiver`. Set when the job is submitted.
        client: The client that submits the job. Set with it.
    """

    called = False
    handle = b""
    server = ""
    background: bool
    client: ClosableClient

    @abstractmethod
    def accepted(self, handle: bytes) -> None:
        """The server has accepted the job."""

    @abstractmethod
    def refused(self, code: str, text: str) -> None:
        """The server has refused the job."""

    @abstractmethod
    def lost(self, why: str, sent: bool) -> None:
        """The connection was lost, and with it the job's state.

        Args:
            why: The reason, for logs.
            sent: Whether the job was sent. If not, it cannot run.
        """

    @abstractmethod
    def closed(self) -> None:
        """The program has closed the connection: no more events will come."""

    @abstractmethod
    def data(self, data: bytes) -> None:
        """The worker sent a part of the result."""

    @abstractmethod
    def warning(self, data: bytes) -> None:
        """The worker sent a warning."""

    @abstractmethod
    def status(self, numerator: int, denominator: int) -> None:
        """The worker sent how much is done."""

    @abstractmethod
    def completed(self, result: bytes) -> None:
        """The job has ended with a result."""

    @abstractmethod
    def failed(self, exception: bytes | None) -> None:
        """The job has failed, with an exception if the worker sent one."""

    # -- the protocol's calls -------------------------------------------------------------------

    def callback(self, _job: object) -> None:
        self.accepted(self.handle)

    def errback(self, error: Exception) -> None:
        if self.client.closed:
            self.closed()
        elif isinstance(error, ServerError):
            self.refused(error.code, error.text)
        else:
            self.lost(str(error), sent=not isinstance(error, NotConnected))

    def _ignore(self) -> None:
        return

    def _update(self, update: Update) -> None:
        if isinstance(update, StatusUpdate):
            self.status(update.numerator, update.denominator)
        elif isinstance(update, DataUpdate):
            self.data(update.data)
        else:
            self.warning(update.data)

    def _complete(self, result: bytes) -> None:
        self.completed(result)

    def _connection_lost(self, error: Callable[[], ClientError]) -> None:
        if self.client.closed:
            self.closed()
        else:
            self.lost(str(error()), sent=True)

    def _fail(self, error: Callable[[], ClientError]) -> None:
        reason = error()
        self.failed(reason.data if isinstance(reason, JobRaised) else None)


class NewJob(NamedTuple):
    """A job to submit.

    Attributes:
        listener: Receives the job's events.
        submission: The job as its packet.
    """

    listener: SubmissionListener
    submission: Submission


class ClosableClient(Client):
    """A client that knows whether the program has closed it."""

    closed = False

    def close(self) -> Deferred[None]:
        self.closed = True
        return super().close()

    @property
    def protocol(self) -> ClientProtocol | None:
        """The protocol of the connection; None without one."""
        return self._dispatch.servers[0].protocol

    def connected(self) -> Deferred[ClientProtocol]:
        """Connect, if there is no connection. Fires with the protocol."""
        return self._dispatch.servers[0].connect()

    @property
    def plain_protocol(self) -> ClientProtocol | None:
        """The protocol of a connection that can be read and written at once; None without one.

        TLS writes and reads when the reactor makes its next turn.
        """
        protocol = self._dispatch.servers[0].protocol
        transport: Any = None if protocol is None else protocol.transport
        return protocol if isinstance(transport, Connection) and not transport.TLS else None


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
        self._client = BackgroundResource(self, self._new_client, ClosableClient.close)

    @property
    def use_ssl(self) -> bool:
        """Whether the connection is encrypted."""
        return bool(self.keyfile and self.certfile and self.ca_certs)

    @property
    def is_encrypted(self) -> bool:
        """Whether the connection is encrypted, also by the description of an endpoint."""
        return self.use_ssl or self.name.partition(":")[0] in ("tls", "ssl")

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

    @property
    def address(self) -> str:
        """The server as people write it: host and port, or the description of its endpoint."""
        if self.gearman_port is None:
            return self.gearman_host
        host = f"[{self.gearman_host}]" if ":" in self.gearman_host else self.gearman_host
        return f"{host}:{self.gearman_port}"

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
            raise errors.ConnectionError(f"no connection to {self.address}: {error}") from error
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

    def submit(self, jobs: Sequence[NewJob], seconds: float = 0.0) -> None:
        """Submit jobs in one write.

        Args:
            jobs: The jobs.
            seconds: How long to wait for an answer and read it, at most, if this thread is alone and can do
                so.
        """
        thread, client = self._client.get()
        loan = thread.loan
        if loan.take():
            try:
                protocol = client.plain_protocol
                if protocol is not None:
                    _submit(client, jobs)
                    protocol.flush()
                    if seconds:
                        _read(protocol, loan, seconds)
                    return
            finally:
                loan.give_back()
        thread.post(_submit, client, jobs)

    def read(self, seconds: float) -> bool:
        """Read what the server sends, if this thread is alone and can do so.

        Args:
            seconds: How long to wait for it, at most.

        Returns:
            Whether something was read. If not, wait for the background thread.
        """
        if not self._client.alive:
            return False
        thread, client = self._client.get()
        loan = thread.loan
        if not loan.take():
            return False
        try:
            protocol = client.plain_protocol
            return protocol is not None and _read(protocol, loan, seconds)
        finally:
            loan.give_back()

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
            raise ServerUnavailable(f"no answer from {self.address}: {error}") from error
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
            raise errors.ConnectionError(f"no answer from {self.address}: {error}") from error
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

    def _new_client(self, reactor: Any) -> ClosableClient:
        self.connected = False
        return ClosableClient(reactor, self.endpoint(reactor))


def _submit(client: ClosableClient, jobs: Iterable[NewJob]) -> None:
    protocol = client.protocol
    for listener, submission in jobs:
        listener.client = client
        listener.background = submission.background
        if protocol is not None:
            protocol.submit_to(submission, listener)
        else:
            # Without a time limit of its own: the client gives up a server that does not answer.
            client.connected().addCallbacks(
                lambda made, submission=submission, listener=listener: made.submit_to(submission, listener),
                lambda failure, listener=listener: listener.errback(failure.value),
            )


def _read(protocol: ClientProtocol, loan: ReactorLoan, seconds: float) -> bool:
    """Wait for what the server sends, and read it. Returns whether something was read."""
    transport: Any = protocol.transport
    # What the system has not taken is written by the reactor, and only then answered.
    if fast_write.kept(transport) or not loan.wait_readable(transport.fileno(), seconds):
        return False
    return transport.doRead() is None


def _request_status(client: ClosableClient, handle: bytes, on_status: Any, on_failure: Any) -> None:
    def failed(failure: Failure) -> None:
        on_failure(str(failure.value), client.closed)

    asked: Deferred[JobStatus] = client.status(handle)
    asked.addCallbacks(on_status, failed)
