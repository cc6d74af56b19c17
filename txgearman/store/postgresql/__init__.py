"""Jobs in PostgreSQL, which several servers may share."""
