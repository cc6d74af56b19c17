"""The command ``txgearman``: its way in, and what is said where its libraries are missing.

What the commands and their options are is in `jobs` and `servers`; what they do, in the modules that these
import when a command runs. Nothing here may import more than the standard library, so that the command can
say what is missing, and its help and the completion of the shell are quick.
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
    """Let standard streams that the caller has closed lead nowhere, before a socket gets their numbers."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    sys.stdin = sys.stdin or os.fdopen(0)
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")
