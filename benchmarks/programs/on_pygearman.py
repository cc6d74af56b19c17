"""A client and a worker on the pygearman package."""

from __future__ import annotations

from typing import Any

import gearman  # type: ignore[import-untyped]

from benchmarks.programs.clock import BATCH, DATA, FUNCTION, Clock, arguments

NAME = FUNCTION.encode()


def submit(port: int, role: str, clock: Clock) -> None:
    client = gearman.GearmanClient([f"127.0.0.1:{port}"])
    client.submit_job(NAME, DATA, background=True)
    clock.start()
    if role == "each":
        for _ in range(clock.jobs):
            client.submit_job(NAME, DATA, background=True)
    elif role == "call":
        for _ in range(clock.jobs):
            # Without a limit it does not wait for the result.
            client.submit_job(NAME, DATA, poll_timeout=60)
    else:
        batch = [{"task": NAME, "data": DATA}] * BATCH
        for _ in range(0, clock.jobs, BATCH):
            client.submit_multiple_jobs(batch, background=True)
    clock.stop()


def work(port: int, clock: Clock) -> None:
    class Worker(gearman.GearmanWorker):  # type: ignore[misc]
        def after_poll(self, any_activity: bool) -> bool:
            return not clock.over

    def function(_worker: Any, job: Any) -> Any:
        clock.count()
        return job.data

    worker = Worker([f"127.0.0.1:{port}"])
    worker.register_task(NAME, function)
    worker.work()
    worker.shutdown()


def main() -> None:
    role, port, clock = arguments()
    if role == "work":
        work(port, clock)
    else:
        submit(port, role, clock)
    clock.report()


main()
