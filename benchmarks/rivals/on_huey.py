"""Huey on Redis.

What its pages advise for speed:

* More workers than the one of the default, and greenlets for tasks that wait for the network
  (https://huey.readthedocs.io/en/latest/consumer.html).
* ``--no-periodic`` where there are no periodic tasks (there too).
* ``notify_result`` to wait for a result without polling (https://huey.readthedocs.io/en/latest/guide.html).

It has no call that enqueues many tasks: ``map`` enqueues one after the other.
"""

from __future__ import annotations

from typing import Final

from huey import RedisHuey

from benchmarks.rivals.contract import RESULT_TIMEOUT, Calls
from benchmarks.rivals.jobs import ran, redis_url

huey = RedisHuey("benchmark", url=redis_url(), notify_result=True)


@huey.task(name="noop")
def noop(data: str) -> None:
    ran(data)


@huey.task(name="echo")
def echo(data: str) -> str:
    return data


CLIENT: Final = Calls(noop, lambda data: echo(data).get(blocking=True, timeout=RESULT_TIMEOUT))
