"""A worker in a program of asyncio, until SIGTERM or Ctrl-C."""

import asyncio
import signal
import sys

from txgearman import aio
from txgearman.worker import Job


async def reverse(job: Job) -> bytes:
    return bytes(job.data[::-1])


async def main(endpoint: str = "tcp:127.0.0.1:4730") -> None:
    told_to_stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told_to_stop.set)
    worker = aio.Worker(endpoint, drain=30)
    worker.register("reverse", reverse)
    async with worker:  # stops at the end, and gives running jobs the 30 seconds
        print("Working", flush=True)
        await told_to_stop.wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
