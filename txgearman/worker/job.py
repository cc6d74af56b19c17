"""A job as its function sees it, in whatever thread or process that runs. Nothing is decided here."""

from __future__ import annotations

import operator
from typing import Any, Final, Protocol, SupportsIndex

from twisted.internet.defer import Deferred

from txgearman.codecs import Codec, encoded
from txgearman.connection.arguments import body_of, check_count
from txgearman.errors import JobCancelled, JobOver
from txgearman.wire.codec import frame
from txgearman.wire.names import text_of
from txgearman.wire.packets import REQUEST, WORK_DATA, WORK_STATUS, WORK_WARNING

LARGEST_STATUS: Final = 2**64 - 1
"""The largest number of a status: what 64 bits hold. Servers take longer ones for 0."""


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
    """A job that a worker was given."""

    __slots__ = (
        "_slot_held_until",
        "_writer",
        "attempt",
        "cancel_reason",
        "data",
        "function",
        "handle",
        "losses",
        "reducer",
        "traceparent",
        "unique",
    )

    def __init__(
        self,
        writer: JobWriter,
        handle: bytes,
        function: bytes,
        unique: bytes,
        reducer: bytes | None,
        data: bytes,
        attempt: int | None = None,
        losses: int | None = None,
        traceparent: str | None = None,
    ) -> None:
        self.handle = handle
        """The server's name for the job."""
        self.function = function
        """The name of its function."""
        self.unique = unique
        """The key it was submitted with; empty without one."""
        self.reducer = reducer
        """The name of the reducing function; None for a job without one."""
        self.data: Any = data
        """Its input as the worker's codec gives it, bytes without one."""
        self.cancel_reason: str | None = None
        """Why the server has told the worker to stop the job, such as ``cancelled``, ``timed-out`` or
        ``abandoned``; None as long as it has not."""
        self.attempt = attempt
        """Which of its attempts this is, from 1; None where the server does not tell, as gearmand."""
        self.losses = losses
        """How many workers went away with it before; None where the server does not tell."""
        self.traceparent = traceparent
        """The span that its submitter has named, as the W3C writes it in the header of this name. None
        without one, and where the server does not tell."""
        self._writer: JobWriter | None = writer
        # If set, the job's slot is held until this fires: it has an outcome, but its function still runs.
        self._slot_held_until: Deferred[None] | None = None

    def __repr__(self) -> str:
        return f"<Job {text_of(self.handle)} of {text_of(self.function)}>"

    def __str__(self) -> str:
        return f"job {text_of(self.handle)} of {text_of(self.function)}"

    def send_data(self, data: Any) -> None:
        """Send a part of the result to the clients that wait for it.

        Args:
            data: Bytes, or what the codec takes.

        Raises:
            JobCancelled: The server has told the worker to stop the job.
            JobOver: The job has ended, or its connection is lost.
            ValueError: The part is larger than a packet may be.
            Exception: What the codec raises for data that it cannot encode; `TypeError` without a codec,
                unless the data is bytes.
        """
        writer = self._open()
        self._send(writer, WORK_DATA, encoded(writer.codec, data))

    def send_warning(self, data: Any) -> None:
        """Send a warning to the clients that wait.

        Args:
            data: Bytes, or what the codec takes.

        Raises:
            JobCancelled: The server has told the worker to stop the job.
            JobOver: The job has ended, or its connection is lost.
            ValueError: The warning is larger than a packet may be.
            Exception: What the codec raises for data that it cannot encode; `TypeError` without a codec,
                unless the data is bytes.
        """
        writer = self._open()
        self._send(writer, WORK_WARNING, encoded(writer.codec, data))

    def send_status(self, numerator: int, denominator: int) -> None:
        """Tell the server, and the clients that wait, how much is done.

        Args:
            numerator: How much, a whole number of at most 64 bits, 0 or more.
            denominator: Of how much, the same.

        Raises:
            JobCancelled: The server has told the worker to stop the job.
            JobOver: The job has ended, or its connection is lost.
            TypeError: A number is no integer.
            ValueError: A number is negative, or too large.
        """
        numbers = _count(numerator), _count(denominator)
        self._send(self._open(), WORK_STATUS, b"%d\0%d" % numbers)

    def room(self) -> Deferred[None]:
        """Wait while the connection takes no more: ``await`` it between many calls of the three above.

        The connection takes more while less than 64 KiB wait to be sent. This is backpressure for functions
        in the reactor's thread. In threads and processes those calls wait themselves.

        Returns:
            A Deferred. It fails with `JobOver` if the job ends meanwhile or its connection is lost.

        Raises:
            JobCancelled: The server has told the worker to stop the job.
            JobOver: The job has ended, or its connection is lost.
        """
        return self._open().writable().addCallback(self._still_open)

    @property
    def cancelled(self) -> bool:
        """Whether the server has told the worker to stop the job: whatever it does is in vain.

        A function in a thread should look at this from time to time, as nothing else can stop it. In a worker
        process it is always False: the process is ended instead.
        """
        return self.cancel_reason is not None

    @property
    def over(self) -> bool:
        """Whether the job has ended here, is cancelled, or its connection is lost: its outcome is dropped.

        In a worker process it is False as long as the function runs. The process of a job that is over is
        ended.
        """
        return self._writer is None

    def _open(self) -> JobWriter:
        writer = self._writer
        if writer is None:
            raise self._why_over(f"the job {text_of(self.handle)} is over")
        return writer

    def _why_over(self, text: str) -> JobOver:
        """The error for what comes too late: `text` says what that is."""
        if self.cancel_reason is None:
            return JobOver(text)
        return JobCancelled(f"{text}: {self.cancel_reason}", self.cancel_reason)

    def _still_open(self, _: None) -> None:
        self._open()

    def _send(self, writer: JobWriter, packet: int, content: bytes) -> None:
        body = body_of((self.handle, content), writer.max_packet)
        writer.write(frame(REQUEST, packet, body))


def _count(number: SupportsIndex) -> int:
    """A number of a status. Other types than int, such as NumPy's, may be whole numbers too."""
    if isinstance(number, bool):
        raise TypeError(f"a status is made of numbers, not {number}")
    index = operator.index(number)
    check_count(index, "a number of a status", 0, LARGEST_STATUS)
    return index
