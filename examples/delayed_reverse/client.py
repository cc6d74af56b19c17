"""Submits a job, online and then offline, and asks once a second how far it is.

Run it as ``python client.py tcp:127.0.0.1:4730``.
"""

import sys
from collections import deque

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react

from txgearman import Client
from txgearman.errors import NoResult

# Seconds for which the worker may go ahead: it changes something on full seconds, and a client that
# asked in the same instant would see the one thing or the other by chance.
HEAD_START = 0.1


async def watch(reactor, client, handle, updates, output):
    """Ask eight times, a second apart, for the status of a job, and print it.

    `updates` are the data updates that came since the last line.
    """
    await deferLater(reactor, HEAD_START)
    started = reactor.seconds()
    for second in range(8):
        await deferLater(reactor, max(0, started + second - reactor.seconds()))
        status = await client.status(handle)
        output(
            f"Time elapsed = {reactor.seconds() - started:.2f}, "
            f"Known = {status.known}, Running = {status.running}, "
            f"Status = {status.numerator}/{status.denominator}, data = {updates}"
        )
        updates.clear()


async def online(reactor, endpoint, output):
    """The client keeps its connection: it is sent data while the job runs, and the return value."""
    output("-- online --")
    async with Client(reactor, endpoint) as client:
        job = await client.submit("delayed_reverse", b"Hello World!")
        updates = deque()
        job.on_data(lambda data: updates.append(data.decode()))
        await watch(reactor, client, job.handle, updates, output)
        result = await job.result()
        output(f"Returned {result.decode()!r}")


async def offline(reactor, endpoint, output):
    """The client hands the job over and goes away; a second one asks for its status."""
    output("-- offline --")
    async with Client(reactor, endpoint) as client:
        job = await client.submit("delayed_reverse", b"Hello World!", background=True)
        try:
            await job.result()
        except NoResult as error:
            output(f"No return value: {error}")
    async with Client(reactor, endpoint) as another_client:
        await watch(reactor, another_client, job.handle, deque(), output)


async def main(reactor, endpoint="tcp:127.0.0.1:4730", output=print):
    await online(reactor, endpoint, output)
    await offline(reactor, endpoint, output)


if __name__ == "__main__":
    react(lambda reactor, *arguments: Deferred.fromCoroutine(main(reactor, *arguments)), sys.argv[1:])
