"""Background work: one runner for all loops, and the loops that only keep house."""
