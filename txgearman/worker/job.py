"""A job as the function sees it that runs it, in whatever thread or process. Nothing is decided here."""

from __future__ import annotations

import operator
from typing import Any, Final, Protocol, SupportsIndex

from twisted.internet.defer import Deferred

from txgearman.codecs import Codec, encoded
from txgearman.connection.arguments import body_of, check_count
from txgearman.errors import JobOver
from txgearman.wire.codec import frame
from txgearman.wire.packets import REQUEST, WORK_DATA, WORK_STATUS, WORK_WARNING

LARGEST_STATUS: Final = 2**64 - 1
"""The largest number of a status: what 64 bits hold. Servers take longer ones for 0."""


class Outlet(Protocol):
    """The way from a running job to its server.

    `codec` makes payloads, `max_packet` is the largest body of a packet in bytes.
    """

    codec: Codec
    max_packet: int

    def write(self, data: bytes) -> None:
        """Send a whole packet, behind those sent before."""
        ...

    def room(self) -> Deferred[None]:
        """Fires when there is room for more; at once where `write` itself waits for it."""
        ...


class Job:
    """A job that a worker was given.

    Attributes: `handle` is the server's name for the job, `function` the name of its function, `unique`
    the key it was submitted with, all bytes as on the wire; `reducer` is the name of the reducing
    function, bytes, None for a job without one. `data` is its input, as the worker's codec gives it:
    bytes, if no codec was chosen.
    """

    __slots__ = ("_lingers", "_outlet", "data", "function", "handle", "reducer", "unique")

    def __init__(
        self,
        outlet: Outlet,
        handle: bytes,
        function: bytes,
        unique: bytes,
        reducer: bytes | None,
        data: bytes,
    ) -> None:
        self.handle = handle
        self.function = function
        self.unique = unique
        self.reducer = reducer
        self.data: Any = data
        self._outlet: Outlet | None = outlet
        # Fires when what cannot be ended has ended: the job has an outcome, but its function still runs.
        self._lingers: Deferred[None] | None = None

    def __repr__(self) -> str:
        return f"<Job {self.handle!r} of {self.function!r}>"

    def send_data(self, data: Any) -> None:
        """Send a part of the result to the clients that wait for it: bytes, or what the codec takes.

        Raises what the codec raises, for the codec of bytes `TypeError` if `data` is not bytes;
        `ValueError` if it is larger than a packet may be; and `JobOver` once the job has ended or its
        connection is lost.
        """
        outlet = self._open()
        self._send(outlet, WORK_DATA, encoded(outlet.codec, data))

    def send_warning(self, data: Any) -> None:
        """Send a warning to the clients that wait: bytes, or what the codec takes.

        Raises as `send_data` does.
        """
        outlet = self._open()
        self._send(outlet, WORK_WARNING, encoded(outlet.codec, data))

    def send_status(self, numerator: int, denominator: int) -> None:
        """Tell the server, and the clients that wait, that `numerator` of `denominator` is done.

        Both are whole numbers of at most 64 bits, 0 or more. Raises `TypeError` or `ValueError` if they are
        not, and `JobOver` as `send_data` does.
        """
        numbers = _count(numerator), _count(denominator)
        self._send(self._open(), WORK_STATUS, b"%d\0%d" % numbers)

    def room(self) -> Deferred[None]:
        """Wait until the connection takes more: ``await`` it between many calls of the three above.

        It does while less than 64 KiB wait to be sent. For functions in the reactor's thread; elsewhere
        those calls wait themselves. Fails with `JobOver` if the job ends meanwhile or its connection is
        lost, and raises that once it is over.
        """
        return self._open().room().addCallback(self._still_open)

    @property
    def over(self) -> bool:
        """Whether the job has ended here, or its connection is lost: nobody waits for it any more.

        In a worker process it is False as long as the function runs: the process of a job that is over
        is ended.
        """
        return self._outlet is None

    def _open(self) -> Outlet:
        outlet = self._outlet
        if outlet is None:
            raise JobOver(f"the job {self.handle!r} is over")
        return outlet

    def _still_open(self, _: None) -> None:
        self._open()

    def _send(self, outlet: Outlet, packet: int, content: bytes) -> None:
        body = body_of((self.handle, content), outlet.max_packet)
        outlet.write(frame(REQUEST, packet, body))


def _count(number: SupportsIndex) -> int:
    """A number of a status. Other types than int, such as NumPy's, may be whole numbers too."""
    if isinstance(number, bool):
        raise TypeError(f"a status is made of numbers, not {number}")
    index = operator.index(number)
    check_count(index, "a number of a status", 0, LARGEST_STATUS)
    return index
