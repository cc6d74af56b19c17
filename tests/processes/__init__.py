"""Servers as processes of their own, and their packets: what trials by destruction and attacks share."""
