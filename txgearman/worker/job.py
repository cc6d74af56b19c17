"""A job as its function sees it, in whatever thread or process that runs. Nothing is decided here."""

from __future__ import annotations

import operator
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from txgearman.codecs import Codec, encoded
from txgearman.connection.arguments import body_of
from txgearman.errors import JobOver
from txgearman.wire.codec import frame
from txgearman.wire.packets import REQUEST, WORK_DATA, WORK_STATUS, WORK_WARNING


class JobWriter(Protocol):
    """Sends the packets of a running job to its server.

    Attributes:
        codec: Makes payloads.
        max_packet: The largest body of a packet in bytes.
    """

    codec: Codec
    max_packet: int

    def write(self, data: bytes) -> None:
        """Send a whole packet, after those sent before."""
        ...

    def writable(self) -> Deferred[None]:
        """Fires when the connection takes more bytes; at once where `write` itself waits for that."""
        ...


class Job:
    """A job that a worker was given.

    Attributes: `handle` is the server's name for the job, `function` the name of its function, `unique`
    the key it was submitted with, all bytes as on the wire; `reducer` is the name of the reducing
    function, bytes, None for a job without one. `data` is its input, as the worker's codec gives it:
    bytes, if no codec was chosen.
    """

    __slots__ = ("_slot_held_until", "_writer", "data", "function", "handle", "reducer", "unique")

    def __init__(
        self,
        writer: JobWriter,
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
        self._writer: JobWriter | None = writer
        # If set, the job's slot stays held until this fires, though the job has an outcome: its function
        # still runs.
        self._slot_held_until: Deferred[None] | None = None

    def __repr__(self) -> str:
        return f"<Job {self.handle!r} of {self.function!r}>"

    def send_data(self, data: Any) -> None:
        """Send a part of the result to the clients that wait for it: bytes, or what the codec takes.

        Raises what the codec raises, for the codec of bytes `TypeError` if `data` is not bytes;
        `ValueError` if it is larger than a packet may be; and `JobOver` once the job has ended or its
        connection is lost.
        """
        writer = self._open()
        self._send(writer, WORK_DATA, encoded(writer.codec, data))

    def send_warning(self, data: Any) -> None:
        """Send a warning to the clients that wait: bytes, or what the codec takes.

        Raises as `send_data` does.
        """
        writer = self._open()
        self._send(writer, WORK_WARNING, encoded(writer.codec, data))

    def send_status(self, numerator: int, denominator: int) -> None:
        """Tell the server, and the clients that wait, that `numerator` of `denominator` is done.

        Both are whole numbers, 0 or more. Raises `TypeError` or `ValueError` if they are not, and
        `JobOver` as `send_data` does.
        """
        numbers = operator.index(numerator), operator.index(denominator)
        if min(numbers) < 0:
            raise ValueError(f"a status is made of numbers of 0 or more: {numerator} of {denominator}")
        self._send(self._open(), WORK_STATUS, b"%d\0%d" % numbers)

    def room(self) -> Deferred[None]:
        """Wait until the connection takes more: ``await`` it between many calls of the three above.

        It does while less than 64 KiB wait to be sent. For functions in the reactor's thread; elsewhere
        those calls wait themselves. Fails with `JobOver` if the job ends meanwhile or its connection is
        lost, and raises that once it is over.
        """
        return self._open().writable().addCallback(self._still_open)

    @property
    def over(self) -> bool:
        """Whether the job has ended here, or its connection is lost: nobody waits for it any more.

        In a worker process it is False as long as the function runs: the process of a job that is over
        is ended.
        """
        return self._writer is None

    def _open(self) -> JobWriter:
        writer = self._writer
        if writer is None:
            raise JobOver(f"the job {self.handle!r} is over")
        return writer

    def _still_open(self, _: None) -> None:
        self._open()

    def _send(self, writer: JobWriter, packet: int, content: bytes) -> None:
        body = body_of((self.handle, content), writer.max_packet)
        writer.write(frame(REQUEST, packet, body))
