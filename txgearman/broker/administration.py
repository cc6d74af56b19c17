"""What an administrator does with a broker: functions, their limits, pausing, cancelling, draining."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from txgearman.broker.entities import Function, Worker
from txgearman.broker.function_settings import FunctionSettings
from txgearman.broker.handles import number_of
from txgearman.broker.job_states import JobState
from txgearman.broker.policy import Policy, RunRules
from txgearman.broker.setting_kinds import MAX_QUEUE, MAX_RATE, PAUSED
from txgearman.errors import Refused, ShuttingDown

if TYPE_CHECKING:
    from txgearman.broker.broker import Broker

_GONE: Final = JobState.GONE


class Administration:
    """The verbs of administrators. It has no state of its own.

    Args:
        broker: Whose functions and jobs these are.
    """

    __slots__ = ("_broker", "_functions", "_settings")

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._functions = broker.functions
        self._settings = FunctionSettings(broker)

    def create_function(self, name: bytes) -> Function:
        """Make a function that stays until it is dropped.

        Args:
            name: The function. One that exists stays from now on.

        Returns:
            The function.

        Raises:
            TooManyFunctions: There are as many functions as there may be.
        """
        function = self._functions.by_name.get(name)
        if function is None:
            function = self._functions.new(name)
        function.pinned = True
        return function

    def drop_function(self, name: bytes) -> None:
        """Forget a function.

        gearmand does not look at queued jobs and leaves them unreachable, with dangling pointers.

        Args:
            name: The function.

        Raises:
            FunctionNotFound: There is no such function.
            FunctionInUse: It has workers or jobs.
        """
        self._functions.drop(name)

    def when_stored(self, tell: Callable[[Refused | None], None]) -> None:
        """Wait until all settings that were made so far are durable, as far as something keeps them.

        Args:
            tell: Called with None, or with the refusal if the store cannot be written to. It may be called
                from inside this call. What was set holds in either case.
        """
        setting_store = self._functions.setting_store
        if setting_store is None:
            tell(None)
        else:
            setting_store.when_written(tell)

    def set_limits(self, name: bytes, limits: tuple[int | None, ...]) -> None:
        """Limit how many jobs the function may have.

        A function that does not exist is made, so that a limit can be set ahead of the first job. gearmand
        says OK and forgets it.

        Args:
            name: The function.
            limits: How many jobs there may be when one more is let in, by the priority of that one (high,
                normal, low). None is no limit.

        Raises:
            TooManyFunctions: The function would be one more than there may be.
        """
        self._settings.change(self.create_function(name), MAX_QUEUE, list(limits))

    def set_rate(self, name: bytes, per_second: float, burst: int = 0) -> None:
        """Limit how fast the function takes new jobs.

        A function that does not exist is made, as by `set_limits`.

        Args:
            name: The function.
            per_second: New jobs a second; 0 is no limit.
            burst: How many of them may come at once; 0 is as many as the rate.

        Raises:
            TooManyFunctions: The function would be one more than there may be.
        """
        self._settings.change(self.create_function(name), MAX_RATE, [per_second, burst])

    def limit_runs(self, name: bytes, rules: RunRules) -> None:
        """Limit the runs of a function. Nothing that runs is stopped.

        A function that does not exist is made, as by `set_limits`. Where its runs come to be limited by key,
        no job of it begins until those that run are counted, and none before it is moved to another queue,
        which is done in slices. Where they were limited by key before, this may walk its queued jobs.

        Args:
            name: The function.
            rules: The limits.

        Raises:
            TooManyFunctions: The function would be one more than there may be.
        """
        self._settings.change_runs(self.create_function(name), rules)

    @property
    def draining(self) -> bool:
        """Whether no new job is taken, see `drain`."""
        return self._broker.limits.draining

    def drain(self) -> None:
        """Take no new job from now on, and give no job to a worker. Running jobs may end."""
        self._broker.limits.refuse_at = 0
        self._functions.drain()
        for function in list(self._functions.by_name.values()):
            self._broker.throttle.paused(function)

    def change_policy(self, policy: Policy) -> None:
        """Obey another policy from now on. This walks all functions.

        A rule that is the same in both policies is left alone, so that a limit that was set by `set_limits`
        or `set_rate` stays. No job that was accepted is touched. A time limit is that of the moment at which
        the worker got the job.

        Args:
            policy: The new policy. Its order, turns and prefix of handles must be those of the old one.

        Raises:
            ValueError: One of these differs.
        """
        before = self._functions.policy
        fixed = before.order, before.round_robin, before.handle_prefix
        if (policy.order, policy.round_robin, policy.handle_prefix) != fixed:
            raise ValueError("the order of functions and the prefix of handles cannot be changed")
        changed = self._functions.change_policy(policy)
        self._broker.throttle.obey(changed, before, self._broker.life.jobs)
        self._broker.stored_queues.fetch_again()
        self._broker.ended_jobs.change_policy(policy)
        self._broker.limits.change_max_jobs(policy.max_jobs)

    def cancel_some(self, name: bytes, cursor: int, until: int) -> int | None:
        """End some jobs of a function, as `Broker.cancel` does, in the order of their handles.

        One call looks at some thousands, so that cancelling all jobs of a function does not hold up the
        others: begin with 0 and go on with what is returned. Jobs that only the store has are left, and come
        in when there is room.

        Args:
            name: The function.
            cursor: The number of a handle. Jobs with greater numbers are ended.
            until: The `Inspection.last_number` at the beginning. Jobs that this server took since then are
                left alone.

        Returns:
            What to go on with in place of `cursor`, None when there is nothing left.

        Raises:
            FunctionNotFound: There is no such function.
        """
        function = self._functions.find(name)
        newest = self._broker.life.handles.last()
        if until <= cursor < newest:
            # Greater numbers are those of jobs taken over from servers that started later.
            cursor = newest
        jobs = self._broker.life.handles.after(cursor)
        if not jobs:
            return None
        for job in jobs:
            # One may have ended with another meanwhile.
            if job.function is function and job.state is not _GONE:
                number = number_of(job.handle)
                if number <= until or number > newest:
                    self._broker.cancel(job.handle)
        function.trim()
        return number_of(jobs[-1].handle)

    def pause_function(self, name: bytes) -> None:
        """Give no job of the function to a worker from now on.

        Jobs are taken in as before, and running ones go on.

        Args:
            name: The function.

        Raises:
            FunctionNotFound: There is no such function.
        """
        self._settings.change(self._functions.find(name), PAUSED, True)

    def resume_function(self, name: bytes) -> None:
        """Undo `pause_function`. As many sleeping workers are woken as there are jobs for them.

        Args:
            name: The function.

        Raises:
            FunctionNotFound: There is no such function.
            ShuttingDown: The server drains, see `drain`.
        """
        function = self._functions.find(name)
        if self._functions.draining:
            raise ShuttingDown
        self._settings.change(function, PAUSED, False)

    def quiet(self, worker: Worker, quiet: bool = True) -> None:
        """Give the worker no more jobs, or some again. Those that it has stay with it.

        Args:
            worker: The worker.
            quiet: Whether it is to get none.
        """
        if worker.quiet != quiet:
            worker.quiet = quiet
            waking = self._broker.waking
            waking.dissolve(waking.look_again(worker))
