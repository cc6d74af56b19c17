"""The API of python-gearman for Python 3: blocking clients and workers, for programs without a reactor.

``from txgearman import blocking as gearman`` takes the place of ``import gearman``. The network is that
of the Twisted client and worker, in a background thread.
"""

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
