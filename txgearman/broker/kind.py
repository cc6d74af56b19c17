"""What workers of one kind have in common: the same functions in the same order."""

from __future__ import annotations

from typing import Generic, TypeVar

F = TypeVar("F")
"""A function. Nothing here looks into it."""


class Kind(Generic[F]):
    """Functions in the order in which workers registered them, as the key of their set. To make one walks
    them; to find it again does not."""

    __slots__ = ("_hash", "functions")

    def __init__(self, functions: tuple[F, ...]) -> None:
        self.functions = functions
        self._hash = hash(functions)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Kind) and self.functions == other.functions
