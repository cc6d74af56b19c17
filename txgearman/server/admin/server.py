"""The admin commands about the server itself: version, log, end, connections, limits, store."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Final

from txgearman.access.policy import Right
from txgearman.broker.administration import Administration
from txgearman.server.admin.answers import END, OK, Changed, Denied, Later, check_right
from txgearman.server.config.process_options import Level
from txgearman.server.monitoring.limits import limits_of
from txgearman.version import VERSION
from txgearman.wire.names import escape, escape_word

if TYPE_CHECKING:
    from txgearman.server.interfaces import Peer, ProcessControl, Reloaded

FUNCTIONS_OF_A_PIECE: Final = 100
"""Functions of a worker that are one piece of ``workers``: one connection may have any number of them."""

MAX_DIGITS: Final = 19
"""Digits of the number of a connection, less one: the largest that 63 bits hold has as many."""

_LEVELS: Final = {level.value.encode(): level for level in Level}


def show_version(_peer: Peer, _words: list[bytes]) -> bytes:
    """``version``."""
    return b"OK txgearman-%b\n" % VERSION.encode()


def set_verbosity(peer: Peer, words: list[bytes]) -> bytes | Changed:
    """``verbose`` as gearmand has it, whatever follows; ``verbose LEVEL`` for peers on this machine."""
    threshold = peer.server.threshold
    level = _LEVELS.get(words[1].lower()) if len(words) > 1 else None
    if level is not None:
        if len(words) > 2:
            raise Denied("INVALID_ARGUMENTS verbose+or+verbose+LEVEL")
        if peer.access is not None:
            check_right(peer, words[0], Right.MANAGE)
        elif not peer.is_local:
            raise Denied("NOT_ALLOWED verbose+LEVEL+is+for+connections+from+this+machine")
        if threshold is None:
            raise Denied("NOT_ALLOWED The+level+of+the+log+is+not+up+to+this+server")
        threshold.override(level)
    line = b"OK %b\n" % (Level.INFO if threshold is None else threshold.current).value.upper().encode()
    return line if level is None else Changed(line)


def show_pid(_peer: Peer, _words: list[bytes]) -> bytes:
    """``getpid``."""
    return b"OK %d\n" % os.getpid()


def shut_down(peer: Peer, words: list[bytes]) -> bytes:
    """``shutdown``, ``shutdown graceful``, ``shutdown drain``."""
    if peer.access is None and not peer.is_local:
        raise Denied("NOT_ALLOWED shutdown+is+for+connections+from+this+machine")
    how = [word.lower() for word in words[1:]]
    if how == [b"drain"]:
        _check_process(peer, "shutdown+drain").drain()
    elif how in ([], [b"graceful"]):
        peer.server.shut_down(graceful=bool(how))
    else:
        raise Denied("INVALID_ARGUMENTS shutdown,+shutdown+graceful+or+shutdown+drain")
    return OK


def _check_process(peer: Peer, command: str) -> ProcessControl:
    """The process, for who may do `command` with it. Raises `Denied`."""
    if peer.access is None and not peer.is_local:
        raise Denied(f"NOT_ALLOWED {command}+is+for+connections+from+this+machine")
    if peer.server.process is None:
        raise Denied(f"NOT_ALLOWED {command}+is+not+up+to+this+server")
    return peer.server.process


def reload_configuration(peer: Peer, _words: list[bytes]) -> Later:
    """``reload``: the configuration file is read again. Says what has changed."""
    process = _check_process(peer, "reload")

    def ask(tell: Callable[[Reloaded], None]) -> None:
        # In a turn of its own, as by SIGHUP: it may end this connection.
        peer.server.reactor.callLater(0, lambda: tell(process.reload()))

    def reply(reloaded: Reloaded) -> bytes:
        if reloaded.error is not None:
            text = " ".join(reloaded.error.split())
            return b"ERR WRONG_CONFIGURATION %b\r\n" % text.replace(" ", "+").encode(
                "utf-8", "backslashreplace"
            )
        return b"OK %b\r\n" % escape(reloaded.summary.encode("utf-8", "backslashreplace"))

    return Later(ask, reply)


def quiet_worker(peer: Peer, words: list[bytes]) -> bytes:
    """``quiet NUMBER``: the worker of this connection gets no more jobs."""
    return _set_quiet(peer, words, True)


def unquiet_worker(peer: Peer, words: list[bytes]) -> bytes:
    """``unquiet NUMBER``: it gets jobs again."""
    return _set_quiet(peer, words, False)


def _set_quiet(peer: Peer, words: list[bytes], quiet: bool) -> bytes:
    number = int(words[1]) if words[1].isdigit() and len(words[1]) < MAX_DIGITS else -1
    connection = peer.server.connections.get(number)
    if connection is None:
        raise Denied("UNKNOWN_CONNECTION")
    Administration(peer.broker).quiet(connection.worker, quiet)
    return OK


def show_connections(peer: Peer) -> Iterator[bytes]:
    """``show connections``: number, host, client id, functions, running jobs, whether it is quiet,
    seconds."""
    for connection in list(peer.server.connections.values()):
        if connection.number in peer.server.connections:
            worker = connection.worker
            names = b"%d\t%b\t%b" % (
                connection.number,
                escape(connection.host.encode()),
                escape(connection.client_id),
            )
            counts = b"%d\t%d\t%d" % (len(worker.abilities), len(worker.jobs), worker.quiet)
            yield b"%b\t%b\t%.3f\n" % (names, counts, connection.age)
    yield END


def show_limits(peer: Peer) -> Iterator[bytes]:
    """``show limits``: each limit of the server, how much of it is used, and how often it said no."""
    for row in limits_of(peer.server):
        limit = b"%d" % row.limit if row.limit == int(row.limit) else b"%g" % row.limit
        yield b"%b\t%b\t%d\t%d\n" % (row.name.encode(), limit, row.used, row.refused)
    yield END


def show_store(peer: Peer) -> Iterator[bytes]:
    """``show store``: what keeps the jobs, and how that goes."""
    store_writer = peer.server.store_writer
    if store_writer is None:
        yield b"state\tnone\n"
    else:
        outage = store_writer.outage
        yield b"state\t%b\n" % (
            b"available" if outage is None else b"unavailable: " + escape(" ".join(outage.split()).encode())
        )
        counts = (
            (b"saved", store_writer.stored),
            (b"commits", store_writer.commits),
            (b"waiting", store_writer.pending.waiting),
            (b"unremoved", store_writer.pending.unremoved),
            (b"taken-over", store_writer.lease.taken_over),
            (b"done-twice", store_writer.rerun_elsewhere),
            (b"late-duplicates", store_writer.late_duplicates),
            (b"slots-leased", store_writer.slots.held),
            (b"slots-wanted", store_writer.slots.wanted),
        )
        for name, count in counts:
            yield b"%b\t%d\n" % (name, count)
    yield END


def show_workers(peer: Peer, _words: list[bytes]) -> Iterator[bytes]:
    """``workers``: all connections. The first column is gearmand's file descriptor; here it counts them."""
    for connection in list(peer.server.connections.values()):
        if connection.number not in peer.server.connections:
            # Gone since the list began.
            continue
        host, client_id = escape_word(connection.host.encode()), escape_word(connection.client_id)
        functions = reversed(list(connection.worker.abilities))
        piece = [b"%d %b %b :" % (connection.number, host, client_id)]
        while some := list(islice(functions, FUNCTIONS_OF_A_PIECE)):
            piece += [b" " + escape_word(function.name) for function in some]
            if len(some) == FUNCTIONS_OF_A_PIECE:
                yield b"".join(piece)
                piece = []
        piece.append(b"\n")
        yield b"".join(piece)
    yield END
