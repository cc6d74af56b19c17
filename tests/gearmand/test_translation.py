"""What gearmand's options become here."""

from __future__ import annotations

import socket
import tempfile
import tomllib
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.databases import needs_postgresql
from txgearman.broker.policy import FunctionOrder
from txgearman.errors import StoreError
from txgearman.server.config.configuration import read_configuration
from txgearman.server.config.process_options import Level
from txgearman.server.config.toml_writer import toml_text
from txgearman.server.gearmand import translation
from txgearman.server.gearmand.command_line import CommandLineError, read_options
from txgearman.server.gearmand.options import OPTIONS, Effect
from txgearman.server.gearmand.translation import Translation, resolve, translate
from txgearman.server.process.twistd import CONFIGURABLE

V4 = (socket.AF_INET, "0.0.0.0", 4730)
V6 = (socket.AF_INET6, "::", 4730)


class Case(SynchronousTestCase):
    def translated(
        self, words: str = "", *, environment: dict[str, str] | None = None, **options: Any
    ) -> Translation:
        return translate(
            read_options(["--config-file=/dev/null", *words.split()]), environment or {}, **options
        )

    def refused(self, words: str, **options: Any) -> str:
        return str(self.assertRaises(CommandLineError, self.translated, words, **options))


class ListeningTests(Case):
    def places(self, *found: tuple[socket.AddressFamily, str, int], words: str = "") -> Any:
        return self.translated(words, addresses=lambda host, port: list(found)).said["listen"]

    def test_every_address_has_one_socket_where_that_serves_ipv4_too(self) -> None:
        self.patch(translation, "_is_v6_only", lambda: False)
        self.assertEqual(self.places(V4, V6), ["tcp6:4730:interface=\\:\\:"])
        self.assertEqual(self.places(V4), ["tcp:4730:interface=0.0.0.0"])

    def test_every_address_has_two_sockets_where_it_does_not(self) -> None:
        self.patch(translation, "_is_v6_only", lambda: True)
        self.assertEqual(self.places(V4, V6), ["tcp:4730:interface=0.0.0.0", "tcp6:4730:interface=\\:\\:"])

    def test_every_address_is_warned_of_once(self) -> None:
        (note,) = self.translated(addresses=lambda host, port: [V4, V6]).notes
        self.assertIn("every address", note)
        self.assertEqual(self.translated("-L 127.0.0.1").notes, ())

    def test_addresses_of_a_name(self) -> None:
        found = [(socket.AF_INET, "127.0.0.1", 4730), (socket.AF_INET6, "::1", 4730)]
        self.assertEqual(
            self.places(*found, words="-L localhost -b 7"),
            ["tcp:4730:interface=127.0.0.1:backlog=7", "tcp6:4730:interface=\\:\\:1:backlog=7"],
        )

    def test_what_is_asked_of_the_system(self) -> None:
        asked: list[tuple[str | None, str]] = []

        def addresses(host: str | None, port: str) -> list[Any]:
            asked.append((host, port))
            return [V4]

        self.translated(addresses=addresses)
        self.translated("-L here -p service", addresses=addresses)
        self.translated(environment={"GEARMAND_PORT": "4731"}, addresses=addresses)
        self.translated("-p 5", environment={"GEARMAND_PORT": "4731"}, addresses=addresses)
        self.assertEqual(asked, [(None, "4730"), ("here", "service"), (None, "4731"), (None, "5")])

    def test_the_system_s_answer(self) -> None:
        self.assertEqual(resolve("127.0.0.1", "4730"), [(socket.AF_INET, "127.0.0.1", 4730)])
        self.assertIn((socket.AF_INET, "0.0.0.0", 4730), resolve(None, "4730"))

    def test_no_such_place(self) -> None:
        self.assertIn("cannot listen at <any>:no_such_port: ", self.refused("-p no_such_port"))

    def test_a_system_without_ipv6(self) -> None:
        self.patch(translation, "_has", lambda family: family == socket.AF_INET)
        self.assertEqual(resolve(None, "4730"), [V4])

    def test_tls(self) -> None:
        said = self.translated("-L 127.0.0.1 --ssl --ssl-certificate=/c --ssl-key=/k").said
        self.assertEqual(said["tls"], ["tcp:4730:interface=127.0.0.1"])
        self.assertNotIn("listen", said)
        self.assertEqual((said["tls-certificate"], said["tls-key"]), ("/c", "/k"))
        environment = {"GEARMAND_SERVER_PEM": "/e", "GEARMAND_SERVER_KEY": "/f"}
        said = self.translated("-L 127.0.0.1 --ssl --ssl-key=/k", environment=environment).said
        self.assertEqual((said["tls-certificate"], said["tls-key"]), ("/e", "/f"))
        self.assertIn("--ssl-certificate", self.refused("--ssl"))


class MeaningTests(Case):
    def test_defaults_are_those_of_1_1_20(self) -> None:
        settings = self.translated("-L 127.0.0.1").settings()
        self.assertEqual(settings.policy.job_retries, -1)
        self.assertEqual(settings.wakeup, 0)
        self.assertIs(settings.order, FunctionOrder.REGISTRATION)
        self.assertFalse(settings.round_robin)
        self.assertIsNone(settings.store)

    def test_options_that_are_obeyed(self) -> None:
        words = (
            "-L 127.0.0.1 -j 3 -w 2 -R -f 100 --exceptions --job-handle-prefix=H:x --keepalive "
            "--keepalive-idle=7 --keepalive-interval=-1 --keepalive-count=3 --verbose=WARNING"
        )
        found = self.translated(words)
        settings, process = found.settings(), found.process_settings()
        self.assertEqual((settings.job_retries, settings.wakeup, settings.round_robin), (3, 2, True))
        self.assertEqual((settings.exceptions, settings.handle_prefix), (True, "H:x"))
        self.assertEqual(
            (settings.keepalive_idle, settings.keepalive_interval, settings.keepalive_count), (7, 0, 3)
        )
        self.assertEqual((process.file_descriptors, process.log_level), (100, Level.WARN))
        self.assertEqual(found.notes, ())

    def test_no_limit_of_retries_by_either_version(self) -> None:
        for words in ("-j 0", "-j -1"):
            self.assertEqual(self.translated(words).said["job-retries"], -1)

    def test_what_has_no_meaning_is_said_once(self) -> None:
        for option in OPTIONS:
            if option.effect is Effect.PASSED_OVER:
                value = "" if option.value is None else "=5"
                (note,) = self.translated(f"-L 127.0.0.1 --{option.name}{value}").notes
                self.assertTrue(note.startswith(f"--{option.name} has no effect: "), note)
        (note,) = self.translated("-L 127.0.0.1 --keepalive-idle=5").notes
        self.assertIn("--keepalive-idle has no effect without --keepalive", note)

    def test_options_of_other_queues_are_let_pass(self) -> None:
        self.assertEqual(self.translated("-L 127.0.0.1 --mysql-host=db --redis-port=1").notes, ())

    def test_what_is_missing_is_refused_by_name_with_what_to_use(self) -> None:
        for queue in ("MySQL", "redis", "libmemcached", "libdrizzle", "libtokyocabinet"):
            self.assertRegex(
                self.refused(f"-q {queue}"), f"no queue {queue} here. Use libsqlite3 .* Postgres"
            )
        self.assertIn("The option web of a configuration file", self.refused("-r http"))
        self.assertEqual(self.refused("-r other"), "Unknown protocol module other")
        self.assertEqual(self.refused("-q other"), "Unknown queue other")

    def test_numbers_that_cannot_be(self) -> None:
        for words in ("-j -2", "-w -1", "-b 0", "-f -1"):
            self.assertIn(" or more, not ", self.refused(words))

    def test_a_prefix_that_cannot_be(self) -> None:
        found = self.translated("--job-handle-prefix=\xe9")
        self.assertIn("handle-prefix must be printable", str(self.assertRaises(ValueError, found.settings)))

    def test_the_process(self) -> None:
        found = self.translated("-d -P /run/x -l none --syslog -u nobody")
        self.assertEqual((found.daemon, found.syslog, found.user), (True, True, "nobody"))
        self.assertEqual((found.pid_file, found.must_have_pid_file, found.log_file), ("/run/x", True, "none"))
        found = self.translated()
        self.assertEqual((found.pid_file, found.must_have_pid_file), ("/var/gearmand.pid", False))
        self.assertEqual((found.log_file, found.daemon), ("/var/log/gearmand.log", False))


class QueueTests(Case):
    def test_sqlite(self) -> None:
        found = self.translated("-q LibSQLite3 --libsqlite3-db=/q/jobs.db --libsqlite3-table=t")
        self.assertEqual(found.said["store"], "sqlite:////q/jobs.db.txgearman")
        assert found.queue is not None
        self.assertEqual((found.queue.url, found.queue.table), ("sqlite:////q/jobs.db", "t"))
        self.assertIn("--libsqlite3-db", self.refused("-q libsqlite3"))

    @needs_postgresql
    def test_postgresql(self) -> None:
        for conninfo, url in (
            ("host=db port=5433 user=u dbname=jobs", "postgresql://u@db:5433/jobs"),
            ("postgresql://u:p%40@db/jobs?sslmode=require", "postgresql://u:p%40@db/jobs?sslmode=require"),
            ("host=/run/pg dbname=jobs", "postgresql:///jobs?host=%2Frun%2Fpg"),
            ("host=a,b port=1,2 dbname=jobs", "postgresql:///jobs?host=a%2Cb&port=1%2C2"),
            ("", "postgresql://"),
        ):
            given = {"queue-type": "Postgres", "libpq-conninfo": conninfo, "listen": "127.0.0.1"}
            found = translate(given, {})
            self.assertEqual(found.said["store"], url)
        for conninfo in ("nonsense", "port=abc"):
            with self.assertRaises(StoreError):
                translate({"queue-type": "Postgres", "libpq-conninfo": conninfo}, {})


class ConfigurationFileTests(Case):
    def file(self) -> str:
        folder = tempfile.TemporaryDirectory(prefix="txgearman-gearmand-")
        self.addCleanup(folder.cleanup)
        return f"{folder.name}/gearmand.toml"

    def test_the_file_says_the_same(self) -> None:
        words = (
            "-L ::1 -p 4731 -j 3 -w 2 -R -f 100 --exceptions --keepalive --keepalive-idle=7 --verbose=DEBUG "
            "-q libsqlite3 --libsqlite3-db=/q/jobs.db"
        )
        found = self.translated(words)
        path = self.file()
        with open(path, "w") as file:
            file.write(toml_text(found.said, ["A comment"]))
        said = dict(read_configuration(path, CONFIGURABLE).said)
        for settings in (found.settings(), found.process_settings()):
            for option in CONFIGURABLE:
                if hasattr(settings, option.attribute) and option.name in said:
                    self.assertEqual(getattr(settings, option.attribute), said.pop(option.name))
        self.assertEqual(said, {})

    def test_texts_of_any_kind(self) -> None:
        path = self.file()
        text = '"quoted" \\ \t \x7f \x01 \N{GRINNING FACE} é'
        with open(path, "w") as file:
            file.write(toml_text({"handle-prefix": text, "listen": [text, "b"], "round-robin": True}))
        with open(path, "rb") as binary:
            self.assertEqual(
                tomllib.load(binary), {"handle-prefix": text, "listen": [text, "b"], "round-robin": True}
            )
        self.assertRaises(ValueError, toml_text, {"store": "\udcff"})
