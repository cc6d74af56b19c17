"""What a process of ``trial --jobs`` needs in order to run these tests. Nothing happens under other runners.

It is imported by every program of the tests, so it imports nothing that they might not need.
"""

from __future__ import annotations

import sys
from typing import Any, Final

LONGEST_LINE: Final = 10_000
"""Characters of a line of the log that reach trial's own. In UTF-8 and with escapes they fit a value of AMP,
which has 65535 bytes."""


def cut_long_lines() -> None:
    """Cut what is logged where trial would fail the test for it.

    A worker of trial sends each line of its log to trial as one value of AMP. A longer line is an error of
    the test that runs. Some of these tests log megabytes, as a user's functions may.
    """
    commands = sys.modules.get("twisted.trial._dist.managercommands")
    if commands is None:
        return
    ((name, kind),) = commands.TestWrite.arguments

    class Cut(type(kind)):  # type: ignore[misc]
        """A text, or its beginning."""

        def toString(self, inObject: Any) -> bytes:
            return bytes(super().toString(inObject[:LONGEST_LINE]))

    commands.TestWrite.arguments = [(name, Cut())]
