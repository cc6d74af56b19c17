"""Rules of single functions: which of them hold, and that they can be changed while jobs run."""

from __future__ import annotations

import re
from dataclasses import replace
from random import Random
from typing import Any, ClassVar

from twisted.trial.unittest import SynchronousTestCase

from tests.broker.bench import POLICY, Bench, said
from txgearman.access.patterns import MAX_SHOWN, matches, quoted, shown
from txgearman.broker.policy import NO_RULES, FunctionOrder, FunctionRules, Policy
from txgearman.errors import QueueFull


def ruled(**rules: FunctionRules) -> Policy:
    """A policy with rules for some functions; ``all`` stands for ``*``."""
    named = {b"*" if name == "all" else name.encode(): each for name, each in rules.items()}
    return replace(POLICY, functions=tuple(named.items()))


class PatternTests(SynchronousTestCase):
    def test_names_and_stars(self) -> None:
        for pattern, name, fits in (
            (b"f", b"f", True),
            (b"f", b"F", False),
            (b"f", b"ff", False),
            (b"*", b"", True),
            (b"*", b"a\n\0\xff", True),
            (b"img-*", b"img-", True),
            (b"img-*", b"img", False),
            (b"*-big", b"img-big", True),
            (b"a*b*c", b"abbc", True),
            (b"a*b*c", b"acb", False),
            (b"a.c", b"abc", False),
            (b"[ab]", b"a", False),
            (b"[ab]", b"[ab]", True),
            (b"a?", b"ab", False),
            ("größe*".encode(), "größer".encode(), True),
        ):
            with self.subTest(pattern=pattern, name=name):
                self.assertEqual(matches(pattern, name), fits)

    def test_as_a_regular_expression_has_it(self) -> None:
        random = Random(1)
        for _ in range(3000):
            pattern = bytes(random.choices(b"ab*", k=random.randrange(7)))
            name = bytes(random.choices(b"ab", k=random.randrange(10)))
            expression = b".*".join(map(re.escape, pattern.split(b"*")))
            with self.subTest(pattern=pattern, name=name):
                self.assertEqual(matches(pattern, name), re.fullmatch(expression, name) is not None)

    def test_each_piece_is_looked_for_once(self) -> None:
        """Whatever the stars: a regular expression tries all places of each piece with all of the others."""

        class Name(bytes):
            begins: ClassVar[list[int]] = []

            def find(self, piece: Any, start: Any = None, end: Any = None) -> int:
                self.begins.append(start)
                return super().find(piece, start, end)

        name = Name(b"img-" + b"-v" * 50_000 + b"-final!")
        for stars in (b"img-*-v*-v*-v*-final", b"img-*-v*-v*-v*-x*!", b"img-*-v*-v*-v*!"):
            Name.begins.clear()
            self.assertEqual(matches(stars, name), stars == b"img-*-v*-v*-v*!")
            self.assertLessEqual(len(Name.begins), stars.count(b"*"))
            self.assertEqual(Name.begins, sorted(Name.begins))


class ShownTests(SynchronousTestCase):
    def test_short_ones_are_shown_whole(self) -> None:
        for text, expected in (
            (b"", ""),
            (b"f", "f"),
            (b"a\n\x1b'", "a\\n\\x1b'"),
            (b"x" * MAX_SHOWN, "x" * MAX_SHOWN),
        ):
            self.assertEqual(shown(text), expected)
        self.assertEqual(quoted(b"f"), "'f'")

    def test_long_ones_are_cut_and_counted(self) -> None:
        for show in (shown, quoted):
            for letter in (b"x", b"\0", b"'", b"\xff"):
                text = show(letter * (MAX_SHOWN + 1))
                self.assertIn(f"({MAX_SHOWN + 1} bytes)", text)
                self.assertLess(len(text), 4 * MAX_SHOWN + 40)


class RulesForTests(SynchronousTestCase):
    def test_none(self) -> None:
        self.assertIs(POLICY.rules_for(b"f"), NO_RULES)
        self.assertIs(ruled(g=FunctionRules(job_retries=1)).rules_for(b"f"), NO_RULES)

    def test_the_name_holds_before_patterns_and_the_first_pattern_before_the_next(self) -> None:
        policy = replace(
            POLICY,
            functions=(
                (b"*", FunctionRules((9, 9, 9), 9.0, 9)),
                (b"img-*", FunctionRules((8, 8, 8), 8.0, 8)),
                (b"img-big", FunctionRules(time_limit=7.0)),
            ),
        )
        self.assertEqual(policy.rules_for(b"img-big"), FunctionRules((9, 9, 9), 7.0, 9))
        self.assertEqual(policy.rules_for(b"img-small"), FunctionRules((9, 9, 9), 9.0, 9))
        turned = replace(policy, functions=policy.functions[::-1])
        self.assertEqual(turned.rules_for(b"img-small"), FunctionRules((8, 8, 8), 8.0, 8))


class ObeyedTests(SynchronousTestCase):
    def test_limits_hold_from_the_first_job(self) -> None:
        bench = Bench(ruled(f=FunctionRules(limits=(1, 1, None))))
        bench.queue(b"f")
        with self.assertRaises(QueueFull):
            bench.queue(b"f")
        bench.queue(b"f", priority=2)
        bench.queue(b"g")
        bench.queue(b"g")

    def test_limits_hold_again_when_a_function_is_made_anew(self) -> None:
        bench = Bench(ruled(f=FunctionRules(limits=(0, 0, 0))))
        bench.administration.set_limits(b"f", (None, None, None))
        bench.broker.cancel(bench.queue(b"f"))
        bench.administration.drop_function(b"f")
        with self.assertRaises(QueueFull):
            bench.queue(b"f")

    def assert_lost_after(self, bench: Bench, seconds: float, timeout: float | None) -> None:
        handle = bench.queue(b"f")
        worker = bench.worker("w", b"f", timeout=timeout)
        bench.grab(worker)
        bench.advance(seconds - 0.01)
        self.assertTrue(bench.inspection.status(handle).running)
        bench.advance(0.02)
        self.assertFalse(bench.inspection.status(handle).running)
        bench.broker.cancel(handle)

    def test_the_shorter_time_limit_holds(self) -> None:
        for ours, the_workers, shorter in ((5.0, None, 5.0), (5.0, 9.0, 5.0), (5.0, 3.0, 3.0)):
            with self.subTest(ours=ours, the_workers=the_workers):
                bench = Bench(ruled(f=FunctionRules(time_limit=ours)))
                self.assert_lost_after(bench, shorter, the_workers)

    def test_retries_of_one_function(self) -> None:
        for ours, losses in ((0, 1), (1, 1), (3, 3)):
            with self.subTest(ours):
                bench = Bench(replace(ruled(f=FunctionRules(job_retries=ours)), job_retries=7))
                client = bench.client()
                handle = bench.submit(client, b"f")
                for _ in range(losses):
                    self.assertEqual(said(client), [])
                    worker = bench.worker("w", b"f")
                    bench.grab(worker)
                    bench.broker.leave_worker(worker)
                self.assertEqual(said(client), [("failed", handle)])

    def test_a_function_may_have_no_limit_of_retries(self) -> None:
        bench = Bench(replace(ruled(f=FunctionRules(job_retries=-1)), job_retries=1))
        handle = bench.queue(b"f")
        for _ in range(5):
            worker = bench.worker("w", b"f")
            self.assertEqual(bench.grab(worker).handle, handle)
            bench.broker.leave_worker(worker)


class ChangeTests(SynchronousTestCase):
    def test_what_is_obeyed_from_now_on(self) -> None:
        bench = Bench()
        for function in (b"f", b"g"):
            bench.queue(function)
        bench.administration.change_policy(
            replace(
                ruled(f=FunctionRules(limits=(1, 1, 1)), h=FunctionRules(limits=(0, 0, 0))), job_retries=1
            )
        )
        for function in (b"f", b"h"):
            with self.assertRaises(QueueFull):
                bench.queue(function)
        bench.queue(b"g")
        # The jobs that were there are there; retries are counted by the new policy.
        worker = bench.worker("w", b"f")
        handle = bench.grab(worker).handle
        bench.broker.leave_worker(worker)
        self.assertFalse(bench.inspection.status(handle).known)
        self.assertEqual(bench.broker.total, 2)

    def test_rules_that_are_gone_hold_no_longer(self) -> None:
        bench = Bench(ruled(all=FunctionRules(limits=(1, 1, 1), time_limit=1.0, job_retries=0)))
        bench.queue(b"f")
        bench.administration.change_policy(POLICY)
        bench.queue(b"f")
        worker = bench.worker("w", b"f")
        bench.grab(worker)
        bench.advance(100)
        self.assertEqual(len(worker.jobs), 1)

    def test_what_an_administrator_has_set_stays_unless_its_rule_changes(self) -> None:
        bench = Bench(ruled(f=FunctionRules(limits=(1, 1, 1))))
        bench.administration.set_limits(b"f", (2, 2, 2))
        bench.administration.set_limits(b"g", (0, 0, 0))
        bench.administration.change_policy(
            ruled(f=FunctionRules(limits=(1, 1, 1)), h=FunctionRules(job_retries=1))
        )
        bench.queue(b"f")
        bench.queue(b"f")
        with self.assertRaises(QueueFull):
            bench.queue(b"g")
        bench.administration.change_policy(ruled(f=FunctionRules(limits=(3, 3, 3))))
        bench.queue(b"f")
        with self.assertRaises(QueueFull):
            bench.queue(b"f")

    def test_a_running_job_keeps_the_time_limit_it_was_given_with(self) -> None:
        bench = Bench(ruled(f=FunctionRules(time_limit=5.0)))
        bench.queue(b"f")
        worker = bench.worker("w", b"f")
        bench.grab(worker)
        bench.administration.change_policy(ruled(f=FunctionRules(time_limit=50.0)))
        bench.advance(6)
        self.assertEqual(worker.jobs, {})

    def test_what_cannot_be_changed(self) -> None:
        bench = Bench()
        for changed in (
            replace(POLICY, order=FunctionOrder.REGISTRATION),
            replace(POLICY, round_robin=True),
            replace(POLICY, handle_prefix=b"other"),
        ):
            with self.assertRaises(ValueError):
                bench.administration.change_policy(replace(changed, job_retries=1))
        self.assertEqual(bench.queue(b"f"), b"H:t:1")
