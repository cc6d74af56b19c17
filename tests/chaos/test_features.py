"""The judge of limits, cancels, results and kept uniques: each way to break them, in histories by hand."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.chaos.history import (
    KEPT,
    KEYED,
    LIMITED,
    ONCE,
    Cancel,
    Kind,
    Outcome,
    Result,
    Submission,
    result_of,
)
from tests.chaos.test_verdict import Story


class FeaturesTest(SynchronousTestCase):
    def assert_fault(self, story: Story, *kinds: str) -> None:
        self.assertEqual(sorted(story.judge().faults), sorted(kinds))

    def submit(
        self, story: Story, function: bytes, handle: bytes, at: float = 1.0, unique: bytes = b""
    ) -> Submission:
        submission = story.submit(handle, at, unique)
        submission.function = function
        return submission

    # -- limits ------------------------------------------------------------------------------------

    def at_once(self, function: bytes, *turns: tuple[float, float], unique: bytes = b"") -> Story:
        """Jobs of which each has one turn, the last on the second server."""
        story = Story(servers=2, lease=2.0)
        for number, (begin, end) in enumerate(turns):
            job = self.submit(
                story, function, b"H:%d" % number, unique=unique and b"%s:%d" % (unique, number)
            )
            story.turn(job, begin, end, server=int(number == len(turns) - 1))
        return story

    def test_as_many_as_may_run(self) -> None:
        story = self.at_once(LIMITED, (2, 4), (2, 3), (3, 5))
        self.assert_fault(story)
        self.assertEqual(story.judge().counts["most at once, limited"], 2)

    def test_one_too_many(self) -> None:
        self.assert_fault(self.at_once(LIMITED, (2, 4), (2, 3), (2.9, 5)), "above the limit")

    def test_of_a_key(self) -> None:
        self.assert_fault(self.at_once(KEYED, (2, 3), (2.9, 5), unique=b"a"), "above the limit")
        self.assert_fault(self.at_once(KEYED, (2, 3), (3, 5), unique=b"a"))

    def test_other_keys_do_not_count(self) -> None:
        story = self.at_once(KEYED, (2, 3), unique=b"a")
        story.turn(self.submit(story, KEYED, b"H:9", unique=b"b:1"), 2, 3)
        self.assert_fault(story)

    def test_a_worker_that_goes_on_behind_the_death_of_its_server(self) -> None:
        for server, kinds in ((0, []), (1, ["above the limit"])):
            story = self.at_once(KEYED, (2, 5), (4, 6), unique=b"a")
            story.blow(Kind.KILL, 2.5, 3.9, server=server)
            self.assert_fault(story, *kinds)

    def test_a_worker_that_goes_on_without_its_connection(self) -> None:
        story = self.at_once(KEYED, (2, 5), (4, 6), unique=b"a")
        story.history.turns[0].lost = 3.0
        self.assert_fault(story)

    def test_a_worker_that_goes_on_with_a_job_that_was_cancelled(self) -> None:
        story = self.at_once(KEYED, (2, 5), (4, 6), unique=b"a")
        story.history.cancels.append(Cancel(b"H:0", 0, 3.0, 3.1))
        self.assert_fault(story)

    # -- cancels -----------------------------------------------------------------------------------

    def test_cancelled_it_need_not_run(self) -> None:
        for answered in (1.6, None):
            story = Story()
            story.submit(b"H:1")
            story.history.cancels.append(Cancel(b"H:1", 0, 1.5, answered))
            self.assert_fault(story)

    def test_what_is_submitted_behind_a_cancel_must_run(self) -> None:
        story = Story()
        story.submit(b"H:1", at=2.0)
        story.history.cancels.append(Cancel(b"H:1", 0, 1.5, 1.6))
        self.assert_fault(story, "lost")

    def test_cancelled_it_must_not_run(self) -> None:
        story = Story()
        job = story.submit(b"H:1")
        story.history.cancels.append(Cancel(b"H:1", 0, 1.5, 1.6))
        story.turn(job, 3, 4)
        self.assert_fault(story, "ran though cancelled")

    def test_cancelled_it_is_not_retried(self) -> None:
        story = Story()
        job = story.submit(b"H:1")
        story.turn(job, 1.4, 2).failed = True
        story.history.cancels.append(Cancel(b"H:1", 0, 1.5, 1.6))
        story.turn(job, 3, 4)
        self.assert_fault(story, "ran though cancelled")

    def test_it_may_run_where_the_server_fell_ahead_of_the_commit(self) -> None:
        for fall, kinds in ((1.62, []), (9.0, ["ran though cancelled"])):
            story = Story()
            job = story.submit(b"H:1")
            story.history.cancels.append(Cancel(b"H:1", 0, 1.5, 1.6))
            story.blow(Kind.KILL, fall, fall + 0.5)
            story.turn(job, fall + 1, fall + 2)
            self.assert_fault(story, *kinds)

    def test_it_may_run_where_another_server_answered_with_it(self) -> None:
        for servers, kinds in ((2, []), (1, ["ran though cancelled"])):
            story = Story(servers)
            job = story.submit(b"H:1", unique=b"u")
            story.history.cancels.append(Cancel(b"H:1", 0, 1.5, 1.6))
            story.submit(b"H:1", at=1.59, unique=b"u", server=servers - 1)
            story.turn(job, 3, 4)
            self.assert_fault(story, *kinds)

    def test_a_worker_that_asked_is_told(self) -> None:
        for hears, outcome, kinds in (
            (True, Outcome.STOPPED, []),
            (True, Outcome.ACCEPTED, ["not told to stop"]),
            (False, Outcome.ACCEPTED, []),
        ):
            story = Story()
            turn = story.turn(story.submit(b"H:1"), 2, 5, outcome)
            turn.hears = hears
            story.history.cancels.append(Cancel(b"H:1", 0, 3.0, 3.1))
            self.assert_fault(story, *kinds)

    # -- results -----------------------------------------------------------------------------------

    def result(self, state: str, data: bytes = b"", last: bool = True, asked: float = 5.0) -> Story:
        """A job that is done at 3, and what is said of its result."""
        story = Story()
        story.turn(self.submit(story, KEPT, b"H:1"), 2, 3)
        story.history.results.append(Result(b"H:1", 0, asked, asked + 0.1, state, data, last))
        return story

    def test_it_is_there(self) -> None:
        self.assert_fault(self.result("completed", result_of(1)))

    def test_it_is_another(self) -> None:
        self.assert_fault(self.result("completed", result_of(2)), "a wrong result")

    def test_it_is_not_there(self) -> None:
        for state in ("gone", "unknown", "pending"):
            self.assert_fault(self.result(state), "a job without its result")

    def test_meanwhile_it_may_be_missing_if_the_job_is_there(self) -> None:
        self.assert_fault(self.result("pending", last=False))
        for state in ("gone", "unknown"):
            self.assert_fault(self.result(state, last=False), "a job without its result")

    def test_a_cancelled_or_dead_job_has_none(self) -> None:
        story = self.result("gone")
        story.history.cancels.append(Cancel(b"H:1", 0, 2.5, 2.6))
        self.assert_fault(story)

    def test_behind_its_result_a_job_does_not_run(self) -> None:
        story = self.result("completed", result_of(1), asked=3.1)
        story.blow(Kind.KILL, 3.05, 3.5)
        story.turn(story.history.submissions[1], 4, 5)
        self.assert_fault(story, "ran behind its result")

    # -- uniques that are kept ---------------------------------------------------------------------

    def twice(self, at: float) -> Story:
        """A job that is done from 2 to 3, and another one with its unique, submitted then."""
        story = Story()
        story.turn(self.submit(story, ONCE, b"H:1", unique=b"u"), 2, 3)
        story.turn(self.submit(story, ONCE, b"H:2", at, b"u"), 4, 5)
        return story

    def test_a_second_run(self) -> None:
        self.assert_fault(self.twice(at=3.5), "ran though its unique was kept")

    def test_one_that_was_submitted_before_the_first_was_done(self) -> None:
        self.assert_fault(self.twice(at=2.9))

    def test_where_the_first_one_was_not_completed(self) -> None:
        story = self.twice(at=3.5)
        story.history.turns[0].failed = True
        self.assertNotIn("ran though its unique was kept", story.judge().faults)

    def test_no_fall_of_the_server_excuses_it(self) -> None:
        story = self.twice(at=3.5)
        story.blow(Kind.KILL, 3.05, 3.4)
        self.assert_fault(story, "ran though its unique was kept")

    def test_it_is_answered_with_the_first_and_need_not_run(self) -> None:
        for function, kinds in ((ONCE, []), (b"f", ["lost"])):
            story = Story()
            story.turn(self.submit(story, function, b"H:1", unique=b"u"), 2, 3)
            self.submit(story, function, b"H:1", 9.0, b"u")
            self.assert_fault(story, *kinds)
