"""What is kept of the past: events replayed through the machine, and forgotten in time."""
