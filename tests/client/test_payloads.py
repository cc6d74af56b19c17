"""Codecs in the client: values out, values in, and what cannot be decoded."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.connection.memory import PlayedEndpoint
from txgearman.client import Client, DataUpdate, Job, StatusUpdate, WarningUpdate, updates
from txgearman.codecs import CodecChoice
from txgearman.errors import BadPayload, JobRaised
from txgearman.wire.packets import (
    JOB_CREATED,
    OPTION_RES,
    WORK_COMPLETE,
    WORK_DATA,
    WORK_EXCEPTION,
    WORK_STATUS,
    WORK_WARNING,
)


class Numbers:
    """A codec of the tests' own."""

    def encode(self, value: Any) -> bytes:
        return b"%d" % value

    def decode(self, data: bytes) -> Any:
        return int(data)


class PayloadTests(SynchronousTestCase):
    def job(self, codec: CodecChoice, data: Any) -> Job:
        """A job of a client with this codec."""
        self.endpoint = PlayedEndpoint()
        client = Client(Clock(), self.endpoint, codec=codec, check_interval=None)
        submitted = client.submit("f", data)
        self.server = self.endpoint.server
        self.server.say(OPTION_RES, b"exceptions")
        self.server.say(JOB_CREATED, b"H:1")
        return self.successResultOf(submitted)

    def next(self, iterator: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(anext(iterator))

    def test_values_go_out_and_come_in(self) -> None:
        for codec, value, data in (
            ("bytes", b"\xff", b"\xff"),
            ("text", "größe", "größe".encode()),
            ("json", {"a": [1]}, b'{"a":[1]}'),
            (Numbers(), 5, b"5"),
        ):
            job = self.job(codec, value)
            self.assertEqual(self.server.heard()[-1], ("SUBMIT_JOB", b"f", b"", data))
            got: list[Any] = []
            job.on_warning(got.append)
            self.server.say(WORK_DATA, b"H:1", data)
            self.server.say(WORK_WARNING, b"H:1", data)
            self.server.say(WORK_STATUS, b"H:1", b"1", b"2")
            self.server.say(WORK_COMPLETE, b"H:1", data)
            self.assertEqual(self.successResultOf(job.result()), value)
            self.assertEqual(got, [value])
            stream = job.updates()
            self.assertEqual(self.successResultOf(self.next(stream)), DataUpdate(value))
            self.assertEqual(self.successResultOf(self.next(stream)), StatusUpdate(1, 2))

    def test_a_value_that_cannot_be_encoded_raises_at_the_call(self) -> None:
        client = Client(Clock(), PlayedEndpoint(), codec="json")
        for value, error in ((object(), TypeError), (float("inf"), ValueError)):
            with self.assertRaises(error):
                client.submit("f", value)
        with self.assertRaises(TypeError):
            Client(Clock(), PlayedEndpoint(), codec="text").submit("f", b"bytes")
        with self.assertRaises(ValueError):
            Client(Clock(), PlayedEndpoint(), codec="pickle")  # type: ignore[arg-type]

    def test_a_result_that_cannot_be_decoded(self) -> None:
        job = self.job("json", None)
        before, stream = job.result(), self.next(job.updates())
        self.server.say(WORK_COMPLETE, b"H:1", b"{")
        for failed in (before, job.result(), stream):
            error = self.failureResultOf(failed, BadPayload).value
            self.assertEqual((error.handle, error.data), (b"H:1", b"{"))

    def test_an_update_that_cannot_be_decoded(self) -> None:
        job = self.job("text", "")
        self.server.say(WORK_DATA, b"H:1", b"one")
        self.server.say(WORK_DATA, b"H:1", b"\xff")
        self.server.say(WORK_WARNING, b"H:1", b"two")
        stream = job.updates()
        self.assertEqual(self.successResultOf(self.next(stream)), DataUpdate("one"))
        self.assertEqual(self.failureResultOf(self.next(stream), BadPayload).value.data, b"\xff")
        self.assertEqual(self.successResultOf(self.next(stream)), WarningUpdate("two"))
        self.server.say(WORK_COMPLETE, b"H:1", b"fine")
        self.assertEqual(self.successResultOf(job.result()), "fine")

    def test_a_callback_is_not_called_for_it(self) -> None:
        job = self.job("text", "")
        got: list[Any] = []
        job.on_data(got.append)
        with capturedLogs() as logs:
            self.server.say(WORK_DATA, b"H:1", b"\xff")
        self.assertEqual([event["log_level"] for event in logs], [LogLevel.error])
        self.server.say(WORK_DATA, b"H:1", b"two")
        self.assertEqual(got, ["two"])

    def test_room_for_updates_is_counted_in_bytes_of_the_wire(self) -> None:
        self.patch(updates, "KEPT_BYTES", 2 * updates.UPDATE_OVERHEAD + 9)
        job = self.job(Numbers(), 1)
        stream = job.updates()
        self.server.say(WORK_DATA, b"H:1", b"12345")
        self.server.say(WORK_DATA, b"H:1", b"1234x")
        self.assertEqual(self.successResultOf(self.next(stream)), DataUpdate(12345))
        self.failureResultOf(self.next(stream), updates.UpdatesLost)

    def test_exceptions_stay_bytes(self) -> None:
        job = self.job("json", 1)
        self.server.say(WORK_EXCEPTION, b"H:1", b"ValueError: x")
        self.assertEqual(self.failureResultOf(job.result(), JobRaised).value.data, b"ValueError: x")
