"""The replies to one peer: their order, when they are sent, and those that the broker gives about jobs."""
