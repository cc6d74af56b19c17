"""The worker: offers functions to servers and runs the jobs it is given."""

from txgearman.worker.functions import Callback
from txgearman.worker.hooks import Hooks
from txgearman.worker.job import Job
from txgearman.worker.worker import DRAIN_SECONDS, Worker

__all__ = ["DRAIN_SECONDS", "Callback", "Hooks", "Job", "Worker"]
