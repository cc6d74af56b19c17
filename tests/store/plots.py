"""Plots in memory, for the stores of tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from txgearman.store.contract import PlotPiece


class MemoryPlots:
    """The `plots` of a store in memory. `check` raises what each call of the store raises."""

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check
        self._pieces: dict[tuple[str, str, float], PlotPiece] = {}

    def read(self, server: str, since: float) -> list[PlotPiece]:
        self._check()
        found = [piece for key, piece in self._pieces.items() if key[0] == server and piece.began >= since]
        return sorted(found, key=lambda piece: piece.began)

    def save(self, server: str, pieces: Sequence[PlotPiece], before: float) -> None:
        self._check()
        for key in [key for key in self._pieces if key[0] == server and key[2] < before]:
            del self._pieces[key]
        self._pieces.update({(server, piece.name, piece.began): piece for piece in pieces})
