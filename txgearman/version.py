"""The version of this package and its build, for whoever must say them. setup.py reads this file."""

from functools import cache
from importlib.util import find_spec

VERSION = "0.1.0"


@cache
def build() -> str:
    """Which build this is.

    Returns:
        ``compiled`` if the rooms without I/O were when the package was installed, ``pure Python`` if not.
    """
    spec = find_spec("txgearman.broker.broker")
    return "pure Python" if spec is None or str(spec.origin).endswith(".py") else "compiled"
