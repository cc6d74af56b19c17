"""What the blocking client can do that python-gearman cannot. Nothing here touches a request."""

from __future__ import annotations

from typing import Any

from txgearman.blocking.connection import GearmanConnection
from txgearman.blocking.connection_manager import GearmanConnectionManager
from txgearman.blocking.data_encoder import bytes_of
from txgearman.blocking.deadline import Deadline
from txgearman.blocking.errors import InvalidClientState, ServerUnavailable
from txgearman.blocking.job import GearmanJob, GearmanJobRequest
from txgearman.connection.arguments import name_bytes
from txgearman.errors import JobError, NotSupported, UnknownJob
from txgearman.wire.limits import MAX_HANDLE


class ClientAdditions(GearmanConnectionManager):
    """The methods of `GearmanClient` that python-gearman has no counterpart of."""

    def result(
        self,
        job: GearmanJobRequest | GearmanJob | str | bytes,
        wait: bool = True,
        poll_timeout: float | None = None,
    ) -> Any:
        """Ask for the result of an offline job, if the server keeps results of its function.

        Args:
            job: The request, the job, or its handle. For a handle the servers are asked in turn, until one
                knows of the job.
            wait: Whether to wait until the job has ended.
            poll_timeout: Seconds to wait; None for no limit.

        Returns:
            The result, as the data encoder decodes it.

        Raises:
            InvalidClientState: The job has no handle.
            ServerUnavailable: No server can be reached.
            TimedOut: The time is over. This and those below are in `txgearman.errors`.
            JobError: There is no result: `JobFailed`, `JobRaised`, `ResultGone`, `UnknownJob`, or
                `ResultPending` without `wait`.
            NotSupported: The server has no results.
        """
        given = job.job if isinstance(job, GearmanJobRequest) else job
        handle = given.handle if isinstance(given, GearmanJob) else given
        if not handle:
            raise InvalidClientState(f"the job has no handle: {job!r}")
        name = name_bytes(bytes_of(handle), "the handle", MAX_HANDLE)
        connection = given.connection if isinstance(given, GearmanJob) else None
        deadline = Deadline(poll_timeout)
        if connection is None:
            connection = self._server_that_knows(name, deadline)
        return self.decode_data(connection.result(name, wait, deadline.remaining()))

    def _server_that_knows(self, handle: bytes, deadline: Deadline) -> GearmanConnection:
        """The first server that can be reached and knows of a job. Raises what the last one says if none
        does."""
        if not self.connection_list:
            raise ServerUnavailable("the client has no server")
        *others, last = self.connection_list
        for connection in others:
            try:
                connection.result(handle, False, deadline.remaining())
            except (ServerUnavailable, UnknownJob, NotSupported):
                continue
            except JobError:
                return connection
            return connection
        return last
