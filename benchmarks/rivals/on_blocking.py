"""txgearman.blocking: the API of python-gearman. Its worker has one job at a time."""

from __future__ import annotations

from typing import Any, Final

from benchmarks.rivals.contract import Calls
from benchmarks.rivals.jobs import HOST, port, ran
from txgearman import blocking as gearman

SERVERS: Final = [f"{HOST}:{port()}"]

client = gearman.GearmanClient(SERVERS)


def noop(_worker: Any, job: Any) -> str:
    ran(job.data)
    return ""


def echo(_worker: Any, job: Any) -> str:
    data: str = job.data
    return data


def _enqueue_many(batch: list[str]) -> None:
    client.submit_multiple_jobs([{"task": "noop", "data": data} for data in batch], background=True)


CLIENT: Final = Calls(
    lambda data: client.submit_job("noop", data, background=True),
    lambda data: client.submit_job("echo", data).result,
    _enqueue_many,
)


def work(_concurrency: int) -> None:
    """Work until the process is ended."""
    worker = gearman.GearmanWorker(SERVERS)
    worker.register_task("noop", noop)
    worker.register_task("echo", echo)
    worker.work()
