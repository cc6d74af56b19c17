"""RQ on Redis.

What its pages say of speed:

* ``SimpleWorker`` is several times as fast as the default worker, which forks for each job, and is meant for
  very short jobs that can be trusted (https://github.com/rq/rq/blob/master/docs/benchmark.md). Both are
  measured.
* ``enqueue_many`` enqueues many jobs in one pipeline (https://python-rq.org/docs/).
* ``result_ttl=0`` deletes a result that nobody reads, and ``latest_result(timeout=...)`` waits for one
  without polling (https://python-rq.org/docs/results/).
"""

from __future__ import annotations

from typing import Final

from redis import Redis
from rq import Queue

from benchmarks.rivals.contract import RESULT_TIMEOUT, Calls
from benchmarks.rivals.jobs import ran, redis_url

queue = Queue(connection=Redis.from_url(redis_url()))


def noop(data: str) -> None:
    ran(data)


def echo(data: str) -> str:
    return data


def _enqueue(data: str) -> None:
    queue.enqueue(noop, data, result_ttl=0)


def _enqueue_many(batch: list[str]) -> None:
    queue.enqueue_many([Queue.prepare_data(noop, (data,), result_ttl=0) for data in batch])


def _call(data: str) -> object:
    return queue.enqueue(echo, data).latest_result(timeout=RESULT_TIMEOUT).return_value


CLIENT: Final = Calls(_enqueue, _call, _enqueue_many)
