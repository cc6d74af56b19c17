"""The HTTP interface for programs: one table of routes, jobs, live documents."""
