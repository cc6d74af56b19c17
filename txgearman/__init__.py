"""The Gearman job system for Twisted: a job server, a client and a worker.

The names below are imported when they are first used: the job server needs no client, and the command's
help no Twisted.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from txgearman.version import VERSION

if TYPE_CHECKING:
    from txgearman.client import Client, Priority
    from txgearman.worker import Worker

__all__ = ["Client", "Priority", "Worker", "__version__"]

__version__ = VERSION

_ROOMS = {"Client": "txgearman.client", "Priority": "txgearman.client", "Worker": "txgearman.worker"}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_ROOMS[name]), name)
