"""The commands of the admin client for schedules."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred

from txgearman.client.admin_connection import AdminConnection
from txgearman.wire import replies
from txgearman.wire.names import escape_word
from txgearman.wire.replies import ScheduleStatus


class ScheduleCommands(AdminConnection):
    """What `Admin` does with schedules."""

    def create_schedule(
        self, name: str | bytes, definition: Mapping[str, Any], data: str | bytes = b""
    ) -> Deferred[None]:
        """Let a server submit a job again and again, in place of a schedule of this name.

        gearmand refuses this, and all of the next four.

        Args:
            name: What the schedule is called.
            definition: When it submits what, by the names of the settings with underscores: ``function``, and
                ``cron`` or ``every``; ``timezone``, ``unique``, ``priority``, ``jitter``, ``missed``,
                ``missed_window``, ``overlap`` and ``enabled``, if wanted.
            data: The payload of each job; str is sent as UTF-8.

        Returns:
            A Deferred that fires when the schedule is durable. It fails with an `AdminError` that says what
            is wrong with the definition, or begins with ``SCHEDULE_OF_FILE`` if the server's configuration
            file has a schedule of this name.

        Raises:
            ValueError: The name cannot be sent, or all that is too long for a command.
        """
        payload = data.encode() if isinstance(data, str) else data
        members = dict(definition)
        if payload:
            members["data_base64"] = b64encode(payload).decode("ascii")
        written = json.dumps(members, separators=(",", ":")).encode()
        return self._ask_done(b"create schedule %b %b" % (_schedule_word(name), escape_word(written)))

    def drop_schedule(self, name: str | bytes) -> Deferred[None]:
        """Remove a schedule. Jobs of it that are there go on.

        Args:
            name: The schedule.

        Returns:
            A Deferred that fires when that is durable. It fails with an `AdminError` that begins with
            ``UNKNOWN_SCHEDULE`` if there is none, with ``SCHEDULE_OF_FILE`` if it is one of the server's
            configuration file.

        Raises:
            ValueError: The name cannot be sent.
        """
        return self._ask_done(b"drop schedule " + _schedule_word(name))

    def pause_schedule(self, name: str | bytes) -> Deferred[None]:
        """Let a schedule rest. What it misses meanwhile is not made up for.

        Args:
            name: The schedule.

        Returns:
            A Deferred that fires when that is durable.

        Raises:
            ValueError: The name cannot be sent.
        """
        return self._ask_done(b"pause schedule " + _schedule_word(name))

    def resume_schedule(self, name: str | bytes) -> Deferred[None]:
        """Let a schedule that was paused go on with its next tick.

        Args:
            name: The schedule.

        Returns:
            A Deferred that fires when that is durable.

        Raises:
            ValueError: The name cannot be sent.
        """
        return self._ask_done(b"resume schedule " + _schedule_word(name))

    def run_schedule(self, name: str | bytes) -> Deferred[str]:
        """Submit a job of a schedule now, also if it is paused.

        Args:
            name: The schedule.

        Returns:
            A Deferred that fires with the job's handle once the job is accepted. If its unique has a live job
            it is the handle of that.

        Raises:
            ValueError: The name cannot be sent.
        """
        return self._ask_line(b"run schedule " + _schedule_word(name), replies.said)

    def schedules(self) -> Deferred[tuple[ScheduleStatus, ...]]:
        """Ask for the server's schedules, which submit jobs again and again.

        gearmand has none, and refuses this.

        Returns:
            A Deferred that fires with the schedules, by name.
        """
        return self._ask_list(b"show schedules", replies.schedule_statuses)


def _schedule_word(name: str | bytes) -> bytes:
    """The name of a schedule as a word of a command. Raises `ValueError` if it cannot be one."""
    word = name.encode() if isinstance(name, str) else name
    if not word or b"\0" in word:
        raise ValueError(f"the name of a schedule must not be empty or have a NUL: {name!r}")
    return escape_word(word)
