"""What the clients of txgearman in Twisted and in asyncio have in common: their calls, which are awaited."""

from __future__ import annotations

from typing import Any

from benchmarks.rivals.contract import AwaitedCalls


def calls_of(client: Any) -> AwaitedCalls:
    """The calls of a connected client of either kind."""

    async def call(data: str) -> object:
        job = await client.submit("echo", data)
        return await job.result()

    return AwaitedCalls(
        lambda data: client.submit("noop", data, background=True),
        call,
        lambda batch: client.submit_many("noop", batch),
    )
