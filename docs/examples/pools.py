"""A worker of two servers whose functions block, with limits and hooks."""

import time
from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from txgearman import Worker
from txgearman.worker import Hooks, Job


def count_down(job: Job) -> dict[str, int]:
    """Blocks; ``{"from": 3}`` in, the number of steps out."""
    start = job.data["from"]
    for number in range(start):
        job.send_status(number, start)
        time.sleep(0.001)
    return {"steps": start}


def write_index(job: Job) -> None:
    """Must not run twice at the same time."""


def note_hooks(note: Callable[[str], None]) -> Hooks:
    def before(job: Job) -> None:
        note(f"begin {job.function.decode()}")

    def after(job: Job, result: bytes) -> None:
        note(f"end {job.function.decode()}: {result.decode()}")

    def failed(job: Job, failure: Failure) -> None:
        note(f"failed {job.function.decode()}: {failure.getErrorMessage()}")

    return Hooks(before_job=before, after_job=after, on_failure=failed)


def make_worker(reactor: IReactorTime, endpoints: list[str], note: Callable[[str], None]) -> Worker:
    worker = Worker(reactor, endpoints, threads=4, codec="json", hooks=note_hooks(note), drain=60)
    worker.register("count_down", count_down, time_limit=300)
    worker.register("write_index", write_index, concurrency=1)
    return worker
