"""What an operator may choose about scheduling. Data only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

WAKE_PATIENCE: Final = 0.2
"""Seconds after which a woken worker that has not grabbed counts as not coming, and another is woken
for its job: longer than a round trip to a far worker, short enough that a job does not seem to hang."""

UNLIMITED: Final = -1


class FunctionOrder(Enum):
    """Which of a worker's functions is served first."""

    PRIORITY = "priority"
    """The highest priority over all of the worker's functions, which take turns within a priority:
    gearmand since 2.0."""
    REGISTRATION = "registration"
    """The function that the worker registered last, then the one before it, and so on; priority only
    within a function: gearmand 1.1. libgearman registers a worker's functions from last to first, so that
    its users see them served in the order in which they added them."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The settings of a `Broker`.

    `job_retries`: how many workers may lose a job before it fails; 0 and 1 are the same, as with
    gearmand, and `UNLIMITED` never gives up. `wakeup`: how many sleeping workers are woken for a job;
    0 wakes all. `round_robin`: with `FunctionOrder.REGISTRATION`, let functions take turns (with
    `FunctionOrder.PRIORITY` they always do). `handle_prefix`: what job handles begin with, ahead of
    a colon and a number.
    """

    handle_prefix: bytes = b"H:txgearman"
    job_retries: int = UNLIMITED
    wakeup: int = 1
    order: FunctionOrder = FunctionOrder.PRIORITY
    round_robin: bool = False
