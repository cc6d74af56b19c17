"""The options that a peer may ask for by OPTION_REQ. Constants only.

Source: ``exceptions`` is the protocol's own. The others are extensions of it: a server that does not know one
answers UNKNOWN_OPTION, and a peer that has not asked gets none of the packets that belong to it. libgearman's
worker for one ends at a packet that it does not expect.
"""

from __future__ import annotations

from typing import Final

EXCEPTIONS: Final = b"exceptions"
"""WORK_EXCEPTION reaches this client, where it would get WORK_FAIL."""

CANCEL: Final = b"cancel"
"""JOB_CANCEL reaches this worker when a job that it runs is to stop."""

OUTCOMES: Final = b"outcomes"
"""This worker is told with each job which attempt it is, and may say that the job is to be retried or
rejected."""

HEARTBEAT: Final = b"heartbeat"
"""This worker may say of a job that it still runs, without clients hearing of it."""

SUBMIT_EXTENDED: Final = b"submit-extended"
"""This client may send SUBMIT_JOB_EXTENDED."""

RESULTS: Final = b"results"
"""This client may ask for the results of background jobs by GET_RESULT."""

EXTENSIONS: Final = frozenset({CANCEL, OUTCOMES, HEARTBEAT, RESULTS, SUBMIT_EXTENDED})
"""The options that gearmand does not know."""
