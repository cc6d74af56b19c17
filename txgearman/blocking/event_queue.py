"""The queue of events from the background thread to the program's threads. Knows nothing of Gearman."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from txgearman.blocking.deadline import Deadline
from txgearman.blocking.errors import ServerUnavailable

MAX_QUEUED_BYTES: Final = 64 * 1024 * 1024
"""Bytes of data in a queue at most: as many as the largest packet has. Without a limit a job that sends data
while its client does something else would fill the memory."""

EVENT_OVERHEAD: Final = 500
"""Bytes that an event counts beside its data: about the size of its objects."""

WAIT_SLICE_SECONDS: Final = 1.0
"""Seconds of one sleep. On Windows Ctrl-C takes effect only between two sleeps."""

Event = Callable[[], object]


class EventQueue:
    """A queue of events. The background thread puts them in, and any number of other threads take them out.

    Attributes:
        processing_lock: Held while events are processed, so that all threads see them in their order.
    """

    def __init__(self) -> None:
        self._changes = 0
        self._closed: str | None = None
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Drop the events and locks of the parent. Called in the child of a fork."""
        self._events: deque[tuple[Event, int]] = deque()
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._sleepers = 0
        # The event that has raised last.
        self._raised: Event | None = None
        self._free_bytes = MAX_QUEUED_BYTES
        self.processing_lock = threading.RLock()

    def put(self, event: Event) -> None:
        """Put in an event, whether there is room or not."""
        self._put(event, 0)

    def offer(self, event: Event, size: int) -> bool:
        """Put in an event if there is room.

        Args:
            event: The event.
            size: Bytes of its data.

        Returns:
            Whether there was room.
        """
        return self._put(event, size + EVENT_OVERHEAD)

    def take(self) -> Event | None:
        """Take out the oldest event; None if there is none."""
        with self._lock:
            if not self._events:
                return None
            event, size = self._events.popleft()
            self._free_bytes += size
            return event

    def process_all(self) -> None:
        """Take out all events, and call each.

        An event that raises is put back, and called once more by the next call of this. So events must be
        idempotent: the handler of a signal, as that of Ctrl-C, may raise before an event has done anything,
        in the middle of it, or when it is done.
        """
        if not self._events:
            # If another thread is still at the last one, that changes the queue when it is done.
            return
        processed = False
        try:
            with self.processing_lock:
                while self._events:
                    processed = True
                    # Python runs handlers of signals behind calls. There is none from here to the try.
                    taken = self._events[0]
                    del self._events[0]
                    try:
                        taken[0]()
                    except BaseException:
                        self._put_back(taken)
                        raise
                    self._free(taken[1])
        finally:
            if processed:
                # Another thread may wait for one of these events.
                self.wake()

    def process_now(self, event: Callable[..., object], *arguments: object) -> bool:
        """Call an event, if none is before it, and no other thread is at one.

        Args:
            event: The event.
            *arguments: Its arguments.

        Returns:
            Whether it was called.
        """
        if self._events or not self.processing_lock.acquire(blocking=False):
            return False
        try:
            event(*arguments)
        finally:
            self.processing_lock.release()
        self.wake()
        return True

    def close(self, why: str) -> None:
        """Declare that no more events will come. All waits raise `ServerUnavailable`.

        Args:
            why: The text of that error.
        """
        with self._changed:
            self._closed = why
        self.wake()

    def reopen(self) -> None:
        """Declare that events will come again, from another background thread."""
        with self._changed:
            self._closed = None

    @property
    def changes(self) -> int:
        """The number of changes so far, to be passed to `wait`."""
        return self._changes

    def wake(self) -> None:
        """Wake all waiting threads."""
        with self._lock:
            self._changes += 1
            if self._sleepers:
                self._changed.notify_all()

    def wait(self, changes: int, deadline: Deadline) -> bool:
        """Wait for a change.

        Args:
            changes: The number of changes that the caller knows of.
            deadline: When to give up.

        Returns:
            Whether there was a change.

        Raises:
            ServerUnavailable: The queue is closed.
        """
        with self._changed:
            while self._changes == changes:
                if self._closed is not None:
                    raise ServerUnavailable(self._closed)
                if deadline.over:
                    return False
                self._sleepers += 1
                try:
                    self._changed.wait(deadline.within(WAIT_SLICE_SECONDS))
                finally:
                    self._sleepers -= 1
            return True

    def _put_back(self, taken: tuple[Event, int]) -> None:
        """An event has raised: it gets a second chance, and no third."""
        event, size = taken
        if self._raised is event:
            self._raised = None
            self._free(size)
        else:
            self._raised = event
            self._events.appendleft(taken)

    def _free(self, size: int) -> None:
        with self._lock:
            self._free_bytes += size

    def _put(self, event: Event, size: int) -> bool:
        with self._lock:
            if size > self._free_bytes and size:
                return False
            self._free_bytes -= size
            self._events.append((event, size))
            self.wake()
            return True
