"""How a server is and what it has done: health, event loop lag, limits, traffic, traces. Read only."""
