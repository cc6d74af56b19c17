"""A client and a worker on txgearman.blocking."""

from __future__ import annotations

from typing import Any

from benchmarks.programs.clock import BATCH, DATA, FUNCTION, Clock, arguments
from txgearman import blocking as gearman

TEXT = DATA.decode()


def submit(port: int, role: str, clock: Clock) -> None:
    client = gearman.GearmanClient([f"127.0.0.1:{port}"])
    client.submit_job(FUNCTION, TEXT, background=True)
    clock.start()
    if role == "each":
        for _ in range(clock.jobs):
            client.submit_job(FUNCTION, TEXT, background=True)
    elif role == "call":
        for _ in range(clock.jobs):
            client.submit_job(FUNCTION, TEXT)
    else:
        batch = [{"task": FUNCTION, "data": TEXT}] * BATCH
        for _ in range(0, clock.jobs, BATCH):
            client.submit_multiple_jobs(batch, background=True)
    clock.stop()


def work(port: int, clock: Clock) -> None:
    class Worker(gearman.GearmanWorker):
        def after_poll(self, any_activity: bool) -> bool:
            return not clock.over

    def function(_worker: Any, job: Any) -> Any:
        clock.count()
        return job.data

    worker = Worker([f"127.0.0.1:{port}"])
    worker.register_task(FUNCTION, function)
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
