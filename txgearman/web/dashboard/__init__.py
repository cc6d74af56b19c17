"""The dashboard: static files, and what serves them. What they show comes from `api`."""
