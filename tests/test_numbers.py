"""Numbers wherever they come in: no nan, no infinity, no bool, nothing that overflows later.

The places, each with one mechanism:

* options of the server, on the command line, in the configuration file and in a program (`server.options`);
* admin lines (`server.admin.functions`): ``maxrate`` refuses; what is no number for ``maxqueue`` is no
  limit, as with gearmand;
* parameters of HTTP (`web.http.routes`), and limits in its JSON (`web.api.serializers`);
* the ``txgearman`` command (`cli.parameters`);
* arguments of client, worker and admin client (`connection.arguments`), which asyncio's side hands on; time
  limits of the blocking API (`blocking.deadline`), which takes what is too long for none.

Numbers of peers in packets are in tests/server/test_submitting.py and tests/server/test_working.py.
"""

from __future__ import annotations

import math
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import click
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.server.peers import Peer, ServerTestCase, req
from tests.web.asking import Web
from txgearman.blocking.client import GearmanClient
from txgearman.blocking.deadline import Deadline
from txgearman.cli.parameters import Duration, Moment, QueueLimit, ServerAddress
from txgearman.client import Client
from txgearman.client.admin import Admin
from txgearman.connection.arguments import LARGEST_COUNT, LONGEST_TIME
from txgearman.connection.backoff import retry_policy_from
from txgearman.server.commands import MAX_TIMEOUT
from txgearman.server.config.configuration import ConfigurationError, read_configuration
from txgearman.server.config.function_options import MAX_RATE, MAX_TIME_LIMIT, FunctionSettings
from txgearman.server.config.option_kinds import LARGEST_WHOLE, Option, options_of
from txgearman.server.config.options import Settings
from txgearman.server.config.process_options import ProcessSettings
from txgearman.server.process.twistd import CONFIGURABLE
from txgearman.testing import MemoryGearman
from txgearman.web.api.serializers import MAX_LIMIT
from txgearman.web.http.responses import HTTPProblem
from txgearman.worker import Worker

NAN: Final = math.nan
INF: Final = math.inf
HUGE: Final = 10**400

NUMERIC: Final = [
    (settings, each)
    for settings in (Settings, ProcessSettings, FunctionSettings)
    for each in options_of(settings)
    if each.kind.numbers or each.name == "queue-limit"
]
"""The options of the server that are numbers, with the class that each is a field of."""

TEXTS: Final = ("nan", "inf", "-inf", "1e999", "9" * 400, "9" * 5000, "true", "", "0x10", "--1")
"""What is no number, or none that anybody needs, on a command line."""

TOML: Final = ("nan", "inf", "-inf", "+nan", "1e999", "9" * 400, "0x" + "f" * 5000, "true", '"nan"', '"inf"')
"""The same in TOML, whose values have types."""

VALUES: Final = (NAN, INF, -INF, HUGE, -HUGE, True, "5", 1j)
"""The same in a program."""


class OptionsTest(SynchronousTestCase):
    """All options of the server that are numbers, however they are given."""

    def assert_refuses(self, each: Option, make: Callable[[], object], value: object) -> None:
        with self.subTest(each.name, value=str(type(value)) if value is HUGE else value):
            with self.assertRaises(ValueError) as caught:
                make()
            self.assertTrue(str(caught.exception).startswith(each.name), caught.exception)
            self.assertLess(len(str(caught.exception)), 250)

    def test_there_are_such(self) -> None:
        self.assertGreater(len(NUMERIC), 25)

    def test_words(self) -> None:
        for _, each in NUMERIC:
            for text in (*TEXTS, *self.beyond(each)):
                self.assert_refuses(each, partial(each.of_text, text), text)

    def test_programs(self) -> None:
        for settings, each in NUMERIC:
            for value in (*VALUES, *map(int, self.beyond(each))):
                wrong = (1, value, 1) if each.name == "queue-limit" else value
                self.assert_refuses(each, partial(settings, **{each.attribute: wrong}), value)

    def beyond(self, each: Option) -> list[str]:
        """The whole numbers next to its bounds, on the wrong side."""
        most = LARGEST_WHOLE if each.most is None else int(each.most)
        return [str(most + 1), *([] if each.least is None else [str(math.ceil(each.least) - 1)])]

    def test_files(self) -> None:
        with tempfile.TemporaryDirectory(prefix="txgearman-numbers-") as folder:
            path = Path(folder) / "gearmand.toml"
            for settings, each in NUMERIC:
                head = "[functions.f]\n" if settings is FunctionSettings else "# nothing\n"
                for text in (*TOML, *self.beyond(each)):
                    path.write_text(f"{head}{each.name} = {text}\n")
                    with self.subTest(each.name, text=text[:20]):
                        with self.assertRaises(ConfigurationError) as caught:
                            read_configuration(str(path), CONFIGURABLE)
                        self.assertTrue(str(caught.exception).startswith(f"{path}:2: "), caught.exception)
                        self.assertEqual(len(str(caught.exception).splitlines()), 1)

    def test_no_unit_leads_beyond(self) -> None:
        (each,) = [each for each in options_of(ProcessSettings) if each.name == "drain-timeout"]
        for text in ("1e308d", "9" * 308 + "h", "1e308m"):
            self.assert_refuses(each, partial(each.of_text, text), text)
            self.assert_refuses(each, partial(each.of_toml, text), text)

    def test_there_is_one_zero(self) -> None:
        for _, each in NUMERIC:
            if each.least is None or (each.least <= 0 and each.kind.numbers):
                for value in (each.of_text("-0"), each.of_toml(-0.0 if float in each.kind.numbers else 0)):
                    self.assertEqual(math.copysign(1, value if each.kind.numbers else 0), 1, each.name)

    def test_the_largest_numbers(self) -> None:
        for settings, each in NUMERIC:
            most = LARGEST_WHOLE if each.most is None else each.most
            if each.kind.numbers:
                setting = settings(**{each.attribute: most})
                self.assertEqual(getattr(setting, each.attribute), most)
        self.assertEqual(MAX_TIME_LIMIT, MAX_TIMEOUT, "workers may ask for as much")

    def test_a_server_takes_the_largest_numbers(self) -> None:
        most = {
            each.attribute: LARGEST_WHOLE if each.most is None else each.most
            for settings, each in NUMERIC
            if settings is Settings
        }
        rules = FunctionSettings(
            (LARGEST_WHOLE,) * 3, MAX_TIME_LIMIT, LARGEST_WHOLE, submit_rate=MAX_RATE, submit_burst=MAX_RATE
        )
        gearman = MemoryGearman()
        gearman.server.administration.create_function(b"f")
        gearman.server.reconfigure(Settings(**most, functions={"*": rules}))
        peer, worker = Peer(gearman), Peer(gearman)
        for each in peer, worker:
            gearman.connect(each)
        worker.ask(req(1, b"f"))
        self.assertIn(b"H:", peer.ask(req(18, b"f", b"", b"x")))
        self.assertIn(b"x", worker.ask(req(9)))
        gearman.turn(1)
        self.assertTrue(peer.ask(b"show limits\n").endswith(b"\n.\n"))
        self.assertTrue(peer.ask(b"show function limits\n").endswith(b"\n.\n"))


class AdminTest(ServerTestCase):
    """Admin lines."""

    def test_rates(self) -> None:
        admin = self.peer()
        admin.ask(b"maxrate f 5 7\n")
        for words in (
            b"nan",
            b"inf",
            b"-inf",
            b"1e999",
            b"-1",
            b"2000000000",
            b"9" * 400,
            b"true",
            b"1 nan",
            b"1 -1",
            b"1 1.5",
            b"1 inf",
            b"1 " + b"9" * 5000,
            b"nan nan",
        ):
            with self.subTest(words[:20]):
                self.assertTrue(admin.ask(b"maxrate f %b\n" % words).startswith(b"ERR INVALID_ARGUMENTS"))
                self.assertIn(b"\t5\t7\t", admin.ask(b"show function limits\n"))
        self.assertEqual(admin.ask(b"maxrate f -0\n"), b"OK\r\n")
        self.assertEqual(admin.ask(b"show function limits\n"), b".\n")

    def test_queue_limits(self) -> None:
        admin = self.peer()
        for word in (b"nan", b"inf", b"-inf", b"1e999", b"-1", b"-0", b"9" * 400, b"9" * 5000, b"true"):
            with self.subTest(word[:20]):
                self.assertEqual(admin.ask(b"maxqueue f 5\n"), b"OK\r\n")
                self.assertEqual(admin.ask(b"maxqueue f %b\n" % word), b"OK\r\n")
                self.assertEqual(admin.ask(b"show function limits\n"), b".\n", "as with gearmand: no limit")


class HTTPTest(SynchronousTestCase):
    """Parameters and JSON of HTTP."""

    def test_parameters(self) -> None:
        web = Web()
        (api,) = (web.site.resource.children[b"api"],)
        found = 0
        for route in api.routes:
            for parameter in route.parameters:
                if parameter.kind != "number":
                    continue
                found += 1
                beyond = [b"%d" % (parameter.maximum + 1), b"%d" % (parameter.minimum - 1)]
                for value in (*(text.encode() for text in TEXTS), *beyond, b"-0", b"1.0", b"1_0", b" 1"):
                    with self.subTest(parameter.name, value=value[:20]):
                        problem = self.assertRaises(HTTPProblem, parameter.parse, value)
                        self.assertEqual(problem.status, 400)
                for value in (parameter.minimum, parameter.maximum):
                    self.assertEqual(parameter.parse(b"%d" % value), value)
        self.assertGreaterEqual(found, 10)

    def test_limits(self) -> None:
        web = Web()
        web.gearman.server.administration.create_function(b"f")
        for value in (
            "NaN",
            "Infinity",
            "-Infinity",
            "1e999",
            "9" * 400,
            "true",
            "0",
            "-1",
            "1.5",
            '"5"',
            "[]",
            str(MAX_LIMIT + 1),
            "9" * 5000,
        ):
            with self.subTest(value[:20]):
                body = b'{"limits": {"normal": %b}}' % value.encode()
                response = web.ask("PATCH", "/api/v1/functions/f", body)
                self.assertEqual(response.status, 400, response)
        body = b'{"limits": {"low": %d}}' % MAX_LIMIT
        self.assertEqual(web.ask("PATCH", "/api/v1/functions/f", body).status, 200)


class CommandTest(SynchronousTestCase):
    """The command's own numbers; those that click knows are whole numbers within bounds."""

    def test_durations(self) -> None:
        for kind, ahead in (
            (Duration(), ""),
            (QueueLimit(), ""),
            (Moment(), "+"),
            (ServerAddress(), "host:"),
        ):
            for text in (*TEXTS, "1e308d", "9" * 400 + "d", "-1"):
                with self.subTest(kind.name, text=text[:20]):
                    self.assertRaises(click.BadParameter, kind.convert, ahead + text, None, None)


class ArgumentsTest(SynchronousTestCase):
    """Arguments of client, worker and admin client."""

    def test_times(self) -> None:
        client = Client(Clock(), "tcp:localhost:4730")
        worker = Worker(Clock(), "tcp:localhost:4730")
        takes: list[Callable[[Any], object]] = [
            lambda value: Client(Clock(), "tcp:x:1", check_interval=value),
            lambda value: Client(Clock(), "tcp:x:1", check_timeout=value),
            lambda value: Worker(Clock(), "tcp:x:1", check_interval=value),
            lambda value: Worker(Clock(), "tcp:x:1", check_timeout=value),
            lambda value: Worker(Clock(), "tcp:x:1", drain=value),
            lambda value: Admin(Clock(), "tcp:x:1", timeout=value),
            lambda value: client.connect(timeout=value),
            lambda value: client.submit("f", b"", timeout=value),
            lambda value: client.submit("f", b"", timeout=value, retry=1),
            lambda value: client.submit_many("f", [], timeout=value),
            lambda value: client.status(b"H:1", timeout=value),
            lambda value: client.status_by_unique("u", timeout=value),
            lambda value: client.echo(b"", timeout=value),
            lambda value: worker.register("f", len, timeout=value),
            lambda value: worker.register("f", len, time_limit=value),
            lambda value: worker.stop(timeout=value),
        ]
        for index, take in enumerate(takes):
            for value in (NAN, INF, -INF, HUGE, -HUGE, -1, -0.5, True, LONGEST_TIME + 1, "5"):
                with self.subTest(index, value=str(type(value)) if value in (HUGE, -HUGE) else value):
                    self.assertRaises(ValueError, take, value)

    def test_counts(self) -> None:
        client = Client(Clock(), "tcp:localhost:4730")
        admin = Admin(Clock(), "tcp:localhost:4730")
        worker = Worker(Clock(), "tcp:localhost:4730")
        takes: list[Callable[[Any], object]] = [
            lambda value: Client(Clock(), "tcp:x:1", max_backlog=value),
            lambda value: Client(Clock(), "tcp:x:1", max_packet=value),
            lambda value: Worker(Clock(), "tcp:x:1", max_packet=value),
            lambda value: Worker(Clock(), "tcp:x:1", concurrency=value),
            lambda value: Worker(Clock(), "tcp:x:1", threads=value),
            lambda value: Worker(Clock(), "tcp:x:1", processes=value),
            lambda value: worker.register("f", len, concurrency=value),
            lambda value: client.submit("f", b"", retry=value),
            lambda value: admin.set_max_queue("f", value),
            lambda value: GearmanClient(["localhost"]).submit_job("f", b"", max_retries=value),
        ]
        for index, take in enumerate(takes):
            for value in (NAN, INF, -INF, HUGE, -HUGE, -1, 1.0, True, False, LARGEST_COUNT + 1, "5"):
                with self.subTest(index, value=str(type(value)) if value in (HUGE, -HUGE) else value):
                    self.assertRaises(ValueError, take, value)

    def test_pauses(self) -> None:
        for value in (NAN, INF, HUGE, -1, True, LONGEST_TIME + 1, "5", None):
            self.assertLess(
                retry_policy_from(lambda _attempts, chosen=value: chosen)(1), 1, "the default takes its place"
            )
            self.assertEqual(len(self.flushLoggedErrors()), 1)

    def test_time_limits_of_the_blocking_api(self) -> None:
        self.assertRaises(ValueError, Deadline, NAN)
        for value in (INF, HUGE, LONGEST_TIME + 1):
            self.assertIsNone(Deadline(value).remaining())
        for value in (-1, -0.0, -INF, -HUGE):
            self.assertEqual(Deadline(value).remaining(), 0)
        # What a lock can wait for.
        self.assertLess(LONGEST_TIME, threading.TIMEOUT_MAX)
