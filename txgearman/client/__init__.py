"""The client: submits jobs, follows them and asks for their state.

The names below are imported when they are first used: who sends admin commands alone, as most commands of
``txgearman`` do, does not wait for the rest.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_MODULES = {
    "Admin": "txgearman.client.admin",
    "BulkResult": "txgearman.wire.replies",
    "Client": "txgearman.client.client",
    "ConnectionInfo": "txgearman.wire.listings",
    "ConnectionStatus": "txgearman.wire.replies",
    "DataUpdate": "txgearman.client.updates",
    "DeadJobEntry": "txgearman.wire.replies",
    "FunctionInfo": "txgearman.wire.listings",
    "FunctionLimits": "txgearman.wire.listings",
    "FunctionStatus": "txgearman.wire.replies",
    "Job": "txgearman.client.job",
    "JobEntry": "txgearman.wire.replies",
    "JobInfo": "txgearman.wire.replies",
    "JobOptions": "txgearman.client.submission",
    "JobOutcome": "txgearman.client.job_window",
    "JobStatus": "txgearman.client.status",
    "JobSummary": "txgearman.wire.listings",
    "Priority": "txgearman.client.submission",
    "PriorityStatus": "txgearman.wire.replies",
    "ScheduleStatus": "txgearman.wire.replies",
    "ServerLimit": "txgearman.wire.listings",
    "StatusUpdate": "txgearman.client.updates",
    "Update": "txgearman.client.updates",
    "WarningUpdate": "txgearman.client.updates",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return value
