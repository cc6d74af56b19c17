"""A loss of power, for SQLite: the server is killed, and its files lose what it had written and not synced.

SIGKILL alone takes nothing that was written: the system keeps it. So power.c, preloaded into the server,
notes what each write replaces until the file is synced, and `lose_unsynced` puts that back.
"""

from __future__ import annotations

import atexit
import functools
import os
import random
import shutil
import subprocess
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Final

from tests.processes.servers import Failed

SOURCE: Final = Path(__file__).with_name("power.c")
UNDO: Final = "undo"

_record = Struct("=IIQQ32s")
_SYNCED: Final = 0


@dataclass(frozen=True, slots=True)
class _Write:
    """What a write replaced, and how long the file was."""

    offset: int
    old: bytes
    size: int


@functools.cache
def library() -> Path:
    """power.c, compiled for this process's time. Raises `Failed` where there is no C compiler."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise Failed("the loss of power needs a C compiler")
    folder = tempfile.mkdtemp(prefix="txgearman-power-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = Path(folder) / "power.so"
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", str(path), str(SOURCE), "-ldl"], check=True)
    return path


def lose_unsynced(folder: Path, rng: random.Random) -> int:
    """Take back the last unsynced writes to the database in `folder`: all, or some. Returns how many."""
    undo = folder.parent / UNDO
    if not undo.exists():
        return 0
    lost = 0
    for name, writes in _unsynced(undo.read_bytes()).items():
        kept = 0 if rng.random() < 0.5 else rng.randint(0, len(writes))
        path = folder / name
        if path.exists():
            with path.open("r+b") as file:
                for write in reversed(writes[kept:]):
                    file.seek(write.offset)
                    file.write(write.old)
                    file.truncate(write.size)
                    lost += 1
    undo.unlink()
    return lost


def _unsynced(data: bytes) -> dict[str, list[_Write]]:
    """The writes by file that no sync came after, in their order. The last record may be cut short."""
    writes: dict[str, list[_Write]] = defaultdict(list)
    at = 0
    while at + _record.size <= len(data):
        kind, length, offset, size, padded = _record.unpack_from(data, at)
        at += _record.size
        name = padded.rstrip(b"\0").decode()
        if kind == _SYNCED:
            writes.pop(name, None)
        elif at + length <= len(data):
            writes[name].append(_Write(offset, data[at : at + length], size))
        at += length
    return writes
