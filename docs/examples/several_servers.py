"""Two servers, payloads in JSON, and a job that may run twice where one of them is lost."""

from collections.abc import Sequence

from twisted.internet.interfaces import IReactorTime

from txgearman import Client
from txgearman.errors import ClientError

SERVERS = ("tcp:10.0.0.1:4730", "tcp:10.0.0.2:4730")


async def main(reactor: IReactorTime, endpoints: Sequence[str] = SERVERS) -> None:
    async with Client(reactor, endpoints, codec="json") as client:
        order = {"city": "Köln", "days": 3}
        job = await client.submit("forecast", order, unique="Köln", retry=2)
        try:
            print(await job.result(timeout=600))
        except ClientError as error:
            print(f"no forecast: {error}")
