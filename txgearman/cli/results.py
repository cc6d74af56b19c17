"""What ``txgearman result`` does: ask for the result of an offline job."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from txgearman.cli.connections import REPLY_TIMEOUT, connected
from txgearman.cli.exit_codes import ExitCode, InvalidArgument
from txgearman.cli.run import CommandContext, Main


def result(servers: Sequence[str], handle: str, wait: bool, timeout: float | None) -> Main:
    """Write the result of a job to standard output, as it is.

    Args:
        servers: The endpoint strings of the servers.
        handle: The job.
        wait: Whether to wait until the job has ended.
        timeout: Seconds for that; None for no limit if it waits, else for `REPLY_TIMEOUT`.

    Returns:
        The work of the command.
    """
    limit = REPLY_TIMEOUT if timeout is None and not wait else timeout

    async def main(context: CommandContext) -> int:
        async with connected(context.reactor, servers, REPLY_TIMEOUT) as client:
            try:
                asked = client.result(handle.encode("utf-8", "surrogateescape"), wait, limit)
            except ValueError as error:
                raise InvalidArgument(str(error)) from error
            sys.stdout.buffer.write(await asked)
        return ExitCode.OK

    return main
