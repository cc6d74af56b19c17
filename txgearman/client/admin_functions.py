"""The commands of the admin client for functions: what is counted of them, their limits, pausing."""

from __future__ import annotations

from typing import Final

from twisted.internet.defer import Deferred

from txgearman.client.admin_connection import AdminConnection, admin_word, escaped_function
from txgearman.connection.arguments import check_count, function_bytes, is_time
from txgearman.wire import listings, replies
from txgearman.wire.listings import FunctionInfo, FunctionLimits
from txgearman.wire.names import escape_word
from txgearman.wire.replies import FunctionStatus, PriorityStatus

LARGEST_LIMIT: Final = 2**31 - 1
"""Jobs of the largest limit of ``maxqueue``. gearmand parses it to 32 bits."""


class FunctionCommands(AdminConnection):
    """What `Admin` does with functions."""

    def status(self) -> Deferred[tuple[FunctionStatus, ...]]:
        """Ask for the server's functions, with the numbers of their jobs and workers.

        Returns:
            A Deferred that fires with the functions.
        """
        return self._ask_list(b"status", replies.function_statuses)

    def priority_status(self) -> Deferred[tuple[PriorityStatus, ...]]:
        """Ask for the server's functions, with the numbers of their waiting jobs by priority.

        Returns:
            A Deferred that fires with the functions.
        """
        return self._ask_list(b"prioritystatus", replies.priority_statuses)

    def set_max_queue(self, function: str | bytes, *limits: int | None) -> Deferred[None]:
        """Limit the number of jobs of a function. The server refuses further jobs.

        gearmand ignores this for a function that it does not know yet.

        Args:
            function: The name of the function.
            *limits: One limit for all priorities, or three: for high, normal and low. A limit of None or 0 is
                removed. No argument removes all limits.

        Returns:
            A Deferred that fires when the server has obeyed.

        Raises:
            ValueError: The name cannot be sent, or a limit is negative or too large, or there are two or more
                than three.
        """
        if len(limits) not in (0, 1, 3):
            raise ValueError(f"there is one limit or three, not {len(limits)}")
        for limit in limits:
            if limit is not None:
                check_count(limit, "a limit", 0, LARGEST_LIMIT)
        name = admin_word(function_bytes(function), "the function's name")
        return self._ask_done(b" ".join([b"maxqueue", name, *(b"%d" % (limit or 0) for limit in limits)]))

    def create_function(self, name: str | bytes) -> Deferred[None]:
        """Make a function known to the server before it has a worker or a job.

        Args:
            name: The name of the function.

        Returns:
            A Deferred that fires when the server has obeyed.

        Raises:
            ValueError: The name cannot be sent.
        """
        return self._ask_done(b"create function " + admin_word(function_bytes(name), "the function's name"))

    def drop_function(self, name: str | bytes) -> Deferred[None]:
        """Make the server forget a function that has no workers and no jobs.

        Args:
            name: The name of the function.

        Returns:
            A Deferred that fires when the server has obeyed.

        Raises:
            ValueError: The name cannot be sent.
        """
        return self._ask_done(b"drop function " + admin_word(function_bytes(name), "the function's name"))

    def functions(self) -> Deferred[tuple[FunctionInfo, ...]]:
        """Ask for all that the server counts of its functions.

        gearmand refuses this.

        Returns:
            A Deferred that fires with the functions.
        """
        return self._ask_list(b"show functions", listings.function_infos)

    def function_limits(self) -> Deferred[tuple[FunctionLimits, ...]]:
        """Ask for the limits of the functions that have some, or refused jobs.

        gearmand refuses this.

        Returns:
            A Deferred that fires with the limits.
        """
        return self._ask_list(b"show function limits", listings.function_limits)

    def set_max_rate(self, function: str | bytes, per_second: float = 0, burst: int = 0) -> Deferred[None]:
        """Limit how many new jobs of a function the server takes in a second. It refuses further ones.

        gearmand refuses this.

        Args:
            function: The name of the function.
            per_second: Jobs a second; 0 removes the limit.
            burst: How many of them may come at once; 0 is as many as the rate.

        Returns:
            A Deferred that fires when the server has obeyed.

        Raises:
            ValueError: The name cannot be sent, or a number is negative or too large.
        """
        if not is_time(per_second):
            raise ValueError(f"the rate must be a number of jobs a second from 0 on, not {per_second!r}")
        check_count(burst, "the burst", 0)
        name = admin_word(function_bytes(function), "the function's name")
        return self._ask_done(b"maxrate %b %b %d" % (name, b"%.17g" % per_second, burst))

    def limit_runs(
        self, function: str | bytes, setting: str | None = None, value: float | str | None = None
    ) -> Deferred[None]:
        """Limit the runs of a function. Nothing that runs is stopped.

        gearmand refuses this.

        Args:
            function: The name of the function.
            setting: ``max-running``, ``start-rate``, ``start-burst``, ``max-running-per-key``,
                ``key-separator`` or ``pause-after``, as in the configuration file. None removes all of them.
            value: The limit, 0 for none; of ``key-separator`` a text.

        Returns:
            A Deferred that fires when the server has obeyed. It fails with an `AdminError` that says what is
            wrong with the setting or its value.

        Raises:
            ValueError: The name cannot be sent, or the setting or the value is missing.
        """
        line = b"limit " + admin_word(function_bytes(function), "the function's name")
        if setting is None and value is None:
            return self._ask_done(line)
        if setting is None or value is None:
            raise ValueError("a limit of runs needs a setting and its value")
        name = admin_word(setting.encode(), "the setting")
        word = f"{value:.17g}" if isinstance(value, float) else f"{value}"
        return self._ask_done(b"%b %b %b" % (line, name, admin_word(escape_word(word.encode()), "the value")))

    def pause_function(self, function: str | bytes) -> Deferred[None]:
        """Let the server give no job of a function to a worker. New jobs are taken, and running ones go on.

        gearmand refuses this.

        Args:
            function: The name of the function.

        Returns:
            A Deferred that fires when the server has obeyed. It fails with an `AdminError` that begins with
            ``UNKNOWN_FUNCTION`` if it does not know the function.

        Raises:
            ValueError: The name cannot be sent.
        """
        return self._ask_done(b"pause function " + escaped_function(function))

    def resume_function(self, function: str | bytes) -> Deferred[None]:
        """Undo `pause_function`, or a pause after too many failed runs.

        gearmand refuses this.

        Args:
            function: The name of the function.

        Returns:
            A Deferred that fires when the server has obeyed. It fails as for `pause_function`.

        Raises:
            ValueError: The name cannot be sent.
        """
        return self._ask_done(b"resume function " + escaped_function(function))
