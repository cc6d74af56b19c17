"""Code of an application that uses a worker and a client; what the tests beside it test."""

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from txgearman import Client, Worker
from txgearman.errors import FailJob, JobFailed
from txgearman.worker import Job


def offer_thumbnails(worker: Worker, reactor: IReactorTime) -> None:
    async def thumbnail(job: Job) -> bytes:
        if not job.data.startswith(b"image:"):
            raise FailJob("not an image")
        await deferLater(reactor, 2)  # stands for work
        return job.data.replace(b"image:", b"thumbnail:")

    worker.register("thumbnail", thumbnail)


async def thumbnail_of(client: Client, image: bytes) -> bytes | None:
    job = await client.submit("thumbnail", image, unique="-")
    try:
        return await job.result()
    except JobFailed:
        return None
