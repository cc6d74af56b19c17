"""Arguments of a submission: the packet they make, and what raises at the call."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txgearman.client.submission import LATEST_EPOCH, JobOptions, Priority, Submission, submission
from txgearman.wire.limits import MAX_FUNCTION, MAX_UNIQUE
from txgearman.wire.packets import name_of


def submit(
    function: Any = "f",
    data: Any = b"d",
    unique: Any = None,
    priority: Any = Priority.NORMAL,
    background: bool = False,
    run_at: Any = None,
    reducer: Any = None,
    max_packet: int = 1000,
    options: JobOptions | None = None,
) -> Submission:
    return submission(function, data, unique, priority, background, run_at, reducer, max_packet, options)


class PacketTests(SynchronousTestCase):
    def test_priority_and_background_choose_the_packet(self) -> None:
        found = {
            name_of(submit(priority=priority, background=background).packet)
            for priority in (Priority.HIGH, Priority.NORMAL, Priority.LOW)
            for background in (False, True)
        }
        self.assertEqual(
            found,
            {
                "SUBMIT_JOB",
                "SUBMIT_JOB_BG",
                "SUBMIT_JOB_HIGH",
                "SUBMIT_JOB_HIGH_BG",
                "SUBMIT_JOB_LOW",
                "SUBMIT_JOB_LOW_BG",
            },
        )
        self.assertEqual(name_of(submit(priority=Priority.HIGH).packet), "SUBMIT_JOB_HIGH")
        self.assertEqual(name_of(submit(priority=Priority.LOW, background=True).packet), "SUBMIT_JOB_LOW_BG")

    def test_the_body_is_function_unique_and_data(self) -> None:
        new = submit("größe", b"a\0b", unique="k")
        self.assertEqual(new.body, "größe".encode() + b"\0k\0a\0b")
        self.assertEqual((new.function, new.unique, new.background), ("größe".encode(), b"k", False))

    def test_without_a_unique_the_field_is_empty(self) -> None:
        self.assertEqual(submit(b"f", b"").body, b"f\0\0")

    def test_run_at_makes_an_offline_job_of_the_time_in_whole_seconds(self) -> None:
        for run_at, expected in {
            1000: b"1000",
            1000.2: b"1001",
            0: b"0",
            LATEST_EPOCH: b"%d" % LATEST_EPOCH,
            datetime(2001, 9, 9, 1, 46, 40, tzinfo=UTC): b"1000000000",
            datetime(2001, 9, 9, 3, 46, 40, tzinfo=timezone(timedelta(hours=2))): b"1000000000",
            datetime(2001, 9, 9, 1, 46, 40, 1, tzinfo=UTC): b"1000000001",
        }.items():
            new = submit(unique="k", run_at=run_at)
            self.assertEqual(name_of(new.packet), "SUBMIT_JOB_EPOCH")
            self.assertEqual(new.body, b"f\0k\0" + expected + b"\0d")
            self.assertTrue(new.background)

    def test_the_plain_packets_stay_where_they_say_all(self) -> None:
        for arguments in ({}, {"run_at": 5}, {"background": True}, {"reducer": "r"}):
            with self.subTest(**arguments):
                plain = submit(**arguments)
                self.assertEqual(submit(**arguments, options=JobOptions(attempts=None)), plain)
                self.assertEqual(plain.extended_for, "")

    def test_an_option_that_is_unknown(self) -> None:
        with self.assertRaisesRegex(TypeError, "no option 'colour'"):
            submit(options={"colour": "red"})

    def test_attributes(self) -> None:
        most = JobOptions(
            expires=60,
            attempts=3,
            backoff=0.25,
            keep_result=3600.0,
            unique_for=1e-7,
            traceparent="00-a-b-01",
        )
        for arguments, attributes, needed in (
            ({"options": JobOptions(expires=60)}, b"expires=60", "expires"),
            (
                {"options": JobOptions(attempts=3), "background": True},
                b"attempts=3\nbackground=1",
                "attempts",
            ),
            (
                {"run_at": 1000.5, "priority": Priority.HIGH},
                b"run_at=1000.5\npriority=high\nbackground=1",
                "priority with run_at",
            ),
            (
                {"run_at": 2**62, "priority": Priority.LOW},
                b"run_at=4611686018427387904\npriority=low\nbackground=1",
                "priority with run_at",
            ),
            (
                {"options": most, "run_at": 1e15},
                b"expires=60\nattempts=3\nbackoff=0.25\nkeep_result=3600\nunique_for=0\n"
                b"traceparent=00-a-b-01\nrun_at=1000000000000000\nbackground=1",
                "expires, attempts, backoff, keep_result, unique_for, traceparent",
            ),
        ):
            with self.subTest(**arguments):
                new = submit(unique="k", **arguments)
                self.assertEqual(name_of(new.packet), "SUBMIT_JOB_EXTENDED")
                self.assertEqual(new.body, b"f\0k\0" + attributes + b"\0d")
                self.assertEqual(new.background, b"background=1" in attributes)
                self.assertEqual(new.extended_for, needed)

    def test_a_reducer_has_an_empty_aggregator_behind_it(self) -> None:
        new = submit(unique="k", reducer="sum")
        self.assertEqual((name_of(new.packet), new.body), ("SUBMIT_REDUCE_JOB", b"f\0k\0sum\0\0d"))
        offline = submit(reducer=b"sum", background=True)
        self.assertEqual(name_of(offline.packet), "SUBMIT_REDUCE_JOB_BACKGROUND")
        self.assertTrue(offline.background)


class RefusalTests(SynchronousTestCase):
    def test_types(self) -> None:
        for arguments in (
            {"function": None},
            {"data": "text"},
            {"data": None},
            {"data": bytearray(b"x")},
            {"unique": 5},
            {"priority": 5},
            {"run_at": "tomorrow"},
            {"run_at": True},
            {"reducer": 5},
        ):
            with self.subTest(**arguments), self.assertRaises(TypeError):
                submit(**arguments)

    def test_values(self) -> None:
        for arguments in (
            {"function": ""},
            {"function": "a\0b"},
            {"priority": "urgent"},
            {"function": "f" * (MAX_FUNCTION + 1)},
            {"unique": "k" * (MAX_UNIQUE + 1)},
            {"unique": b"a\0b"},
            {"reducer": "r" * (MAX_FUNCTION + 1)},
            {"run_at": datetime(2001, 9, 9)},
            {"run_at": -1},
            {"run_at": float("nan")},
            {"run_at": float("inf")},
            {"run_at": LATEST_EPOCH + 1},
            {"run_at": 10**400},
            {"run_at": 1000, "reducer": "r"},
            {"reducer": "r", "priority": Priority.LOW},
            {"reducer": "r", "options": JobOptions(attempts=2)},
            {"run_at": 1000, "reducer": "r", "priority": Priority.HIGH},
            {"options": JobOptions(expires=-1)},
            {"options": JobOptions(backoff=float("nan"))},
            {"options": JobOptions(unique_for=True)},
            {"options": JobOptions(keep_result="60")},
            {"options": JobOptions(attempts=0)},
            {"options": JobOptions(attempts=1.5)},
            {"options": JobOptions(traceparent="a\nbackground=1")},
        ):
            with self.subTest(**arguments), self.assertRaises(ValueError):
                submit(**arguments)

    def test_names_at_their_limits(self) -> None:
        new = submit(
            "f" * MAX_FUNCTION, unique=b"k" * MAX_UNIQUE, reducer="r" * MAX_FUNCTION, max_packet=2000
        )
        self.assertEqual(len(new.body), 2 * MAX_FUNCTION + MAX_UNIQUE + 5)

    def test_a_packet_at_the_limit_and_one_past_it(self) -> None:
        self.assertEqual(len(submit(data=bytes(997)).body), 1000)
        for arguments in ({}, {"run_at": 1}, {"reducer": "r"}):
            with self.assertRaisesRegex(ValueError, "at most 1000 are allowed"):
                submit(data=bytes(998), **arguments)
