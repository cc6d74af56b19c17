"""A client and a worker on the gear package. It has no call that submits several jobs."""

from __future__ import annotations

import gear  # type: ignore[import-untyped]

from benchmarks.programs.clock import DATA, FUNCTION, Clock, arguments, end

NAME = FUNCTION.encode()


def submit(port: int, clock: Clock) -> None:
    client = gear.Client("benchmark")
    client.addServer("127.0.0.1", port)
    client.waitForServer()
    client.submitJob(gear.Job(NAME, DATA), background=True)
    clock.start()
    for _ in range(clock.jobs):
        client.submitJob(gear.Job(NAME, DATA), background=True)
    clock.stop()


def work(port: int, clock: Clock) -> None:
    worker = gear.Worker("benchmark")
    worker.addServer("127.0.0.1", port)
    worker.waitForServer()
    worker.registerFunction(FUNCTION)
    while not clock.over:
        job = worker.getJob()
        clock.count()
        job.sendWorkComplete(job.arguments)


def main() -> None:
    role, port, clock = arguments()
    if role == "work":
        work(port, clock)
    else:
        submit(port, clock)
    clock.report()
    end()


main()
