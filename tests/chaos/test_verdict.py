"""The judge: each way to break a promise, in histories written by hand."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.chaos.history import Blow, Cancel, History, Kind, Outcome, Submission, Turn
from tests.chaos.verdict import (
    HELD_CANCELLED,
    HELD_TWICE,
    LATE_DUPLICATE,
    NOT_REMOVED,
    RETRIED,
    Verdict,
    judge,
)


class Story:
    """A history whose times are given; all counts from 0."""

    def __init__(self, servers: int = 1, lease: float = 0.0) -> None:
        self.history = History(servers, lease, begin=0.0)

    def submit(
        self,
        handle: bytes | None,
        at: float = 1.0,
        unique: bytes = b"",
        error: bytes | None = None,
        run_at: float | None = None,
        server: int = 0,
    ) -> Submission:
        submission = self.history.submit(server, b"f", unique, run_at=run_at)
        submission.sent = at
        submission.handle, submission.error = handle, error
        if handle or error:
            submission.answered = at + 0.01
        return submission

    def turn(
        self,
        submission: Submission,
        begin: float,
        end: float,
        outcome: Outcome = Outcome.ACCEPTED,
        server: int = 0,
    ) -> Turn:
        handle = submission.handle or b"H:unknown"
        turn = Turn(submission.payload, handle, 0, server, begin, end, outcome)
        turn.confirmed = end if outcome is Outcome.ACCEPTED else None
        self.history.turns.append(turn)
        return turn

    def blow(self, kind: Kind, begin: float, end: float, server: int | None = 0) -> None:
        self.history.blows.append(Blow(kind, server, begin, end))

    def judge(self) -> Verdict:
        return judge(self.history)


class VerdictTest(SynchronousTestCase):
    """What is a fault, and what is not."""

    def assert_fault(self, story: Story, *kinds: str) -> None:
        self.assertEqual(sorted(story.judge().faults), sorted(kinds))

    # -- acknowledged jobs -------------------------------------------------------------------------

    def test_done_once(self) -> None:
        story = Story()
        story.turn(story.submit(b"H:1"), 2, 3)
        verdict = story.judge()
        self.assertTrue(verdict.ok)
        self.assertEqual(verdict.counts["acknowledged"], 1)

    def test_never_done_is_lost(self) -> None:
        story = Story()
        story.submit(b"H:1")
        self.assert_fault(story, "lost")

    def test_begun_and_left_is_lost(self) -> None:
        story = Story()
        story.turn(story.submit(b"H:1"), 2, 3, Outcome.ABANDONED)
        self.assert_fault(story, "lost")

    def test_unknown_and_refused_need_not_run(self) -> None:
        story = Story()
        story.submit(None)
        story.submit(None, error=b"QUEUE_ERROR")
        self.assertTrue(story.judge().ok)

    def test_unknown_may_run(self) -> None:
        story = Story()
        story.turn(story.submit(None), 2, 3)
        self.assertEqual(story.judge().counts["unknown, and ran"], 1)
        self.assertTrue(story.judge().ok)

    def test_refused_must_not_run(self) -> None:
        story = Story()
        story.turn(story.submit(None, error=b"QUEUE_ERROR"), 2, 3)
        self.assert_fault(story, "ran though refused")

    def test_refused_may_run_where_the_server_died_in_the_outage_that_left_it_in_doubt(self) -> None:
        story = Story()
        story.blow(Kind.DEAF, 0.9, 1.5)
        story.blow(Kind.KILL, 1.4, 1.8)
        story.turn(story.submit(None, error=b"QUEUE_ERROR"), 2, 3)
        self.assertTrue(story.judge().ok)

    def test_refused_may_run_where_the_lease_ended_in_the_middle_of_the_commit(self) -> None:
        story = Story(servers=2, lease=2.0)
        story.blow(Kind.PAUSE, 1.001, 5)
        story.turn(story.submit(None, at=1.0, error=b"QUEUE_ERROR"), 4, 4.5, server=1)
        self.assertTrue(story.judge().ok)

    # -- failed runs -------------------------------------------------------------------------------

    def failing(self, *begins: float) -> Story:
        """A job whose turns begin then, take half a second, and fail."""
        story = Story()
        submission = story.submit(b"H:1")
        for begin in begins:
            story.turn(submission, begin, begin + 0.5).failed = True
        return story

    def test_dead_when_all_attempts_failed(self) -> None:
        story = self.failing(2, 3)
        story.history.dead[b"H:1"] = 1
        verdict = story.judge()
        self.assertEqual((verdict.faults, verdict.again), ({}, {RETRIED: 1}))
        self.assertEqual(verdict.counts["acknowledged, and dead"], 1)

    def test_done_when_it_was_retried(self) -> None:
        story = self.failing(2)
        story.turn(story.history.submissions[1], 3, 4)
        self.assertTrue(story.judge().ok)

    def test_failed_and_not_dead_is_lost(self) -> None:
        self.assert_fault(self.failing(2, 3), "lost")

    def test_dead_with_attempts_left(self) -> None:
        story = self.failing(2)
        story.history.dead[b"H:1"] = 1
        self.assert_fault(story, "dead with attempts left")

    def test_dead_twice_and_alive(self) -> None:
        story = self.failing(2, 3)
        story.history.dead[b"H:1"] = 2
        story.history.alive.add(b"H:1")
        self.assert_fault(story, "dead twice", "dead and alive")

    def test_dead_and_done(self) -> None:
        story = self.failing(2, 3)
        story.blow(Kind.KILL, 3.6, 4)
        story.turn(story.history.submissions[1], 5, 6)
        story.history.dead[b"H:1"] = 1
        self.assert_fault(story, "dead, and done after all")

    def test_more_attempts_than_there_are(self) -> None:
        story = self.failing(2, 3, 4)
        story.history.dead[b"H:1"] = 1
        self.assert_fault(story, "ran again for no reason")

    def test_more_attempts_where_the_server_fell_ahead_of_a_commit(self) -> None:
        """Be it of the retry or of the death."""
        for fall in (2.6, 3.6):
            story = self.failing(2, 3, 4)
            story.blow(Kind.KILL, fall, fall + 0.2)
            story.history.dead[b"H:1"] = 1
            self.assertEqual(story.judge().faults, {})

    def test_retried_ahead_of_its_time(self) -> None:
        story = self.failing(2, 2.6)
        story.history.dead[b"H:1"] = 1
        self.assert_fault(story, "retried ahead of its time")

    # -- jobs that were joined ---------------------------------------------------------------------

    def test_joined_to_a_job_that_was_done(self) -> None:
        story = Story()
        story.turn(story.submit(b"H:1", unique=b"u"), 2, 3)
        story.submit(b"H:1", at=2.5, unique=b"u")
        self.assertTrue(story.judge().ok)

    def test_joined_to_a_job_that_was_done_before_is_lost(self) -> None:
        for at in (3.001, 9):
            story = Story()
            story.turn(story.submit(b"H:1", unique=b"u"), 2, 3)
            story.submit(b"H:1", at=at, unique=b"u")
            self.assert_fault(story, "lost")

    def test_joined_to_one_whose_report_was_under_way(self) -> None:
        story = Story()
        story.turn(story.submit(b"H:1", unique=b"u"), 2, 3, Outcome.UNANSWERED)
        story.submit(b"H:1", at=3.5, unique=b"u")
        self.assertTrue(story.judge().ok)

    def test_late_duplicate_it_runs_again(self) -> None:
        story = Story(servers=2)
        first = story.submit(b"H:1", unique=b"u")
        story.turn(first, 2, 3)
        story.submit(b"H:1", at=3.01, unique=b"u", server=1)
        story.turn(first, 4, 5)
        verdict = story.judge()
        self.assertTrue(verdict.ok)
        self.assertEqual(verdict.again, {LATE_DUPLICATE: 1})

    def test_late_duplicate_by_one_that_has_no_answer_it_runs_again(self) -> None:
        for error in (None, b"QUEUE_ERROR"):
            story = Story(servers=2)
            first = story.submit(b"H:1", unique=b"u")
            story.turn(first, 2, 3)
            story.submit(None, at=3.01, unique=b"u", error=error, server=1)
            story.turn(first, 4, 5)
            self.assertTrue(story.judge().ok)

    def test_none_joins_without_a_unique(self) -> None:
        story = Story(servers=2)
        first = story.submit(b"H:1")
        story.turn(first, 2, 3)
        story.submit(None, at=3.01, server=1)
        story.turn(first, 4, 5)
        self.assert_fault(story, "ran again for no reason")

    def test_joined_long_before_its_end_it_does_not(self) -> None:
        story = Story(servers=2)
        first = story.submit(b"H:1", unique=b"u")
        story.turn(first, 2, 3)
        story.submit(b"H:1", at=2.1, unique=b"u", server=1)
        story.turn(first, 4, 5)
        self.assert_fault(story, "ran again for no reason")

    def test_refused_may_run_where_another_server_answered_with_it(self) -> None:
        story = Story(servers=2)
        refused = story.submit(None, unique=b"u", error=b"QUEUE_ERROR")
        story.submit(b"H:1", at=1.5, unique=b"u", server=1)
        story.turn(refused, 2, 3).handle = b"H:1"
        self.assertTrue(story.judge().ok)

    def test_joined_without_a_unique(self) -> None:
        story = Story()
        story.turn(story.submit(b"H:1"), 2, 3)
        story.submit(b"H:1", at=2.5)
        self.assert_fault(story, "lost", "a handle given twice")

    def test_run_again_where_the_server_has_logged_that_it_lost_its_lease(self) -> None:
        for is_struck in (False, True):
            story = Story(servers=2, lease=2.0)
            done = story.submit(b"H:1")
            story.turn(done, 2, 2)
            if is_struck:
                story.blow(Kind.PAUSE, 1.9, 4)
            story.blow(Kind.LEASE, 2.3, 5.3)
            story.turn(done, 4, 4, server=1)
            verdict = story.judge()
            self.assertTrue(verdict.ok)
            self.assertEqual(verdict.counts["leases lost without a blow"], 0 if is_struck else 1)

    def test_run_again_behind_outages_between_which_the_lease_could_not_be_renewed(self) -> None:
        for gap, kinds in ((0.3, []), (1.2, ["ran again for no reason"])):
            story = Story(servers=2, lease=2.0)
            done = story.submit(b"H:1")
            story.blow(Kind.DATABASE, 1.2, 1.8)
            story.turn(done, 1.8 + gap, 1.8 + gap)
            story.blow(Kind.DATABASE, 1.8 + gap, 2.4 + gap)
            story.turn(done, 4, 4, server=1)
            self.assert_fault(story, *kinds)

    # -- handles -----------------------------------------------------------------------------------

    def test_handle_of_two_jobs(self) -> None:
        story = Story()
        story.turn(story.submit(b"H:1"), 2, 3)
        story.turn(story.submit(b"H:1", at=4), 5, 6)
        self.assert_fault(story, "a handle given twice", "a handle of two jobs")

    def test_job_under_another_handle(self) -> None:
        story = Story()
        story.turn(story.submit(b"H:1"), 2, 3).handle = b"H:2"
        self.assert_fault(story, "a job under several handles")

    def test_it_may_run_for_equal_ones_that_came_while_it_was_answered_with_another(self) -> None:
        for at, server, handle, ok in (
            (1.005, 1, b"H:2", True),
            (1.005, 1, None, True),
            (1.02, 1, b"H:2", False),
            (0.9, 1, b"H:2", False),
            (1.005, 0, b"H:2", False),
            (1.005, 1, b"H:1", False),
        ):
            story = Story(servers=2)
            story.turn(story.submit(b"H:1", at=0.5, unique=b"u"), 1.004, 1.006)
            story.turn(story.submit(b"H:1", unique=b"u", server=1), 2, 3, server=1).handle = b"H:2"
            story.submit(handle, at=at, unique=b"u", server=server)
            faults = story.judge().faults
            self.assertEqual("a job under several handles" not in faults, ok, (at, server, handle))

    def test_it_may_run_for_equal_ones_that_came_while_such_were_answered_with_another(self) -> None:
        """A job is to be stored once more for each equal submit that came while the last answer was under
        way; the submits between the first and the last may be answered with any other job."""
        for at, server, ok in ((1.009, 1, True), (1.015, 1, False), (1.009, 0, False)):
            story = Story(servers=2)
            story.turn(story.submit(b"H:1", at=0.5, unique=b"u"), 1.004, 1.006)
            story.turn(story.submit(b"H:1", unique=b"u", server=1), 2, 3, server=1).handle = b"H:2"
            story.submit(b"H:1", at=at, unique=b"u", server=server)
            story.submit(b"H:2", at=1.018, unique=b"u", server=1)
            faults = story.judge().faults
            self.assertEqual("a job under several handles" not in faults, ok, (at, server))

    # -- turns -------------------------------------------------------------------------------------

    def test_again_for_no_reason(self) -> None:
        story = Story()
        job = story.submit(b"H:1")
        story.turn(job, 2, 3)
        story.turn(job, 4, 5)
        self.assert_fault(story, "ran again for no reason")

    def test_again_because_the_removal_was_not_committed(self) -> None:
        story = Story()
        job = story.submit(b"H:1")
        story.turn(job, 2, 3)
        story.blow(Kind.KILL, 3.02, 3.5)
        story.turn(job, 4, 5)
        verdict = story.judge()
        self.assertTrue(verdict.ok)
        self.assertEqual(verdict.again, {NOT_REMOVED: 1})
        self.assertAlmostEqual(verdict.longest_unremoved, 0.02)

    def test_again_long_after_the_removal_should_have_been_committed(self) -> None:
        story = Story()
        job = story.submit(b"H:1")
        story.turn(job, 2, 3)
        story.blow(Kind.KILL, 20, 21)
        story.turn(job, 22, 23)
        self.assert_fault(story, "ran again for no reason")

    def slow(self, *, sent: float = 2.9, answered: float | None = None, to: int = 0) -> Story:
        """A job that is done at 3 and comes again as its server is killed at 20, and a submit."""
        story = Story(servers=2, lease=2.0)
        job = story.submit(b"H:1")
        story.turn(job, 2, 3)
        story.submit(None, at=sent, server=to).answered = answered
        story.blow(Kind.KILL, 20, 21)
        story.turn(job, 22, 23)
        return story

    def test_again_because_the_removal_waited_for_slow_transactions(self) -> None:
        for answered in (None, 20.1):
            verdict = self.slow(answered=answered).judge()
            self.assertTrue(verdict.ok, verdict.faults)
            self.assertEqual(verdict.again, {NOT_REMOVED: 1})

    def test_again_though_nothing_shows_that_transactions_were_slow(self) -> None:
        # The submit was answered, came later, or to another server.
        for story in (self.slow(answered=19.9), self.slow(sent=3.1), self.slow(to=1)):
            self.assert_fault(story, "ran again for no reason")
        # It waits no more since the server was killed before.
        story = self.slow()
        story.blow(Kind.KILL, 2.95, 2.97)
        self.assert_fault(story, "ran again for no reason")

    def test_again_because_another_server_died(self) -> None:
        story = Story(servers=2, lease=2.0)
        job = story.submit(b"H:1")
        story.turn(job, 2, 3)
        story.blow(Kind.KILL, 3.02, 3.5, server=1)
        story.turn(job, 4, 5)
        self.assert_fault(story, "ran again for no reason")

    def test_again_behind_a_pause_past_the_lease(self) -> None:
        story = Story(servers=2, lease=2.0)
        job = story.submit(b"H:1")
        story.turn(job, 2, 3)
        story.blow(Kind.PAUSE, 3.01, 8)
        story.turn(job, 7, 8, server=1)
        self.assertTrue(story.judge().ok)

    def test_again_behind_a_pause_without_a_lease(self) -> None:
        story = Story()
        job = story.submit(b"H:1")
        story.turn(job, 2, 3)
        story.blow(Kind.PAUSE, 3.01, 8)
        story.turn(job, 7, 8)
        self.assert_fault(story, "ran again for no reason")

    def test_held_by_two(self) -> None:
        story = Story()
        job = story.submit(b"H:1")
        story.turn(job, 2, 5, Outcome.REFUSED)
        story.turn(job, 3, 4)
        self.assert_fault(story, "held by two at once")

    def test_held_by_two_behind_the_death_of_the_first_ones_server(self) -> None:
        story = Story()
        job = story.submit(b"H:1")
        story.turn(job, 2, 5, Outcome.UNREPORTED)
        story.blow(Kind.KILL, 2.5, 2.8)
        story.turn(job, 3, 4)
        verdict = story.judge()
        self.assertTrue(verdict.ok)
        self.assertEqual(verdict.counts[f"held by two at once: {HELD_TWICE}"], 1)

    def cancelled(
        self,
        *,
        cancelled: float = 2.5,
        by: int = 0,
        equal_at: float = 2.55,
        equal_to: int = 1,
        hears: bool = False,
        until: float = 5.0,
        outcome: Outcome = Outcome.ACCEPTED,
    ) -> Story:
        """A job that is cancelled while a worker has it, an equal submit that is answered with it, and the
        job's second turn from 3 to 4."""
        story = Story(servers=2, lease=2.0)
        job = story.submit(b"H:1", unique=b"u")
        story.turn(job, 2, until, outcome).hears = hears
        story.history.cancels.append(Cancel(b"H:1", by, cancelled, cancelled + 0.01))
        story.submit(b"H:1", at=equal_at, unique=b"u", server=equal_to)
        story.turn(job, 3, 4)
        return story

    def test_held_by_two_as_a_worker_goes_on_with_a_cancelled_job(self) -> None:
        verdict = self.cancelled().judge()
        self.assertTrue(verdict.ok, verdict.faults)
        self.assertEqual(verdict.counts[f"held by two at once: {HELD_CANCELLED}"], 1)

    def test_held_by_two_though_cancelled(self) -> None:
        for story in (
            # Not while a worker had it, or not by the server that gave it to that one.
            self.cancelled(cancelled=1.9),
            self.cancelled(cancelled=3.01, equal_at=2.99),
            self.cancelled(by=1),
            # The same server answers with a job that it has, and that was before the cancel.
            self.cancelled(equal_to=0),
            # The worker was told, and did not stop, or went on for long.
            self.cancelled(hears=True),
            self.cancelled(hears=True, outcome=Outcome.STOPPED),
        ):
            self.assertIn("held by two at once", story.judge().faults)

    def test_held_by_two_as_a_worker_has_not_read_yet_that_its_job_was_cancelled(self) -> None:
        for outcome in (Outcome.STOPPED, Outcome.REFUSED):
            self.assertTrue(self.cancelled(hears=True, until=3.1, outcome=outcome).judge().ok)

    def test_a_fault_is_told_with_the_cancels_and_equal_submits(self) -> None:
        (told,) = self.cancelled(by=1).judge().faults["held by two at once"]
        self.assertIn("cancel on server 1 sent 2.500, answered 2.510", told)
        self.assertIn("job 2 to server 1, sent 2.550, was answered with it 2.560", told)

    def test_ahead_of_its_time(self) -> None:
        story = Story()
        story.turn(story.submit(b"H:1", run_at=5.0), 2, 3)
        self.assert_fault(story, "ahead of its time")

    def test_behind_a_clean_stop(self) -> None:
        story = Story()
        job = story.submit(b"H:1")
        story.turn(job, 2, 3)
        story.blow(Kind.KILL, 3.01, 3.5)
        story.turn(job, 9, 10)
        story.history.settled = 8.0
        self.assert_fault(story, "ran behind a clean stop")

    def test_job_of_nobody(self) -> None:
        story = Story()
        story.turn(story.submit(b"H:1"), 2, 3).payload = 77
        self.assert_fault(story, "lost", "a job that was never submitted")

    def test_disorder(self) -> None:
        story = Story()
        story.history.disorders.append("NO_JOB as the answer to a submit")
        self.assert_fault(story, "a packet that may not be")
