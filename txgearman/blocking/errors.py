"""The errors of python-gearman under their names there. Nothing else lives here.

`GearmanError` is the root of all errors of txgearman, so catching it catches the errors of the other rooms
too.
"""

from __future__ import annotations

import builtins

from txgearman.errors import GearmanError

__all__ = [
    "ConnectionError",
    "ExceededConnectionAttempts",
    "GearmanError",
    "InvalidAdminClientState",
    "InvalidClientState",
    "InvalidWorkerState",
    "ProtocolError",
    "ServerUnavailable",
    "UnknownCommandError",
]


class ConnectionError(GearmanError, builtins.ConnectionError):  # noqa: A001 - its name in python-gearman
    """One server could not be reached. A subclass of the built-in `ConnectionError` too."""


class ServerUnavailable(GearmanError):
    """No server of the list could be reached, or the connections to all were lost."""


class ProtocolError(GearmanError):
    """A server refuses an admin command."""


class UnknownCommandError(GearmanError):
    """The server does not know an admin command. Never raised here; for programs that catch it."""


class ExceededConnectionAttempts(GearmanError):
    """No server accepted a job in as many attempts as its `max_retries` allow."""


class InvalidClientState(GearmanError):
    """A request was used in a way its state does not allow."""


class InvalidWorkerState(GearmanError):
    """A worker was used in a way its state does not allow."""


class InvalidAdminClientState(GearmanError):
    """The server did not answer an admin command in time, or gave a wrong answer."""
