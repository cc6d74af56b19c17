"""The access policy by itself: who fits which rule, and what they may do."""

from __future__ import annotations

from hashlib import sha256
from ipaddress import ip_address, ip_network

from twisted.trial.unittest import SynchronousTestCase

from txgearman.access.patterns import MAX_SHOWN
from txgearman.access.policy import (
    ANY_USER,
    MAX_CERTIFICATE_NAME,
    MAX_REMEMBERED,
    MAX_REMEMBERED_NAME,
    AccessPolicy,
    Identity,
    Right,
    Rights,
    Rule,
)

TOKEN = b"a long enough token"
DIGEST = sha256(TOKEN).digest()
OTHER = sha256(b"another token").digest()


def names(*certificate: str) -> Identity:
    return Identity(certificate=frozenset(certificate), address=ip_address("10.0.0.1"))


def at(address: str) -> Identity:
    return Identity(address=ip_address(address))


def user(uid: int | None) -> Identity:
    return Identity(unix=True, uid=uid)


class FittingTest(SynchronousTestCase):
    """Which peers a rule is about."""

    def test_each_condition(self) -> None:
        certificates = Rule("r", certificates=("worker-*", "boss"))
        networks = Rule("r", networks=(ip_network("10.1.0.0/16"), ip_network("2001:db8::/32")))
        some_users = Rule("r", users=frozenset({33, 1000}))
        any_user = Rule("r", users=frozenset({ANY_USER}))
        tokens = Rule("r", tokens=(OTHER, DIGEST))
        for rule, peer, fits in (
            (Rule("r"), Identity(), True),
            (Rule("r"), at("8.8.8.8"), True),
            (certificates, names("worker-1"), True),
            (certificates, names("x", "boss"), True),
            (certificates, names("bossy"), False),
            (certificates, names("BOSS"), False),
            (certificates, names(), False),
            (certificates, user(0), False),
            (networks, at("10.1.255.255"), True),
            (networks, at("10.2.0.0"), False),
            (networks, at("::ffff:10.1.2.3"), True),
            (networks, at("2001:db8::1"), True),
            (networks, at("2001:db9::1"), False),
            (networks, user(33), False),
            (networks, Identity(), False),
            (some_users, user(33), True),
            (some_users, user(34), False),
            (some_users, user(None), False),
            (some_users, at("127.0.0.1"), False),
            (some_users, Identity(uid=33), False),
            (any_user, user(34), True),
            (any_user, user(None), True),
            (any_user, at("127.0.0.1"), False),
            (tokens, Identity(token=TOKEN), True),
            (tokens, Identity(token=TOKEN + b"x"), False),
            (tokens, Identity(token=b""), False),
            (tokens, Identity(token=DIGEST), False),
            (tokens, Identity(token=DIGEST.hex().encode()), False),
            (tokens, Identity(), False),
        ):
            with self.subTest(rule=rule, peer=peer):
                self.assertIs(rule.fits(peer), fits)

    def test_all_kinds_of_conditions_must_fit(self) -> None:
        rule = Rule("r", certificates=("boss",), networks=(ip_network("10.0.0.0/8"),))
        self.assertTrue(rule.fits(names("boss")))
        self.assertFalse(rule.fits(names("x")))
        self.assertFalse(rule.fits(Identity(certificate=frozenset({"boss"}), address=ip_address("11.0.0.1"))))

    def test_a_name_in_a_certificate_has_a_limit(self) -> None:
        rule = Rule("r", certificates=("a*",))
        self.assertTrue(rule.fits(names("a" * MAX_CERTIFICATE_NAME)))
        self.assertFalse(rule.fits(names("a" * (MAX_CERTIFICATE_NAME + 1))))
        self.assertTrue(rule.fits(names("a" * (MAX_CERTIFICATE_NAME + 1), "ab")))

    def test_no_network_at_all_is_none_that_fits(self) -> None:
        self.assertFalse(Rule("r", networks=()).fits(at("10.0.0.1")))


class DescribedTest(SynchronousTestCase):
    """What the log says of a peer."""

    def test_each(self) -> None:
        for peer, described in (
            (at("10.0.0.1"), "without a certificate"),
            (names("b", "a\nc"), "with a certificate for a\\nc, b"),
            (user(33), "of the user 33"),
            (user(None), "of an unknown user"),
        ):
            self.assertEqual(peer.described, described)

    def test_long_names_and_many_are_cut(self) -> None:
        for peer in (names("x" * 100_000), names(*(f"host-{number}" for number in range(10_000)))):
            self.assertLess(len(peer.described), 4 * MAX_SHOWN)


class RightsTest(SynchronousTestCase):
    """What the rules that fit allow."""

    POLICY = AccessPolicy(
        (
            Rule("everybody", admin=frozenset({"version"})),
            Rule("local", networks=(ip_network("127.0.0.0/8"),), submit=(b"*",), admin=frozenset({"view"})),
            Rule(
                "workers", certificates=("worker",), work=(b"resize", b"img-*"), admin=frozenset({"status"})
            ),
            Rule("boss", certificates=("boss",), admin=frozenset({"manage", "shutdown"})),
            Rule("root", users=frozenset({0}), submit=(b"f",), work=(b"*",), admin=frozenset({"*"})),
        )
    )

    def rights(self, peer: Identity) -> Rights:
        return self.POLICY.rights_of(peer)

    def test_functions(self) -> None:
        for peer, submits, works in (
            (at("10.0.0.1"), (), ()),
            (at("127.0.0.1"), (b"resize", b"img-", b"f"), ()),
            (names("worker"), (), (b"resize", b"img-")),
            (user(0), (b"f",), (b"resize", b"img-", b"f")),
        ):
            rights = self.rights(peer)
            for function in (b"resize", b"img-", b"f"):
                with self.subTest(peer=peer, function=function):
                    self.assertIs(rights.may_submit(function), function in submits)
                    self.assertIs(rights.may_work(function), function in works)
                    # Also when it is remembered.
                    self.assertIs(rights.may_submit(function), function in submits)

    def test_commands_and_rights(self) -> None:
        for peer, commands, rights_as_a_whole in (
            (at("10.0.0.1"), ("version",), ()),
            (at("127.0.0.1"), ("version", "status"), (Right.VIEW,)),
            (names("worker"), ("version", "status"), ()),
            (names("boss"), ("version", "cancel", "shutdown"), (Right.MANAGE, Right.SHUTDOWN)),
            (user(0), ("version", "status", "cancel", "shutdown"), tuple(Right)),
        ):
            rights = self.rights(peer)
            for command, right in (
                ("version", Right.VIEW),
                ("status", Right.VIEW),
                ("cancel", Right.MANAGE),
                ("shutdown", Right.SHUTDOWN),
            ):
                with self.subTest(peer=peer, command=command):
                    self.assertIs(rights.may_command(command, right), command in commands)
            for right in Right:
                with self.subTest(peer=peer, right=right):
                    self.assertIs(rights.may(right), right in rights_as_a_whole)

    def test_asking_for_the_status_of_jobs(self) -> None:
        for peer, may in (
            (at("10.0.0.1"), False),
            (names("worker"), False),
            (at("127.0.0.1"), True),
            (user(0), True),
        ):
            self.assertIs(self.rights(peer).may_ask, may, peer)
        only_view = AccessPolicy((Rule("r", admin=frozenset({"view"})),))
        self.assertTrue(only_view.rights_of(Identity()).may_ask)

    def test_rules_are_named(self) -> None:
        self.assertEqual(self.rights(names("worker")).rules, ("everybody", "workers"))

    def test_no_rules_allow_nothing(self) -> None:
        rights = AccessPolicy().rights_of(user(0))
        self.assertFalse(rights.may_submit(b"f") or rights.may_work(b"f") or rights.may_ask)
        self.assertFalse(any(map(rights.may, Right)))

    def test_peers_of_the_same_rules_share_what_is_remembered(self) -> None:
        self.assertIs(self.rights(names("worker", "a")), self.rights(names("worker", "b")))

    def test_what_is_remembered_is_bounded(self) -> None:
        rights = AccessPolicy((Rule("r", submit=(b"a*",)),)).rights_of(Identity())
        for number in range(3 * MAX_REMEMBERED):
            self.assertFalse(rights.may_submit(b"%d" % number))
            self.assertTrue(rights.may_submit(b"a%d" % number))
            self.assertLessEqual(len(rights.may_submit), MAX_REMEMBERED)

    def test_long_names_are_not_remembered(self) -> None:
        rights = AccessPolicy((Rule("r", submit=(b"a*",), work=(b"a*",)),)).rights_of(Identity())
        for answers in (rights.may_submit, rights.may_work):
            self.assertTrue(answers(b"a" * MAX_REMEMBERED_NAME))
            for name in (b"a" * (MAX_REMEMBERED_NAME + 1), b"a" * 100_000):
                self.assertTrue(answers(name))
            self.assertEqual(set(answers), {b"a" * MAX_REMEMBERED_NAME})

    def test_policies_with_the_same_rules_are_equal(self) -> None:
        self.assertEqual(AccessPolicy(self.POLICY.rules), self.POLICY)
        self.assertNotEqual(AccessPolicy(self.POLICY.rules[1:]), self.POLICY)
