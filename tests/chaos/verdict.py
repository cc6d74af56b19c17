"""Whether a run kept its promises: a pure function of its history.

Lost: an acknowledged job that no worker did to its end. Everything else that may not be is a fault too: a
handle that names two jobs, a job that was never submitted, two workers at one job, a job that ran again for
no reason that docs/durability.rst names. `features` has what is said of limits, cancels, results and uniques.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Final

from tests.chaos.blows import RECOVERY, REMOVAL_WINDOW, Blows
from tests.chaos.features import Features
from tests.chaos.history import (
    ATTEMPTS,
    BACKOFF,
    UNIQUE_IS_DATA,
    History,
    Kind,
    Outcome,
    Submission,
    Turn,
)

NOTICING: Final = 0.5
"""Seconds that the harness, which shares the machine with all it starts, may take to see that a connection
has ended."""

UNDER_WAY: Final = 1.0
"""Seconds that a report may be under way to a server that handles it at once, and then cannot answer."""

CLOCKS: Final = 0.05
"""Seconds by which the wall clock and the history's may drift apart in a run."""

SHOWN: Final = 20
"""Faults of one kind that are told one by one."""

_AGAIN: Final = {
    Outcome.ABANDONED: "its worker died or lost its connection, and left it undone",
    Outcome.UNREPORTED: "its worker had lost its connection, and did it to its end",
    Outcome.UNANSWERED: "its report was under way when the connection ended",
    Outcome.STOPPED: "its worker was told to stop it",
    Outcome.REFUSED: "its report came when the server no longer had the job for this worker",
}
RETRIED: Final = "its run had failed, and it had attempts left"
LATE_DUPLICATE: Final = "another server answered a submit with it at its end, or when it was refused"
NOT_REMOVED: Final = "it was done, and its server was struck before the removal was committed"
HELD_TWICE: Final = "a worker went on after its server, or its connection, was struck"
HELD_CANCELLED: Final = "a worker went on with a cancelled job that another server answered a submit with"


@dataclass(slots=True)
class Verdict:
    """`faults` by kind, each told in words; `counts` of everything; `again` by reason."""

    faults: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    counts: Counter[str] = field(default_factory=Counter)
    again: Counter[str] = field(default_factory=Counter)
    longest_unremoved: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether nothing happened that may not."""
        return not self.faults


def judge(history: History) -> Verdict:
    """Look at everything that happened."""
    return _Judge(history).judge()


class _Judge:
    def __init__(self, history: History) -> None:
        self._history = history
        self._verdict = Verdict()
        self._blows = Blows(history)
        self._by_handle: dict[bytes, list[Turn]] = defaultdict(list)
        self._by_payload: dict[int, list[Turn]] = defaultdict(list)
        self._told_of: dict[bytes, list[Submission]] = defaultdict(list)
        self._same: dict[tuple[bytes, bytes], list[Submission]] = defaultdict(list)
        for submission in history.submissions.values():
            self._same[submission.function, submission.unique].append(submission)
            if submission.handle is not None:
                self._told_of[submission.handle].append(submission)
        for turn in sorted(history.turns, key=lambda turn: turn.begin):
            self._by_handle[turn.handle].append(turn)
            self._by_payload[turn.payload].append(turn)
        pauses = [blow.over - blow.begin for blow in history.blows if blow.kind is not Kind.LEASE]
        self._unanswered = UNDER_WAY + max(pauses, default=0.0)
        self._features = Features(history, self._blows, self._by_handle, self._unanswered)

    def judge(self) -> Verdict:
        for text in self._history.disorders:
            self._fault("a packet that may not be", text)
        for submission in self._history.submissions.values():
            self._look_at(submission)
        self._check_handles()
        self._check_dead()
        self._features.check(self._fault, self._told, self._verdict.counts)
        for payload, turns in self._by_payload.items():
            self._check_turns(payload, turns)
        counts = self._verdict.counts
        for blow in self._history.blows:
            counts[blow.kind] += 1
            if blow.kind is Kind.POWER:
                counts["writes lost with the power"] += blow.unsynced
            elif blow.kind is Kind.LEASE and not self._blows.is_explained(blow):
                counts["leases lost without a blow"] += 1
        counts["turns"] = len(self._history.turns)
        return self._verdict

    def _fault(self, kind: str, text: str) -> None:
        self._verdict.faults[kind].append(text)

    def _at(self, when: float | None) -> str:
        return "never" if when is None else f"{when - self._history.begin:.3f}"

    # -- submits ------------------------------------------------------------------------------------

    def _look_at(self, submission: Submission) -> None:
        counts = self._verdict.counts
        ran = any(turn.done for turn in self._by_payload.get(submission.payload, ()))
        if submission.handle is not None:
            counts["acknowledged"] += 1
            if submission.handle in self._history.dead:
                counts["acknowledged, and dead"] += 1
            elif not ran and self._features.was_cancelled(submission):
                counts["acknowledged, and cancelled"] += 1
            elif not ran and self._features.was_done_already(submission):
                counts["acknowledged, done before"] += 1
            elif not ran and self._joined(submission):
                counts["acknowledged, joined to an equal job"] += 1
            elif not ran:
                self._fault("lost", self._told(submission))
        elif submission.error is not None:
            counts[f"refused: {submission.error.decode()}"] += 1
            if ran:
                counts["refused, and ran all the same"] += 1
                self._check_refused(submission)
        else:
            counts["unknown: the connection ended ahead of the answer"] += 1
            counts["unknown, and ran"] += ran

    def _joined(self, submission: Submission) -> bool:
        """Whether the job that this one was joined to was done behind it."""
        if submission.unique in (b"", UNIQUE_IS_DATA) or submission.handle is None:
            return False
        turns = self._by_handle.get(submission.handle, ())
        return any(turn.done and self._handled(turn) >= submission.sent for turn in turns)

    def _handled(self, turn: Turn) -> float:
        """When a server that was told of a turn's end had taken note of it at the latest; until then it may
        join submits to the job."""
        if turn.confirmed is not None:
            return turn.confirmed
        return turn.over + self._unanswered if turn.outcome is Outcome.UNANSWERED else turn.over

    def _check_refused(self, submission: Submission) -> None:
        """A refused job is gone, unless its server fell before it could take back what it had sent."""
        if any(self._told_of[turn.handle] for turn in self._by_payload[submission.payload]):
            self._verdict.counts[f"refused, and ran: {LATE_DUPLICATE}"] += 1
            return
        refused = submission.answered or submission.sent
        # The lease ended in the middle of the commit: it took place, and another server took the job over.
        if any(self._blows.fatal(submission.server, submission.sent, refused)):
            return
        for outage in self._blows.outages(submission.server, refused):
            if any(self._blows.fatal(submission.server, outage.begin, outage.over + RECOVERY)):
                return
        self._fault("ran though refused", self._told(submission))

    def _told(self, submission: Submission) -> str:
        turns = [
            f"turn of worker {turn.worker} on server {turn.server} from {self._at(turn.begin)} to "
            f"{self._at(turn.end)}, {turn.outcome}"
            for turn in self._by_payload.get(submission.payload, ())
        ]
        turns += [
            f"cancel on server {cancel.server} sent {self._at(cancel.sent)}, "
            f"answered {self._at(cancel.answered)}"
            for cancel in self._history.cancels
            if cancel.handle == submission.handle
        ]
        turns += [
            f"job {other.payload} to server {other.server}, sent {self._at(other.sent)}, "
            f"was answered with it {self._at(other.answered)}"
            for other in self._told_of.get(submission.handle or b"", ())
            if other is not submission
        ]
        return (
            f"job {submission.payload} {submission.function.decode()} {submission.priority} "
            f"unique {submission.unique.decode()!r} run_at {self._at(submission.run_at)} "
            f"to server {submission.server}: sent {self._at(submission.sent)}, "
            f"answered {self._at(submission.answered)}, handle {submission.handle!r}, "
            f"error {submission.error!r}; {'; '.join(turns) or 'no turn'}"
        )

    # -- handles ------------------------------------------------------------------------------------

    def _check_handles(self) -> None:
        for handle, submissions in self._told_of.items():
            kinds = {(submission.function, submission.unique) for submission in submissions}
            alone = kinds & {(each.function, own) for each in submissions for own in (b"", UNIQUE_IS_DATA)}
            if len(submissions) > 1 and (len(kinds) > 1 or alone):
                self._fault("a handle given twice", f"{handle!r}: {' / '.join(map(self._told, submissions))}")
        for handle, turns in self._by_handle.items():
            if len({turn.payload for turn in turns}) > 1:
                self._fault("a handle of two jobs", f"{handle!r}: jobs {[turn.payload for turn in turns]}")

    def _check_dead(self) -> None:
        """A dead job is dead once, is not alive, and has failed as often as it may: the last time it ran."""
        for handle, listed in self._history.dead.items():
            turns = [
                turn for turn in self._by_handle.get(handle, ()) if turn.outcome is not Outcome.ABANDONED
            ]
            told = f"{handle!r}: {' / '.join(map(self._told, self._told_of[handle]))}"
            if listed > 1:
                self._fault("dead twice", told)
            if handle in self._history.alive:
                self._fault("dead and alive", told)
            failed = [turn for turn in turns if turn.failed]
            if len(failed) < ATTEMPTS:
                self._fault("dead with attempts left", told)
            elif any(
                turn.outcome is Outcome.ACCEPTED and turn.begin > failed[-1].over
                for turn in turns
                if turn.done
            ):
                self._fault("dead, and done after all", told)

    # -- turns --------------------------------------------------------------------------------------

    def _check_turns(self, payload: int, turns: list[Turn]) -> None:
        submission = self._history.submissions.get(payload)
        if submission is None:
            self._fault("a job that was never submitted", f"payload {payload}")
            return
        handles = {turn.handle for turn in turns}
        if len(handles) > 1 or (
            submission.handle not in {None, *handles} and not self._runs_for_others(submission, *handles)
        ):
            self._fault("a job under several handles", f"{self._told(submission)}: {handles}")
        if submission.run_at is not None and turns[0].begin < submission.run_at - CLOCKS:
            self._fault("ahead of its time", self._told(submission))
        settled = self._history.settled
        if settled is not None and turns[-1].begin > settled:
            self._fault("ran behind a clean stop", self._told(submission))
        if len(turns) > 1:
            self._verdict.counts["jobs that had more than one turn"] += 1
            self._verdict.counts["jobs done more than once"] += sum(turn.done for turn in turns) > 1
        for index, (before, after) in enumerate(itertools.pairwise(turns)):
            reason = self._retried(turns[: index + 1], after) or self._reason(before, after)
            if reason is None and self._features.was_cancelled(submission, before.handle):
                reason = "it was cancelled, and its server was struck before that was committed"
            if reason is None:
                self._fault("ran again for no reason", self._told(submission))
            else:
                self._verdict.again[reason] += 1
        for index, turn in enumerate(turns):
            for later in turns[index + 1 :]:
                if later.begin < turn.over:
                    self._check_overlap(submission, turn, later)

    def _runs_for_others(self, submission: Submission, handle: bytes) -> bool:
        """Whether a submit that was answered with another's handle ran, as its server had to accept it for
        equal ones that came while that answer was under way, when the other job might have ended. Those may
        have been answered with others' handles too while more came, and so on: any number of answers may
        pass until the job is stored for the last of them."""
        if submission.unique in (b"", UNIQUE_IS_DATA) or submission.answered is None:
            return False
        wanted_until = submission.answered
        for other in sorted(self._same[submission.function, submission.unique], key=lambda other: other.sent):
            answered = math.inf if other.answered is None else other.answered
            if other is submission or other.server != submission.server or answered < submission.sent:
                continue
            if other.sent > wanted_until:
                return False
            if other.handle in (handle, None):
                return True
            wanted_until = max(wanted_until, answered)
        return False

    def _reason(self, before: Turn, after: Turn) -> str | None:
        """Why a job had another turn."""
        if before.outcome is not Outcome.ACCEPTED:
            return _AGAIN.get(before.outcome) if before.outcome else None
        done = before.confirmed or before.over
        for blow in self._blows.fatal(before.server, before.over, after.begin):
            waited = self._blows.waited(before.server, done, blow)
            if waited or blow.begin - done <= REMOVAL_WINDOW:
                if not waited:
                    self._verdict.longest_unremoved = max(self._verdict.longest_unremoved, blow.begin - done)
                return NOT_REMOVED
        return LATE_DUPLICATE if self._late_duplicate(before, after) else None

    def _retried(self, turns: list[Turn], after: Turn) -> str | None:
        """Whether a job that has had these turns had another one as the last of them failed. A failure that
        its server could not write is one that nobody knows of."""
        before = turns[-1]
        if not before.failed or before.outcome is not Outcome.ACCEPTED:
            return None
        failed = [turn for turn in turns if turn.failed and turn.outcome is Outcome.ACCEPTED]
        known = [turn for turn in failed if not self._unwritten(turn, after.begin)]
        if len(known) >= ATTEMPTS:
            return None
        if before in known and after.begin < before.over + BACKOFF - CLOCKS:
            if len(failed) >= ATTEMPTS and self._reason(before, after) is not None:
                # The failures ahead of it may have been written all the same: it was dead, and ran again as a
                # job that was done does.
                return None
            self._fault("retried ahead of its time", self._told(self._history.submissions[before.payload]))
        return RETRIED

    def _unwritten(self, turn: Turn, until: float) -> bool:
        """Whether a server may have fallen before it could write what a turn's end has changed."""
        return self._blows.unwritten(turn.server, turn.confirmed or turn.over, turn.over, until)

    def _late_duplicate(self, before: Turn, after: Turn) -> bool:
        """Whether a submit was answered with a job when its end was near or past, or might have been, as
        nothing that a server does in an outage is to be found in the database. One whose answer got lost, or
        that was refused as its server did not hear of the commit, may have joined too."""
        unsure = any(self._blows.outages(before.server, before.over))
        job = self._history.submissions[before.payload]
        if self._history.servers == 1 or job.unique in (b"", UNIQUE_IS_DATA):
            return False
        return any(
            submission.sent <= after.begin
            and submission.handle in (before.handle, None)
            and (unsure or (submission.answered or after.begin) >= before.over - NOTICING)
            for submission in self._same[job.function, job.unique]
            if submission is not job
        )

    def _check_overlap(self, submission: Submission, turn: Turn, later: Turn) -> None:
        """Two workers had the job at the same time: only behind a blow that took it from the first, or behind
        a cancel."""
        struck = any(True for _ in self._blows.fatal(turn.server, turn.begin, later.begin))
        noticed = turn.outcome is Outcome.ABANDONED and turn.over - later.begin <= NOTICING
        if struck or noticed:
            self._verdict.counts[f"held by two at once: {HELD_TWICE}"] += 1
        elif self._features.went_on_cancelled(turn, later):
            self._verdict.counts[f"held by two at once: {HELD_CANCELLED}"] += 1
        else:
            self._fault("held by two at once", self._told(submission))
