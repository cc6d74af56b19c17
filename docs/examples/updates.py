"""Following a job while it runs: with an iterator, and with callbacks."""

from twisted.internet.interfaces import IReactorTime

from txgearman import Client
from txgearman.client import DataUpdate, StatusUpdate, WarningUpdate


async def iterate(reactor: IReactorTime, endpoint: str = "tcp:127.0.0.1:4730") -> None:
    async with Client(reactor, endpoint) as client:
        job = await client.submit("count_lines", b"one\ntwo\n\nfour")
        async for update in job.updates():
            match update:
                case DataUpdate(data):
                    print("data:", data.decode())
                case WarningUpdate(data):
                    print("warning:", data.decode())
                case StatusUpdate(numerator, denominator):
                    print(f"status: {numerator}/{denominator}")
        print("result:", (await job.result()).decode())


async def call_back(reactor: IReactorTime, endpoint: str = "tcp:127.0.0.1:4730") -> None:
    async with Client(reactor, endpoint) as client:
        job = await client.submit("count_lines", b"one\ntwo\n\nfour")
        job.on_data(lambda data: print("data:", data.decode()))
        job.on_warning(lambda data: print("warning:", data.decode()))
        job.on_status(lambda numerator, denominator: print(f"status: {numerator}/{denominator}"))
        print("result:", (await job.result()).decode())
