"""The API of python-gearman for Python 3: blocking clients and workers, for programs without a reactor.

``from txgearman import blocking as gearman`` takes the place of ``import gearman``. The network is that
of the Twisted client and worker, in a background thread.

Names are imported when they are first used: Twisted takes far longer to import than the rest, and a program
that only catches errors, or never submits a job, does without it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from txgearman.blocking import (
        admin_client,
        client,
        connection,
        connection_manager,
        constants,
        errors,
        job,
        worker,
    )
    from txgearman.blocking.admin_client import GearmanAdminClient
    from txgearman.blocking.client import GearmanClient
    from txgearman.blocking.connection import GearmanConnection
    from txgearman.blocking.constants import (
        JOB_COMPLETE,
        JOB_CREATED,
        JOB_FAILED,
        JOB_PENDING,
        JOB_UNKNOWN,
        PRIORITY_HIGH,
        PRIORITY_LOW,
        PRIORITY_NONE,
    )
    from txgearman.blocking.data_encoder import DataEncoder, NoopEncoder, TextEncoder
    from txgearman.blocking.job import GearmanJob, GearmanJobRequest
    from txgearman.blocking.name import Name
    from txgearman.blocking.worker import GearmanWorker

__all__ = [
    "JOB_COMPLETE",
    "JOB_CREATED",
    "JOB_FAILED",
    "JOB_PENDING",
    "JOB_UNKNOWN",
    "PRIORITY_HIGH",
    "PRIORITY_LOW",
    "PRIORITY_NONE",
    "DataEncoder",
    "GearmanAdminClient",
    "GearmanClient",
    "GearmanConnection",
    "GearmanJob",
    "GearmanJobRequest",
    "GearmanWorker",
    "Name",
    "NoopEncoder",
    "TextEncoder",
    "__version__",
    "admin_client",
    "client",
    "connection",
    "connection_manager",
    "constants",
    "errors",
    "job",
    "worker",
]

__version__ = "2.0.2"
"""The release of python-gearman whose API this is, for programs that look."""

_MODULES: Final = {
    "GearmanAdminClient": "admin_client",
    "GearmanClient": "client",
    "GearmanConnection": "connection",
    "DataEncoder": "data_encoder",
    "NoopEncoder": "data_encoder",
    "TextEncoder": "data_encoder",
    "GearmanJob": "job",
    "GearmanJobRequest": "job",
    "Name": "name",
    "GearmanWorker": "worker",
}
"""Where names come from; the constants are all in one module, and the other names are modules."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _MODULES.get(name, "constants" if name.isupper() else None)
    if module is None:
        value: Any = importlib.import_module(f"{__name__}.{name}")
    else:
        value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
