"""The repertoire of jobs (see foreign.py) as a worker on the `gear` package. Expectations live in the tests.

Usage: python gear_worker.py PORT PREFIX
"""

import logging
import os
import sys
import threading

import gear


def chatty(job):
    job.sendWorkData(b"one\0" + job.arguments)
    job.sendWorkWarning(b"careful\0" + job.arguments)
    job.sendWorkStatus(1, 2)
    job.sendWorkData(b"two")
    job.sendWorkComplete(b"done")


def hold(job):
    """Runs until the file that the workload names exists."""
    job.sendWorkStatus(3, 7)
    never = threading.Event()
    while not os.path.exists(job.arguments):
        never.wait(0.005)
    job.sendWorkComplete(b"released")


REPERTOIRE = {
    "echo": lambda job: job.sendWorkComplete(job.arguments),
    "size": lambda job: job.sendWorkComplete(str(len(job.arguments)).encode()),
    "unique": lambda job: job.sendWorkComplete(job.unique),
    "empty": lambda job: job.sendWorkComplete(),
    "chatty": chatty,
    "fail": lambda job: job.sendWorkFail(),
    "raise": lambda job: job.sendWorkException(b"reason\0" + job.arguments),
    "hold": hold,
}


def main():
    logging.basicConfig(level=logging.WARNING)
    port, prefix = sys.argv[1:]
    worker = gear.Worker(f"gear-{prefix}")
    worker.addServer("127.0.0.1", int(port))
    worker.waitForServer()
    for name in REPERTOIRE:
        worker.registerFunction(prefix + name)
    while True:
        job = worker.getJob()
        REPERTOIRE[job.name.removeprefix(prefix)](job)


main()
