"""The results as tables, for the terminal and as reStructuredText. No measuring, no files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.results import (
    BUSY,
    COMPILED,
    DISTURBED,
    FLOOR,
    THEIRS,
    Comparison,
    DepthRate,
    IdleMemory,
    JobMemory,
    LibraryComparison,
    Results,
    Spread,
)
from benchmarks.workloads import OURS

NONE: Final = "n/a"


@dataclass(frozen=True, slots=True)
class Table:
    """A title, the columns' heads, and rows of as many cells."""

    title: str
    heads: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def of_servers(results: Results) -> list[Table]:
    """The tables of the servers that have rows."""
    made = [
        _processor_time(results.comparisons),
        _comparison(results.comparisons),
        _cost(results.comparisons),
        _floor(results.comparisons),
        _compiled(results.comparisons),
        _depths(results.depths),
        _job_memory(results.job_memory),
        _idle_memory(results.idle_memory),
    ]
    return [table for table in made if table.rows]


def of_libraries(results: Results) -> list[Table]:
    """The tables of clients and workers that have rows."""
    return [table for table in [_libraries(results.libraries)] if table.rows]


def as_text(results: Results) -> str:
    """All tables for a terminal."""
    tables = [*of_servers(results), *of_libraries(results)]
    return "\n".join([as_plain(tables), *_warnings(results.comparisons, results.environment["cores"])])


def as_plain(tables: Sequence[Table]) -> str:
    """Tables for a terminal."""
    return "\n".join(map(_text, tables))


def as_rst(tables: Sequence[Table]) -> str:
    """Tables as reStructuredText ``list-table`` directives."""
    return "\n".join(_rst(table) for table in tables)


# -- the tables ---------------------------------------------------------------------------------


def _processor_time(comparisons: Sequence[Comparison]) -> Table:
    heads = (
        "workload",
        "build",
        "µs, ours / theirs",
        "ratio",
        "min..max",
        "target",
        "in the kernel, ours / theirs",
    )
    rows = [
        (
            row.workload.name,
            build,
            _pair(row, "server_cpu_per_job", unit=1e-6, digits=1, ours=server),
            *_ratio(row.cost(THEIRS, server)),
            _verdict(
                row.workload.cost_target if server == COMPILED else None,
                row.cost(THEIRS, server),
                less_is_better=True,
            ),
            _pair(row, "server_kernel_per_job", unit=1e-6, digits=1, ours=server),
        )
        for row in comparisons
        for server, build in ((OURS, "plain"), (COMPILED, "compiled"))
        if row.samples.get(server)
    ]
    return Table("The server's processor time for a job", heads, rows)


def _comparison(comparisons: Sequence[Comparison]) -> Table:
    heads = (
        "workload",
        "txgearman/s",
        "gearmand/s",
        "ratio",
        "min..max",
        "target",
        "p50 µs, ours / theirs",
        "p99 µs, ours / theirs",
    )
    rows = [
        (
            row.workload.name,
            _count(row.rate(OURS)),
            _count(row.rate(THEIRS)),
            *_ratio(row.ratio(THEIRS)),
            _verdict(row.workload.target, row.ratio(THEIRS)),
            _pair(row, "p50"),
            _pair(row, "p99"),
        )
        for row in comparisons
    ]
    return Table("Jobs per second", heads, rows)


def _cost(comparisons: Sequence[Comparison]) -> Table:
    heads = (
        "workload",
        "jobs, ours / theirs",
        "server CPU s, ours / theirs",
        "cores busy, ours / theirs",
        "generator, ours / theirs",
        "peak MiB, ours / theirs",
    )
    rows = [
        (
            row.workload.name,
            _pair(row, "jobs"),
            _pair(row, "server_cpu", digits=2),
            _pair(row, "server_share", digits=2),
            _pair(row, "generator_share", digits=2),
            _pair(row, "peak", unit=1024 * 1024),
        )
        for row in comparisons
    ]
    return Table("What it cost the server, and the load generator's share of a core", heads, rows)


def _floor(comparisons: Sequence[Comparison]) -> Table:
    heads = ("workload", "bare Twisted/s", "txgearman/s", "ratio", "min..max", "gearmand/s")
    rows = [
        (
            row.workload.name,
            _count(row.rate(FLOOR)),
            _count(row.rate(OURS)),
            *_ratio(row.ratio(FLOOR)),
            _count(row.rate(THEIRS)),
        )
        for row in comparisons
        if row.rate(FLOOR) is not None
    ]
    return Table("Against a bare Twisted protocol", heads, rows)


def _compiled(comparisons: Sequence[Comparison]) -> Table:
    heads = (
        "workload",
        "compiled/s",
        "gearmand/s",
        "ratio",
        "min..max",
        "target",
        "to plain txgearman",
    )
    rows = [
        (
            row.workload.name,
            _count(row.rate(COMPILED)),
            _count(row.rate(THEIRS)),
            *_ratio(row.ratio(THEIRS, COMPILED)),
            _verdict(row.workload.target, row.ratio(THEIRS, COMPILED)),
            _ratio(row.ratio(OURS, COMPILED))[0],
        )
        for row in comparisons
        if row.rate(COMPILED) is not None
    ]
    return Table("The compiled build", heads, rows)


def _libraries(comparisons: Sequence[LibraryComparison]) -> Table:
    heads = (
        "workload",
        "library",
        "jobs/s",
        "txgearman to it",
        "min..max",
        "target",
        "µs of CPU per job",
        "its CPU to txgearman's",
        "share of a core",
        "server's cores busy",
    )
    rows = [
        (
            row.workload.name,
            library,
            _count(row.rate(library)),
            *_ratio(None if library == OURS else row.ratio(library)),
            _verdict(row.workload.target, row.ratio(library)) if library in row.workload.aimed_at else NONE,
            _cell(row.middle(library, "cpu_per_job"), unit=1e-6, digits=1),
            NONE if library == OURS else _ratio(row.cost(library))[0],
            _cell(row.middle(library, "share"), digits=2),
            _cell(row.middle(library, "server_share"), digits=2),
        )
        for row in comparisons
        for library in row.samples
    ]
    return Table("One client process or one worker process on gearmand", heads, rows)


def _depths(depths: Sequence[DepthRate]) -> Table:
    heads = ("workload", "jobs queued", "txgearman/s", "jobs queued", "txgearman/s", "ratio", "min..max")
    rows = [
        (
            row.workload,
            _count(row.shallow),
            _count(row.shallow_rate),
            _count(row.deep),
            _count(row.deep_rate),
            *_ratio(row.ratio),
        )
        for row in depths
    ]
    return Table("txgearman, shallow and deep", heads, rows)


def _job_memory(memory: Sequence[JobMemory]) -> Table:
    heads = ("server", "jobs", "unique", "fresh MiB", "full MiB", "drained MiB", "bytes per job")
    rows = [
        (
            row.server,
            _count(row.jobs),
            "yes" if row.unique else "no",
            _mebibytes(row.fresh),
            _mebibytes(row.full),
            _mebibytes(row.drained),
            _count(row.per_job),
        )
        for row in memory
    ]
    return Table("Memory of queued jobs of 64 bytes", heads, rows)


def _idle_memory(memory: Sequence[IdleMemory]) -> Table:
    heads = ("server", "connections", "fresh MiB", "connected MiB", "bytes per connection")
    rows = [
        (
            row.server,
            _count(row.connections),
            _mebibytes(row.fresh),
            _mebibytes(row.full),
            _count(row.per_connection),
        )
        for row in memory
    ]
    return Table("Memory of idle connections", heads, rows)


def _warnings(comparisons: Sequence[Comparison], cores: int) -> list[str]:
    """Where something else than the server may have set the rate."""
    generator: list[str] = []
    together: list[str] = []
    foreign: list[str] = []
    for row in comparisons:
        for server, samples in row.samples.items():
            where = f"{row.workload.name} with {server}"
            own = max(sample.generator_share for sample in samples)
            both = max(sample.generator_share + sample.server_share for sample in samples)
            others = max(sample.foreign_share for sample in samples)
            if own > BUSY:
                generator.append(f"{where} ({own:.2f})")
            elif both > BUSY * cores:
                together.append(f"{where} ({both:.2f})")
            if others > DISTURBED:
                foreign.append(f"{where} ({others:.2f})")
    found = {
        "The load generator's one thread may have been the limit, cores busy": generator,
        f"Server and generator filled the {cores} cores, more would give more, cores busy": together,
        "Other processes were at work, measure again on a quiet machine, cores they took": foreign,
    }
    return [f"{text}: {', '.join(places)}." for text, places in found.items() if places]


# -- cells --------------------------------------------------------------------------------------


def _count(value: float | None) -> str:
    return _cell(value)


def _mebibytes(value: float) -> str:
    return f"{value / 1024 / 1024:,.1f}"


def _ratio(ratio: Spread | None) -> tuple[str, str]:
    return (NONE, NONE) if ratio is None else (f"{ratio.median:.2f}", f"{ratio.low:.2f}..{ratio.high:.2f}")


def _verdict(target: float | None, ratio: Spread | None, *, less_is_better: bool = False) -> str:
    if target is None:
        return NONE
    if ratio is None:
        return f"{target:g}"
    is_met = ratio.median <= target if less_is_better else ratio.median >= target
    return f"{target:g} {'met' if is_met else 'missed'}"


def _pair(row: Comparison, what: str, unit: float = 1, digits: int = 0, ours: str = OURS) -> str:
    values = [row.middle(server, what) for server in (ours, THEIRS)]
    if values == [None, None]:
        return NONE
    return " / ".join(_cell(value, unit, digits) for value in values)


def _cell(value: float | None, unit: float = 1, digits: int = 0) -> str:
    return NONE if value is None else f"{value / unit:,.{digits}f}"


# -- layouts ------------------------------------------------------------------------------------


def _text(table: Table) -> str:
    widths = [max(map(len, column)) for column in zip(table.heads, *table.rows, strict=True)]
    lines = [
        "  ".join(cell.rjust(width) if index else cell.ljust(width) for index, (cell, width) in row).rstrip()
        for row in (enumerate(zip(cells, widths, strict=True)) for cells in (table.heads, *table.rows))
    ]
    return "\n".join([table.title, "=" * len(table.title), lines[0], "-" * len(lines[0]), *lines[1:], ""])


def _rst(table: Table) -> str:
    lines = [f".. list-table:: {table.title}", "   :header-rows: 1", ""]
    for row in (table.heads, *table.rows):
        lines += [f"   {'-' if index else '* -'} {cell}" for index, cell in enumerate(row)]
    return "\n".join(lines).replace("\n   - ", "\n     - ") + "\n"
