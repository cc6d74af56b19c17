"""A worker in a program of asyncio, until SIGTERM or Ctrl-C."""

import asyncio
import contextlib
import signal
import sys

from txgearman import aio
from txgearman.worker import Job


async def reverse(job: Job) -> bytes:
    return bytes(job.data[::-1])


async def work(endpoint: str) -> None:
    worker = aio.Worker(endpoint, drain=30)
    worker.register("reverse", reverse)
    print(f"Waiting for the server {endpoint}", flush=True)
    async with worker:  # stops at the end, and gives running jobs the 30 seconds
        print("Working", flush=True)
        await asyncio.Event().wait()


async def main(endpoint: str = "tcp:127.0.0.1:4730") -> None:
    working = asyncio.create_task(work(endpoint))
    for number in (signal.SIGINT, signal.SIGTERM):
        # Also ends the waiting for a server that is not there.
        asyncio.get_running_loop().add_signal_handler(number, working.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await working


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
