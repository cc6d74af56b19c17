"""What client, worker and admin client have in common: their list of servers, and encoding data.

The module has the name that python-gearman gives it, as programs import from it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from txgearman.blocking.connection import ENDPOINT_KINDS, GearmanConnection
from txgearman.blocking.constants import DEFAULT_GEARMAN_PORT
from txgearman.blocking.data_encoder import DataEncoder, NoopEncoder, TextEncoder, encoded
from txgearman.blocking.job import GearmanJob, GearmanJobRequest

__all__ = ["DataEncoder", "GearmanConnectionManager", "NoopEncoder", "Server", "TextEncoder"]

Server = str | tuple[str] | tuple[str, int | str | None]
"""How a server is given: ``"host:port"``, ``"host"``, ``("host", port)``, or the description of a Twisted
client endpoint such as ``"unix:/run/gearman.sock"``."""


class GearmanConnectionManager:
    """Keeps the connections to `host_list` in `connection_list`, in the same order.

    Subclasses may set `data_encoder`, any object with `encode` and `decode`, and the classes of which
    connections, jobs and requests are made.
    """

    connection_class: type[GearmanConnection] = GearmanConnection
    job_class: type[GearmanJob] = GearmanJob
    job_request_class: type[GearmanJobRequest] = GearmanJobRequest
    data_encoder: Any = TextEncoder

    def __init__(self, host_list: Iterable[Server] | None = None) -> None:
        self.connection_list: list[GearmanConnection] = []
        for server in host_list or ():
            self.add_connection(server)

    def add_connection(self, hostport_tuple: Server) -> GearmanConnection:
        """Add a server to the list and return its connection, which is not made yet.

        Raises `ServerUnavailable` without a host and `ValueError` for a port that is none.
        """
        host, port = address_of(hostport_tuple)
        connection = self.connection_class(host=host, port=port)
        self.connection_list.append(connection)
        return connection

    def establish_connection(self, current_connection: GearmanConnection) -> GearmanConnection:
        """Connect to one server of the list, if it is not. Raises `ConnectionError`."""
        if current_connection not in self.connection_list:
            raise ValueError(f"the connection is not one of this list: {current_connection!r}")
        if not current_connection.connected:
            current_connection.connect()
        return current_connection

    def shutdown(self) -> None:
        """Close all connections. They are made again when they are needed."""
        for connection in self.connection_list:
            connection.close()

    def encode_data(self, value: Any) -> bytes:
        """`value` as bytes, by the data encoder. Raises what that raises."""
        return encoded(self.data_encoder, value)

    def decode_data(self, data: bytes) -> Any:
        """The value of bytes, by the data encoder. Raises what that raises."""
        return self.data_encoder.decode(data)


def address_of(server: Server) -> tuple[str, int | None]:
    """Host and port of a server, or the description of an endpoint and None."""
    if isinstance(server, tuple | list):
        host, port = (*server, None)[:2]
    elif server.partition(":")[0] in ENDPOINT_KINDS and not server.partition(":")[2].isdigit():
        return server, None
    elif server.startswith("["):
        host, _, rest = server[1:].partition("]")
        port = rest.removeprefix(":")
    elif server.count(":") > 1:
        # An address of IPv6 without brackets has no port.
        host, port = server, None
    else:
        host, _, port = server.partition(":")
    number = int(port) if port else DEFAULT_GEARMAN_PORT
    if not 0 < number < 65536:
        raise ValueError(f"a port lies between 1 and 65535: {server!r}")
    return host, number
