"""A server with an access policy: what it denies, how it says so, and whom it knows."""

from __future__ import annotations

import os
import tempfile
from hashlib import sha256
from ipaddress import ip_network

from twisted.internet import defer
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import TestCase

from tests.server.lines import Line, close
from tests.server.peers import PREFIX, Peer, ServerTestCase, SocketlikeTransport, error, req, res
from tests.server.test_configuration import FileTestCase
from tests.support import on_reactor
from txgearman.access.identity import identity_of
from txgearman.access.patterns import MAX_SHOWN
from txgearman.access.policy import ADMIN_COMMANDS, ANY_USER, AccessPolicy, Identity, Rule
from txgearman.server import GearmanServerFactory, Settings, make_service
from txgearman.server.admin import commands as admin_commands
from txgearman.server.config.configuration import ConfigurationError, read_configuration
from txgearman.server.process.twistd import CONFIGURABLE
from txgearman.testing import MemoryGearman
from txgearman.wire.limits import MAX_FUNCTION, MAX_LINE

NOBODY = AccessPolicy()
SUBMITS = {
    7: (b"%b", b"u", b"x"),
    21: (b"%b", b"u", b"x"),
    33: (b"%b", b"u", b"x"),
    18: (b"%b", b"u", b"x"),
    32: (b"%b", b"u", b"x"),
    34: (b"%b", b"u", b"x"),
    36: (b"%b", b"u", b"4102444800", b"x"),
    37: (b"%b", b"u", b"r", b"", b"x"),
    38: (b"%b", b"u", b"r", b"", b"x"),
    1007: (b"%b", b"u", b"background=1", b"x"),
}
"""The fields of each packet that submits a job, but for its function."""


def everybody(submit: tuple[bytes, ...] = (), work: tuple[bytes, ...] = (), *admin: str) -> AccessPolicy:
    """A policy with a single rule, which fits everybody."""
    return AccessPolicy((Rule("everybody", submit=submit, work=work, admin=frozenset(admin)),))


class AccessTestCase(ServerTestCase):
    def guarded(self, access: AccessPolicy) -> Peer:
        """A connection to a new server with this policy."""
        self.gearman = self.serve(access=access)
        return self.peer()

    def change(self, gearman: MemoryGearman, access: AccessPolicy | None) -> None:
        gearman.server.reconfigure(Settings(handle_prefix=PREFIX, access=access))


class PacketTest(AccessTestCase):
    """Packets that need a right."""

    def test_submitting(self) -> None:
        for number, (name, *rest) in SUBMITS.items():
            with self.subTest(number):
                peer = self.guarded(everybody(submit=(b"f*",)))
                peer.ask(req(26, b"submit-extended"))
                denied = peer.ask(req(number, name % b"g", *rest))
                self.assertEqual(denied, error(b"ACCESS_DENIED", b"You may not submit jobs of 'g'"))
                self.assertEqual(self.gearman.server.broker.total, 0)
                self.assertEqual(peer.ask(req(number, name % b"fg", *rest)), res(8, b"H:test:1"))

    def test_a_denied_function_is_not_even_made(self) -> None:
        peer = self.guarded(NOBODY)
        peer.ask(req(7, b"f", b"", b""), req(1, b"g"))
        self.assertEqual(list(self.gearman.server.inspection.functions()), [])

    def test_attaching_to_a_job_of_others_needs_the_right_too(self) -> None:
        gearman = self.serve(access=None)
        self.peer(gearman).ask(req(18, b"f", b"u", b"x"))
        self.change(gearman, NOBODY)
        self.assertIn(b"ACCESS_DENIED", self.peer(gearman).ask(req(7, b"f", b"u", b"")))

    def test_working(self) -> None:
        for packet in (req(1, b"%b"), req(23, b"%b", b"5000")):
            peer = self.guarded(everybody((b"*",), (b"f",)))
            denied = peer.ask(packet.replace(b"%b", b"gg"))
            self.assertEqual(denied, error(b"ACCESS_DENIED", b"You may not work on 'gg'"))
            peer.ask(req(18, b"gg", b"", b""), req(18, b"f", b"", b"x"), req(1, b"f"))
            self.assertEqual(peer.ask(req(9)), res(11, b"H:test:2", b"f", b"x"))
            self.assertEqual(peer.ask(req(13, b"H:test:2", b"")), b"")
            self.assertEqual(peer.ask(req(9)), res(10))

    def test_asking_for_the_status(self) -> None:
        peer = self.guarded(everybody(work=(b"*",)))
        denied = error(b"ACCESS_DENIED", b"You may not ask for the status of jobs")
        self.assertEqual(peer.ask(req(15, b"H:test:1"), req(41, b"u")), denied + denied)
        for access in (everybody(submit=(b"f",)), everybody((), (), "view")):
            self.assertEqual(
                self.guarded(access).ask(req(15, b"H"))[:12], res(20, b"H\x000\x000\x000\x000")[:12]
            )

    def test_what_needs_no_right(self) -> None:
        peer = self.guarded(NOBODY)
        self.assertEqual(peer.ask(req(22, b"me"), req(16, b"x")), res(17, b"x"))
        self.assertEqual(peer.ask(req(26, b"exceptions")), res(27, b"exceptions"))
        self.assertEqual(peer.ask(req(9), req(4)), res(10))

    def test_limits_of_names_come_ahead_of_the_policy(self) -> None:
        """All packets with a name that the policy is asked about. Over HTTP see tests/web/test_access.py."""
        names = {**SUBMITS, 1: (b"%b",), 23: (b"%b", b"5000")}
        for access in (NOBODY, everybody((b"*",), (b"*",)), everybody((b"g*v*final",), (b"g*v*final",))):
            for number, (_, *rest) in names.items():
                peer = self.guarded(access)
                rights = access.rights_of(identity_of(peer.transport))
                with self.subTest(number, access=access), capturedLogs() as logged:
                    long = b"g" * (MAX_FUNCTION + 1)
                    answer = peer.ask(req(number, long, *rest))
                    self.assertEqual(answer, error(b"ARGUMENT_TOO_LARGE", b"Function name too large"))
                    self.assertEqual(logged, [])
                    self.assertNotIn(long, rights.may_submit.keys() | rights.may_work.keys())
                    # At the limit it is the policy's turn.
                    self.assertNotIn(b"ARGUMENT_TOO_LARGE", peer.ask(req(number, b"g" * MAX_FUNCTION, *rest)))

    def test_answers_keep_their_order(self) -> None:
        peer = self.guarded(everybody(submit=(b"f",)))
        self.assertEqual(
            peer.ask(req(18, b"f", b"", b""), req(18, b"g", b"", b""), req(18, b"f", b"", b"")),
            res(8, b"H:test:1")
            + error(b"ACCESS_DENIED", b"You may not submit jobs of 'g'")
            + res(8, b"H:test:2"),
        )


class CommandTest(AccessTestCase):
    """Admin commands."""

    LINES = {
        "version": b"version",
        "verbose": b"verbose",
        "getpid": b"getpid",
        "status": b"status",
        "prioritystatus": b"PriorityStatus",
        "workers": b"workers",
        "show": b"show jobs",
        "cancel": b"cancel job H:1",
        "create": b"create function f",
        "drop": b"drop function f",
        "maxqueue": b"maxqueue f 1",
        "shutdown": b"shutdown nonsense",
        "jobs": b"jobs",
        "quiet": b"quiet 99",
        "unquiet": b"unquiet 99",
        "reload": b"reload",
    }

    def denied(self, access: AccessPolicy) -> set[str]:
        """The commands that are denied."""
        peer = self.guarded(access)
        return {name for name, line in self.LINES.items() if b"ACCESS_DENIED" in peer.ask(line + b"\n")}

    def test_all_are_known_here(self) -> None:
        self.assertLessEqual(set(self.LINES), set(ADMIN_COMMANDS))
        self.assertEqual({name.decode() for name in admin_commands._ANSWERS}, set(ADMIN_COMMANDS))

    def test_by_right_and_by_name(self) -> None:
        manage = {"cancel", "create", "drop", "maxqueue", "quiet", "unquiet", "reload"}
        shutdown = {"shutdown"}
        view = set(self.LINES) - manage - shutdown
        for words, denied in (
            ((), view | manage | shutdown),
            (("view",), manage | shutdown),
            (("manage",), view | shutdown),
            (("view", "manage"), shutdown),
            (("*",), set()),
            (("status", "cancel"), (view | manage | shutdown) - {"status", "cancel"}),
            (("shutdown",), view | manage),
        ):
            with self.subTest(words):
                self.assertEqual(self.denied(everybody((b"*",), (b"*",), *words)), denied)

    def test_the_answer(self) -> None:
        peer = self.guarded(NOBODY)
        self.assertEqual(
            peer.ask(b"Status\nstatus\n"),
            b"ERR ACCESS_DENIED You+may+not+use+this+command+Status\r\n"
            b"ERR ACCESS_DENIED You+may+not+use+this+command+status\r\n",
        )
        self.assertIn(b"UNKNOWN_COMMAND", peer.ask(b"nonsense\n"))

    def test_shutdown_from_afar_if_a_rule_says_so(self) -> None:
        for access, answer in (
            (None, b"ERR NOT_ALLOWED"),
            (everybody((), (), "view", "manage"), b"ERR ACCESS_DENIED"),
            (everybody((), (), "shutdown"), b"OK"),
        ):
            asked: list[bool] = []
            factory = GearmanServerFactory(
                self.gearman.clock, Settings(access=access), on_shutdown=asked.append
            )
            transport = SocketlikeTransport("192.0.2.1")
            transport.connect(factory.buildProtocol(None))
            transport.receive(b"shutdown\n")
            self.gearman.turn()
            self.assertTrue(transport.value().startswith(answer), transport.value())
            self.assertEqual(asked, [False] if answer == b"OK" else [])


class LogTest(AccessTestCase):
    """One line for each connection."""

    def test_the_first_denial_is_logged(self) -> None:
        peer = self.guarded(everybody(work=(b"f",)))
        with capturedLogs() as events:
            peer.ask(req(22, b"me"), req(7, b"a\nb", b"", b""), req(7, b"g", b"", b""), b"status\n")
        self.assertEqual([event["log_level"] for event in events], [LogLevel.warn])
        self.assertEqual(
            formatEvent(events[0]),
            "Connection 1 from 127.0.0.1 (client id 'me'), without a certificate: denied to submit jobs of "
            "'a\\nb'. "
            "Rules that fit: everybody",
        )
        with capturedLogs() as events:
            self.peer().ask(b"status\n", b"sta\xfftus\n")
        self.assertEqual(
            [formatEvent(event) for event in events],
            [
                "Connection 2 from 127.0.0.1 (client id '-'), without a certificate: denied to use the admin "
                "command 'status'. "
                "Rules that fit: everybody"
            ],
        )


class LengthTest(AccessTestCase):
    """Nothing of a peer is in a line of the log or in an answer beyond `MAX_SHOWN` bytes.

    What there is of peers: names of functions (denied submits and registrations, also by a change of the
    policy), admin lines (denied, unknown, incomplete, obeyed), client ids, which have a limit of their own,
    names in certificates, and over HTTP functions and parameters (tests/web/test_access.py). Echoes,
    OPTION_RES and the answers about a handle or unique repeat what was asked, as the protocol has it, and are
    in no log.
    """

    # With four letters for each byte, twice, for what is around them, and for the client id.
    LONGEST = 2 * 4 * MAX_SHOWN + 4 * 127 + 200

    def check(self, access: AccessPolicy | None, *messages: bytes) -> None:
        with capturedLogs() as logged:
            peer = self.peer(self.serve(access=access))
            for message in messages:
                answer = peer.ask(req(22, b"\x1b" * 127), message)
                self.assertLess(len(answer), self.LONGEST)
        self.assertTrue(logged)
        for event in logged:
            self.assertLess(len(formatEvent(event) or ""), self.LONGEST)

    def test_functions(self) -> None:
        for number, (_, *rest) in {**SUBMITS, 1: (b"",)}.items():
            self.check(NOBODY, req(number, b"\x1b" * MAX_FUNCTION, *rest))

    def test_a_changed_policy(self) -> None:
        gearman = self.serve(access=None)
        self.peer(gearman).ask(req(1, b"\x1b" * MAX_FUNCTION))
        with capturedLogs() as logged:
            self.change(gearman, NOBODY)
        self.assertLess(len(formatEvent(logged[0]) or ""), self.LONGEST)

    def test_admin_lines(self) -> None:
        long = b"\xff" * (MAX_LINE - 20)
        for line in (long, b"drop " + long, b"maxqueue", b"drop", b"create x " + long):
            peer = self.guarded(everybody((), (), "*"))
            self.assertLess(len(peer.ask(line + b"\n")), self.LONGEST)
        self.check(None, b"maxqueue " + b"\x1b" * MAX_FUNCTION + b" 1\n", b"drop function " + long + b"\n")
        self.check(NOBODY, b"drop function " + long + b"\n")

    def test_an_unknown_command_is_answered_with_its_beginning(self) -> None:
        answer = self.peer().ask(b"x" * 8000 + b"\n")
        self.assertEqual(answer, b"ERR UNKNOWN_COMMAND Unknown+server+command" + b"x" * MAX_SHOWN + b"\r\n")


class ChangeTest(AccessTestCase):
    """Another policy while connections are there."""

    def test_connections_that_exist_obey_it(self) -> None:
        peer = self.guarded(NOBODY)
        submit = req(18, b"f", b"", b"")
        self.assertIn(b"ACCESS_DENIED", peer.ask(submit))
        self.change(self.gearman, everybody(submit=(b"f",)))
        self.assertEqual(peer.ask(submit), res(8, b"H:test:1"))
        self.change(self.gearman, NOBODY)
        self.assertIn(b"ACCESS_DENIED", peer.ask(submit))
        self.change(self.gearman, None)
        self.assertEqual(peer.ask(submit), res(8, b"H:test:2"))

    def test_a_worker_loses_what_it_may_not_do_any_more(self) -> None:
        first = self.guarded(everybody((b"*",), (b"*",)))
        second = self.peer()
        for worker in (first, second):
            worker.ask(req(1, b"f"), req(1, b"g"))
        first.ask(req(18, b"f", b"", b"x"), req(18, b"g", b"", b"y"))
        self.assertEqual(first.ask(req(9), req(9)).count(b"\0RES"), 2)
        with capturedLogs() as events:
            self.change(self.gearman, everybody((b"*",), (b"g",)))
        self.assertIn("denied to work on 'f' any more", formatEvent(events[0]))
        # The job of f waits for somebody who may; that of g is not touched.
        self.assertEqual(first.ask(req(13, b"H:test:2", b"")), b"")
        self.assertIn(b"JOB_NOT_FOUND", first.ask(req(13, b"H:test:1", b"")))
        self.assertEqual(self.gearman.server.broker.total, 1)
        self.change(self.gearman, None)
        third = self.worker(b"f")
        self.assertEqual(third.ask(req(9)), res(11, b"H:test:1", b"f", b"x"))

    def test_the_same_policy_again_changes_nothing(self) -> None:
        access = everybody((b"*",), (b"f",))
        worker = self.guarded(access)
        worker.ask(req(1, b"f"))
        rights = self.gearman.server.connections[1].rights
        self.change(self.gearman, AccessPolicy(access.rules))
        self.assertIs(self.gearman.server.connections[1].rights, rights)


class IdentityTest(AccessTestCase):
    """Whom the server takes a peer for."""

    def test_addresses(self) -> None:
        for host, shown in (("192.0.2.1", "192.0.2.1"), ("2001:db8::1", "2001:db8::1"), ("", None)):
            identity = identity_of(SocketlikeTransport(host))
            self.assertEqual(str(identity.address) if identity.address else None, shown)
            self.assertEqual((identity.unix, identity.uid, identity.certificate), (False, None, frozenset()))

    def test_by_network(self) -> None:
        access = AccessPolicy((Rule("here", networks=(ip_network("10.0.0.0/8"),), submit=(b"*",)),))
        factory = GearmanServerFactory(self.gearman.clock, Settings(handle_prefix=PREFIX, access=access))
        for host, allowed in (("10.1.2.3", True), ("11.1.2.3", False)):
            transport = SocketlikeTransport(host)
            transport.connect(factory.buildProtocol(None))
            transport.receive(req(18, b"f", b"", b""))
            self.gearman.turn()
            self.assertIs(b"ACCESS_DENIED" not in transport.value(), allowed)


class UnixSocketTest(TestCase):
    """On a real UNIX socket, whose other end the system knows."""

    @on_reactor
    async def test_the_user_at_the_other_end(self) -> None:
        from twisted.internet import reactor

        uid = os.getuid()
        for users, allowed in (({uid}, True), ({uid + 1}, False), ({ANY_USER}, True)):
            rule = Rule("local", users=frozenset(users), submit=(b"f",))
            with tempfile.TemporaryDirectory(prefix="txgearman-access-") as folder:
                path = f"{folder}/s"
                service = make_service(
                    Settings(listen=(f"unix:{path}",), handle_prefix=PREFIX, access=AccessPolicy((rule,)))
                )
                service.startService()
                try:
                    line: Line = await connectProtocol(UNIXClientEndpoint(reactor, path), Line())
                    answer = await line.say(req(18, b"f", b"", b""))
                    self.assertEqual(answer == res(8, b"H:test:1"), allowed, (users, answer))
                    (connection,) = service.factory.connections.values()
                    self.assertEqual(identity_of(connection.transport), Identity(unix=True, uid=uid))
                    await close(line)
                finally:
                    await defer.maybeDeferred(service.stopService)


class FileTest(FileTestCase):
    """The rules in the configuration file."""

    TOKEN = "0123456789abcdef"

    def read(self, text: str) -> AccessPolicy | None:
        self.write(text)
        return read_configuration(self.path, CONFIGURABLE).access

    def test_nothing_said(self) -> None:
        self.assertIsNone(self.read("job-retries = 1\n"))
        self.assertEqual(self.read("[access]\n"), NOBODY)

    def test_everything(self) -> None:
        (self.folder / "tokens").write_text(f"\n{self.TOKEN}\n  {self.TOKEN * 2}\n")
        digests = [sha256(text.encode()).digest() for text in ("x", self.TOKEN, self.TOKEN * 2)]
        self.assertEqual(
            self.read(
                '[access.workers]\ncertificate = ["w-*", "größe"]\nnetwork = ["10.0.0.0/8", "::1"]\n'
                'work = "img-*"\n'
                '[access."the boss"]\nunix-user = ["root", "33", "*"]\nadmin = ["*", "status", "view"]\n'
                f'[access.http]\ntoken = "sha256:{digests[0].hex().upper()}"\ntoken-file = "tokens"\n'
                'submit = ["größe", "b"]\n'
                "[access.nothing]\n"
            ),
            AccessPolicy(
                (
                    Rule(
                        "workers",
                        certificates=("w-*", "größe"),
                        networks=(ip_network("10.0.0.0/8"), ip_network("::1/128")),
                        work=(b"img-*",),
                    ),
                    Rule(
                        "the boss",
                        users=frozenset({0, 33, ANY_USER}),
                        admin=frozenset({"*", "status", "view"}),
                    ),
                    Rule("http", tokens=tuple(digests), submit=("größe".encode(), b"b")),
                    Rule("nothing"),
                )
            ),
        )

    def test_mistakes(self) -> None:
        (self.folder / "short").write_text("0123456789\n")
        (self.folder / "empty").write_text("\n")
        for text, line, said in (
            ("access = 1\n", 1, "must be a table"),
            ("[access]\nsubmit = ['f']\n", 2, "access.submit must be a table"),
            ("[access.a]\nsubmits = 'f'\n", 2, "did you mean 'submit'?"),
            ("[access.a]\nsubmit = 1\n", 2, "submit must be text"),
            ("[access.a]\nsubmit = ['f', '']\n", 2, "submit must be names of functions"),
            ("[access.a]\nnetwork = '10.1.0.0/8'\n", 2, "network must be addresses or networks"),
            ("[access.a]\nnetwork = []\n", 2, "no peer would ever fit"),
            ("[access.a]\nunix-user = 'no-such-user'\n", 2, "'no-such-user' is none"),
            ("[access.a]\nunix-user = []\n", 2, "no peer would ever fit"),
            ("[access.a]\ncertificate = []\n", 2, "no peer would ever fit"),
            ("[access.a]\nadmin = ['see']\n", 2, "not 'see'"),
            ("[access.a]\ntoken = 'secretsecretsecret'\n", 2, "belong into a token-file"),
            ("[access.a]\ntoken = 'sha256:12'\n", 2, "64 hexadecimal digits"),
            ("\n[access.a]\ntoken-file = 'nowhere'\n", 2, "No such file"),
            ("[access.a]\ntoken-file = 'short'\n", 1, "at least 16"),
            ("[access.a]\ntoken-file = 'empty'\n", 1, "at least 16"),
            ("[access.a]\nunix-user = '*'\nnetwork = '::1'\n", 1, "make two rules"),
        ):
            with self.subTest(text):
                with self.assertRaises(ConfigurationError) as caught:
                    self.read(text)
                lines = str(caught.exception).splitlines()
                self.assertEqual(len(lines), 1, lines)
                self.assertTrue(lines[0].startswith(f"{self.path}:{line}: "), lines)
                self.assertIn(said, lines[0])
                self.assertNotIn("secretsecret", lines[0])
