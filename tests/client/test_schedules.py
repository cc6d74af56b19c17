"""Schedules that a client submits, and takes back."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from txgearman.client import Client
from txgearman.client.schedules import MAX_FIELD, schedule_submission
from txgearman.errors import AdminError, NotConnected, ServerError
from txgearman.server import Settings
from txgearman.testing import MemoryGearman
from txgearman.wire.packets import SUBMIT_JOB_SCHED


class PacketTests(SynchronousTestCase):
    def test_the_packet(self) -> None:
        new = schedule_submission("größe", b"a\0b", "k", ("1", "*", "", "jan", "mon"), 1000)
        self.assertEqual(new.packet, SUBMIT_JOB_SCHED)
        self.assertEqual(new.body, "größe".encode() + b"\0k\x001\0*\0\0jan\0mon\0a\0b")

    def test_what_raises(self) -> None:
        for arguments, error in (
            (("", b"", None, "*****", 100), ValueError),
            (("f", "text", None, "*****", 100), TypeError),
            (("f", b"", "k" * 65, "*****", 100), ValueError),
            (("f", b"", None, ("\0", *"****"), 100), ValueError),
            (("f", b"", None, ("1" * (MAX_FIELD + 1), *"****"), 1000), ValueError),
            (("f", bytes(100), None, "*****", 100), ValueError),
            (("f", b"", None, (1, *"****"), 100), TypeError),
        ):
            with self.subTest(arguments):
                self.assertRaises(error, schedule_submission, *arguments)


class ScheduleTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.gearman = MemoryGearman(Settings(handle_prefix="H:example", allow_unsaved_schedules=True))

    def ask(self, deferred: Deferred[Any]) -> Any:
        return self.gearman.wait(deferred)

    def test_from_scheduling_to_unscheduling(self) -> None:
        client = self.gearman.client(codec="json")
        done: list[Any] = []
        worker = self.gearman.worker(codec="json")
        worker.register("greet", lambda job: done.append(job.data))
        self.ask(worker.start())
        handle = self.ask(client.schedule("greet", {"to": "all"}, minute="*/2", unique="greeting"))
        self.assertEqual(handle, b"H:example:1")
        self.assertTrue(self.ask(client.status(handle)).known)
        self.gearman.turn(241)
        self.assertEqual(done, [{"to": "all"}] * 2)
        again = self.ask(client.schedule("greet", {"to": "you"}, unique="greeting"))
        self.assertEqual(again, handle)
        self.gearman.turn(60)
        self.assertEqual(done[2:], [{"to": "you"}])
        self.ask(client.unschedule(handle))
        self.gearman.turn(300)
        self.assertEqual(len(done), 3)
        self.assertRaisesRegex(AdminError, "^UNKNOWN_JOB", self.ask, client.unschedule(handle))

    def test_what_the_server_refuses(self) -> None:
        client = self.gearman.client()
        refused = client.schedule("f", b"", hour="24")
        self.assertRaisesRegex(ServerError, "INVALID_ARGUMENT.*hour", self.ask, refused)
        self.gearman = MemoryGearman()
        refused = self.gearman.client().schedule("f", b"")
        self.assertRaisesRegex(ServerError, "INVALID_COMMAND.*store", self.ask, refused)

    def test_of_several_servers_the_one_that_has_it_is_found(self) -> None:
        other = MemoryGearman(Settings(allow_unsaved_schedules=True), self.gearman.clock)
        both = Client(self.gearman.clock, [other.endpoint, self.gearman.endpoint])
        handle = self.ask(self.gearman.client().schedule("f", b""))
        self.ask(both.unschedule(handle))
        self.assertEqual(len(self.gearman.server.scheduling.schedules), 0)
        self.assertRaisesRegex(AdminError, "^UNKNOWN_JOB", self.ask, both.unschedule(handle))
        self.ask(both.close())

    def test_a_server_that_is_down(self) -> None:
        client = self.gearman.client()
        self.gearman.stop()
        self.assertRaises(NotConnected, self.ask, client.unschedule(b"H:example:1"))
