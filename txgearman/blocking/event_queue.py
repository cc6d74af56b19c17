"""What the background thread has to tell, kept until a caller's thread takes it. Knows nothing of Gearman."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from txgearman.blocking.deadline import Deadline
from txgearman.blocking.errors import ServerUnavailable

MAX_QUEUED_BYTES: Final = 64 * 1024 * 1024
"""Bytes of data that wait to be taken. As much as the largest packet; past it a job that sends data while
its client does something else would fill the memory."""

EVENT_OVERHEAD: Final = 500
"""Bytes that an event counts beside its data: about what its objects take."""

WAIT_SLICE_SECONDS: Final = 1.0
"""Seconds of one sleep: on Windows Ctrl-C is only seen between two of them."""

Event = Callable[[], object]


class EventQueue:
    """A queue of events, which the background thread puts in and any number of other threads take out."""

    def __init__(self) -> None:
        self._changes = 0
        self._closed: str | None = None
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """In the child of a fork: the events are the parent's, and so is who holds a lock."""
        self._events: deque[tuple[Event, int]] = deque()
        self._changed = threading.Condition()
        self._free_bytes = MAX_QUEUED_BYTES
        self.processing_lock = threading.RLock()
        """Held while events are applied, so that all threads see them in their order."""

    def put(self, event: Event) -> None:
        """Put in an event that must not be lost."""
        self._put(event, 0)

    def offer(self, event: Event, size: int) -> bool:
        """Put in an event with `size` bytes of data if there is room; returns whether there was."""
        return self._put(event, size + EVENT_OVERHEAD)

    def take(self) -> Event | None:
        """The oldest event, None if there is none."""
        with self._changed:
            if not self._events:
                return None
            event, size = self._events.popleft()
            self._free_bytes += size
            return event

    def process_all(self) -> None:
        """Call all events that are there."""
        with self.processing_lock:
            applied = False
            while (event := self.take()) is not None:
                applied = True
                event()
        if applied:
            # Another thread may wait for what was applied here.
            self.wake()

    def close(self, why: str) -> None:
        """No events will come any more: all who wait get `ServerUnavailable`, saying `why`."""
        with self._changed:
            self._closed = why
        self.wake()

    def reopen(self) -> None:
        """Events will come again, from another background thread."""
        with self._changed:
            self._closed = None

    @property
    def changes(self) -> int:
        """How often something happened here; to be given to `wait`."""
        with self._changed:
            return self._changes

    def wake(self) -> None:
        """Let all who wait look again."""
        with self._changed:
            self._changes += 1
            self._changed.notify_all()

    def wait(self, changes: int, deadline: Deadline) -> bool:
        """Return True once more than `changes` has happened, False when the `deadline` is over before.

        Raises `ServerUnavailable` if the queue was closed.
        """
        with self._changed:
            while self._changes == changes:
                if self._closed is not None:
                    raise ServerUnavailable(self._closed)
                if deadline.over:
                    return False
                self._changed.wait(deadline.within(WAIT_SLICE_SECONDS))
            return True

    def _put(self, event: Event, size: int) -> bool:
        with self._changed:
            if size > self._free_bytes and size:
                return False
            self._free_bytes -= size
            self._events.append((event, size))
            self._changes += 1
            self._changed.notify_all()
            return True
