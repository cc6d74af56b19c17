"""Many jobs at once on one connection."""

from twisted.internet.defer import gatherResults
from twisted.internet.interfaces import IReactorTime

from txgearman import Client


async def main(reactor: IReactorTime, endpoint: str = "tcp:127.0.0.1:4730") -> None:
    async with Client(reactor, endpoint) as client:
        words = [b"one", b"two", b"three"]
        jobs = await gatherResults([client.submit("reverse", word) for word in words])
        results = await gatherResults([job.result(timeout=60) for job in jobs])
        print(b" ".join(results).decode())
