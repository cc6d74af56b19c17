"""Dramatiq on Redis.

What its pages advise for speed:

* ``hiredis`` with Redis (https://dramatiq.io/installation.html). It is installed, for all that use Redis.
* ``dramatiq-gevent`` where tasks wait for the network most of the time (https://dramatiq.io/advanced.html).

It has no call that enqueues many messages: a group enqueues one after the other.
"""

from __future__ import annotations

from typing import Final

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks.rivals.contract import RESULT_TIMEOUT, Calls
from benchmarks.rivals.jobs import ran, redis_url

broker = RedisBroker(url=redis_url())
broker.add_middleware(Results(backend=RedisBackend(url=redis_url())))
dramatiq.set_broker(broker)


@dramatiq.actor
def noop(data: str) -> None:
    ran(data)


@dramatiq.actor(store_results=True)
def echo(data: str) -> str:
    return data


def _call(data: str) -> object:
    return echo.send(data).get_result(block=True, timeout=1000 * RESULT_TIMEOUT)


CLIENT: Final = Calls(noop.send, _call)
