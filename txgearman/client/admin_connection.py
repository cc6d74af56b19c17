"""The connection of the admin client, and how a command is sent on it. The commands are in the modules that
build on this, and what is said on the connection in `admin_protocol`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NoReturn, Self, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint

from txgearman.client.admin_protocol import (
    AdminProtocol,
    Command,
    LineCommand,
    ListCommand,
    ParseRows,
)
from txgearman.client.connector import Connector
from txgearman.connection.arguments import check_timeout, function_bytes
from txgearman.connection.endpoint import endpoint_from
from txgearman.errors import TimedOut
from txgearman.wire import replies
from txgearman.wire.limits import MAX_LINE
from txgearman.wire.names import escape_word, text_of

_T = TypeVar("_T")

ADMIN_TIMEOUT: Final = 30.0
"""Default of ``timeout``: seconds that an admin command may take. Twisted's connections have the same
timeout. A list of a million jobs takes a few seconds."""


class AdminConnection:
    """Sends commands to one server; `Admin` has the commands.

    Args:
        reactor: As for `Admin`.
        endpoint: As for `Admin`.
        timeout: As for `Admin`.

    Raises:
        ValueError: As for `Admin`.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        endpoint: str | IStreamClientEndpoint,
        *,
        timeout: float | None = ADMIN_TIMEOUT,
    ) -> None:
        check_timeout(timeout)
        self._clock = reactor
        self._timeout = timeout
        self._connector: Connector[AdminProtocol] = Connector(
            reactor, endpoint_from(reactor, endpoint), AdminProtocol, name=str(endpoint)
        )

    def connect(self) -> Deferred[None]:
        """Connect. This is only needed to find out early whether the server can be reached.

        Returns:
            A Deferred that fires when the server is connected.
        """
        connected = self._connector.connect().addCallback(lambda _: None)
        return self._with_timeout(connected)

    def close(self) -> Deferred[None]:
        """Close the connection for good.

        Returns:
            A Deferred that fires when it is closed.
        """
        return self._connector.close()

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()

    # -- sending --------------------------------------------------------------------------------

    def _ask_list(self, line: bytes, parse: ParseRows[_T]) -> Deferred[_T]:
        return self._send(ListCommand(line, parse))

    def _ask_line(self, line: bytes, parse: Callable[[bytes], _T]) -> Deferred[_T]:
        return self._send(LineCommand(line, parse))

    def _ask_done(self, line: bytes, stops_server: bool = False) -> Deferred[None]:
        return self._send(LineCommand(line, replies.done, stops_server))

    def _send(self, command: Command) -> Deferred[Any]:
        if len(command.line) > MAX_LINE:
            raise ValueError(f"an admin command has at most {MAX_LINE} bytes, not {len(command.line)}")
        return self._with_timeout(
            self._connector.connect().addCallback(lambda protocol: protocol.ask(command))
        )

    def _with_timeout(self, pending: Deferred[_T]) -> Deferred[_T]:
        if self._timeout is not None:
            pending.addTimeout(self._timeout, self._clock, self._timed_out)
        return pending

    def _timed_out(self, _result: object, seconds: float) -> NoReturn:
        if self._connector.protocol is not None:
            self._connector.protocol.abort(f"an admin command was not answered within {seconds:g} seconds")
        raise TimedOut(f"no answer from the server within {seconds:g} seconds")


def admin_word(name: bytes, what: str) -> bytes:
    """Return `name` if it can be a word of a line. Raises `ValueError` for one with spaces or line ends."""
    if not name or b" " in name or b"\n" in name or b"\r" in name:
        why = "it is empty, or has spaces or line ends"
        raise ValueError(f"{what} cannot be sent in an admin command: {why}: {text_of(name)!r}")
    return name


def escaped_function(function: str | bytes) -> bytes:
    """A function as a word of a command that takes escapes. Raises `ValueError` if it cannot be one."""
    return escape_word(function_bytes(function))
