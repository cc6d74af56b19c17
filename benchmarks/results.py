"""What the benchmarks found, as plain data, and the arithmetic on it. No processes, no printing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Final, Generic, Protocol, TypeVar

from benchmarks.workloads import OURS, LibraryWorkload, Workload

THEIRS: Final = "gearmand"
FLOOR: Final = "floor"
COMPILED: Final = "compiled"
"""Names of the servers in all results."""

BUSY: Final = 0.9
"""Share of one core from which the load generator, which has one thread, may be what limits a rate; and
share of all cores from which the machine may be."""

DISTURBED: Final = 0.25
"""Share of one core from which other processes make a rate doubtful."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of one workload on one fresh server.

    `jobs` were measured, `rate` is in jobs per second, `seconds` the time within the clock, `p50` and
    `p99` latencies in microseconds (None where a job has none), `noops` the NOOPs that workers got,
    `generator_cpu`, `server_cpu` and `machine_cpu` CPU seconds within the clock of the load generator,
    the server and everything on the machine, `server_kernel` those of the server's that were spent in the
    kernel, `peak` the most resident memory in bytes.
    """

    jobs: int
    rate: float
    seconds: float
    p50: float | None
    p99: float | None
    noops: int
    generator_cpu: float
    server_cpu: float
    server_kernel: float
    machine_cpu: float
    peak: int

    @property
    def server_cpu_per_job(self) -> float:
        """CPU seconds that the server spent on one job."""
        return self.server_cpu / self.jobs

    @property
    def server_kernel_per_job(self) -> float:
        """CPU seconds of `server_cpu_per_job` that were spent in the kernel, to read and write."""
        return self.server_kernel / self.jobs

    @property
    def server_share(self) -> float:
        """The server's share of one core; more than 1 where several threads are at work."""
        return self.server_cpu / self.seconds

    @property
    def generator_share(self) -> float:
        """The load generator's share of one core; it has one thread."""
        return self.generator_cpu / self.seconds

    @property
    def foreign_share(self) -> float:
        """What all else on the machine took, and its host kept from it, in shares of one core."""
        return max(0.0, self.machine_cpu - self.server_cpu - self.generator_cpu) / self.seconds


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of several numbers, and the least and the largest of them."""

    median: float
    low: float
    high: float


class Rated(Protocol):
    """One run of something: its `rate` in jobs per second."""

    @property
    def rate(self) -> float: ...


Run = TypeVar("Run", bound=Rated)


@dataclass(frozen=True, slots=True)
class Rounds(Generic[Run]):
    """All runs of one workload, by what was measured, in the order of the rounds."""

    samples: dict[str, list[Run]] = field(default_factory=dict)

    def rate(self, name: str) -> float | None:
        """The median rate of what is called `name` in jobs per second; None if it was not measured."""
        return self.middle(name, "rate")

    def middle(self, name: str, what: str) -> float | None:
        """The median over the rounds of one value of its runs; None where there is none."""
        values = [getattr(sample, what) for sample in self.samples.get(name, ())]
        return None if not values or None in values else median(values)

    def ratio(self, over: str, of: str = OURS) -> Spread | None:
        """The rate of `of` divided by that of `over`, round by round; None if one was not measured.

        Both runs of a round follow each other, so what slows the machine for a while slows both.
        """
        if not (self.samples.get(over) and self.samples.get(of)):
            return None
        rounds = zip(self.samples[of], self.samples[over], strict=True)
        return spread([ours.rate / theirs.rate for ours, theirs in rounds])


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison(Rounds[Sample]):
    """All runs of one workload by servers."""

    workload: Workload

    def cost(self, over: str, of: str = OURS) -> Spread | None:
        """The server's CPU time for a job of `of` divided by that of `over`, round by round.

        None if one was not measured, or took less than the kernel counts.
        """
        if not (self.samples.get(over) and self.samples.get(of)):
            return None
        rounds = list(zip(self.samples[of], self.samples[over], strict=True))
        if not all(theirs.server_cpu for _, theirs in rounds):
            return None
        return spread([ours.server_cpu_per_job / theirs.server_cpu_per_job for ours, theirs in rounds])

    def as_json(self) -> dict[str, Any]:
        """Everything, ready for `json.dump`."""
        ratio = self.ratio(THEIRS)
        floor = self.ratio(FLOOR)
        return {
            "workload": asdict(self.workload),
            "ratio": asdict(ratio) if ratio else None,
            "ratio_to_floor": asdict(floor) if floor else None,
            "samples": {name: [asdict(sample) for sample in runs] for name, runs in self.samples.items()},
        }


@dataclass(frozen=True, slots=True)
class LibrarySample:
    """One run of one library's client or worker process on a fresh gearmand.

    `jobs` were measured, `rate` is in jobs per second, `seconds` the time within the program's clock, `cpu`
    its CPU seconds in it, `server_cpu` those of the server from the program's start to its end.
    """

    jobs: int
    rate: float
    seconds: float
    cpu: float
    server_cpu: float

    @property
    def cpu_per_job(self) -> float:
        """CPU seconds that the program spent on one job."""
        return self.cpu / self.jobs

    @property
    def share(self) -> float:
        """The program's share of one core. Where it is near 1 the program itself sets the rate."""
        return self.cpu / self.seconds

    @property
    def server_share(self) -> float:
        """The server's share of one core; it has several threads."""
        return self.server_cpu / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryComparison(Rounds[LibrarySample]):
    """All runs of one workload by libraries."""

    workload: LibraryWorkload

    def cost(self, library: str) -> Spread | None:
        """The CPU time that `library` takes for a job divided by txgearman's, round by round.

        Other work on the machine changes it far less than the rates. None if one was not measured.
        """
        if not self.samples.get(library):
            return None
        rounds = zip(self.samples[OURS], self.samples[library], strict=True)
        return spread([theirs.cpu_per_job / ours.cpu_per_job for ours, theirs in rounds])

    def as_json(self) -> dict[str, Any]:
        """Everything, ready for `json.dump`."""
        ratios = {name: self.ratio(name) for name in self.samples}
        costs = {name: self.cost(name) for name in self.samples}
        return {
            "workload": asdict(self.workload),
            "ratios": {name: asdict(ratio) for name, ratio in ratios.items() if ratio},
            "costs": {name: asdict(cost) for name, cost in costs.items() if cost},
            "samples": {name: [asdict(sample) for sample in runs] for name, runs in self.samples.items()},
        }


@dataclass(frozen=True, slots=True)
class DepthRate:
    """txgearman's rates with few and with many jobs queued, and the second divided by the first."""

    workload: str
    shallow: int
    deep: int
    shallow_rate: float
    deep_rate: float
    ratio: Spread


@dataclass(frozen=True, slots=True)
class JobMemory:
    """Resident memory of a server, in bytes: fresh, with `jobs` queued, and after they were worked off."""

    server: str
    unique: bool
    jobs: int
    fresh: int
    full: int
    drained: int

    @property
    def per_job(self) -> float:
        """Bytes that one queued job takes."""
        return (self.full - self.fresh) / self.jobs


@dataclass(frozen=True, slots=True)
class IdleMemory:
    """Resident memory of a server, in bytes: fresh, and with `connections` idle ones."""

    server: str
    connections: int
    fresh: int
    full: int

    @property
    def per_connection(self) -> float:
        """Bytes that one idle connection takes in the server's own memory, without the kernel's."""
        return (self.full - self.fresh) / self.connections


@dataclass(frozen=True, slots=True)
class Results:
    """Everything one call of the runner found. `environment` says where and with what."""

    environment: dict[str, Any]
    comparisons: list[Comparison] = field(default_factory=list)
    libraries: list[LibraryComparison] = field(default_factory=list)
    depths: list[DepthRate] = field(default_factory=list)
    job_memory: list[JobMemory] = field(default_factory=list)
    idle_memory: list[IdleMemory] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Everything, ready for `json.dump`."""
        return {
            "environment": self.environment,
            "comparisons": [comparison.as_json() for comparison in self.comparisons],
            "libraries": [comparison.as_json() for comparison in self.libraries],
            "depths": [asdict(depth) for depth in self.depths],
            "job_memory": [{**asdict(row), "per_job": row.per_job} for row in self.job_memory],
            "idle_memory": [
                {**asdict(row), "per_connection": row.per_connection} for row in self.idle_memory
            ],
        }


def spread(values: Sequence[float]) -> Spread:
    """Median, least and largest of at least one number."""
    return Spread(median(values), min(values), max(values))
