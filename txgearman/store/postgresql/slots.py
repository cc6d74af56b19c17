"""Slots in PostgreSQL: which server may run how many jobs, where a limit holds for all servers together.

Exchanges are made one at a time, by an advisory lock, so that each sees what those before it did: who is next
is exact, and no two wait for each other. All statements of one go to the database in one message, with the
commit at its end. So a server that is paused in the middle of its work holds no lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import psycopg
import sqlalchemy as sa

from txgearman.store.contract import MAX_SLOTS, Slot, SlotChanges, WantedSlots

LOCK_TIMEOUT: Final = 1
"""Seconds until an exchange fails that waits for another, the end of whose message may have been lost on the
way. What else is to be written waits meanwhile, and slots can be had later."""

EXCHANGE_LOCK: Final = 0x7478_6765_6172_736C
"""The advisory lock of an exchange: "txgearsl" in ASCII."""

_NOBODY: Final = 0
"""The owner of a slot that is free within an exchange. Starts are numbered from 1."""

_NO_CHANGES: Final = SlotChanges()
_Statement = tuple[str, tuple[Any, ...]]

_IS_ALIVE: Final = "SELECT number FROM txgearman_server WHERE number = %s::bigint AND NOT dead FOR SHARE"
_SET_TIMEOUT: Final = f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}s'"
_LOCK: Final = "SELECT pg_advisory_xact_lock(%s::bigint)"
_CONFIRM: Final = (
    "UPDATE txgearman_slot AS old SET confirmed = TRUE"
    " FROM unnest(%s::bytea[], %s::bytea[], %s::integer[]) AS new(function, key, slot)"
    " WHERE old.function = new.function AND old.key = new.key AND old.slot = new.slot"
    " AND old.owner = %s::bigint"
)
# One that is not confirmed has come back since it was released, where the release is made again.
_RELEASE: Final = (
    f"UPDATE txgearman_slot AS old SET owner = {_NOBODY}"
    " FROM unnest(%s::bytea[], %s::bytea[], %s::integer[]) AS new(function, key, slot)"
    " WHERE old.function = new.function AND old.key = new.key AND old.slot = new.slot"
    " AND old.owner = %s::bigint AND old.confirmed"
)
_FREE_OF_DEAD: Final = (
    f"UPDATE txgearman_slot SET owner = {_NOBODY}"
    " WHERE owner IN (SELECT number FROM txgearman_server WHERE dead)"
)
_UNWANT_OF_DEAD: Final = (
    "DELETE FROM txgearman_slot_want WHERE server IN (SELECT number FROM txgearman_server WHERE dead)"
)
_UNWANT: Final = (
    "DELETE FROM txgearman_slot_want AS old USING unnest(%s::bytea[], %s::bytea[]) AS new(function, key)"
    " WHERE old.function = new.function AND old.key = new.key AND old.server = %s::bigint"
)
# A server that has just been forgotten would want for ever.
_WANT: Final = (
    "INSERT INTO txgearman_slot_want (function, key, server, turn, most)"
    " SELECT new.function, new.key, alive.number, 1 + COALESCE("
    "(SELECT max(turn) FROM txgearman_slot_want AS old"
    " WHERE old.function = new.function AND old.key = new.key), 0), new.most"
    " FROM (SELECT number FROM txgearman_server WHERE number = %s::bigint AND NOT dead) AS alive,"
    " unnest(%s::bytea[], %s::bytea[], %s::integer[]) AS new(function, key, most)"
    " ON CONFLICT (function, key, server) DO UPDATE SET most = excluded.most"
)
# A server that knows of a lower limit than others keeps no slot from them. Of so many numbers as there are
# slots taken and to be given, at least those to be given are free.
_GIVE: Final = (
    "WITH changed AS ("
    f"SELECT function, key FROM txgearman_slot WHERE owner = {_NOBODY}"
    " UNION SELECT * FROM unnest(%s::bytea[], %s::bytea[])),"
    " taken AS (SELECT function, key, count(*) FILTER (WHERE owner IS NOT NULL) AS slots"
    f" FROM changed LEFT JOIN (SELECT * FROM txgearman_slot WHERE owner <> {_NOBODY}) AS slot"
    " USING (function, key) GROUP BY function, key),"
    " waiting AS (SELECT function, key, server, most, slots,"
    " row_number() OVER (PARTITION BY function, key ORDER BY turn) AS place"
    " FROM txgearman_slot_want JOIN taken USING (function, key) WHERE most > slots),"
    " given AS (SELECT * FROM waiting WHERE slots + place <= most),"
    " free AS (SELECT function, key, number,"
    " row_number() OVER (PARTITION BY function, key ORDER BY number) AS place"
    " FROM (SELECT function, key, slots, max(place) AS places FROM given GROUP BY function, key, slots)"
    " AS wanted, generate_series(0, slots + places - 1) AS number"
    " WHERE NOT EXISTS (SELECT 1 FROM txgearman_slot AS slot WHERE slot.function = wanted.function"
    f" AND slot.key = wanted.key AND slot.slot = number AND slot.owner <> {_NOBODY})),"
    " served AS (DELETE FROM txgearman_slot_want AS want USING given WHERE want.function = given.function"
    " AND want.key = given.key AND want.server = given.server)"
    " INSERT INTO txgearman_slot (function, key, slot, owner, confirmed)"
    " SELECT function, key, number, server, FALSE FROM given JOIN free USING (function, key, place)"
    " ON CONFLICT (function, key, slot) DO UPDATE SET owner = excluded.owner, confirmed = FALSE"
)
_DEAD_HAVE_SLOTS: Final = (
    "SELECT EXISTS (SELECT 1 FROM txgearman_server AS dead WHERE dead.dead AND ("
    "EXISTS (SELECT 1 FROM txgearman_slot WHERE owner = dead.number)"
    " OR EXISTS (SELECT 1 FROM txgearman_slot_want WHERE server = dead.number)))"
)
_DELETE_FREE: Final = f"DELETE FROM txgearman_slot WHERE owner = {_NOBODY}"
_NEW: Final = (
    "SELECT function, key, slot FROM txgearman_slot WHERE owner = %s::bigint AND NOT confirmed"
    f" LIMIT {MAX_SLOTS}"
)
# One that has as many as this server would have to give it back at once.
_WANTED: Final = (
    "SELECT function, key, count(*) FROM txgearman_slot_want AS want WHERE server <> %s::bigint"
    " AND (SELECT count(*) FROM txgearman_slot AS slot WHERE slot.function = want.function"
    " AND slot.key = want.key AND slot.owner = %s::bigint)"
    " > (SELECT count(*) FROM txgearman_slot AS slot WHERE slot.function = want.function"
    " AND slot.key = want.key AND slot.owner = want.server)"
    f" GROUP BY function, key LIMIT {MAX_SLOTS}"
)


def exchange(connection: sa.Connection, owner: int, changes: SlotChanges) -> tuple[bool, list[Slot]]:
    """Do what `Store.exchange_slots` promises, and free the slots of dead servers.

    Args:
        connection: The connection, in no transaction.
        owner: The start that this is for.
        changes: What has changed.

    Returns:
        Whether the start is not dead, and the slots that it has got and not confirmed.
    """
    wanted = _columns([(*key, most) for key, most in changes.wanted.items()], 3)
    statements: list[_Statement] = [
        (_SET_TIMEOUT, ()),
        (_LOCK, (EXCHANGE_LOCK,)),
        (_IS_ALIVE, (owner,)),
        (_FREE_OF_DEAD, ()),
        (_UNWANT_OF_DEAD, ()),
    ]
    if changes.released:
        statements.append((_RELEASE, (*_columns(changes.released, 3), owner)))
    if changes.confirmed:
        statements.append((_CONFIRM, (*_columns(changes.confirmed, 3), owner)))
    if changes.unwanted:
        statements.append((_UNWANT, (*_columns(sorted(changes.unwanted), 2), owner)))
    if changes.wanted:
        statements.append((_WANT, (owner, *wanted)))
    statements += [(_GIVE, tuple(wanted[:2])), (_DELETE_FREE, ()), (_NEW, (owner,))]
    results = _in_one_message(connection, statements)
    return bool(results[2]), [Slot._make(row) for row in results[-1]]


def free_slots_of_dead(connection: sa.Connection, owner: int) -> None:
    """Give the slots of dead servers to those who want them."""
    if connection.exec_driver_sql(_DEAD_HAVE_SLOTS).scalar():
        exchange(connection, owner, _NO_CHANGES)


def new_slots(connection: sa.Connection, owner: int) -> list[Slot]:
    """The slots that a start has got and not confirmed."""
    return [Slot._make(row) for row in connection.exec_driver_sql(_NEW, (owner,))]


def wanted_slots(connection: sa.Connection, owner: int) -> list[WantedSlots]:
    """The slots of a start that others want."""
    return [WantedSlots._make(row) for row in connection.exec_driver_sql(_WANTED, (owner, owner))]


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[list[Any]]:
    """The columns of rows."""
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]


def _in_one_message(connection: sa.Connection, statements: Sequence[_Statement]) -> list[list[Any]]:
    """Execute statements as one transaction that is sent as a whole; returns the rows of each."""
    driver: Any = connection.connection.driver_connection
    sql = ";".join(sql for sql, _ in statements)
    values = [value for _, values in statements for value in values]
    try:
        # Only with the values in its text may a message have several statements.
        cursor = psycopg.ClientCursor[Any](driver)
        cursor.execute(f"BEGIN;{sql};COMMIT", values)
        results: list[list[Any]] = []
        while cursor.nextset():
            results.append(cursor.fetchall() if cursor.description else [])
    except psycopg.Error as error:
        raise sa.exc.DBAPIError("an exchange of slots", None, error) from error
    return results[:-1]
