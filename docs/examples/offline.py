"""Offline jobs: hand over and go, ask for the status, run at a time."""

from datetime import UTC, datetime, timedelta

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from txgearman import Client, Priority


async def hand_over(reactor: IReactorTime, endpoint: str = "tcp:127.0.0.1:4730") -> bytes:
    async with Client(reactor, endpoint) as client:
        job = await client.submit("wait", b"3", background=True, priority=Priority.LOW, unique="report-2026")
        return job.handle


async def watch(reactor: IReactorTime, handle: bytes, endpoint: str = "tcp:127.0.0.1:4730") -> None:
    async with Client(reactor, endpoint) as client:
        while (status := await client.status(handle)).known:
            print("running" if status.running else "waiting", f"{status.numerator}/{status.denominator}")
            await deferLater(reactor, 1)
        print("not known any more")


async def run_tomorrow(reactor: IReactorTime, endpoint: str = "tcp:127.0.0.1:4730") -> bytes:
    async with Client(reactor, endpoint) as client:
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        job = await client.submit("wait", b"3", run_at=tomorrow)
        return job.handle
