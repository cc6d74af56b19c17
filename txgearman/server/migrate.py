"""``python -m txgearman.server.migrate``: take the jobs of gearmand's queue over into a store."""

from __future__ import annotations

import sys

from txgearman.server.persistence.migration import main

if __name__ == "__main__":
    sys.exit(main())
