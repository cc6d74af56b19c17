"""What the comparison found, as plain data, and the arithmetic on it. No processes, no printing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, TypeVar

from benchmarks.rivals.measure import Called, Enqueued, Remembered, Worked

Run = TypeVar("Run")


@dataclass(frozen=True, slots=True)
class Results:
    """All runs in the order of the rounds.

    The keys begin with the name of a job system. A client's role or a worker's form follows, and what the
    broker keeps its jobs in. `environment` says where it was measured.
    """

    environment: dict[str, Any]
    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    enqueued: dict[tuple[str, str, str], list[Enqueued]] = field(default_factory=dict)
    worked: dict[tuple[str, str, str], list[Worked]] = field(default_factory=dict)
    called: dict[tuple[str, str], list[Called]] = field(default_factory=dict)
    remembered: dict[str, Remembered] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Everything, ready for `json.dump`."""
        return {
            "environment": self.environment,
            "versions": self.versions,
            "skipped": self.skipped,
            **{
                name: [{"of": key, "runs": [asdict(run) for run in runs]} for key, runs in found.items()]
                for name, found in (
                    ("enqueued", self.enqueued),
                    ("worked", self.worked),
                    ("called", self.called),
                )
            },
            "remembered": {
                name: {**asdict(found), "per_job": found.per_job} for name, found in self.remembered.items()
            },
        }


def middle(runs: Sequence[Run], value: Callable[[Run], float | None]) -> float | None:
    """The median of one value over the rounds; None if there is none."""
    found = [one for run in runs if (one := value(run)) is not None]
    return median(found) if found else None
