"""The same bytes to our server and to gearmand, where their answers are the same to the byte."""

from __future__ import annotations

import re
from struct import pack, unpack_from

from twisted.trial.unittest import TestCase

from tests.interop.expectations import Expectations, OnGearmand, OnTxgearman
from tests.interop.programs import Server, exchange
from tests.support import on_reactor
from txgearman.wire import packets as p
from txgearman.wire.limits import HEADER_SIZE

MARK = b"<<the end of the answer>>"
NOT_EXPECTED = (p.ERROR, b"INVALID_COMMAND\0Command not expected")

Answer = tuple[int, bytes]
"""A packet's number and body, or `TEXT` and the text up to the next packet."""


def request(number: int, *fields: bytes) -> bytes:
    """A packet to a server, framed here and not by the package."""
    body = b"\0".join(fields)
    return pack(">4sII", b"\0REQ", number, len(body)) + body


END = pack(">4sII", b"\0RES", p.ECHO_RES, len(MARK)) + MARK


def cut(raw: bytes) -> list[Answer]:
    """The answers ahead of the mark. Job handles are counted: the first seen becomes ``<0>``."""
    raw = raw[: raw.index(END)]
    answers: list[Answer] = []
    while raw:
        if raw.startswith(b"\0RES"):
            number, size = unpack_from(">II", raw, 4)
            answers.append((number, raw[12 : 12 + size]))
            raw = raw[12 + size :]
        else:
            text, magic, rest = raw.partition(b"\0RES")
            answers.append((p.TEXT, text))
            raw = magic + rest
    handles: list[bytes] = []

    def counted(match: re.Match[bytes]) -> bytes:
        if match[0] not in handles:
            handles.append(match[0])
        return b"<%d>" % handles.index(match[0])

    return [(number, re.sub(rb"H:[^\0\s:]+:\d+", counted, body)) for number, body in answers]


async def answers_to(server: Server, *requests: bytes) -> list[Answer]:
    """What the server answers to `requests` that are written at once on one connection."""
    written = b"".join(requests) + request(p.ECHO_REQ, MARK)
    return cut(await exchange(server.port, written, lambda received: END in received))


class Bytes(Expectations):
    """Answers to the byte."""

    async def check_each(self, expected: dict[bytes, Answer]) -> None:
        """One connection for all requests, one answer to each."""
        async with self.serve() as server:
            found = await answers_to(server, *expected)
        self.assertEqual(found, list(expected.values()))

    @on_reactor
    async def test_admin_lines_that_are_wrong(self) -> None:
        unknown = b"ERR UNKNOWN_COMMAND Unknown+server+command%s\r\n"
        arguments = b"ERR INVALID_ARGUMENTS An+incomplete+set+of+arguments+was+sent+to+this+command+%s\r\n"
        lines = {
            # First a command: ours closes a connection whose first line is none.
            b"drop function nobodys": b"ERR function not found\r\n",
            b"": unknown % b"",
            b"   ": unknown % b"",
            b" status": unknown % b"",
            b"Nonsense": unknown % b"Nonsense",
            b"one two three four five": unknown % b"one",
            b"show": unknown % b"show",
            b"show something": b"ERR UNKNOWN_SHOW_ARGUMENTS\r\n",
            b"show unique": b"ERR UNKNOWN_SHOW_ARGUMENTS\r\n",
            b"show jobs now": b"ERR UNKNOWN_SHOW_ARGUMENTS\r\n",
            b"cancel": unknown % b"cancel",
            b"cancel job": unknown % b"cancel",
            b"cancel something else": b"ERR UNKNOWN_ERROR\r\n",
            b"cancel job H:nobody": b"ERR UNKNOWN_JOB\r\n",
            b"create": arguments % b"create",
            b"create function": arguments % b"create",
            b"drop": arguments % b"drop",
            b"drop function": arguments % b"drop",
            b"drop function nobodys too": arguments % b"drop",
            b"maxqueue": arguments % b"maxqueue",
        }
        for line_end in (b"\n", b"\r\n"):
            async with self.serve() as server:
                found = await answers_to(server, *(line + line_end for line in lines))
            self.assertEqual(found, [(p.TEXT, b"".join(lines.values()))])

    @on_reactor
    async def test_reports_on_jobs_that_do_not_exist(self) -> None:
        in_result = (p.ERROR, b"JOB_NOT_FOUND\0Job given in work result not found")
        on_server = (p.ERROR, b"JOB_NOT_FOUND\0Job does not exist on server")
        in_exception = (
            p.ERROR,
            b"JOB_NOT_FOUND\0An exception was received for a job that does not exist",
        )
        await self.check_each(
            {
                request(p.WORK_STATUS, b"H:nobody", b"1", b"2"): in_result,
                request(p.WORK_COMPLETE, b"H:nobody", b"data"): in_result,
                request(p.WORK_FAIL, b"H:nobody"): in_result,
                request(p.WORK_EXCEPTION, b"H:nobody", b"data"): in_exception,
                request(p.WORK_DATA, b"H:nobody", b"data"): on_server,
                request(p.WORK_WARNING, b"H:nobody", b"data"): on_server,
                request(p.WORK_STATUS, b"", b"1", b"2"): in_result,
                request(p.WORK_COMPLETE, b"", b"data"): in_result,
                request(p.WORK_FAIL, b""): in_result,
                request(p.WORK_EXCEPTION, b"", b"data"): in_exception,
                request(p.WORK_DATA, b"", b"data"): on_server,
                request(p.WORK_WARNING, b"", b"data"): on_server,
                request(p.GET_STATUS, b"H:nobody"): (p.STATUS_RES, b"H:nobody\x000\x000\x000\x000"),
                request(p.GET_STATUS, b"H:nobody\0"): (p.STATUS_RES, b"H:nobody\x000\x000\x000\x000"),
                request(p.GET_STATUS, b""): (p.STATUS_RES, b"\x000\x000\x000\x000"),
                request(p.GET_STATUS_UNIQUE, b"nobody"): (
                    p.STATUS_RES_UNIQUE,
                    b"nobody\x000\x000\x000\x000\x000",
                ),
                request(p.GET_STATUS_UNIQUE, b"-"): (p.STATUS_RES_UNIQUE, b"-\x000\x000\x000\x000\x000"),
            }
        )

    @on_reactor
    async def test_packets_that_are_not_for_servers(self) -> None:
        await self.check_each(
            {
                request(number, *[b"x"] * fields): NOT_EXPECTED
                for number, fields in (
                    (p.UNUSED, 0),
                    (p.NOOP, 0),
                    (p.JOB_CREATED, 1),
                    (p.NO_JOB, 0),
                    (p.JOB_ASSIGN, 3),
                    (p.ECHO_RES, 1),
                    (p.ERROR, 2),
                    (p.STATUS_RES, 5),
                    (p.ALL_YOURS, 0),
                    (p.OPTION_RES, 1),
                    (p.JOB_ASSIGN_UNIQ, 4),
                    (p.JOB_ASSIGN_ALL, 5),
                    (p.STATUS_RES_UNIQUE, 6),
                )
            }
        )

    @on_reactor
    async def test_small_questions(self) -> None:
        unknown_option = (p.ERROR, b"UNKNOWN_OPTION\0Server does not recognize given option")
        await self.check_each(
            {
                request(p.ECHO_REQ): (p.ECHO_RES, b""),
                request(p.ECHO_REQ, b"a", b"b", b""): (p.ECHO_RES, b"a\0b\0"),
                request(p.OPTION_REQ, b"exceptions"): (p.OPTION_RES, b"exceptions"),
                request(p.OPTION_REQ, b"EXCEPTIONS"): (p.OPTION_RES, b"EXCEPTIONS"),
                request(p.OPTION_REQ, b"something"): unknown_option,
                request(p.OPTION_REQ, b""): unknown_option,
                request(p.OPTION_REQ, b"x" * 64): unknown_option,
                request(p.GRAB_JOB): (p.NO_JOB, b""),
                request(p.GRAB_JOB, b"ignored"): (p.NO_JOB, b""),
                request(p.GRAB_JOB_UNIQ): (p.NO_JOB, b""),
                request(p.GRAB_JOB_ALL): (p.NO_JOB, b""),
                b"\0RES" + request(p.ECHO_REQ)[4:]: (
                    p.ERROR,
                    b"INVALID_MAGIC\0Request magic expected",
                ),
            }
        )

    @on_reactor
    async def test_what_each_grab_is_given(self) -> None:
        with_unique = (p.JOB_ASSIGN_UNIQ, b"<0>\0%b\0unique\0data\0")
        for number, (grab, plain, reduced) in enumerate(
            (
                (p.GRAB_JOB, (p.JOB_ASSIGN, b"<0>\0%b\0data\0"), (p.JOB_ASSIGN, b"<0>\0%b\0data\0")),
                (p.GRAB_JOB_UNIQ, with_unique, with_unique),
                (p.GRAB_JOB_ALL, with_unique, (p.JOB_ASSIGN_ALL, b"<0>\0%b\0unique\0reducer\0data\0")),
            )
        ):
            f, g = (f"{self.prefix}{number}{kind}".encode() for kind in ("plain", "reduced"))
            async with self.serve() as server:
                found = await answers_to(
                    server,
                    request(p.CAN_DO, f),
                    request(p.SUBMIT_JOB, f, b"unique", b"data", b""),
                    request(grab),
                )
                self.assertEqual(found, [(p.JOB_CREATED, b"<0>"), (plain[0], plain[1] % f)])
                found = await answers_to(
                    server,
                    request(p.CAN_DO, g),
                    request(p.SUBMIT_REDUCE_JOB, g, b"unique", b"reducer", b"", b"data", b""),
                    request(grab),
                )
                self.assertEqual(found, [(p.JOB_CREATED, b"<0>"), (reduced[0], reduced[1] % g)])

    @on_reactor
    async def test_sleep(self) -> None:
        f = f"{self.prefix}f".encode()
        submit = request(p.SUBMIT_JOB, f, b"", b"data")
        sleep = request(p.PRE_SLEEP)
        created, wake = (p.JOB_CREATED, b"<0>"), (p.NOOP, b"")
        async with self.serve() as server:
            found = await answers_to(server, request(p.CAN_DO, f), submit, sleep, sleep)
            self.assertEqual(found, [created, wake, wake])
            # Another function: gearmand may still have the job of the connection that has gone.
            found = await answers_to(server, request(p.CAN_DO, f + b"2"), request(p.GRAB_JOB), sleep)
            self.assertEqual(found, [(p.NO_JOB, b"")])

    @on_reactor
    async def test_a_worker_takes_by_priority(self) -> None:
        f = f"{self.prefix}f".encode()
        async with self.serve() as server:
            found = await answers_to(
                server,
                request(p.CAN_DO, f),
                request(p.SUBMIT_JOB_LOW, f, b"", b"low"),
                request(p.SUBMIT_JOB, f, b"", b"normal"),
                request(p.SUBMIT_JOB_HIGH, f, b"", b"high"),
                *[request(p.GRAB_JOB)] * 4,
            )
        self.assertEqual(
            found,
            [
                (p.JOB_CREATED, b"<0>"),
                (p.JOB_CREATED, b"<1>"),
                (p.JOB_CREATED, b"<2>"),
                (p.JOB_ASSIGN, b"<2>\0%b\0high" % f),
                (p.JOB_ASSIGN, b"<1>\0%b\0normal" % f),
                (p.JOB_ASSIGN, b"<0>\0%b\0low" % f),
                (p.NO_JOB, b""),
            ],
        )

    @on_reactor
    async def test_limits_of_a_queue(self) -> None:
        f = f"{self.prefix}f".encode()
        background = (p.SUBMIT_JOB_HIGH_BG, p.SUBMIT_JOB_BG, p.SUBMIT_JOB_LOW_BG)
        full = (p.ERROR, b"QUEUE_ERROR\0Job queue is full")
        async with self.serve_alone() as server:
            found = await answers_to(
                server,
                b"create function %b\r\nmaxqueue %b 1 2 3\r\n" % (f, f),
                *(request(submit, f, b"", b"x") for submit in background for _ in range(2)),
            )
        created = [(p.JOB_CREATED, b"<%d>" % number) for number in range(3)]
        self.assertEqual(
            found, [(p.TEXT, b"OK\r\nOK\r\n"), created[0], full, created[1], full, created[2], full]
        )

    @on_reactor
    async def test_a_unique_that_is_too_long(self) -> None:
        f = f"{self.prefix}f".encode()
        async with self.serve() as server:
            found = await answers_to(server, request(p.SUBMIT_JOB, f, b"u" * 65, b"x"))
        self.assertEqual(found, [(p.ERROR, b"ARGUMENT_TOO_LARGE\0Unique value too large")])

    @on_reactor
    async def test_time_limits_that_are_none(self) -> None:
        """Node's package gearman sends the milliseconds as four bytes; the function is offered anyway."""
        async with self.serve() as server:
            for number, limit in enumerate((b"\0\0\x03\xe8", b"-5", b"0")):
                f = f"{self.prefix}{number}".encode()
                *others, (_, text) = await answers_to(
                    server, request(p.CAN_DO_TIMEOUT, f, limit), b"status\n"
                )
                self.assertEqual(others, [])
                self.assertIn(f + b"\t0\t0\t1\n", text)

    @on_reactor
    async def test_statuses_that_are_not_whole_numbers(self) -> None:
        """Python's descendants of python-gearman send fractions. Servers read the number in front."""
        f = f"{self.prefix}f".encode()
        async with self.serve() as server:
            prepare = request(p.CAN_DO, f) + request(p.SUBMIT_JOB, f, b"", b"x") + request(p.GRAB_JOB)
            handle = await self.handle_of_next(server)
            found = await answers_to(
                server,
                prepare,
                request(p.WORK_STATUS, handle, b"1.5", b"3.25"),
                request(p.GET_STATUS, handle),
                request(p.WORK_COMPLETE, handle, b""),
            )
        self.assertEqual(
            found[2:],
            [
                (p.WORK_STATUS, b"<0>\x001.5\x003.25"),
                (p.STATUS_RES, b"<0>\x001\x001\x001\x003"),
                (p.WORK_COMPLETE, b"<0>\0"),
            ],
        )

    async def handle_of_next(self, server: Server) -> bytes:
        """The handle that `server` will give to the next job: both count."""
        f = f"{self.prefix}counted".encode()
        raw = await exchange(
            server.port, request(p.SUBMIT_JOB, f, b"", b"x"), lambda received: len(received) > HEADER_SIZE
        )
        prefix, _, number = raw[HEADER_SIZE:].rpartition(b":")
        return b"%b:%d" % (prefix, int(number) + 1)

    @on_reactor
    async def test_names_in_the_list_of_workers(self) -> None:
        f = f"{self.prefix}f".encode()
        async with self.serve_alone() as server:
            for name, shown in ((b"me", b"me"), (b"", b""), (b"i" * 200, b"i" * 127)):
                ((number, text),) = await answers_to(
                    server, request(p.SET_CLIENT_ID, name), request(p.CAN_DO, f), b"workers\n"
                )
                self.assertEqual(number, p.TEXT)
                self.assertRegex(text, rb"(?m)^\d+ 127\.0\.0\.1 %b : %b$" % (shown, re.escape(f)))


class BytesTest(OnTxgearman, Bytes, TestCase):
    """From our server."""


class BytesOnGearmandTest(OnGearmand, Bytes, TestCase):
    """From gearmand."""
