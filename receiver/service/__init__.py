"""The life of a process: composed, started, served, supervised and stopped."""
