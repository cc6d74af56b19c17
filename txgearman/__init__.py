"""The Gearman job system for Twisted: a job server, a client and a worker."""

from txgearman.client import Client, Priority
from txgearman.version import VERSION
from txgearman.worker import Worker

__all__ = ["Client", "Priority", "Worker", "__version__"]

__version__ = VERSION
