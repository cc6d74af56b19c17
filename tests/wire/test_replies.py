"""Replies to admin commands, as gearmand 1.1.20 and our own server write them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.wire.effort import EFFORT
from txgearman.errors import BrokenStream
from txgearman.wire import replies
from txgearman.wire.replies import ConnectionStatus, FunctionStatus, JobEntry, PriorityStatus


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

    def test_uniques(self) -> None:
        self.assertEqual(replies.uniques([b"", "schlüssel".encode()]), ("", "schlüssel"))

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
        }.items():
            self.assertEqual(replies.refusal(line), text)

    def test_what_is_no_refusal(self) -> None:
        for line in (b"OK", b"", b".", b"ERROR\t0\t0\t0", b"ERR f\t0\t0\t0", b"err UNKNOWN_JOB"):
            self.assertIsNone(replies.refusal(line), line)
