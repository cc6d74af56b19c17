"""The repertoire of jobs (see foreign.py) as a worker on the pygearman package. It expects nothing.

Usage: python gearman_worker.py PORT PREFIX
"""

import os
import sys
import threading

from gearman import GearmanWorker


def chatty(worker, job):
    worker.send_job_data(job, b"one\0" + job.data)
    worker.send_job_warning(job, b"careful\0" + job.data)
    worker.send_job_status(job, 1, 2)
    worker.send_job_data(job, b"two")
    return b"done"


class Raised(Exception):
    """What is to be sent as the job's exception."""


class Worker(GearmanWorker):
    def on_job_exception(self, current_job, exc_info):
        """As the package is meant to be used; it sends a failure after the exception by itself."""
        _, error, _ = exc_info
        if isinstance(error, Raised):
            self.send_job_exception(current_job, error.args[0])
            return False
        return super().on_job_exception(current_job, exc_info)


def fail(worker, job):
    raise RuntimeError


def exception(worker, job):
    raise Raised(b"reason\0" + job.data)


def hold(worker, job):
    """Runs until the file that the workload names exists."""
    worker.send_job_status(job, 3, 7)
    never = threading.Event()
    while not os.path.exists(job.data):
        never.wait(0.005)
    return b"released"


REPERTOIRE = {
    "echo": lambda worker, job: job.data,
    "size": lambda worker, job: str(len(job.data)).encode(),
    "unique": lambda worker, job: job.unique,
    "empty": lambda worker, job: b"",
    "chatty": chatty,
    "fail": fail,
    "raise": exception,
    "hold": hold,
}


def main():
    port, prefix = sys.argv[1:]
    worker = Worker([f"127.0.0.1:{port}"])
    worker.set_client_id(f"gearman-{prefix}")
    for name, function in REPERTOIRE.items():
        worker.register_task((prefix + name).encode(), function)
    worker.work()


main()
