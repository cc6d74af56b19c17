"""A plain script, without Twisted: orders a poster as an offline job, and asks later how far it is.

Run it as ``python order.py NAME``, which prints a handle, and then ``python order.py --ask HANDLE``.
"""

import json
import sys

from txgearman import blocking as gearman

WANTED = {"width": 1200, "height": 800}
LIMIT = 10.0  # seconds that the server may take to answer


def order(client, name):
    """Hand the job over; the server has it when this returns."""
    request = client.submit_job(
        "poster",
        json.dumps(WANTED),
        unique=name,
        background=True,
        poll_timeout=LIMIT,
    )
    return request.job.handle


def ask(client, handle):
    """What the server knows of the job with this handle, whoever submitted it."""
    job = gearman.job.GearmanJob(client.connection_list[0], handle, None, None, None)
    request = gearman.job.GearmanJobRequest(job)
    request.state = gearman.JOB_CREATED
    return client.get_job_status(request, poll_timeout=LIMIT).status


def told(status):
    """The status of a job in words."""
    if not status["known"]:
        return "It is not known: it is done, or has failed."
    if not status["running"]:
        return "It waits for a worker."
    done, rows = status["numerator"], status["denominator"]
    return f"It is being drawn: {done} of {rows} rows."


def main(arguments, server="localhost:4730"):
    client = gearman.GearmanClient([server])
    try:
        match arguments:
            case ["--ask", handle]:
                print(told(ask(client, handle)))
            case [name] if name.isidentifier():
                print(order(client, name))
            case _:
                return __doc__
    except gearman.errors.GearmanError as error:
        return f"No answer from {server}: {error}"
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
