"""The way of the jobs from gearmand's queue and back, as an operator sees it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

from twisted.application.service import Service
from twisted.logger import Logger

from txgearman.server.gearmand.command_line import CommandLineError
from txgearman.server.gearmand.translation import GearmandTable, Translation

if TYPE_CHECKING:
    from txgearman.server.persistence.migration import Holdings

_log = Logger()


class TakeOverService(Service):
    """Takes the jobs of gearmand's queue over at its start, which is ahead of that of the server.

    The ports are open by then. So a gearmand that still runs on them has ended the start before.

    Args:
        table: gearmand's queue.
        store: The URL of the store.
        prefix: What the handles of jobs begin with.
    """

    def __init__(self, table: GearmandTable, store: str, prefix: str) -> None:
        self._table = table
        self._store = store
        self._prefix = prefix

    def startService(self) -> None:
        super().startService()
        # Not at the top: without a queue no database's library is needed.
        from txgearman.server.persistence.migration import take_over
        from txgearman.store.gearmand import GearmandQueue
        from txgearman.store.urls import open_store

        queue = GearmandQueue(self._table.url, self._table.table)
        outcome = take_over(queue, open_store(self._store), time.time(), self._prefix)
        if outcome.read:
            _log.info(
                "{count} jobs taken over from gearmand's table {table} in {place}",
                count=outcome.read,
                table=queue.table,
                place=queue.place,
            )


def give_back(translation: Translation, only_tell: bool, output: TextIO | None = None) -> None:
    """Give the jobs of the store back to gearmand's queue, and say beforehand what that cannot hold.

    Args:
        translation: The command line.
        only_tell: Whether nothing is to be written.
        output: Where it is said; None for the standard output.

    Raises:
        CommandLineError: There is no queue.
        StoreError: A server runs, or a database cannot be used. The same may be called again.
    """
    if translation.queue is None:
        raise CommandLineError("--give-back needs a queue: --queue-type=libsqlite3 or --queue-type=Postgres")
    from txgearman.server.persistence.migration import GiveBack
    from txgearman.store.gearmand import GearmandQueue
    from txgearman.store.urls import open_store

    output = sys.stdout if output is None else output
    queue = GearmandQueue(translation.queue.url, translation.queue.table)
    with GiveBack(queue, open_store(translation.said["store"])) as way_back:
        holdings = way_back.holdings()
        for line in _told(holdings, queue.table, queue.place):
            print(line, file=output, flush=True)
        if only_tell:
            return
        known = way_back.give()
        print(f"{holdings.jobs} jobs were given back.", file=output)
        if known:
            print(f"{known} of them were in gearmand's table before, by function and unique.", file=output)


def _told(holdings: Holdings, table: str, place: str) -> Iterator[str]:
    """What becomes of what the store holds, in lines."""
    yield f"{holdings.jobs} jobs go back to gearmand's table {table} in {place}, with new handles."
    if holdings.there:
        yield f"{holdings.there} jobs are in that table already."
    for count, fate in (
        (holdings.without_unique, "get their handle as a unique: the table has one job for each unique"),
        (holdings.retried, "have been lost or have failed before, which is forgotten"),
        (holdings.reducers, "have a reducer, which is forgotten"),
        (holdings.with_options, "have options of their own, which are forgotten"),
    ):
        if count:
            yield f"{count} of them {fate}."
    for count, fate in (
        (holdings.too_large, "jobs stay in the store: the table cannot hold their function or their time"),
        (holdings.dead, "dead jobs stay in the store"),
        (holdings.results, "results stay in the store"),
        (holdings.schedules, "schedules stay in the store, and do not tick"),
        (holdings.kept_uniques, "uniques of jobs that are done stay in the store"),
    ):
        if count:
            yield f"{count} {fate}."
