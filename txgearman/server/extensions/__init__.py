"""What the extensions of the protocol need beside the broker: attributes of submits, waits for results."""
