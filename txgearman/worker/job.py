"""A job as the function sees it that runs it. Nothing is decided here."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

from txgearman.connection.arguments import body_of, data_bytes
from txgearman.errors import JobOver
from txgearman.wire.codec import frame
from txgearman.wire.packets import REQUEST, WORK_DATA, WORK_STATUS, WORK_WARNING

if TYPE_CHECKING:
    from txgearman.connection.protocol import PacketProtocol


class Job:
    """A job that a worker was given.

    Attributes, all of them bytes as on the wire: `handle` is the server's name for the job, `function`
    the name of its function, `unique` the key it was submitted with, `data` its input; `reducer` is the
    name of the reducing function, None for a job without one.
    """

    __slots__ = ("_protocol", "data", "function", "handle", "reducer", "unique")

    def __init__(
        self,
        protocol: PacketProtocol,
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
        self.data = data
        self._protocol: PacketProtocol | None = protocol

    def __repr__(self) -> str:
        return f"<Job {self.handle!r} of {self.function!r}>"

    def send_data(self, data: bytes) -> None:
        """Send a part of the result, as bytes, to the clients that wait for it.

        Raises `TypeError` if `data` is not bytes, `ValueError` if it is larger than a packet may be,
        and `JobOver` once the job has ended or its connection is lost.
        """
        self._send(WORK_DATA, data_bytes(data, "the data"))

    def send_warning(self, data: bytes) -> None:
        """Send a warning, as bytes, to the clients that wait. Raises as `send_data` does."""
        self._send(WORK_WARNING, data_bytes(data, "the warning"))

    def send_status(self, numerator: int, denominator: int) -> None:
        """Tell the server, and the clients that wait, that `numerator` of `denominator` is done.

        Both are whole numbers, 0 or more. Raises `TypeError` or `ValueError` if they are not, and
        `JobOver` as `send_data` does.
        """
        numbers = operator.index(numerator), operator.index(denominator)
        if min(numbers) < 0:
            raise ValueError(f"a status is made of numbers of 0 or more: {numerator} of {denominator}")
        self._send(WORK_STATUS, b"%d\0%d" % numbers)

    @property
    def over(self) -> bool:
        """Whether the job has ended here, or its connection is lost: nobody waits for it any more."""
        return self._protocol is None

    def _send(self, packet: int, content: bytes) -> None:
        if self._protocol is None:
            raise JobOver(f"the job {self.handle!r} is over")
        body = body_of((self.handle, content), self._protocol.max_packet)
        self._protocol.write(frame(REQUEST, packet, body))
