"""The blocking admin client: sends admin commands to one server. Replies are parsed elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from txgearman.blocking import errors
from txgearman.blocking.background_thread import GRACE_SECONDS, BackgroundResource
from txgearman.blocking.connection_manager import GearmanConnectionManager, Servers
from txgearman.blocking.data_encoder import bytes_of
from txgearman.blocking.errors import InvalidAdminClientState, ProtocolError, ServerUnavailable
from txgearman.blocking.name import Name
from txgearman.client.admin import Admin
from txgearman.errors import AdminError, ClientError, TimedOut

DEFAULT_ADMIN_CLIENT_TIMEOUT: Final = 10.0
"""Default of ``poll_timeout``: seconds that a server may take to answer."""

ECHO_STRING: Final = "ping? pong!"
"""The text that `ping_server` lets the server send back."""


class GearmanAdminClient(GearmanConnectionManager):
    """Sends admin commands to one server.

    Commands raise `ServerUnavailable` if the server cannot be reached, `InvalidAdminClientState` if it does
    not answer in time, and `ProtocolError` if it refuses.

    Args:
        host_list: The server, such as ``"localhost:4730"``, also in a list.
        poll_timeout: Seconds that each command may take.

    Attributes:
        poll_timeout: As given.
        current_connection: The connection to the server; None without one.

    Raises:
        ValueError: There is more than one server.
    """

    def __init__(
        self,
        host_list: Servers | None = None,
        poll_timeout: float = DEFAULT_ADMIN_CLIENT_TIMEOUT,
    ) -> None:
        super().__init__(host_list)
        if len(self.connection_list) > 1:
            raise ValueError(f"an admin client has one server, not {len(self.connection_list)}")
        self.poll_timeout = poll_timeout
        self.current_connection = self.connection_list[0] if self.connection_list else None
        self._admin = BackgroundResource(self, self._new_admin, Admin.close)

    def ping_server(self) -> float:
        """Measure how long the server takes to send a text back.

        Returns:
            The time in seconds.
        """
        start = time.monotonic()
        self.establish_admin_connection()
        assert self.current_connection is not None
        try:
            answer = self.current_connection.echo(ECHO_STRING.encode(), self.poll_timeout)
        except errors.ConnectionError as error:
            raise self._translated(error.__cause__) from error
        if answer != ECHO_STRING.encode():
            raise InvalidAdminClientState(f"the server sent {answer!r} back for {ECHO_STRING!r}")
        return time.monotonic() - start

    def get_status(self) -> tuple[dict[str, Any], ...]:
        """Ask for the server's functions.

        Returns:
            A dictionary for each, with ``task``, ``queued``, ``running`` and ``workers``. ``queued`` counts
            the running jobs too.
        """
        return tuple(
            {
                "task": Name.of(one.function),
                "queued": one.total,
                "running": one.running,
                "workers": one.workers,
            }
            for one in self._run(Admin.status)
        )

    def get_workers(self) -> tuple[dict[str, Any], ...]:
        """Ask for the server's connections.

        Returns:
            A dictionary for each, with ``file_descriptor``, ``ip`` and ``client_id``, all str, and ``tasks``.
        """
        return tuple(
            {
                "file_descriptor": str(one.number),
                "ip": one.host,
                "client_id": Name.of(one.client_id),
                "tasks": tuple(map(Name.of, one.functions)),
            }
            for one in self._run(Admin.workers)
        )

    def get_version(self) -> str:
        """Ask for the server's version."""
        version: str = self._run(Admin.version)
        return version

    def get_pid(self) -> str:
        """Ask for the server's process id.

        Returns:
            The id as text.
        """
        return str(self._run(Admin.getpid))

    def get_jobs(self) -> tuple[dict[str, Any], ...]:
        """Ask for the server's jobs.

        Returns:
            A dictionary for each, with the names that python-gearman gives to the columns of ``show jobs``:
            ``handle``; ``queued``, how often the job was lost with its worker; ``canceled``, 1 if no client
            waits for it any more; and ``enabled``, 1 for an offline job.
        """
        return tuple(
            {
                "handle": Name.of(one.handle),
                "queued": one.losses,
                "canceled": int(one.ignored),
                "enabled": int(one.background),
            }
            for one in self._run(Admin.jobs)
        )

    def get_unique_jobs(self) -> tuple[dict[str, Any], ...]:
        """Ask for the uniques of the server's jobs.

        Returns:
            A dictionary for each, with ``unique``.
        """
        return tuple({"unique": Name.of(one)} for one in self._run(Admin.unique_jobs))

    def cancel_job(self, handle: str | bytes) -> str:
        """Cancel a job.

        Args:
            handle: The job's handle.

        Returns:
            ``"OK"``, or the server's refusal, which begins with ``ERR``.
        """
        try:
            self._run(lambda admin: admin.cancel(bytes_of(handle)))
        except ProtocolError as error:
            return f"ERR {error}"
        return "OK"

    def send_maxqueue(self, task: str | bytes, max_size: int | str) -> str:
        """Limit the jobs of a function.

        Args:
            task: The name of the function.
            max_size: The number of jobs, also as text. 0 or less removes the limit.

        Returns:
            ``"OK"``.

        Raises:
            ValueError: `max_size` is a text, and not a number.
        """
        size = int(max_size)
        limit = size if size > 0 else None
        self._run(lambda admin: admin.set_max_queue(bytes_of(task), limit))
        return "OK"

    def send_maxrate(self, task: str | bytes, per_second: float = 0, burst: int = 0) -> str:
        """Limit how many new jobs of a function the server takes in a second. gearmand refuses this.

        Args:
            task: The name of the function.
            per_second: Jobs a second; 0 removes the limit.
            burst: How many of them may come at once; 0 is as many as the rate.

        Returns:
            ``"OK"``.

        Raises:
            ValueError: A number is negative, or not a number.
        """
        self._run(lambda admin: admin.set_max_rate(bytes_of(task), per_second, burst))
        return "OK"

    def send_limit(
        self, task: str | bytes, setting: str | None = None, value: float | str | None = None
    ) -> str:
        """Limit the runs of a function. gearmand refuses this.

        Args:
            task: The name of the function.
            setting: ``max-running``, ``start-rate``, ``start-burst``, ``max-running-per-key``,
                ``key-separator`` or ``pause-after``. None removes all of them.
            value: The limit, 0 for none; of ``key-separator`` a text.

        Returns:
            ``"OK"``.

        Raises:
            ValueError: The setting or the value is missing.
        """
        self._run(lambda admin: admin.limit_runs(bytes_of(task), setting, value))
        return "OK"

    def send_pause(self, task: str | bytes) -> str:
        """Let the server give no job of a function to a worker. gearmand refuses this.

        Args:
            task: The name of the function.

        Returns:
            ``"OK"``.
        """
        self._run(lambda admin: admin.pause_function(bytes_of(task)))
        return "OK"

    def send_resume(self, task: str | bytes) -> str:
        """Undo `send_pause`, or a pause after too many failed runs. gearmand refuses this.

        Args:
            task: The name of the function.

        Returns:
            ``"OK"``.
        """
        self._run(lambda admin: admin.resume_function(bytes_of(task)))
        return "OK"

    def send_shutdown(self, graceful: bool = True) -> None:
        """Stop the server. gearmand since 1.1.15 refuses.

        Args:
            graceful: Whether its jobs may end first.
        """
        self._run(lambda admin: admin.shutdown(graceful))

    def establish_admin_connection(self) -> None:
        """Connect to the server.

        Raises:
            ServerUnavailable: There is none, or it cannot be reached.
        """
        if self.current_connection is None:
            raise ServerUnavailable("the admin client has no server")
        try:
            self.establish_connection(self.current_connection)
        except errors.ConnectionError as error:
            raise ServerUnavailable(str(error)) from error

    def shutdown(self) -> None:
        """Close the connections. The next command connects again."""
        self._admin.close()
        super().shutdown()

    def _run(self, command: Callable[[Admin], Any]) -> Any:
        if self.current_connection is None:
            raise ServerUnavailable("the admin client has no server")
        try:
            thread, admin = self._admin.get()
            return thread.call(command, admin, timeout=self.poll_timeout + GRACE_SECONDS)
        except (ClientError, ServerUnavailable) as error:
            raise self._translated(error) from error

    def _translated(self, error: BaseException | None) -> Exception:
        """Make an error of python-gearman of one of the Twisted clients."""
        if isinstance(error, TimedOut):
            return InvalidAdminClientState(f"no answer within {self.poll_timeout} seconds")
        if isinstance(error, AdminError):
            return ProtocolError(error.text)
        return ServerUnavailable(str(error))

    def _new_admin(self, reactor: Any) -> Admin:
        assert self.current_connection is not None
        return Admin(reactor, self.current_connection.endpoint(reactor), timeout=self.poll_timeout)
