"""A program that takes over all it can: ``python -m tests.store.taker URL NAME``; writes the jobs' numbers.

It says when it is ready and begins when it reads a line, so that several can begin at the same time.
"""

from __future__ import annotations

import sys

from txgearman.store.urls import open_store


def main() -> None:
    url, name = sys.argv[1:]
    store = open_store(url)
    store.open(name, 3600.0)
    print("ready", flush=True)
    sys.stdin.readline()
    while jobs := store.take_over(7, 1):
        print(*(job.number for job in jobs), flush=True)


if __name__ == "__main__":
    main()
