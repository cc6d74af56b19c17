"""Keeping background jobs: what stands between the broker, which must not wait, and a store, which blocks.

`writer` batches changes into transactions, `lease` is this server's right to its stored jobs, and `migration`
brings in the jobs of gearmand. No SQL here, and no decision about jobs.
"""
