"""The colours of the dashboard can be read, and told apart by those who see no red, no green or no blue."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from itertools import combinations

from twisted.trial.unittest import SynchronousTestCase

from txgearman.web.dashboard.files import STATIC

Colour = tuple[float, float, float]

SEEN = {
    "all": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "no red": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "no green": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "no blue": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}
"""What is seen of a colour, as matrices for linear RGB: Machado, Oliveira, Fernandes (2009), severity 1."""

TEXTS = ("ink", "soft", "accent", "danger", "warn", "good", "busy")
PLOTS = (("submitted", "completed", "failed"), ("queued", "running"), ("p50", "p95", "p99"))
"""The curves of each plot."""


def themes() -> dict[str, dict[str, Colour]]:
    """The colours of each theme by name, as linear RGB."""
    style = (STATIC / "style.css").read_text(encoding="utf-8")
    blocks = re.findall(r"^ *:root([^{]*)\{(.*?)\n *\}", style, flags=re.DOTALL | re.MULTILINE)
    return {
        selector.strip() or "light": {
            name: linear(value) for name, value in re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block)
        }
        for selector, block in blocks
    }


def linear(text: str) -> Colour:
    values = [int(text[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (
        each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in values
    )
    return red, green, blue


def contrast(one: Colour, other: Colour) -> float:
    """The ratio that WCAG 2 defines."""
    light, dark = sorted((0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in (one, other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def lab(colour: Colour, seen: tuple[tuple[float, ...], ...]) -> Iterator[float]:
    """What is seen of a colour, in CIE L*a*b* (D65)."""
    r, g, b = (
        min(1.0, max(0.0, sum(factor * part for factor, part in zip(row, colour, strict=True))))
        for row in seen
    )
    x, y, z = (
        each ** (1 / 3) if each > 0.008856 else 7.787 * each + 16 / 116
        for each in (
            (0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.95047,
            0.2126 * r + 0.7152 * g + 0.0722 * b,
            (0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.08883,
        )
    )
    yield from (116 * y - 16, 500 * (x - y), 200 * (y - z))


class ColourTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.themes = themes()

    def test_both_ways_to_the_dark_theme_are_the_same(self) -> None:
        """It is the system's or the viewer's choice, and stands in the style sheet twice."""
        light, system, chosen = self.themes.values()
        self.assertEqual(system, chosen)
        self.assertEqual(light.keys(), chosen.keys())

    def test_texts_can_be_read(self) -> None:
        for theme, colours in self.themes.items():
            for name in TEXTS:
                below = [
                    "surface",
                    "sunk",
                    "ground",
                    *([f"{name}-soft"] if f"{name}-soft" in colours else []),
                ]
                for ground in below:
                    ratio = contrast(colours[name], colours[ground])
                    self.assertGreaterEqual(ratio, 4.5, (theme, name, ground))

    def test_curves_can_be_seen_and_told_apart(self) -> None:
        for theme, colours in self.themes.items():
            for names in PLOTS:
                for name in names:
                    self.assertGreaterEqual(contrast(colours[name], colours["surface"]), 3, (theme, name))
                for pair in combinations(names, 2):
                    for eyes, seen in SEEN.items():
                        difference = math.dist(*[list(lab(colours[name], seen)) for name in pair])
                        self.assertGreaterEqual(difference, 24, (theme, pair, eyes))
