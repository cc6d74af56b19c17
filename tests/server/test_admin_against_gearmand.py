"""The admin commands on our server and on gearmand in the same situation: the answers must be the same.

What cannot be the same is made so first: handles lose their prefix, the first column of ``workers`` and
the order of functions and jobs, which gearmand takes from its hash tables, are dropped.

Left out is what differs on purpose: ``version`` and ``getpid``; ``drop function`` of a function with
jobs, which gearmand drops, or in letters of the other case; ``maxqueue`` ahead of the function's first
job, which gearmand forgets; a cancelled job, which it still counts; more than five words, for which it
closes the connection; ``create function`` behind a bare LF, which it cuts; ``shutdown``, which it does not
have; ``create function`` and ``maxqueue`` with an empty last word, which it takes for a name or a number;
NUL, which ends a word for it; and that a first line that is no command ends the connection here.
"""

from __future__ import annotations

import re

from twisted.trial.unittest import TestCase

from tests.interop.programs import Server, gearmand, txgearmand, until
from tests.server.lines import Line, close, connect
from tests.server.peers import req
from tests.support import needs_program, on_reactor

CONNECTIONS = 4
"""A client, two workers, and the one that asks."""

COMMANDS = (
    "status",
    "STATUS",
    "status extra words",
    "prioritystatus",
    "show jobs",
    "show unique jobs",
    "Show Unique JOBS",
    "workers",
    "",
    " status",
    "nonsense",
    "nonsense with words",
    "show",
    "show ",
    "show  jobs",
    "show jobs ",
    "show unique jobs ",
    "show unique jobs x",
    "show unique",
    "show all",
    "show jobs unique",
    "show jobs and more",
    "cancel",
    "cancel job",
    "cancel job H:nobody:99",
    "cancel work H:nobody:99",
    "cancel ",
    "cancel job ",
    "cancel work",
    "cancel job H:nobody:99 ",
    "cancel job H:nobody:99 x",
    "cancel job H:nobody:99 x y",
    "cancel work H:nobody:99 x",
    "create",
    "create function",
    "create queue x",
    "create function fresh",
    "create function fresh",
    "create function  fresh",
    "create function fresh ",
    "create function new x",
    "create  ",
    "status",
    "status ",
    "workers ",
    "drop function fresh x",
    "drop function fresh ",
    "drop function fresh x y",
    "drop function none x",
    "drop",
    "drop function",
    "drop queue fresh",
    "drop function none",
    "drop function served",
    "DROP FUNCTION fresh",
    "drop function fresh",
    "maxqueue",
    "maxqueue served",
    "maxqueue served 3",
    "maxqueue served 1 2 3",
    "maxqueue served many",
    "prioritystatus",
)


def normalised(answer: bytes) -> str:
    """`answer` without what two servers cannot have in common."""
    text = re.sub(r"H:[^:\t\n]+:(\d+)", r"H:\1", answer.decode())
    text = re.sub(r"(?m)^\d+ (127\.0\.0\.1 )", r"\1", text)
    if not text.endswith("\n.\n"):
        return text
    # A worker's functions are listed from the newest on by both; gearmand goes on from the one last served.
    rows = [
        " ".join([head, ":", *sorted(functions.split())]) if separator else row
        for row in text.split("\n")[:-2]
        for head, separator, functions in [row.partition(" :")]
    ]
    return "\n".join([*sorted(rows), ".", ""])


async def situation(server: Server) -> list[Line]:
    """Jobs of all kinds, one of them running, one lost by a worker, and two workers."""
    client, worker, lazy, gone = [await connect(server.port) for _ in range(4)]
    await client.say(
        req(22, b"the-client"),
        req(32, b"served", b"high", b"1"),
        req(18, b"served", b"normal", b"2"),
        req(7, b"served", b"waits", b"3"),
        req(34, b"other", b"low", b"4"),
        req(18, b"other", b"", b"5"),
        req(36, b"later", b"epoch", b"4102444800", b"6"),
        req(7, b"lost", b"lost", b"7"),
    )
    await gone.say(req(1, b"lost"), req(9))
    await close(gone)
    await server.has("lost", jobs=1, active=0, workers=0)
    await worker.say(req(22, b"the-worker"), req(1, b"served"), req(23, b"timed", b"60000"), req(9))
    await lazy.say(req(1, b"lazy"), req(4))
    return [client, worker, lazy]


async def answer(server: Server, command: str) -> bytes:
    """The answer to a command. gearmand may list a connection for a while that was closed already, such as
    that of the command before."""
    found = b""

    async def is_up_to_date() -> bool:
        nonlocal found
        found = await server.ask(command)
        return not command.startswith("workers") or found.count(b"\n") == CONNECTIONS + 1

    await until(is_up_to_date, f"{command!r} is up to date")
    return found


async def answers(server: Server) -> list[tuple[str, str]]:
    """Each command with its answer."""
    lines = await situation(server)
    try:
        return [(command, normalised(await answer(server, command))) for command in COMMANDS]
    finally:
        await close(*lines)


class AgainstGearmandTest(TestCase):
    """gearmand decides what is right."""

    maxDiff = None

    @needs_program("gearmand")
    @on_reactor
    async def test_every_command(self) -> None:
        async with gearmand() as theirs, txgearmand() as ours:
            expected, found = await answers(theirs), await answers(ours)
        different = [
            f"{command!r}: gearmand {wanted!r}, txgearman {got!r}"
            for (command, wanted), (_, got) in zip(expected, found, strict=True)
            if wanted != got
        ]
        self.assertEqual(different, [])

    @needs_program("gearmand")
    @on_reactor
    async def test_the_answers_are_not_all_alike(self) -> None:
        # Guards the comparison itself: the situation must be one that shows in the lists.
        async with gearmand() as theirs:
            told = dict(await answers(theirs))
        self.assertIn("served\t3\t1\t1", told["status"])
        self.assertIn("H:7\t1\t0\t0", told["show jobs"])
        self.assertIn("127.0.0.1 the-worker : served timed", told["workers"])
        self.assertIn("epoch", told["show unique jobs"])
