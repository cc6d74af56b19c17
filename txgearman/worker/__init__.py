"""The worker: offers functions to a server and runs the jobs it is given."""

from txgearman.worker.functions import Callback
from txgearman.worker.job import Job
from txgearman.worker.worker import Worker

__all__ = ["Callback", "Job", "Worker"]
