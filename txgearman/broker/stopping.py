"""Telling a worker that a job which it runs is to stop. What becomes of the job is decided elsewhere."""

from __future__ import annotations

from typing import Final

from txgearman.broker.entities import Job

CANCELLED: Final = b"cancelled"
"""An administrator has cancelled the job."""

TIMED_OUT: Final = b"timed-out"
"""The time limit of the run has passed: the job is given to another worker, is retried, or has ended."""

ABANDONED: Final = b"abandoned"
"""Nobody waits for the result of a foreground job any more."""

TAKEN_OVER: Final = b"taken-over"
"""The server has lost its lease, and another may run the job."""

DENIED: Final = b"denied"
"""The access policy has changed, and the worker may work on the function no more."""

SILENT: Final = b"silent"
"""The worker was not heard of for the time of the function's heartbeat."""


def stop_run(job: Job, reason: bytes) -> bool:
    """Tell the worker that runs a job to stop. A worker that has not asked for that is told nothing.

    Args:
        job: The job, which the caller takes from its worker next.
        reason: One of the reasons above.

    Returns:
        Whether the worker was told. Whatever it reports on this run is dropped then.
    """
    worker = job.worker
    if worker is None or not worker.connection.hears_cancel:
        return False
    worker.note_cancelled(job.handle)
    worker.connection.cancel(job.handle, reason)
    return True
