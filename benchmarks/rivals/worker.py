"""The process of one of txgearman's workers: ``python -m benchmarks.rivals.worker on_twisted 16``."""

from __future__ import annotations

import importlib
import sys


def main() -> None:
    module, concurrency = sys.argv[1:]
    importlib.import_module(f"benchmarks.rivals.{module}").work(int(concurrency))


if __name__ == "__main__":
    main()
