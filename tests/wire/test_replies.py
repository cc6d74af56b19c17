"""Replies to admin commands, as gearmand 1.1.20 and our own server write them."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.wire.effort import EFFORT
from txgearman.errors import AdminError, BrokenStream
from txgearman.wire import replies
from txgearman.wire.replies import (
    BulkResult,
    ConnectionStatus,
    DeadJobEntry,
    FunctionStatus,
    JobEntry,
    JobInfo,
    PriorityStatus,
)


class RowTests(SynchronousTestCase):
    def test_status(self) -> None:
        rows = replies.function_statuses(
            [b"resize\t5\t2\t3", "größe \t\\xff\t1\t1\t0".encode(), b"\t0\t0\t0"]
        )
        self.assertEqual(
            rows,
            (
                FunctionStatus("resize", 5, 2, 3),
                FunctionStatus("größe \t\\xff", 1, 1, 0),
                FunctionStatus("", 0, 0, 0),
            ),
        )
        self.assertEqual(rows[0].queued, 3)

    def test_what_is_not_utf_8_is_shown(self) -> None:
        self.assertEqual(replies.function_statuses([b"a\xff\t0\t0\t0"])[0].function, "a\\xff")

    def test_prioritystatus(self) -> None:
        self.assertEqual(
            replies.priority_statuses([b"resize\t1\t2\t3\t4"]), (PriorityStatus("resize", 1, 2, 3, 4),)
        )

    def test_workers(self) -> None:
        self.assertEqual(
            replies.connection_statuses(
                [b"35 127.0.0.1 - :", b"36 :: : : f g", b"37 ::1 my worker : f", b"38 10.0.0.1  : : f"]
            ),
            (
                ConnectionStatus(35, "127.0.0.1", "-", ()),
                ConnectionStatus(36, "::", ":", ("f", "g")),
                ConnectionStatus(37, "::1", "my worker", ("f",)),
                ConnectionStatus(38, "10.0.0.1", "", (":", "f")),
            ),
        )

    def test_jobs(self) -> None:
        self.assertEqual(
            replies.job_entries([b"H:host:1\t0\t0\t1", b"H:host:2\t3\t1\t0"]),
            (JobEntry("H:host:1", 0, False, True), JobEntry("H:host:2", 3, True, False)),
        )

    def test_a_command_on_many_jobs(self) -> None:
        self.assertEqual(replies.bulk_result(b"OK 12"), BulkResult(12, 0))
        self.assertEqual(replies.bulk_result(b"OK 0 skipped 3"), BulkResult(0, 3))
        for line in (b"OK", b"OK x", b"OK 1 skipped", b"OK 1 skipped x", b"OK skipped 1", b"12 skipped"):
            with self.assertRaises(BrokenStream):
                replies.bulk_result(line)
        with self.assertRaises(AdminError):
            replies.bulk_result(b"ERR INVALID_ARGUMENTS")

    def test_uniques(self) -> None:
        self.assertEqual(replies.uniques([b"", "schlüssel".encode()]), ("", "schlüssel"))

    def test_dead_jobs(self) -> None:
        self.assertEqual(
            replies.dead_job_entries(
                [
                    rb"H:h:2%cApp\\tasks%ca\tb%c1700000000%c3%craised%cno\x1b[2J" % ((9,) * 6),
                    b"H:h:1\tf\t\t0\t0\tlost\t",
                ],
                True,
            ),
            (
                DeadJobEntry("H:h:2", r"App\tasks", "a\tb", 1_700_000_000, 3, "raised", "no\x1b[2J"),
                DeadJobEntry("H:h:1", "f", "", 0, 0, "lost", ""),
            ),
        )
        for line in (
            b"",
            b"H:h:1\tf\t\t0\t0\tlost",
            b"H:h:1\tf\t\t0\t0\tlost\t\t",
            b"H:h:1\tf\t\tx\t0\tlost\t",
        ):
            with self.assertRaises(BrokenStream):
                replies.dead_job_entries([line])

    JOB_LINES = (
        b"handle\tH:h:1",
        b"function\tf",
        rb"unique%ca\tb" % 9,
        b"state\tscheduled",
        b"priority\tlow",
        b"background\t1",
        b"attempts\t0",
        b"losses\t2",
        b"submitted\t1700000000.250",
    )

    def test_one_job(self) -> None:
        least = JobInfo("H:h:1", "f", "a\tb", "scheduled", "low", True, 0, 2, 1_700_000_000.25)
        self.assertEqual(replies.job_info(self.JOB_LINES, True), least)
        more = (
            b"started\t1",
            b"ended\t2",
            b"next_run\t3",
            b"outcome\tlost",
            b"worker\tw",
            b"error\tAP8=",
            b"data\t",
        )
        self.assertEqual(
            replies.job_info([*self.JOB_LINES, *more, b"of another\tversion"], True),
            replace(
                least,
                started=1,
                ended=2,
                next_run=3,
                outcome="lost",
                worker="w",
                error=b"\0\xff",
                data=b"",
            ),
        )

    def test_one_job_in_other_forms(self) -> None:
        for index in range(len(self.JOB_LINES)):
            with self.assertRaisesRegex(BrokenStream, "lacks"):
                replies.job_info(self.JOB_LINES[:index] + self.JOB_LINES[index + 1 :])
        for line in (b"", b"data", b"data\t*", b"error\tA", b"ended\tnan", b"ended\t", b"losses\t1.5"):
            with self.assertRaises(BrokenStream):
                replies.job_info([*self.JOB_LINES, line])

    def test_names_that_were_escaped(self) -> None:
        self.assertEqual(
            replies.function_statuses([rb"App\\tasks%c1%c0%c0" % (9, 9, 9)], True),
            (FunctionStatus(r"App\tasks", 1, 0, 0),),
        )
        self.assertEqual(replies.uniques([rb"\x2e", rb"\t", rb"a\b"], True), (".", "\t", r"a\b"))
        self.assertEqual(
            replies.connection_statuses(
                [rb"7 a\x20b \x3a : sp\x20ace \x3a", b"8 h  : f ", b"9 h - : "], True
            ),
            (
                ConnectionStatus(7, "a b", ":", ("sp ace", ":")),
                ConnectionStatus(8, "h", "", ("f", "")),
                ConnectionStatus(9, "h", "-", ("",)),
            ),
        )
        # Where they were not, they are letters of the name.
        self.assertEqual(replies.uniques([rb"\x2e"]), (r"\x2e",))

    def test_line_feeds_in_names(self) -> None:
        # gearmand prints them as they are.
        for rows, names in (
            ([b"a", b"b\t1\t0\t0", b"c\t1\t0\t0"], ["a\nb", "c"]),
            ([b"", b"", b"\t1\t0\t0"], ["\n\n"]),
            ([b".", b"x\t5", b"\t\t1\t0\t0"], [".\nx\t5\n\t"]),
        ):
            self.assertEqual([one.function for one in replies.function_statuses(rows)], names)
        self.assertEqual(
            replies.priority_statuses([b"a", b"\t1\t2\t3\t4"]), (PriorityStatus("a\n", 1, 2, 3, 4),)
        )
        self.assertEqual(
            replies.connection_statuses(
                [b"5 10.0.0.1 my", b"id : f", b"6 10.0.0.1 - : a", b"b c", b"", b"7 10.0.0.1 - :"]
            ),
            (
                ConnectionStatus(5, "10.0.0.1", "my\nid", ("f",)),
                ConnectionStatus(6, "10.0.0.1", "-", ("a\nb", "c\n")),
                ConnectionStatus(7, "10.0.0.1", "-", ()),
            ),
        )
        # A line that looks like the beginning of a row, and is none.
        self.assertEqual(
            replies.connection_statuses([b"6 10.0.0.1 - : a", b"7 b c", b"8 10.0.0.1 - :"]),
            (
                ConnectionStatus(6, "10.0.0.1", "-", ("a\n7", "b", "c")),
                ConnectionStatus(8, "10.0.0.1", "-", ()),
            ),
        )
        for read in (replies.function_statuses, replies.priority_statuses, replies.job_entries):
            with self.assertRaises(BrokenStream):
                read([b"f\t1\t1\t1\t1", b"left"])

    def test_the_rows_of_a_list(self) -> None:
        for lines, rows in (
            ([b"."], []),
            ([b".", b"ERR x", b"", b"."], [b".", b"ERR x", b""]),
            ([b"ERR UNKNOWN_COMMAND x", b"."], [b"ERR UNKNOWN_COMMAND x"]),
            ([b"f\r", b".\r"], [b"f"]),
            ([b"f\r", b"."], [b"f\r"]),
        ):
            self.assertEqual(replies.rows(lines), rows)
        for lines in ([], [b"f"], [b".", b"f"], [b"OK"], [b""]):
            with self.assertRaises(BrokenStream):
                replies.rows(lines)
        with self.assertRaisesRegex(AdminError, "^ACCESS_DENIED You may not$"):
            replies.rows([b"ERR ACCESS_DENIED You+may+not\r"])

    def test_other_forms_are_a_broken_stream(self) -> None:
        for read in (replies.function_statuses, replies.priority_statuses, replies.job_entries):
            for line in (
                b"",
                b"resize",
                b"resize\t1\t2",
                b"resize\t1\t2\tx\tx",
                b"f\t\t\t\t",
                b"f\t1\t1\t1\t1.5",
            ):
                with self.assertRaises(BrokenStream):
                    read([line])
        for line in (b"", b"x 127.0.0.1 - : f", b"5 127.0.0.1 -", b"5 127.0.0.1 :"):
            with self.assertRaises(BrokenStream):
                replies.connection_statuses([line])

    @EFFORT
    @given(st.binary(max_size=40))
    def test_any_line_is_read_or_refused(self, line: bytes) -> None:
        for read in (
            replies.function_statuses,
            replies.priority_statuses,
            replies.connection_statuses,
            replies.job_entries,
            replies.dead_job_entries,
            replies.job_info,
            replies.uniques,
        ):
            try:
                read([line])
            except BrokenStream:
                continue


class LineTests(SynchronousTestCase):
    def test_said(self) -> None:
        for line, text in {
            b"OK 1.1.20+ds": "1.1.20+ds",
            b"1.0.6": "1.0.6",
            b"OK": "",
            b"OK INFO": "INFO",
        }.items():
            self.assertEqual(replies.said(line), text)

    def test_done(self) -> None:
        self.assertIsNone(replies.done(b"OK"))  # type: ignore[func-returns-value]
        for line in (b"", b".", b"OK 1", b"f\t0\t0\t0"):
            with self.assertRaises(BrokenStream):
                replies.done(line)

    def test_a_refusal_is_no_answer(self) -> None:
        for read in (replies.said, replies.number, replies.done):
            with self.assertRaisesRegex(AdminError, "^UNKNOWN_JOB$"):
                read(b"ERR UNKNOWN_JOB")

    def test_number(self) -> None:
        self.assertEqual(replies.number(b"OK 4711"), 4711)
        for line in (b"OK", b"OK ", b"OK x", b"OK 1 2"):
            with self.assertRaises(BrokenStream):
                replies.number(line)

    def test_refusals(self) -> None:
        for line, text in {
            b"ERR UNKNOWN_JOB": "UNKNOWN_JOB",
            b"ERR UNKNOWN_COMMAND Unknown+server+commandx": "UNKNOWN_COMMAND Unknown server commandx",
            b"ERR function not found": "function not found",
            b"ERR there are still connected workers or executing clients": (
                "there are still connected workers or executing clients"
            ),
            b"ERR": "unknown error",
            b"ERR unknown_command Unknown+server+command": "unknown_command Unknown server command",
        }.items():
            self.assertEqual(replies.refusal(line), text)

    def test_what_is_no_refusal(self) -> None:
        for line in (b"OK", b"", b".", b"ERROR\t0\t0\t0", b"ERR f\t0\t0\t0", b"err UNKNOWN_JOB"):
            self.assertIsNone(replies.refusal(line), line)
