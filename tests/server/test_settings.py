"""What an operator may choose: as `Settings`, as command line options, and as endpoint descriptions."""

from __future__ import annotations

import io
import signal
from contextlib import redirect_stdout
from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from tests.server.peers import SocketlikeTransport
from txgearman import __version__
from txgearman.broker.policy import FunctionOrder
from txgearman.net.keepalive import Keepalive
from txgearman.server import Settings, make_service
from txgearman.server.config.option_values import MAX_PREFIX, default_handle_prefix
from txgearman.server.process import twistd
from txgearman.server.process.twistd import Options
from txgearman.version import build
from txgearman.wire.limits import MAX_HANDLE, MAX_PACKET


class SettingsTest(SynchronousTestCase):
    """Values that can be, and values that cannot."""

    def assert_wrong(self, *named: str, **settings: Any) -> None:
        with self.subTest(settings), self.assertRaises(ValueError) as caught:
            Settings(**settings)
        for name in named:
            self.assertIn(name, str(caught.exception))

    def test_defaults(self) -> None:
        settings = Settings()
        self.assertEqual(settings.listen, ("tcp:4730:interface=127.0.0.1",))
        self.assertEqual(settings.max_packet, MAX_PACKET)
        self.assertEqual(settings.policy.handle_prefix, default_handle_prefix().encode())
        self.assertEqual((settings.policy.job_retries, settings.policy.wakeup), (-1, 1))
        self.assertIs(settings.policy.order, FunctionOrder.PRIORITY)

    def test_everything_reaches_the_broker(self) -> None:
        policy = Settings(
            job_retries=3, wakeup=0, order=FunctionOrder.REGISTRATION, round_robin=True, handle_prefix="X"
        ).policy
        self.assertEqual(
            (policy.job_retries, policy.wakeup, policy.order, policy.round_robin, policy.handle_prefix),
            (3, 0, FunctionOrder.REGISTRATION, True, b"X"),
        )

    def test_retries(self) -> None:
        self.assert_wrong("retries", "-2", job_retries=-2)
        self.assertEqual(Settings(job_retries=-1).job_retries, -1)
        self.assertEqual(Settings(job_retries=0).job_retries, 0)

    def test_wakeup(self) -> None:
        self.assert_wrong("wakeup", "-1", wakeup=-1)

    def test_packet_limit(self) -> None:
        for limit in (-1, 0, 1023, 0x100000000):
            self.assert_wrong("packet", str(limit), max_packet=limit)
        for limit in (1024, 0xFFFFFFFF):
            self.assertEqual(Settings(max_packet=limit).max_packet, limit)

    def test_prefix(self) -> None:
        for prefix in ("", "a b", "a\tb", "a\nb", "größe", "a\0", "x" * (MAX_PREFIX + 1)):
            self.assert_wrong("prefix", handle_prefix=prefix)
        self.assertEqual(Settings(handle_prefix="x" * MAX_PREFIX).policy.handle_prefix, b"x" * MAX_PREFIX)

    def test_the_longest_prefix_leaves_room_for_any_number(self) -> None:
        self.assertLessEqual(len("x" * MAX_PREFIX + f":{2**64 - 1}"), MAX_HANDLE)

    def test_percent_in_a_prefix(self) -> None:
        from twisted.internet.task import Clock

        from tests.server.peers import req, res
        from txgearman.server import GearmanServerFactory

        clock = Clock()
        transport = SocketlikeTransport()
        transport.connect(GearmanServerFactory(clock, Settings(handle_prefix="50%d")).buildProtocol(None))
        transport.receive(req(18, b"f", b"", b""))
        clock.advance(0)
        self.assertEqual(transport.value(), res(8, b"50%d:1"))

    def test_keepalive(self) -> None:
        for name in ("keepalive_idle", "keepalive_interval", "keepalive_count"):
            self.assert_wrong(name.replace("_", "-"), "-1", **{name: -1})
        settings = Settings(keepalive_idle=1, keepalive_interval=2, keepalive_count=3)
        self.assertEqual(settings.keepalive, Keepalive(1, 2, 3))

    def test_keepalive_that_no_system_takes(self) -> None:
        # Linux takes at most 32767 seconds and 127 probes; to find out at the first connection is late.
        for name, value in (
            ("keepalive_idle", 32768),
            ("keepalive_interval", 32768),
            ("keepalive_count", 128),
        ):
            self.assert_wrong("keepalive", str(value), **{name: value})
        Settings(keepalive_idle=32767, keepalive_interval=32767, keepalive_count=127)

    def test_the_default_prefix_on_any_machine(self) -> None:
        for node in ("", "plain", "with space", "größe", "tab\there", "x" * 300):
            with self.subTest(node):
                self.patch(__import__("platform"), "node", lambda node=node: node)
                self.assertTrue(Settings().handle_prefix.startswith("H:"))


class EndpointsTest(SynchronousTestCase):
    """Endpoint descriptions."""

    WRONG = (
        "",
        "tcp",
        "tcp:",
        "tcp:many",
        "nonsense:1",
        "tcp:1:interface=127.0.0.1:unknown=2",
        "unix",
        "systemd:domain=INET:index=many",
        "ssl:4730:privateKey=/does/not/exist",
    )

    def test_wrong_ones_are_named(self) -> None:
        for description in self.WRONG:
            with self.subTest(description):
                with self.assertRaises(ValueError) as caught:
                    make_service(Settings(listen=(description,)), reactor=MemoryReactorClock())
                self.assertIn(repr(description), str(caught.exception))

    def test_each_is_listened_at(self) -> None:
        reactor = MemoryReactorClock()
        service = make_service(
            Settings(listen=("tcp:1001", "tcp:1002:interface=127.0.0.1", "unix:/somewhere")), reactor=reactor
        )
        self.assertEqual(reactor.tcpServers, [], "not before it is started")
        service.startService()
        self.assertEqual(
            [(server[0], server[3]) for server in reactor.tcpServers], [(1001, ""), (1002, "127.0.0.1")]
        )
        self.assertEqual([server[0] for server in reactor.unixServers], ["/somewhere"])


class OptionsTest(SynchronousTestCase):
    """The options of ``twistd gearmand``."""

    def parse(self, *arguments: str) -> Settings:
        options = Options()
        options.parseOptions(arguments)
        return options.settings

    def test_none(self) -> None:
        self.assertEqual(self.parse(), Settings())

    def test_all(self) -> None:
        # The files that are named here do not exist.
        self.patch(twistd, "check_settings", lambda *_: None)
        settings = self.parse(
            "--listen=tcp:1",
            "-L",
            "unix:/s",
            "--job-retries=4",
            "--worker-wakeup=2",
            "--order=registration",
            "--round-robin",
            "--handle-prefix=P",
            "--max-packet=2000",
            "--exceptions",
            "--keepalive-idle=10",
            "--keepalive-interval=11",
            "--keepalive-count=12",
            "--web=8080",
            "--web-read-only",
            "--web-token-file=/t",
            "--file-descriptors=1000",
        )
        self.assertEqual(
            settings,
            Settings(
                listen=("tcp:1", "unix:/s"),
                job_retries=4,
                wakeup=2,
                order=FunctionOrder.REGISTRATION,
                round_robin=True,
                handle_prefix="P",
                max_packet=2000,
                exceptions=True,
                keepalive_idle=10,
                keepalive_interval=11,
                keepalive_count=12,
                web="8080",
                web_read_only=True,
                web_token_file="/t",
            ),
        )

    def test_short_ones(self) -> None:
        settings = self.parse("-j", "0", "-w", "0", "-R", "-f", "10")
        self.assertEqual((settings.job_retries, settings.wakeup, settings.round_robin), (0, 0, True))

    def test_sizes(self) -> None:
        for text, size in (("5000", 5000), ("2k", 2048), ("2K", 2048), ("1m", 1 << 20), ("3G", 3 << 30)):
            with self.subTest(text):
                self.assertEqual(self.parse(f"--max-packet={text}").max_packet, size)

    def test_wrong_values_are_named(self) -> None:
        for argument, named in (
            ("--job-retries=-2", "-2"),
            ("--job-retries=often", "often"),
            ("--worker-wakeup=-1", "-1"),
            ("--worker-wakeup=all", "all"),
            ("--order=random", "random"),
            ("--handle-prefix=", "''"),
            ("--handle-prefix=a b", "a b"),
            ("--handle-prefix=" + "x" * 99, "99"),
            ("--max-packet=", "max-packet"),
            ("--max-packet=k", "k"),
            ("--max-packet=1t", "1t"),
            ("--max-packet=10", "10"),
            ("--max-packet=4G", str(4 << 30)),
            ("--keepalive-idle=-1", "keepalive"),
            ("--keepalive-interval=-1", "keepalive"),
            ("--keepalive-count=-1", "keepalive"),
            ("--keepalive-count=x", "x"),
            ("--web=nowhere", "nowhere"),
            ("--file-descriptors=-1", "file-descriptors"),
            ("--file-descriptors=x", "x"),
            ("--unknown", "unknown"),
            ("word", "arguments"),
        ):
            with self.subTest(argument):
                with self.assertRaises(UsageError) as caught:
                    self.parse(argument)
                self.assertIn(named, str(caught.exception))

    def test_a_number_that_is_none_names_its_option(self) -> None:
        for option in ("job-retries", "worker-wakeup", "keepalive-idle", "file-descriptors"):
            with self.subTest(option):
                with self.assertRaises(UsageError) as caught:
                    self.parse(f"--{option}=x")
                self.assertIn(option, str(caught.exception))

    def test_version(self) -> None:
        with redirect_stdout(io.StringIO()) as output, self.assertRaises(SystemExit) as caught:
            self.parse("--version")
        self.assertIn(caught.exception.code, (None, 0))
        self.assertEqual(output.getvalue(), f"txgearman {__version__} ({build()})\n")

    def test_help_says_what_there_is(self) -> None:
        text = str(Options())
        for option in ("--listen=", "--job-retries=", "--max-packet=", "--exceptions", "--round-robin"):
            self.assertIn(option, text)

    def test_parsing_touches_no_signal(self) -> None:
        before = signal.getsignal(signal.SIGUSR1)
        self.parse()
        self.assertIs(signal.getsignal(signal.SIGUSR1), before)
