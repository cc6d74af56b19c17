"""Runs jobs with the pygearman package and prints what became of them. Expectations live in the tests.

Usage: python gearman_client.py PORT < request

The request is JSON: {"exceptions": bool, "jobs": [{"function", "unique" or null, "priority", "background",
"data" in base64, "repeat": how often}]}. The package cannot ask for exceptions. A line of output is a JSON
list: the job's index, the event, its values; data is in base64.
"""

import base64
import json
import sys

from gearman import GearmanClient
from gearman.client_handler import GearmanClientCommandHandler
from gearman.constants import PRIORITY_HIGH, PRIORITY_LOW, PRIORITY_NONE

PRIORITIES = {"high": PRIORITY_HIGH, "normal": PRIORITY_NONE, "low": PRIORITY_LOW}


class Handler(GearmanClientCommandHandler):
    """Prints each packet of a job."""

    def report(self, job_handle, event, *values):
        index = self.handle_to_request_map[job_handle].job.index
        print(json.dumps([index, event, *values]), flush=True)

    def report_data(self, job_handle, event, data):
        self.report(job_handle, event, base64.b64encode(data).decode())

    def recv_job_created(self, job_handle):
        result = super().recv_job_created(job_handle)
        self.report(job_handle, "created", job_handle.decode())
        return result

    def recv_work_data(self, job_handle, data):
        self.report_data(job_handle, "data", data)
        return super().recv_work_data(job_handle, data)

    def recv_work_warning(self, job_handle, data):
        self.report_data(job_handle, "warning", data)
        return super().recv_work_warning(job_handle, data)

    def recv_work_status(self, job_handle, numerator, denominator):
        self.report(job_handle, "status", int(numerator), int(denominator))
        return super().recv_work_status(job_handle, numerator, denominator)

    def recv_work_complete(self, job_handle, data):
        self.report_data(job_handle, "complete", data)
        return super().recv_work_complete(job_handle, data)

    def recv_work_fail(self, job_handle):
        self.report(job_handle, "fail")
        return super().recv_work_fail(job_handle)


class Client(GearmanClient):
    command_handler_class = Handler


def main():
    request = json.load(sys.stdin)
    client = Client([f"127.0.0.1:{sys.argv[1]}"])
    requests = []
    for index, wanted in enumerate(request["jobs"]):
        job = {
            "task": wanted["function"],
            "data": base64.b64decode(wanted["data"]) * wanted["repeat"],
            "unique": wanted["unique"],
            "priority": PRIORITIES[wanted["priority"]],
        }
        made = client._create_request_from_dictionary(job, background=wanted["background"])
        made.job.index = index
        requests.append(made)
    client.submit_multiple_requests(requests, poll_timeout=10)
    unfinished = [made for made in requests if not made.background and not made.complete]
    if unfinished:
        raise SystemExit(f"did not end: {unfinished}")


main()
