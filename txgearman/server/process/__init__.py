"""The process that ``twistd gearmand`` runs: its options, signals, systemd, memory and log."""
