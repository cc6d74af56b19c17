"""What runs in a worker process: one job after the other, and what it sends on its way to the worker.

Nothing here runs in the worker's own process. `processes` is the other end.

Each process has a connection of its own to the worker, on which go the packets that a job sends and then
its outcome, so their order is kept, and ending a process harms no other. A message is its length, its kind,
the number of the run, and a content.
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
from txgearman.errors import FailJob
from txgearman.worker.functions import EXCEPTION_BYTES, exception_text, result_encoder, truncate_utf8
from txgearman.worker.job import Job

LENGTH: Final = Struct("!I")
"""The length of what follows."""

HEAD: Final = Struct("!cQ")
"""Kind and number of the run."""

LARGE: Final = 64 * 1024
"""Bytes of a content above which one more call of the system costs less than a copy."""

STARTED: Final = b"s"
"""The function is about to be called."""

PACKET: Final = b"p"
"""A packet for the server."""

RESULT: Final = b"r"
"""The function's result, encoded."""

FAILED: Final = b"f"
"""The function raised `FailJob` without data; the content is its text."""

FAILED_WITH: Final = b"w"
"""The function raised `FailJob` with data; the content is a `pair` of its text and that."""

RAISED: Final = b"x"
"""The function raised; the content is a `pair` of the exception's text and the traceback."""


def pair(first: bytes, second: bytes) -> bytes:
    """Two contents as one."""
    return LENGTH.pack(len(first)) + first + second


def parts(content: bytes) -> tuple[bytes, bytes]:
    """The two contents that `pair` has made one."""
    end = LENGTH.size + LENGTH.unpack_from(content)[0]
    return content[LENGTH.size : end], content[end:]


class _Channel:
    """The connection to the worker."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(path)
        # A function may send from threads of its own.
        self._lock = threading.Lock()
        threading.Thread(target=self._end_with_the_worker, name="txgearman-watch", daemon=True).start()

    def send(self, kind: bytes, run: int, content: bytes) -> None:
        head = LENGTH.pack(HEAD.size + len(content)) + HEAD.pack(kind, run)
        with self._lock:
            if len(content) < LARGE:
                self._socket.sendall(head + content)
            else:
                self._socket.sendall(head)
                self._socket.sendall(content)

    def _end_with_the_worker(self) -> None:
        """The worker says nothing on this connection; when it ends, nobody waits for what goes on here."""
        while self._socket.recv(1):
            pass
        os._exit(1)


_channel: _Channel | None = None
"""Of this process."""


class _FromProcess:
    """A `JobWriter` for a function in this process."""

    def __init__(self, channel: _Channel, run: int, codec: Codec, max_packet: int) -> None:
        self.codec = codec
        self.max_packet = max_packet
        self._channel = channel
        self._run = run

    def write(self, data: bytes) -> None:
        # Waits while the worker does not read, as its connection takes no more.
        self._channel.send(PACKET, self._run, data)

    def writable(self) -> Deferred[None]:
        return succeed(None)


def begin(path: str) -> None:
    """Make this process ready for jobs; `path` is where the worker listens."""
    global _channel  # noqa: PLW0603 (the pool offers a process no other place)
    try:
        _channel = _Channel(path)
    except (FileNotFoundError, ConnectionRefusedError):
        # The worker has ended while this process started.
        os._exit(1)


def work(run: int, task: bytes, max_packet: int, fields: tuple[Any, ...]) -> None:
    """Run a job: the run number `run`, with `fields` as `Job` takes them.

    `task` is a pickle of the function and the choice of a codec, made by the worker of this process. The
    outcome goes by the channel.
    """
    channel = _channel
    assert channel is not None
    try:
        callback, choice = pickle.loads(task)
        codec = codec_from(choice)
        job = Job(_FromProcess(channel, run, codec, max_packet), *fields)
        job.data = codec.decode(job.data)
        channel.send(STARTED, run, b"")
        result = result_encoder(codec, job.function)(callback(job))
        body_of((job.handle, result), max_packet)
    except FailJob as error:
        text = truncate_utf8(str(error))
        if error.data is None or len(error.data) > max_packet:
            channel.send(FAILED, run, text)
        else:
            channel.send(FAILED_WITH, run, pair(text, error.data))
    # Whatever it raised, SystemExit too, is the job's outcome, and the process goes on.
    except BaseException as error:
        trace = traceback.format_exc().encode("utf-8", "backslashreplace")[:EXCEPTION_BYTES]
        channel.send(RAISED, run, pair(exception_text(error), trace))
    else:
        channel.send(RESULT, run, result)
