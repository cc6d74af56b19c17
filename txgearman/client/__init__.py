"""The client: submits jobs, follows them and asks for their state."""

from txgearman.client.client import Client
from txgearman.client.job import Job
from txgearman.client.status import JobStatus
from txgearman.client.submission import Priority
from txgearman.client.updates import DataUpdate, StatusUpdate, Update, WarningUpdate

__all__ = [
    "Client",
    "DataUpdate",
    "Job",
    "JobStatus",
    "Priority",
    "StatusUpdate",
    "Update",
    "WarningUpdate",
]
