"""The base of client, worker and admin client: their list of servers, and encoding data.

The module has its name from python-gearman, since programs import from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from txgearman.blocking.connection import ENDPOINT_KINDS, GearmanConnection
from txgearman.blocking.constants import DEFAULT_GEARMAN_PORT
from txgearman.blocking.data_encoder import DataEncoder, NoopEncoder, TextEncoder, encoded
from txgearman.blocking.job import GearmanJob, GearmanJobRequest
from txgearman.errors import GearmanError

__all__ = ["DataEncoder", "GearmanConnectionManager", "NoopEncoder", "Server", "Servers", "TextEncoder"]

Server = str | tuple[str] | tuple[str, int | str | None] | Mapping[str, Any]
"""A server: ``"host:port"``, ``"host"``, ``("host", port)``, the description of a Twisted client endpoint
such as ``"unix:/run/gearman.sock"``, or a dictionary with ``host``, ``port`` and, for TLS, all of
``keyfile``, ``certfile`` and ``ca_certs``."""

Servers = Iterable[Server] | str | Mapping[str, Any]
"""Several servers, or one as text or as a dictionary."""

_TLS_FILES: Final = ("keyfile", "certfile", "ca_certs")


class GearmanConnectionManager:
    """A list of servers, and a data encoder. Subclasses may set the class attributes.

    Args:
        host_list: The servers. One alone may be given as text, or as a dictionary.

    Attributes:
        connection_list: The connections to the servers, in the same order.
        connection_class: Makes connections.
        job_class: Makes jobs.
        job_request_class: Makes requests.
        data_encoder: Any object with `encode` and `decode`.
    """

    connection_class: type[GearmanConnection] = GearmanConnection
    job_class: type[GearmanJob] = GearmanJob
    job_request_class: type[GearmanJobRequest] = GearmanJobRequest
    data_encoder: Any = TextEncoder

    def __init__(self, host_list: Servers | None = None) -> None:
        self.connection_list: list[GearmanConnection] = []
        for server in _several(host_list):
            self.add_connection(server)

    def add_connection(self, hostport_tuple: Server) -> GearmanConnection:
        """Add a server to the list. It is not connected yet.

        Args:
            hostport_tuple: The server, as in a list of hosts.

        Returns:
            Its connection.

        Raises:
            ServerUnavailable: The host is missing.
            ValueError: The port is not a number between 1 and 65535.
            GearmanError: A dictionary has an unknown key, or only some of the keys for TLS.
        """
        if isinstance(hostport_tuple, Mapping):
            return self._add_described(hostport_tuple)
        host, port = address_of(hostport_tuple)
        connection = self.connection_class(host=host, port=port)
        self.connection_list.append(connection)
        return connection

    def add_ssl_connection(
        self, host: str, port: int | str | None, keyfile: str, certfile: str, ca_certs: str
    ) -> GearmanConnection:
        """Add a server with TLS to the list. It is not connected yet.

        Args:
            host: As for `GearmanConnection`.
            port: As for `GearmanConnection`, also as text.
            keyfile: As for `GearmanConnection`.
            certfile: As for `GearmanConnection`.
            ca_certs: As for `GearmanConnection`.

        Returns:
            Its connection.
        """
        host, number = address_of((host, port))
        connection = self.connection_class(
            host=host, port=number, keyfile=keyfile, certfile=certfile, ca_certs=ca_certs
        )
        self.connection_list.append(connection)
        return connection

    def _add_described(self, server: Mapping[str, Any]) -> GearmanConnection:
        # A misspelled key must not make a connection without TLS.
        if unknown := server.keys() - {"host", "port", *_TLS_FILES}:
            raise GearmanError(f"unknown keys of a server: {', '.join(map(repr, sorted(unknown)))}")
        files = [server.get(name) for name in _TLS_FILES]
        if not any(files):
            return self.add_connection((server.get("host") or "", server.get("port")))
        if not all(files):
            raise GearmanError(f"a server with TLS needs all of {', '.join(_TLS_FILES)}: {dict(server)!r}")
        return self.add_ssl_connection(server.get("host") or "", server.get("port"), *map(str, files))

    def establish_connection(self, current_connection: GearmanConnection) -> GearmanConnection:
        """Connect to one server of the list, if it is not connected.

        Args:
            current_connection: The server's connection.

        Returns:
            That connection.

        Raises:
            ConnectionError: The server cannot be reached.
            ValueError: The connection is not in the list.
        """
        if current_connection not in self.connection_list:
            raise ValueError(f"the connection is not one of this list: {current_connection!r}")
        if not current_connection.connected:
            current_connection.connect()
        return current_connection

    @property
    def _server_names(self) -> str:
        """The servers as errors name them."""
        return ", ".join(connection.address for connection in self.connection_list) or "an empty list"

    def shutdown(self) -> None:
        """Close all connections. The next use connects again."""
        for connection in self.connection_list:
            connection.close()

    def encode_data(self, value: Any) -> bytes:
        """Encode a value by the data encoder. Raises what that raises."""
        return encoded(self.data_encoder, value)

    def decode_data(self, data: bytes) -> Any:
        """Decode bytes by the data encoder. Raises what that raises."""
        return self.data_encoder.decode(data)


def _several(servers: Servers | None) -> Iterable[Server]:
    """The servers that a caller means."""
    if servers is None:
        return ()
    return [servers] if isinstance(servers, str | Mapping) else servers


def address_of(server: str | tuple[str] | tuple[str, int | str | None]) -> tuple[str, int | None]:
    """Parse the address of a server: host and port, or the description of an endpoint and None."""
    if isinstance(server, tuple | list):
        host, port = (*server, None)[:2]
    elif server.partition(":")[0] in ENDPOINT_KINDS and not server.partition(":")[2].isdigit():
        return server, None
    elif server.startswith("["):
        host, _, rest = server[1:].partition("]")
        port = rest.removeprefix(":")
    elif server.count(":") > 1:
        # An IPv6 address without brackets has no port.
        host, port = server, None
    else:
        host, _, port = server.partition(":")
    number = int(port) if port else DEFAULT_GEARMAN_PORT
    if not 0 < number < 65536:
        raise ValueError(f"a port lies between 1 and 65535: {server!r}")
    return host, number
