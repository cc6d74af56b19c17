"""Very many jobs, without more of them in memory than are on their way."""

from collections.abc import Iterable

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from txgearman import Client
from txgearman.errors import NotAllAccepted


async def main(
    reactor: IReactorTime, payloads: Iterable[bytes], endpoint: str = "tcp:127.0.0.1:4730"
) -> None:
    async with Client(reactor, endpoint) as client:
        try:
            await client.submit_many("reverse", payloads, keep_handles=False)
        except NotAllAccepted as failed:
            print(failed)
            for place, error in failed.errors.items():
                print(f"payload {place}: {error}")


async def results(
    reactor: IReactorTime, payloads: Iterable[bytes], endpoint: str = "tcp:127.0.0.1:4730"
) -> None:
    async with Client(reactor, endpoint) as client:
        async for outcome in client.run_many("reverse", payloads):
            if outcome.error is None:
                print(outcome.index, outcome.value.decode())
            else:
                print(f"payload {outcome.index}: {outcome.error}")


async def one_by_one(
    reactor: IReactorTime, payloads: Iterable[bytes], endpoint: str = "tcp:127.0.0.1:4730"
) -> list[Failure]:
    failures: list[Failure] = []
    async with Client(reactor, endpoint) as client:
        for payload in payloads:
            await client.room()
            client.submit("reverse", payload, background=True).addErrback(failures.append)
        await client.answered()
    return failures
