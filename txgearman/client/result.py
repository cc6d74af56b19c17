"""The result of an offline job: asking the servers for it, and what their answers mean.

What is said on a connection is in `protocol`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from twisted.internet.defer import DeferredList

from txgearman.connection.backoff import exponential_backoff
from txgearman.errors import (
    ClientError,
    ConnectionLost,
    JobError,
    JobFailed,
    JobRaised,
    ResultGone,
    ResultPending,
    UnknownJob,
)

if TYPE_CHECKING:
    from txgearman.client.failover import Dispatch, Server

_PENDING: Final = b"pending"
_COMPLETED: Final = b"completed"
_FAILED: Final = b"failed"
_UNKNOWN: Final = b"unknown"
_TOO_LARGE: Final = b"too-large"
_RAISED: Final = b"raised"


class ResultAnswer(NamedTuple):
    """What a server says of a result. docs/extensions.rst has the states, with their reasons and data."""

    state: bytes
    reason: bytes
    data: bytes

    @property
    def is_pending(self) -> bool:
        """Whether the job has not ended."""
        return self.state == _PENDING

    @property
    def is_known(self) -> bool:
        """Whether the server knows of the job, or of its result."""
        return self.state != _UNKNOWN

    def value(self, handle: bytes) -> bytes:
        """Take the result.

        Args:
            handle: The job.

        Returns:
            The result.

        Raises:
            JobError: There is none; the class says why.
        """
        if self.state == _COMPLETED:
            return self.data
        raise self._error(handle)

    def _error(self, handle: bytes) -> JobError:
        reason = self.reason.decode("utf-8", "backslashreplace")
        if self.state == _PENDING:
            return ResultPending(handle, reason)
        if self.state == _FAILED:
            return JobRaised(handle, self.data) if self.reason == _RAISED else JobFailed(handle)
        if self.state == _TOO_LARGE:
            return ResultGone(handle, "too-large")
        return UnknownJob(handle) if self.state == _UNKNOWN else ResultGone(handle, reason)


class ResultRequest:
    """Asks servers for the result of one job, again and again if it must.

    Args:
        dispatch: The servers.
        server: The name of the server that has the job; empty if that is not known.
        handle: The job.
    """

    def __init__(self, dispatch: Dispatch, server: str, handle: bytes) -> None:
        self._dispatch = dispatch
        self._servers = [each for each in dispatch.servers if each.name == server] or list(dispatch.servers)
        self._handle = handle

    async def ask(self) -> ResultAnswer:
        """Ask what is known now.

        Returns:
            The answer of a server that knows of the job, or else that of any.

        Raises:
            ClientError: No server has answered.
        """
        return (await self._ask_all())[1]

    async def wait(self) -> ResultAnswer:
        """Wait until the job has ended. While the server that has it is away this waits for it to come back:
        its jobs may be stored.

        Returns:
            What is known then.

        Raises:
            ClientError: No server has answered at first, or the client was closed.
        """
        lost: Server | None = None
        backoffs = 0
        while True:
            try:
                server, answer = await self._ask_all()
                if answer.is_pending:
                    lost, backoffs = server, 0
                    answer = await server.connect().addCallback(
                        lambda there: there.result(self._handle, True)
                    )
                if answer.is_known or lost is None or not lost.down:
                    return answer
            except ConnectionLost:
                if lost is None or self._dispatch.closed:
                    raise
            await self._dispatch.back_off(len(self._handle), exponential_backoff(backoffs))
            backoffs += 1

    async def _ask_all(self) -> tuple[Server, ResultAnswer]:
        servers = [server for server in self._servers if not server.down] or self._servers
        asked = [
            server.connect().addCallback(lambda there: there.result(self._handle, False))
            for server in servers
        ]
        answers: list[tuple[Server, ResultAnswer]] = []
        errors: list[ClientError] = []
        for server, (succeeded, outcome) in zip(
            servers, await DeferredList(asked, consumeErrors=True), strict=True
        ):
            if succeeded:
                answers.append((server, outcome))
            elif isinstance(outcome.value, ClientError):
                errors.append(outcome.value)
            else:
                outcome.raiseException()
        if not answers:
            raise errors[0]
        return next((each for each in answers if each[1].is_known), answers[0])
