"""What all connections together may hold: bytes not taken by their peers, and bytes of unfinished packets."""
