"""All attacks, by name, in the order in which they are run."""

from __future__ import annotations

import inspect
from typing import Final

from tests.attack import connections, fuzzing, held, leaving, multiplied, names, pages, parsing, walks
from tests.attack.attack import Attack

ATTACKS: Final[dict[str, type[Attack]]] = {
    attack.name: attack
    for module in (connections, pages, names, held, multiplied, walks, leaving, parsing, fuzzing)
    for attack in vars(module).values()
    if inspect.isclass(attack) and issubclass(attack, Attack) and attack.__module__ == module.__name__
    if "name" in vars(attack)
}
"""Every class of these modules that has a name."""
