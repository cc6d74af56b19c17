"""The constants of python-gearman: priorities and states of a request. Nothing else lives here."""

from __future__ import annotations

from typing import Final

DEFAULT_GEARMAN_PORT: Final = 4730

PRIORITY_NONE: Final = None
PRIORITY_LOW: Final = "LOW"
PRIORITY_HIGH: Final = "HIGH"

JOB_UNKNOWN: Final = "UNKNOWN"
"""Not submitted, or lost with its connection."""
JOB_PENDING: Final = "PENDING"
"""Sent, not yet accepted by the server."""
JOB_CREATED: Final = "CREATED"
"""Accepted by the server."""
JOB_FAILED: Final = "FAILED"
"""The job has failed, or the server refused it."""
JOB_COMPLETE: Final = "COMPLETE"
"""The job has ended with a result."""
