"""Slots of limits that hold for all servers on a database together: the broker's `SlotSource`.

A slot that the broker gives back stays here for a while, unless another server wants it: so jobs of one
server alone do not wait for the database. Who waits for a slot asks the database for it again and again; who
has one hears with the renewal of its lease that others want it. So a server has the use of a slot for a
while, and one that waits gets it in good time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from txgearman.errors import LeaseLost, StoreError
from txgearman.server.persistence.thread import InThread, log_defect
from txgearman.store.contract import MAX_SLOTS, Renewal, Slot, SlotChanges, Store

if TYPE_CHECKING:
    from txgearman.broker.store_answers import StoreAnswers

FIRST_POLL: Final = 1 / 40
"""The part of a lease after which a server looks for a slot that it waits for: a quarter of a second with
the default of ten seconds. Each look that finds none doubles the time to the next."""

LAST_POLL: Final = 1 / 6
"""The part of a lease after which it looks at least. A server that has the slot hears within a third of a
lease that it is wanted, so that the slot is here within a half of one, once it is free."""

POLL_JITTER: Final = 0.25
"""The part by which each of these times is shorter at random, so that servers which began to wait at the same
moment do not all look at the same."""

RETRY_INTERVAL: Final = 1.0
"""Seconds until an exchange is made again that failed."""

MAX_SPARE: Final = 1000
"""Slots that are kept for jobs to come; the oldest of more are given back. A server keeps so many functions
and keys from waiting for the database."""

MAX_LIMIT: Final = 2**31 - 1
"""The greatest limit that the store can hold. So many jobs never run."""

_Key = tuple[bytes, bytes]


class SlotCount(NamedTuple):
    """The slots of one function, those of its keys included.

    Attributes:
        leased: How many this server has.
        wanted: How many it waits for.
    """

    leased: int
    wanted: int


NO_SLOTS: Final = SlotCount(0, 0)
_log = Logger()


class StoredSlots:
    """The slots of this server in `store`.

    What is told to the broker is never told from inside its call.

    Args:
        store: The store, used through `in_thread`.
        reactor: What makes timers.
        in_thread: Calls a function with arguments in the store's thread, in order, and returns a Deferred.
        store_failed: Is told when the lease turns out to be lost.
        chance: Gives random numbers from 0 to 1.

    Attributes:
        by_function: The functions that have slots here or wait for some; for reading alone.
    """

    def __init__(
        self,
        store: Store,
        reactor: Any,
        in_thread: InThread,
        store_failed: Callable[[Failure], None],
        chance: Callable[[], float],
    ) -> None:
        self._store = store
        self._reactor = reactor
        self._in_thread = in_thread
        self._store_failed = store_failed
        self._chance = chance
        self._answers: StoreAnswers | None = None
        self._lease_duration = 0.0
        # Seconds to the next look for a slot, if that finds none.
        self._poll_interval = 0.0
        self.by_function: dict[bytes, SlotCount] = {}
        self._has_lease = False
        # Counts the leases: an answer to what was said under an earlier one means nothing.
        self._lease = 0
        # The numbers of the slots that this server has, of a limit those last that are given back first.
        self._held: dict[_Key, list[int]] = {}
        # How many of them the broker does not need, those that it gave back first being the first.
        self._spare: OrderedDict[_Key, int] = OrderedDict()
        # Those of them that it did not need at the last renewal either.
        self._old: dict[_Key, int] = {}
        # How many the broker is to give up as others want them.
        self._owed: dict[_Key, int] = {}
        # What the broker waits for, with the limit that the store knows of, and what it is about to be told.
        self._wanted: dict[_Key, int] = {}
        self._gained: dict[_Key, None] = {}
        # The limits of functions at the last renewal: their own, and that of each key.
        self._limits: dict[bytes, tuple[int, int]] = {}
        self._changes = SlotChanges()
        # What is under way, and stays here where that fails: it may have been done.
        self._in_flight: SlotChanges | None = None
        self._is_exchanging = self._is_failing = False
        self._unconfirmed: set[Slot] = set()
        self._next_exchange: IDelayedCall | None = None
        self._next_tell: IDelayedCall | None = None

    def begin(self, answers: StoreAnswers, lease: float) -> None:
        """Serve the broker from now on.

        Args:
            answers: Is told of slots.
            lease: Seconds of a lease.
        """
        self._answers = answers
        self._lease_duration = lease
        self._poll_interval = lease * FIRST_POLL
        self._has_lease = True

    def stop(self) -> None:
        """Say nothing more. With the lease the slots are given up."""
        self._has_lease = False
        self._cancel()

    @property
    def held(self) -> int:
        """How many slots this server has."""
        return sum(count.leased for count in self.by_function.values())

    @property
    def wanted(self) -> int:
        """How many it waits for."""
        return len(self._wanted)

    # -- SlotSource -------------------------------------------------------------------------------

    def want(self, function: bytes, key: bytes) -> None:
        limit = function, key
        if self._spare.get(limit):
            self._use_spare(limit)
            self._gained[limit] = None
            if self._next_tell is None and self._has_lease:
                self._next_tell = self._reactor.callLater(0, self._tell_gained)
        else:
            self._ask_for(limit, self._limit_of(limit))
            self._exchange_within(0)

    def unwant(self, function: bytes, key: bytes) -> None:
        limit = function, key
        if limit in self._gained:
            del self._gained[limit]
            self._keep_spare(limit)
        elif self._wanted.pop(limit, None) is not None:
            self._count(function, wanted=-1)
            self._changes.wanted.pop(limit, None)
            self._changes.unwanted.add(limit)
            self._exchange_within(0)

    def release(self, function: bytes, key: bytes) -> None:
        limit = function, key
        owed = self._owed.get(limit, 0)
        if not owed:
            self._keep_spare(limit)
            return
        self._owe(limit, owed - 1)
        self._give_back(limit)

    # -- what the lease tells ---------------------------------------------------------------------

    def renewed(self, renewal: Renewal) -> None:
        """The lease was renewed: see to what others want, and to what is of no use.

        Args:
            renewal: What the store says with it.
        """
        if not self._has_lease:
            return
        if renewal.has_new_slots:
            self._exchange_within(0)
        for function, key, servers in renewal.wanted_slots:
            self._give_up((function, key), servers)
        for limit, old in list(self._old.items()):
            for _ in range(min(old, self._spare.get(limit, 0))):
                self._use_spare(limit)
                self._give_back(limit)
        self._old = dict(self._spare)
        self._look_at_limits()

    def lost(self) -> None:
        """The lease has expired, and all slots with it."""
        self._has_lease = False
        self._lease += 1
        self._cancel()
        for state in (self._held, self._spare, self._old, self._owed, self._wanted, self._gained):
            state.clear()
        self.by_function.clear()
        self._unconfirmed.clear()
        self._changes, self._in_flight = SlotChanges(), None
        self._is_exchanging = self._is_failing = False
        if self._answers is not None:
            # It says anew what it wants.
            self._answers.slots_lost()

    def regained(self) -> None:
        """There is a new lease, without slots. What is wanted was said while there was none."""
        self._has_lease = True
        if self._changes.wanted:
            self._exchange_within(0)

    def _give_up(self, limit: _Key, servers: int) -> None:
        """Give back slots of one limit for so many servers: spare ones now, others when the broker can."""
        assert self._answers is not None
        for _ in range(min(servers, self._spare.get(limit, 0))):
            self._use_spare(limit)
            self._give_back(limit)
            servers -= 1
        owed = self._owed.get(limit, 0)
        more = min(servers, len(self._held.get(limit, ()))) - owed
        if more > 0:
            self._owe(limit, owed + more)
            for _ in range(more):
                self._answers.slot_wanted(*limit)

    def _look_at_limits(self) -> None:
        """Let the store know of limits that were changed. Of one that was lowered all slots are given back
        once they are free: the store then gives as many as there may be."""
        assert self._answers is not None
        functions = {function for function, _ in (*self._held, *self._wanted)}
        for function in functions | self._limits.keys():
            before, now = self._limits.get(function), self._answers.slot_limits(function)
            if function not in functions:
                del self._limits[function]
            elif now != before:
                self._limits[function] = now
                if before is not None:
                    self._limits_changed(function, now[0] < before[0] or now[1] < before[1])

    def _limits_changed(self, function: bytes, lowered: bool) -> None:
        for limit, most in list(self._wanted.items()):
            if limit[0] == function and self._limit_of(limit) != most:
                self._ask_for(limit, self._limit_of(limit))
                self._exchange_within(0)
        for limit, numbers in list(self._held.items()):
            if lowered and limit[0] == function:
                self._give_up(limit, len(numbers))

    def _limit_of(self, limit: _Key) -> int:
        """How many slots there may be, on all servers together."""
        assert self._answers is not None
        function, key = limit
        limits = self._answers.slot_limits(function)
        self._limits.setdefault(function, limits)
        return min(limits[1] if key else limits[0], MAX_LIMIT)

    # -- what this server has ---------------------------------------------------------------------

    def _ask_for(self, limit: _Key, most: int) -> None:
        self._changes.unwanted.discard(limit)
        if limit not in self._wanted:
            self._count(limit[0], wanted=1)
            self._poll_interval = self._lease_duration * FIRST_POLL
        self._changes.wanted[limit] = self._wanted[limit] = most

    def _keep_spare(self, limit: _Key) -> None:
        """Keep a slot that the broker does not need, for some time."""
        self._spare[limit] = self._spare.get(limit, 0) + 1
        if len(self._spare) > MAX_SPARE:
            oldest, slots = self._spare.popitem(last=False)
            for _ in range(slots):
                self._give_back(oldest)

    def _use_spare(self, limit: _Key) -> None:
        left = self._spare.pop(limit) - 1
        if left:
            self._spare[limit] = left
        if limit in self._old:
            self._old[limit] = min(left, self._old[limit])

    def _owe(self, limit: _Key, slots: int) -> None:
        if slots:
            self._owed[limit] = slots
        else:
            self._owed.pop(limit, None)

    def _give_back(self, limit: _Key) -> None:
        numbers = self._held[limit]
        self._count(limit[0], leased=-1)
        self._changes.released.append(Slot(*limit, numbers.pop()))
        if not numbers:
            del self._held[limit]
        self._exchange_within(0)

    def _take(self, slot: Slot) -> None:
        """A slot is this server's from now on."""
        assert self._answers is not None
        self._unconfirmed.add(slot)
        self._changes.confirmed.append(slot)
        limit = slot.function, slot.key
        self._held.setdefault(limit, []).append(slot.number)
        self._count(slot.function, leased=1)
        if self._wanted.pop(limit, None) is None:
            self._keep_spare(limit)
        else:
            self._count(slot.function, wanted=-1)
            self._changes.wanted.pop(limit, None)
            self._answers.slot_gained(*limit)

    def _count(self, function: bytes, leased: int = 0, wanted: int = 0) -> None:
        """A function has so many more or fewer."""
        before = self.by_function.get(function, NO_SLOTS)
        count = SlotCount(before.leased + leased, before.wanted + wanted)
        if any(count):
            self.by_function[function] = count
        else:
            self.by_function.pop(function, None)

    def _tell_gained(self) -> None:
        assert self._answers is not None
        self._next_tell = None
        gained, self._gained = self._gained, {}
        for limit in gained:
            self._answers.slot_gained(*limit)

    # -- the store --------------------------------------------------------------------------------

    def _exchange_within(self, delay: float) -> None:
        """Exchange within so many seconds, or after the exchange under way."""
        if not self._has_lease or self._is_exchanging or self._is_failing:
            return
        if self._next_exchange is None:
            self._next_exchange = self._reactor.callLater(delay, self._exchange)
        elif self._next_exchange.getTime() > self._reactor.seconds() + delay:
            self._next_exchange.reset(delay)

    def _exchange(self) -> None:
        self._next_exchange = None
        self._is_failing = False
        if self._in_flight is None:
            self._in_flight = self._some_changes()
        self._is_exchanging = True
        self._in_thread(self._store.exchange_slots, self._in_flight).addCallbacks(
            self._exchanged, self._not_exchanged, callbackArgs=(self._lease,), errbackArgs=(self._lease,)
        ).addErrback(log_defect)

    def _exchanged(self, new: list[Slot], lease: int) -> None:
        if lease != self._lease:
            return
        assert self._in_flight is not None
        self._unconfirmed.difference_update(self._in_flight.confirmed)
        self._in_flight, self._is_exchanging = None, False
        for slot in new:
            # What is still to be confirmed is told again.
            if slot not in self._unconfirmed:
                self._take(slot)
        changes = self._changes
        if new:
            self._poll_interval = self._lease_duration * FIRST_POLL
        if changes.released or changes.unwanted or changes.wanted or len(new) == MAX_SLOTS:
            self._exchange_within(0)
        elif self._wanted:
            self._exchange_within(self._poll_interval * (1 - POLL_JITTER * self._chance()))
            self._poll_interval = min(2 * self._poll_interval, self._lease_duration * LAST_POLL)

    def _not_exchanged(self, failure: Failure, lease: int) -> None:
        if lease != self._lease:
            return
        self._is_exchanging = False
        if isinstance(failure.value, LeaseLost):
            self._store_failed(failure)
            return
        # The writer tells the operator what is wrong with the store. That there are no slots now is no reason
        # to refuse jobs.
        if isinstance(failure.value, StoreError):
            _log.debug("Slots could not be exchanged: {error}", error=failure.value)
        else:
            _log.failure("The store failed with slots of limits", failure)
        self._exchange_within(RETRY_INTERVAL)
        self._is_failing = True

    def _some_changes(self) -> SlotChanges:
        """Take those changes that are next out of all. A slot can only be given back when the store knows
        that it was confirmed."""
        changes, confirmed = self._changes, self._changes.confirmed
        ready = [slot for slot in changes.released if slot not in self._unconfirmed]
        released = ready[:MAX_SLOTS]
        left = [slot for slot in changes.released if slot in self._unconfirmed] + ready[MAX_SLOTS:]
        unwanted = set(islice(changes.unwanted, MAX_SLOTS))
        wanted = dict(islice(changes.wanted.items(), MAX_SLOTS))
        for limit in wanted:
            del changes.wanted[limit]
        self._changes = SlotChanges([], left, changes.unwanted - unwanted, changes.wanted)
        return SlotChanges(confirmed, released, unwanted, wanted)

    def _cancel(self) -> None:
        for call in (self._next_exchange, self._next_tell):
            if call is not None and call.active():
                call.cancel()
        self._next_exchange = self._next_tell = None
