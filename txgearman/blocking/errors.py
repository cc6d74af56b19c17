"""The errors of python-gearman under their names there. Nothing else lives here.

`GearmanError` is the root of all errors of txgearman, so to catch it catches those of the other rooms too.
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
    """One server could not be reached. Also an error of the built-in class of this name."""


class ServerUnavailable(GearmanError):
    """No server of the list could be reached, or the connections to all were lost."""


class ProtocolError(GearmanError):
    """A server's answer cannot be understood."""


class UnknownCommandError(GearmanError):
    """The server does not know an admin command."""


class ExceededConnectionAttempts(GearmanError):
    """A job was submitted as often as its `max_retries` allow, and no server has accepted it."""


class InvalidClientState(GearmanError):
    """A request was used in a way its state does not allow."""


class InvalidWorkerState(GearmanError):
    """A worker was used in a way its state does not allow."""


class InvalidAdminClientState(GearmanError):
    """The server did not answer an admin command within the time limit, or not what was asked."""
