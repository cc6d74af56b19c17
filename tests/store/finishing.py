"""A program that lets jobs be done until it is killed: ``python -m tests.store.finishing URL FIRST``.

The jobs are `a_job`, from the number FIRST on. It saves `FINISHED_AT_ONCE` of them, then lets all be done
in one transaction, and writes a line with the number of the last one.
"""

from __future__ import annotations

import sys
from typing import Final

from tests.store.crowd import a_job
from tests.store.jobs import keep, result, save
from txgearman.store.urls import open_store

FINISHED_AT_ONCE: Final = 50


def main() -> None:
    url, first = sys.argv[1], int(sys.argv[2])
    store = open_store(url)
    store.open("finishing", 0.0)
    while True:
        jobs = [a_job(number) for number in range(first, first + FINISHED_AT_ONCE)]
        save(store, *jobs)
        keep(store, *map(result, jobs))
        first += FINISHED_AT_ONCE
        print(first - 1, flush=True)


if __name__ == "__main__":
    main()
