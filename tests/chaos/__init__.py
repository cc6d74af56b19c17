"""Proof by destruction: servers, databases and connections are ended at random moments under load, and
afterwards every job that was acknowledged must have run. ``make chaos`` runs it for long."""
