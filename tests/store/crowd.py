"""A program that saves jobs until it is killed: ``python -m tests.store.crowd URL JOBS``. Its lease ends at
once, so that whoever comes after it need not wait.

It writes a line with the number of its start, and after each transaction of JOBS jobs a line with the
number of the last one. The jobs are `a_job`.
"""

from __future__ import annotations

import sys

from tests.store.jobs import job, save
from txgearman.store.contract import StoredJob
from txgearman.store.urls import open_store


def a_job(number: int) -> StoredJob:
    """The job with this number."""
    return job(number, b"unique %d" % number, b"data %d" % number * 20)


def main() -> None:
    url, jobs = sys.argv[1], int(sys.argv[2])
    store = open_store(url)
    print(store.open("crowd", 0.0), flush=True)
    last = 0
    while True:
        save(store, *(a_job(number) for number in range(last + 1, last + jobs + 1)))
        last += jobs
        print(last, flush=True)


if __name__ == "__main__":
    main()
