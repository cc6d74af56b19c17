"""Celery on Redis.

What its pages advise for speed:

* ``ignore_result`` where nobody reads the result (https://docs.celeryq.dev/en/stable/userguide/tasks.html).
* A prefetch multiplier of 64 or 128 for many short tasks
  (https://docs.celeryq.dev/en/stable/userguide/optimizing.html).

It has no call that enqueues many tasks: a group sends one message after the other. ``chunks`` makes few large
tasks.
"""

from __future__ import annotations

from typing import Final

from celery import Celery

from benchmarks.rivals.contract import RESULT_TIMEOUT, Calls
from benchmarks.rivals.jobs import ran, redis_url

app = Celery("benchmark", broker=redis_url(), backend=redis_url())
app.conf.worker_prefetch_multiplier = 128


@app.task(name="noop", ignore_result=True)
def noop(data: str) -> None:
    ran(data)


@app.task(name="echo")
def echo(data: str) -> str:
    return data


CLIENT: Final = Calls(noop.delay, lambda data: echo.delay(data).get(timeout=RESULT_TIMEOUT))
