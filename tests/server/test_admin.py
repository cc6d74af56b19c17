"""The admin commands: text lines and their answers, byte for byte in gearmand's formats."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.address import HostnameAddress, IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from tests.server.peers import Peer, ServerTestCase, req, res
from txgearman import __version__
from txgearman.access.patterns import MAX_SHOWN
from txgearman.server import GearmanServerFactory

H1, H2, H3 = b"H:test:1", b"H:test:2", b"H:test:3"
WRONG_SHUTDOWN = b"ERR INVALID_ARGUMENTS shutdown,+shutdown+graceful+or+shutdown+drain\r\n"
NO_SUCH_COMMAND = b"ERR UNKNOWN_COMMAND Unknown+server+command%b\r\n"
INCOMPLETE = b"ERR INVALID_ARGUMENTS An+incomplete+set+of+arguments+was+sent+to+this+command+%b\r\n"


class AdminTestCase(ServerTestCase):
    """With an administrator."""

    def setUp(self) -> None:
        super().setUp()
        self.admin = self.peer()

    def assert_answer(self, line: bytes, answer: bytes) -> None:
        self.assertEqual(self.admin.ask(line + b"\n"), answer)


class ServerCommandsTest(AdminTestCase):
    """About the server itself."""

    def test_getpid(self) -> None:
        self.assert_answer(b"getpid", b"OK %d\n" % os.getpid())

    def test_version(self) -> None:
        self.assert_answer(b"version", b"OK txgearman-%b\n" % __version__.encode())

    def test_verbose(self) -> None:
        self.assert_answer(b"verbose", b"OK INFO\n")


class LinesTest(AdminTestCase):
    """What makes a line, and what is wrong with one."""

    def test_line_ends(self) -> None:
        self.assertEqual(self.admin.ask(b"verbose\n"), b"OK INFO\n")
        self.assertEqual(self.admin.ask(b"verbose\r\n"), b"OK INFO\n")
        self.assertEqual(self.admin.ask(b"verbose\r\nverbose\n"), b"OK INFO\n" * 2)

    def test_letters_of_either_case(self) -> None:
        self.assert_answer(b"VERBOSE", b"OK INFO\n")
        self.assert_answer(b"Create FUNCTION Some", b"OK\r\n")
        self.assert_answer(b"Status", b"Some\t0\t0\t0\n.\n")
        self.assert_answer(b"SHOW Jobs", b".\n")
        self.assert_answer(b"show UNIQUE jobs", b".\n")
        self.assert_answer(b"CANCEL Job x", b"ERR UNKNOWN_JOB\r\n")
        self.assert_answer(b"DROP Function Some", b"OK\r\n")

    def test_spaces(self) -> None:
        self.assert_answer(b"create   function  some", b"OK\r\n")
        self.assert_answer(b"status ", b"some\t0\t0\t0\n.\n")
        self.assert_answer(b" status", NO_SUCH_COMMAND % b"")

    def test_spaces_at_the_end_are_followed_by_an_empty_word(self) -> None:
        self.admin.ask(b"create function f\n")
        for line, answer in (
            (b"show ", b"ERR UNKNOWN_SHOW_ARGUMENTS\r\n"),
            (b"show jobs ", b"ERR UNKNOWN_SHOW_ARGUMENTS\r\n"),
            (b"show unique jobs  ", b"ERR UNKNOWN_SHOW_ARGUMENTS\r\n"),
            (b"cancel ", NO_SUCH_COMMAND % b"cancel"),
            (b"cancel job ", b"ERR UNKNOWN_JOB\r\n"),
            (b"cancel job H:test:1 ", b"ERR UNKNOWN_ERROR\r\n"),
            (b"create function ", INCOMPLETE % b"create"),
            (b"create function g ", INCOMPLETE % b"create"),
            (b"drop function ", b"ERR function not found\r\n"),
            (b"drop function f ", INCOMPLETE % b"drop"),
            (b"maxqueue ", INCOMPLETE % b"maxqueue"),
            (b"maxqueue f ", INCOMPLETE % b"maxqueue"),
            (b"maxqueue f 1 ", INCOMPLETE % b"maxqueue"),
            (b"maxrate ", INCOMPLETE % b"maxrate"),
            (b"shutdown ", WRONG_SHUTDOWN),
        ):
            with self.subTest(line):
                self.assert_answer(line, answer)
        self.assert_answer(b"show function limits", b".\n")
        self.assert_answer(b"status", b"f\t0\t0\t0\n.\n")

    def test_a_function_without_a_name_can_be_dropped(self) -> None:
        self.admin.ask(req(1, b""), req(2, b""))
        self.assert_answer(b"drop function ", b"OK\r\n")
        self.assert_answer(b"status", b".\n")

    def test_unknown_commands(self) -> None:
        self.admin.ask(b"version\n")
        for line, word in (
            (b"", b""),
            (b"nonsense", b"nonsense"),
            (b"Statuss x", b"Statuss"),
            (b"\xff", b"\xff"),
            (b"\x1b[2J\x9b\r", rb"\x1b[2J\x9b"),
            (b"x" * (MAX_SHOWN + 1), b"x" * MAX_SHOWN),
        ):
            with self.subTest(line):
                self.assert_answer(line, NO_SUCH_COMMAND % word)

    def test_missing_words(self) -> None:
        for line, word in (
            (b"create", b"create"),
            (b"create function", b"create"),
            (b"drop", b"drop"),
            (b"DROP function", b"DROP"),
            (b"maxqueue", b"maxqueue"),
        ):
            with self.subTest(line):
                self.assert_answer(line, INCOMPLETE % word)
        for line, word in ((b"show", b"show"), (b"cancel", b"cancel"), (b"cancel job", b"cancel")):
            with self.subTest(line):
                self.assert_answer(line, NO_SUCH_COMMAND % word)

    def test_wrong_words(self) -> None:
        self.assert_answer(b"create queue f", INCOMPLETE % b"create")
        self.assert_answer(b"drop queue f", INCOMPLETE % b"drop")
        self.assert_answer(b"cancel work H:test:1", b"ERR UNKNOWN_ERROR\r\n")
        for line in (b"show unique", b"show all", b"show jobs unique"):
            with self.subTest(line):
                self.assert_answer(line, b"ERR UNKNOWN_SHOW_ARGUMENTS\r\n")

    def test_words_too_many(self) -> None:
        self.assert_answer(b"status a b c d", b".\n")
        self.assert_answer(b"status a b c d e", b"ERR TOO_MANY_ARGS A+command+has+at+most+5+words\r\n")
        self.assertIsNone(self.admin.lost)

    def test_a_word_too_many_changes_nothing(self) -> None:
        # Each command that changes something; the others have `show`, which is refused, or ignore words.
        self.admin.ask(b"create function f\nmaxqueue f 7\nmaxrate f 8 9\n", req(18, b"g", b"", b""))
        kept = self.admin.ask(b"status\nshow function limits\nshow jobs\nverbose\n")
        level = b"ERR INVALID_ARGUMENTS verbose+or+verbose+LEVEL\r\n"
        for line, answer in (
            (b"create function a b", INCOMPLETE % b"create"),
            (b"drop function f b", INCOMPLETE % b"drop"),
            (b"drop function f b c", INCOMPLETE % b"drop"),
            (b"cancel job H:test:1 x", b"ERR UNKNOWN_ERROR\r\n"),
            (b"cancel job H:test:1 x y", b"ERR UNKNOWN_ERROR\r\n"),
            (b"cancel work H:test:1 x", b"ERR UNKNOWN_ERROR\r\n"),
            (b"maxqueue f 1 2 3 4", b"ERR TOO_MANY_ARGS A+command+has+at+most+5+words\r\n"),
            (b"maxrate f 1 2 3", INCOMPLETE % b"maxrate"),
            (b"shutdown graceful now", WRONG_SHUTDOWN),
            (b"verbose debug x", level),
            (b"verbose debug ", level),
            (b"show jobs x", b"ERR UNKNOWN_SHOW_ARGUMENTS\r\n"),
        ):
            with self.subTest(line):
                self.assert_answer(line, answer)
        self.assertEqual(self.admin.ask(b"status\nshow function limits\nshow jobs\nverbose\n"), kept)

    def test_nul_within_a_line(self) -> None:
        self.admin.ask(b"create function f\n")
        refused = b"ERR INVALID_ARGUMENTS A+command+must+not+contain+NUL\r\n"
        for line in (b"drop function f\0x", b"drop function f\0", b"maxqueue f 1\0", b"status x\0", b"x\0"):
            with self.subTest(line):
                self.assert_answer(line, refused)
        self.assert_answer(b"status", b"f\t0\t0\t0\n.\n")
        self.assert_answer(b"show function limits", b".\n")

    def test_words_that_do_not_matter(self) -> None:
        for line in (b"version", b"verbose", b"getpid", b"status", b"prioritystatus", b"workers"):
            with self.subTest(line):
                self.assertEqual(self.admin.ask(line + b" x y\n"), self.admin.ask(line + b"\n"))


class ListsTest(AdminTestCase):
    """status, prioritystatus, workers, show jobs, show unique jobs."""

    def test_nothing(self) -> None:
        for line in (b"status", b"prioritystatus", b"show jobs", b"show unique jobs"):
            with self.subTest(line):
                self.assert_answer(line, b".\n")
        self.assert_answer(b"workers", b"1 127.0.0.1 - :\n.\n")

    def test_functions(self) -> None:
        client, worker = self.peer(), self.worker(b"f", b"g")
        client.ask(req(32, b"f", b"", b""), req(18, b"f", b"", b""), req(7, b"f", b"", b""))
        client.ask(req(34, b"f", b"", b""), req(18, b"h", b"", b""))
        worker.ask(req(9))
        self.assert_answer(b"status", b"f\t4\t1\t1\ng\t0\t0\t1\nh\t1\t0\t0\n.\n")
        self.assert_answer(b"prioritystatus", b"f\t0\t2\t1\t1\ng\t0\t0\t0\t1\nh\t0\t1\t0\t0\n.\n")

    def test_scheduled_jobs_are_counted(self) -> None:
        self.admin.ask(req(36, b"f", b"u", b"1000", b""))
        self.assert_answer(b"status", b"f\t1\t0\t0\n.\n")
        self.assert_answer(b"prioritystatus", b"f\t0\t1\t0\t0\n.\n")
        self.assert_answer(b"show jobs", H1 + b"\t0\t0\t1\n.\n")

    def test_a_function_registered_twice_counts_once(self) -> None:
        self.worker(b"f", b"f")
        self.assert_answer(b"status", b"f\t0\t0\t1\n.\n")

    def test_jobs(self) -> None:
        client, worker = self.peer(), self.worker(b"f")
        client.ask(req(7, b"f", b"one", b""), req(18, b"f", b"", b""), req(18, b"g", b"three", b""))
        worker.ask(req(9))
        worker.ask(req(2, b"f"), req(1, b"f"), req(9), req(9))
        self.assert_answer(b"show jobs", H1 + b"\t1\t0\t0\n" + H2 + b"\t0\t0\t1\n" + H3 + b"\t0\t0\t1\n.\n")
        self.assert_answer(b"show unique jobs", b"one\n\nthree\n.\n")

    def test_workers(self) -> None:
        named, worker = self.peer(), self.worker(b"f", b"g")
        named.ask(req(22, b"somebody"))
        self.assert_answer(b"workers", b"1 127.0.0.1 - :\n2 127.0.0.1 somebody :\n3 127.0.0.1 - : g f\n.\n")
        worker.ask(req(2, b"f"))
        named.hang_up()
        self.assert_answer(b"workers", b"1 127.0.0.1 - :\n3 127.0.0.1 - : g\n.\n")

    def assert_shown(self, name: bytes, shown: bytes, word: bytes) -> None:
        """A name is shown so in every list with names, in columns and lines, and as a word in ``workers``."""
        self.gearman = self.serve()
        self.admin = self.peer()
        peer = self.peer()
        peer.ask(req(22, name), req(1, name), req(18, name, name, b""))
        self.assert_answer(b"status", shown + b"\t1\t0\t1\n.\n")
        self.assert_answer(b"prioritystatus", shown + b"\t0\t1\t0\t1\n.\n")
        self.assert_answer(b"show unique jobs", shown + b"\n.\n")
        self.assert_answer(b"workers", b"1 127.0.0.1 - :\n2 127.0.0.1 %b : %b\n.\n" % (word, word))
        self.gearman.server.administration.set_rate(name, 5, 5)
        self.assert_answer(
            b"show function limits", shown + b"\t0\t0\t0\t5\t5\t0\t0\t0\t0\t0\t:\t0\t0\t0\n.\n"
        )

    def test_names_cannot_break_the_lists(self) -> None:
        self.assert_shown(b"a\tb\r\nc d\n.\n", rb"a\tb\r\nc d\n.\n", rb"a\tb\r\nc\x20d\n.\n")

    def test_names_are_not_taken_for_the_frame(self) -> None:
        for name, shown in (
            (b".", rb"\x2e"),
            (b" .", rb"\x20."),
            (b"ERR UNKNOWN_COMMAND", rb"\x45RR UNKNOWN_COMMAND"),
            (b"ERR", rb"\x45RR"),
            (b"OK 1.1.20", rb"\x4fK 1.1.20"),
            (b"ERROR", b"ERROR"),
            (b"..", b".."),
        ):
            with self.subTest(name):
                self.assert_shown(name, shown, shown.replace(b" ", rb"\x20"))
        self.assert_shown(b":", b":", rb"\x3a")

    def test_names_give_no_orders_to_a_terminal(self) -> None:
        for name, shown in (
            (b"\x1b[2J\a\b\x7f", rb"\x1b[2J\x07\x08\x7f"),
            (b"\x9b31m", rb"\x9b31m"),
            ("\u009b31m".encode(), rb"\xc2\x9b31m"),
            ("a\u2028b".encode(), rb"a\xe2\x80\xa8b"),
        ):
            with self.subTest(name):
                self.assert_shown(name, shown, shown)

    def test_backslashes(self) -> None:
        self.assert_shown(rb"App\Jobs", rb"App\Jobs", rb"App\Jobs")
        self.assert_shown(rb"App\tasks", rb"App\\tasks", rb"App\\tasks")

    def test_a_worker_with_many_functions(self) -> None:
        names = [b"f %d" % number for number in range(350)]
        self.worker(*names)
        shown = b" ".join(name.replace(b" ", rb"\x20") for name in reversed(names))
        self.assert_answer(b"workers", b"1 127.0.0.1 - :\n2 127.0.0.1 - : " + shown + b"\n.\n")

    def test_names_of_any_other_bytes_are_shown_as_they_are(self) -> None:
        for name in ("größe".encode(), b"\xff\xfe", b"a-b_c.d:e", b""):
            with self.subTest(name):
                self.gearman = self.serve()
                self.admin = self.peer()
                self.admin.ask(req(18, name, b"", b""))
                self.assert_answer(b"status", name + b"\t1\t0\t0\n.\n")


class FunctionsTest(AdminTestCase):
    """create function, drop function, maxqueue."""

    def test_create(self) -> None:
        self.assert_answer(b"create function some", b"OK\r\n")
        self.assert_answer(b"create function some", b"OK\r\n")
        self.assert_answer(b"status", b"some\t0\t0\t0\n.\n")

    def test_create_with_crlf(self) -> None:
        self.assertEqual(self.admin.ask(b"create function some\r\n"), b"OK\r\n")
        self.assert_answer(b"status", b"some\t0\t0\t0\n.\n")

    def test_names_too_long(self) -> None:
        refused = b"ERR ARGUMENT_TOO_LARGE A+function+name+has+at+most+512+bytes\r\n"
        self.assert_answer(b"create function " + b"f" * 513, refused)
        self.assert_answer(b"maxqueue " + b"f" * 513, refused)
        self.assert_answer(b"status", b".\n")
        self.assert_answer(b"create function " + b"f" * 512, b"OK\r\n")

    def test_drop(self) -> None:
        self.assert_answer(b"drop function some", b"ERR function not found\r\n")
        self.admin.ask(b"create function some\n")
        self.assert_answer(b"drop function SOME", b"ERR function not found\r\n")
        self.assert_answer(b"drop function some", b"OK\r\n")
        self.assert_answer(b"status", b".\n")

    def test_drop_what_is_in_use(self) -> None:
        in_use = b"ERR there are still connected workers or executing clients\r\n"
        worker = self.worker(b"f")
        self.admin.ask(req(18, b"g", b"", b""))
        self.assert_answer(b"drop function f", in_use)
        self.assert_answer(b"drop function g", in_use)
        worker.hang_up()
        self.admin.ask(b"cancel job H:test:1\n")
        self.assert_answer(b"drop function f", b"OK\r\n")
        self.assert_answer(b"drop function g", b"OK\r\n")

    def accepted(self, line: bytes) -> tuple[int, int, int]:
        """How many jobs of each priority a server takes, each alone, after this ``maxqueue``; at most 5."""
        counts = []
        for submit in (32, 18, 34):
            admin = self.peer(self.serve())
            self.assertEqual(admin.ask(line), b"OK\r\n")
            answers = admin.ask(*[req(submit, b"f", b"", b"")] * 5)
            counts.append(answers.count(res(8, H1)[:8]))
        high, normal, low = counts
        return high, normal, low

    def test_maxqueue(self) -> None:
        for line, accepted in (
            (b"maxqueue f 2\n", (2, 2, 2)),
            (b"maxqueue f 1 2 3\n", (1, 2, 3)),
            (b"maxqueue f 0 2 0\n", (5, 2, 5)),
            (b"maxqueue f 1 2\n", (1, 2, 5)),
            (b"maxqueue f\n", (5, 5, 5)),
            (b"maxqueue f 0\n", (5, 5, 5)),
            (b"maxqueue f -1\n", (5, 5, 5)),
            (b"maxqueue f many\n", (5, 5, 5)),
            (b"maxqueue f 99999999999999999999999\n", (5, 5, 5)),
            (b"MAXQUEUE f 2\r\n", (2, 2, 2)),
            (b"maxqueue g 2\n", (5, 5, 5)),
        ):
            with self.subTest(line):
                self.assertEqual(self.accepted(line), accepted)

    def test_maxqueue_counts_all_jobs_of_the_function(self) -> None:
        self.assert_answer(b"maxqueue f 1 2 3", b"OK\r\n")
        answers = self.admin.ask(*[req(submit, b"f", b"", b"") for submit in (34, 32, 18, 18, 34, 34)])
        created, refused = b"\0RES\0\0\0\x08", b"\0RES\0\0\0\x13"
        kinds = [answers.index(kind) for kind in (created, refused)]
        self.assertEqual(kinds[0], 0)
        self.assertEqual((answers.count(created), answers.count(refused)), (3, 3))

    def test_a_limit_can_be_lifted(self) -> None:
        self.admin.ask(b"maxqueue f 1\n", req(18, b"f", b"", b""))
        self.assertEqual(self.admin.ask(b"maxqueue f\n", req(18, b"f", b"", b"")), b"OK\r\n" + res(8, H2))


class CancelTest(AdminTestCase):
    """cancel job."""

    def test_an_unknown_job(self) -> None:
        self.assert_answer(b"cancel job H:test:1", b"ERR UNKNOWN_JOB\r\n")

    def test_a_waiting_job(self) -> None:
        client = self.peer()
        client.ask(req(7, b"f", b"u", b""))
        self.assert_answer(b"cancel job H:test:1", b"OK\r\n")
        self.assertEqual(client.heard(), res(14, H1))
        self.assert_answer(b"cancel job H:test:1", b"ERR UNKNOWN_JOB\r\n")
        self.assert_answer(b"show jobs", b".\n")
        self.assert_answer(b"status", b"f\t0\t0\t0\n.\n")
        self.assertEqual(self.worker(b"f").ask(req(9)), res(10))

    def test_a_running_job(self) -> None:
        client, worker = self.peer(), self.worker(b"f")
        client.ask(req(7, b"f", b"u", b""))
        worker.ask(req(9))
        self.assert_answer(b"cancel job H:test:1", b"OK\r\n")
        self.assertEqual(client.heard(), res(14, H1))
        self.assertEqual(worker.ask(req(28, H1, b"d"), req(13, H1, b"r")), b"")
        self.assertEqual(client.heard(), b"")

    def test_a_scheduled_job(self) -> None:
        self.admin.ask(req(36, b"f", b"", b"100", b""))
        self.assert_answer(b"cancel job H:test:1", b"OK\r\n")
        self.gearman.turn(200)
        self.assertEqual(self.worker(b"f").ask(req(9)), res(10))


class ShutdownTest(SynchronousTestCase):
    """Who may end the server, and what the server is then told."""

    def ask(self, line: bytes, address: IAddress) -> tuple[bytes, list[bool]]:
        """The answer to `line` from a peer at `address`, and the calls of on_shutdown."""
        calls: list[bool] = []
        clock = Clock()
        factory = GearmanServerFactory(clock, on_shutdown=calls.append)
        transport = StringTransport(peerAddress=address)
        protocol = factory.buildProtocol(None)
        protocol.makeConnection(transport)
        protocol.dataReceived(line + b"\r\n")
        clock.advance(0)
        return transport.value(), calls

    LOCAL = (
        IPv4Address("TCP", "127.0.0.1", 1),
        IPv4Address("TCP", "127.9.9.9", 1),
        IPv6Address("TCP", "::1", 1),
        IPv6Address("TCP", "::ffff:127.0.0.1", 1),
        UNIXAddress(b"/some/socket"),
        UNIXAddress(None),
    )
    REMOTE: tuple[Any, ...] = (
        IPv4Address("TCP", "192.0.2.1", 1),
        IPv6Address("TCP", "2001:db8::1", 1),
        IPv6Address("TCP", "fe80::1%eth0", 1),
        IPv6Address("TCP", "::ffff:192.0.2.1", 1),
        HostnameAddress(b"localhost", 1),
    )

    def test_from_this_machine(self) -> None:
        for address in self.LOCAL:
            with self.subTest(address):
                self.assertEqual(self.ask(b"shutdown", address), (b"OK\r\n", [False]))
                self.assertEqual(self.ask(b"SHUTDOWN Graceful", address), (b"OK\r\n", [True]))

    def test_from_elsewhere(self) -> None:
        refused = b"ERR NOT_ALLOWED shutdown+is+for+connections+from+this+machine\r\n"
        for address in self.REMOTE:
            with self.subTest(address):
                self.assertEqual(self.ask(b"shutdown", address), (refused, []))
                self.assertEqual(self.ask(b"shutdown graceful", address), (refused, []))

    def test_wrong_words(self) -> None:
        answer, calls = self.ask(b"shutdown now", self.LOCAL[0])
        self.assertEqual((answer, calls), (WRONG_SHUTDOWN, []))


class ShutdownWithoutListenerTest(AdminTestCase):
    """A factory that was not told what to do on shutdown."""

    def test_it_goes_on(self) -> None:
        self.assertEqual(self.admin.ask(b"shutdown\n"), b"OK\r\n")
        self.assertEqual(Peer.ask(self.admin, req(16, b"x")), res(17, b"x"))
