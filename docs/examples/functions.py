"""What a worker's function can do."""

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from txgearman import Worker
from txgearman.errors import FailJob
from txgearman.worker import Job


async def count_lines(job: Job) -> bytes:
    """Sends data, a warning and its status ahead of the result."""
    lines = job.data.split(b"\n")
    for number, line in enumerate(lines, 1):
        if line:
            job.send_data(line)
        else:
            job.send_warning(b"line %d is empty" % number)
        job.send_status(number, len(lines))
    return b"%d" % len(lines)


def parse(job: Job) -> bytes:
    """Fails for empty data; raises ValueError for what is no number."""
    if not job.data:
        raise FailJob("nothing to parse")
    return b"%d" % int(job.data)


def make_worker(reactor: IReactorTime, endpoint: str = "tcp:127.0.0.1:4730") -> Worker:
    worker = Worker(reactor, endpoint, client_id="example", concurrency=10)
    worker.register("count_lines", count_lines)
    worker.register("parse", parse, timeout=30)

    @worker.function("wait")
    def wait(job: Job) -> Deferred[bytes]:
        return deferLater(reactor, float(job.data), lambda: b"waited")

    return worker
