"""A worker that reverses a string, slowly, and says how far it is.

Run it as ``python worker.py tcp:127.0.0.1:4730``.
"""

import sys

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react

from txgearman import Worker


def make_delayed_reverse(reactor, output=print):
    """The function that the worker registers. The time comes from `reactor`."""

    def sleep(seconds):
        return deferLater(reactor, seconds)

    async def delayed_reverse(job):
        started = reactor.seconds()

        def say(text):
            output(f"Time elapsed = {reactor.seconds() - started:.2f}, {text}")

        output(f"Received job `{job.data.decode()}`, will run for 6 seconds")

        await sleep(2)
        say("updating status to 1/3")
        job.send_status(1, 3)

        await sleep(1)
        say("sent half-way data")
        job.send_data(b"half way data")

        await sleep(1)
        say("updating status to 2/3")
        job.send_status(2, 3)

        await sleep(2)
        say("updating status to 3/3 and returning")
        job.send_status(3, 3)

        return job.data[::-1]

    return delayed_reverse


async def main(reactor, endpoint="tcp:127.0.0.1:4730"):
    worker = Worker(reactor, endpoint)
    worker.register("delayed_reverse", make_delayed_reverse(reactor))
    await worker.start()
    await Deferred()  # works until the process is stopped


if __name__ == "__main__":
    react(lambda reactor, *arguments: Deferred.fromCoroutine(main(reactor, *arguments)), sys.argv[1:])
