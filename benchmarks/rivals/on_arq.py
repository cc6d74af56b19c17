"""arq on Redis.

Its pages (https://arq-docs.helpmanual.io/) name what its rate depends on, without advice: a worker looks for
jobs every ``poll_delay`` (0.5 s), and takes at most five times ``max_jobs`` (10) then, or 100. So it is
measured with its defaults, and with a hundred jobs at once and a look every 10 ms. Results that nobody reads
are not kept (``keep_result=0``), and a client looks for its result every millisecond, not every half second.

It has no call that enqueues many jobs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from arq import create_pool, func
from arq.connections import RedisSettings

from benchmarks.rivals.contract import RESULT_TIMEOUT, AwaitedCalls, AwaitedClient
from benchmarks.rivals.jobs import ran, redis_url

RESULT_POLL: Final = 0.001
"""Seconds between two looks for a result."""

SETTINGS: Final = RedisSettings.from_dsn(redis_url())

LOGGING: Final = {"version": 1}
"""Logs warnings alone, as the others' workers do here."""


async def noop(_context: Any, data: str) -> None:
    ran(data)


async def echo(_context: Any, data: str) -> str:
    return data


FUNCTIONS: Final = [func(noop, keep_result=0), func(echo)]


# arq reads what stands in the class itself, not what that inherits.
class Defaults:
    """A worker with arq's own settings."""

    functions = FUNCTIONS
    redis_settings = SETTINGS


class ManyJobs:
    """One that runs many jobs at once, and looks for them often."""

    functions = FUNCTIONS
    redis_settings = SETTINGS
    max_jobs = 100
    poll_delay = 0.01


@asynccontextmanager
async def _connected(_reactor: object) -> AsyncIterator[AwaitedCalls]:
    redis = await create_pool(SETTINGS)

    async def call(data: str) -> object:
        job = await redis.enqueue_job("echo", data)
        return await job.result(timeout=RESULT_TIMEOUT, poll_delay=RESULT_POLL)

    yield AwaitedCalls(lambda data: redis.enqueue_job("noop", data), call)
    await redis.aclose()


CLIENT: Final = AwaitedClient(_connected, lambda function: asyncio.run(function(None)))
