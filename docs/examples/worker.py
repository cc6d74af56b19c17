"""A worker with one function."""

import sys

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import react

from txgearman import Worker
from txgearman.worker import Job


def reverse(job: Job) -> bytes:
    return job.data[::-1]


async def main(reactor: IReactorTime, endpoint: str = "tcp:127.0.0.1:4730") -> None:
    worker = Worker(reactor, endpoint)
    worker.register("reverse", reverse)
    print(f"Waiting for the server {endpoint}")
    await worker.start()
    print("Working")
    await Deferred[None]()  # works until the process is stopped


if __name__ == "__main__":
    react(main, sys.argv[1:])
