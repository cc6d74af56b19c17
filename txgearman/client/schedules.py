"""Schedules as clients submit them: SUBMIT_JOB_SCHED, and how one is taken back."""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint

from txgearman.client.submission import Submission
from txgearman.connection.arguments import body_of, data_bytes, function_bytes, name_bytes
from txgearman.errors import AdminError, ClientError, NotConnected
from txgearman.wire.limits import MAX_UNIQUE
from txgearman.wire.packets import SUBMIT_JOB_SCHED

MAX_FIELD = 64
"""Bytes of a field that says when; our server takes no longer ones."""


def schedule_submission(
    function: str | bytes, data: bytes, unique: str | bytes | None, times: Iterable[str], max_packet: int
) -> Submission:
    """Check the arguments of `Client.schedule`, and make a packet of them.

    Args:
        function: As for `Client.schedule`.
        data: The payload of each job.
        unique: As for `Client.schedule`.
        times: Minute, hour, day, month and weekday.
        max_packet: The largest body of a packet in bytes.

    Returns:
        The schedule as its packet.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument has a value that no server must see, or the packet would be too large.
    """
    name = function_bytes(function)
    key = b"" if unique is None else name_bytes(unique, "the unique", MAX_UNIQUE)
    fields = [name_bytes(each, "a field that says when", MAX_FIELD) for each in times]
    body = body_of((name, key, *fields, data_bytes(data, "the jobs' data")), max_packet)
    return Submission(SUBMIT_JOB_SCHED, body, name, key, True)


async def unschedule(
    clock: IReactorTime,
    endpoints: Iterable[IStreamClientEndpoint],
    handle: bytes,
    timeout: float | None,
) -> None:
    """Remove a schedule, by the first server that knows it.

    Args:
        clock: The reactor, or a clock in tests.
        endpoints: The servers.
        handle: The schedule's handle.
        timeout: Seconds that each server may take; None for no limit.

    Raises:
        ClientError: None of them has done it. It is the refusal of one if there was one.
    """
    # Not at the top: the admin client has much to load, and hardly any client removes a schedule.
    from txgearman.client.admin import Admin

    why: ClientError = NotConnected("there is no server")
    for endpoint in endpoints:
        admin = Admin(clock, endpoint, timeout=timeout)
        try:
            await admin.cancel(handle)
        except ClientError as error:
            if not isinstance(why, AdminError):
                why = error
        else:
            return
        finally:
            await admin.close()
    raise why
