"""What a server really holds for its peers, counted anew. No tests here."""

from __future__ import annotations

from txgearman.server.budgets.unsent import SHARED_FROM, SendBudget


def really_held(budget: SendBudget) -> int:
    """Bytes of all that waits in the queues of `budget`, what several of them have counted once."""
    shared: dict[int, int] = {}
    rest = 0
    for queue in budget._waiting:
        rest += queue._beside
        for piece in queue._pieces:
            if isinstance(piece, bytes) and len(piece) >= SHARED_FROM:
                shared[id(piece)] = len(piece)
            else:
                rest += len(piece)
    return rest + sum(shared.values())
