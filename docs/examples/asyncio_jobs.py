"""A worker and a client in one program of asyncio."""

import asyncio
import sys

from txgearman import aio
from txgearman.client import StatusUpdate
from txgearman.worker import Job


async def slow_reverse(job: Job) -> bytes:
    for done in range(1, 4):
        await asyncio.sleep(0.1)  # or a request, a query: whatever asyncio waits for
        job.send_status(done, 3)
    return bytes(job.data[::-1])


async def main(endpoint: str = "tcp:127.0.0.1:4730") -> None:
    worker = aio.Worker(endpoint, concurrency=10)
    worker.register("slow-reverse", slow_reverse)
    async with worker, aio.Client(endpoint) as client:
        job = await client.submit("slow-reverse", b"Hello World!")
        async for update in job.updates():
            if isinstance(update, StatusUpdate):
                print(f"{update.numerator} of {update.denominator}")
        print((await job.result(timeout=60)).decode())

        jobs = await asyncio.gather(*[client.submit("slow-reverse", word) for word in (b"one", b"two")])
        print(await asyncio.gather(*[job.result() for job in jobs]))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
