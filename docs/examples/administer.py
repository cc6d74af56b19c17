"""Admin commands: which functions have more jobs than workers?"""

from twisted.internet.interfaces import IReactorTime

from txgearman.client import Admin


async def main(reactor: IReactorTime, endpoint: str = "tcp:127.0.0.1:4730") -> None:
    async with Admin(reactor, endpoint) as admin:
        print(await admin.version())
        for function in await admin.status():
            if function.queued > function.workers:
                print(f"{function.function}: {function.queued} jobs wait for {function.workers} workers")
                await admin.set_max_queue(function.function, 1000)
