"""What a run must keep to beside its jobs: limits, cancels, results and uniques that are kept.

Pure functions of its history, as all of the verdict. A fault is excused by what docs/limits.rst,
stopping.rst, results.rst and types_of_jobs.rst name, and by durability.rst: what was not committed when a
server fell.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from tests.chaos.blows import Blows
from tests.chaos.history import (
    KEPT,
    KEYED,
    LIMITED,
    MAX_RUNNING,
    ONCE,
    UNIQUE_IS_DATA,
    Cancel,
    History,
    Outcome,
    Result,
    Submission,
    Turn,
    result_of,
)

NOTICING: Final = 0.5
"""Seconds that the harness, which shares the machine with all it starts, may take to see that a connection
has ended, or that a packet has come."""


class Features:
    """The checks, on the same indexes as the verdict's.

    Args:
        history: What happened.
        blows: What was done to the servers.
        by_handle: The turns at each job, in the order in which they began.
        unanswered: Seconds after which what was not answered has been handled, or never is.
    """

    def __init__(
        self, history: History, blows: Blows, by_handle: Mapping[bytes, list[Turn]], unanswered: float
    ) -> None:
        self._history = history
        self._blows = blows
        self._by_handle = by_handle
        self._unanswered = unanswered
        self._cancels: dict[bytes, list[Cancel]] = defaultdict(list)
        for cancel in history.cancels:
            self._cancels[cancel.handle].append(cancel)
        self._results: dict[bytes, list[Result]] = defaultdict(list)
        for result in history.results:
            self._results[result.handle].append(result)

    def check(
        self,
        fault: Callable[[str, str], None],
        told: Callable[[Submission], str],
        counts: Counter[str],
    ) -> None:
        """Tell `fault` of each, with the kind of it and the words for it. `told` are those for a job."""
        for limited, most, groups in (
            ("limited", MAX_RUNNING, self._turns_by(LIMITED, lambda _: b"")),
            ("limited by key", 1, self._turns_by(KEYED, lambda job: job.unique.partition(b":")[0])),
        ):
            for turns in groups.values():
                counts[f"turns, {limited}"] += len(turns)
                peak, excess = self._at_once(turns, most)
                counts[f"most at once, {limited}"] = max(counts[f"most at once, {limited}"], peak)
                for turn in excess:
                    fault("above the limit", told(self._history.submissions[turn.payload]))
        for handle in self._cancels:
            for cancel in self._cancels[handle]:
                counts["cancelled" if cancel.answered else "cancelled, perhaps"] += 1
            for kind, turn in self._cancelled_all_the_same(handle):
                fault(kind, told(self._history.submissions[turn.payload]))
        counts["turns that were stopped"] = sum(
            turn.outcome is Outcome.STOPPED for turn in self._history.turns
        )
        for kind, handle in self._wrong_results():
            turns = self._by_handle.get(handle, ())
            jobs = [told(self._history.submissions[turn.payload]) for turn in turns[:1]]
            fault(kind, f"{handle!r}: {' '.join(jobs) or 'no turn'}")
        for result in self._history.results:
            counts[f"results: {result.state}"] += 1
        for before, turn in self._ran_twice():
            first, second = (told(self._history.submissions[one.payload]) for one in (before, turn))
            fault("ran though its unique was kept", f"{second}; before that {first}")

    # -- limits -------------------------------------------------------------------------------------

    def _turns_by(self, function: bytes, key: Callable[[Submission], bytes]) -> dict[bytes, list[Turn]]:
        found: dict[bytes, list[Turn]] = defaultdict(list)
        for turn in self._history.turns:
            job = self._history.submissions.get(turn.payload)
            if job is not None and job.function == function:
                found[key(job)].append(turn)
        return found

    def _at_once(self, turns: Iterable[Turn], most: int) -> tuple[int, list[Turn]]:
        """How many ran at the same time, and the turns that began while there were too many."""
        running: list[float] = []
        peak = 0
        excess = []
        for turn in sorted(turns, key=lambda turn: turn.begin):
            running = [until for until in running if until > turn.begin]
            running.append(self._counts_until(turn))
            peak = max(peak, len(running))
            if len(running) > most:
                excess.append(turn)
        return peak, excess

    def _counts_until(self, turn: Turn) -> float:
        """Until when a turn surely held a slot: no server knew of its end before. One that is taken for dead
        has its slots no more, while its workers go on."""
        ends = [turn.over]
        if turn.lost is not None:
            ends.append(turn.lost - NOTICING)
        ends += [cancel.sent for cancel in self._cancels.get(turn.handle, ())]
        ends += [blow.begin for blow in self._blows.fatal(turn.server, turn.begin, turn.over)]
        return min(ends)

    # -- cancels ------------------------------------------------------------------------------------

    def was_cancelled(self, submission: Submission, handle: bytes | None = None) -> bool:
        """Whether the job that a submit was answered with was cancelled behind it, or may have been."""
        return any(
            submission.sent
            <= (cancel.sent + self._unanswered if cancel.answered is None else cancel.answered)
            for cancel in self._cancels.get(handle or submission.handle or b"", ())
        )

    def went_on_cancelled(self, turn: Turn, later: Turn) -> bool:
        """Whether a worker went on with a job that was cancelled, while another worker had it for an equal
        submit to another server. A worker that is told of the cancel goes on until it has read that."""
        told = turn.outcome in (Outcome.STOPPED, Outcome.REFUSED) and turn.over - later.begin <= NOTICING
        return (told or not turn.hears) and any(
            cancel.server == turn.server
            and cancel.sent <= later.begin
            and turn.begin <= (cancel.sent + self._unanswered if cancel.answered is None else cancel.answered)
            and self._was_wanted_again(turn.handle, cancel.sent, later, not_by=turn.server)
            for cancel in self._cancels.get(turn.handle, ())
        )

    def _cancelled_all_the_same(self, handle: bytes) -> Iterator[tuple[str, Turn]]:
        turns = self._by_handle.get(handle, ())
        for cancel in self._cancels[handle]:
            if cancel.answered is None:
                continue
            for turn in turns:
                if self._should_have_heard(turn, cancel):
                    yield "not told to stop", turn
            after = [turn for turn in turns if turn.begin > cancel.answered + NOTICING]
            if after and not (
                self._blows.unwritten(cancel.server, cancel.answered, cancel.sent, after[0].begin)
                or self._was_wanted_again(handle, cancel.sent, after[0])
            ):
                yield "ran though cancelled", after[0]

    def _should_have_heard(self, turn: Turn, cancel: Cancel) -> bool:
        assert cancel.answered is not None
        return (
            turn.hears
            and turn.server == cancel.server
            and turn.begin < cancel.sent - NOTICING / 10
            and turn.over > cancel.answered + NOTICING
            and turn.lost is None
            and turn.outcome not in (Outcome.STOPPED, Outcome.REFUSED)
            and not any(self._blows.fatal(turn.server, turn.begin, turn.over))
        )

    def _was_wanted_again(self, handle: bytes, since: float, turn: Turn, not_by: int | None = None) -> bool:
        """Whether another server may have answered a submit with this job at its end: a late duplicate.
        `not_by` is a server that cannot have."""
        job = self._history.submissions[turn.payload]
        if self._history.servers == 1 or job.unique in (b"", UNIQUE_IS_DATA):
            return False
        return any(
            other is not job
            and other.server != not_by
            and (other.function, other.unique) == (job.function, job.unique)
            and other.handle in (handle, None)
            and other.sent <= turn.begin
            and (other.answered or turn.begin) >= since - NOTICING
            for other in self._history.submissions.values()
        )

    # -- results ------------------------------------------------------------------------------------

    def _wrong_results(self) -> Iterator[tuple[str, bytes]]:
        """The jobs of which a server has said what cannot be, or has nothing left."""
        for submission in self._history.submissions.values():
            if submission.function == KEPT and submission.handle is not None:
                yield from self._wrong_results_of(submission, submission.handle)

    def _wrong_results_of(self, submission: Submission, handle: bytes) -> Iterator[tuple[str, bytes]]:
        turns = self._by_handle.get(handle, ())
        cancelled = bool(self._cancels.get(handle))
        accepted = submission.answered or submission.sent
        for result in self._results[handle]:
            if result.state == "completed":
                if not turns or result.data != result_of(turns[0].payload):
                    yield "a wrong result", handle
                later = [turn for turn in turns if turn.begin > result.answered + NOTICING]
                if later and not self._was_wanted_again(handle, result.asked, later[0]):
                    yield "ran behind its result", handle
            elif cancelled or handle in self._history.dead:
                continue
            elif result.last or (result.state in ("unknown", "gone") and accepted < result.asked):
                yield "a job without its result", handle

    # -- uniques ------------------------------------------------------------------------------------

    def was_done_already(self, submission: Submission) -> bool:
        """Whether a submit was answered with a job that was done, and whose unique is kept."""
        turns = self._by_handle.get(submission.handle or b"", ())
        answered = submission.answered or submission.sent
        return submission.function == ONCE and any(turn.done and turn.begin <= answered for turn in turns)

    def _ran_twice(self) -> Iterator[tuple[Turn, Turn]]:
        """The turns at jobs that were submitted when another one with their unique was done, behind that."""
        for turns in self._turns_by(ONCE, lambda job: job.unique).values():
            for turn in turns:
                before = next((one for one in turns if self._is_kept_for(one, turn)), None)
                if before is not None:
                    yield before, turn

    def _is_kept_for(self, before: Turn, turn: Turn) -> bool:
        """Whether one turn's end forbids the other. No fall of a server excuses that: where the end was not
        committed the first job is there still, and the second is coalesced with it."""
        if before.payload == turn.payload or not before.done or before.confirmed is None:
            return False
        second = self._history.submissions[turn.payload]
        answered = second.sent if second.answered is None else second.answered
        return (
            second.sent > before.confirmed
            # What is reported of a job that was cancelled is dropped. One whose end was not committed runs
            # again, and may be cancelled then: its unique is free.
            and not any(cancel.sent <= answered for cancel in self._cancels.get(before.handle, ()))
        )
