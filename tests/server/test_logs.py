"""The format of the log, and from which level on it is written."""

from __future__ import annotations

import io
import json
from typing import Any

from twisted.logger import FileLogObserver, FilteringLogObserver, Logger, LogLevel
from twisted.python.failure import Failure
from twisted.python.logfile import LogFile
from twisted.trial.unittest import SynchronousTestCase

from tests.server.peers import ServerTestCase
from txgearman.server.config.process_options import Level, LogFormat
from txgearman.server.process import logs
from txgearman.server.process.logs import SAME_EVERY, Threshold, WithoutFiles, json_line, observer_for


def logged(*predicates: Any) -> tuple[Logger, io.StringIO]:
    """A logger, and what is written of it as JSON."""
    output = io.StringIO()
    observer = FilteringLogObserver(FileLogObserver(output, json_line), predicates)
    return Logger(namespace="here", observer=observer), output


class JsonTest(SynchronousTestCase):
    def line(self, output: io.StringIO) -> dict[str, Any]:
        (line,) = output.getvalue().splitlines()
        found = json.loads(line)
        assert isinstance(found, dict)
        return found

    def test_an_event(self) -> None:
        log, output = logged()
        log.warn("{count} of {name}", count=3, name=b"f\xff", ratio=0.5, none=None, other=[1])
        line = self.line(output)
        self.assertRegex(line.pop("time"), r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}$")
        self.assertEqual(
            line,
            {
                "level": "warn",
                "logger": "here",
                "message": "3 of b'f\\xff'",
                "fields": {"count": 3, "name": "f\\xff", "ratio": 0.5, "none": None, "other": "[1]"},
            },
        )

    def test_line_breaks_do_not_break_lines(self) -> None:
        log, output = logged()
        log.info("{text}", text='a\n{"level": "critical"}\r\u2028')
        self.assertEqual(self.line(output)["message"], 'a\n{"level": "critical"}\r\u2028')

    def test_a_failure(self) -> None:
        log, output = logged()
        try:
            raise KeyError("nothing")
        except KeyError:
            log.failure("It broke", Failure())
        line = self.line(output)
        self.assertEqual((line["level"], line["message"]), ("critical", "It broke"))
        self.assertIn("KeyError: 'nothing'", line["traceback"])

    def test_an_event_that_cannot_be_formatted(self) -> None:
        log, output = logged()
        log.info("{nothing}")
        self.assertIn("message", self.line(output))


class ThresholdTest(SynchronousTestCase):
    def written(self, threshold: Threshold) -> list[str]:
        log, output = logged(threshold)
        for level in LogLevel.iterconstants():
            log.emit(level, level.name)
        return [json.loads(line)["level"] for line in output.getvalue().splitlines()]

    def test_each_level(self) -> None:
        levels = ["debug", "info", "warn", "error", "critical"]
        for index, level in enumerate(Level):
            self.assertEqual(self.written(Threshold(level)), levels[index:])

    def test_overriding_it(self) -> None:
        threshold = Threshold(Level.WARN)
        threshold.override(Level.ERROR)
        self.assertEqual(self.written(threshold), ["error", "critical"])
        threshold.toggle_debug()
        self.assertEqual(len(self.written(threshold)), 5)
        threshold.toggle_debug()
        self.assertEqual(self.written(threshold), ["warn", "error", "critical"])
        threshold.level = Level.CRITICAL
        self.assertEqual(self.written(threshold), ["critical"])

    def test_a_change_is_no_alarm_and_is_always_written(self) -> None:
        for level in Level:
            threshold = Threshold(Level.CRITICAL)
            log, output = logged(threshold)
            self.patch(logs, "_log", log)
            threshold.override(level)
            line = json.loads(output.getvalue())
            self.assertEqual(
                (line["level"], line["message"]),
                ("info", f"The log is now written from level {level.value} on"),
            )


class WithoutFilesTest(SynchronousTestCase):
    def test_one_line_now_and_then(self) -> None:
        now = 0.0
        log, output = logged(WithoutFiles(lambda: now))
        for _ in range(10):
            log.info("EMFILE encountered")
            log.info("something else")
        now = SAME_EVERY
        log.info("EMFILE recovery: closed {address}", address=1)
        messages = [json.loads(line)["message"] for line in output.getvalue().splitlines()]
        self.assertEqual(
            messages, ["EMFILE encountered", *["something else"] * 10, "EMFILE recovery: closed 1"]
        )


class WhereTest(SynchronousTestCase):
    """The log goes where twistd's options say."""

    def test_an_observer_of_twistd(self) -> None:
        self.assertIsNone(observer_for({"logger": lambda: None}, LogFormat.TEXT, Threshold(Level.INFO)))

    def test_a_file(self) -> None:
        log = io.StringIO()
        self.patch(LogFile, "fromFullPath", lambda path: log if path == "/log" else None)
        for log_format in LogFormat:
            observer = observer_for({"logfile": "/log"}, log_format, Threshold(Level.INFO))
            assert observer is not None
            Logger(namespace="here", observer=observer).info("said")
        first, second = log.getvalue().splitlines()
        self.assertTrue(first.endswith("[here#info] said"))
        self.assertEqual(json.loads(second)["message"], "said")


class VerboseTest(ServerTestCase):
    def test_the_level_is_shown_and_changed(self) -> None:
        self.gearman.server.threshold = threshold = Threshold(Level.WARN)
        peer = self.peer()
        self.assertEqual(peer.ask(b"verbose\nVERBOSE Debug\nverbose\n"), b"OK WARN\nOK DEBUG\nOK DEBUG\n")
        self.assertIs(threshold.current, Level.DEBUG)
        self.assertEqual(
            peer.ask(b"verbose loud\n"), b"OK DEBUG\n", "what is no level is ignored, as by gearmand"
        )
        self.assertIs(threshold.current, Level.DEBUG)

    def test_where_it_is_not_up_to_the_server(self) -> None:
        peer = self.peer()
        self.assertEqual(peer.ask(b"verbose\n"), b"OK INFO\n")
        self.assertTrue(peer.ask(b"verbose debug\n").startswith(b"ERR NOT_ALLOWED"))
