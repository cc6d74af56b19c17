"""What every store that keeps plots must do with them, as tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from txgearman.store.contract import PlotPiece, Store

if TYPE_CHECKING:
    from twisted.trial.unittest import SynchronousTestCase as _TestCase
else:
    _TestCase = object

NOON = 1_800_000_000.0


class PlotContract(_TestCase):
    """`store` is open on an empty database of its own."""

    store: Store

    def test_plots_are_kept_by_server(self) -> None:
        self.assertEqual(self.store.plots.read("here", 0), [])
        odd = PlotPiece("function:%FF\N{SNOWMAN}", NOON + 0.5, bytes(range(256)))
        first, later = PlotPiece("total", NOON, b""), PlotPiece("total", NOON + 3600, b"later")
        self.store.plots.save("here", [later, odd, first], 0)
        self.store.plots.save("there", [first], 0)
        self.assertEqual(self.store.plots.read("here", 0), [first, odd, later])
        self.assertEqual(self.store.plots.read("here", NOON + 0.5), [odd, later])
        self.assertEqual(self.store.plots.read("there", 0), [first])

    def test_a_piece_takes_the_place_of_the_one_before(self) -> None:
        before, other = PlotPiece("f", NOON, b"a"), PlotPiece("g", NOON, b"b")
        self.store.plots.save("here", [before, other], 0)
        self.store.plots.save("there", [before], 0)
        after = PlotPiece("f", NOON, b"aa")
        self.store.plots.save("here", [after], 0)
        self.assertCountEqual(self.store.plots.read("here", 0), [after, other])
        self.assertEqual(self.store.plots.read("there", 0), [before], "that of another server stays")

    def test_old_ones_are_deleted(self) -> None:
        pieces = [PlotPiece("f", NOON + hour, b"") for hour in range(5)]
        self.store.plots.save("here", pieces, 0)
        self.store.plots.save("there", pieces, 0)
        self.store.plots.save("here", [], NOON + 3)
        self.assertEqual(self.store.plots.read("here", 0), pieces[3:])
        self.assertEqual(self.store.plots.read("there", 0), pieces)
