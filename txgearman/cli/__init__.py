"""The command ``txgearman``: its entry point, and the message if its libraries are missing.

The commands and their options are in `job_commands` and `server_commands`. What they do is in modules that
these import when a command runs. Only the standard library may be imported here: the command must be able to
say what is missing, and its help and completion must be quick.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from typing import Final, NoReturn

LIBRARIES: Final = ("click", "rich")
"""What the extra ``cli`` installs."""


def main() -> NoReturn:
    """Run the command with the arguments of this process, and end the process with its exit code."""
    _replace_closed_streams()
    missing = [name for name in LIBRARIES if find_spec(name) is None]
    if missing:
        print(
            f"txgearman: the command needs {' and '.join(missing)}, "
            f"which {'is' if len(missing) == 1 else 'are'} not installed: pip install 'txgearman[cli]'",
            file=sys.stderr,
        )
        sys.exit(2)
    from txgearman.cli.app import app

    app.main(prog_name="txgearman")
    raise AssertionError("unreachable")


def _replace_closed_streams() -> None:
    """Open closed standard streams on the null device, before a socket gets their numbers."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    sys.stdin = sys.stdin or os.fdopen(0)
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")
