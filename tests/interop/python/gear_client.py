"""Runs jobs with the `gear` package and prints what became of them. Expectations live in the tests.

Usage: python gear_client.py PORT < request

The request is JSON: {"exceptions": bool, "jobs": [{"function", "unique" or null, "priority", "background",
"data" in base64, "repeat": how often}]}. A line of output is a JSON list: the job's index, the event, its
values; data is in base64.
"""

import base64
import json
import logging
import os
import sys
import threading

import gear

PRECEDENCE = {"high": gear.PRECEDENCE_HIGH, "normal": gear.PRECEDENCE_NORMAL, "low": gear.PRECEDENCE_LOW}


class Client(gear.Client):
    """Prints each packet of a job; counts the jobs that have not ended."""

    def __init__(self):
        super().__init__("gear-client")
        self.lock = threading.Lock()
        self.open = set()
        self.all_ended = threading.Event()

    def report(self, job, event, *values):
        with self.lock:
            print(json.dumps([job.index, event, *values]), flush=True)

    def report_data(self, job, event, packet):
        self.report(job, event, base64.b64encode(packet.getArgument(1, True)).decode())

    def end(self, job):
        self.open.remove(job)
        if not self.open:
            self.all_ended.set()

    def handleWorkData(self, packet):
        job = super().handleWorkData(packet)
        self.report_data(job, "data", packet)
        return job

    def handleWorkWarning(self, packet):
        job = super().handleWorkWarning(packet)
        self.report_data(job, "warning", packet)
        return job

    def handleWorkStatus(self, packet):
        job = super().handleWorkStatus(packet)
        self.report(job, "status", int(job.numerator), int(job.denominator))
        return job

    def handleWorkComplete(self, packet):
        job = super().handleWorkComplete(packet)
        self.report_data(job, "complete", packet)
        self.end(job)
        return job

    def handleWorkFail(self, packet):
        job = super().handleWorkFail(packet)
        self.report(job, "fail")
        self.end(job)
        return job

    def handleWorkException(self, packet):
        job = super().handleWorkException(packet)
        self.report_data(job, "exception", packet)
        self.end(job)
        return job


def main():
    logging.basicConfig(level=logging.WARNING)
    request = json.load(sys.stdin)
    client = Client()
    client.addServer("127.0.0.1", int(sys.argv[1]))
    client.waitForServer()
    if request["exceptions"] and not client.setOption("exceptions"):
        raise SystemExit("the server refused the option")
    jobs = []
    for index, wanted in enumerate(request["jobs"]):
        unique = wanted["unique"]
        job = gear.Job(
            wanted["function"].encode(),
            base64.b64decode(wanted["data"]) * wanted["repeat"],
            unique=None if unique is None else unique.encode(),
        )
        job.index = index
        jobs.append((job, wanted))
    client.open = {job for job, wanted in jobs if not wanted["background"]}
    for job, wanted in jobs:
        client.submitJob(
            job, background=wanted["background"], precedence=PRECEDENCE[wanted["priority"]], timeout=10
        )
        client.report(job, "created", job.handle.decode())
    if client.open and not client.all_ended.wait(10):
        raise SystemExit("jobs did not end")
    sys.stdout.flush()
    # Its threads end late, or wait for a time-out of theirs; nothing is left to do.
    os._exit(0)


main()
