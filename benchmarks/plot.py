"""The ratios as a bar chart in SVG. Drawing only: numbers in, text out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Final
from xml.sax.saxutils import escape

from benchmarks.results import Spread

WIDTH: Final = 860
LEFT: Final = 170
RIGHT: Final = 80
TOP: Final = 64
ROW: Final = 30
BAR: Final = 14
BOTTOM: Final = 46
"""Lengths in pixels."""

FASTER: Final = "#2f7d4f"
SLOWER: Final = "#b5533c"
INK: Final = "#222222"
FAINT: Final = "#d5d5d5"

TICKS: Final = (1, 2, 5)
"""Labelled within each power of ten."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: its label, how much faster (1: as fast), and what was aimed at, if anything."""

    label: str
    ratio: Spread
    target: float | None = None


@dataclass(frozen=True, slots=True)
class Scale:
    """A logarithmic axis from ratio `low` to ratio `high`, both powers of ten or labelled ticks."""

    low: float
    high: float

    def at(self, ratio: float) -> float:
        """Where `ratio` stands, in pixels from the left."""
        share = (log10(ratio) - log10(self.low)) / (log10(self.high) - log10(self.low))
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def ticks(self) -> list[float]:
        """The labelled ratios."""
        return [tick for tick in _all_ticks(self.low, self.high) if self.low <= tick <= self.high]


def bar_chart(title: str, bars: Sequence[Bar]) -> str:
    """An SVG document with a bar for each of `bars`, from the line at 1 to the median.

    Whiskers go from the least to the largest ratio; a small triangle shows the target.
    Raises `ValueError` if there are no bars.
    """
    if not bars:
        raise ValueError("there is nothing to draw")
    scale = _scale_for(bars)
    height = TOP + ROW * len(bars) + BOTTOM
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
            f'viewBox="0 0 {WIDTH} {height}" font-family="Helvetica, Arial, sans-serif" font-size="13">',
            f"<title>{escape(title)}</title>",
            f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
            _words(title, 16, 26, "start", size=16),
            _words("median of the rounds; whiskers: least and largest; ▲ target", 16, 46, "start", size=12),
            *_axis(scale, height - BOTTOM),
            *(line for row, bar in enumerate(bars) for line in _bar(scale, bar, TOP + ROW * row + ROW / 2)),
            "</svg>",
            "",
        ]
    )


def _scale_for(bars: Sequence[Bar]) -> Scale:
    """The shortest axis between labelled ticks that holds every bar and the line at 1."""
    low = min(1.0, *(min(bar.ratio.low, bar.target or 1.0) for bar in bars))
    high = max(1.0, *(max(bar.ratio.high, bar.target or 1.0) for bar in bars))
    ticks = _all_ticks(low / 10, high * 10)
    return Scale(max(tick for tick in ticks if tick < low), min(tick for tick in ticks if tick > high))


def _all_ticks(low: float, high: float) -> list[float]:
    powers = range(floor(log10(low)), ceil(log10(high)) + 1)
    # As text and back: 5 * 10.0 ** -2 is not the 0.05 that is meant.
    return [float(f"{digit}e{power}") for power in powers for digit in TICKS]


def _axis(scale: Scale, bottom: float) -> Iterator[str]:
    for tick in scale.ticks():
        at = scale.at(tick)
        colour, width = (INK, 1.5) if tick == 1 else (FAINT, 1)
        yield _line(at, TOP - 4, at, bottom, colour, width)
        yield _words(f"{tick:g} x", at, bottom + 17, "middle", size=12)
    yield _words("slower than gearmand", scale.at(1) - 10, bottom + 35, "end", size=12)
    yield _words("faster than gearmand", scale.at(1) + 10, bottom + 35, "start", size=12)


def _bar(scale: Scale, bar: Bar, middle: float) -> Iterator[str]:
    one, end = scale.at(1), scale.at(bar.ratio.median)
    low, high = scale.at(bar.ratio.low), scale.at(bar.ratio.high)
    colour = FASTER if bar.ratio.median >= 1 else SLOWER
    yield _words(bar.label, LEFT - 12, middle + 4, "end")
    yield (
        f'<rect x="{min(one, end):.1f}" y="{middle - BAR / 2:.1f}" width="{abs(end - one):.1f}" '
        f'height="{BAR}" fill="{colour}"/>'
    )
    yield _line(low, middle, high, middle, INK, 1.2)
    for at in (low, high):
        yield _line(at, middle - 4, at, middle + 4, INK, 1.2)
    if bar.target is not None:
        at, tip = scale.at(bar.target), middle + BAR / 2
        yield f'<path d="M{at:.1f} {tip:.1f} l-4 7 h8 z" fill="{INK}"/>'
    yield _words(f"{bar.ratio.median:.2f} x", WIDTH - 14, middle + 4, "end")


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{colour}" stroke-width="{width:g}"/>'


def _words(text: str, x: float, y: float, anchor: str, *, size: int = 13) -> str:
    where = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"'
    return f'<text {where} fill="{INK}">{escape(text)}</text>'
