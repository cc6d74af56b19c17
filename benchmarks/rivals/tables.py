"""The results as tables of report.py. No measuring, no files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from benchmarks.report import NONE, Table
from benchmarks.rivals.contract import BULK, EACH
from benchmarks.rivals.measure import Called, Enqueued
from benchmarks.rivals.results import Results, Run, middle

MICROSECOND: Final = 1e-6
MEBIBYTE: Final = 1024 * 1024


def of(results: Results) -> list[Table]:
    """All tables that have rows."""
    made = [
        _enqueued(results),
        _worked(results),
        _called(results),
        _remembered(results),
        _measured(results),
    ]
    return [table for table in made if table.rows]


def _enqueued(results: Results) -> Table:
    heads = (
        "client",
        "jobs are kept in",
        "one by one, jobs/s",
        "CPU µs per job, client + broker",
        "in bulk, jobs/s",
        "CPU µs per job, client + broker",
    )
    rows = []
    for name, keeping in dict.fromkeys((name, keeping) for name, _, keeping in results.enqueued):
        each, bulk = (results.enqueued.get((name, role, keeping), []) for role in (EACH, BULK))
        rows.append((name, keeping, *_rate_and_cost(each), *_rate_and_cost(bulk)))
    return Table("One client process enqueues jobs", heads, rows)


def _rate_and_cost(runs: list[Enqueued]) -> tuple[str, str]:
    return (
        _cell(runs, lambda run: run.rate),
        _sum(
            _microseconds(runs, lambda run: run.client_cpu),
            _microseconds(runs, lambda run: run.broker_cpu),
        ),
    )


def _worked(results: Results) -> Table:
    heads = ("worker", "form", "jobs are kept in", "jobs/s", "CPU µs per job, worker + broker")
    rows = [
        (
            name,
            form,
            keeping,
            _cell(runs, lambda run: run.rate),
            _sum(
                _microseconds(runs, lambda run: run.worker_cpu),
                _microseconds(runs, lambda run: run.broker_cpu),
            ),
        )
        for (name, form, keeping), runs in results.worked.items()
    ]
    return Table("One worker process runs no-op jobs", heads, rows)


def _called(results: Results) -> Table:
    heads = (
        "client and worker",
        "form of the worker",
        "µs from submit to result, median",
        "99th percentile",
        "CPU µs per job, client + broker + worker",
    )
    costs: tuple[Callable[[Called], float], ...] = (
        lambda run: run.client_cpu,
        lambda run: run.broker_cpu,
        lambda run: run.worker_cpu,
    )
    rows = [
        (
            name,
            form,
            _microseconds(runs, lambda run: run.p50),
            _microseconds(runs, lambda run: run.p99),
            _sum(*(_microseconds(runs, cost) for cost in costs)),
        )
        for (name, form), runs in results.called.items()
    ]
    return Table("One job after the other, each waited for, in memory", heads, rows)


def _remembered(results: Results) -> Table:
    heads = ("client", "jobs", "broker, fresh MiB", "with the jobs, MiB", "bytes per job")
    rows = [
        (
            name,
            f"{found.jobs:,}",
            f"{found.fresh / MEBIBYTE:,.1f}",
            f"{found.full / MEBIBYTE:,.1f}",
            f"{found.per_job:,.0f}",
        )
        for name, found in results.remembered.items()
    ]
    return Table("Resident memory of the broker with queued jobs, in memory", heads, rows)


def _measured(results: Results) -> Table:
    versions = [
        (name, ", ".join(f"{package} {version}" for package, version in found.items()))
        for name, found in results.versions.items()
    ]
    rows = [*_where(results.environment), *versions] if versions else []
    return Table("What was measured", ("what", "versions and numbers"), rows)


def _where(environment: dict[str, Any]) -> list[tuple[str, str]]:
    """Where it was measured, and how much."""
    counts = (("memory", "in memory"), ("durable", "durable"), ("calls", "waited for"))
    return [
        ("machine", "{cores} processors ({processor}), {system}".format_map(environment)),
        ("Python", environment["python"]),
        ("rounds", str(environment["rounds"])),
        ("jobs in one measurement", ", ".join(f"{environment[count]:,} {name}" for count, name in counts)),
    ]


def _cell(runs: list[Run], value: Callable[[Run], float | None], unit: float = 1) -> str:
    found = middle(runs, value)
    return NONE if found is None else f"{found / unit:,.0f}"


def _microseconds(runs: list[Run], value: Callable[[Run], float | None]) -> str:
    return _cell(runs, value, MICROSECOND)


def _sum(*parts: str) -> str:
    """Several cells as one; one where nothing was measured."""
    return NONE if NONE in parts else " + ".join(parts)
