"""``python -m txgearman.cli`` is the command ``txgearman``."""

from txgearman.cli import main

if __name__ == "__main__":
    main()
