"""What runs in a child process of a worker: one job after the other, and sending to the parent.

Nothing here runs in the parent. Its end is in `processes`.

Each child has its own connection to the parent. It carries the packets that a job sends and then the job's
outcome, so their order is kept, and ending one child affects no other. A message is its length, its kind, the
number of the job, and its content.
"""

from __future__ import annotations

import os
import pickle
import socket
import threading
import traceback
from struct import Struct
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed

from txgearman.codecs import Codec, codec_from
from txgearman.connection.arguments import body_of
from txgearman.errors import FailJob, Reject, Retry
from txgearman.worker.functions import EXCEPTION_BYTES, exception_text, result_encoder, truncate_utf8
from txgearman.worker.job import Job

LENGTH_PREFIX: Final = Struct("!I")
"""The length of what follows, in bytes."""

MESSAGE_HEADER: Final = Struct("!cQ")
"""The kind of a message, and the number of its job."""

SEPARATE_WRITE_BYTES: Final = 64 * 1024
"""Bytes of a content above which a second system call costs less than copying it behind the header."""

STARTED: Final = b"s"
"""The function is about to be called."""

PACKET: Final = b"p"
"""A packet for the server."""

RESULT: Final = b"r"
"""The function's result, encoded."""

FAILED: Final = b"f"
"""The function raised `FailJob` without data; the content is its text."""

FAILED_WITH: Final = b"w"
"""The function raised `FailJob` with data; the content is a `join_contents` of its text and that."""

RETRIED: Final = b"t"
"""The function raised `Retry`; the content is its `RETRY_HEADER` and its text."""

RETRY_HEADER: Final = Struct("!d?")
"""The delay of a `Retry`, below 0 for none, and whether it counts."""

REJECTED: Final = b"j"
"""The function raised `Reject`; the content is its text."""

RAISED: Final = b"x"
"""The function raised; the content is a `join_contents` of the exception's text and the traceback."""


def join_contents(first: bytes, second: bytes) -> bytes:
    """Join two contents to one."""
    return LENGTH_PREFIX.pack(len(first)) + first + second


def split_contents(content: bytes) -> tuple[bytes, bytes]:
    """Split what `join_contents` has joined."""
    end = LENGTH_PREFIX.size + LENGTH_PREFIX.unpack_from(content)[0]
    return content[LENGTH_PREFIX.size : end], content[end:]


class _ParentConnection:
    """The child's end of its connection."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(path)
        # A function may send in several threads.
        self._lock = threading.Lock()
        threading.Thread(target=self._end_with_the_parent, name="txgearman-watch", daemon=True).start()

    def send(self, kind: bytes, number: int, content: bytes) -> None:
        head = LENGTH_PREFIX.pack(MESSAGE_HEADER.size + len(content)) + MESSAGE_HEADER.pack(kind, number)
        with self._lock:
            if len(content) < SEPARATE_WRITE_BYTES:
                self._socket.sendall(head + content)
            else:
                self._socket.sendall(head)
                self._socket.sendall(content)

    def _end_with_the_parent(self) -> None:
        """End the process with the connection: nobody waits for its job then. The parent sends nothing."""
        while self._socket.recv(1):
            pass
        os._exit(1)


_connection: _ParentConnection | None = None
"""The connection of this process."""


class ChildWriter:
    """Sends what a function sends, over the connection to the parent: a `JobWriter`."""

    def __init__(self, connection: _ParentConnection, number: int, codec: Codec, max_packet: int) -> None:
        self.codec = codec
        self.max_packet = max_packet
        self._connection = connection
        self._number = number

    def write(self, data: bytes) -> None:
        # Blocks while the parent does not read, since the server's connection takes no more.
        self._connection.send(PACKET, self._number, data)

    def writable(self) -> Deferred[None]:
        return succeed(None)


def initialize(path: str) -> None:
    """Connect this process to its parent, which listens at `path`."""
    global _connection  # noqa: PLW0603 (the pool has no other place for what belongs to a process)
    try:
        _connection = _ParentConnection(path)
    except (FileNotFoundError, ConnectionRefusedError):
        # The parent has ended while this process started.
        os._exit(1)


def run_job(number: int, task: bytes, max_packet: int, fields: tuple[Any, ...]) -> None:
    """Run a job. Its outcome is sent by the connection.

    Args:
        number: The number of the job.
        task: A pickle, made by the parent, of the function and the choice of a codec.
        max_packet: The largest body of a packet in bytes.
        fields: The fields of the `Job`.
    """
    connection = _connection
    assert connection is not None
    try:
        callback, choice = pickle.loads(task)
        codec = codec_from(choice)
        job = Job(ChildWriter(connection, number, codec, max_packet), *fields)
        job.data = codec.decode(job.data)
        connection.send(STARTED, number, b"")
        result = result_encoder(codec, job.function)(callback(job))
        body_of((job.handle, result), max_packet)
    except FailJob as error:
        text = truncate_utf8(str(error))
        if error.data is None or len(error.data) > max_packet:
            connection.send(FAILED, number, text)
        else:
            connection.send(FAILED_WITH, number, join_contents(text, error.data))
    except Retry as error:
        header = RETRY_HEADER.pack(-1.0 if error.delay is None else error.delay, error.counts)
        connection.send(RETRIED, number, header + truncate_utf8(error.text))
    except Reject as error:
        connection.send(REJECTED, number, truncate_utf8(error.text))
    # Any exception is the job's outcome, even SystemExit, and the process takes the next job.
    except BaseException as error:
        trace = traceback.format_exc().encode("utf-8", "backslashreplace")[:EXCEPTION_BYTES]
        connection.send(RAISED, number, join_contents(exception_text(error), trace))
    else:
        connection.send(RESULT, number, result)
