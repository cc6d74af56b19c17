"""Asking for the status of a request's job, and what the answer changes.

As in `submission`, the background thread puts events into the queue, and a thread that waits processes them.
"""

from __future__ import annotations

import logging
from functools import partial

from txgearman.blocking.constants import JOB_UNKNOWN
from txgearman.blocking.data_encoder import bytes_of
from txgearman.blocking.errors import InvalidClientState
from txgearman.blocking.event_queue import EventQueue
from txgearman.blocking.job import GearmanJobRequest
from txgearman.blocking.submission import JobKey, PendingRequests, status_of
from txgearman.client import JobStatus
from txgearman.connection.arguments import name_bytes
from txgearman.wire.limits import MAX_HANDLE

_log = logging.getLogger(__name__)


class StatusRequests:
    """Asks for statuses.

    Args:
        event_queue: The client's queue.
        pending: The client's pending requests.
    """

    def __init__(self, event_queue: EventQueue, pending: PendingRequests) -> None:
        self._event_queue = event_queue
        self._pending = pending

    def ask(self, request: GearmanJobRequest) -> None:
        """Ask for the status of a request's job, without waiting.

        Args:
            request: The request.

        Raises:
            InvalidClientState: Its job has no connection or no handle.
        """
        job = request.job
        if job.connection is None or not job.handle:
            raise InvalidClientState(f"the job has no connection or no handle: {request!r}")
        handle = name_bytes(bytes_of(job.handle), "the handle", MAX_HANDLE)
        request.status["last_time_received"] = request.status.get("time_received")
        asked = object()
        request._pending_status_requests |= {asked}
        key = (job.connection, job.handle)
        with self._event_queue.processing_lock:
            self._pending.subscribe(key, request)
        job.connection.request_status(
            handle,
            lambda status: self._event_queue.put(partial(self._received, request, asked, key, status)),
            lambda why, closed: self._event_queue.put(
                partial(self._failed, request, asked, key, why, closed)
            ),
        )

    # -- in the thread that waits ---------------------------------------------------------------

    # These are called once more if a signal's handler has raised in their middle, see `EventQueue`.

    def _received(self, request: GearmanJobRequest, asked: object, key: JobKey, status: JobStatus) -> None:
        request._pending_status_requests -= {asked}
        connection, handle = key
        connection.connected = True
        request.status = status_of(handle, status.known, status.running, status.numerator, status.denominator)

    def _failed(self, request: GearmanJobRequest, asked: object, key: JobKey, why: str, closed: bool) -> None:
        request._pending_status_requests -= {asked}
        connection, handle = key
        if closed:
            request._connection_closed = True
            return
        connection.connected = False
        _log.warning("No status of the job %s: %s", handle, why)
        request.state = JOB_UNKNOWN
