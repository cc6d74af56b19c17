"""A client that submits a job and waits for its result."""

import sys

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import react

from txgearman import Client


async def main(reactor: IReactorTime, endpoint: str = "tcp:127.0.0.1:4730") -> None:
    async with Client(reactor, endpoint) as client:
        job = await client.submit("reverse", b"Hello World!")
        result = await job.result(timeout=60)
        print(result.decode())


if __name__ == "__main__":
    react(main, sys.argv[1:])
