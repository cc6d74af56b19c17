"""The client: submits jobs, follows them and asks for their state."""

from txgearman.client.admin import Admin
from txgearman.client.client import Client
from txgearman.client.job import Job
from txgearman.client.job_window import JobOutcome
from txgearman.client.status import JobStatus
from txgearman.client.submission import JobOptions, Priority
from txgearman.client.updates import DataUpdate, StatusUpdate, Update, WarningUpdate
from txgearman.wire.listings import ConnectionInfo, FunctionInfo, FunctionLimits, JobSummary, ServerLimit
from txgearman.wire.replies import (
    BulkResult,
    ConnectionStatus,
    DeadJobEntry,
    FunctionStatus,
    JobEntry,
    JobInfo,
    PriorityStatus,
    ScheduleStatus,
)

__all__ = [
    "Admin",
    "BulkResult",
    "Client",
    "ConnectionInfo",
    "ConnectionStatus",
    "DataUpdate",
    "DeadJobEntry",
    "FunctionInfo",
    "FunctionLimits",
    "FunctionStatus",
    "Job",
    "JobEntry",
    "JobInfo",
    "JobOptions",
    "JobOutcome",
    "JobStatus",
    "JobSummary",
    "Priority",
    "PriorityStatus",
    "ScheduleStatus",
    "ServerLimit",
    "StatusUpdate",
    "Update",
    "WarningUpdate",
]
