"""Proof by attack: one adversary at a time against a server that also serves honest peers, and what that
cost these. ``make attack`` runs all of them."""
